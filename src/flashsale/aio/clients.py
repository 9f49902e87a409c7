"""Private copies of the host's Redis clients: same settings, no retries, bytes replies (DESIGN section 4, rule 1).

redis-py retries commands by itself, up to ten times; a lost reply would then deduct twice. So we never send through the
host's client: we read its settings, and build a pool or a cluster client of our own.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from flashsale.errors import InvalidRequest

Client: TypeAlias = Redis | RedisCluster

TIMEOUT: Final = 5.0  # seconds, where the host set none: nothing hangs for ever
MAX_CONNECTIONS: Final = 64

# Bound to the host's client or pool, or a reason to retry: they must not come along.
_DROPPED: Final = frozenset(
    {
        "cache",
        "cache_config",
        "connected",
        "connection_pool",
        "event_dispatcher",
        "himport_registry",
        "maint_notifications_config",
        "maint_notifications_pool_handler",
        "orig_host_address",
        "orig_socket_connect_timeout",
        "orig_socket_timeout",
        "oss_cluster_maint_notifications_handler",
        "redis_connect_func",
        "response_callbacks",
        "retry",
        "retry_on_error",
        "retry_on_timeout",
    }
)


def private(client: Client) -> Client:
    """Returns a client of our own that reaches the same servers as `client`, without retries, with bytes replies.

    Raises:
        InvalidRequest: not a redis-py client of this face (sync for `flashsale`, asyncio for `flashsale.aio`).
    """
    if isinstance(client, RedisCluster):
        return _cluster(client)
    if not isinstance(client, Redis):
        raise InvalidRequest("client", f"not a redis-py client of this face: {type(client).__name__}")
    pool = client.connection_pool
    settings = _settings(pool.connection_kwargs)
    settings["retry"] = Retry(NoBackoff(), 0)
    if isinstance(pool, SentinelConnectionPool):
        settings.pop("host", None)
        settings.pop("port", None)
        ours: Any = SentinelConnectionPool(
            pool.service_name,
            pool.sentinel_manager,
            is_master=pool.is_master,
            check_connection=pool.check_connection,
            **settings,
        )
    else:
        ours = BlockingConnectionPool(
            connection_class=pool.connection_class,
            max_connections=min(pool.max_connections, MAX_CONNECTIONS),
            timeout=TIMEOUT,
            **settings,
        )
    return Redis.from_pool(ours)


def _settings(theirs: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in theirs.items() if name not in _DROPPED}
    settings["decode_responses"] = False
    for name in ("socket_timeout", "socket_connect_timeout"):
        if settings.get(name) is None:
            settings[name] = TIMEOUT
    return settings


def _cluster(client: RedisCluster) -> RedisCluster:
    theirs = getattr(client, "connection_kwargs", None) or client.nodes_manager.connection_kwargs
    settings = {name: value for name, value in _settings(theirs).items() if name not in {"host", "port", "db"}}
    nodes = client.get_nodes() or list(client.nodes_manager.startup_nodes.values())
    return RedisCluster(
        startup_nodes=[ClusterNode(node.host, node.port) for node in nodes],
        require_full_coverage=False,
        retry=Retry(NoBackoff(), 0),
        **settings,
    )
