"""Our private copies of the host's clients: of every kind, without retries, and without touching the host's."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import operator
import random
import threading
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.backoff
import redis.cluster
import redis.sentinel

import flashsale
import flashsale.aio
from flashsale import InvalidRequest, NotExecuted, OutcomeUnknown
from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.helpers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.hosts import Host

KINDS: dict[str, Callable[[Host, servers.RedisServer], Any]] = {
    "tcp": lambda host, server: host.redis.Redis(port=server.port),
    "unix socket": lambda host, server: host.redis.Redis(unix_socket_path=server.socket),
    "from_url": lambda host, server: host.redis.from_url(server.url),
    "pool": lambda host, server: host.redis.Redis(connection_pool=host.redis.ConnectionPool(port=server.port)),
    "blocking pool": lambda host, server: host.redis.Redis.from_pool(
        host.redis.BlockingConnectionPool(port=server.port, max_connections=1, timeout=1)
    ),
    "str": lambda host, server: host.redis.Redis(port=server.port, decode_responses=True),
    "encoding": lambda host, server: host.redis.Redis(port=server.port, encoding="utf-16", decode_responses=True),
    "RESP3": lambda host, server: host.redis.Redis(port=server.port, protocol=3),
    "RESP3 str": lambda host, server: host.redis.Redis(port=server.port, protocol=3, decode_responses=True),
    "retries": lambda host, server: host.redis.Redis(
        port=server.port,
        retry=host.module(".retry").Retry(redis.backoff.NoBackoff(), 5),
        retry_on_error=[redis.ResponseError],
    ),
    "single connection": lambda host, server: host.redis.Redis(port=server.port, single_connection_client=True),
    "health checks": lambda host, server: host.redis.Redis(port=server.port, health_check_interval=30),
    "no timeouts": lambda host, server: host.redis.Redis(
        port=server.port, socket_timeout=None, socket_connect_timeout=None
    ),
    "name": lambda host, server: host.redis.Redis(port=server.port, client_name="the-host"),
    "pipeline": lambda host, server: host.redis.Redis(port=server.port).pipeline(),
}


@pytest.fixture
def server(redis_server: servers.RedisServer, redis_url: str) -> servers.RedisServer:
    """The real Redis of this run, emptied."""
    return redis_server


@pytest.fixture(scope="module")
def guarded() -> Iterator[servers.RedisServer]:
    """A Redis with users: `clerk` may do anything with our keys, `guest` nothing but connect."""
    with servers.redis_server() as server:
        raw = server.client()
        raw.execute_command("ACL", "SETUSER", "clerk", "on", ">pw", "~flashsale:*", "+@all")
        raw.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "+client")
        yield server


def look(client: Any) -> Any:
    """What must not change of a client."""
    pool = client.connection_pool
    return pool, dict(pool.connection_kwargs), pool.connection_class, pool.max_connections, client.connection


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_client(host: Host, server: servers.RedisServer, kind: str) -> None:
    client = host.keep(KINDS[kind](host, server))
    before = look(client)
    sale = await host.opened(client, 2)
    receipts = [await sale.buy("phone", "ann"), await sale.buy("phone", "bob"), await sale.buy("phone", "eve")]
    assert [receipt.accepted for receipt in receipts] == [True, True, False]
    assert await sale.status(receipts[0].order_id) is flashsale.OrderState.QUEUED
    assert len(await sale.queue.claim(timeout=0)) == 2
    await sale.close()
    assert look(client) == before


@pytest.mark.parametrize("protocol", [2, 3])
async def test_after_our_close_the_hosts_connections_live(
    host: Host, server: servers.RedisServer, protocol: int
) -> None:
    client = host.connect(server.port, client_name="the-host", protocol=protocol)
    await host.call(client.ping)
    mine = await host.call(client.client_id)
    sale = await host.opened(client)
    await sale.close()
    assert await host.call(client.client_id) == mine
    assert len([each for each in server.client().client_list() if each["name"] == "the-host"]) == 1


def test_client_side_caching(server: servers.RedisServer) -> None:
    cache = pytest.importorskip("redis.cache")
    client = redis.Redis(port=server.port, protocol=3, cache_config=cache.CacheConfig())
    with client, flashsale.FlashSale(client, "spring") as sale:
        sale.preload("phone", 1)
        sale.start("phone")
        assert sale.buy("phone", "ann").accepted


async def test_a_fake_server_is_shared(host: Host) -> None:
    fake = fakeredis.FakeServer()
    kind = fakeredis.FakeAsyncRedis if host.is_async else fakeredis.FakeRedis
    one = await host.opened(host.keep(kind(server=fake)), 1)
    two = await host.opened(host.keep(kind(server=fake, decode_responses=True)), 1)
    assert (await one.buy("phone", "ann")).accepted
    assert not (await two.buy("phone", "bob")).accepted
    fake.connected = False
    with pytest.raises((NotExecuted, OutcomeUnknown)):
        await two.buy("phone", "bob", order_id="o-1")


async def test_users_and_passwords(host: Host, guarded: servers.RedisServer) -> None:
    host.raw = guarded.client()
    host.raw.flushall()
    sale = await host.opened(host.connect(guarded.port, username="clerk", password="pw"))
    before = host.raw.hgetall("flashsale:{spring}:phone:stock")
    for user, password, reason in [("clerk", "wrong", "NOAUTH"), ("guest", "pw", "NOPERM")]:
        other = host.on(host.connect(guarded.port, username=user, password=password))
        with pytest.raises(NotExecuted) as refused:
            await other.buy("phone", "ann")
        assert refused.value.reason == reason
        assert refused.value.order_id
    assert host.raw.hgetall("flashsale:{spring}:phone:stock") == before
    assert (await sale.buy("phone", "ann")).accepted


def wrong_clients() -> dict[str, tuple[Any, Any]]:
    """Of each API, what it cannot use."""
    both = [None, "redis://localhost", object(), redis.sentinel.Sentinel([]), redis.Redis, redis.ConnectionPool()]
    cluster = redis.cluster.RedisCluster.__new__(redis.cluster.RedisCluster)
    acluster = redis.asyncio.RedisCluster.__new__(redis.asyncio.RedisCluster)
    acluster._initialize = False
    cases = [(flashsale, each) for each in (*both, redis.asyncio.Redis(), fakeredis.FakeAsyncRedis(), acluster)]
    cases += [(flashsale.aio, each) for each in (*both, redis.Redis(), fakeredis.FakeRedis(), cluster)]
    return {f"{api.__name__} {type(each).__module__}.{type(each).__name__}": (api, each) for api, each in cases}


@pytest.mark.parametrize("case", wrong_clients().values(), ids=wrong_clients())
def test_what_we_cannot_use_is_refused_at_once(case: tuple[Any, Any]) -> None:
    api, client = case
    for part in (api.FlashSale, api.Gate, api.Inventory, api.OrderQueue):
        with pytest.raises(InvalidRequest) as refused:
            part(client, "spring")
        assert refused.value.field == "client"


# -- the pool -------------------------------------------------------------------------------------------------------


async def test_a_full_pool_is_waited_for(host: Host, server: servers.RedisServer) -> None:
    client = host.keep(
        host.redis.Redis.from_pool(host.redis.BlockingConnectionPool(port=server.port, max_connections=1))
    )
    sale = await host.opened(client)
    answers = await asyncio.gather(sale.queue.pop(0.5), *(sale.gate.state("phone") for _ in range(20)))
    assert answers[0] is None
    assert {state.count for state in answers[1:]} == {10}


async def test_dead_idle_connections_are_no_excuse(host: Host) -> None:
    with servers.redis_server(aof=True) as server:
        sale = await host.opened(host.connect(server.port))
        await asyncio.gather(*(sale.gate.state("phone") for _ in range(20)))
        await asyncio.to_thread(server.restart)
        for _ in range(5):
            assert await sale.inventory.deduct("phone") == 1  # which nobody tries again


async def test_a_closed_sale_opens_again(host: Host, server: servers.RedisServer) -> None:
    """As a web application's tests do, that enter its lifespan again and again."""
    pool = host.redis.ConnectionPool(port=server.port, max_connections=9)
    sale = await host.opened(host.keep(host.redis.Redis.from_pool(pool)))
    for _ in range(10):
        await sale.close()
        assert (await sale.gate.state("phone")).count == 10


