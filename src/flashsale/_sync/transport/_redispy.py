"""The fence around redis-py: what we use of it beyond its documented clients and errors.

Its asyncio twin is written by hand, as redis-py's two APIs differ. What both share is in `_rules/redispy.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Any

from redis import Connection, ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

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


def connect(connection: Any, seconds: float) -> None:  # noqa: ARG001 - the twin's signature
    """Connects, and says who we are, within the connection's timeouts for either."""
    connection.connect()


def relax(connection: Any, seconds: float | None) -> None:
    """Gives a connection that was made in a hurry the timeout of the others."""
    connection.socket_timeout = seconds
    _set_timeout(connection, seconds)


def is_stale(connection: Any) -> bool:
    """True when the server has closed an idle connection of redis-py, or has sent what nobody asked for."""
    try:
        return bool(connection.can_read(timeout=0))
    except (RedisError, OSError):
        return True


def has_health_checks(connection: Any) -> bool:
    """Returns whether the host wants idle connections checked."""
    return bool(connection.health_check_interval)


def check_health(connection: Any) -> None:
    """Asks the server for a PONG, where the interval has passed."""
    connection.check_health()


def send(connection: Any, packed: bytes) -> None:
    """Sends over a connection of redis-py."""
    connection.send_packed_command([packed], check_health=False)


def receive(connection: Any, until: float = inf) -> Any:
    """Reads one reply before `until` (monotonic seconds), and within the socket's timeout."""
    left = until - monotonic()
    if left >= 0.9 * (connection.socket_timeout or inf):  # nearly always: a timeout of its own costs a system call
        return connection.read_response()
    try:
        _set_timeout(connection, max(0.001, left))
        return connection.read_response()
    finally:
        _set_timeout(connection, connection.socket_timeout)


def _set_timeout(connection: Any, seconds: float | None) -> None:
    if hasattr(connection._sock, "settimeout"):  # fakeredis has none that could wait
        connection._sock.settimeout(seconds)


def disconnect(connection: Any, *, wait: bool = False) -> None:  # noqa: ARG001 - the twin's signature
    """Closes a connection."""
    connection.disconnect()


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


def discover(watch: Watch, pools: Sequence[Any]) -> Sequence[Address]:
    """Asks the Sentinels, over our own pools, and returns the replicas or the primary."""
    manager = copy.copy(watch.manager)  # it reorders its list, and may be asked by many threads
    manager.sentinels = [Redis(connection_pool=pool) for pool in pools]
    replicas: Sequence[Address] = [] if watch.is_primary else manager.discover_slaves(watch.service)
    return replicas or [manager.discover_master(watch.service)]


# -- Cluster --------------------------------------------------------------------------------------------------------


def nodes_of(client: RedisCluster) -> ClusterNodes:
    """Returns the nodes that a Cluster client knows, without asking any of them."""
    nodes: list[Any] = client.get_nodes() or list(client.nodes_manager.startup_nodes.values())
    settings = settings_of(client.get_redis_connection(nodes[0]).connection_pool)
    # what redis-py has put there is bound to `client`; this is what the host gave
    settings.arguments["redis_connect_func"] = client.user_on_connect_func
    return ClusterNodes(settings, [(node.host, int(node.port)) for node in nodes], client.nodes_manager.address_remap)


def cluster_slots(pool: Any) -> Any:
    """Asks one node which node has which slots."""
    return Redis(connection_pool=pool).execute_command("CLUSTER SLOTS")
