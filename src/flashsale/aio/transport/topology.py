"""Connections of our own to the servers behind the host's client: to one, to the one that Sentinel names, to a Cluster.

Where a server moves, redis-py's own clients retry and redirect inside one call, and its pools hand out connections to
the wrong server. Here finding a server is a step of its own, before anything is sent; a pool belongs to one address.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple

from redis.exceptions import ClusterDownError, RedisError
from typing_extensions import override

from flashsale._rules.redispy import Settings, Watch, slot_and_target, slot_of, slot_ranges
from flashsale._rules.urls import Address
from flashsale.aio.transport._redispy import cluster_slots, disconnect, discover, is_stale, new_pool

TIMEOUT: Final = 5.0  # seconds, where the host set none: nothing hangs for ever
MAX_CONNECTIONS: Final = 64
AT_HAND: Final = 4  # connections of one address kept out of the pool; two batches are in flight at most
ANYWHERE: Final[Address] = ("", 0)  # stands for the one server that the settings lead to


class Topology:
    """The one server that a client's settings lead to.

    Args:
        settings: how the client makes its connections; ours get a timeout where it has none.
    """

    def __init__(self, settings: Settings) -> None:
        arguments = dict(settings.arguments)
        for name in ("socket_timeout", "socket_connect_timeout"):
            if arguments.get(name) is None:
                arguments[name] = TIMEOUT
        self.socket_timeout = float(arguments["socket_timeout"])
        self._settings = Settings(settings.connection_class, arguments, min(settings.max_connections, MAX_CONNECTIONS))
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
            place: dict[str, Any] = {} if address == ANYWHERE else {"host": address[0], "port": address[1]}
            settings = self._settings._replace(arguments=self._settings.arguments | place)
            pool = new_pool(settings, TIMEOUT)
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
        if len(at_hand) < AT_HAND < self._settings.max_connections / 2:
            at_hand.append(connection)
        else:
            await self.pool(address).release(connection)

    async def drop(self, address: Address, connection: Any) -> None:
        """Closes a connection of which nobody knows what comes next on it, and gives its place in the pool back."""
        try:
            await disconnect(connection)
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

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch.settings)
        self._watch = watch
        self._sentinels = [Topology(settings) for settings in watch.sentinels]
        self._address: Address | None = None

    @override
    async def find(self, key: str | None) -> Sequence[Address]:
        address = self._address
        if address is None:
            pools = [sentinel.pool(ANYWHERE) for sentinel in self._sentinels]
            address = random.choice(await discover(self._watch, pools))  # noqa: S311
            self._address = address
        return [address]

    @override
    def forget(self, address: Address) -> None:
        if self._address == address:
            self._address = None

    @override
    async def close(self) -> None:
        async with AsyncExitStack() as stack:
            for sentinel in self._sentinels:
                stack.push_async_callback(sentinel.close)
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

    def __init__(
        self,
        settings: Settings,
        addresses: Sequence[Address],
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        super().__init__(settings)
        self._remap = remap or (lambda address: address)
        self._seeds = list(addresses)
        self._turns = itertools.count()
        self._ranges: list[tuple[int, int, Address]] = []  # first slot, last slot, primary

    @override
    async def find(self, key: str | None) -> Sequence[Address]:
        slot = None if key is None else slot_of(key)
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
        if (onward := slot_and_target(text, address)) is None:
            return None
        slot, target = onward[0], self._remap(onward[1])
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
                reply = await cluster_slots(self.pool(address))
            except (RedisError, OSError) as error:
                failure = error
                continue
            self._ranges = [(low, high, self._remap(place)) for low, high, place in slot_ranges(reply, address)]
            return
        raise failure
