"""`Syncer`: from the database to the stock to the gate, and never the other way round."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from flashsale import GateState, Goods, OrderState, Outcome, Stock, StoreError, StoreRequired, UnknownGoods
from tests.core.test_worker import booked, rows, units, work_off
from tests.support import servers
from tests.support.helpers import clock, order, snapshot, until
from tests.support.mutants import kills, promises
from tests.support.sales import active_units, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop


async def synced(shop: Shop, *goods: Goods, **settings: Any) -> tuple[Any, Any]:
    """A sale whose database has this item, and its syncer; nothing has been synced yet."""
    settings.setdefault("cache_for", 0)
    sale = shop.sale(store=await shop.store(*goods), **settings)
    return sale, shop.syncer(sale)


async def put(sale: Any, *goods: Goods) -> None:
    for each in goods:
        putting = sale.store.put_goods(each)
        if putting is not None:
            await putting


def database(shop: Shop, *columns: str) -> Any:
    return shop.sql(f"SELECT {', '.join(columns)} FROM flashsale_goods WHERE goods_id = 'phone'")[0]


# -- preloading -----------------------------------------------------------------------------------------------------


async def test_goods_are_preloaded_once_and_the_database_knows(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10, per_buyer=2), Goods("case", 5))
    report = await syncer.run_once()
    assert (report.leading, report.missing, report.resized, report.returned) == (True, (), (), 0)
    assert sorted(report.loaded) == ["case", "phone"]
    assert await sale.inventory.stock("phone") == Stock(10, 0, 10, 0)
    assert await sale.gate.state("case") == GateState(count=5, started=False, access=0, remaining=5)
    assert database(shop, "loaded", "granted") == (1, 10)
    before = snapshot(shop.raw)
    assert (await syncer.run_once()).loaded == ()
    assert unled(snapshot(shop.raw)) == unled(before)
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED


async def test_many_new_items_are_one_look_at_the_partitions(shop: Shop) -> None:
    """A look reads the rows of all items: one for each took a minute for three thousand."""
    sale, syncer = await synced(shop, *[Goods(f"g-{n}", 1) for n in range(5)])
    store = type(sale.store)
    fix, looks = store.fix_partitions, []

    def noted(self: Any, number: int) -> Any:
        looks.append(number)
        return fix(self, number)

    with mock.patch.object(store, "fix_partitions", noted):
        assert len((await syncer.run_once()).loaded) == 5
        assert looks == [1]
        await syncer.run_once()
    assert looks == [1]


def unled(keys: dict[bytes, Any]) -> dict[bytes, Any]:
    """Without the syncers' lease."""
    kind, meta = keys[b"flashsale:{spring}:meta"]
    rest = {field: value for field, value in meta.items() if not field.startswith(b"leader")}
    return keys | {b"flashsale:{spring}:meta": (kind, rest)}


async def test_the_policy_of_the_database_holds(shop: Shop) -> None:
    now = clock(shop.raw)
    sale, syncer = await synced(
        shop,
        Goods("phone", 10, per_buyer=1, opens_at=now - 60, closes_at=now + 600),
        Goods("over", 5, closes_at=now - 1),
    )
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).accepted
    assert (await sale.buy("phone", "ann")).outcome is Outcome.LIMIT_REACHED
    assert (await sale.buy("over", "ann")).outcome is Outcome.ENDED


async def test_the_schedule_starts_and_stops_without_another_pass(shop: Shop) -> None:
    now = clock(shop.raw)
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=now + 60, closes_at=now + 120))
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    await shop.comes("opens_at")
    assert (await sale.buy("phone", "ann")).accepted
    await shop.comes("closes_at")
    assert (await sale.buy("phone", "ann")).outcome is Outcome.ENDED


async def test_a_pass_shows_the_schedule_to_those_who_read_only_the_flag(shop: Shop) -> None:
    """A service of the article's kind looks at `_start` alone."""
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=1.0))
    await syncer.run_once()
    assert shop.raw.get(shop.keys.start("phone")) == b"1"
    await put(sale, Goods("phone", 10, opens_at=1.0, closes_at=2.0))
    await syncer.run_once()
    await syncer.run_once()
    assert shop.raw.get(shop.keys.start("phone")) == b"0"


@pytest.mark.parametrize("opens_at", [1.0, 1700000000.1234567, 1.5e9 + 1 / 3])
async def test_a_stop_by_hand_outlives_the_next_pass(shop: Shop, opens_at: float) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=opens_at))
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).accepted
    await sale.stop("phone")
    await syncer.run_once()
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    await sale.start("phone")
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).accepted


