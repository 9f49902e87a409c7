"""The models of `DjangoStore`: the tables of `SQLAlchemyStore` with Django's `id` added, so that both can use them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from flashsale.errors import InvalidRequest
from flashsale.model import Goods
from flashsale.model.checks import check_sale

_COLLATION = {"postgresql": "C", "mysql": "ascii_bin"}


class IdField(models.CharField):
    """An id: ASCII, compared byte by byte, whatever the database's own collation folds or sorts."""

    def db_parameters(self, connection: Any) -> dict[str, Any]:
        """Returns the parameters of the column, with the collation of this database."""
        parameters: dict[str, Any] = super().db_parameters(connection)
        return parameters | {"collation": _COLLATION.get(connection.vendor)}


class ReasonField(models.TextField):
    """Text of the host's in any script, whatever the database's own character set holds."""

    def db_parameters(self, connection: Any) -> dict[str, Any]:
        """Returns the parameters of the column, with the collation of this database."""
        parameters: dict[str, Any] = super().db_parameters(connection)
        return parameters | ({"collation": "utf8mb4_bin"} if connection.vendor == "mysql" else {})


class Sale(models.Model):
    """One sale; a rebuild raises its epoch, and a purge ends it."""

    sale = IdField(max_length=64, primary_key=True)
    epoch = models.IntegerField()
    purged_at = models.FloatField(null=True, editable=False)
    partitions = models.IntegerField(null=True, editable=False)

    class Meta:
        db_table = "flashsale_sales"

    def __str__(self) -> str:
        return str(self.sale)


class SaleGoods(models.Model):
    """One item of a sale: its policy, and the units granted to Redis and booked."""

    sale = IdField(max_length=64)
    goods_id = IdField(max_length=64)
    total = models.BigIntegerField(help_text="units for sale")
    granted = models.BigIntegerField(default=0, editable=False)
    booked = models.BigIntegerField(default=0, editable=False)
    version = models.BigIntegerField(default=0, editable=False)
    per_buyer = models.BigIntegerField(null=True, blank=True, help_text="most units of one buyer")
    opens_at = models.FloatField(null=True, blank=True, help_text="epoch seconds; empty: started by hand")
    closes_at = models.FloatField(null=True, blank=True, help_text="epoch seconds")
    hold = models.FloatField(null=True, blank=True, help_text="seconds to pay")
    loaded = models.BooleanField(default=False, editable=False)

    class Meta:
        db_table = "flashsale_goods"
        verbose_name_plural = "goods"
        constraints = (models.UniqueConstraint(fields=["sale", "goods_id"], name="flashsale_goods_key"),)

    def __str__(self) -> str:
        return f"{self.goods_id} of {self.sale}"

    def clean(self) -> None:
        """Checks a form by the rules of the sale; Django calls it."""
        try:
            check_sale(self.sale)
            self.to_goods()
        except InvalidRequest as error:
            raise ValidationError(str(error)) from error

    def to_goods(self) -> Goods:
        """Returns the policy of this row.

        Raises:
            InvalidRequest: it is not valid.
        """
        return Goods(
            self.goods_id,
            self.total,
            per_buyer=self.per_buyer,
            opens_at=self.opens_at,
            closes_at=self.closes_at,
            hold=self.hold,
        )


class SaleOrder(models.Model):
    """One order and its current state."""

    sale = IdField(max_length=64)
    order_id = IdField(max_length=128)
    goods_id = IdField(max_length=64)
    buyer_id = IdField(max_length=128)
    quantity = models.IntegerField()
    state = models.CharField(max_length=16)
    created_at = models.FloatField(null=True)
    data = models.TextField(null=True)
    settled_at = models.FloatField(null=True, editable=False)
    reason = ReasonField(null=True, editable=False)
    persisted_at = models.FloatField(null=True, editable=False)

    class Meta:
        db_table = "flashsale_orders"
        verbose_name = "order"
        indexes = (
            models.Index(fields=["sale", "settled_at"], name="flashsale_orders_settled"),
            models.Index(fields=["sale", "buyer_id"], name="flashsale_orders_buyer"),
        )
        constraints = (models.UniqueConstraint(fields=["sale", "order_id"], name="flashsale_orders_key"),)

    def __str__(self) -> str:
        return str(self.order_id)


class SaleRequest(models.Model):
    """A restock that was done, by the id that its caller gave it."""

    sale = IdField(max_length=64)
    request_id = IdField(max_length=128)
    goods_id = IdField(max_length=64)
    units = models.BigIntegerField()
    result = models.BigIntegerField()

    class Meta:
        db_table = "flashsale_requests"
        constraints = (models.UniqueConstraint(fields=["sale", "request_id"], name="flashsale_requests_key"),)

    def __str__(self) -> str:
        return str(self.request_id)


class SaleEvent(models.Model):
    """An event that the host's handler has not handled yet; without `due_at` it is a dead letter."""

    event_id = models.BigAutoField(primary_key=True)
    sale = IdField(max_length=64)
    order_id = IdField(max_length=128)
    state = models.CharField(max_length=16)
    previous = models.CharField(max_length=16)
    attempts = models.IntegerField(default=0)
    due_at = models.FloatField(null=True)

    class Meta:
        db_table = "flashsale_events"
        constraints = (models.UniqueConstraint(fields=["sale", "order_id", "event_id"], name="flashsale_events_key"),)

    def __str__(self) -> str:
        return f"{self.order_id}: {self.state}"


class SaleTrail(models.Model):
    """One command of an operator; without `after`, nobody knows how it ended."""

    entry_id = models.BigAutoField(primary_key=True)
    sale = IdField(max_length=64)
    at = models.FloatField()
    actor = ReasonField()
    host = ReasonField()
    command = ReasonField()
    arguments = models.TextField()
    before = models.TextField()
    after = models.TextField(null=True)
    reason = ReasonField(null=True)

    class Meta:
        db_table = "flashsale_audit"
        verbose_name = "entry of the trail"
        verbose_name_plural = "trail"

    def __str__(self) -> str:
        return f"{self.command} by {self.actor}"
