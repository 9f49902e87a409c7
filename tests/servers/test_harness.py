"""The helpers themselves: what a fault test believes about its proxy and its servers is true."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.deployments import clustered
from tests.support.helpers import eventually, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Backend


@pytest.fixture
def proxy(redis_server: servers.RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: FaultProxy) -> Iterator[redis.Redis]:
    """A client behind the proxy that tries once."""
    with redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 0), socket_timeout=0.5) as client:
        yield client


@pytest.fixture
def beside(redis_server: servers.RedisServer) -> redis.Redis:
    return redis_server.client()


# -- proxy ----------------------------------------------------------------------------------------------------------


def test_without_a_fault_the_proxy_only_forwards(proxy: FaultProxy, through: redis.Redis) -> None:
    assert through.set("big", "x" * 1_000_000)
    assert through.strlen("big") == 1_000_000
    assert through.get("big") == b"x" * 1_000_000
    assert through.pipeline(transaction=False).incr("n").incr("n").execute() == [1, 2]
    assert proxy.count(b"INCR") == 2
    assert proxy.tripped == 0


@pytest.mark.parametrize("fault", ["cut_reply", "half_reply", "swallow_reply"])
def test_a_lost_reply_means_that_the_command_ran(
    proxy: FaultProxy, through: redis.Redis, beside: redis.Redis, fault: str
) -> None:
    assert through.set("other", 1)
    getattr(proxy, fault)(b"INCR", nth=2)
    assert through.incr("n") == 1
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        through.incr("n")
    assert beside.get("n") == b"2"
    assert through.incr("n") == 3
    assert proxy.tripped == 1


@pytest.mark.parametrize("fault", ["lose_request", "swallow_request", "half_request"])
def test_a_lost_request_means_that_nothing_ran(
    proxy: FaultProxy, through: redis.Redis, beside: redis.Redis, fault: str
) -> None:
    getattr(proxy, fault)(b"INCR")
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        through.incr("n")
    assert beside.get("n") is None
    assert through.incr("n") == 1


def test_a_fault_that_lasts_is_cleared(proxy: FaultProxy, through: redis.Redis) -> None:
    proxy.cut_reply(b"INCR", times=None)
    for _ in range(3):
        with pytest.raises(redis.ConnectionError):
            through.incr("n")
    proxy.clear()
    assert through.incr("n") == 4


def test_a_delayed_reply_arrives(proxy: FaultProxy, through: redis.Redis) -> None:
    proxy.delay_reply(0.2, b"INCR")
    before = time.monotonic()
    assert through.incr("n") == 1
    assert time.monotonic() - before >= 0.2


def test_a_delayed_request_runs_after_its_caller_has_gone(
    proxy: FaultProxy, through: redis.Redis, beside: redis.Redis
) -> None:
    proxy.delay_request(1.0, b"INCR")
    with pytest.raises(redis.TimeoutError):
        through.incr("n")
    through.close()
    assert eventually(lambda: beside.get("n"), "the late request") == b"1"


def test_held_bytes_flow_after_release(proxy: FaultProxy, through: redis.Redis, beside: redis.Redis) -> None:
    through.ping()
    proxy.hold()
    with pytest.raises(redis.TimeoutError):
        through.incr("n")
    assert beside.get("n") is None
    proxy.release()
    assert through.incr("n") >= 1


def test_refused_connections(proxy: FaultProxy, through: redis.Redis) -> None:
    through.ping()
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        through.ping()
    proxy.accept()
    assert through.ping()
    assert proxy.connections == 2


async def test_the_proxy_serves_asyncio_too(proxy: FaultProxy) -> None:
    async with redis.asyncio.Redis(port=proxy.port, retry=None, socket_timeout=5) as client:
        task = asyncio.create_task(client.blpop(["nothing"], timeout=2))
        await asyncio.to_thread(proxy.wait_for, b"BLPOP")
        proxy.disconnect()
        with pytest.raises(redis.ConnectionError):
            await task


def test_the_proxy_leaves_no_listener_behind(redis_server: servers.RedisServer) -> None:
    with FaultProxy(redis_server.port) as proxy:
        held = socket.create_connection((servers.HOST, proxy.port))
        proxy.hold()
    with held:
        assert held.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((servers.HOST, proxy.port))


# -- servers --------------------------------------------------------------------------------------------------------


@pytest.mark.one_server
async def test_clients_of_a_backend_share_their_data(backend: Backend) -> None:
    assert backend.client().set("flashsale:{s}:key", "value")
    async with backend.aclient() as aclient:
        assert await aclient.get("flashsale:{s}:key") == ("value" if backend.decode else b"value")
    assert backend.raw().get("flashsale:{s}:key") == b"value"


@pytest.mark.one_server
def test_a_snapshot_sees_every_change(backend: Backend) -> None:
    raw = backend.raw()
    steps = [
        lambda: raw.set("string", "1"),
        lambda: raw.hset("hash", mapping={"b": "1", "a": "2"}),
        lambda: raw.rpush("list", "b", "a"),
        lambda: raw.sadd("set", "b", "a"),
        lambda: raw.zadd("zset", {"a": 1.5}),
        lambda: raw.zadd("zset", {"a": 2.5}),
        lambda: raw.set("string", "1 "),
    ]
    seen = [snapshot(raw)]
    for step in steps:
        step()
        assert snapshot(raw) not in seen
        assert snapshot(raw) == snapshot(raw)
        seen.append(snapshot(raw))


def test_an_append_only_file_survives_a_kill() -> None:
    with servers.redis_server(aof=True, maxmemory="50mb") as server:
        client = server.client(retry=Retry(NoBackoff(), 0))
        client.set("key", "value")
        port = server.port
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.restart()
        assert server.port == port
        assert client.get("key") == b"value"
        assert client.config_get("maxmemory")["maxmemory"] == str(50 * 1024 * 1024)
        with redis.Redis(unix_socket_path=server.socket) as local:
            assert local.get("key") == b"value"


def test_a_frozen_server_does_later_what_was_sent() -> None:
    with servers.redis_server() as server, servers.redis_server() as other:
        client = server.client(socket_timeout=1, retry=None)
        client.ping()
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.set("key", "value")
        assert other.client().ping()
        server.thaw()
        assert eventually(lambda: server.client().get("key"), "the command sent before") == b"value"


def test_a_run_that_is_told_to_end_leaves_no_server_behind(tmp_path: Path) -> None:
    name = f"{__file__}::test_sentinels_elect_the_replica_when_the_primary_dies"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/run", name]
    run = psutil.Popen(
        command, cwd=Path(__file__).parent.parent.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started: list[psutil.Process] = []

    def has_servers() -> bool:
        before = len(started)
        started[:] = run.children(recursive=True)
        return before == len(started) == 5  # all, and none that is just being made: Popen would forget it

    try:
        eventually(has_servers, "its servers", within=60)
        run.terminate()
        run.wait(30)
        _, left = psutil.wait_procs(started, timeout=5)
    finally:
        for each in (run, *started):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    assert not left


def test_sentinels_elect_the_replica_when_the_primary_dies() -> None:
    with (
        servers.redis_server() as primary,
        servers.redis_server(replica_of=primary) as replica,
        servers.sentinels(primary) as watch,
    ):
        client = watch.manager().master_for(watch.name)
        client.set("key", "value")
        replica.catch_up(primary)
        assert watch.primary_port() == primary.port
        primary.kill()
        eventually(lambda: watch.primary_port() == replica.port, "a new primary", within=60)
        eventually(lambda: replica.client().role()[0] == b"master", "its promotion")
        assert replica.client().get("key") == b"value"
        client.connection_pool.disconnect()


def test_a_cluster_keeps_each_key_at_its_node() -> None:
    with servers.cluster() as cluster:
        client = cluster.client()
        for key in ("a", "b", "c", "d"):
            client.set(key, key)
            assert cluster.node_of(key).client().get(key) == key.encode()


async def test_a_slot_whose_source_dies_half_way_is_moved_to_its_end() -> None:
    with clustered("spring") as stage:
        before = stage.primary
        for number in range(8):
            before.client().set(f"{{spring}}{number}", number)
        await stage.move()
        assert stage.primary is not before
        found = [stage.primary.client().get(f"{{spring}}{number}") for number in range(8)]
        assert found == [str(number).encode() for number in range(8)]


def test_each_database_is_fresh(postgres: servers.Postgres) -> None:
    with postgres.database() as one, postgres.database() as other:
        for url in (one, other):
            with psycopg.connect(url.replace("+psycopg", "")) as connection:
                connection.execute("CREATE TABLE only_here (id int)")


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_missing_server_fails_in_ci_and_is_skipped_elsewhere(monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.fail.Exception if ci else pytest.skip.Exception, match="a Redis"):
        servers.missing("a Redis")
    with pytest.raises(pytest.skip.Exception, match="a MySQL"):
        servers.missing("a MySQL", in_ci=False)
