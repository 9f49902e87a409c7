"""The report of a sale that was played: what is read is what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flashsale import FlashSale, Goods, Syncer, Worker
from flashsale.model import OrderState
from flashsale.ops.reading import gather
from flashsale.ops.report import render
from flashsale.testing import memory_store
from tests.support import evidence

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sale(redis_url: str) -> Iterator[FlashSale]:
    import redis

    with (
        redis.Redis.from_url(redis_url) as client,
        memory_store("nov11") as store,
        FlashSale(client, "nov11", store=store) as sale,
    ):
        if not hasattr(sale, "_recorder"):
            pytest.skip("this release has no recorder")
        store.put_goods(Goods("phone", 3))
        Syncer(sale).run_once()
        sale.start("phone")
        yield sale


def test_the_report_is_made_of_what_happened(sale: FlashSale) -> None:
    ids = [sale.buy("phone", buyer).order_id for buyer in ("ann", "bob", "ann")]
    Worker(sale).run_once()
    sale.confirm(ids[0])
    sale.confirm(ids[1])
    sale.cancel(ids[2])
    Syncer(sale).run_once()
    given = gather(sale, Syncer(sale).settlement(), evidence.trail())
    assert given.orders.states == {OrderState.CONFIRMED: 2, OrderState.CANCELLED: 1}
    assert given.orders.units_of_buyers() == {1: 2}
    assert [goods.booked for goods in given.snapshot.goods] == [2]
    assert given.samples.longest[-1].booked == 2
    page = render(given, zone=evidence.ZONE)
    assert "Settled: every unit and every order is accounted for" in page
    assert "supplier called" in page


def test_a_sale_that_is_under_way_has_a_report_too(sale: FlashSale) -> None:
    sale.buy("phone", "ann")
    given = gather(sale, Syncer(sale).settlement())
    assert "Not settled" in render(given, zone=evidence.ZONE)
