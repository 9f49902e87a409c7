"""A link to a Redis: runs a script or a command once, and tells for certain whether it ran.

EVALSHA first; NOSCRIPT falls back once to EVAL. A connection is held for one request and spoken to directly, so that we
know on which side of the send an error came: before it nothing happened, after it nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias

from hiredis import pack_command
from redis import exceptions

from flashsale._rules.deadline import BUDGET, SHARE, TIMEOUT, ends_at, too_late
from flashsale._rules.redis_errors import FAILURES, is_stale, sent, shown, unsent
from flashsale._rules.urls import Address
from flashsale.aio.clients import Client, private
from flashsale.aio.transport._redispy import check_health, has_health_checks, receive, relax, send
from flashsale.aio.transport._redispy import is_stale as is_stale_connection
from flashsale.aio.transport.topology import Topology
from flashsale.aio.transport.waiting import Callers, Places
from flashsale.errors import NotExecuted
from flashsale.lua import SCRIPTS, Script

Argument: TypeAlias = str | bytes | int | float
Barrier: TypeAlias = Callable[[Any], Sequence[Sequence[Argument]]]

_NUMBERS: Final = frozenset({int, float})
OF_BATCHES: Final = 6  # connections: two for each coalescer, whose batches wait for no place
REDIRECTS: Final = 5  # of one request, on a Cluster


class Link:
    """Our own connections to the servers of the host's client.

    Args:
        client: the host's.
        callers: among whom those count who wait for a connection.
        timeout: seconds of a call that has no deadline yet.

    Attributes:
        callers: the same.
        timeout: the same.
        patience: seconds of one request, from looking for a connection to the reply.
        socket_timeout: seconds after which a read fails; blocking commands wait for less.
    """

    def __init__(self, client: Client, callers: Callers, *, timeout: float = TIMEOUT) -> None:
        self.timeout = timeout
        self.patience = SHARE * timeout
        self._servers = private(client, self.patience)
        self.socket_timeout = self._servers.socket_timeout
        self._have(callers, 1)

    def _have(self, callers: Callers, parts: int) -> None:
        self.callers = callers
        most = self._servers.max_connections
        number = max(1, most // 2, most - OF_BATCHES)
        self._places = Places(max(1, number // parts), callers, self.timeout, self.patience)

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Runs the script `name` once and returns its reply.

        Raises:
            NotExecuted: nothing happened.
            OutcomeUnknown: sent, no whole reply.
            CorruptState: a key has the wrong type; nothing was changed.
        """
        return (await self.run_behind(None, name, keys, args))[0]

    async def run_behind(
        self, barrier: Barrier | None, name: str, keys: Sequence[str], args: Sequence[Argument]
    ) -> tuple[Any, Any]:
        """Runs a script, then the commands that `barrier`, if any, returns for its reply, on the same connection.

        Only there does a WAIT count.

        Returns:
            The script's reply, and that of the last command: None when it did not come, though the script has run.
        """
        script = SCRIPTS[name]
        try:
            return await self._send(keys[0], "EVALSHA", script.sha, str(len(keys)), *keys, *args, barrier=barrier)
        except exceptions.NoScriptError:
            pass
        try:
            return await self._send(keys[0], "EVAL", script.text, str(len(keys)), *keys, *args, barrier=barrier)
        except exceptions.NoScriptError as error:
            raise NotExecuted("the server does not keep scripts") from error

    async def info(self) -> dict[str, str]:
        """Returns the server's INFO; empty where it has none, or where there is no one server, as on a Cluster."""
        if len(await self._find(None)) > 1:
            return {}
        try:
            text = await self.command("INFO")
        except NotExecuted as error:
            if error.reason in {"unknown command", "NOPERM"}:
                return {}
            raise
        lines = text.decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    async def load(self, scripts: Sequence[Script]) -> list[str]:
        """SCRIPT LOADs the scripts, on every primary of a cluster; returns their SHA1s."""
        for address in await self._find(None):
            for script in scripts:
                await self._exchange(address, _pack("SCRIPT", "LOAD", script.text), ends_at(self.patience))
        return [script.sha for script in scripts]

    async def command(self, *command: Argument) -> Any:
        """Sends one plain command, its key first, and returns its reply; errors as in `run`."""
        return (await self._send(str(command[1]) if len(command) > 1 else None, *command))[0]

    async def close(self) -> None:
        """Closes our connections; the host's stay."""
        await self._servers.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _find(self, key: str | None) -> Sequence[Address]:
        try:
            return await self._servers.find(key)
        except FAILURES as error:
            raise unsent(error) from error

    async def _send(self, key: str | None, *command: Argument, barrier: Barrier | None = None) -> tuple[Any, Any]:
        """Sends one command as soon as there is a place for it; a batch has its place."""
        budget = BUDGET.get()
        if budget is not None and budget.has_place and (budget.call is None or budget.call.cr_running):
            return await self._send_now(key, command, barrier, min(budget.until, monotonic() + self.patience))
        return await self._places.use(self._send_now, key, command, barrier)

    async def _send_now(
        self, key: str | None, command: Sequence[Argument], barrier: Barrier | None, until: float | None = None
    ) -> tuple[Any, Any]:
        """Sends to the server that has `key`, and goes where a Cluster sends us instead."""
        until = ends_at(self.patience) if until is None else until
        if until <= monotonic():
            raise too_late()
        packed = _pack(*command)
        try:
            address, asking = (await self._servers.find(key))[0], False
        except FAILURES as error:
            raise unsent(error) from error
        for _ in range(REDIRECTS):
            try:
                return await self._exchange(address, packed, until, barrier, asking=asking)
            except NotExecuted as refusal:
                if refusal.reason not in {"ASK", "MOVED"}:
                    raise
                asking = refusal.reason == "ASK"
                onward = self._servers.redirect(address, str(refusal.__cause__), moved=not asking)
                if onward is None:
                    raise
                address = onward
        raise NotExecuted("the cluster sends us around in circles", reason="MOVED")

    async def _exchange(
        self, address: Address, packed: bytes, until: float, barrier: Barrier | None = None, *, asking: bool = False
    ) -> tuple[Any, Any]:
        """Sends one request and reads its one reply: a connection with anything unread serves nobody any more."""
        try:
            while (connection := self._servers.pick(address)) is not None and is_stale_connection(connection):
                await self._servers.drop(connection)
            connection = connection or await self._servers.connect(address, until)
        except FAILURES as error:
            self._servers.forget(address)
            raise unsent(error) from error
        whole = begun = False
        try:
            if has_health_checks(connection):
                await check_health(connection)
            if asking:
                await send(connection, _pack("ASKING"))
                await receive(connection, until)
            begun = True
            await send(connection, packed)
            reply = await receive(connection, until)
            behind = barrier(reply) if barrier is not None else ()
            whole = not behind
            acknowledged = None
            try:
                for command in behind:
                    await send(connection, _pack(*command))
                    acknowledged = await receive(connection, until)
            except FAILURES:
                self._servers.forget(address)  # a demoted primary still answers what writes nothing, as a repeat does
                return reply, None
            whole = True
            return reply, acknowledged
        except exceptions.NoScriptError:
            whole = True
            raise
        except FAILURES as error:
            failure = sent(error) if begun else unsent(error)
            whole = isinstance(error, exceptions.ResponseError) and not is_stale(failure)
            if not whole:
                self._servers.forget(address)
            raise failure from shown(error)
        finally:
            if whole:
                await self._servers.give_back(address, connection)
            else:
                await self._servers.drop(connection)


