"""What a review found: each of these went wrong once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, InvalidRequest, NotExecuted, Order, OrderState, Outcome, OutcomeUnknown, PlainKeys
from flashsale._sync.transport.link import Link
from flashsale.aio.transport.link import Link as AsyncLink
from tests.support.helpers import clock, order

if TYPE_CHECKING:
    from tests.support.helpers import Shop


@pytest.mark.one_server
async def test_goods_that_the_layout_has_no_keys_for_are_buried_alone(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 10))
    sale = shop.sale(store=store, keys=PlainKeys())
    await sale.preload("phone", 10)
    await sale.start("phone")
    await sale.buy("phone", "ann", order_id="good")
    shop.raw.lpush("orderList", order("bad", goods_id="phone_count").to_json())
    worker = shop.worker(sale)
    assert await worker.run_once() == 1
    assert await sale.status("good") is OrderState.PERSISTED
    assert [claim.order for claim in await sale.queue.dead()] == [None]


async def test_the_worker_counts_what_it_settles_as_rejected(shop: Shop) -> None:
    sale = await shop.open(1, store=True)
    await sale.buy("phone", "ann")
    shop.raw.lpush(shop.keys.order_list, order("late").to_json())
    assert await shop.worker(sale).run_once() == 2
    assert await sale.status("late") is OrderState.REJECTED


async def test_half_a_list_of_orders_is_never_told_as_not_executed(shop: Shop, monkeypatch: Any) -> None:
    sale = await shop.open(1000)
    orders = [order(f"o-{n}", buyer_id=f"b-{n}") for n in range(200)]
    calls = iter(["goes", "fails"])

    def unreachable() -> None:
        if next(calls) == "fails":
            raise NotExecuted("no connection")

    for link in (Link, AsyncLink):
        monkeypatch.setattr(link, "run_behind", _guarded(link.run_behind, unreachable))
    with pytest.raises(OutcomeUnknown) as caught:
        await sale.inventory.reserve(orders)
    assert [type(answer).__name__ for answer in caught.value.answers] == ["Receipt"] * 128 + ["NotExecuted"] * 72
    assert caught.value.order_id == "o-128"
    assert (await sale.inventory.stock("phone")).booked == 128


def _guarded(run: Any, check: Any) -> Any:
    if asyncio.iscoroutinefunction(run):

        async def guarded(self: Any, *arguments: Any) -> Any:
            check()
            return await run(self, *arguments)
    else:

        def guarded(self: Any, *arguments: Any) -> Any:
            check()
            return run(self, *arguments)

    return guarded


async def test_an_order_of_deleted_goods_does_not_stop_the_syncer(shop: Shop) -> None:
    sale = await shop.open(5, store=True, hold=0.001)
    await sale.buy("phone", "ann", order_id="o-1")
    await shop.worker(sale).run_once()
    await asyncio.sleep(0.01)
    shop.sql("DELETE FROM flashsale_goods")
    await shop.store(Goods("fresh", 3))
    report = await shop.syncer(sale).run_once()
    assert report.loaded == ("fresh",)
    assert await sale.status("o-1") is OrderState.PERSISTED


async def test_a_stop_outlives_a_new_closing_time(shop: Shop) -> None:
    now = clock(shop.raw)
    sale = await shop.open(5, opens_at=now - 10)
    await sale.stop("phone")
    await sale.gate._ensure("phone", 5, opens_at=now - 10, closes_at=now + 600)
    assert (await sale.buy("phone", "ann", order_id="o-1")).outcome is Outcome.NOT_STARTED
    await sale.gate._ensure("phone", 5, opens_at=now - 5, closes_at=now + 600)  # a new opening is a new request
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted


async def test_preloading_again_leaves_the_window_alone(shop: Shop) -> None:
    sale = shop.sale()
    await sale.preload("phone", 5)
    await sale.gate.schedule("phone", opens_at=clock(shop.raw) - 1)
    await sale.preload("phone", 5)
    assert (await sale.buy("phone", "ann")).accepted


async def test_errors_about_an_order_carry_its_id(shop: Shop, monkeypatch: Any) -> None:
    sale = await shop.open(5, store=True)

    def cut() -> None:
        raise OutcomeUnknown("no reply")

    for link in (Link, AsyncLink):
        for method in ("run", "command"):
            monkeypatch.setattr(link, method, _guarded(getattr(link, method), cut))
    for call in (sale.status("o-1"), sale.cancel("o-1"), sale.confirm("o-1"), sale.extend_hold("o-1", 5)):
        with pytest.raises(OutcomeUnknown) as caught:
            await call
        assert caught.value.order_id == "o-1"


@pytest.mark.parametrize("many", ["x", 0, -1, 1.5, True])
async def test_a_bad_max_waiting_is_refused_at_once(shop: Shop, many: Any) -> None:
    with pytest.raises(InvalidRequest):
        shop.sale(max_waiting=many)


def test_the_content_of_an_order_is_what_may_not_differ() -> None:
    assert Order("o-1", "phone", "ann", 2, data=1).content == Order("o-2", "phone", "ann", 2).content
