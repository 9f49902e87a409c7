"""Rows 7 to 10, 12 and 15 to 17: the Redis server itself."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from typing import TYPE_CHECKING

import pytest
import redis
import redis.backoff
import redis.retry

from flashsale import NotExecuted, UnknownGoods, UnsafeServer
from tests.chaos.faults.catalogue import fault
from tests.chaos.faults.world import append_only_file
from tests.support import servers
from tests.support.helpers import eventually, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.faults.world import World

# -- crash and loss -------------------------------------------------------------------------------------------------


@fault(
    7,
    "Redis crash",
    "kill -9 with AOF, between any two requests",
    holds="E",
    mechanism="one script is one AOF transaction",
    without=("the append-only file", "the one script"),
)
async def test_row_07_redis_crash(world: World) -> None:
    server = world.server(aof=True)
    proxy = world.proxy(server)
    sale = await world.sell(proxy.port)
    accepted: list[str] = []
    for crash in range(1, 4):
        proxy.lose_request(b"flashsale:{spring}", nth=crash + 1, times=None)  # it dies after so many requests
        for number in range(4):
            answer = await world.answer(sale.buy("phone", "ann", order_id=f"o-{crash}-{number}"))
            if getattr(answer, "accepted", False):
                accepted.append(answer.order_id)
        await asyncio.to_thread(server.restart)
        proxy.clear()
        await sale.inventory.load_scripts()  # from Redis 7.0 on a restart forgets them: each purchase is one request
        assert world.raw.hlen(world.keys.orders) >= len(accepted), "E: accepted orders are gone"
    await world.holds(sale, accepted, total=10)
    assert len(accepted) == 6


@fault(
    8,
    "AOF tail cut",
    "truncate bytes",
    holds="O; E for what survived",
    mechanism="one script is one transaction; the guard in the database; a rebuild under a new epoch",
    without=("the transaction", "the guard in the database"),
)
async def test_row_08_aof_tail_cut(world: World) -> None:
    server = world.server(aof=True)
    sale = await world.sell(server.port, 4)
    assert (await sale.buy("phone", "ann", order_id="o-0")).accepted
    early = append_only_file(server).stat().st_size
    for number in (1, 2):
        assert (await sale.buy("phone", "ann", order_id=f"o-{number}")).accepted
    await world.drain(sale)
    begun = append_only_file(server).stat().st_size
    assert (await sale.buy("phone", "ann", order_id="o-3")).accepted

    written = append_only_file(server).read_bytes()
    await _restart_from(world, server, world.rewrite(written[: written.index(b"LPUSH", begun)]))
    audit = await world.syncer(sale).audit([f"o-{number}" for number in range(3)])
    assert audit.ok, f"E: half an order survived: {audit}"
    assert (await sale.status("o-3"), world.booked()) == (None, 3)

    await _restart_from(world, server, written[: early + 1])  # and two that are rows of the database
    late = [await sale.buy("phone", "bob", order_id=f"late-{number}") for number in range(4)]
    assert sum(receipt.accepted for receipt in late) == 3  # Redis cannot know better
    await world.drain(sale)
    assert await world.active_units(sale) == 4, "O: oversold"
    rebuilt = await world.syncer(sale).rebuild()
    assert (rebuilt.epoch, rebuilt.goods) == (2, {"phone": 4})
    await world.holds(sale, ["o-0", "o-1", "o-2"], total=4)


async def _restart_from(world: World, server: servers.RedisServer, written: bytes) -> None:
    server.kill()
    append_only_file(server).write_bytes(written)
    await asyncio.to_thread(server.start)


@fault(
    9,
    "AOF corrupt",
    "flip bytes",
    holds="T",
    mechanism="a rebuild from the database",
    without=("the rebuild from the database",),
)
async def test_row_09_aof_corrupt(world: World) -> None:
    server = world.server(aof=True)
    sale = await world.sell(server.port, 4)
    for number in range(3):
        assert (await sale.buy("phone", "ann", order_id=f"o-{number}")).accepted
    await world.drain(sale)
    server.kill()
    file = append_only_file(server)
    written = bytearray(file.read_bytes())
    written[written.rindex(b"\r\n*") + 2] ^= 0xFF
    file.write_bytes(written)
    with pytest.raises(ChildProcessError):
        await asyncio.to_thread(server.start)
    await world.answered(NotExecuted, sale.buy("phone", "ann"))

    file.unlink()  # the operator's way back: start empty, and rebuild
    shutil.rmtree(server.folder / "appendonlydir", ignore_errors=True)
    await asyncio.to_thread(server.start)
    await world.answered(UnknownGoods, sale.buy("phone", "ann"))
    rebuilt = await world.syncer(sale).rebuild()
    await sale.start("phone")
    assert (rebuilt.orders, world.booked()) == (3, 3), "T: the orders did not come back"
    assert [(await sale.buy("phone", "bob")).accepted for _ in range(2)] == [True, False]
    await world.holds(sale, [f"o-{number}" for number in range(3)], total=4)


@fault(
    10,
    "total loss",
    "FLUSHALL",
    holds="O T",
    mechanism="an item once loaded are never preloaded again; a rebuild",
    without=("the mark that they were loaded", "the rebuild from the database"),
)
async def test_row_10_total_loss(world: World) -> None:
    sale = await world.sell(world.redis_server.port, 4)
    for number in range(3):
        assert (await sale.buy("phone", "ann", order_id=f"o-{number}")).accepted
    await world.drain(sale)
    world.raw.flushall()
    assert (await world.syncer(sale).run_once()).missing == ("phone",), "O: sold units are for sale again"
    for order_id in (None, "o-0", "new"):
        await world.answered(UnknownGoods, sale.buy("phone", "ann", order_id=order_id))
    await world.answered(UnknownGoods, sale.start("phone"))
    assert (await world.syncer(sale).rebuild()).goods == {"phone": 3}, "T: the orders did not come back"
    await sale.start("phone")
    assert [(await sale.buy("phone", "bob")).accepted for _ in range(2)] == [True, False]
    await world.holds(sale, [f"o-{number}" for number in range(3)], total=4)


# -- a server that refuses ------------------------------------------------------------------------------------------


@fault(
    12,
    "demoted primary",
    "REPLICAOF",
    holds="T",
    mechanism="READONLY is `NotExecuted`, and the connection is dropped",
    without=("the server's word for a refusal", "the end of the connection"),
)
async def test_row_12_demoted_primary(world: World) -> None:
    server = world.server()
    proxy = world.proxy(server)
    sale = await world.sell(proxy.port)
    world.raw.replicaof(servers.HOST, servers.free_port())
    connections = proxy.connections
    refused = await world.answered(NotExecuted, sale.buy("phone", "ann", order_id="o-1"))
    assert (refused.reason, refused.order_id) == ("READONLY", "o-1")
    world.raw.replicaof("NO", "ONE")
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    assert proxy.connections > connections, "T: a connection to a demoted primary is kept"
    await world.holds(sale, ["o-1"], total=10)


@fault(
    15,
    "memory full",
    "maxmemory, noeviction",
    holds="O T E",
    mechanism="checks before writes; claim and ack first free memory",
    without=(
        "the server's word for a refusal",
        "the order of writes in claim",
        "the order of writes in ack",
        "the check of memory before a write",
    ),
)
async def test_row_15_memory_full(world: World) -> None:
    server = world.server(maxmemory_policy="noeviction")
    sale = await world.sell(server.port)
    accepted = [f"o-{number}" for number in range(5)]
    for order_id in accepted:
        assert (await sale.buy("phone", "ann", order_id=order_id)).accepted
    world.raw.config_set("maxmemory", 1)
    before = snapshot(world.raw)
    refused = await world.answered(NotExecuted, sale.buy("phone", "ann", order_id="late"))
    assert refused.reason == "OOM"
    assert snapshot(world.raw) == before, "O: a refused purchase left something behind"
    assert await world.answer(world.worker(sale).run_once()) == 5, "E: a full server does not drain"
    assert not world.raw.exists(world.keys.order_list, world.keys.claimed)
    world.raw.config_set("maxmemory", 0)
    assert (await sale.buy("phone", "ann", order_id="late")).accepted
    await world.holds(sale, [*accepted, "late"], total=10)


@fault(
    16,
    "eviction policy",
    "allkeys-lru",
    holds="O",
    mechanism="the check before the sale refuses",
    without=("the check of the server",),
)
async def test_row_16_eviction_policy(world: World) -> None:
    server = world.server(maxmemory_policy="allkeys-lru", appendonly="yes")
    sale = await world.sell(server.port, 4)
    answer = await world.answer(sale.check(strict=True))
    if isinstance(answer, UnsafeServer):
        assert [finding.name for finding in answer.findings] == ["eviction"]
        world.raw.config_set("maxmemory-policy", "noeviction")  # what the finding says
        assert await sale.check(strict=True) == ()
    assert (await sale.buy("phone", "ann", 4, order_id="o-1")).accepted
    world.raw.config_set("maxmemory", world.raw.info("memory")["used_memory"] + 500_000)
    with contextlib.suppress(redis.exceptions.OutOfMemoryError):
        for number in range(2000):  # somebody else's keys; the server picks what it forgets by chance
            world.raw.set(f"page-{number}", b"x" * 5000)
    assert world.raw.exists(world.keys.stock("phone"), world.keys.orders) == 2, "O: sold units were forgotten"
    world.raw.config_set("maxmemory", 0)
    await world.holds(sale, ["o-1"], total=4)


@fault(
    17,
    "BUSY",
    "an endless script",
    holds="T",
    mechanism="BUSY is `NotExecuted`",
    without=("the server's word for a refusal",),
)
async def test_row_17_busy(world: World) -> None:
    server = world.server(lua_time_limit=10)
    sale = await world.sell(server.port)
    with _endless_script(server):
        refused = await world.answered(NotExecuted, sale.buy("phone", "ann", order_id="o-1"))
    assert (refused.reason, world.booked()) == ("BUSY", 0)
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    await world.holds(sale, ["o-1"], total=10)


@contextlib.contextmanager
def _endless_script(server: servers.RedisServer) -> Iterator[None]:
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)

    def run() -> None:
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis(port=server.port, retry=retry, socket_timeout=60) as client,
        ):
            client.eval("while true do end", 0)

    def is_busy() -> bool:
        try:
            with redis.Redis(port=server.port) as client:
                client.get("x")
        except redis.ResponseError as error:
            return str(error).startswith("BUSY")
        return False

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(is_busy, "a busy server")
        yield
    finally:
        with redis.Redis(port=server.port) as client:
            client.script_kill()
        thread.join()