class Query(NamedTuple):
    """A script that changes nothing, to be run by `read_all`.

    Args:
        link: to its server.
        name: of the script.
        keys: of the script.
        args: of the script.
    """

    link: Link
    name: str
    keys: Sequence[str]
    args: Sequence[Argument] = ()


async def read_all(queries: Sequence[Query], until: float) -> list[Any]:
    """Runs scripts that change nothing: sends to all servers, then reads from all, each over one connection.

    So threads wait for all of them at once as well.

    Args:
        queries: what to run.
        until: monotonic seconds.

    Returns:
        The reply to each; None: there was none, or an error. Ask again by itself, to learn why.
    """
    begun: list[tuple[_Trip, list[int]]] = []
    replies: dict[int, Any] = {}
    try:
        for (servers, address), places in (await _by_server(queries)).items():
            trip = _Trip(servers, address)
            begun.append((trip, places))
            await trip.send(b"".join([_pack(*_evalsha(queries[place])) for place in places]), until)
        for trip, places in begun:
            replies |= zip(places, await trip.receive(len(places), until), strict=False)
    finally:
        for trip, _ in begun:
            await trip.end()
    return [replies.get(place) for place in range(len(queries))]


async def _by_server(queries: Sequence[Query]) -> dict[tuple[Topology, Address], list[int]]:
    """Returns the places of what each server is to be asked; without those whose server is not known."""
    found: dict[tuple[Topology, Address], list[int]] = {}
    for place, query in enumerate(queries):
        servers = query.link._servers
        with suppress(*FAILURES):
            found.setdefault((servers, (await servers.find(query.keys[0]))[0]), []).append(place)
    return found


def _evalsha(query: Query) -> tuple[Argument, ...]:
    return ("EVALSHA", SCRIPTS[query.name].sha, str(len(query.keys)), *query.keys, *query.args)


class _Trip:
    """Requests over one connection, and their replies; whatever goes wrong there ends it."""

    def __init__(self, servers: Topology, address: Address) -> None:
        self._servers = servers
        self._address = address
        self._connection: Any = None
        self._is_whole = False  # nothing is left unread

    async def send(self, packed: bytes, until: float) -> None:
        try:
            while (connection := self._servers.pick(self._address)) is not None and is_stale_connection(connection):
                await self._servers.drop(connection)
            if connection is None:
                connection = await self._servers.connect(self._address, until)
                relax(connection, self._servers.socket_timeout)
            self._connection = connection
            if has_health_checks(connection):
                await check_health(connection)
            await send(connection, packed)
        except FAILURES:
            await self._drop()

    async def receive(self, number: int, until: float) -> list[Any]:
        """Returns the replies, as far as they are answers."""
        replies: list[Any] = []
        try:
            while self._connection is not None and len(replies) < number:
                replies.append(await receive(self._connection, until))
            self._is_whole = len(replies) == number
        except FAILURES:
            await self._drop()
        return replies

    async def end(self) -> None:
        if self._is_whole:
            await self._servers.give_back(self._address, self._connection)
        else:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._servers.drop(connection)


def _pack(*command: Argument) -> bytes:
    """Returns the bytes of a command. hiredis gets no numbers: it crashes the process when the repr of one fails.

    That happens a step before the recursion limit, where we raise RecursionError.
    """
    if not _NUMBERS.isdisjoint(map(type, command)):
        command = tuple([str(each) if type(each) in _NUMBERS else each for each in command])
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of one
    return packed
