"""The recorder: what processes count and tell, and what can be read of it, by one look, by minutes and by samples."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis

from flashsale import Goods, NotExecuted, OrderState, Outcome, RowRefused, StoreError, Syncer
from flashsale._rules.activity import Activity, delivery, holder, instance
from flashsale._sync.overview import Overview
from flashsale._sync.recorder import MINUTES
from tests.support.helpers import until
from tests.support.mutants import kills, promises
from tests.support.sales import work
from tests.support.servers import free_port

if TYPE_CHECKING:
    from tests.support.helpers import Awaited, Shop

ACCEPTED, SOLD_OUT, LIMIT = Outcome.ACCEPTED, Outcome.SOLD_OUT, Outcome.LIMIT_REACHED


async def opened(shop: Shop, total: int = 3, cache_for: float = 60, **policy: Any) -> tuple[Awaited, Awaited]:
    sale = shop.sale(store=await shop.store(Goods("phone", total, **policy)), cache_for=cache_for)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    return sale, syncer


async def told(sale: Awaited) -> None:
    """Lets the process tell at once what it has counted."""
    await sale._call(sale.real._recorder._flush, sale.real._recorder._web)


async def reads(sale: Awaited, what: str, *args: Any) -> Any:
    return await sale._call(getattr(sale.real._recorder, what), *args)


# -- counts ---------------------------------------------------------------------------------------------------------


async def test_each_purchase_is_counted_once_by_item_and_outcome(shop: Shop) -> None:
    sale, _ = await opened(shop, per_buyer=2)
    for buyer in ("ann", "bob"):
        await sale.buy("phone", buyer, order_id=buyer)
    await sale.buy("phone", "ann", order_id="ann")  # a replay is no purchase
    assert (await sale.buy("phone", "ann", 2)).outcome is LIMIT
    await sale.buy("phone", "cleo")
    assert [(await sale.buy("phone", "dora")).outcome for _ in range(7)] == [SOLD_OUT] * 7
    await told(sale)
    totals = await reads(sale, "totals")
    assert totals.purchases == {("phone", "ACCEPTED"): 3, ("phone", "LIMIT_REACHED"): 1, ("phone", "SOLD_OUT"): 7}
    assert sum(totals.batch.counts) == 6  # script calls: six of the seven refusals came from memory
    (counted,) = (await reads(sale, "minutes")).values()
    assert counted == totals.purchases


async def test_what_was_told_is_not_told_again(sync_shop: Shop) -> None:
    sale, _ = await opened(sync_shop)
    for _ in range(3):
        await sale.buy("phone", "ann", 2)
        await told(sale)
    assert (await reads(sale, "totals")).purchases == {("phone", "ACCEPTED"): 1, ("phone", "SOLD_OUT"): 2}


async def test_each_item_of_a_basket_is_counted(sync_shop: Shop) -> None:
    sale, _ = await opened(sync_shop)
    await sale.buy_basket("ann", [("phone", 2)])
    await sale.buy_basket("bob", [("phone", 2)])
    await told(sale)
    assert (await reads(sale, "totals")).purchases == {("phone", "ACCEPTED"): 1, ("phone", "SOLD_OUT"): 1}


async def test_closing_tells_the_rest(shop: Shop) -> None:
    sale, _ = await opened(shop)
    other = shop.sale()
    await other.buy("phone", "ann")
    await other.close()
    assert (await reads(sale, "totals")).purchases == {("phone", "ACCEPTED"): 1}


async def test_a_process_tells_some_seconds_after_it_has_counted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for api in ("aio", "_sync"):
        monkeypatch.setattr(f"flashsale.{api}.recorder.FLUSH", 0.5)
    sale, _ = await opened(shop)
    for buyer in ("ann", "bob"):
        await sale.buy("phone", buyer)
        for _ in range(3000):
            if (await reads(sale, "totals")).purchases.get(("phone", "ACCEPTED")) == 1 + (buyer == "bob"):
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail(f"the purchase of {buyer} was not told")


async def test_moved_orders_and_the_time_of_the_database_are_counted(shop: Shop) -> None:
    sale, _ = await opened(shop)
    for name in "abc":
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    await sale.confirm("a")
    await sale.cancel("a")
    for _ in range(2):
        await sale.cancel("b")
    await told(sale)
    totals = await reads(sale, "totals")
    assert totals.settled == {"PERSISTED": 3, "CONFIRMED": 1, "CANCELLED": 2}
    assert sum(totals.store["save"].counts) == sum(totals.lag.counts) == 1
    assert totals.store["save"].seconds > 0
    assert totals.store_errors == {}


async def test_errors_of_the_database_are_counted_by_kind(sync_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sale, _ = await opened(sync_shop)
    await sale.buy("phone", "ann", order_id="a")

    def save(_orders: object) -> None:
        raise RowRefused("no")

    with monkeypatch.context() as patched:
        patched.setattr(sale.real.store, "save", save)
        await sync_shop.worker(sale).run_once()
    await told(sale)
    assert (await reads(sale, "totals")).store_errors == {("save", "RowRefused"): 1}


async def test_a_settlement_has_the_refusals_of_all_processes(sync_shop: Shop) -> None:
    sale, syncer = await opened(sync_shop, 0)
    other = sync_shop.sale(cache_for=0)
    for each in (sale, other):
        await each.buy("phone", "ann")
    await told(other)
    assert (await syncer.settlement()).refused == {"phone": 2}


# -- faults ---------------------------------------------------------------------------------------------------------


async def test_counts_that_cannot_be_written_are_written_later(shop: Shop) -> None:
    sale, _ = await opened(shop)
    await sale.buy("phone", "ann")
    shop.raw.set(shop.keys.stats, "not ours")
    await told(sale)
    shop.raw.delete(shop.keys.stats)
    await sale.buy("phone", "bob")
    await told(sale)
    assert (await reads(sale, "totals")).purchases == {("phone", "ACCEPTED"): 2}


async def test_what_another_program_wrote_is_passed_over(sync_shop: Shop) -> None:
    sale, _ = await opened(sync_shop)
    sync_shop.raw.hset(sync_shop.keys.processes, mapping={"worker h:1": "x", "": "1|2|{}"})
    sync_shop.raw.hset(sync_shop.keys.stats, mapping={"phone|ACCEPTED": "many", "x": 1})
    sync_shop.raw.zadd(sync_shop.keys.minutes, {"soon": 3})
    sync_shop.raw.rpush(sync_shop.keys.samples("phone"), "a|b")
    assert (await reads(sale, "look")).processes == ()
    assert (await reads(sale, "totals")).purchases == {}
    assert await reads(sale, "minutes") == {}
    assert len(await reads(sale, "samples", "phone")) == 1


async def test_a_sale_that_was_purged_is_told_nothing(sync_shop: Shop) -> None:
    sale, syncer = await opened(sync_shop)
    await sale.stop("phone")
    await sale.buy("phone", "ann")
    await told(sale)
    await syncer.run_once()
    await syncer.purge()
    sale.real._recorder._tally.add(("phone", SOLD_OUT))
    await told(sale)
    assert sync_shop.raw.keys("*") == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_tells_only_what_it_has_counted_itself(sync_shop: Shop) -> None:
    sale = sync_shop.sale()
    recorder = sale.real._recorder
    recorder._tally.add(("phone", ACCEPTED), 5)
    child = os.fork()
    if child == 0:
        recorder._tally.add(("phone", SOLD_OUT), 2)
        os._exit(0 if dict(recorder._take()) == {("phone", SOLD_OUT): 2} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert dict(recorder._take()) == {("phone", ACCEPTED): 5}


async def test_an_exception_from_outside_stops_no_later_telling(shop: Shop) -> None:
    """It may strike at the line that gives the lock back: then nobody may wait for it, least of all a loop."""
    sale, _ = await opened(shop)
    recorder = sale.real._recorder
    recorder._lock.acquire()  # as one that was struck leaves it
    await sale.buy("phone", "ann")
    await told(sale)
    await sale._call(recorder.aclose if shop.is_async else recorder.close)


# -- one look -------------------------------------------------------------------------------------------------------


async def test_one_look_shows_the_whole_sale(shop: Shop) -> None:
    sale, _ = await opened(shop, 9, hold=900, per_buyer=5)
    for name in "abc":
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    for name in "de":
        await sale.buy("phone", "bob", order_id=name)
    await sale.queue.claim(1, lease=60)
    await sale.buy("phone", "bob", order_id="f")
    look = await reads(sale, "look")
    assert (look.state, look.epoch, look.layout, look.leader) == ("open", 1, 2, instance())
    assert (look.queued, look.claimed, look.dead, look.unpaid) == (2, 1, 0, 3)
    assert look.oldest is not None
    assert 0 <= look.time - look.oldest < 60
    (phone,) = look.goods
    assert (phone.goods_id, phone.total, phone.booked, phone.free) == ("phone", 9, 6, 3)
    assert (phone.gate, phone.access, phone.started) == (9, 6, True)
    assert (phone.per_buyer, phone.hold, phone.opens_at, phone.closes_at) == (5, 900.0, None, None)
    await sale.pause()
    assert (await reads(sale, "look")).state == "paused"


async def test_between_its_passes_a_syncer_leads_while_it_lives(sync_shop: Shop) -> None:
    sale, _ = await opened(sync_shop)
    assert (await reads(sale, "look")).leader == instance()
    sync_shop.raw.hset(sync_shop.keys.meta, "leader_until", "1000.0")
    assert (await reads(sale, "look")).leader is None
    syncer = Activity("syncer")
    await sale._call(sale.real._recorder._flush, syncer)
    assert (await reads(sale, "look")).leader == instance()
    text = sync_shop.raw.hget(sync_shop.keys.processes, syncer.name).decode()
    beat, _, rest = text.partition("|")
    sync_shop.raw.hset(sync_shop.keys.processes, syncer.name, f"{float(beat) - 20}|{rest}")
    assert (await reads(sale, "look")).leader is None
    sync_shop.raw.hset(sync_shop.keys.meta, "leader_until", f"{float(beat) + 1000}")
    assert (await reads(sale, "look")).leader == instance()


async def test_a_look_at_a_sale_that_is_not_there_is_empty(sync_shop: Shop) -> None:
    look = await reads(sync_shop.sale(), "look")
    assert (look.state, look.epoch, look.goods, look.queued) == ("open", None, (), 0)


# -- processes ------------------------------------------------------------------------------------------------------


async def test_a_process_tells_what_it_does_and_since_when(sync_shop: Shop) -> None:
    sale, _ = await opened(sync_shop)
    for name in "abc":
        await sale.buy("phone", "ann", order_id=name)
    claims = await sale.queue.claim(lease=60)
    activity = Activity("worker")
    activity.hold(claims)
    recorder = sale.real._recorder
    with pytest.raises(StoreError), activity.doing("save"):
        await sale._call(recorder._flush, activity)
        (busy,) = (await reads(sale, "look")).processes
        raise StoreError("no")
    await sale._call(recorder._flush, activity)
    (idle,) = (await reads(sale, "look")).processes
    assert (busy.kind, busy.claimed, busy.doing, busy.last_error) == ("worker", 3, "save", "")
    assert busy.since is not None
    assert busy.since <= busy.beat
    assert len(busy.deliveries) == 1
    assert [busy.holds(delivery(claim)) for claim in claims] == [True] * 3
    assert not busy.holds(delivery(claims[-1]) + 1)
    assert (idle.doing, idle.since, idle.last_error) == ("", None, "StoreError")
    assert idle.last_ms is not None
    await sale._call(recorder._leave, activity)
    assert (await reads(sale, "look")).processes == ()


async def test_a_process_that_is_gone_for_an_hour_is_forgotten(sync_shop: Shop) -> None:
    sale, syncer = await opened(sync_shop)
    await sale._call(sale.real._recorder._flush, Activity("worker"))
    (name, text), *_ = sync_shop.raw.hgetall(sync_shop.keys.processes).items()
    text = text if isinstance(text, str) else text.decode()
    beat, _, rest = text.partition("|")
    sync_shop.raw.hset(sync_shop.keys.processes, "worker old:1", f"{float(beat) - 3700}|{rest}")
    await syncer.run_once()
    assert list(sync_shop.raw.hgetall(sync_shop.keys.processes)) == [name]


# -- samples and minutes --------------------------------------------------------------------------------------------


async def test_each_pass_of_the_syncer_leaves_a_sample(sync_shop: Shop) -> None:
    sale, syncer = await opened(sync_shop, 9)
    await sale.buy("phone", "ann", 4)
    await syncer.run_once()
    first, second = await reads(sale, "samples", "phone")
    assert (first.total, first.booked, first.access, first.queued) == (9, 0, 0, 0)
    assert (second.total, second.booked, second.access, second.queued) == (9, 4, 4, 1)
    assert first.time < second.time
    assert second.lag > 0


async def test_a_pass_that_fails_leaves_a_sample(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sale, syncer = await opened(shop)

    def away() -> None:
        raise StoreError("the database is away")

    monkeypatch.setattr(sale.real.store, "goods", away)
    for _ in range(2):
        with pytest.raises(StoreError):
            await syncer.run_once()
    assert len(await reads(sale, "samples", "phone")) == 3


async def test_while_the_database_hangs_samples_are_taken(
    sync_shop: Shop, monkeypatch: pytest.MonkeyPatch, patience: float = 20.0
) -> None:
    sale, _ = await opened(sync_shop)
    hangs, goes_on, stop = threading.Event(), threading.Event(), threading.Event()

    def frozen() -> list[Goods]:
        hangs.set()
        goes_on.wait()
        return []

    monkeypatch.setattr(sale.real.store, "goods", frozen)
    thread = threading.Thread(target=Syncer(sale.real, interval=0.01).run, args=(stop,))
    thread.start()
    try:
        await until(hangs.is_set, "the pass hangs")
        before = len(await reads(sale, "samples", "phone"))

        async def has_grown() -> bool:
            return len(await reads(sale, "samples", "phone")) > before + 2

        await until(has_grown, "samples are taken", within=patience)
    finally:
        stop.set()
        goes_on.set()
        thread.join()


@kills("samples beside the pass", by=TimeoutError)
async def test_without_samples_beside_the_pass_there_are_none(sync_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await test_while_the_database_hangs_samples_are_taken(sync_shop, monkeypatch, patience=0.5)


async def test_samples_are_thinned_where_they_are_oldest(sync_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for api in ("aio", "_sync"):
        monkeypatch.setattr(f"flashsale.{api}.recorder.SAMPLES", 8)
    sale, syncer = await opened(sync_shop)
    first = (await reads(sale, "samples", "phone"))[0]
    for _ in range(20):
        await syncer.run_once()
    samples = await reads(sale, "samples", "phone")
    assert 4 < len(samples) <= 8
    assert samples[0] == first
    assert samples == sorted(samples, key=lambda sample: sample.time)


async def test_minutes_of_long_ago_are_forgotten_and_the_totals_stay(sync_shop: Shop) -> None:
    sale, syncer = await opened(sync_shop)
    await sale.buy("phone", "ann")
    await told(sale)
    (minute,) = await reads(sale, "minutes")
    old = minute - MINUTES - 1
    sync_shop.raw.hset(sync_shop.keys.stats_of(old), "phone|ACCEPTED", 1)
    sync_shop.raw.zadd(sync_shop.keys.minutes, {str(old): old})
    syncer.real._sale._recorder._forgot = 0
    await syncer.run_once()
    assert list(await reads(sale, "minutes")) == [minute]
    assert not sync_shop.raw.exists(sync_shop.keys.stats_of(old))
    assert (await reads(sale, "totals")).purchases == {("phone", "ACCEPTED"): 1}


async def test_nothing_that_is_recorded_is_needed_to_sell(sync_shop: Shop) -> None:
    sale, syncer = await opened(sync_shop)
    await sale.buy("phone", "ann", order_id="a")
    await told(sale)
    sync_shop.raw.delete(
        sync_shop.keys.stats, sync_shop.keys.minutes, sync_shop.keys.processes, sync_shop.keys.samples("phone")
    )
    assert (await sale.buy("phone", "bob", order_id="b")).accepted
    await work(sync_shop, sale)
    assert await sale.status("a") is await sale.status("b") is OrderState.PERSISTED
    assert (await syncer.run_once()).lost is None
    assert (await syncer.audit()).ok


@promises(
    {
        "what was told": test_what_was_told_is_not_told_again,
        "a replay is no purchase": test_each_purchase_is_counted_once_by_item_and_outcome,
        "the sale that is told": test_a_sale_that_was_purged_is_told_nothing,
        "minutes are forgotten": test_minutes_of_long_ago_are_forgotten_and_the_totals_stay,
        "a child counts from zero": test_a_child_tells_only_what_it_has_counted_itself,
    }
)
async def test_without_these_the_recorder_counts_wrongly(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


@kills("the bound of the samples")
async def test_without_its_bound_a_list_of_samples_grows(sync_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await test_samples_are_thinned_where_they_are_oldest(sync_shop, monkeypatch)


# -- partitions -----------------------------------------------------------------------------------------------------


def buyers(sale: Awaited, number: int) -> list[str]:
    """Returns buyers, so many of each partition."""
    names = [f"buyer-{place}" for place in range(200)]
    places = [int(sale.real.order_id(name)[:2], 16) for name in names]
    found = [[name for name, at in zip(names, places, strict=True) if at == place] for place in sorted(set(places))]
    return [name for names_of_one in found for name in names_of_one[:number]]


async def test_one_look_adds_all_partitions_up(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 30, hold=900, per_buyer=5), Goods("case", 7))
    sale = shop.sale(store=store, partitions=3)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    assert [part.goods[1].total for part in (await reads(sale, "look")).partitions] == [10, 10, 10]
    await sale.start("phone")
    for buyer in buyers(sale, 2):
        await sale.buy("phone", buyer)
    worker = shop.worker(sale)
    while await worker.run_once():
        pass
    for buyer in buyers(sale, 1):
        await sale.buy("phone", buyer, 2)
    await sale._call(sale.real._parts[1].queue.claim, 1)
    look = await reads(sale, "look")
    assert (look.state, look.epoch, look.layout, look.leader) == ("open", 1, 2, instance())
    assert (look.queued, look.claimed, look.dead, look.unpaid) == (2, 1, 0, 6)
    assert [(it.goods_id, it.total, it.booked, it.gate, it.access) for it in look.goods] == [
        ("case", 7, 0, 7, 0),
        ("phone", 30, 12, 30, 12),
    ]
    assert (look.goods[1].started, look.goods[1].per_buyer, look.goods[1].hold) == (True, 5, 900.0)
    assert [(part.place, part.state, part.queued, part.claimed) for part in look.partitions] == [
        (0, "open", 1, 0),
        (1, "open", 0, 1),
        (2, "open", 1, 0),
    ]
    assert [part.goods[1].booked for part in look.partitions] == [4, 4, 4]
    await syncer.run_once()
    sample = (await reads(sale, "samples", "phone"))[-1]
    assert (sample.total, sample.booked, sample.queued, sample.claimed) == (30, 12, 2, 1)
    await told(sale)
    assert (await reads(sale, "totals")).purchases["phone", "ACCEPTED"] == 9


async def test_a_partition_that_is_closed_or_has_lost_something_is_named(sync_shop: Shop) -> None:
    sale = sync_shop.sale(store=await sync_shop.store(Goods("phone", 30)), partitions=3)
    syncer = sync_shop.syncer(sale)
    await syncer.run_once()
    keys = [part.keys for part in sale.real._parts]
    sync_shop.raw.delete(keys[1].stock("phone"), keys[1].count("phone"))
    look = await reads(sale, "look")
    assert look.state == "open"
    assert [part.lost for part in look.partitions] == [(), ("phone",), ()]
    assert look.goods[0].is_lost
    sync_shop.raw.hset(keys[2].meta, "state", "closed")
    look = await reads(sale, "look")
    assert (look.state, [part.state for part in look.partitions]) == ("closed", ["open", "open", "closed"])
    sync_shop.raw.delete(*sync_shop.raw.keys("*~3.00*"))
    assert [part.state for part in (await reads(sale, "look")).partitions] == ["missing", "open", "closed"]


async def test_a_partition_that_is_away_is_named_and_leaves_no_sample(sync_shop: Shop) -> None:
    sale = sync_shop.sale(store=await sync_shop.store(Goods("phone", 30)), partitions=3)
    await sync_shop.syncer(sale).run_once()
    before = await reads(sale, "samples", "phone")
    whole = (await reads(sale, "look")).goods[0].total
    away = sync_shop.make("FlashSale", redis.Redis(port=free_port(), socket_timeout=0.2), "spring")
    recorder = sale.real._recorder
    recorder.links = [recorder.links[0], away.real._link, recorder.links[2]]
    look = await reads(sale, "look")
    assert [part.state for part in look.partitions] == ["open", "away", "open"]
    assert look.away == (1,)
    assert look.goods[0].total < whole
    await sale._call(recorder.sample)
    assert await reads(sale, "samples", "phone") == before
    recorder.links = [away.real._link] * 3
    with pytest.raises(NotExecuted):
        await reads(sale, "look")


async def test_the_workers_of_one_process_tell_as_one(sync_shop: Shop) -> None:
    sale = sync_shop.sale(store=await sync_shop.store(Goods("phone", 30)), partitions=3)
    await sync_shop.syncer(sale).run_once()
    await sale.start("phone")
    names = buyers(sale, 2)
    receipts = [await sale.buy("phone", buyer) for buyer in names]
    worker = sync_shop.worker(sale).real
    for part, each in zip(sale.real._parts, worker._each, strict=True):
        each._activity.hold(part.queue.claim(2, lease=60))
    recorder = sale.real._recorder
    with worker._each[2]._activity.doing("save"):
        await sale._call(recorder._flush, worker._activity)
    look = await reads(sale, "look")
    (told_by,) = [each for each in look.processes if each.kind == "worker"]
    assert (told_by.instance, told_by.claimed, told_by.doing) == (instance(), 6, "save")
    claims = await sale._call(Overview(sale.real).claims, lambda _: True)
    assert {claim.order.order_id for claim, _ in claims if claim.order} == {each.order_id for each in receipts}
    assert len({delivery(claim) for claim, _ in claims}) == 6, "each partition counts from 1"
    assert [holder(look.processes, claim) for claim, _ in claims] == [told_by] * 6
    worker._each[1]._activity.hold([])
    await sale._call(recorder._flush, worker._activity)
    look = await reads(sale, "look")
    held = [holder(look.processes, claim) for claim, _ in claims]
    assert held.count(None) == 2, "those of partition 1 alone"
