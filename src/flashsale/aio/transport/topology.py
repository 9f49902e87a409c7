"""Connections of our own to the servers behind the host's client: to one, to the one that Sentinel names, to a Cluster.

Where a server moves, redis-py's own clients retry and redirect inside one call, and its pools hand out connections to
the wrong server. Here finding a server is a step of its own, before anything is sent; a pool belongs to one address.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from redis.exceptions import ClusterDownError, RedisError
from typing_extensions import override

from flashsale._rules.deadline import ends_at
from flashsale._rules.redispy import Settings, Watch, hurried, slot_and_target, slot_of, slot_ranges
from flashsale._rules.urls import Address
from flashsale.aio.transport._redispy import (
    cluster_slots,
    connect,
    disconnect,
    discover,
    new_connection,
    new_pool,
)

MAX_CONNECTIONS: Final = 64
ANYWHERE: Final[Address] = ("", 0)  # stands for the one server that the settings lead to


class Topology:
    """The one server that a client's settings lead to.

    Nobody counts its connections: one that an exception takes out of its caller's hands is closed when it is forgotten.

    Args:
        settings: how the client makes its connections.
        patience: seconds that ours wait for a reply, or to be made, where the client's would wait longer.

    Attributes:
        max_connections: that the host's client would make, and 64 at most.
        socket_timeout: seconds that ours wait for a reply.
    """

    def __init__(self, settings: Settings, patience: float) -> None:
        arguments = dict(settings.arguments)
        for name in ("socket_timeout", "socket_connect_timeout"):
            given = arguments.get(name)
            arguments[name] = patience if given is None else min(given, patience)
        self.socket_timeout = float(arguments["socket_timeout"])
        self.max_connections = min(settings.max_connections, MAX_CONNECTIONS)
        self._patience = patience
        self._settings = settings._replace(arguments=arguments)
        self._at_hand: defaultdict[Address, list[Any]] = defaultdict(list)
        self._made: WeakSet[Any] = WeakSet()
        self._process = os.getpid()

    async def find(self, key: str | None) -> Sequence[Address]:  # noqa: ARG002
        """Returns where `key` is, or for None every primary; raises what stood in the way."""
        return [ANYWHERE]

    def forget(self, address: Address) -> None:
        """Something went wrong at `address`: the next `find` looks again."""

    def redirect(self, address: Address, text: str, *, moved: bool) -> Address | None:
        """Returns where the server at `address` sends us, or None; `moved`: for good."""

    def pick(self, address: Address) -> Any:
        """Returns an idle connection, now the caller's; None: there is none."""
        if self._process != os.getpid():  # a forked child shares nothing with its parent
            self._process, self._at_hand, self._made = os.getpid(), defaultdict(list), WeakSet()
        try:
            return self._at_hand[address].pop()
        except IndexError:  # looking first would not do: another thread may be quicker
            return None

    async def connect(self, address: Address, until: float) -> Any:
        """Returns a new connection for one request, made before `until` (monotonic seconds)."""
        left = until - monotonic()
        is_short = left < 0.9 * self._patience
        connection = new_connection(hurried(self.at(address), left / 2) if is_short else self.at(address))
        self._made.add(connection)
        try:
            await connect(connection, left)
        except BaseException:
            await disconnect(connection)
            raise
        return connection

    async def give_back(self, address: Address, connection: Any) -> None:
        """Keeps a sound connection at hand, but none that was made in a hurry: its timeouts are short."""
        if connection.socket_timeout == self.socket_timeout:
            self._at_hand[address].append(connection)
        else:
            await self.drop(connection)

    async def drop(self, connection: Any, *, wait: bool = False) -> None:
        """Closes a connection, of which nobody may know what comes next on it."""
        await disconnect(connection, wait=wait)
        self._made.discard(connection)

    async def close(self) -> None:
        """Closes every connection; the next request opens new ones."""
        made = list(self._made)
        self._at_hand = defaultdict(list)
        async with AsyncExitStack() as stack:  # closes each of them, whatever another one raises
            for connection in made:
                stack.push_async_callback(self.drop, connection, wait=True)

    def at(self, address: Address) -> Settings:
        """Returns how connections to `address` are made."""
        place: dict[str, Any] = {} if address == ANYWHERE else {"host": address[0], "port": address[1]}
        return self._settings._replace(arguments=self._settings.arguments | place)


class SentinelTopology(Topology):
    """The primary that Sentinel names, or one of its replicas, for a client of `master_for` or `slave_for`."""

    def __init__(self, watch: Watch, patience: float) -> None:
        super().__init__(watch.settings, patience)
        self._watch = watch
        self._address: Address | None = None

    @override
    async def find(self, key: str | None) -> Sequence[Address]:
        address = self._address
        if address is None:
            each = (ends_at(self._patience) - monotonic()) / 2 / len(self._watch.sentinels)
            pools = [new_pool(hurried(settings, each)) for settings in self._watch.sentinels]
            async with AsyncExitStack() as stack:
                for pool in pools:
                    stack.push_async_callback(pool.disconnect)
                address = random.choice(await discover(self._watch, pools))  # noqa: S311
            self._address = address
        return [address]

    @override
    def forget(self, address: Address) -> None:
        if self._address == address:
            self._address = None


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
        patience: float,
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        super().__init__(settings, patience)
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
        until = ends_at(self._patience)
        for address in known[first:] + known[:first]:
            pool = new_pool(hurried(self.at(address), (until - monotonic()) / 2))  # a silent one leaves the rest some
            try:
                reply = await cluster_slots(pool)
            except (RedisError, OSError) as error:
                failure = error
                continue
            finally:
                await pool.disconnect()
            self._ranges = [(low, high, self._remap(place)) for low, high, place in slot_ranges(reply, address)]
            return
        raise failure
