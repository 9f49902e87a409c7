"""Connections of our own to the servers behind the host's client: to one, to the one that Sentinel names, to a Cluster.

Where a server moves, redis-py's own clients retry and redirect inside one call, and its pools hand out connections to
the wrong server. Here finding a server is a step of its own, before anything is sent; a pool belongs to one address.
"""

from __future__ import annotations

import copy
import itertools
import os
import random
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple, Self

from redis.asyncio import BlockingConnectionPool, Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, RedisError
from typing_extensions import override

from flashsale._rules.urls import Address
from flashsale.aio.transport._redispy import is_stale

TIMEOUT: Final = 5.0  # seconds, where the host set none: nothing hangs for ever
MAX_CONNECTIONS: Final = 64
AT_HAND: Final = 4  # connections of one address kept out of the pool; two batches are in flight at most
ANYWHERE: Final[Address] = ("", 0)  # stands for the one server that the settings lead to

# Bound to the host's client or pool, a reason to retry, or another look of the replies: they must not come along.
_DROPPED: Final = frozenset(
    {
        "cache",
        "cache_config",
        "command_packer",
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
        "parser_class",
        "response_callbacks",
        "retry",
        "retry_on_error",
        "retry_on_timeout",
    }
)
_ONWARD: Final = re.compile(r"(\d+) (\S*):(\d+)$")  # the end of MOVED and ASK: slot, host, port


class Topology:
    """The one server that a client's settings lead to.

    Args:
        theirs: the pool of the host's client: we read its settings and leave it alone.
    """

    def __init__(self, theirs: Any) -> None:
        settings = {name: value for name, value in theirs.connection_kwargs.items() if name not in _DROPPED}
        # On RESP3 redis-py 8 listens for maintenance notices, and no longer sees that an idle connection has ended.
        settings |= {"retry": Retry(NoBackoff(), 0), "decode_responses": False, "protocol": 2}
        for name in ("socket_timeout", "socket_connect_timeout"):
            if settings.get(name) is None:
                settings[name] = TIMEOUT
        self.socket_timeout = float(settings["socket_timeout"])
        self._settings = settings
        self._connection_class = theirs.connection_class
        self._max_connections = min(theirs.max_connections, MAX_CONNECTIONS)
        self._pools: dict[Address, Any] = {}
        self._at_hand: dict[Address, list[Any]] = {}
        self._process = os.getpid()

    async def find(self, key: str | None) -> Sequence[Address]:  # noqa: ARG002
        """Returns where `key` is, or for None every primary; raises what stood in the way."""
        return [ANYWHERE]

    def forget(self, address: Address) -> None:
        """Something went wrong at `address`: the next `find` looks again."""

    def redirect(self, address: Address, text: str, *, moved: bool) -> Address | None:
        """Returns where the server at `address` sends us, or None; `moved`: for good."""

    def pool(self, address: Address) -> Any:
        """Returns our pool of connections to `address`; it waits a while for a free one."""
        if address not in self._pools:
            place = {} if address == ANYWHERE else {"host": address[0], "port": address[1]}
            pool = BlockingConnectionPool(
                connection_class=self._connection_class,
                max_connections=self._max_connections,
                timeout=TIMEOUT,
                **(self._settings | place),
            )
            return self._pools.setdefault(address, pool)  # another thread may have been quicker
        return self._pools[address]

    async def take(self, address: Address) -> Any:
        """Returns a connection for one request: one that is at hand, else one of the pool."""
        while (connection := self._pick(address)) is not None:
            if not is_stale(connection):
                return connection
            await self.drop(address, connection)
        return await self.pool(address).get_connection()

    async def give_back(self, address: Address, connection: Any) -> None:
        """Keeps a sound connection at hand, if few are: through the pool it would be checked anew for each request."""
        at_hand = self._at_hand.setdefault(address, [])
        if len(at_hand) < AT_HAND < self._max_connections / 2:
            at_hand.append(connection)
        else:
            await self.pool(address).release(connection)

    async def drop(self, address: Address, connection: Any) -> None:
        """Closes a connection of which nobody knows what comes next on it, and gives its place in the pool back."""
        try:
            await connection.disconnect(True)  # noqa: FBT003  without waiting; older releases know no name
        finally:
            await self.pool(address).release(connection)

    async def close(self) -> None:
        """Closes every connection; the next request opens new ones."""
        async with AsyncExitStack() as stack:  # closes each of them, whatever another one raises
            for pool in list(self._pools.values()):
                stack.push_async_callback(pool.disconnect)
            for address in list(self._at_hand):
                while (connection := self._pick(address)) is not None:
                    await self.pool(address).release(connection)  # else its place in the pool is lost

    def _pick(self, address: Address) -> Any:
        """Returns one of the connections at hand, now the caller's; None: there is none."""
        if self._process != os.getpid():
            self._process, self._at_hand = os.getpid(), {}  # a forked child shares nothing with its parent
        try:
            return self._at_hand[address].pop()
        except (KeyError, IndexError):  # looking first would not do: another thread may be quicker
            return None