async def test_a_new_schedule_in_the_database_reaches_stock_and_gate(shop: Shop) -> None:
    now = clock(shop.raw)
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=now + 600))
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    await put(sale, Goods("phone", 10, opens_at=now - 1))
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).accepted
    await put(sale, Goods("phone", 10, opens_at=now - 1, per_buyer=1, closes_at=now - 0.5))
    await syncer.run_once()
    assert (await sale.buy("phone", "ann")).outcome is Outcome.ENDED


async def test_goods_preloaded_by_hand_are_taken_over(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10))
    await sale.preload("phone", 10)
    await sale.start("phone")
    await sale.buy("phone", "ann")
    assert (await syncer.run_once()).loaded == ()
    assert database(shop, "loaded") == (1,)
    assert await sale.inventory.stock("phone") == Stock(10, 1, 9, 0)


# -- items that are gone --------------------------------------------------------------------------------------------


async def test_goods_once_loaded_and_absent_stay_closed(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=1.0))
    await syncer.run_once()
    await sale.buy("phone", "ann", order_id="o-1")
    shop.raw.flushall()
    another = shop.syncer(sale)
    for each in (syncer, another, syncer):
        report = await each.run_once()
        assert (report.missing, report.loaded) == (("phone",), ())
        for call in (lambda: sale.buy("phone", "bob"), lambda: sale.gate.enter("phone"), lambda: sale.start("phone")):
            with pytest.raises(UnknownGoods):
                await call()
    assert not shop.raw.exists(shop.keys.stock("phone"), *shop.keys.gate("phone"))


async def test_a_lost_gate_alone_is_made_again_from_the_stock(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=1.0))
    await syncer.run_once()
    await sale.buy("phone", "ann", 3)
    shop.raw.delete(*shop.keys.gate("phone"))
    await syncer.run_once()
    assert await sale.gate.state("phone") == GateState(count=10, started=True, access=3, remaining=7)


# -- totals ---------------------------------------------------------------------------------------------------------


async def test_a_restock_reaches_database_stock_and_gate(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 2, opens_at=1.0))
    await syncer.run_once()
    await sale.buy("phone", "ann", 2)
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT
    await put(sale, Goods("phone", 5, opens_at=1.0))
    assert (await syncer.run_once()).resized == (("phone", 5),)
    assert await sale.inventory.stock("phone") == Stock(5, 2, 3, 0)
    assert (await sale.gate.state("phone")).count == 5
    assert database(shop, "granted") == (5,)
    assert (await sale.buy("phone", "bob", 3)).accepted
    await work_off(shop, shop.worker(sale))
    assert booked(shop) == 5


async def test_lowering_stops_at_what_is_booked(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=1.0))
    await syncer.run_once()
    for n in range(3):
        await sale.buy("phone", "ann", 2, order_id=f"o-{n}")
    await put(sale, Goods("phone", 4, opens_at=1.0))
    assert (await syncer.run_once()).resized == (("phone", 6),)
    assert await sale.inventory.stock("phone") == Stock(6, 6, 0, 0)
    assert (await sale.gate.state("phone")).count == 6
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT
    await work_off(shop, shop.worker(sale))
    assert set((await rows(sale)).values()) == {OrderState.PERSISTED}  # nobody accepted before is rejected
    assert booked(shop) == 6
    await sale.cancel("o-0")
    await syncer.run_once()
    assert await sale.inventory.stock("phone") == Stock(4, 4, 0, 0)  # the request holds as soon as it can


async def test_an_older_row_is_refused_by_its_version(shop: Shop) -> None:
    """A syncer that slept with an old row in its hand wakes up."""
    sale, syncer = await synced(shop, Goods("phone", 10))
    await syncer.run_once()
    await put(sale, Goods("phone", 20), Goods("phone", 30, per_buyer=3))
    await syncer.run_once()
    before = snapshot(shop.raw)
    assert await sale.inventory._configure(Goods("phone", 10, version=0)) == 30
    assert snapshot(shop.raw) == before


async def test_booked_is_never_set(shop: Shop) -> None:
    """Units queued or taken by others are in Redis only; the database knows less, and must not decide."""
    sale, syncer = await synced(shop, Goods("phone", 10, opens_at=1.0))
    await syncer.run_once()
    await sale.buy("phone", "ann", 2)
    await sale.inventory.deduct("phone", 3)
    for total in (10, 20, 7):
        await put(sale, Goods("phone", total, opens_at=1.0))
        for _ in range(3):
            await syncer.run_once()
        assert await sale.inventory.stock("phone") == Stock(total, 5, total - 5, 3)
    assert booked(shop) == 0


