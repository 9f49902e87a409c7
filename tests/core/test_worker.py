"""`Worker`: every accepted order reaches the database once, or ends where somebody sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, Order, OrderState, Outcome, StoredOrder, StoreError, StoreRequired
from tests.core.test_order_queue import UNREADABLE
from tests.support import servers
from tests.support.claims import claimed
from tests.support.helpers import clock, inside, order, until
from tests.support.mutants import promises

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.helpers import Shop
    from tests.support.hosts import Host


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.lags: list[tuple[int, float]] = []

    def outcome(self, goods_id: str, outcome: Outcome) -> None: ...

    def batch(self, size: int, wait: float) -> None: ...

    def lag(self, orders: int, seconds: float) -> None:
        self.lags.append((orders, seconds))


async def work_off(shop: Shop, worker: Any) -> None:
    """Runs the worker until nothing is left to claim; delays and leases end at once."""
    while shop.raw.exists(shop.keys.order_list, shop.keys.claimed):
        shop.end_leases()
        await worker.run_once()


async def rows(sale: Any) -> dict[str, OrderState]:
    return {row.order.order_id: row.state for row in await stored(sale)}


async def stored(sale: Any) -> list[StoredOrder]:
    store = sale.store
    found = store.orders()
    return list(await found if asyncio.iscoroutine(found) else found)


def booked(shop: Shop, goods_id: str = "phone") -> int:
    """Units that the database has booked."""
    return shop.sql(f"SELECT booked FROM flashsale_goods WHERE goods_id = '{goods_id}'")[0][0]


async def units(sale: Any) -> int:
    """Units that Redis has booked."""
    return (await sale.inventory.stock("phone")).booked


# -- from the queue to the database ---------------------------------------------------------------------------------


async def test_orders_become_rows_whole_and_once(shop: Shop) -> None:
    sale = await shop.open(store=True)
    before = clock(shop.raw)
    asked = [order(n, buyer_id=f"b-{n}", quantity=n, data={"n": n}) for n in (1, 2, 3)]
    await sale.inventory.reserve(asked)
    worker = shop.worker(sale)
    assert await worker.run_once() == 3
    for row, wanted in zip(await stored(sale), asked, strict=True):
        assert (row.order.order_id, row.order.content, row.order.data) == (
            wanted.order_id,
            wanted.content,
            wanted.data,
        )
        assert before - 0.001 <= row.order.created_at <= clock(shop.raw)
        assert row.state is OrderState.PERSISTED
        assert await sale.status(wanted.order_id) is OrderState.PERSISTED
    assert booked(shop) == await units(sale) == 6
    assert not shop.raw.exists(shop.keys.order_list, shop.keys.claimed, shop.keys.leases)
    assert await worker.run_once() == 0


async def test_a_batch_is_bounded(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order(n) for n in range(5)])
    worker = shop.worker(sale, batch=2)
    assert [await worker.run_once() for _ in range(3)] == [2, 2, 1]


async def test_a_worker_needs_a_store(shop: Shop) -> None:
    with pytest.raises(StoreRequired):
        shop.worker(shop.sale())


async def test_run_works_until_it_is_told_to_stop(shop: Shop) -> None:
    sale = await shop.open(store=True)
    stop = asyncio.Event() if shop.is_async else threading.Event()
    running = asyncio.create_task(shop.worker(sale).run(stop))
    for n in range(3):
        await sale.buy("phone", "ann", order_id=f"o-{n}")
    await until(lambda: booked(shop) == 3, "three rows")
    stop.set()
    await running
    await until(lambda: not shop.raw.exists(shop.keys.claimed), "the ack")


async def test_workers_side_by_side_save_each_order_once(shop: Shop) -> None:
    sale = await shop.open(100, store=True)
    await sale.inventory.reserve([order(n) for n in range(60)])
    workers = [shop.worker(sale, batch=7) for _ in range(3)]

    async def work(worker: Any) -> int:
        done = 0
        while settled := await worker.run_once():
            done += settled
        return done

    assert sum(await asyncio.gather(*map(work, workers))) == 60
    assert booked(shop) == len(await rows(sale)) == 60


async def test_the_lag_is_told_by_the_clock_of_redis(shop: Shop) -> None:
    seen = Seen()
    sale = await shop.open(sale=shop.sale(store=await shop.store(Goods("phone", 10)), observer=seen))
    await sale.inventory.reserve([order(1), order(2, created_at=clock(shop.raw) - 100)])
    await shop.worker(sale).run_once()
    ((orders, seconds),) = seen.lags
    assert (orders, 99 < seconds < 200) == (2, True)


# -- the next batch is claimed while one is saved --------------------------------------------------------------------


def before_each_save(shop: Shop, sale: Any, act: Callable[[], Awaitable[None]]) -> None:
    """Lets the store do something before it saves."""
    save = sale.store.save

    async def aio(orders: Any) -> Any:
        await act()
        return await save(orders)

    def sync(orders: Any) -> Any:
        asyncio.run(act())
        return save(orders)

    sale.store.save = aio if shop.is_async else sync


async def full_batches(shop: Shop) -> tuple[Any, Any]:
    """Returns a sale with five orders on the list, and how to stop a worker."""
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order(n) for n in range(5)])
    return sale, asyncio.Event() if shop.is_async else threading.Event()


async def test_a_stop_lets_go_of_what_was_claimed_ahead(shop: Shop) -> None:
    sale, stop = await full_batches(shop)

    async def stopped() -> None:
        await until(lambda: len(claimed(shop.raw, shop.keys)) == 4, "the next batch")
        stop.set()

    before_each_save(shop, sale, stopped)
    await shop.worker(sale, batch=2).run(stop)
    assert booked(shop) == 2
    claims = await sale.queue.claim(timeout=0)
    assert [(claim.order.order_id, claim.attempts) for claim in claims] == [("2", 1), ("3", 1), ("4", 1)]


async def test_a_failing_database_lets_go_of_what_was_claimed_ahead(shop: Shop) -> None:
    sale, stop = await full_batches(shop)

    async def failing() -> None:
        await until(lambda: len(claimed(shop.raw, shop.keys)) == 4, "the next batch")
        stop.set()
        raise StoreError("away")

    before_each_save(shop, sale, failing)
    await shop.worker(sale, batch=2).run(stop)
    assert booked(shop) == 0
    at_once = await sale.queue.claim(timeout=0)
    assert [(claim.order.order_id, claim.attempts) for claim in at_once] == [("2", 1), ("3", 1), ("4", 1)]
    shop.end_leases()
    again = await sale.queue.claim(timeout=0)
    assert sorted((claim.order.order_id, claim.attempts) for claim in again) == [("0", 1), ("1", 1)]


@pytest.mark.parametrize(
    "promise",
    [test_a_stop_lets_go_of_what_was_claimed_ahead, test_a_failing_database_lets_go_of_what_was_claimed_ahead],
)
async def test_claims_that_are_not_let_go_are_missed(
    real_shop: Shop, monkeypatch: pytest.MonkeyPatch, promise: Callable[[Shop], Awaitable[None]]
) -> None:
    async def aio(*_: object) -> None: ...

    def sync(*_: object) -> None: ...

    monkeypatch.setattr(real_shop.api.Worker, "_requeue", aio if real_shop.is_async else sync)
    with pytest.raises(AssertionError):
        await promise(real_shop)


# -- a worker that dies ---------------------------------------------------------------------------------------------


async def test_an_order_committed_but_not_acknowledged_is_not_saved_twice(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order(quantity=2)])
    claims = await sale.queue.claim(lease=60)
    dead_workers_commit = sale.store.save([claim.order for claim in claims])
    if shop.is_async:
        await dead_workers_commit
    await work_off(shop, shop.worker(sale))
    assert await rows(sale) == {"o-1": OrderState.PERSISTED}
    assert booked(shop) == await units(sale) == 2


async def test_one_order_twice_on_the_list_is_one_row(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order(quantity=2)])
    (body,) = shop.raw.lrange(shop.keys.order_list, 0, -1)
    shop.raw.lpush(shop.keys.order_list, body)
    await work_off(shop, shop.worker(sale))
    shop.raw.lpush(shop.keys.order_list, body)  # and once more, when it is persisted
    await work_off(shop, shop.worker(sale))
    assert await rows(sale) == {"o-1": OrderState.PERSISTED}
    assert booked(shop) == await units(sale) == 2


async def test_an_element_of_an_unknown_item_holds_up_no_order_whose_id_it_reuses(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.queue.push(order(goods_id="nowhere"))
    await sale.queue.push(order())
    assert await shop.worker(sale).run_once() == 1
    assert await rows(sale) == {"o-1": OrderState.PERSISTED}


PROCESS = """
import asyncio, importlib, pathlib, sys, time
api, url, database, marker, go = sys.argv[1:]
flashsale = importlib.import_module(api)
stores = importlib.import_module(api + ".stores")

