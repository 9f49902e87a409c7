"""Inside a transaction of the host's, Redis follows after the commit, and never what was rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import django_shop

django_shop.set_up()

from django.db import connections, transaction  # noqa: E402 - settings come first
from django.test import override_settings  # noqa: E402

from flashsale import FlashSale, Goods, NotExecuted, OrderState, Syncer, Worker  # noqa: E402
from flashsale.contrib.django import checks, set_sale  # noqa: E402
from flashsale.contrib.django.models import SaleGoods, SaleOrder  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402
from tests.support.sales import each_backend  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Backend

CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED


class Undone(Exception):
    """The view failed: the host rolls back."""


@pytest.fixture
def sale(backend: Backend) -> Iterator[FlashSale]:
    store = DjangoStore("atomic")
    for model in (SaleOrder, SaleGoods):
        model.objects.filter(sale="atomic").delete()
    store.put_goods(Goods("phone", 10))
    with FlashSale(backend.client(), "atomic", store=store, cache_for=0) as sale:
        Syncer(sale).run_once()
        sale.start("phone")
        for name in ("o-1", "o-2"):
            assert sale.buy("phone", "ann", order_id=name).accepted
        Worker(sale).run_once()
        yield sale


def booked(sale: FlashSale) -> int:
    return sale.inventory.stock("phone").booked


@each_backend
def test_row_56_redis_follows_after_the_commit(sale: FlashSale) -> None:
    with transaction.atomic():
        assert sale.cancel("o-1") is CANCELLED
        assert sale.confirm("o-2") is CONFIRMED
        assert sale.restock("phone", 5) == 15
        assert (sale.status("o-1"), sale.status("o-2"), booked(sale)) == (PERSISTED, PERSISTED, 2)
        assert sale.inventory.stock("phone").total == 10
    assert (sale.status("o-1"), sale.status("o-2"), booked(sale)) == (CANCELLED, CONFIRMED, 1)
    assert sale.inventory.stock("phone").total == sale.gate.state("phone").count == 15


@each_backend
def test_row_56_what_is_rolled_back_never_moved(sale: FlashSale) -> None:
    with pytest.raises(Undone), transaction.atomic():
        assert sale.cancel("o-1") is CANCELLED
        assert sale.confirm("o-2") is CONFIRMED
        assert sale.restock("phone", 5, "r-1") == 15
        raise Undone
    assert (sale.status("o-1"), sale.status("o-2"), booked(sale)) == (PERSISTED, PERSISTED, 2)
    assert {row.state for row in sale.store.orders()} == {PERSISTED}
    assert sale.inventory.stock("phone").total == 10
    syncer = Syncer(sale)
    syncer.run_once()
    assert syncer.audit().ok
    assert syncer.repair(dry_run=False).mended == ()


@each_backend
def test_row_56_a_purchase_that_must_be_persisted_is_refused(sale: FlashSale, backend: Backend) -> None:
    with FlashSale(backend.client(), "atomic", store=sale.store, durability="persisted") as strict:
        with transaction.atomic():
            calls: Any = (
                lambda: strict.buy("phone", "ann"),
                lambda: strict.buy_basket("ann", [("phone", 1)]),
            )
            for call in calls:
                with pytest.raises(NotExecuted, match="commit") as caught:
                    call()
                assert (caught.value.reason, caught.value.retry_safe) == ("TRANSACTION", False)
            assert booked(sale) == 2
            assert sale.buy("phone", "ann").accepted  # promises no row
        assert strict.buy("phone", "ann").accepted


@each_backend
def test_row_56_is_red_without_its_mechanism(sale: FlashSale, monkeypatch: pytest.MonkeyPatch) -> None:
    """What followed at once would sell units of an order that stands, and confirm what nobody paid."""
    monkeypatch.setattr(DjangoStore, "on_commit", lambda *_: False)
    with pytest.raises(AssertionError):
        test_row_56_what_is_rolled_back_never_moved(sale)


def test_a_system_check_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_transactions() == []
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    for durability, message in (("accepted", "flashsale.I001"), ("persisted", "flashsale.W003")):
        set_sale(None)
        with override_settings(FLASHSALE_DURABILITY=durability):
            assert [found.id for found in checks.check_transactions()] == [message]
    set_sale(None)