# -- the gate -------------------------------------------------------------------------------------------------------


async def leak(sale: Any, syncer: Any) -> None:
    """Slots taken by buyers who never came to the stock; they return, and no slot of an order does."""
    await syncer.run_once()
    await sale.buy("phone", "ann", 2)
    assert (await sale.gate.enter("phone", 3)).admitted
    assert (await sale.gate.enter("phone")).outcome is Outcome.SOLD_OUT
    returned = [(await syncer.run_once()).returned for _ in range(3)]
    assert sum(returned) == 3
    assert (await sale.gate.state("phone")).access == 2
    assert (await sale.buy("phone", "bob", 3)).accepted
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT
    assert await units(sale) == 5


async def test_slots_that_leaked_come_back(shop: Shop) -> None:
    await leak(*await synced(shop, Goods("phone", 5, opens_at=1.0), gate_client=shop.client(db=1)))


async def test_slots_that_leaked_come_back_on_two_servers(real_shop: Shop) -> None:
    with servers.redis_server() as other:
        client = other.aclient() if real_shop.is_async else other.client()
        await leak(*await synced(real_shop, Goods("phone", 5, opens_at=1.0), gate_client=client))
        assert other.client().exists(*real_shop.keys.gate("phone"))
        if real_shop.is_async:
            await client.aclose()


async def test_a_slot_is_not_taken_back_while_the_stock_moves(shop: Shop) -> None:
    """Whoever is on the way between gate and stock keeps his slot."""
    sale, syncer = await synced(shop, Goods("phone", 9, opens_at=1.0), gate_client=shop.client(db=1))
    await syncer.run_once()
    for _ in range(3):
        await sale.gate.enter("phone")
        await sale.buy("phone", "ann")
        assert (await syncer.run_once()).returned == 0
    assert (await sale.gate.state("phone")).access == 6


async def test_units_taken_past_the_gate_close_it(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 5, opens_at=1.0), gate_client=shop.client(db=1))
    await syncer.run_once()
    await sale.inventory.deduct("phone", 5)
    await syncer.run_once()
    assert (await sale.gate.enter("phone")).outcome is Outcome.SOLD_OUT


async def test_the_pause_is_mirrored_and_lifted(shop: Shop) -> None:
    """The process that paused died before it reached the gate."""
    sale, syncer = await synced(shop, Goods("phone", 5, opens_at=1.0), gate_client=shop.client(db=1))
    await syncer.run_once()
    for state, outcome in (("paused", Outcome.PAUSED), ("open", Outcome.ADMITTED)):
        shop.raw.hset(shop.keys.meta, "state", state)
        await syncer.run_once()
        assert (await sale.gate.enter("phone")).outcome is outcome


# -- deadlines ------------------------------------------------------------------------------------------------------


async def test_unpaid_orders_expire_by_the_clock_of_redis_and_paid_ones_stay(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 5, opens_at=1.0, hold=600))
    await syncer.run_once()
    for name in ("unpaid", "paid"):
        await sale.buy("phone", "ann", order_id=name)
    assert (await syncer.run_once()).expired == 0  # the deadline starts when the order is persisted
    await shop.worker(sale).run_once()
    await sale.confirm("paid")
    assert (await syncer.run_once()).expired == 0
    for name in shop.raw.zrange(shop.keys.holds, 0, -1):
        shop.raw.zadd(shop.keys.holds, {name: clock(shop.raw) - 0.001})
    assert (await syncer.run_once()).expired == 1
    assert await rows(sale) == {"unpaid": OrderState.EXPIRED, "paid": OrderState.CONFIRMED}
    assert await sale.status("unpaid") is OrderState.EXPIRED
    assert await units(sale) == booked(shop) == 1
    assert (await syncer.run_once()).expired == 0


# -- several syncers, several troubles ------------------------------------------------------------------------------


async def test_of_two_syncers_one_acts(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10))
    assert (await syncer.run_once()).leading
    shop.raw.hset(shop.keys.meta, mapping={"leader": "somebody", "leader_until": clock(shop.raw) + 30})
    await put(sale, Goods("phone", 20))
    before = snapshot(shop.raw)
    report = await syncer.run_once()
    assert (report.leading, report.resized) == (False, ())
    assert snapshot(shop.raw) == before
    shop.raw.hset(shop.keys.meta, "leader_until", clock(shop.raw) - 0.001)  # it died
    report = await syncer.run_once()
    assert (report.leading, report.resized) == (True, (("phone", 20),))