class Slow(stores.SQLAlchemyStore):
    # A commit that takes as long as the test wants; the marker says that it has begun.
    if api == "flashsale":
        def save(self, orders):
            open(marker, "w").close()
            while not pathlib.Path(go).exists():
                time.sleep(0.01)
            return super().save(orders)
    else:
        async def save(self, orders):
            open(marker, "w").close()
            while not pathlib.Path(go).exists():
                await asyncio.sleep(0.01)
            return await super().save(orders)

def sync():
    import redis
    with redis.Redis.from_url(url) as client, Slow(database, "spring") as store:
        with flashsale.FlashSale(client, "spring", store=store) as sale:
            flashsale.Worker(sale, batch=3).run()

async def aio():
    import redis.asyncio
    async with redis.asyncio.Redis.from_url(url) as client, Slow(database, "spring") as store:
        async with flashsale.FlashSale(client, "spring", store=store) as sale:
            await asyncio.gather(flashsale.Worker(sale, batch=3).run(), flashsale.Syncer(sale).run())

sync() if api == "flashsale" else asyncio.run(aio())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_batch_finish(
    real_shop: Shop, redis_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    shop = real_shop
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order(n) for n in range(5)])
    marker, go = tmp_path / "saving", tmp_path / "go"
    arguments = [shop.api.__name__, redis_url, f"sqlite:///{shop.database}", str(marker), str(go)]
    with subprocess.Popen([sys.executable, "-c", PROCESS, *arguments]) as process:
        try:
            await until(lambda: marker.exists() or process.poll() is not None, "the first batch")
            process.send_signal(number)
            go.touch()
            assert await asyncio.to_thread(process.wait, 20) == 0
        finally:
            process.kill()
    assert booked(shop) == 3
    assert len(claimed(shop.raw, shop.keys)) + await sale.queue.size() == 2  # the others are acknowledged as well
    assert [claim.attempts for claim in await sale.queue.claim(timeout=0)] == [1, 1]


