"""A sale over several partitions from its load to its purge: worker, syncer, outbox, hooks, audit, repair, rebuild."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest

from flashsale import (
    Event,
    Goods,
    InvalidRequest,
    NotExecuted,
    NotSettled,
    OrderState,
    Outcome,
    StoreError,
    Syncer,
    UnknownGoods,
    Worker,
)
from flashsale.model.reports import Problem, Units
from flashsale.testing import memory_store, temporary_sale
from tests.support.helpers import Awaited, clock, order, settled, snapshot, until
from tests.support.mutants import kills, promises
from tests.support.partitions import (
    FOUR,
    allotted,
    booked,
    buyer,
    held,
    is_queued,
    keys,
    lose,
    partitioned,
    rows,
    sold_from,
    synced,
    work,
)
from tests.support.sales import each_backend, set_total, store_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flashsale import Order
    from tests.support.helpers import Shop

QUEUED, PERSISTED, CONFIRMED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, EXPIRED, REJECTED = OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for api in ("_sync", "aio"):
        monkeypatch.setattr(f"flashsale.{api}.auditor.BETWEEN", 0.01)


async def bought(sale: Awaited, *places: int, units: int = 1) -> list[str]:
    """Buys for a buyer of each of these partitions, and returns the order ids."""
    found = []
    for number, place in enumerate(places):
        receipt = await sale.buy("phone", buyer(place, number), units)
        assert receipt.accepted
        found.append(receipt.order_id)
    return found


async def everything(sale: Awaited) -> int:
    """Buys until nothing is left, and returns how many units there were."""
    units = 0
    while (await sale.buy("phone", buyer(units % FOUR))).accepted:
        units += 1
    return units


def granted(shop: Shop) -> int:
    return shop.sql("SELECT granted FROM flashsale_goods WHERE goods_id = 'phone'")[0][0]


# -- load -------------------------------------------------------------------------------------------------------------


async def test_the_syncer_loads_and_spreads_what_the_database_has(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 10, per_buyer=2, hold=60.0))
    sale = partitioned(shop, store=store)
    syncer = shop.syncer(sale)
    report = await syncer.run_once()
    assert (report.leading, report.loaded, report.resized, report.missing) == (True, ("phone",), (), ())
    assert sorted(total for total, _ in held(shop)) == [2, 2, 3, 3]
    assert (allotted(shop), granted(shop)) == (10, 10)
    assert shop.sql("SELECT loaded FROM flashsale_goods") == [(1,)]
    before = [shop.raw.hgetall(keys(place).transfers("phone")) for place in range(FOUR)]
    report = await syncer.run_once()
    assert (report.loaded, report.resized) == ((), ())
    assert [shop.raw.hgetall(keys(place).transfers("phone")) for place in range(FOUR)] == before


async def test_a_syncer_without_items_freezes_nothing(shop: Shop) -> None:
    store = await shop.store()
    for count in (4, 8):
        await shop.syncer(partitioned(shop, count, store=store)).run_once()
    assert not shop.raw.exists("flashsale:{spring}:meta")


async def test_what_was_preloaded_becomes_the_databases(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 10))
    sale = partitioned(shop, store=store)
    await sale.preload("phone", 10)
    await shop.syncer(sale).run_once()
    assert shop.sql("SELECT loaded, granted FROM flashsale_goods") == [(1, 10)]


async def test_two_syncers_take_turns(shop: Shop) -> None:
    sale, syncer = await synced(shop)
    other = shop.syncer(sale)
    for place in range(FOUR):
        shop.raw.hset(keys(place).meta, mapping={"leader": "somebody else", "leader_until": clock(shop.raw) + 50})
    report = await other.run_once()
    assert not report.leading
    for place in range(FOUR):
        shop.raw.hdel(keys(place).meta, "leader", "leader_until")
    assert (await syncer.run_once()).leading


async def test_a_new_policy_reaches_all_partitions_and_makes_no_units(shop: Shop) -> None:
    sale, syncer = await synced(shop, 10, per_buyer=1)
    await bought(sale, 1, 1, 1)  # units have moved
    await settled(sale.store.put_goods(Goods("phone", 10, per_buyer=2)))
    await syncer.run_once()
    assert sum(total for total, _ in held(shop)) == sum(sold_from(shop)) == 10
    for place in range(FOUR):
        assert (await sale.buy("phone", buyer(place, 0), 2 if place != 1 else 1)).accepted


# -- worker -----------------------------------------------------------------------------------------------------------


@each_backend
async def test_the_worker_saves_the_orders_of_all_partitions(shop: Shop) -> None:
    sale, _ = await synced(shop, 12)
    ids = await bought(sale, *range(FOUR))
    worker = shop.worker(sale)
    assert await worker.run_once() == FOUR
    assert await rows(sale) == dict.fromkeys(ids, PERSISTED)
    assert await worker.run_once() == 0


async def test_run_works_until_it_is_told_to_stop(shop: Shop) -> None:
    sale, _ = await synced(shop, 12)
    stop: Any = asyncio.Event() if shop.is_async else threading.Event()
    running = asyncio.create_task(shop.worker(sale).run(stop))
    ids = await bought(sale, *range(FOUR))

    async def saved() -> bool:
        return len(await rows(sale)) == len(ids)

    await until(saved, "the rows")
    stop.set()
    await running
    assert not is_queued(shop)


class HostError(Exception):
    """What a store of the host's raises that is no error of its database."""


