"""The testing kit: the plugin with and without asyncio plugins, temporary sales, strategies, crash points."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import fakeredis
import pytest
import redis
from hypothesis import given

from flashsale import FlashSale, Goods, Order, OrderState, Receipt, Syncer, UnknownGoods, Worker, aio, testing, web
from flashsale.model.checks import check_goods_id, check_id, check_quantity, check_sale
from flashsale.testing import (
    AsyncCrashPoint,
    Crash,
    CrashPoint,
    async_crash_points,
    crash_points,
    memory_async_store,
    memory_store,
    strategies,
    temporary_async_sale,
    temporary_sale,
)
from flashsale.testing._plugin_redis import Server

# -- the plugin -----------------------------------------------------------------------------------------------------

SYNC = """
from flashsale import Goods, Outcome
from flashsale.testing import memory_store

def test_a_sale(make_flashsale, flashsale_client):
    sale = make_flashsale({"phone": 1}, store=memory_store)
    assert sale.buy("phone", "ann").accepted
    assert sale.buy("phone", "bob").outcome is Outcome.SOLD_OUT
    shut = make_flashsale([Goods("phone", 1, hold=60)], started=False, cache_for=0)
    assert shut.buy("phone", "bob").outcome is Outcome.NOT_STARTED
    assert {key.decode().split("}")[0] for key in flashsale_client.keys("flashsale:*")} == {
        f"flashsale:{{{each.name}" for each in (sale, shut)
    }

def test_nothing_is_left(flashsale_client):
    assert flashsale_client.keys("flashsale:*") == []
"""

ASYNC = """
from flashsale.testing import memory_async_store
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

{mark}
async def test_async_sales(make_async_flashsale, flashsale_async_client):
    async with make_async_flashsale({"phone": 1}, store=memory_async_store) as sale:
        assert (await sale.buy("phone", "ann")).accepted
    async with flashsale_async_client as client:
        assert await client.keys("flashsale:*") == []
"""
STRICT = ASYNC.replace("{mark}", "@pytest.mark.asyncio")
ANYIO = ASYNC.replace("{mark}", "@pytest.mark.anyio")
BARE = """
import asyncio, functools

def run(test):
    @functools.wraps(test)
    def run(**fixtures):
        asyncio.run(test(**fixtures))
    return run
""" + ASYNC.replace("{mark}", "@run")


def run_pytest(folder: Path, source: str, *options: str) -> str:
    """Runs a host's test with no plugin but ours and those named; warnings are errors."""
    (folder / "test_host.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "_flashsale_pytest", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(
        [*command, f"--basetemp={folder / 'tmp'}", *options, "test_host.py"],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (BARE, ()),
        (STRICT, ("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function")),
        (ANYIO, ("-p", "anyio.pytest_plugin")),
    ],
    ids=["bare", "pytest-asyncio", "anyio"],
)
def test_fixtures_on_fakeredis(source: str, options: tuple[str, ...], tmp_path: Path) -> None:
    assert "3 passed" in run_pytest(tmp_path, SYNC + source, *options)


@pytest.mark.usefixtures("redis_server")  # where there is one
def test_fixtures_on_a_server_of_their_own(tmp_path: Path) -> None:
    assert "3 passed" in run_pytest(tmp_path, SYNC + BARE, "--flashsale-redis=own")


def test_fixtures_on_a_shared_server_leave_the_rest_alone(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("mine", 1)
        assert "3 passed" in run_pytest(tmp_path, SYNC + BARE, f"--flashsale-redis={redis_url}")
        assert client.keys() == [b"mine"]


def test_the_plugin_imports_nothing_until_a_fixture_is_used(tmp_path: Path) -> None:
    run_pytest(
        tmp_path, "import sys\ndef test_it():\n    assert not {'flashsale', 'redis', 'hypothesis'} & set(sys.modules)\n"
    )


@pytest.mark.parametrize("name", testing.__all__)
def test_every_name_of_the_kit_is_there(name: str) -> None:
    assert getattr(testing, name).__name__ == name


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError):
        testing.nothing  # noqa: B018