# -- the database fails ---------------------------------------------------------------------------------------------


async def test_a_failing_database_counts_no_attempt_and_loses_nothing(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order(1), order(2)])
    worker = shop.worker(sale)
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    for _ in range(7):  # more than there are attempts
        with pytest.raises(StoreError):
            await worker.run_once()
        shop.end_leases()
    assert await sale.queue.dead() == []
    assert [await sale.status(name) for name in "12"] == [OrderState.QUEUED] * 2
    shop.sql("ALTER TABLE away RENAME TO flashsale_orders")
    assert await worker.run_once() == 2
    assert await rows(sale) == dict.fromkeys("12", OrderState.PERSISTED)


async def test_a_missing_goods_row_is_no_refusal(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order()])
    worker = shop.worker(sale)
    shop.sql("UPDATE flashsale_goods SET goods_id = 'away'")
    for _ in range(7):
        with pytest.raises(StoreError):
            await worker.run_once()
        shop.end_leases()
    assert await sale.status("o-1") is OrderState.QUEUED
    shop.sql("UPDATE flashsale_goods SET goods_id = 'phone'")
    assert await worker.run_once() == 1
    assert await sale.status("o-1") is OrderState.PERSISTED


async def test_a_failing_database_counts_no_attempt_of_a_external_order_that_is_rejected(shop: Shop) -> None:
    sale = await shop.open(0, store=True)
    shop.raw.lpush(shop.keys.order_list, order("external").to_json())
    worker = shop.worker(sale)
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    for _ in range(7):
        with pytest.raises(StoreError):
            await worker.run_once()
        shop.end_leases()
    assert await sale.queue.dead() == []
    shop.sql("ALTER TABLE away RENAME TO flashsale_orders")
    await work_off(shop, worker)
    assert await rows(sale) == {"external": OrderState.REJECTED}


