"""The shop's tables, as they were before the flash sale, but for one column: `Product.lent`."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Sum


class Product(models.Model):
    """What the shop has. Both channels sell from `stock`; the flash sale takes its units out in advance."""

    sku = models.CharField(max_length=64, primary_key=True)
    stock = models.PositiveIntegerField()
    lent = models.PositiveIntegerField(default=0)  # units that the flash sale has: sold there, or for sale there

    def __str__(self) -> str:
        return self.sku


class Price(models.Model):
    product = models.OneToOneField(Product, models.CASCADE, primary_key=True)
    full = models.PositiveIntegerField()  # cents
    discount = models.PositiveSmallIntegerField(default=0)  # per cent

    def __str__(self) -> str:
        return f"{self.product_id}: {self.cents}"

    @property
    def cents(self) -> int:
        return self.full * (100 - self.discount) // 100


class Order(models.Model):
    """An order of either channel."""

    class State(models.TextChoices):
        OPEN = "open"
        PAID = "paid"
        CANCELLED = "cancelled"

    number = models.CharField(max_length=128, primary_key=True)  # by which buyer, bank and staff call it
    customer = models.CharField(max_length=128)
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    is_flash = models.BooleanField(default=False)
    cents = models.PositiveIntegerField()  # what is to pay

    def __str__(self) -> str:
        return self.number


class OrderLine(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.PROTECT)
    quantity = models.PositiveIntegerField()
    cents = models.PositiveIntegerField()  # for one, as it was when the buyer bought
    returned = models.BooleanField(default=False)  # its units are for sale again

    def __str__(self) -> str:
        return f"{self.quantity} {self.product_id}"


class Voucher(models.Model):
    """It is good for one order."""

    code = models.CharField(max_length=32, primary_key=True)
    cents = models.PositiveIntegerField()
    used_by = models.CharField(max_length=128, blank=True, db_index=True)  # the order's number

    def __str__(self) -> str:
        return self.code


class Payment(models.Model):
    """Money that came, or was taken back (negative). It may come before its order, so `number` is no foreign key."""

    event = models.CharField(max_length=64, primary_key=True)  # the bank's: sent twice it is the same money
    number = models.CharField(max_length=128, db_index=True)
    cents = models.IntegerField()

    def __str__(self) -> str:
        return self.event


def refunds_due() -> dict[str, int]:
    """Returns the cents that must go back, by the order's number: no paid order stands for them."""
    paid = Order.objects.filter(state=Order.State.PAID).values("number")
    money = Payment.objects.values("number").annotate(sum=Sum("cents")).filter(sum__gt=0).exclude(number__in=paid)
    return dict(money.values_list("number", "sum"))


def take(sku: str, units: int) -> bool:
    """Takes units from the stock, or with a negative number gives them back; False when there are not so many."""
    enough = Product.objects.filter(sku=sku, stock__gte=units)
    return bool(enough.update(stock=F("stock") - units))