@pytest.mark.parametrize("has_waited", [False, True])
async def test_an_error_of_the_hosts_in_one_partition_ends_them_all(
    shop: Shop, has_waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker of threads would go on without this partition, and nobody would know."""
    sale, _ = await synced(shop, 12)
    worker = shop.worker(sale)

    def fails(_claims: Any) -> None:
        raise HostError

    monkeypatch.setattr(worker.real._each[2], "_process", fails)
    if not has_waited:
        await bought(sale, 2)
    running = asyncio.create_task(worker.run(asyncio.Event() if shop.is_async else threading.Event()))
    if has_waited:
        await asyncio.sleep(0.05)
        await bought(sale, 2)
    with pytest.raises(HostError):
        await asyncio.wait_for(running, 30)


def test_an_exception_that_strikes_who_runs_a_worker_of_threads_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does, where the host has given an event of its own."""

    def strike(*_: Any) -> None:
        raise HostError

    def claim(_timeout: float) -> tuple[()]:
        if not struck.is_set():
            struck.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        return ()

    stop, struck = threading.Event(), threading.Event()
    watchdog = threading.Timer(30.0, stop.set)
    before = signal.signal(signal.SIGUSR1, strike)
    watchdog.start()
    try:
        with temporary_sale(fakeredis.FakeRedis(), {"phone": 4}, store=memory_store, partitions=FOUR) as sale:
            worker: Any = Worker(sale)
            monkeypatch.setattr(worker._each[2], "_claim", claim)
            with pytest.raises(HostError):
                worker.run(stop)
        assert not stop.is_set()
    finally:
        watchdog.cancel()
        signal.signal(signal.SIGUSR1, before)


async def test_a_class_of_the_hosts_is_refused(sync_shop: Shop) -> None:
    sale, _ = await synced(sync_shop, 4)
    for kind, name in ((Worker, "worker"), (Syncer, "syncer")):
        with pytest.raises(InvalidRequest, match=f"a {name} class of your own takes a sale with one partition"):
            type("Ours", (kind,), {})(sale.real)


STRANGE = [order("o-1"), order("04x"), order("01x", buyer_id=buyer(1)), order("02x", buyer_id=buyer(1)), order("ff")]


async def test_what_is_no_order_of_the_partition_is_buried(shop: Shop) -> None:
    """External programs cannot push: their ids name no partition, or another one; nobody's units move for them."""
    sale, _ = await synced(shop, 8)
    (ours,) = await bought(sale, 2)
    for each in STRANGE:
        shop.raw.lpush(keys(2).order_list, each.to_json())
    shop.raw.lpush(keys(2).order_list, b"no order")
    await work(shop, sale)
    assert await rows(sale) == {ours: PERSISTED}
    assert len(shop.raw.hgetall(keys(2).dead)) == len(STRANGE) + 1
    assert booked(shop) == 1
    audit = await shop.syncer(sale).audit()
    assert (audit.ok, audit.pending) == (True, 0)


async def test_an_order_that_only_the_list_has_is_adopted_where_it_belongs(shop: Shop) -> None:
    """As with one partition: an element whose ledger was lost is an order still."""
    sale, _ = await synced(shop, 8)
    shop.raw.lpush(keys(2).order_list, order("02x", buyer_id=buyer(2)).to_json())
    await work(shop, sale)
    assert await rows(sale) == {"02x": PERSISTED}


async def test_what_the_guard_refuses_is_rejected(shop: Shop) -> None:
    sale, _ = await synced(shop, 4)
    await bought(sale, *range(FOUR))
    shop.sql("UPDATE flashsale_goods SET granted = 3")
    await work(shop, sale)
    assert sorted(state for state in (await rows(sale)).values()) == [PERSISTED] * 3 + [REJECTED]
    assert booked(shop) == 3


async def test_a_database_that_fails_loses_nothing(shop: Shop) -> None:
    sale, _ = await synced(shop, 4)
    ids = await bought(sale, *range(FOUR))
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    with pytest.raises(StoreError):
        await shop.worker(sale).run_once()
    shop.sql("ALTER TABLE away RENAME TO flashsale_orders")
    await work(shop, sale)
    assert (await rows(sale)).keys() == set(ids)


# -- syncer -----------------------------------------------------------------------------------------------------------


async def test_unpaid_orders_expire_in_each_partition(shop: Shop) -> None:
    sale, syncer = await synced(shop, 4, hold=60.0)
    ids = await bought(sale, *range(FOUR))
    await work(shop, sale)
    await sale.confirm(ids[3])
    assert (await sale.buy("phone", buyer(0))).outcome is Outcome.SOLD_OUT
    assert (await sale.view("phone")).may_return
    for place in range(3):
        shop.raw.zadd(keys(place).holds, {ids[place]: 1}, xx=True)
    assert (await syncer.run_once()).expired == 3
    assert await rows(sale) == dict(zip(ids, [EXPIRED, EXPIRED, EXPIRED, CONFIRMED], strict=True))
    assert (await sale.buy("phone", buyer(3), 3)).accepted  # the units come from where they returned


async def test_a_move_that_nobody_finished_is_finished(shop: Shop) -> None:
    sale, syncer = await synced(shop, 8)
    begin_move(shop, 0, 1, 2)
    assert sum(total for total, _ in held(shop)) == 6
    await syncer.run_once()
    assert sum(total for total, _ in held(shop)) == 8
    assert await everything(sale) == 8


def begin_move(shop: Shop, place: int, to: int, units: int) -> None:
    """Takes units out of a partition, as a process does that is then killed."""
    stock, count, moves = keys(place).stock("phone"), keys(place).count("phone"), keys(place).transfers("phone")
    seq, _, _ = (shop.raw.hget(moves, f"to:{to:02x}") or b"0 0").partition(b" ")
    shop.raw.hincrby(stock, "Total", -units)
    shop.raw.incrby(count, -units)
    shop.raw.hincrby(moves, "moves", 1)
    shop.raw.hset(moves, f"to:{to:02x}", f"{int(seq) + 1} {units}")


async def test_the_guard_is_tight_again_after_a_crash(shop: Shop) -> None:
    """Lowering goes Redis first; who crashed then has left the guard too loose."""
    sale, _ = await synced(shop, 8)
    shop.sql("UPDATE flashsale_goods SET granted = 20")
    await shop.syncer(sale).run_once()
    assert granted(shop) == 8


async def test_one_item_that_cannot_be_trusted_stops_no_other(shop: Shop) -> None:
    store = await shop.store(Goods("case", 8), Goods("phone", 8))
    sale = partitioned(shop, store=store)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    shop.raw.hset(keys(0).stock("case"), "Allotted", "many")
    await store.restock("phone", 4)
    report = await syncer.run_once()
    assert (report.corrupt, report.resized) == (("case",), (("phone", 12),))


@pytest.mark.parametrize("text", ["1", "1 x", "x 1", "1 2 3"])
async def test_a_transfer_that_cannot_be_trusted_is_said_so(shop: Shop, text: str) -> None:
    sale, syncer = await synced(shop, 0)
    shop.raw.hset(keys(1).transfers("phone"), "to:02", text)
    report = await syncer.run_once()
    assert report.corrupt == ("phone",)
    with pytest.raises(NotExecuted, match="another partition cannot be asked for units"):
        await sale.buy("phone", buyer(0))


async def test_units_are_brought_for_orders_that_came_back(shop: Shop) -> None:
    """A failover lost units that were on their way, and the rows of orders that hold them are in the ledger again."""
    sale, syncer = await synced(shop, 12)
    await bought(sale, *[1] * 8)
    shop.raw.hset(keys(1).stock("phone"), "Total", 0)
    await syncer.run_once()
    assert await everything(sale) == 0  # of 4 that the others had


@kills("units for orders that came back")
async def test_without_units_for_orders_that_came_back_others_buy_theirs(sync_shop: Shop) -> None:
    await test_units_are_brought_for_orders_that_came_back(sync_shop)


# -- restock ----------------------------------------------------------------------------------------------------------


async def test_units_are_added_everywhere_and_sold(shop: Shop) -> None:
    sale, _ = await synced(shop, 2)
    assert await everything(sale) == 2
    assert await sale.restock("phone", 10) == 12
    assert (allotted(shop), granted(shop)) == (12, 12)
    assert min(total for total, _ in held(shop)) >= 2
    assert await everything(sale) == 10


async def test_a_restock_is_remembered_by_nobody_as_sold_out(shop: Shop) -> None:
    sale, _ = await synced(shop, 0, settings={"cache_for": 60})
    for place in range(FOUR):
        assert (await sale.buy("phone", buyer(place))).outcome is Outcome.SOLD_OUT
    await sale.restock("phone", 4)
    for place in range(FOUR):
        assert (await sale.buy("phone", buyer(place))).accepted


async def test_units_are_taken_away_from_where_they_are(shop: Shop) -> None:
    sale, _ = await synced(shop, 20)
    assert await sale.restock("phone", -18) == 2
    assert (allotted(shop), granted(shop), sum(total for total, _ in held(shop))) == (2, 2, 2)
    assert sum(sold_from(shop)) == 2
    assert await everything(sale) == 2


async def test_what_is_booked_stays_booked(shop: Shop) -> None:
    sale, syncer = await synced(shop, 12)
    ids = await bought(sale, 1, 1, 2, 3)
    assert await sale.restock("phone", -10) == 4
    assert (allotted(shop), granted(shop), booked(shop)) == (4, 4, 4)
    assert shop.sql("SELECT total FROM flashsale_goods") == [(2,)]
    await work(shop, sale)
    await sale.cancel(ids[0])
    assert (await syncer.run_once()).resized == (("phone", 3),)
    await sale.cancel(ids[1])
    await sale.cancel(ids[2])
    assert (await syncer.run_once()).resized == (("phone", 2),)
    assert (allotted(shop), granted(shop)) == (2, 2)
    assert await everything(sale) == 1


async def test_a_restock_with_a_request_id_is_made_once(shop: Shop) -> None:
    sale, _ = await synced(shop, 4)
    assert [await sale.restock("phone", 4, "r-1") for _ in range(2)] == [8, 8]
    assert allotted(shop) == 8
    with pytest.raises(InvalidRequest):
        await sale.restock("phone", 5, "r-1")


async def test_restocks_at_once_leave_the_last_row(shop: Shop) -> None:
    sale, _ = await synced(shop, 4)
    await asyncio.gather(*(sale.restock("phone", units) for units in (5, -3, 7, -1, 2)))
    await shop.syncer(sale).run_once()
    assert (allotted(shop), granted(shop), sum(total for total, _ in held(shop))) == (14, 14, 14)


# -- audit and repair -------------------------------------------------------------------------------------------------


async def test_an_audit_sees_every_unit_and_every_order(shop: Shop) -> None:
    sale, syncer = await synced(shop, 12, hold=60.0)
    ids = await bought(sale, *range(FOUR))
    await work(shop, sale)
    await sale.confirm(ids[0])
    await sale.cancel(ids[1])
    (queued,) = await bought(sale, 3)
    begin_move(shop, 0, 1, 2)
    before = snapshot(shop.raw)
    audit = await syncer.audit([*ids, queued, "01nobody", "o-1", "ffx"])
    assert audit.units == Units(total=10, free=6, queued=1, held=2, sold=1)  # two units are on their way
    assert (audit.orders, audit.pending, audit.unreadable, audit.corrupt, audit.adrift) == ((), 1, 0, (), {})
    assert audit.lost == ("01nobody", "o-1", "ffx")
    assert snapshot(shop.raw) == before


async def test_a_disagreement_is_found_and_mended_where_it_is(shop: Shop) -> None:
    sale, syncer = await synced(shop, 12)
    ids = await bought(sale, 0, 1, 1, 2)
    await work(shop, sale)
    (queued,) = await bought(sale, 2)
    shop.raw.hdel(keys(1).orders, ids[1])  # the ledger of one has lost an order, the list of another one has
    shop.raw.delete(keys(2).order_list)
    shop.raw.rpush(keys(3).order_list, "not an order")
    audit = await syncer.audit(ids)
    assert {(each.order.order_id, each.problem) for each in audit.orders} == {
        (ids[1], Problem.UNKNOWN),
        (queued, Problem.NOT_QUEUED),
    }
    assert audit.unreadable == 1
    dry = await syncer.repair()
    assert (dry.dry_run, {each.order.order_id for each in dry.mended}) == (True, {ids[1], queued})
    repair = await syncer.repair(dry_run=False)
    assert {each.order.order_id for each in repair.mended} == {ids[1], queued}
    await work(shop, sale)
    assert (await rows(sale))[queued] is PERSISTED


@pytest.mark.parametrize("landed", [False, True])
async def test_units_that_a_failover_lost_are_found_and_mended(shop: Shop, landed: bool) -> None:
    """The sender's memory of a move is gone, before or after the receiver had it: units are lost, or double."""
    sale, syncer = await synced(shop, 8)
    begin_move(shop, 0, 1, 2)
    if landed:
        shop.raw.hincrby(keys(1).stock("phone"), "Total", 3)  # it came twice: one is left over
        shop.raw.incrby(keys(1).count("phone"), 3)
    shop.raw.hdel(keys(0).transfers("phone"), "to:01")
    adrift = {"phone": -1 if landed else 2}
    audit = await syncer.audit()
    assert (audit.adrift, audit.ok) == (adrift, False)
    assert (await syncer.repair()).audit.adrift == adrift
    assert (await syncer.audit()).adrift == adrift  # a dry run mends nothing, nor does a pass
    await syncer.run_once()
    assert (await syncer.audit()).adrift == adrift
    await syncer.repair(dry_run=False)
    audit = await syncer.audit()
    assert (audit.adrift, audit.ok, audit.units.total) == ({}, True, 8)
    assert await everything(sale) == 8


async def test_units_left_over_are_taken_as_far_as_they_are_free(shop: Shop) -> None:
    sale, syncer = await synced(shop, 4)
    shop.raw.hincrby(keys(1).stock("phone"), "Total", 2)
    shop.raw.incrby(keys(1).count("phone"), 2)
    ids = [(await sale.buy("phone", buyer(n % FOUR))).order_id for n in range(5)]
    await syncer.repair(dry_run=False)
    assert (await syncer.audit()).adrift == {"phone": -1}  # one of them is booked
    shop.sql("UPDATE flashsale_goods SET granted = 6")
    await work(shop, sale)
    await sale.cancel(ids[0])
    await syncer.repair(dry_run=False)
    assert (await syncer.audit()).adrift == {}


# -- rebuild ----------------------------------------------------------------------------------------------------------


async def sold_in_part(shop: Shop, **settings: Any) -> tuple[Awaited, Awaited, list[str]]:
    """A sale with an order of each kind: paid, unpaid, cancelled, waiting, and dead."""
    sale, syncer = await synced(shop, 12, hold=900.0, settings=settings)
    ids = await bought(sale, *range(FOUR))
    await work(shop, sale)
    await sale.confirm(ids[0])
    await sale.cancel(ids[1])
    return sale, syncer, ids


LOSSES: dict[str, Sequence[int]] = {"one": [2], "the first": [0], "all": [0, 1, 2, 3], "none": []}


@pytest.mark.parametrize("places", LOSSES.values(), ids=LOSSES)
async def test_a_rebuild_restores_what_the_database_has(shop: Shop, places: Sequence[int]) -> None:
    sale, syncer, ids = await sold_in_part(shop)
    before = await rows(sale)
    for place in places:
        lose(shop, place)
    if len(places) == FOUR:
        shop.raw.flushall()
    report = await syncer.run_once()
    assert report.missing == (("phone",) if places else ())
    rebuild = await syncer.rebuild()
    assert (rebuild.epoch, rebuild.orders, rebuild.goods) == (2, 4, {"phone": 3})
    assert await rows(sale) == before
    assert (allotted(shop), granted(shop), booked(shop)) == (12, 12, 3)
    assert [await sale.status(order_id) for order_id in ids] == [CONFIRMED, CANCELLED, PERSISTED, PERSISTED]
    audit = await syncer.audit(ids)
    assert audit.ok
    await sale.start("phone")
    assert await everything(sale) == 9
    await work(shop, sale)
    assert (await syncer.audit()).ok


async def test_a_rebuild_keeps_what_waits(shop: Shop) -> None:
    sale, syncer, ids = await sold_in_part(shop)
    waiting = await bought(sale, *range(FOUR))
    assert await everything(sale) == 5
    rebuild = await syncer.rebuild()
    assert (rebuild.orders, booked(shop)) == (4, 12)
    await work(shop, sale)
    states = await rows(sale)
    assert {states[order_id] for order_id in waiting} == {PERSISTED}
    assert [states[order_id] for order_id in ids] == [CONFIRMED, CANCELLED, PERSISTED, PERSISTED]
    assert (await syncer.audit(waiting)).ok


async def test_a_rebuild_keeps_what_waits_where_the_stock_was_lost(shop: Shop) -> None:
    sale, syncer, _ = await sold_in_part(shop)
    waiting = await bought(sale, 2, 2, 3)
    assert await everything(sale) == 6
    shop.raw.delete(keys(2).stock("phone"), keys(2).orders, keys(3).buyers("phone"))
    await syncer.rebuild()
    await work(shop, sale)
    states = await rows(sale)
    assert {states[order_id] for order_id in waiting} == {PERSISTED}
    assert (booked(shop), allotted(shop)) == (12, 12)
    assert (await syncer.audit(waiting)).ok


async def test_units_of_what_waits_are_kept_for_what_has_no_row(shop: Shop) -> None:
    """A worker died between the commit and the ack: that order is on the list, and in the database, too."""
    sale, syncer = await synced(shop, 4)
    (saved,) = await bought(sale, 3, units=2)
    element = shop.raw.lindex(keys(3).order_list, 0)
    await work(shop, sale)
    shop.raw.lpush(keys(3).order_list, element)
    (waits,) = await bought(sale, 1, units=2)
    await syncer.rebuild()
    await work(shop, sale)
    assert await rows(sale) == {saved: PERSISTED, waits: PERSISTED}
    assert (await syncer.audit([saved, waits])).ok


async def test_a_rebuild_keeps_dead_letters(shop: Shop) -> None:
    sale, syncer = await synced(shop, 4)
    (dead,) = await bought(sale, 1, units=2)
    part = sale.real._parts[1]
    (claim,) = await settled(part.queue.claim(10))
    await settled(part.queue._bury([claim]))
    assert await sale.status(dead) is OrderState.DEAD
    await syncer.rebuild()
    assert (await sale.status(dead), booked(shop)) == (OrderState.DEAD, 2)
    await sale.start("phone")
    assert await everything(sale) == 2
    audit = await syncer.audit([dead])
    assert (audit.lost, audit.units.dead, audit.orders) == ((), 2, ())


async def test_a_rebuild_rejects_nobody_because_a_total_was_lowered(shop: Shop) -> None:
    sale, syncer = await synced(shop, 12)
    await bought(sale, 0)
    await work(shop, sale)
    await bought(sale, 1, 3, units=2)
    set_total(shop, 4)
    with pytest.raises(InvalidRequest, match="'phone' has 4, 5 are sold"):
        await syncer.rebuild()
    set_total(shop, 5)
    await syncer.rebuild()
    await work(shop, sale)
    assert list((await rows(sale)).values()) == [PERSISTED] * 3
    assert (allotted(shop), granted(shop), booked(shop)) == (5, 5, 5)


async def test_strange_elements_get_no_units_from_a_rebuild(shop: Shop) -> None:
    sale, syncer = await synced(shop, 4)
    for each in STRANGE:
        shop.raw.lpush(keys(2).order_list, each.to_json())
    await syncer.rebuild()
    assert booked(shop) == 0
    await work(shop, sale)
    assert await rows(sale) == {}


async def test_strange_elements_refuse_no_rebuild(sync_shop: Shop) -> None:
    """The host has lowered the total, and nobody waits whom that would harm."""
    shop = sync_shop
    sale, syncer = await synced(shop, 4)
    await bought(sale, 1, units=3)
    await work(shop, sale)
    for each in STRANGE:
        shop.raw.lpush(keys(2).order_list, each.to_json())
    set_total(shop, 2)
    await syncer.rebuild()
    assert (allotted(shop), granted(shop), booked(shop)) == (3, 3, 3)


async def test_a_move_of_before_the_rebuild_is_forgotten(shop: Shop) -> None:
    sale, syncer = await synced(shop, 8)
    look = await settled(sale.real._transfers.look("phone"))
    begin_move(shop, 0, 1, 2)
    await syncer.rebuild()
    assert await settled(sale.real._transfers._move("phone", 0, 1, 2, look)) == 0  # of the epoch before
    assert (allotted(shop), sum(total for total, _ in held(shop))) == (8, 8)
    await sale.start("phone")
    assert await everything(sale) == 8


async def test_while_one_partition_is_closed_nobody_is_told_sold_out(shop: Shop) -> None:
    sale, syncer = await synced(shop, 4)
    ids = await bought(sale, *range(FOUR))
    lose(shop, 2)
    await syncer.run_once()
    assert await sale.status(ids[1]) is QUEUED
    with pytest.raises(NotExecuted, match="another partition cannot be asked for units"):
        await sale.buy("phone", buyer(1))
    shop.raw.hset(keys(2).meta, "state", "closed")
    shop.raw.hset(keys(2).stock("phone"), mapping={"Total": 0, "Booked": 0, "Ledger": 0})
    with pytest.raises(NotExecuted, match="waits for a rebuild"):
        await sale.buy("phone", buyer(1))


async def test_more_booked_than_the_host_wants_to_sell(shop: Shop) -> None:
    sale, syncer = await synced(shop, 12)
    await bought(sale, *range(FOUR))
    await work(shop, sale)
    set_total(shop, 2)
    await syncer.rebuild()
    assert (allotted(shop), granted(shop), booked(shop)) == (4, 4, 4)
    await sale.start("phone")
    assert await everything(sale) == 0


# -- outbox and hooks -------------------------------------------------------------------------------------------------


async def test_the_outbox_delivers_the_events_of_all_partitions(shop: Shop) -> None:
    sale, _ = await synced(shop, 8)
    ids = await bought(sale, *range(FOUR))
    await work(shop, sale)
    for order_id in ids[:2]:
        await sale.confirm(order_id)
    for order_id in ids[2:]:
        await sale.cancel(order_id)
    seen: list[tuple[str, OrderState]] = []

    def handle(event: Event) -> None:
        seen.append((event.order.order_id, event.state))

    async def ahandle(event: Event) -> None:
        handle(event)

    outbox = shop.make("Outbox", sale, ahandle if shop.is_async else handle)
    assert await outbox.run_once() == 4
    assert sorted(seen) == sorted([*((name, CONFIRMED) for name in ids[:2]), *((name, CANCELLED) for name in ids[2:])])
    assert await outbox.run_once() == 0


class Hooks:
    """Counts what it is told, of either API."""

    def __init__(self) -> None:
        self.units = 0
        self.saved_ids: list[str] = []
        self.settled_ids: list[tuple[str, OrderState]] = []

    def saved(self, _: Any, orders: Sequence[Order]) -> None:
        self.saved_ids += [each.order_id for each in orders]

    def settled(self, _: Any, each: Order, __: OrderState, after: OrderState) -> None:
        self.settled_ids.append((each.order_id, after))

    def stock(self, _: Any, __: str, units: int) -> None:
        self.units += units


class AsyncHooks(Hooks):
    async def saved(self, connection: Any, orders: Sequence[Order]) -> None:  # type: ignore[override]
        super().saved(connection, orders)

    async def settled(self, *args: Any) -> None:  # type: ignore[override]
        super().settled(*args)

    async def stock(self, *args: Any) -> None:  # type: ignore[override]
        super().stock(*args)


async def test_hooks_see_each_order_once_and_every_unit(shop: Shop) -> None:
    hooks = AsyncHooks() if shop.is_async else Hooks()
    store = await store_at(shop, f"sqlite:///{shop.database}", Goods("phone", 8), hooks=hooks)
    sale = partitioned(shop, store=store)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    assert hooks.units == 8
    await sale.start("phone")
    ids = await bought(sale, *range(FOUR))
    await work(shop, sale)
    await sale.cancel(ids[2])
    await sale.restock("phone", -3)
    await sale.restock("phone", 1)
    assert (hooks.units, granted(shop)) == (6, 6)
    assert sorted(hooks.saved_ids) == sorted(ids)
    assert hooks.settled_ids == [(ids[2], CANCELLED)]


# -- the end ----------------------------------------------------------------------------------------------------------


async def test_a_sale_that_is_over_is_settled_and_purged(shop: Shop) -> None:
    sale, syncer = await synced(shop, 4)
    ids = await bought(sale, *range(FOUR))
    for _ in range(2):
        assert (await sale.buy("phone", buyer(0))).outcome is Outcome.SOLD_OUT
    with pytest.raises(NotSettled):
        await syncer.purge()
    assert (await sale.buy("phone", buyer(0))).outcome is Outcome.SOLD_OUT  # it was not paused, or is resumed
    await work(shop, sale)
    for order_id in ids[:3]:
        await sale.confirm(order_id)
    await sale.cancel(ids[3])
    settlement = await syncer.settlement()
    assert settlement.ok
    assert settlement.audit.units == Units(total=4, free=1, sold=3)
    assert settlement.orders == {CONFIRMED: 3, CANCELLED: 1}
    assert (settlement.gate["phone"].count, settlement.gate["phone"].access) == (4, 3)
    assert settlement.refused == {"phone": 3}
    assert (await syncer.purge()).ok
    left = snapshot(shop.raw)
    assert set(left) == {b"flashsale:{spring}:meta"}
    assert (await syncer.run_once()).purged
    assert await syncer.purge() is not None
    for call in (lambda: sale.preload("phone", 4), syncer.rebuild):
        with pytest.raises(InvalidRequest, match="purged"):
            await call()
    with pytest.raises(UnknownGoods):
        await sale.restock("phone", 1)
    await sale.close()
    assert snapshot(shop.raw) == left


async def test_no_key_comes_back_after_a_purge(shop: Shop) -> None:
    _, syncer = await synced(shop, 4)
    await syncer.purge()
    shop.raw.flushall()
    assert (await syncer.run_once()).purged
    assert shop.raw.keys("*") == []


async def test_a_purge_that_was_cut_off_is_finished_by_the_next(shop: Shop) -> None:
    sale, syncer = await synced(shop, 4)
    ids = await bought(sale, *range(FOUR))
    await work(shop, sale)
    for order_id in ids:
        await sale.confirm(order_id)
    part = sale.real._parts[1]
    forget, part._forget = part._forget, lambda: (_ for _ in ()).throw(NotExecuted("cut off"))
    with pytest.raises(NotExecuted, match="cut off"):
        await syncer.purge()
    part._forget = forget
    await syncer.purge()
    assert set(snapshot(shop.raw)) == {b"flashsale:{spring}:meta"}


# -- records ----------------------------------------------------------------------------------------------------------


async def test_what_is_written_for_orders_is_what_one_partition_writes(shop: Shop) -> None:
    """The queue's elements are the documented JSON: what reads them goes on."""
    sale, _ = await synced(shop, 4)
    receipt = await sale.buy("phone", buyer(1), data={"gift": True})
    body = json.loads(shop.raw.lindex(keys(1).order_list, 0))
    assert (body["order_id"], body["goods_id"], body["buyer_id"], body["quantity"], body["data"]) == (
        receipt.order_id,
        "phone",
        buyer(1),
        1,
        {"gift": True},
    )


# -- each promise has its mechanism -----------------------------------------------------------------------------------


@promises(
    {
        "strange elements are buried": test_what_is_no_order_of_the_partition_is_buried,
        "a pass spreads units": test_the_syncer_loads_and_spreads_what_the_database_has,
        "a pass tightens the guard": test_the_guard_is_tight_again_after_a_crash,
        "a purge that was begun is ended": test_a_purge_that_was_cut_off_is_finished_by_the_next,
        "units wait for what has no row": test_units_of_what_waits_are_kept_for_what_has_no_row,
    },
    by=NotSettled,
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


@kills("units adrift are mended")
async def test_without_a_repair_units_stay_adrift(sync_shop: Shop) -> None:
    await test_units_that_a_failover_lost_are_found_and_mended(sync_shop, landed=False)
