"""The shop's hooks, killed at every line and every statement: its tables and the sale's agree all the same."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import django
import pytest
from django.core.management import call_command
from django.db import connection

from flashsale import Order, OrderStore
from flashsale.testing import OrderHooksSuite


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    django.setup()
    call_command("migrate", verbosity=0)


class TestHooks(OrderHooksSuite):
    valid_data = {"cents": {"phone": 36000, "case": 2000}, "voucher": None, "off": 0}  # noqa: RUF012 - the suite's way

    @pytest.fixture(autouse=True)
    def shop(self) -> Iterator[None]:
        from examples.own_tables.django_shop.models import Product

        Product.objects.bulk_create(Product(sku=sku, stock=1000) for sku in ("phone", "case"))
        yield
        call_command("flush", interactive=False, verbosity=0)
        connection.close()

    def make_store(self, sale: str) -> OrderStore:
        from examples.own_tables.django_shop.flash import Hooks
        from flashsale.contrib.django.store import DjangoStore

        class ClosingStore(DjangoStore):
            """The suite's threads end without a request, which would close their connection."""

            def save(self, orders: Any) -> Any:
                try:
                    return super().save(orders)
                finally:
                    if threading.current_thread() is not threading.main_thread():
                        connection.close()

        return ClosingStore(sale, hooks=Hooks())

    def active_orders(self, store: Any) -> Collection[str]:
        """The lines of orders that are not cancelled, by the names that the sale has for them."""
        from examples.own_tables.django_shop.flash import number_of
        from examples.own_tables.django_shop.models import Order as ShopOrder
        from examples.own_tables.django_shop.models import OrderLine

        lines = OrderLine.objects.filter(returned=False).exclude(order__state=ShopOrder.State.CANCELLED)
        names = {(number_of(row.order), row.order.goods_id): row.order.order_id for row in store.orders()}
        return {names.get(each, str(each)) for each in lines.values_list("order_id", "product_id")}

    def refused_order(self, order: Order) -> Order:
        return replace(order, data={**self.valid_data, "voucher": "USED"})

    def stock(self, store: Any, goods_id: str) -> int:
        from examples.own_tables.django_shop.models import Product

        return Product.objects.get(sku=goods_id).stock