async def test_run_waits_for_a_database_that_is_down(shop: Shop) -> None:
    sale = await shop.open(store=True)
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    await sale.inventory.reserve([order()])
    stop = asyncio.Event() if shop.is_async else threading.Event()
    running = asyncio.create_task(shop.worker(sale).run(stop))
    await until(lambda: shop.raw.hvals(shop.keys.claimed), "a claim")
    await asyncio.to_thread(shop.sql, "ALTER TABLE away RENAME TO flashsale_orders")
    await until(lambda: shop.end_leases() or booked(shop) == 1, "the row")
    stop.set()
    await running


async def test_a_redis_that_is_back_is_noticed_soon(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it was away; and a long outage does not fill the log."""
    delays: list[float] = []
    stop = asyncio.Event() if host.is_async else threading.Event()

    def pause(_: Any, seconds: float) -> Any:
        delays.append(seconds)
        if len(delays) == 30:
            stop.set()
        return asyncio.sleep(0) if host.is_async else None

    monkeypatch.setattr(inside(host.api, "worker"), "pause", pause)
    nobody = host.connect(servers.free_port())
    await host.worker(host.on(nobody, store=await host.store_of("spring", Goods("phone", 1)))).run(stop)
    assert max(delays) <= 0.5
    assert caplog.messages == ["the worker waits and tries again: NotExecuted (ConnectionError)"]


async def test_a_poison_row_is_found_and_the_others_are_saved(shop: Shop) -> None:
    sale = await shop.open(20, store=True)
    await sale.inventory.reserve([order("poison" if n == 5 else n) for n in range(9)])
    shop.sql(
        "CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders WHEN NEW.order_id = 'poison' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    worker = shop.worker(sale)
    assert await worker.run_once() == 8
    assert booked(shop) == 8
    assert await sale.status("poison") is OrderState.QUEUED
    await work_off(shop, worker)
    assert [claim.order.order_id for claim in await sale.queue.dead()] == ["poison"]
    assert await sale.status("poison") is OrderState.DEAD
    assert await units(sale) == 9  # it keeps its unit until somebody decides
    shop.sql("DROP TRIGGER poison")
    await sale.queue.requeue_dead()
    await work_off(shop, worker)
    assert (await rows(sale))["poison"] is OrderState.PERSISTED
    assert booked(shop) == 9


async def test_what_the_guard_refuses_is_rejected_and_its_units_return_once(shop: Shop) -> None:
    """The database's own limit holds, whatever Redis believed."""
    sale = await shop.open(store=True, per_buyer=9)
    shop.sql("UPDATE flashsale_goods SET granted = 3")
    await sale.buy("phone", "ann", 2, order_id="a")
    await sale.buy("phone", "bob", 2, order_id="b")
    await sale.buy("phone", "cleo", 1, order_id="c")
    worker = shop.worker(sale)
    assert await worker.run_once() == 3
    states = await rows(sale)
    assert sorted(states.values()) == [OrderState.PERSISTED, OrderState.PERSISTED, OrderState.REJECTED]
    assert {name: await sale.status(name) for name in "abc"} == states
    left = 5 - {"a": 2, "b": 2, "c": 1}[next(name for name in states if states[name] is OrderState.REJECTED)]
    assert booked(shop) == await units(sale) == (await sale.gate.state("phone")).access == left
    (refused,) = (name for name in states if states[name] is OrderState.REJECTED)
    body = order(refused, buyer_id={"a": "ann", "b": "bob", "c": "cleo"}[refused], quantity=5 - left).to_json()
    shop.raw.lpush(shop.keys.order_list, body)  # the worker dies before the ack: once more
    await work_off(shop, worker)
    assert booked(shop) == await units(sale) == left


async def test_an_order_cancelled_before_it_was_persisted_never_becomes_active(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", 2, order_id="o-1")
    claims = await sale.queue.claim(lease=60)  # a worker already has it
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    assert await units(sale) == 0
    await sale.queue.nack(claims)
    await work_off(shop, shop.worker(sale))
    assert await rows(sale) == {"o-1": OrderState.CANCELLED}
    assert await sale.status("o-1") is OrderState.CANCELLED
    assert booked(shop) == await units(sale) == 0


async def test_an_order_cancelled_by_the_database_alone_is_released_by_the_worker(shop: Shop) -> None:
    """Whoever cancelled it died between the database and Redis."""
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", 2, order_id="o-1")
    tombstone = sale.store.settle(Order("o-1", "phone", "ann", 2), OrderState.CANCELLED)
    if shop.is_async:
        await tombstone
    await work_off(shop, shop.worker(sale))
    assert await sale.status("o-1") is OrderState.CANCELLED
    assert booked(shop) == await units(sale) == 0


# -- what others push -----------------------------------------------------------------------------------------------


async def test_unreadable_elements_are_dead_and_the_worker_goes_on(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order("before")])
    for body in UNREADABLE.values():
        shop.raw.lpush(shop.keys.order_list, body)
    await sale.inventory.reserve([order("after")])
    worker = shop.worker(sale)
    assert await worker.run_once() == 2
    assert sorted(dead.body for dead in await sale.queue.dead()) == sorted(UNREADABLE.values())
    assert await rows(sale) == dict.fromkeys(["before", "after"], OrderState.PERSISTED)
    assert not shop.raw.exists(shop.keys.claimed, shop.keys.order_list)


async def test_a_external_order_is_adopted_from_the_untracked_units_first(shop: Shop) -> None:
    sale = await shop.open(5, store=True)
    assert await sale.inventory.deduct("phone", 2) == 2
    shop.raw.lpush(
        shop.keys.order_list,
        json.dumps(
            {
                "order_id": "external",
                "goods_id": "phone",
                "buyer_id": "ann",
                "quantity": 2,
                "data": {"from": "elsewhere"},
            }
        ),
    )
    await work_off(shop, shop.worker(sale))
    assert await sale.inventory.stock("phone") == (5, 2, 3, 0)
    assert await sale.status("external") is OrderState.PERSISTED
    assert (await stored(sale))[0].order.data == {"from": "elsewhere"}
    assert booked(shop) == 2


async def test_a_external_order_without_untracked_units_is_deducted(shop: Shop) -> None:
    sale = await shop.open(5, store=True)
    await sale.inventory.deduct("phone", 1)
    await sale.queue.push(order("external", quantity=2))
    await work_off(shop, shop.worker(sale))
    assert await sale.inventory.stock("phone") == (5, 3, 2, 1)  # the one taken before is somebody else's
    assert booked(shop) == 2


async def test_a_external_order_past_the_stock_is_rejected(shop: Shop) -> None:
    sale = await shop.open(1, store=True)
    await sale.buy("phone", "bob", order_id="ours")
    await sale.queue.push(order("external"))
    await work_off(shop, shop.worker(sale))
    assert await rows(sale) == {"ours": OrderState.PERSISTED, "external": OrderState.REJECTED}
    assert await sale.status("external") is OrderState.REJECTED
    assert await sale.inventory.stock("phone") == (1, 1, 0, 0)
    assert booked(shop) == 1


async def test_a_external_order_with_the_id_of_another_is_dead(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.queue.push(order("o-1", buyer_id="mallory", quantity=5))
    await work_off(shop, shop.worker(sale))
    assert [claim.order.buyer_id for claim in await sale.queue.dead()] == ["mallory"]
    ((row),) = await stored(sale)
    assert (row.order.buyer_id, row.state) == ("ann", OrderState.PERSISTED)
    assert booked(shop) == await units(sale) == 1
    assert await sale.status("o-1") is OrderState.PERSISTED


@pytest.mark.parametrize("total", [10, 0], ids=["units left", "sold out"])
async def test_a_external_order_whose_id_only_the_database_knows_stops_nobody(shop: Shop, total: int) -> None:
    sale = await shop.open(total, store=True)
    shop.sql("UPDATE flashsale_goods SET granted = 10")
    saved = sale.store.save([order("taken", buyer_id="bob", quantity=3)])
    if shop.is_async:
        await saved
    await sale.queue.push(order("taken"))
    shop.raw.hset(shop.keys.stock("phone"), "Total", "10" if total else "0")
    for n in range(3):
        await sale.queue.push(order(n, "phone"))
    await work_off(shop, shop.worker(sale))
    state = OrderState.PERSISTED if total else OrderState.REJECTED
    assert await rows(sale) == {"taken": OrderState.PERSISTED} | {str(n): state for n in range(3)}
    assert [claim.order.order_id for claim in await sale.queue.dead()] == ["taken"]


async def test_orders_of_unknown_goods_end_among_the_dead(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.queue.push(order("lost", "nothing"))
    await sale.buy("phone", "ann", order_id="ours")
    await work_off(shop, shop.worker(sale))
    assert [claim.order.order_id for claim in await sale.queue.dead()] == ["lost"]
    assert await rows(sale) == {"ours": OrderState.PERSISTED}


# -- what Redis holds is corrupt ------------------------------------------------------------------------------------


async def test_a_corrupt_record_stops_only_its_own_order(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.inventory.reserve([order("bad"), order("good")])
    shop.raw.hset(shop.keys.orders, "bad", "QUEUED|1.0|0|phone|1|ann")
    await work_off(shop, shop.worker(sale))
    assert await rows(sale) == {"good": OrderState.PERSISTED}
    assert [claim.order.order_id for claim in await sale.queue.dead()] == ["bad"]


async def test_corrupt_goods_stop_only_their_own_orders(shop: Shop) -> None:
    """A release into a stock that cannot be trusted waits; the batch around it is settled and acknowledged."""
    store = await shop.store(Goods("phone", 5), Goods("case", 5))
    sale = shop.sale(store=store)
    await shop.open(5, sale=sale)
    await shop.open(5, sale=sale, goods_id="case")
    await sale.inventory.reserve([order("a"), order("b", "case"), order("c"), order("d", "case")])
    await store.settle(order("a"), OrderState.CANCELLED)  # released in the database only
    shop.raw.hset(shop.keys.stock("phone"), "Booked", "2.0")
    worker = shop.worker(sale)
    await worker.run_once()
    assert [await sale.status(name) for name in "bd"] == [OrderState.PERSISTED] * 2
    await work_off(shop, worker)
    assert (await rows(sale)) == {
        "a": OrderState.CANCELLED,
        "b": OrderState.PERSISTED,
        "c": OrderState.PERSISTED,
        "d": OrderState.PERSISTED,
    }
    assert shop.raw.hget(shop.keys.stock("phone"), "Booked") == b"2.0"


async def test_a_batch_that_is_too_much_for_one_transaction_is_halved(shop: Shop) -> None:
    """By a slow hook, say: the same batch would take too long again, and nothing would ever be saved."""
    sale = shop.sale(store=await shop.store(Goods("phone", 100)))
    await shop.open(100, sale=sale)
    await sale.inventory.reserve([order(n) for n in range(40)])
    worker = shop.worker(sale, batch=32)
    save, sizes = sale.store.save, []

    def bear(orders: Any) -> Any:
        sizes.append(len(orders))
        if len(orders) > 8:
            raise StoreError("the database failed")
        return save(orders)

    async def bear_async(orders: Any) -> Any:
        return await bear(orders)

    sale.store.save = bear_async if shop.is_async else bear
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inside(shop.api, "worker"), "_SLOW", 0.0)
        for _ in range(3):
            shop.end_leases()
            with contextlib.suppress(StoreError):
                await worker.run_once()
        assert sizes == [32, 16, 8]
    sale.store.save = save
    await work_off(shop, worker)
    assert set((await rows(sale)).values()) == {OrderState.PERSISTED}
    assert len(await rows(sale)) == 40
    assert worker.real._limit == 32  # quick again: as many as before


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@promises(
    {
        "the half of what was too slow": test_a_batch_that_is_too_much_for_one_transaction_is_halved,
        "the direct units of an adoption": test_a_external_order_is_adopted_from_the_untracked_units_first,
        "the ledger in an adoption": test_a_external_order_with_the_id_of_another_is_dead,
        "the units of a refused order": test_what_the_guard_refuses_is_rejected_and_its_units_return_once,
        "states that stand": test_an_order_cancelled_before_it_was_persisted_never_becomes_active,
    },
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
