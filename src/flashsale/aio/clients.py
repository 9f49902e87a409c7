"""Private copies of the host's Redis clients: same settings, no retries, bytes replies (docs/design.md).

redis-py retries commands by itself, up to ten times; a lost reply would then deduct twice. So we never send through the
host's client: we read its settings, and keep connections of our own.
"""

from __future__ import annotations

from typing import TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from flashsale.aio.servers import ClusterServers, SentinelServers, Servers
from flashsale.errors import InvalidRequest

Client: TypeAlias = Redis | RedisCluster


def private(client: Client) -> Servers:
    """Returns connections of our own to the servers that `client` reaches.

    Raises:
        InvalidRequest: not a redis-py client of this face (sync for `flashsale`, asyncio for `flashsale.aio`).
    """
    if isinstance(client, RedisCluster):
        return ClusterServers(client)
    if not isinstance(client, Redis):
        kind = f"{type(client).__module__}.{type(client).__qualname__}"
        raise InvalidRequest("client", f"{kind} is not a {Redis.__module__.partition('.client')[0]} client")
    if isinstance(client.connection_pool, SentinelConnectionPool):
        return SentinelServers(client.connection_pool)
    return Servers(client.connection_pool)
