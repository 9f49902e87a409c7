"""Private copies of the host's Redis clients: same settings, no retries, bytes replies (docs/design.md).

redis-py retries commands by itself, up to ten times; a lost reply would then deduct twice. So we never send through the
host's client: we read its settings, and keep connections of our own.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from flashsale._rules.redispy import settings_of, settings_of_client, try_settings
from flashsale._rules.urls import Place, parse, several
from flashsale.aio.transport._redispy import nodes_of, read_url, watch_of
from flashsale.aio.transport.topology import ClusterTopology, Nodes, SentinelTopology, Topology
from flashsale.errors import InvalidRequest

Client: TypeAlias = Redis | RedisCluster | Nodes

SENTINEL_TIMEOUT: Final = 1.0  # seconds; then the next Sentinel is asked


def from_url(url: str, *, replica: bool = False) -> Client:
    """Returns a client for a sale; it connects when it is used, so nothing need be there yet.

    Args:
        url: one of

            - `redis://user:password@host:6379/0`, `rediss://` for TLS, `unix:///path?db=0`
            - `redis+sentinel://user:password@host:26379,host:26379/service/0`: the primary that Sentinels name
            - `redis+cluster://user:password@host:6379,host:6379`: some nodes of a Cluster, which tell of the others

            The last two with `rediss+` for TLS everywhere. User and password are those of Redis. Options are those of
            redis-py, as in `?socket_timeout=2&ssl_ca_certs=/ca.pem`; with `sentinel_` before its name an option is for
            the Sentinels: `sentinel_password`, `sentinel_username`, `sentinel_socket_timeout` (1 second).
        replica: True: of a service, one of the replicas.

    Raises:
        InvalidRequest: it makes no sense; the error does not show it.
    """
    place = parse(url)
    try:
        if place.service:
            return _watched(place, replica=replica)
        pool = ConnectionPool.from_url(place.url)
        try_settings(pool)  # an option that nobody knows would be met at the first use
        return Nodes(pool, place.addresses) if place.addresses else Redis(connection_pool=pool)
    except TypeError:  # its text may quote a piece of the password, and so may the others'
        raise InvalidRequest("url", "has an option that redis-py does not know") from None
    except (ValueError, AttributeError, RedisError):
        raise InvalidRequest("url", "has a part that redis-py cannot read") from None


def from_urls(urls: str) -> Client | list[Client]:
    """Returns a client of the one Redis of a setting, or one of each of several, over which partitions are spread.

    Args:
        urls: one as `from_url` takes it, or several, with blanks or commas between.

    Raises:
        InvalidRequest: one of them makes no sense.
    """
    clients = [from_url(url) for url in several(urls)]
    return clients if len(clients) > 1 else clients[0]


def _watched(place: Place, *, replica: bool) -> Redis:
    settings, ours = read_url(place.url), read_url(place.sentinel_url)
    del ours["db"]
    shared = {name: value for name, value in settings.items() if name.startswith("ssl")}
    patience = {"socket_timeout": SENTINEL_TIMEOUT, "socket_connect_timeout": SENTINEL_TIMEOUT}
    manager = Sentinel(place.addresses, sentinel_kwargs=patience | shared | ours)
    choose: Any = manager.slave_for if replica else manager.master_for
    client: Redis = choose(place.service, **settings)
    for pool in (client.connection_pool, manager.sentinels[0].connection_pool):
        try_settings(pool)
    return client


def private(client: Client, patience: float) -> Topology:
    """Returns connections of our own to the servers that `client` reaches.

    Args:
        client: the host's.
        patience: seconds that ours wait at most.

    Raises:
        InvalidRequest: not a redis-py client of this API (sync for `flashsale`, asyncio for `flashsale.aio`).
    """
    if isinstance(client, RedisCluster):
        nodes = nodes_of(client)
        return ClusterTopology(nodes.settings, nodes.addresses, patience, nodes.remap)
    if isinstance(client, Nodes):
        return ClusterTopology(settings_of(client.pool), client.addresses, patience)
    if not isinstance(client, Redis):
        kind = f"{type(client).__module__}.{type(client).__qualname__}"
        raise InvalidRequest("client", f"{kind} is not a {Redis.__module__.partition('.client')[0]} client")
    if (watch := watch_of(client)) is not None:
        return SentinelTopology(watch, patience)
    return Topology(settings_of_client(client), patience)
