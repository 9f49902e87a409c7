"""A purged sale is over: the database knows it, and nothing brings it back."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, InvalidRequest, OrderState, UnknownGoods
from tests.support.helpers import order, settled
from tests.support.mutants import promises
from tests.support.sales import each_backend, rows, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Awaited, Shop

CANCELLED, CONFIRMED = OrderState.CANCELLED, OrderState.CONFIRMED


async def sold(shop: Shop) -> tuple[Awaited, Awaited]:
    """A sale whose last order is paid, and its syncer."""
    sale = shop.sale(store=await shop.store(Goods("phone", 4)), cache_for=0)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    await work(shop, sale)
    await sale.confirm("o-1")
    return sale, syncer


async def stays_away(shop: Shop) -> None:
    sale, syncer = await sold(shop)
    await syncer.purge()
    await purged_sale_stays_away(shop, sale, syncer)
    with pytest.raises(UnknownGoods):
        await sale.buy("phone", "bob")
    assert shop.raw.keys("*") == []
    assert await rows(sale) == {"o-1": CONFIRMED}


async def purged_sale_stays_away(shop: Shop, sale: Awaited, syncer: Awaited) -> None:
    for _ in range(2):
        report = await syncer.run_once()
        assert (report.leading, report.purged, report.loaded, report.missing) == (False, True, (), ("phone",))
    bring_back: list[Callable[[], Any]] = [
        syncer.rebuild,
        lambda: sale.preload("phone", 4),
        lambda: sale.store.put_goods(Goods("phone", 9)),
        lambda: sale.store.put_goods(Goods("case", 9)),
        lambda: sale.store.grant("phone", 9),
    ]
    for call in bring_back:
        with pytest.raises(InvalidRequest, match="spring was purged and is over; sell under another name"):
            await settled(call())
    (goods,) = await settled(sale.store.goods())
    assert goods.total == 4
    await syncer.repair(dry_run=False)


@each_backend
async def test_nothing_brings_a_purged_sale_back(shop: Shop) -> None:
    await stays_away(shop)


async def test_an_item_that_waited_for_its_first_load_stays_away_as_well(real_shop: Shop) -> None:
    sale, syncer = await sold(real_shop)
    await settled(sale.store.put_goods(Goods("case", 5)))
    await syncer.purge()
    await syncer.run_once()
    assert real_shop.raw.keys("*") == []


async def test_an_order_that_comes_late_is_a_dead_letter_and_sells_nothing(real_shop: Shop) -> None:
    shop = real_shop
    sale, syncer = await sold(shop)
    await syncer.purge()
    await sale.queue.push(order("late"))
    for _ in range(7):
        shop.end_leases()
        await shop.worker(sale).run_once()
    assert [each.order.order_id for each in await sale.queue.dead()] == ["late"]
    assert await rows(sale) == {"o-1": CONFIRMED}
    assert (await syncer.run_once()).purged


async def test_a_refund_after_a_purge_is_the_databases(real_shop: Shop) -> None:
    sale, syncer = await sold(real_shop)
    await syncer.purge()
    assert await sale.confirm("o-1") is CONFIRMED
    assert await sale.cancel("o-1") is CANCELLED
    assert await rows(sale) == {"o-1": CANCELLED}
    assert await sale.cancel("o-2") is None
    assert real_shop.raw.keys("*") == []


# -- halves and races -----------------------------------------------------------------------------------------------


async def died_half_way(shop: Shop) -> None:
    sale, syncer = await sold(shop)

    def die() -> None:
        raise ZeroDivisionError

    async def adie() -> None:
        die()

    forget, sale.real._forget = sale.real._forget, adie if shop.is_async else die
    with pytest.raises(ZeroDivisionError):
        await syncer.purge()
    with pytest.raises(InvalidRequest):
        await sale.resume()
    await purged_sale_stays_away(shop, sale, syncer)
    sale.real._forget = forget
    assert (await syncer.purge()).ok
    assert shop.raw.keys("*") == []


async def test_a_purge_that_died_after_its_record_stays_closed_and_is_finished_by_the_next(real_shop: Shop) -> None:
    await died_half_way(real_shop)


async def rebuild_meets_purge(shop: Shop) -> None:
    """The rebuild has looked at the database when the purge begins."""
    sale, syncer = await sold(shop)
    late = shop.syncer(sale)
    advance = sale.store.advance_epoch

    async def aadvance() -> int:
        epoch = await advance()
        await syncer.real.purge()
        return epoch

    def advance_() -> int:
        epoch = advance()
        syncer.real.purge()
        return epoch

    sale.store.advance_epoch = aadvance if shop.is_async else advance_
    with pytest.raises(InvalidRequest, match="was purged"):
        await late.rebuild()
    assert not shop.raw.exists(shop.keys.stock("phone"))
    assert not shop.raw.exists(shop.keys.orders)


async def test_a_rebuild_that_began_before_the_purge_ends_with_it(real_shop: Shop) -> None:
    await rebuild_meets_purge(real_shop)


async def test_a_running_syncer_says_what_it_is(real_shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    sale, syncer = await sold(real_shop)
    await syncer.purge()
    stop: Any = asyncio.Event() if real_shop.is_async else threading.Event()
    with caplog.at_level(logging.WARNING, "flashsale"):
        running = asyncio.create_task(real_shop.syncer(sale, interval=0.01).run(stop))
        await asyncio.sleep(0.2)
        stop.set()
        await running
    assert caplog.messages == ["the sale was purged: there is nothing to do for a syncer"]


@promises(
    {
        "the record of a purge": stays_away,
        "the closed gap of a purge": died_half_way,
        "a purged sale is granted nothing": rebuild_meets_purge,
    }
)
async def test_without_its_mechanism_a_purged_sale_comes_back(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