# -- temporary sales ------------------------------------------------------------------------------------------------


def test_a_sale_that_fails_leaves_no_keys_either() -> None:
    with fakeredis.FakeRedis() as client:
        with pytest.raises(ZeroDivisionError), temporary_sale(client, {"phone": 1}) as sale:
            sale.buy("phone", "ann")
            raise ZeroDivisionError
        assert client.keys() == []


def test_goods_with_an_opening_time_wait_for_it() -> None:
    with fakeredis.FakeRedis() as client, temporary_sale(client, [Goods("phone", 1, opens_at=4e9)]) as sale:
        assert sale.buy("phone", "ann").outcome == "NOT_STARTED"


def test_threads_who_are_the_first_to_come_share_the_fake() -> None:
    """fakeredis makes a database when its first caller comes; of two at once, one would work on another one."""
    server = Server(None)
    assert list(server._fake.dbs) == [0]
    with server.client() as client:
        assert client.dbsize() == 0


# -- strategies -----------------------------------------------------------------------------------------------------


@given(strategies.sales(), strategies.goods_ids(), strategies.ids(), strategies.quantities())
def test_what_is_drawn_is_accepted(sale: str, goods_id: str, an_id: str, quantity: int) -> None:
    check_sale(sale)
    check_goods_id(goods_id)
    check_id("order_id", an_id)
    check_quantity(quantity)


@given(strategies.orders())
def test_orders_go_over_the_wire(order: Order) -> None:
    assert Order.from_json(order.to_json().encode()) == order


@given(strategies.goods())
def test_goods_can_be_loaded(goods: Goods) -> None:
    with fakeredis.FakeRedis() as client, temporary_sale(client, [goods], started=False) as sale:
        assert sale.inventory.stock(goods.goods_id).total == goods.total


@given(strategies.receipts())
def test_receipts_have_answers(receipt: Receipt) -> None:
    reply = web.answer(receipt, location="/there")
    assert (reply.status == 202) == (receipt.state is not None)
    assert json.loads(reply.body)


# -- crash points ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sale() -> FlashSale:
    with fakeredis.FakeRedis() as client, temporary_sale(client, {"phone": 1000}, store=memory_store) as sale:
        yield sale


def test_a_purchase_survives_every_crash_point(sale: FlashSale) -> None:
    points = []
    for bought, point in enumerate(crash_points(sale), 1):
        with point:
            sale.buy("phone", "ann", order_id=f"o-{bought}")
        points.append(repr(point))
        sale.buy("phone", "ann", order_id=f"o-{bought}")
        assert sale.inventory.stock("phone").booked == bought
    assert points == [
        "<before request 0 (reserve)>",
        "<after request 0 (reserve)>",
        "<before request 1 (not reached)>",
    ]


def test_a_worker_survives_every_crash_point(sale: FlashSale) -> None:
    seen = []
    for number, point in enumerate(crash_points(sale)):
        sale.buy("phone", "ann", order_id=f"o-{number}")
        with point:
            Worker(sale).run_once()
        seen.append(repr(point).partition("(")[2].rstrip(")>"))
        for delivery in sale._link.command("ZRANGE", sale.keys.leases, 0, -1):
            sale._link.command("ZADD", sale.keys.leases, 1, delivery)  # the lease of the dead one ends
        while sale.queue.size() or sale.status(f"o-{number}") is OrderState.QUEUED:
            Worker(sale).run_once()
        assert sale.store.states([f"o-{number}"]) == {f"o-{number}": OrderState.PERSISTED}
    assert "store.save" in seen
    assert seen[-1] == "not reached"


