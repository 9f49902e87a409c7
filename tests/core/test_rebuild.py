"""Redis lost the sale: nothing is sold until it is rebuilt from the database, and then no unit twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from flashsale import (
    CorruptState,
    FlashSaleError,
    Goods,
    InvalidRequest,
    NotExecuted,
    OrderState,
    Outcome,
    UnknownGoods,
)
from tests.support.helpers import Awaited, clock, order, settled, snapshot, until
from tests.support.mutants import MUTANTS, promises
from tests.support.sales import access, active_units, booked, die, each_backend, meanwhile, rows, set_total, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop

QUEUED, PERSISTED, CONFIRMED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, REJECTED, DEAD = OrderState.CANCELLED, OrderState.REJECTED, OrderState.DEAD


async def loaded(shop: Shop, *goods: Goods, **settings: Any) -> tuple[Awaited, Awaited]:
    """A sale that its syncer has loaded, started; and the syncer."""
    sale = shop.sale(store=await shop.store(*goods), cache_for=0, **settings)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    for each in goods:
        await sale.start(each.goods_id)
    return sale, syncer


async def outcome(sale: Awaited, *how: Any, **more: Any) -> Outcome:
    return (await sale.buy(*how, **more)).outcome


def state_of(shop: Shop) -> str:
    return (shop.raw.hget(shop.keys.meta, "state") or b"").decode()


def granted(shop: Shop, goods_id: str = "phone") -> int:
    return shop.sql(f"SELECT granted FROM flashsale_goods WHERE goods_id = '{goods_id}'")[0][0]


# -- total loss -----------------------------------------------------------------------------------------------------


async def test_after_a_flush_under_a_running_syncer_nothing_is_sold_until_the_rebuild(real_shop: Shop) -> None:
    shop = real_shop
    sale, _ = await loaded(shop, Goods("phone", 30, per_buyer=2))
    passes = Counter()
    syncer = shop.syncer(sale, interval=0.01)
    stop = asyncio.Event() if shop.is_async else threading.Event()
    running = asyncio.create_task(syncer.run(stop))
    try:
        for n in range(20):
            assert (await sale.buy("phone", f"buyer-{n}", order_id=f"o-{n}")).accepted
        await work(shop, sale)
        await sale.cancel("o-0")
        shop.raw.flushall()
        for n in range(20):
            for how in ({}, {"order_id": f"new-{n}"}, {"order_id": f"o-{n}"}):
                with pytest.raises(UnknownGoods):
                    await sale.buy("phone", f"buyer-{n}", **how)
            with pytest.raises(UnknownGoods):
                await sale.inventory.reserve([order(f"past-{n}")])
            with pytest.raises(UnknownGoods):
                await sale.inventory.deduct("phone")
            with contextlib.suppress(UnknownGoods):  # a pass that was under way may make the gate anew
                await sale.start("phone")
            passes[await sale.queue.size()] += 1
            await asyncio.sleep(0.005)
        assert not shop.raw.exists(shop.keys.stock("phone"), shop.keys.orders)
        rebuilt = await syncer.rebuild()
        assert (rebuilt.epoch, rebuilt.orders, rebuilt.goods) == (2, 20, {"phone": 19})
        await sale.start("phone")
        sold = [await outcome(sale, "phone", f"late-{n}") for n in range(20)]
        assert Counter(sold) == {Outcome.ACCEPTED: 11, Outcome.SOLD_OUT: 9}
    finally:
        stop.set()
        await running
    await work(shop, sale)
    assert await booked(sale) == await active_units(sale) == 30
    assert (await shop.syncer(sale).audit([f"o-{n}" for n in range(20)])).ok


@each_backend
async def test_a_rebuild_brings_back_stock_ledger_caps_and_deadlines(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 20, per_buyer=4, hold=60), Goods("case", 5))
    for name, units in {"held": 1, "paid": 2, "gone": 3}.items():
        assert (await sale.buy("phone", "ann", units if name != "gone" else 1, order_id=name)).accepted
    await sale.buy("phone", "bob", 4, order_id="bobs")
    await sale.buy("case", "ann", 5, order_id="case")
    await work(shop, sale)
    await sale.confirm("paid")
    await sale.cancel("gone")
    await settled(sale.store.settle(order("tombstone"), CANCELLED))  # cancelled before it was persisted
    names = ["held", "paid", "gone", "bobs", "case"]
    before = {name: await sale.status(name) for name in names}
    stock = {goods_id: await sale.inventory.stock(goods_id) for goods_id in ("phone", "case")}
    policy = shop.raw.hmget(shop.keys.stock("phone"), "per_buyer", "hold", "opens_at", "version")

    shop.raw.flushall()
    now = clock(shop.raw)
    rebuilt = await syncer.rebuild()
    assert (rebuilt.orders, rebuilt.goods) == (6, {"case": 5, "phone": 7})
    assert {name: await sale.status(name) for name in names} == before
    assert await sale.status("tombstone") is CANCELLED
    assert {goods_id: await sale.inventory.stock(goods_id) for goods_id in stock} == stock
    assert shop.raw.hmget(shop.keys.stock("phone"), "per_buyer", "hold", "opens_at", "version") == policy
    assert shop.raw.hgetall(shop.keys.buyers("phone")) == {b"ann": b"3", b"bob": b"4"}
    holds = dict(shop.raw.zrange(shop.keys.holds, 0, -1, withscores=True))
    assert holds.keys() == {b"held", b"bobs"}
    assert all(now + 59 < deadline <= clock(shop.raw) + 60.001 for deadline in holds.values())
    await sale.start("phone")
    await sale.start("case")
    assert await outcome(sale, "phone", "bob") is Outcome.LIMIT_REACHED
    assert await outcome(sale, "phone", "ann", 2) is Outcome.LIMIT_REACHED
    assert await outcome(sale, "phone", "ann", 1) is Outcome.ACCEPTED
    assert await outcome(sale, "case", "cleo") is Outcome.SOLD_OUT
    assert await sale.confirm("held") is CONFIRMED
    assert await sale.cancel("bobs") is CANCELLED
    assert await outcome(sale, "phone", "bob", 4) is Outcome.ACCEPTED
    await work(shop, sale)
    assert (await syncer.audit(names)).ok


@each_backend
async def test_a_released_id_never_buys_again_after_a_rebuild(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 5))
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.cancel("o-1")
    shop.raw.flushall()
    await syncer.rebuild()
    await sale.start("phone")
    again = await sale.buy("phone", "ann", order_id="o-1")
    assert (again.replayed, again.state) == (True, CANCELLED)
    assert await booked(sale) == 0


@each_backend
async def test_orders_that_had_not_reached_the_database_are_lost_and_named(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 5))
    await sale.buy("phone", "ann", order_id="written")
    await work(shop, sale)
    await sale.buy("phone", "ann", order_id="queued")
    shop.raw.flushall()
    await syncer.rebuild()
    audit = await syncer.audit(["written", "queued"])
    assert (audit.lost, audit.orders) == (("queued",), ())
    assert audit.units.free == 4  # its unit is for sale again


@each_backend
async def test_rebuilding_a_sale_that_was_not_lost_changes_nothing_but_the_epoch(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 20, per_buyer=4))
    await sale.buy("phone", "ann", 2, order_id="o-1")
    await work(shop, sale)
    await sale.buy("phone", "bob", 3, order_id="queued")
    await sale.inventory.deduct("phone", 4)  # by another program: the database does not know these
    stock = await sale.inventory.stock("phone")
    assert (stock.booked, stock.direct) == (9, 4)
    await syncer.rebuild()
    stock = await sale.inventory.stock("phone")
    assert (stock.total, stock.booked, stock.direct) == (20, 9, 4)  # `queued` is booked before anybody else can buy
    assert await outcome(sale, "phone", "cleo", 1) is Outcome.ACCEPTED  # the gate was open, and is
    await work(shop, sale)
    assert (await syncer.audit(["o-1", "queued"])).ok
    assert {name: await sale.status(name) for name in ("o-1", "queued")} == {"o-1": PERSISTED, "queued": PERSISTED}


@each_backend
async def test_what_waits_is_booked_before_the_sale_opens(shop: Shop) -> None:
    """Else somebody buys in its place, or more than allowed, and it is refused in the end."""
    sale, syncer = await loaded(shop, Goods("phone", 6, per_buyer=2))
    await sale.buy("phone", "ann", 2, order_id="dead")
    await sale.queue._bury(await sale.queue.claim(lease=3600))
    await sale.buy("phone", "bob", 1, order_id="claimed")
    await sale.queue.claim(lease=3600)
    await sale.buy("phone", "cleo", 2, order_id="listed")
    await sale.inventory.deduct("phone", 1)
    await sale.queue.push(order("external", buyer_id="dora"))  # by another program
    shop.raw.delete(shop.keys.buyers("phone"))
    assert (await syncer.run_once()).missing == ("phone",)
    await syncer.rebuild()
    assert await booked(sale) == 6
    states = {name: await sale.status(name) for name in ("dead", "claimed", "listed", "external")}
    assert states == {"dead": DEAD, "claimed": QUEUED, "listed": QUEUED, "external": QUEUED}
    assert await outcome(sale, "phone", "cleo", 1) in {Outcome.LIMIT_REACHED, Outcome.SOLD_OUT}
    assert await sale.queue.requeue_dead() == 1
    await work(shop, sale)
    assert set((await rows(sale)).values()) == {PERSISTED}
    assert (await syncer.audit(states)).ok


@each_backend
async def test_nothing_is_for_sale_while_a_rebuild_is_under_way(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 3))
    for n in range(3):
        await sale.buy("phone", "ann", order_id=f"o-{n}")
    await work(shop, sale)
    seen: list[Any] = []
    restore = sale.real._ledger.restore

    def look(*_: Any) -> None:
        seen.append(int(shop.raw.hget(shop.keys.stock("phone"), "Total")))
        seen.append(state_of(shop))

    if shop.is_async:

        async def watched(*args: Any) -> Any:
            look()
            return await restore(*args)
    else:

        def watched(*args: Any) -> Any:
            look()
            return restore(*args)

    sale.real._ledger.restore = watched
    await syncer.rebuild()
    assert seen == [0, "closed"]
    assert await sale.inventory.stock("phone") == (3, 3, 0, 0)
    assert await sale.inventory.deduct("phone") == 0


# -- what survived --------------------------------------------------------------------------------------------------


@each_backend
async def test_elements_of_the_queue_that_survived_are_adopted(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 10, per_buyer=10))
    for n, name in enumerate(["written", "committed", "claimed", "listed"], start=1):
        await sale.buy("phone", "ann", n, order_id=name)
    claims = {claim.order.order_id: claim for claim in await sale.queue.claim()}
    for name in ("written", "committed"):
        await settled(sale.store.save([claims[name].order]))
    await sale.queue.ack([claims["written"]])
    await sale.queue.nack([claims["listed"]])
    shop.raw.delete(shop.keys.orders, shop.keys.stock("phone"), shop.keys.buyers("phone"), shop.keys.meta)
    rebuilt = await syncer.rebuild()
    assert rebuilt.goods == {"phone": 3}
    await work(shop, sale)
    names = ["written", "committed", "claimed", "listed"]
    assert await rows(sale) == {name: await sale.status(name) for name in names} == dict.fromkeys(names, PERSISTED)
    assert await booked(sale) == await active_units(sale) == 10
    assert shop.raw.hgetall(shop.keys.buyers("phone")) == {b"ann": b"10"}
    assert (await syncer.audit(names)).ok


@each_backend
async def test_survivors_past_the_stock_are_rejected_not_sold(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 2))
    await sale.buy("phone", "ann", order_id="a")
    await work(shop, sale)
    await sale.buy("phone", "bob", order_id="b")
    (body,) = shop.raw.lrange(shop.keys.order_list, 0, -1)
    shop.raw.flushall()
    await syncer.rebuild()
    await sale.start("phone")
    assert (await sale.buy("phone", "cleo", order_id="c")).accepted
    shop.raw.rpush(shop.keys.order_list, body)  # an older Redis comes back with it
    await work(shop, sale)
    assert await rows(sale) == {"a": PERSISTED, "b": REJECTED, "c": PERSISTED}
    assert await booked(sale) == 2
    assert (await syncer.audit("abc")).ok


@each_backend
async def test_a_worker_waits_while_the_sale_is_closed_and_counts_no_attempt(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 10))
    await sale.buy("phone", "ann", order_id="known")
    await sale.queue.push(order("survivor"))
    await settled(sale.real._meta.close(2))
    shop.raw.hdel(shop.keys.orders, "survivor")
    worker = shop.worker(sale)
    for _ in range(7):
        await worker.run_once()
        shop.end_leases()
    assert await sale.queue.dead() == []
    for ask in (sale.status, sale.cancel, sale.confirm):
        with pytest.raises(NotExecuted, match="waits for a rebuild"):
            await ask("survivor")
    assert await sale.status("known") is PERSISTED
    await syncer.rebuild()
    await work(shop, sale)
    assert await sale.status("survivor") is PERSISTED
    assert await booked(sale) == 2


@each_backend
async def test_a_worker_of_the_old_epoch_cannot_drop_what_another_claimed_in_the_new_one(shop: Shop) -> None:
    """Its deliveries are numbered as those of the others would be, if the counter began anew."""
    sale, syncer = await loaded(shop, Goods("phone", 10))
    for n in range(3):
        await sale.buy("phone", "ann", order_id=f"old-{n}")
    old = await sale.queue.claim()
    shop.raw.flushall()
    await syncer.rebuild()
    await sale.start("phone")
    for n in range(3):
        await sale.buy("phone", "ann", order_id=f"new-{n}")
    new = await sale.queue.claim()
    assert await sale.queue.ack(old) == 0
    assert await sale.queue.extend(new) == 3
    await work(shop, sale)
    assert await rows(sale) == {f"new-{n}": PERSISTED for n in range(3)}


@each_backend
async def test_an_order_written_by_a_worker_in_the_midst_of_a_rebuild_is_counted_once(shop: Shop) -> None:
    """It was claimed before, and is committed when its page of rows has gone by."""
    sale, syncer = await loaded(shop, Goods("phone", 10))
    await sale.buy("phone", "ann", 2, order_id="a")
    await sale.buy("phone", "ann", 3, order_id="b")
    claims = await sale.queue.claim()
    restore = sale.real._ledger.restore
    await settled(sale.store.save([claims[1].order]))

    if shop.is_async:

        async def then_the_worker_commits(*args: Any) -> Any:
            codes = await restore(*args)
            await sale.store.save([claims[0].order])
            return codes
    else:

        def then_the_worker_commits(*args: Any) -> Any:
            codes = restore(*args)
            sale.store.save([claims[0].order])
            return codes

    sale.real._ledger.restore = then_the_worker_commits
    await syncer.rebuild()
    sale.real._ledger.restore = restore
    await sale.queue.ack(claims)
    await syncer.run_once()
    assert {name: await sale.status(name) for name in "ab"} == dict.fromkeys("ab", PERSISTED)
    assert await booked(sale) == await active_units(sale) == 5
    assert (await syncer.audit("ab")).ok


# -- epochs ---------------------------------------------------------------------------------------------------------


@each_backend
async def test_a_rebuild_of_an_older_epoch_is_refused_at_each_step(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 5))
    await sale.buy("phone", "ann", order_id="o-1")
    await work(shop, sale)
    stale = await settled(sale.store.advance_epoch())  # and then it slept
    assert (await syncer.rebuild()).epoch == stale + 1
    (goods,) = await settled(sale.store.goods())
    control, before = sale.real._meta, snapshot(shop.raw)
    for step in (
        lambda: control.close(stale),
        lambda: control.wipe([goods], stale),
        lambda: control.open([goods], stale),
        lambda: control.wipe([goods], stale + 1),  # the right epoch, but it is open
        lambda: control.wipe([goods], stale + 2),
        lambda: control.open([goods], stale + 2),
    ):
        with pytest.raises(CorruptState):
            await settled(step())
    page = list(await settled(sale.store.orders()))
    for epoch in (stale, stale + 2):
        assert await settled(sale.real._ledger.restore(page, epoch)) == [-8]
    assert snapshot(shop.raw) == before


@each_backend
async def test_a_rebuild_that_is_overtaken_stops(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 5))
    await sale.buy("phone", "ann", order_id="o-1")
    await work(shop, sale)
    restore, other = sale.real._ledger.restore, shop.syncer(shop.sale(store=Awaited(sale.store, shop._threads)))
    if shop.is_async:

        async def slow(*args: Any) -> Any:
            await other.rebuild()
            return await restore(*args)
    else:

        def slow(*args: Any) -> Any:
            other.real.rebuild()
            return restore(*args)

    sale.real._ledger.restore = slow
    with pytest.raises(CorruptState):
        await syncer.rebuild()
    assert state_of(shop) == "open"
    assert await booked(sale) == 1
    assert int(shop.raw.hget(shop.keys.meta, "epoch")) == await settled(sale.store.epoch()) == 3


async def test_rebuilds_side_by_side_end_in_one(real_shop: Shop) -> None:
    shop = real_shop
    sale, syncer = await loaded(shop, Goods("phone", 20))
    for n in range(10):
        await sale.buy("phone", "ann", order_id=f"o-{n}")
    await work(shop, sale)
    others = [shop.syncer(sale) for _ in range(3)]
    answers = await asyncio.gather(*(each.rebuild() for each in (syncer, *others)), return_exceptions=True)
    assert all(not isinstance(answer, BaseException) or isinstance(answer, FlashSaleError) for answer in answers)
    epoch = int(shop.raw.hget(shop.keys.meta, "epoch"))
    if state_of(shop) != "open":  # the last one was overtaken before it could close
        epoch = (await syncer.rebuild()).epoch
    assert epoch == await settled(sale.store.epoch())
    assert await booked(sale) == 10
    assert (await syncer.audit()).ok


@each_backend
async def test_restoring_and_settling_twice_books_once(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 9, per_buyer=9))
    await settled(sale.store.save([order("a", quantity=2), order("b", quantity=3)]))
    page = list(await settled(sale.store.orders()))
    answers = [await settled(sale.real._ledger.restore(page, 1)) for _ in range(3)]
    assert answers == [[1, 1], [0, 0], [0, 0]]
    assert await booked(sale) == 5
    assert shop.raw.hgetall(shop.keys.buyers("phone")) == {b"ann": b"5"}
    assert (await syncer.run_once()).settled == 0


# -- the gate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two", [False, True], ids=["one Redis", "two Redis"])
@each_backend
async def test_the_gate_follows(shop: Shop, two: bool) -> None:
    apart = {"gate_client": shop.client(db=1)} if two else {}
    past = clock(shop.raw) - 60
    sale, syncer = await loaded(shop, Goods("phone", 10), Goods("case", 10, opens_at=past), **apart)
    for n in range(4):
        await sale.buy("phone", "ann", order_id=f"p-{n}")
        await sale.buy("case", "ann", order_id=f"c-{n}")
    await work(shop, sale)
    shop.backend.flush()
    await syncer.rebuild()
    state = await sale.gate.state("case")
    assert (state.count, state.access, state.remaining, state.started) == (10, 4, 6, True)
    assert await outcome(sale, "case", "bob") is Outcome.ACCEPTED
    assert await outcome(sale, "phone", "bob") is Outcome.NOT_STARTED
    await sale.start("phone")
    sold = Counter([await outcome(sale, "phone", "bob") for _ in range(8)])
    assert sold == {Outcome.ACCEPTED: 6, Outcome.SOLD_OUT: 2}
    assert await access(sale) == await booked(sale) == 10


# -- sums -----------------------------------------------------------------------------------------------------------


async def test_a_sale_whose_sums_do_not_agree_stays_closed(
    real_shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop = real_shop
    sale, syncer = await loaded(shop, Goods("phone", 5), Goods("case", 5))
    await sale.buy("phone", "ann", 2, order_id="o-1")
    await work(shop, sale)
    shop.raw.flushall()
    with monkeypatch.context() as broken:
        MUTANTS["the units of a restored order"].take_out(broken)
        with pytest.raises(CorruptState) as caught:
            await syncer.rebuild()
    assert (caught.value.sale, caught.value.goods_id) == ("spring", "phone")
    assert state_of(shop) == "closed"
    with pytest.raises(UnknownGoods):  # the gates were not made again
        await sale.buy("phone", "bob")
    assert (await sale.inventory.reserve([order("new")]))[0].outcome is Outcome.PAUSED
    assert await sale.inventory.deduct("phone") == 0
    for verb in (sale.pause, sale.resume):
        with pytest.raises(InvalidRequest):
            await verb()
    before = snapshot(shop.raw)
    assert (await syncer.run_once()).closed
    after = snapshot(shop.raw)
    for side in (before, after):
        side.pop(shop.keys.meta.encode())  # the syncers' lease
    assert after == before
    stop = asyncio.Event() if shop.is_async else threading.Event()
    running = asyncio.create_task(shop.syncer(sale, interval=0.01).run(stop))
    await until(lambda: "only a rebuild opens it" in caplog.text, "the syncer says so")
    stop.set()
    await running
    await syncer.rebuild()
    await sale.start("phone")
    sold = Counter([await outcome(sale, "phone", "bob") for _ in range(5)])
    assert sold == {Outcome.ACCEPTED: 3, Outcome.SOLD_OUT: 2}


@each_backend
async def test_a_row_of_goods_that_are_gone_keeps_the_sale_closed(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 5), Goods("case", 5))
    await sale.buy("case", "ann", order_id="o-1")
    await work(shop, sale)
    shop.sql("DELETE FROM flashsale_goods WHERE goods_id = 'case'")
    shop.raw.flushall()
    with pytest.raises(CorruptState) as caught:
        await syncer.rebuild()
    assert caught.value.goods_id == "case"
    assert state_of(shop) == "closed"


@each_backend
async def test_more_rows_than_units_leave_nothing_for_sale(shop: Shop) -> None:
    """The host has lowered its request below what was sold."""
    sale, syncer = await loaded(shop, Goods("phone", 10))
    await sale.buy("phone", "ann", 8, order_id="o-1")
    await work(shop, sale)
    set_total(shop, 5)
    shop.raw.flushall()
    await syncer.rebuild()
    await sale.start("phone")
    assert await sale.inventory.stock("phone") == (8, 8, 0, 0)
    assert granted(shop) == 8
    assert await outcome(sale, "phone", "bob") is Outcome.SOLD_OUT
    assert (await syncer.audit()).ok


@each_backend
async def test_a_restock_in_the_midst_of_a_rebuild_is_not_taken_back_from_the_guard(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 5))
    store = sale.store
    goods, turns = store.goods, iter([True])

    if shop.is_async:

        async def then_somebody_restocks() -> Any:
            read = list(await goods())
            if next(turns, False):
                await store.grant("phone", 8, version=(await store.restock("phone", 3)).version)
            return read
    else:

        def then_somebody_restocks() -> Any:
            read = list(goods())
            if next(turns, False):
                store.grant("phone", 8, version=store.restock("phone", 3).version)
            return read

    store.goods = then_somebody_restocks
    await syncer.rebuild()
    assert granted(shop) == 8
    assert await sale.inventory.stock("phone") == (8, 0, 8, 0)


@each_backend
async def test_an_older_redis_keeps_units_that_an_external_program_took(shop: Shop) -> None:
    """It came back without an order that was saved; the others, and those units, are no part of that one."""
    sale, syncer = await loaded(shop, Goods("phone", 12))
    await sale.buy("phone", "bob", 3, order_id="listed")
    await sale.inventory.deduct("phone", 3)
    await settled(sale.store.save([order("saved", quantity=3, created_at=1.0)]))  # nothing in Redis knows it
    await syncer.rebuild()
    stock = await sale.inventory.stock("phone")
    assert (stock.booked, stock.direct) == (9, 3)


@each_backend
async def test_who_had_units_is_booked_before_who_had_none(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 3))
    await sale.buy("phone", "bob", 3, order_id="sold")
    await sale.queue.push(order("a-pushed-one", quantity=2))  # by a program that took no units
    await syncer.rebuild()
    await work(shop, sale)
    assert await rows(sale) == {"sold": PERSISTED, "a-pushed-one": REJECTED}


async def test_a_rebuild_needs_no_ledger(sync_shop: Shop) -> None:
    """Something else is in its place."""
    shop = sync_shop
    sale, syncer = await loaded(shop, Goods("phone", 12))
    await sale.buy("phone", "bob", 3, order_id="listed")
    await sale.inventory.deduct("phone", 3)
    shop.raw.delete(shop.keys.orders)
    shop.raw.set(shop.keys.orders, "of somebody else")
    await syncer.rebuild()
    stock = await sale.inventory.stock("phone")
    assert (stock.booked, stock.direct) == (6, 3)


# -- a rebuild that dies, or is not alone ------------------------------------------------------------------------------


async def died(shop: Shop, syncer: Awaited, step: str) -> None:
    with meanwhile(shop, step, die), pytest.raises(ZeroDivisionError):
        await syncer.rebuild()
    assert state_of(shop) == "closed"


STEPS = ["_waiting", "_restore_rows", "_reopen", "_take_up"]


@pytest.mark.parametrize("step", STEPS)
@each_backend
async def test_a_rebuild_that_died_is_repeated(shop: Shop, step: str) -> None:
    """The second one finds what the first one left; units of an external program are not those of our orders."""
    sale, syncer = await loaded(shop, Goods("phone", 12, per_buyer=4))
    await sale.buy("phone", "ann", 2, order_id="saved")
    await work(shop, sale)
    await sale.buy("phone", "bob", 3, order_id="listed")
    await sale.inventory.deduct("phone", 3)
    await sale.queue.push(order("external"))  # one of these three
    await died(shop, syncer, step)
    await died(shop, syncer, step)
    await syncer.rebuild()
    stock = await sale.inventory.stock("phone")
    assert (stock.total, stock.booked, stock.direct) == (12, 8, 2)
    assert not shop.raw.hexists(shop.keys.stock("phone"), "tracked")
    await work(shop, sale)
    assert await rows(sale) == dict.fromkeys(("saved", "listed", "external"), PERSISTED)


@each_backend
async def test_a_rebuild_that_died_at_the_very_end_is_repeated(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 12))
    await sale.buy("phone", "bob", 3, order_id="listed")
    await sale.inventory.deduct("phone", 3)
    await sale.queue.push(order("external"))
    with mock.patch.object(sale.real._meta, "open", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        await syncer.rebuild()
    await syncer.rebuild()
    stock = await sale.inventory.stock("phone")
    assert (stock.booked, stock.direct) == (6, 2)


async def test_what_is_cancelled_after_a_rebuild_died_is_nobodys(sync_shop: Shop) -> None:
    shop = sync_shop
    sale, syncer = await loaded(shop, Goods("phone", 12))
    await sale.buy("phone", "ann", 3, order_id="saved")
    await work(shop, sale)
    await sale.inventory.deduct("phone", 3)
    await died(shop, syncer, "_take_up")
    assert await sale.cancel("saved") is CANCELLED
    await sale.queue.push(order("external", quantity=3))  # those that were deducted
    await syncer.rebuild()
    stock = await sale.inventory.stock("phone")
    assert (stock.booked, stock.direct) == (3, 0)


@pytest.mark.parametrize("step", STEPS)
async def test_of_two_rebuilds_neither_gives_away_what_an_external_program_took(sync_shop: Shop, step: str) -> None:
    shop = sync_shop
    sale, syncer = await loaded(shop, Goods("phone", 12))
    await sale.buy("phone", "bob", 3, order_id="listed")
    await sale.inventory.deduct("phone", 3)
    with meanwhile(shop, step, shop.syncer(sale).real.rebuild), contextlib.suppress(FlashSaleError):
        await syncer.rebuild()
    assert state_of(shop) == "open"
    stock = await sale.inventory.stock("phone")
    assert (stock.booked, stock.direct) == (6, 3)


@pytest.mark.parametrize("bad", ["x", "-1", "9" * 16])
async def test_a_bad_value_in_place_of_what_was_tracked(sync_shop: Shop, bad: str) -> None:
    shop = sync_shop
    sale, syncer = await loaded(shop, Goods("phone", 12))
    await sale.buy("phone", "bob", 3, order_id="listed")
    shop.raw.hset(shop.keys.stock("phone"), "tracked", bad)
    await syncer.rebuild()
    assert await booked(sale) == 3
    await sale.cancel("listed")
    assert await booked(sale) == 0


# -- a total that was lowered ------------------------------------------------------------------------------------------


async def lowered(shop: Shop) -> tuple[Awaited, Awaited]:
    """Five units are sold: one is saved, the others wait in each place of the queue; the host wants to sell two."""
    sale, syncer = await loaded(shop, Goods("phone", 10))
    await sale.buy("phone", "ann", order_id="saved")
    await work(shop, sale)
    await sale.buy("phone", "bob", order_id="dead")
    await sale.queue._bury(await sale.queue.claim(lease=3600))
    await sale.buy("phone", "bob", order_id="claimed")
    await sale.queue.claim(lease=3600)
    await sale.buy("phone", "bob", 2, order_id="listed")
    set_total(shop, 2)
    return sale, syncer


REFUSED = "^total: it is below what is sold, .* rejected: 'phone' has 2, 5 are sold. Raise it to what is sold, "


@pytest.mark.parametrize("followed", [False, True], ids=["of late", "Redis has it"])
@each_backend
async def test_a_rebuild_rejects_nobody_because_a_total_was_lowered(shop: Shop, followed: bool) -> None:
    sale, syncer = await lowered(shop)
    if followed:
        await syncer.run_once()
        assert (await sale.inventory.stock("phone")).total == 5
    shop.raw.delete(shop.keys.orders)
    before, epoch = snapshot(shop.raw), await settled(sale.store.epoch())
    with pytest.raises(InvalidRequest, match=REFUSED):
        await syncer.rebuild()
    assert (snapshot(shop.raw), await settled(sale.store.epoch())) == (before, epoch)
    set_total(shop, 5)
    await syncer.rebuild()
    assert await sale.inventory.stock("phone") == (5, 5, 0, 0)
    await sale.queue.requeue_dead()
    await work(shop, sale)
    assert set((await rows(sale)).values()) == {PERSISTED}


async def test_what_was_saved_does_not_refuse_a_rebuild(sync_shop: Shop) -> None:
    """Its element is on the list, too: a worker died between the commit and the ack."""
    shop = sync_shop
    sale, syncer = await loaded(shop, Goods("phone", 10))
    await sale.buy("phone", "ann", 5, order_id="saved")
    element = shop.raw.lindex(shop.keys.order_list, 0)
    await work(shop, sale)
    shop.raw.lpush(shop.keys.order_list, element)
    set_total(shop, 2)
    await syncer.rebuild()
    assert await sale.inventory.stock("phone") == (5, 5, 0, 0)


async def test_a_total_that_is_lowered_while_a_rebuild_begins_rejects_nobody(sync_shop: Shop) -> None:
    shop = sync_shop
    sale, syncer = await loaded(shop, Goods("phone", 10))
    await sale.buy("phone", "bob", 5, order_id="waits")
    lower = partial(set_total, shop, 2)
    with meanwhile(shop, "_grant", lower), pytest.raises(InvalidRequest, match=REFUSED):
        await syncer.rebuild()
    assert (state_of(shop), granted(shop)) == ("closed", 10)
    await work(shop, sale)  # the ledger is whole: workers go on
    await syncer.rebuild()
    assert await rows(sale) == {"waits": PERSISTED}


@pytest.mark.parametrize("step", ["_close", "_check_known"])
async def test_who_buys_while_a_rebuild_begins_is_not_rejected(sync_shop: Shop, step: str) -> None:
    shop = sync_shop
    sale, syncer = await loaded(shop, Goods("phone", 10))
    await sale.buy("phone", "ann", 2, order_id="saved")
    await work(shop, sale)
    set_total(shop, 2)
    real = getattr(sale.real, step)

    def late(*args: Any) -> Any:
        sale.real.buy("phone", "bob", 3, order_id="late")
        return real(*args)

    with mock.patch.object(sale.real, step, late), pytest.raises(InvalidRequest, match=REFUSED):
        await syncer.rebuild()
    assert state_of(shop) == ("closed" if step == "_close" else "open")
    set_total(shop, 5)
    await syncer.rebuild()
    await work(shop, sale)
    assert await rows(sale) == {"saved": PERSISTED, "late": PERSISTED}


# -- the naive way --------------------------------------------------------------------------------------------------


async def naive(shop: Shop, sale: Awaited) -> None:
    """What many systems do: the stock is what the database says."""
    ((units,),) = shop.sql("SELECT COALESCE(SUM(quantity), 0) FROM flashsale_orders WHERE state = 'PERSISTED'")
    shop.raw.hset(shop.keys.stock("phone"), "Booked", units)


async def ours(shop: Shop, sale: Awaited) -> None:
    for _ in range(3):
        await shop.syncer(sale).run_once()


@pytest.mark.parametrize(("sync", "told_accepted"), [(naive, 16), (ours, 10)], ids=["naive", "ours"])
async def test_booked_set_from_the_database_oversells_while_orders_are_queued(
    real_shop: Shop, sync: Any, told_accepted: int
) -> None:
    shop = real_shop
    sale = shop.sale(store=await shop.store(Goods("phone", 10)), cache_for=0)
    await sale.preload("phone", 10)
    worker = shop.worker(sale, batch=4)

    async def load(name: str) -> int:
        receipts = await sale.inventory.reserve([order(f"{name}-{n}", buyer_id=f"{name}-{n}") for n in range(10)])
        return sum(receipt.accepted for receipt in receipts)

    accepted = await load("first")
    await worker.run_once()  # four are in the database, six are on the list
    await sync(shop, sale)
    accepted += await load("second")
    assert accepted == told_accepted
    await work(shop, sale)
    assert await active_units(sale) == 10  # the guard holds in any case, and rejects who was told otherwise
    assert Counter((await rows(sale)).values())[REJECTED] == told_accepted - 10


# -- stale syncers --------------------------------------------------------------------------------------------------


def reads_long_ago(shop: Shop, syncer: Awaited, rows: list[Goods]) -> None:
    """Lets the syncer see these rows, whatever the database has by now."""

    class Stale:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def goods(self) -> Any:
            async def later() -> Any:
                return rows

            return later() if shop.is_async else rows

    store = syncer.real._store
    syncer.real._store = Stale()


@each_backend
async def test_a_syncer_that_read_an_older_row_moves_neither_stock_nor_guard(shop: Shop) -> None:
    sale, stale = await loaded(shop, Goods("phone", 10))
    reads_long_ago(shop, stale, list(await settled(sale.store.goods())))
    for units, total in ((10, 20), (-15, 5)):
        await sale.restock("phone", units)
        now = await settled(sale.store.goods())
        assert (await stale.run_once()).resized == ()
        assert await sale.inventory.stock("phone") == (total, 0, total, 0)
        assert granted(shop) == total
        assert await settled(sale.store.goods()) == now


@each_backend
async def test_a_syncer_that_read_an_older_policy_does_not_bring_it_back(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 10))
    stale = shop.syncer(sale)
    reads_long_ago(shop, stale, list(await settled(sale.store.goods())))
    await settled(sale.store.put_goods(Goods("phone", 10, per_buyer=1)))
    await syncer.run_once()
    await stale.run_once()
    assert await outcome(sale, "phone", "ann", 2) is Outcome.LIMIT_REACHED


@each_backend
async def test_of_two_syncers_one_acts_and_the_other_takes_over(shop: Shop) -> None:
    sale, syncer = await loaded(shop, Goods("phone", 10, hold=60))
    for n in range(6):
        await sale.buy("phone", "ann", order_id=f"o-{n}")
    await work(shop, sale)
    for n in range(6):
        shop.raw.zadd(shop.keys.holds, {f"o-{n}": 1})
    assert await settled(sale.real._meta.lead("somebody else", 30.0)) == 1
    before = snapshot(shop.raw)
    report = await syncer.run_once()
    assert (report.leading, report.expired) == (False, 0)
    assert snapshot(shop.raw) == before
    shop.raw.hset(shop.keys.meta, "leader_until", "1")  # it died, and its lease ended
    other = shop.syncer(sale)
    reports = await asyncio.gather(syncer.run_once(), other.run_once())
    assert any(report.leading for report in reports)
    assert sum(report.expired for report in reports) == 6
    assert await booked(sale) == await active_units(sale) == 0


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@promises(
    {
        "the epoch of a restore": test_a_rebuild_of_an_older_epoch_is_refused_at_each_step,
        "the epoch of a close": test_a_rebuild_of_an_older_epoch_is_refused_at_each_step,
        "the epoch of a wipe": test_a_rebuild_of_an_older_epoch_is_refused_at_each_step,
        "the epoch of an opening": test_a_rebuild_of_an_older_epoch_is_refused_at_each_step,
        "the version of the total": test_a_syncer_that_read_an_older_policy_does_not_bring_it_back,
        "known rows are booked once": test_restoring_and_settling_twice_books_once,
        "the caps of a restore": test_a_rebuild_brings_back_stock_ledger_caps_and_deadlines,
        "the deadlines of a restore": test_a_rebuild_brings_back_stock_ledger_caps_and_deadlines,
        "the units of a restored order": test_a_rebuild_brings_back_stock_ledger_caps_and_deadlines,
        "an adoption waits for a rebuild": test_a_worker_waits_while_the_sale_is_closed_and_counts_no_attempt,
        "new deliveries in a new epoch": test_a_worker_of_the_old_epoch_cannot_drop_what_another_claimed_in_the_new_one,
        "a rebuild books what waits": test_what_waits_is_booked_before_the_sale_opens,
        "untracked units are another's": test_rebuilding_a_sale_that_was_not_lost_changes_nothing_but_the_epoch,
        "unknown, or to be rebuilt": test_a_worker_waits_while_the_sale_is_closed_and_counts_no_attempt,
        "nothing is for sale in a rebuild": test_nothing_is_for_sale_while_a_rebuild_is_under_way,
        "the ledger says who waits with units": test_an_older_redis_keeps_units_that_an_external_program_took,
        "a rebuild that died is remembered": partial(test_a_rebuild_that_died_is_repeated, step="_take_up"),
        "who was cancelled since is forgotten": test_what_is_cancelled_after_a_rebuild_died_is_nobodys,
        "a rebuild that ended is forgotten": partial(test_a_rebuild_that_died_is_repeated, step="_reopen"),
        "a rebuild rejects nobody": partial(test_a_rebuild_rejects_nobody_because_a_total_was_lowered, followed=True),
        "direct units outlive a rebuild": test_rebuilding_a_sale_that_was_not_lost_changes_nothing_but_the_epoch,
        "one leads": test_of_two_syncers_one_acts_and_the_other_takes_over,
    },
    by=CorruptState,
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