@pytest.mark.parametrize("broken", ["_link", "_gate_link", "gate._replica"])
async def test_whatever_does_not_close_the_rest_is_closed(
    host: Host, server: servers.RedisServer, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(name: str) -> Any:
        return host.connect(server.port, client_name=name)

    sale = host.on(named("_link"), gate_client=named("_gate_link"), gate_replica=named("gate._replica")).real
    links = {name: operator.attrgetter(name)(sale) for name in ("_link", "_gate_link", "gate._replica")}
    for link in links.values():
        await host.call(link.command, "PING")

    def fail(*_: object) -> None:
        raise RuntimeError("will not close")

    def connected() -> set[str]:
        return {each["name"] for each in server.client().client_list()} & set(links)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="will not close"):
        (connection,) = links[broken]._servers._made
        patch.setattr(connection, "disconnect", fail)
        await host.call(sale.aclose if host.is_async else sale.close)
    await until(lambda: connected() == {broken}, "all others are closed")
    await host.call(connection.disconnect)


async def test_two_threads_want_the_last_connection_at_hand(host: Host, server: servers.RedisServer) -> None:
    class LooksFull(list[Any]):
        """As long as the other thread has not taken it yet."""

        def __bool__(self) -> bool:
            return True

    sale = await host.opened(host.connect(server.port))
    at_hand = sale.real._link._servers._at_hand
    kept = dict(at_hand)
    at_hand |= {address: LooksFull() for address in at_hand}
    assert (await sale.gate.state("phone")).count == 10
    for address, idle in kept.items():
        at_hand[address] += idle