class SentinelTopology(Topology):
    """The primary that Sentinel names, or one of its replicas, for a client of `master_for` or `slave_for`."""

    def __init__(self, theirs: Any) -> None:
        super().__init__(theirs)
        self._connection_class = SSLConnection if issubclass(theirs.connection_class, SSLConnection) else Connection
        self._service = theirs.service_name
        self._is_master = theirs.is_master
        self._manager = theirs.sentinel_manager
        self._sentinels = [Topology(sentinel.connection_pool) for sentinel in self._manager.sentinels]
        self._address: Address | None = None

    @override
    async def find(self, key: str | None) -> Sequence[Address]:
        address = self._address
        if address is None:
            manager = copy.copy(self._manager)  # it reorders its list, and may be asked by many threads
            manager.sentinels = [Redis(connection_pool=servers.pool(ANYWHERE)) for servers in self._sentinels]
            replicas = [] if self._is_master else await manager.discover_slaves(self._service)
            address = random.choice(replicas) if replicas else await manager.discover_master(self._service)  # noqa: S311
            self._address = address
        return [address]

    @override
    def forget(self, address: Address) -> None:
        if self._address == address:
            self._address = None

    @override
    async def close(self) -> None:
        async with AsyncExitStack() as stack:
            for servers in self._sentinels:
                stack.push_async_callback(servers.close)
            stack.push_async_callback(super().close)


class Nodes(NamedTuple):
    """Some nodes of a Cluster. Unlike a `RedisCluster` it can be had while none of them answers.

    Args:
        pool: the settings of connections.
        addresses: host and port of each.
    """

    pool: Any
    addresses: Sequence[Address]

    @override
    def __repr__(self) -> str:
        return f"Nodes({', '.join(f'{host}:{port}' for host, port in self.addresses)})"  # the pool's has the password


class ClusterTopology(Topology):
    """The nodes of a Cluster, by slot."""

    def __init__(self, nodes: Nodes, remap: Callable[[Address], Address] | None = None) -> None:
        super().__init__(nodes.pool)
        self._remap = remap or (lambda address: address)
        self._seeds = list(nodes.addresses)
        self._turns = itertools.count()
        self._ranges: list[tuple[int, int, Address]] = []  # first slot, last slot, primary

    @classmethod
    def of(cls, client: RedisCluster) -> Self:
        """Returns those that redis-py's client knows."""
        nodes: list[Any] = client.get_nodes() or list(client.nodes_manager.startup_nodes.values())
        client_of: Any = getattr(client, "get_redis_connection", None)  # in asyncio a node is a pool itself
        pool = client_of(nodes[0]).connection_pool if client_of else nodes[0]
        servers = cls(Nodes(pool, [(node.host, int(node.port)) for node in nodes]), client.nodes_manager.address_remap)
        # what redis-py has put there is bound to `client`
        servers._settings["redis_connect_func"] = getattr(client, "user_on_connect_func", None)
        return servers

    @override
    async def find(self, key: str | None) -> Sequence[Address]:
        slot = None if key is None else key_slot(key.encode("ascii"))
        if not (found := self._holders(slot)):
            await self._ask_around()
            found = self._holders(slot)
        if not found:
            raise ClusterDownError("no server holds the slot")
        return found

    @override
    def forget(self, address: Address) -> None:
        self._ranges = [entry for entry in self._ranges if entry[2] != address]

    @override
    def redirect(self, address: Address, text: str, *, moved: bool) -> Address | None:
        if (onward := _ONWARD.search(text)) is None:
            return None
        slot, target = int(onward[1]), self._remap((onward[2] or address[0], int(onward[3])))
        if moved:
            others = [entry for entry in self._ranges if entry[:2] != (slot, slot)]
            self._ranges = [(slot, slot, target), *others]
        return target

    def _holders(self, slot: int | None) -> list[Address]:
        holders = (place for low, high, place in self._ranges if slot is None or low <= slot <= high)
        return list(dict.fromkeys(holders))

    async def _ask_around(self) -> None:
        """Learns which primary has which slots, from the first node that answers."""
        known = list(dict.fromkeys([*self._holders(None), *self._seeds]))
        first = next(self._turns) % len(known)  # one that is behind the times is not believed again and again
        for address in known[first:] + known[:first]:
            try:
                reply = await Redis(connection_pool=self.pool(address)).execute_command("CLUSTER SLOTS")
            except (RedisError, OSError) as error:
                failure = error
                continue
            ranges = []
            for low, high, (host, port, *_), *_ in reply:
                ranges.append((low, high, self._remap((str(host or b"", "ascii") or address[0], port))))
            self._ranges = ranges
            return
        raise failure