def test_an_expiry_survives_every_crash_point(sale: FlashSale) -> None:
    """Overdue orders go together: all of them in the database, then all of them in the ledger."""
    seen = []
    for number, point in enumerate(crash_points(sale)):
        names = [f"o-{number}-{n}" for n in range(3)]
        assert all(sale.buy("phone", "ann", order_id=name).accepted for name in names)
        Worker(sale).run_once()
        sale._link.command("ZADD", sale.keys.holds, *(value for name in names for value in (1, name)))
        with point:
            Syncer(sale).run_once()
        seen.append(repr(point).partition("(")[2].rstrip(")>"))
        sale._link.command("HDEL", sale.keys.meta, "leader_until")  # the lease of the dead one ends
        Syncer(sale).run_once()
        assert sale.store.states(names) == {name: sale.status(name) for name in names}
        assert sale.store.states(names) == dict.fromkeys(names, OrderState.EXPIRED)
        assert sale.inventory.stock("phone").booked == sale.gate.state("phone").access == 0
    assert {"overdue", "store.settle_many", "settle"} <= set(seen)
    assert seen[-1] == "not reached"


def test_a_checkout_that_books_twice_is_found(sale: FlashSale) -> None:
    """Each attempt has an id of its own: whoever asks again after a crash buys twice."""

    def checkout() -> None:
        sale.buy("phone", "ann")

    with pytest.raises(AssertionError):
        for bought, point in enumerate(crash_points(sale), 1):
            with point:
                checkout()
            if point.crashed:
                checkout()
            assert sale.inventory.stock("phone").booked == bought


def test_nothing_runs_in_a_dead_process(sale: FlashSale) -> None:
    """Neither `except Exception` nor `finally` reaches a server; afterwards the sale is as it was."""
    point = next(crash_points(sale))
    with point:
        try:
            sale.buy("phone", "ann")
        finally:
            with pytest.raises(Crash):
                sale.store.goods()
    assert point.crashed
    assert sale.inventory.stock("phone").booked == 0
    assert [goods.total for goods in sale.store.goods()] == [1000]


def test_other_errors_go_through_a_point(sale: FlashSale) -> None:
    with pytest.raises(UnknownGoods), CrashPoint(sale, 99, after=False):
        sale.buy("ghost", "ann")


# -- crash points of asyncio ---------------------------------------------------------------------------------------


@pytest.fixture
async def async_sale() -> AsyncIterator[aio.FlashSale]:
    opened = temporary_async_sale(fakeredis.FakeAsyncRedis(), {"phone": 1000}, store=memory_async_store)
    async with opened as sale:
        yield sale


async def test_an_async_purchase_survives_every_crash_point(async_sale: aio.FlashSale) -> None:
    points, bought = [], 0
    async for point in async_crash_points(async_sale):
        bought += 1
        async with point:
            await async_sale.buy("phone", "ann", order_id=f"o-{bought}")
        points.append(repr(point))
        await async_sale.buy("phone", "ann", order_id=f"o-{bought}")
        assert (await async_sale.inventory.stock("phone")).booked == bought
    assert points == [
        "<before request 0 (reserve)>",
        "<after request 0 (reserve)>",
        "<before request 1 (not reached)>",
    ]


async def test_an_async_worker_survives_every_crash_point(async_sale: aio.FlashSale) -> None:
    seen = []
    async for point in async_crash_points(async_sale):
        order_id = f"o-{len(seen)}"
        await async_sale.buy("phone", "ann", order_id=order_id)
        async with point:
            await aio.Worker(async_sale).run_once()
        seen.append(repr(point).partition("(")[2].rstrip(")>"))
        for delivery in await async_sale._link.command("ZRANGE", async_sale.keys.leases, 0, -1):
            await async_sale._link.command(
                "ZADD", async_sale.keys.leases, 1, delivery
            )  # the lease of the dead one ends
        while await async_sale.queue.size() or await async_sale.status(order_id) is OrderState.QUEUED:
            await aio.Worker(async_sale).run_once()
        assert await async_sale.store.states([order_id]) == {order_id: OrderState.PERSISTED}
    assert "store.save" in seen
    assert seen[-1] == "not reached"


