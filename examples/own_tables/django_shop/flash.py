"""The flash sale in the shop's own tables: all that stands between the two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import F

import flashsale
from examples.own_tables.django_shop.models import Order, OrderLine, Price, Product, Voucher, take
from flashsale import OrderState
from flashsale.contrib.django import get_sale

USED_UP = "the voucher is used up"


def offer(number: str, skus: Iterable[str], code: str = "") -> dict[str, Any]:
    """Returns what the buyer is promised now: it travels with the order, as its `data`."""
    prices = Price.objects.filter(product__in=skus)
    voucher = Voucher.objects.filter(code=code, used_by__in=["", number]).first()
    return {
        "cents": {price.product_id: price.cents for price in prices},
        "voucher": voucher and voucher.code,
        "off": voucher.cents if voucher else 0,
    }


def number_of(order: flashsale.Order) -> str:
    """Returns the number of the shop's order: the orders of a basket are one."""
    return order.basket_id or order.order_id


def redeem(order: flashsale.Order) -> bool:
    """Redeems the voucher of an order, for all orders of its basket; False when another order was faster."""
    code, number = order.data["voucher"], number_of(order)
    return not code or bool(Voucher.objects.filter(code=code, used_by__in=["", number]).update(used_by=number))


class Hooks:
    """Called in the sale's transactions: the shop's tables and the sale's change together, or not at all."""

    def saved(self, connection: Any, orders: Sequence[flashsale.Order]) -> dict[str, str]:
        late = {order.order_id: USED_UP for order in orders if not redeem(order)}
        made: dict[str, Order] = {}
        lines: list[OrderLine] = []
        for order in orders:
            if order.order_id in late:
                continue
            number, cents = number_of(order), order.data["cents"][order.goods_id]
            new = Order(number=number, customer=order.buyer_id, is_flash=True, cents=-order.data["off"])
            made.setdefault(number, new).cents += order.quantity * cents
            lines.append(OrderLine(order_id=number, product_id=order.goods_id, quantity=order.quantity, cents=cents))
        for ours in made.values():
            ours.cents = max(0, ours.cents)  # a voucher may be worth more
        Order.objects.bulk_create(made.values())
        OrderLine.objects.bulk_create(lines)
        return late

    def settled(self, connection: Any, order: flashsale.Order, before: OrderState, after: OrderState) -> None:
        number = number_of(order)
        ours = Order.objects.filter(pk=number)  # none, if the order was never saved
        if after is OrderState.CONFIRMED:
            ours.update(state=Order.State.PAID)
            return
        OrderLine.objects.filter(order=number, product=order.goods_id).update(returned=True)
        if ours.exclude(lines__returned=False).update(state=Order.State.CANCELLED):
            Voucher.objects.filter(used_by=number).update(used_by="")

    def stock(self, connection: Any, goods_id: str, units: int) -> None:
        if not take(goods_id, units):
            raise ValueError(f"the shop has fewer than {units} of {goods_id}")
        Product.objects.filter(sku=goods_id).update(lent=F("lent") + units)


def decide(number: str, what: str) -> set[OrderState | None]:
    """Confirms or cancels an order or a basket, in the transaction of the request; returns the states that it is in."""
    sale = get_sale()
    if number.startswith("B"):
        return set(getattr(sale, f"{what}_basket")(number).values())
    return {getattr(sale, what)(number)}
