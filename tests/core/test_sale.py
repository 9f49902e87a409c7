"""`FlashSale`: the four layers as one."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

from flashsale import (
    CorruptState,
    FlashSale,
    Goods,
    NotExecuted,
    NotPersisted,
    OrderConflict,
    OrderState,
    Outcome,
    Overloaded,
    Receipt,
    Stock,
    StoredOrder,
    StoreError,
    StoreRequired,
    UnknownGoods,
)
from flashsale.testing.proxy import FaultProxy
from tests.core.test_worker import booked, rows, units, work_off
from tests.support import servers
from tests.support.helpers import clock, order, snapshot, until
from tests.support.mutants import promises

if TYPE_CHECKING:
    from tests.conftest import Backend
    from tests.support.helpers import Shop


async def slots(sale: Any) -> int:
    return (await sale.gate.state("phone")).access


async def two_redis(shop: Shop, total: int = 10, *, cache_for: float = 0, **settings: Any) -> Any:
    """A sale whose gate is on another Redis."""
    sale = shop.sale(gate_client=shop.client(db=1), cache_for=cache_for, **settings)
    return await shop.open(total, sale=sale)


# -- before, during, after ------------------------------------------------------------------------------------------


async def test_a_sale_from_preload_to_cancellation(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 2))
    sale = shop.sale(store=store)
    await sale.preload("phone", 2)
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    await sale.start("phone")
    first = await sale.buy("phone", "ann", order_id="o-1", data={"gift": True})
    assert first == Receipt(Outcome.ACCEPTED, "o-1", "phone", 1, 1, replayed=False, state=OrderState.QUEUED)
    second = await sale.buy("phone", "bob")
    assert (second.accepted, second.remaining) == (True, 0)
    third = await sale.buy("phone", "cleo")
    assert (third.outcome, third.state, third.replayed) == (Outcome.SOLD_OUT, None, False)
    await shop.worker(sale).run_once()
    assert await sale.status("o-1") is OrderState.PERSISTED
    assert await sale.confirm("o-1") is OrderState.CONFIRMED
    assert await sale.cancel(second.order_id) is OrderState.CANCELLED
    assert (await sale.buy("phone", "cleo")).accepted  # the unit is for sale again
    assert await slots(sale) == await units(sale) == 2


async def test_ids_that_we_make_are_long_and_differ(shop: Shop) -> None:
    sale = await shop.open()
    made = {(await sale.buy("phone", "ann")).order_id for _ in range(5)}
    assert len(made) == 5
    assert all(len(order_id) >= 32 for order_id in made)


async def test_preload_makes_stock_and_gate_and_only_creates(shop: Shop) -> None:
    sale = shop.sale()
    policy = {"per_buyer": 2, "opens_at": clock(shop.raw) + 60.1234567, "closes_at": 2e9, "hold": 600.5}
    await sale.preload("phone", 5, **policy)
    before = snapshot(shop.raw)
    await sale.preload("phone", 5, **policy)
    assert snapshot(shop.raw) == before
    assert await sale.inventory.stock("phone") == Stock(5, 0, 5, 0)
    assert (await sale.gate.state("phone")).count == 5


async def test_the_window_opens_and_ends_the_sale(shop: Shop) -> None:
    sale = shop.sale(cache_for=0)
    now = clock(shop.raw)
    await sale.preload("phone", 5, opens_at=now + 60)
    await sale.preload("case", 5, opens_at=now - 1, closes_at=now + 60)
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    assert (await sale.buy("case", "ann", order_id="o-1")).accepted
    await shop.comes("opens_at")
    await shop.comes("closes_at", "case")
    assert (await sale.buy("phone", "ann")).accepted
    assert (await sale.buy("case", "ann")).outcome is Outcome.ENDED
    assert (await sale.buy("case", "ann", order_id="o-1")).replayed


async def test_stop_and_pause_hold_the_sale_and_a_retry_finds_its_order(shop: Shop) -> None:
    sale = await shop.open()
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.stop("phone")
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    assert (await sale.buy("phone", "ann", order_id="o-1")).replayed
    await sale.start("phone")
    await sale.pause()
    assert (await sale.buy("phone", "ann")).outcome is Outcome.PAUSED
    assert (await sale.gate.enter("phone")).outcome is Outcome.PAUSED
    assert (await sale.buy("phone", "ann", order_id="o-1")).replayed
    await sale.resume()
    assert (await sale.buy("phone", "ann")).accepted


async def test_a_pause_is_the_whole_sales(shop: Shop) -> None:
    sale = await shop.open()
    await shop.open(sale=sale, goods_id="case")
    await sale.pause()
    assert [(await sale.buy(goods_id, "ann")).outcome for goods_id in ("phone", "case")] == [Outcome.PAUSED] * 2
    await sale.resume()
    assert [(await sale.buy(goods_id, "ann")).accepted for goods_id in ("phone", "case")] == [True, True]


async def test_what_is_unknown(shop: Shop) -> None:
    sale = shop.sale(store=await shop.store(Goods("case", 1)))
    for call in (sale.pause, sale.resume, lambda: sale.start("phone"), lambda: sale.buy("phone", "ann")):
        with pytest.raises(UnknownGoods):
            await call()
    before = snapshot(shop.raw)
    assert [await ask("nobody") for ask in (sale.status, sale.cancel, sale.confirm)] == [None] * 3
    assert snapshot(shop.raw) == before
    assert await rows(sale) == {}  # an id that the ledger does not know plants nothing


async def test_the_same_content_twice_under_two_ids_is_two_orders(shop: Shop) -> None:
    sale = await shop.open()
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.buy("phone", "ann", order_id="o-2")
    assert await units(sale) == 2


async def test_other_content_is_a_conflict_also_when_sold_out(shop: Shop) -> None:
    sale = await shop.open(1)
    await sale.buy("phone", "ann", order_id="o-1")
    for goods_id, buyer, quantity in (("phone", "bob", 1), ("phone", "ann", 2)):
        with pytest.raises(OrderConflict):
            await sale.buy(goods_id, buyer, quantity, order_id="o-1")
    assert await slots(sale) == await units(sale) == 1


async def one_or_two(shop: Shop, count: int, **policy: Any) -> Any:
    """A sale with gate and stock on one Redis, or on two."""
    sale = shop.sale(**{"gate_client": shop.client(db=1), "cache_for": 0} if count == 2 else {})
    return await shop.open(sale=sale, **policy)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_repeat_takes_no_second_slot(shop: Shop, count: int) -> None:
    sale = await one_or_two(shop, count)
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.buy("phone", "ann", order_id="o-1")
    assert await slots(sale) == await units(sale) == 1


@pytest.mark.parametrize("count", [1, 2])
async def test_a_stock_that_refuses_takes_no_slot(shop: Shop, count: int) -> None:
    sale = await one_or_two(shop, count, per_buyer=1)
    await sale.buy("phone", "ann")
    assert (await sale.buy("phone", "ann")).outcome is Outcome.LIMIT_REACHED
    await sale.inventory.deduct("phone", 9)
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT
    assert await slots(sale) == 1


@pytest.mark.parametrize("count", [1, 2])
async def test_a_purchase_that_fails_takes_no_slot(shop: Shop, count: int) -> None:
    sale = await one_or_two(shop, count)
    await sale.buy("phone", "ann", order_id="o-1")
    shop.raw.hset(shop.keys.stock("phone"), "Booked", "1.0")
    with pytest.raises(CorruptState):
        await sale.buy("phone", "ann")
    with pytest.raises(OrderConflict):
        await sale.buy("phone", "bob", order_id="o-1")
    assert await slots(sale) == 1


# -- cancel and confirm ---------------------------------------------------------------------------------------------


async def test_a_cancellation_returns_units_allowance_and_slot_once(shop: Shop) -> None:
    sale = await shop.open(5, store=True, per_buyer=3)
    await sale.buy("phone", "ann", 3, order_id="o-1")
    await shop.worker(sale).run_once()
    assert (await sale.buy("phone", "ann")).outcome is Outcome.LIMIT_REACHED
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    assert await slots(sale) == await units(sale) == booked(shop) == 0
    assert (await sale.buy("phone", "ann", 3, order_id="o-2")).accepted
    assert await sale.cancel("o-1") is OrderState.CANCELLED  # again: nothing more
    assert await slots(sale) == await units(sale) == 3


async def test_parallel_cancellations_return_the_units_once(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    for n in range(3):
        await sale.buy("phone", "ann", 2, order_id=f"o-{n}")
    assert await asyncio.gather(*(sale.cancel("o-1") for _ in range(8))) == [OrderState.CANCELLED] * 8
    assert await slots(sale) == await units(sale) == 4


async def test_whoever_releases_from_an_old_record_releases_nothing(shop: Shop) -> None:
    """Two processes read the record at the same moment; the script lets one of them move it."""
    sale = await shop.open(10, per_buyer=5)
    await sale.buy("phone", "ann", 2, order_id="o-1")
    await sale.buy("phone", "ann", 2, order_id="o-2")
    row = StoredOrder(order("o-1", quantity=2), OrderState.CANCELLED)
    moves = [await sale._ledger.move([row]) for _ in range(2)]
    assert [move.made for (move,) in moves] == [True, False]
    assert await slots(sale) == await units(sale) == 2
    assert shop.raw.hget(shop.keys.buyers("phone"), "ann") == b"2"


async def test_a_paid_order_can_be_refunded(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    await shop.worker(sale).run_once()
    assert await sale.confirm("o-1") is OrderState.CONFIRMED
    assert await sale.confirm("o-1") is OrderState.CONFIRMED
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    assert await sale.status("o-1") is OrderState.CANCELLED
    assert await units(sale) == booked(shop) == 0


async def test_a_cancelled_order_cannot_be_paid(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    await shop.worker(sale).run_once()
    await sale.cancel("o-1")
    assert await sale.confirm("o-1") is OrderState.CANCELLED
    assert await rows(sale) == {"o-1": OrderState.CANCELLED}


async def test_paying_comes_after_the_row(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    with pytest.raises(NotPersisted) as caught:
        await sale.confirm("o-1")
    assert caught.value.order_id == "o-1"
    assert await rows(sale) == {}
    await shop.worker(sale).run_once()
    assert await sale.confirm("o-1") is OrderState.CONFIRMED


async def test_paying_between_commit_and_ack_is_seen(shop: Shop) -> None:
    """The worker died after the commit: the ledger still says QUEUED."""
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    saved = sale.store.save([order()])
    if shop.is_async:
        await saved
    assert await sale.confirm("o-1") is OrderState.CONFIRMED
    assert await sale.status("o-1") is OrderState.CONFIRMED
    await work_off(shop, shop.worker(sale))
    assert await sale.status("o-1") is OrderState.CONFIRMED
    assert await units(sale) == booked(shop) == 1


async def test_a_cancellation_needs_the_database(shop: Shop) -> None:
    sale = await shop.open()
    await sale.buy("phone", "ann", order_id="o-1")
    before = snapshot(shop.raw)
    for call in (sale.cancel, sale.confirm):
        with pytest.raises(StoreRequired):
            await call("o-1")
    assert snapshot(shop.raw) == before


async def test_a_failing_database_leaves_the_order_as_it_is(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    await shop.worker(sale).run_once()
    before = snapshot(shop.raw)
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    for call in (sale.cancel, sale.confirm):
        with pytest.raises(StoreError):
            await call("o-1")
    assert snapshot(shop.raw) == before
    shop.sql("ALTER TABLE away RENAME TO flashsale_orders")
    assert await sale.cancel("o-1") is OrderState.CANCELLED


# -- a gate on another Redis ----------------------------------------------------------------------------------------


async def test_a_gate_on_another_redis(shop: Shop) -> None:
    sale = await two_redis(shop, 2, store=await shop.store(Goods("phone", 2)))
    assert shop.raw.exists(shop.keys.stock("phone"))
    assert not shop.raw.exists(*shop.keys.gate("phone"))
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    assert (await sale.buy("phone", "bob", order_id="o-2")).accepted
    assert (await sale.buy("phone", "cleo")).outcome is Outcome.SOLD_OUT
    assert (await sale.buy("phone", "ann", order_id="o-1")).replayed  # past the gate that is full
    assert await slots(sale) == await units(sale) == 2
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    assert await slots(sale) == await units(sale) == 1
    assert (await sale.buy("phone", "cleo")).accepted
    await sale.pause()
    assert (await sale.gate.enter("phone")).outcome is Outcome.PAUSED
    assert (await sale.buy("phone", "ann")).outcome is Outcome.PAUSED


async def test_parallel_calls_with_one_id_are_one_order_on_two_redis(shop: Shop) -> None:
    sale = await two_redis(shop, 100)
    receipts = await asyncio.gather(*(sale.buy("phone", "ann", order_id="o-1") for _ in range(50)))
    assert {receipt.accepted for receipt in receipts} == {True}
    assert [receipt.replayed for receipt in receipts].count(False) == 1
    assert await slots(sale) == await units(sale) == 1


async def test_the_stock_of_one_redis_survives_the_loss_of_the_other(shop: Shop) -> None:
    """Whoever asks again with his id is answered, though the gate is gone."""
    sale = await two_redis(shop)
    await sale.buy("phone", "ann", order_id="o-1")
    shop.backend.raw(db=1).flushdb()
    assert (await sale.buy("phone", "ann", order_id="o-1")).replayed
    with pytest.raises(UnknownGoods):
        await sale.buy("phone", "ann")
    assert await units(sale) == 1


# -- the observer ---------------------------------------------------------------------------------------------------


class Metrics:
    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Outcome]] = []
        self.batches: list[tuple[int, float]] = []
        self.lags: list[tuple[int, float]] = []

    def outcome(self, goods_id: str, outcome: Outcome) -> None:
        self.outcomes.append((goods_id, outcome))

    def batch(self, size: int, wait: float) -> None:
        self.batches.append((size, wait))

    def lag(self, orders: int, seconds: float) -> None:
        self.lags.append((orders, seconds))


class Broken:
    def outcome(self, goods_id: str, outcome: Outcome) -> None:
        raise RuntimeError("outcome")

    def batch(self, size: int, wait: float) -> None:
        raise RuntimeError("batch")

    def lag(self, orders: int, seconds: float) -> None:
        raise RuntimeError("lag")


async def test_the_observer_hears_of_every_purchase(shop: Shop) -> None:
    metrics = Metrics()
    sale = await shop.open(1, sale=shop.sale(store=await shop.store(Goods("phone", 1)), observer=metrics, cache_for=60))
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.buy("phone", "bob")
    await sale.buy("phone", "bob")  # answered from the process
    assert metrics.outcomes == [("phone", Outcome.ACCEPTED)] * 2 + [("phone", Outcome.SOLD_OUT)] * 2
    assert [size for size, _ in metrics.batches] == [1, 1, 1]
    assert all(wait >= 0 for _, wait in metrics.batches)
    await shop.worker(sale).run_once()
    ((orders, seconds),) = metrics.lags
    assert (orders, 0 <= seconds < 60) == (1, True)


async def test_an_observer_that_fails_harms_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    sale = await shop.open(1, sale=shop.sale(store=await shop.store(Goods("phone", 1)), observer=Broken()))
    assert (await sale.buy("phone", "ann")).accepted
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT
    assert await shop.worker(sale).run_once() == 1
    assert booked(shop) == 1
    assert {record.exc_info[1].args[0] for record in caplog.records if record.exc_info} == {"outcome", "batch", "lag"}


# -- the host's clients ---------------------------------------------------------------------------------------------


def settings_of(client: Any) -> dict[str, Any]:
    pool = client.connection_pool
    return {
        "kwargs": dict(pool.connection_kwargs),
        "class": pool.connection_class,
        "max": pool.max_connections,
        "retry": client.get_retry() if hasattr(client, "get_retry") else None,
        "callbacks": dict(client.response_callbacks),
    }


@pytest.mark.one_server
async def test_the_hosts_client_is_left_as_it_was(shop: Shop) -> None:
    client = shop.client(socket_timeout=7, client_name="host")
    before = settings_of(client)
    pool = client.connection_pool
    sale = await shop.open(5, sale=shop.make("FlashSale", client, "spring", store=await shop.store(Goods("phone", 5))))
    await sale.buy("phone", "ann", order_id="o-1")
    await shop.worker(sale).run_once()
    await shop.syncer(sale).run_once()
    await sale.cancel("o-1")
    assert client.connection_pool is pool
    assert settings_of(client) == before
    await sale.close()
    assert settings_of(client) == before
    answer = client.ping()
    assert await answer if shop.is_async else answer


async def test_after_close_the_hosts_client_still_works(shop: Shop) -> None:
    client = shop.client()
    for part in ("FlashSale", "Gate", "Inventory", "OrderQueue"):
        opened = shop.make(part, client, "spring")
        await opened.load_scripts() if part in {"Gate", "Inventory"} else None
        await opened.close()
        answer = client.set("flashsale:{host}:key", part)
        assert await answer if shop.is_async else answer


@pytest.mark.one_server  # redis-py's sync client of a Cluster connects when it is made
async def test_every_part_is_a_context_manager(real_shop: Shop) -> None:
    shop = real_shop
    client = shop.client(client_name="ours")
    for part in ("FlashSale", "Gate", "Inventory", "OrderQueue"):
        real = getattr(shop.api, part)(client, "spring")
        if shop.is_async:
            async with real as entered:
                assert entered is real
                assert await real.queue.size() == 0 if part == "FlashSale" else True
        else:
            with real as entered:
                assert entered is real
                assert real.queue.size() == 0 if part == "FlashSale" else True
    ours = [each for each in shop.raw.client_list() if each["name"] == "ours"]
    assert ours == []  # the host's client has not connected yet, and what was ours is closed


# -- many callers, many processes -----------------------------------------------------------------------------------


async def test_more_callers_than_may_wait_are_turned_away_before_anything_is_sent(
    real_shop: Shop, redis_server: servers.RedisServer
) -> None:
    shop = real_shop
    await shop.open(100)
    with FaultProxy(redis_server.port) as proxy:
        client = shop.keep((redis.asyncio.Redis if shop.is_async else redis.Redis)(port=proxy.port))
        sale = shop.make("FlashSale", client, "spring", max_waiting=5)
        assert (await sale.buy("phone", "first")).accepted
        proxy.hold()
        callers = [asyncio.create_task(sale.buy("phone", f"b-{n}", order_id=f"o-{n}")) for n in range(40)]
        await until(lambda: sum(caller.done() for caller in callers) >= 30, "those turned away")
        proxy.release()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        turned_away = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert all(isinstance(error, NotExecuted) and error.waiting >= 5 for error in turned_away)
        assert {error.order_id for error in turned_away} == {
            f"o-{n}" for n, answer in enumerate(answers) if isinstance(answer, Overloaded)
        }
        assert len(turned_away) + sum(isinstance(answer, Receipt) for answer in answers) == 40
        assert await units(sale) == 41 - len(turned_away)


def test_a_forked_child_sells_beside_its_parent(redis_url: str, redis_server: servers.RedisServer) -> None:
    """Connections are not shared: each answer reaches its own process."""
    with redis.Redis.from_url(redis_url) as client, FlashSale(client, "spring") as sale:
        sale.preload("phone", 1000)
        sale.start("phone")
        sale.buy("phone", "parent", order_id="before")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # no pytest in here
            try:
                answers = [sale.buy("phone", "child", order_id=f"child-{n}") for n in range(100)]
                good = [answer.order_id for answer in answers if answer.accepted and not answer.replayed]
                good.append(sale.buy("phone", "parent", order_id="before").order_id)
                os.write(write, json.dumps(good).encode())
            finally:
                os._exit(0)
        os.close(write)
        answers = [sale.buy("phone", "parent", order_id=f"parent-{n}") for n in range(100)]
        assert [answer.order_id for answer in answers] == [f"parent-{n}" for n in range(100)]
        with os.fdopen(read, "rb") as pipe:
            assert json.loads(pipe.read()) == [*(f"child-{n}" for n in range(100)), "before"]
        os.waitpid(child, 0)
        assert sale.inventory.stock("phone").booked == 201


def test_threads_share_one_sale(backend: Backend) -> None:
    with FlashSale(backend.client(), "spring") as sale:
        sale.preload("phone", 50)
        sale.start("phone")
        receipts: list[Receipt] = []
        barrier = threading.Barrier(10)

        def shop(name: str) -> None:
            barrier.wait()
            receipts.extend(sale.buy("phone", name, order_id=f"{name}-{n}") for n in range(10))

        threads = [threading.Thread(target=shop, args=(f"t-{n}",)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {receipt.order_id for receipt in receipts} == {f"t-{n}-{k}" for n in range(10) for k in range(10)}
        assert sum(receipt.accepted for receipt in receipts) == sale.inventory.stock("phone").booked == 50


async def test_cancelled_tasks_leave_the_sale_whole(real_shop: Shop) -> None:
    """A purchase whose caller went away may have happened; with its id one can ask."""
    if not real_shop.is_async:
        pytest.skip("a thread cannot be cancelled")
    sale = await real_shop.open(1000)
    for hops in range(10):
        tasks = [asyncio.create_task(sale.buy("phone", "ann", order_id=f"{hops}-{n}")) for n in range(20)]
        for _ in range(hops):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for n, answer in enumerate(answers):
            again = await sale.buy("phone", "ann", order_id=f"{hops}-{n}")
            assert again.order_id == f"{hops}-{n}"
            assert again.accepted
            if isinstance(answer, Receipt):
                assert (answer.order_id, again.replayed) == (again.order_id, True)
    assert await slots(sale) == await units(sale) == 200
    assert await sale.queue.size() == 200


# -- each promise has its mechanism ---------------------------------------------------------------------------------


async def test_the_stock_decides_on_the_pause(shop: Shop) -> None:
    """The gate's mirror may be late: the stock refuses all the same."""
    sale = await shop.open()
    shop.raw.hset(shop.keys.meta, "state", "paused")
    assert (await sale.buy("phone", "ann")).outcome is Outcome.PAUSED
    (receipt,) = await sale.inventory.reserve([order()])
    assert receipt.outcome is Outcome.PAUSED


@promises(
    {
        "a state is left once": test_whoever_releases_from_an_old_record_releases_nothing,
        "the slot that comes back": test_a_cancellation_returns_units_allowance_and_slot_once,
        "the pause": test_the_stock_decides_on_the_pause,
        "the gate in the purchase": test_stop_and_pause_hold_the_sale_and_a_retry_finds_its_order,
    }
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
