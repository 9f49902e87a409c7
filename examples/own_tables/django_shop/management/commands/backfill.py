"""The command `backfill`: makes the shop's orders of those that were accepted before the hooks were there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection, transaction

from examples.own_tables.django_shop.flash import Hooks, number_of
from examples.own_tables.django_shop.models import Order, Product
from flashsale import OrderState, StoredOrder
from flashsale.contrib.django import get_sale
from flashsale.contrib.django.models import SaleGoods, SaleOrder


def stored() -> Iterator[StoredOrder]:
    """Gives every order of the sale, by id: those of a basket stand together."""
    after = None
    while page := get_sale().store.orders(after=after):
        yield from page
        after = page[-1].order.order_id


class Command(BaseCommand):
    """May be run again, and while the sale runs."""

    help = "Makes the shop's orders of those that were accepted before the hooks were there, and lends their units."

    def handle(self, **_: Any) -> None:
        for sku in SaleGoods.objects.filter(sale=get_sale().name).values_list("goods_id", flat=True):
            lend(sku)
        made = sum(backfill(number, list(rows)) for number, rows in groupby(stored(), lambda row: number_of(row.order)))
        self.stdout.write(f"{made} orders")


@transaction.atomic
def lend(sku: str) -> None:
    """Takes from the shop's stock what the sale has had all along."""
    goods = SaleGoods.objects.select_for_update().get(sale=get_sale().name, goods_id=sku)
    missing = goods.granted - Product.objects.get(sku=sku).lent
    if missing:
        Hooks().stock(connection, sku, missing)


@transaction.atomic
def backfill(number: str, rows: list[StoredOrder]) -> bool:
    """Makes one order, in the state that it is in now; what has ended needs none."""
    ids = [row.order.order_id for row in rows]
    locked = SaleOrder.objects.select_for_update().filter(sale=get_sale().name, order_id__in=ids).order_by("order_id")
    states = {row.order_id: OrderState(row.state) for row in locked}
    live = [row.order for row in rows if states[row.order.order_id] in {OrderState.PERSISTED, OrderState.CONFIRMED}]
    if not live or Order.objects.filter(number=number).exists():
        return False
    Hooks().saved(connection, live)
    for order in live:
        if states[order.order_id] is OrderState.CONFIRMED:
            Hooks().settled(connection, order, OrderState.PERSISTED, OrderState.CONFIRMED)
    return True