async def test_syncers_at_the_same_moment_do_it_once(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10))
    syncers = [syncer, *(shop.syncer(sale) for _ in range(3))]
    reports = await asyncio.gather(*(each.run_once() for each in syncers))
    assert [report.loaded for report in reports].count(("phone",)) == 1
    assert await sale.inventory.stock("phone") == Stock(10, 0, 10, 0)


async def test_corrupt_goods_stop_only_themselves(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("a-phone", 10), Goods("b-case", 10))
    await syncer.run_once()
    shop.raw.hset(shop.keys.stock("a-phone"), "Booked", "1.0")
    await put(sale, Goods("a-phone", 20), Goods("b-case", 20))
    report = await syncer.run_once()
    assert (report.corrupt, report.resized) == (("a-phone",), (("b-case", 20),))
    assert shop.raw.hmget(shop.keys.stock("a-phone"), "Total", "Booked") == [b"10", b"1.0"]


async def test_a_failing_database_is_an_error_and_lets_the_next_syncer_lead(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 10))
    shop.sql("ALTER TABLE flashsale_goods RENAME TO away")
    with pytest.raises(StoreError):
        await syncer.run_once()
    shop.sql("ALTER TABLE away RENAME TO flashsale_goods")
    assert (await shop.syncer(sale).run_once()).leading


async def test_run_passes_again_and_again_until_it_is_told_to_stop(shop: Shop) -> None:
    sale, _ = await synced(shop, Goods("phone", 10))
    stop = asyncio.Event() if shop.is_async else threading.Event()
    running = asyncio.create_task(shop.syncer(sale, interval=0.05).run(stop))
    await until(lambda: shop.raw.exists(shop.keys.count("phone")), "the gate")
    shop.raw.hset(shop.keys.meta, "state", "paused")
    await until(lambda: shop.raw.hget(shop.keys.window("phone"), "pause") == b"1", "another pass")
    stop.set()
    await running


async def test_a_syncer_needs_a_store(shop: Shop) -> None:
    with pytest.raises(StoreRequired):
        shop.syncer(shop.sale())


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@promises(
    {
        "the version of the total": test_an_older_row_is_refused_by_its_version,
        "the total stops at what is booked": test_lowering_stops_at_what_is_booked,
        "a stock that moves keeps its slots": test_a_slot_is_not_taken_back_while_the_stock_moves,
        "one leads": test_of_two_syncers_one_acts,
    },
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


async def test_the_oldest_deadline_is_first(shop: Shop) -> None:
    sale, syncer = await synced(shop, Goods("phone", 5, opens_at=1.0, hold=600))
    await syncer.run_once()
    await sale.inventory.reserve([order(n) for n in range(3)])
    await shop.worker(sale).run_once()
    for n in range(3):
        shop.raw.zadd(shop.keys.holds, {str(n): 10 - n})
    assert list(await sale._ledger.overdue(2)) == ["2", "1"]


async def test_units_that_a_failover_sold_again_are_not_sold_twice(shop: Shop) -> None:
    """Redis has lost orders that have rows, and sold their units to others, who still wait in the queue."""
    sale = shop.sale(store=await shop.store(Goods("phone", 2)), cache_for=0)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    for name in "ab":
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    shop.raw.hdel(shop.keys.orders, "a", "b")
    shop.raw.hset(shop.keys.orders, "x", "CANCELLED|1|1|phone|1|zoe")  # a ledger that is there
    shop.raw.hset(shop.keys.stock("phone"), mapping={"Booked": 0, "Ledger": 0})
    shop.raw.set(shop.keys.access("phone"), 0)
    for name in "cd":
        assert (await sale.buy("phone", "bob", order_id=name)).accepted
    for _ in range(3):
        await syncer.run_once()
    assert (await sale.inventory.stock("phone")).total == 2
    await work(shop, sale)
    assert await active_units(sale) == 2
    assert {await sale.status(name) for name in "cd"} == {OrderState.REJECTED}
    assert (await sale.inventory.stock("phone")).booked == 2


@kills("no total above the host's")
async def test_without_the_hosts_total_the_guard_follows_redis(sync_shop: Shop) -> None:
    await test_units_that_a_failover_sold_again_are_not_sold_twice(sync_shop)