GOODS = 40


async def test_cancelled_calls_leave_no_reply_behind(server: servers.RedisServer) -> None:
    """Goods n has the count n: whoever reads another caller's reply sees another number."""
    with FaultProxy(server.port) as proxy:
        pool = redis.asyncio.ConnectionPool(port=proxy.port, max_connections=4)
        async with redis.asyncio.Redis.from_pool(pool) as client, flashsale.aio.Gate(client, "spring") as gate:
            for number in range(1, GOODS):
                await gate.preload(f"goods-{number}", number)

            async def ask(number: int) -> None:
                assert (await gate.state(f"goods-{number}")).count == number

            dice = random.Random(1)
            for _ in range(25):
                calls = [asyncio.create_task(ask(dice.randrange(1, GOODS))) for _ in range(40)]
                for _ in range(dice.randrange(60)):
                    await asyncio.sleep(0)
                for call in calls[::2]:
                    call.cancel()
                    if dice.random() < 0.5:
                        await asyncio.sleep(0)
                        call.cancel()  # a second time, while the first is being dealt with
                answers = await asyncio.gather(*calls, return_exceptions=True)
                assert not [each for each in answers[1::2] if each is not None]
                assert all(each is None or isinstance(each, asyncio.CancelledError) for each in answers)
            await asyncio.gather(*(ask(number) for number in range(1, GOODS)))  # all four connections are back


async def test_cancelled_buyers_leave_no_reply_behind(server: servers.RedisServer) -> None:
    host_client = redis.asyncio.Redis(port=server.port)
    async with host_client, flashsale.aio.FlashSale(host_client, "spring") as sale:
        await sale.preload("phone", 50)
        await sale.start("phone")
        dice = random.Random(2)
        calls = [asyncio.create_task(sale.buy("phone", "ann", order_id=f"o-{number}")) for number in range(200)]
        for call in dice.sample(calls, 100):
            await asyncio.sleep(0)
            call.cancel()
        receipts = await asyncio.gather(*calls, return_exceptions=True)
        for number, receipt in enumerate(receipts):
            assert isinstance(receipt, asyncio.CancelledError) or receipt.order_id == f"o-{number}"
        again = await asyncio.gather(*(sale.buy("phone", "ann", order_id=f"o-{number}") for number in range(200)))
        assert sum(receipt.accepted for receipt in again) == 50
        assert (await sale.inventory.stock("phone")).booked == 50


def test_threads_that_raise_leave_no_reply_behind(server: servers.RedisServer) -> None:
    """As a task queue's soft time limit does: an exception out of nowhere, in the middle of a call."""

    class Limit(Exception):
        pass

    client = redis.Redis(port=server.port)
    wrong: list[int] = []
    raised = threading.Semaphore(0)
    stop = threading.Event()
    with client, flashsale.Gate(client, "spring") as gate:
        for number in range(1, 9):
            gate.preload(f"goods-{number}", number)

        def ask(number: int) -> None:
            while not stop.is_set():
                with contextlib.suppress(flashsale.FlashSaleError):
                    try:
                        if gate.state(f"goods-{number}").count != number:
                            wrong.append(number)
                    except Limit:
                        raised.release()

        def guarded(number: int) -> None:
            while not stop.is_set():
                try:
                    ask(number)
                except Limit:
                    raised.release()

        threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads * 3:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Limit))
            raised.acquire(timeout=0.2)  # one that comes at the wrong moment is lost
        stop.set()
        for thread in threads:
            thread.join(10)
        assert not wrong
        assert gate.state("goods-3").count == 3