async def test_what_failed_beside_a_crash_in_a_task_group_is_raised(async_sale: aio.FlashSale) -> None:
    """Only the crash is swallowed: an assertion of the test itself is not."""

    async def fail() -> None:
        raise AssertionError("of the host")

    with pytest.raises(ExceptionGroup) as failed:
        async with AsyncCrashPoint(async_sale, 0, after=False), asyncio.TaskGroup() as group:
            group.create_task(async_sale.buy("phone", "ann"))
            group.create_task(fail())
    (error,) = failed.value.exceptions
    assert str(error) == "of the host"


async def test_a_task_group_without_a_crash_is_raised_as_it_is(async_sale: aio.FlashSale) -> None:
    with pytest.raises(ExceptionGroup) as failed:
        async with AsyncCrashPoint(async_sale, 99, after=False), asyncio.TaskGroup() as group:
            group.create_task(async_sale.buy("ghost", "ann"))
    assert failed.group_contains(UnknownGoods, depth=1)


@pytest.mark.parametrize("after", [False, True])
async def test_every_task_of_a_dead_process_dies(after: bool, async_sale: aio.FlashSale, caplog) -> None:
    """Neither a task that goes on nor one that cleans up reaches a server, and the loop complains of none."""
    point = AsyncCrashPoint(async_sale, 1, after=after)
    swept = []

    async def buy(number: int) -> None:
        try:
            await async_sale.buy("phone", "ann", order_id=f"o-{number}")
            await asyncio.sleep(3600)
        finally:
            try:
                await async_sale.store.goods()
            except Crash:
                swept.append(number)

    async with point, asyncio.TaskGroup() as group:
        for number in range(200):  # the first leaves alone, 128 and 71 travel together
            group.create_task(buy(number))
    assert point.crashed
    assert sorted(swept) == list(range(200))
    booked = (await async_sale.inventory.stock("phone")).booked
    gc.collect()
    await asyncio.sleep(0)
    assert not caplog.records
    assert booked == (await async_sale.inventory.stock("phone")).booked == await async_sale.queue.size()
    assert booked < 200
    for number in range(200):
        await async_sale.buy("phone", "ann", order_id=f"o-{number}")
    assert (await async_sale.inventory.stock("phone")).booked == 200
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_an_async_checkout_that_books_twice_is_found(async_sale: aio.FlashSale) -> None:
    bought = 0
    with pytest.raises(AssertionError):
        async for point in async_crash_points(async_sale):
            bought += 1
            async with point:
                await async_sale.buy("phone", "ann")
            if point.crashed:
                await async_sale.buy("phone", "ann")
            assert (await async_sale.inventory.stock("phone")).booked == bought


async def test_a_task_that_dies_young_leaves_the_sale_usable(async_sale: aio.FlashSale) -> None:
    """What had no turn yet when the block died has one, else it would never undo what was counted when it was made."""
    for number in (1, 0):
        async with AsyncCrashPoint(async_sale, number, after=False) as point:
            buying = [asyncio.create_task(async_sale.buy("phone", "ann")) for _ in range(2)]
            await asyncio.sleep(0)
            await async_sale.status("o-1")
        assert point.crashed
        assert all(task.done() for task in buying)
    async with asyncio.timeout(5):
        await async_sale.buy("phone", "ann")


async def test_other_errors_go_through_an_async_point(async_sale: aio.FlashSale) -> None:
    with pytest.raises(UnknownGoods):
        async with AsyncCrashPoint(async_sale, 99, after=False):
            await async_sale.buy("ghost", "ann")


async def test_an_async_point_must_be_used(async_sale: aio.FlashSale) -> None:
    with pytest.raises(RuntimeError, match="with point"):
        [point async for point in async_crash_points(async_sale)]


def test_a_point_must_be_used(sale: FlashSale) -> None:
    with pytest.raises(RuntimeError, match="with point"):
        list(crash_points(sale))
