"""The fence around redis-py: what we use of it beyond its documented clients and errors.

Its sync twin is written by hand, as redis-py's two APIs differ. What both share is in `_rules/redispy.py`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Sequence
from math import inf
from time import monotonic
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from flashsale._rules.redispy import ClusterNodes, Settings, Watch, settings_of, settings_of_client
from flashsale._rules.urls import Address

# -- settings -------------------------------------------------------------------------------------------------------


def read_url(url: str) -> dict[str, Any]:
    """Returns what a URL says of a connection, but for its address."""
    settings: dict[str, Any] = dict(parse_url(url))
    if settings.pop("connection_class", None) is not None:
        settings["ssl"] = True
    return {name: value for name, value in settings.items() if name not in {"host", "port"}}


def new_pool(settings: Settings) -> Any:
    """Returns a small pool for a question that we ask through a client of redis-py's."""
    return ConnectionPool(connection_class=settings.connection_class, **(settings.arguments | _fixed()))


def new_connection(settings: Settings) -> Any:
    """Returns a connection of our own, not connected yet."""
    return settings.connection_class(**(settings.arguments | _fixed()))


def _fixed() -> dict[str, Any]:
    """Returns how our connections differ from the host's: they never retry, and speak RESP2 in bytes.

    On RESP3 redis-py 8 listens for maintenance notices, and no longer sees that an idle connection has ended.
    """
    return {"retry": Retry(NoBackoff(), 0), "decode_responses": False, "protocol": 2}


# -- one connection -------------------------------------------------------------------------------------------------


async def connect(connection: Any, seconds: float) -> None:
    """Connects, and says who we are, within so many seconds."""
    async with asyncio.timeout(max(0.0, seconds)):
        await connection.connect()


def relax(connection: Any, seconds: float | None) -> None:
    """Gives a connection that was made in a hurry the timeout of the others."""
    connection.socket_timeout = seconds


def is_stale(connection: Any) -> bool:
    """True when the server has closed an idle connection of redis-py, or has sent what nobody asked for."""
    reader = connection._reader
    if not isinstance(reader, asyncio.StreamReader):  # fakeredis has no socket that could be closed
        return reader is None
    return reader.at_eof() or bool(reader._buffer)  # type: ignore[attr-defined]


def has_health_checks(connection: Any) -> bool:
    """Returns whether the host wants idle connections checked."""
    return bool(connection.health_check_interval)


def check_health(connection: Any) -> Awaitable[None]:
    """Asks the server for a PONG, where the interval has passed."""
    done: Awaitable[None] = connection.check_health()
    return done


async def send(connection: Any, packed: bytes) -> None:
    """Sends over a connection of redis-py. What is not yet on its way when this returns, the wait for the reply bounds.

    redis-py's own call makes a task to bound the send as well, which costs more than the send.
    """
    writer = connection._writer
    if isinstance(writer, asyncio.StreamWriter):
        writer.write(packed)
    else:  # fakeredis, or closed
        await connection.send_packed_command([packed], check_health=False)


def receive(connection: Any, until: float = inf) -> Awaitable[Any]:
    """Reads one reply before `until` (monotonic seconds), and within the socket's timeout."""
    left, usual = until - monotonic(), connection.socket_timeout or inf  # None: of a host's own class
    if left < 0.9 * usual:
        return _receive_within(connection, max(0.0, left))
    reply: Awaitable[Any] = connection.read_response()
    return reply


async def _receive_within(connection: Any, seconds: float) -> Any:
    usual, connection.socket_timeout = connection.socket_timeout, seconds  # its own argument would return None
    try:
        return await connection.read_response()
    finally:
        connection.socket_timeout = usual


def disconnect(connection: Any, *, wait: bool = False) -> Awaitable[None]:
    """Closes a connection; `wait` for what is still on its way."""
    end: Awaitable[None] = connection.disconnect(not wait)  # older releases know no name
    return end


# -- Sentinel -------------------------------------------------------------------------------------------------------


def watch_of(client: Redis) -> Watch | None:
    """Returns what is known of the service behind a Sentinel client; None: it is no such client."""
    pool = client.connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        return None
    kind = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
    manager: Any = pool.sentinel_manager
    sentinels = [settings_of_client(sentinel) for sentinel in manager.sentinels]
    return Watch(settings_of(pool, kind), pool.service_name, pool.is_master, sentinels, manager)


async def discover(watch: Watch, pools: Sequence[Any]) -> Sequence[Address]:
    """Asks the Sentinels, over our own pools, and returns the replicas or the primary."""
    manager = copy.copy(watch.manager)  # it reorders its list, and may be asked by many threads
    manager.sentinels = [Redis(connection_pool=pool) for pool in pools]
    replicas: Sequence[Address] = [] if watch.is_primary else await manager.discover_slaves(watch.service)
    return replicas or [await manager.discover_master(watch.service)]


# -- Cluster --------------------------------------------------------------------------------------------------------


def nodes_of(client: RedisCluster) -> ClusterNodes:
    """Returns the nodes that a Cluster client knows, without asking any of them."""
    nodes: list[Any] = client.get_nodes() or list(client.nodes_manager.startup_nodes.values())
    settings = settings_of(nodes[0])  # a node is a pool itself
    settings.arguments["redis_connect_func"] = None  # what redis-py has put there is bound to `client`
    return ClusterNodes(settings, [(node.host, int(node.port)) for node in nodes], client.nodes_manager.address_remap)


async def cluster_slots(pool: Any) -> Any:
    """Asks one node which node has which slots."""
    return await Redis(connection_pool=pool).execute_command("CLUSTER SLOTS")
