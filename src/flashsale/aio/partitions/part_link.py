"""The link of one partition: over the connections of its server, but with a room, and a patience, of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

from redis import exceptions
from typing_extensions import override

from flashsale._rules.urls import Address
from flashsale.aio.transport.link import Argument, Barrier, Link
from flashsale.aio.transport.waiting import Callers
from flashsale.errors import NotExecuted, OutcomeUnknown

BUYERS: Final = frozenset({"reserve", "ticket", "records", "layout", "HGET", "HMGET"})  # what buyers wait for
AWAY: Final = 0.5  # seconds for which a server is left alone that did not answer; then one call finds out

Answer = TypeVar("Answer")


class PartLink(Link):
    """Requests of one partition. Who waits there takes no place from the buyers of the others.

    Once a server has let a request wait for all of its time, buyers are told so at once, but for one at a time: else
    those of one partition would soon be all that a web process does.

    Args:
        link: of the server.
        callers: those of the partition.
        parts: how many share the link.
    """

    def __init__(self, link: Link, callers: Callers, parts: int) -> None:
        self.__dict__.update(link.__dict__)
        self._have(callers, parts)
        self._deaf_until: float | None = None  # monotonic seconds; None: the last request was answered

    @override
    async def run_behind(
        self, barrier: Barrier | None, name: str, keys: Sequence[str], args: Sequence[Argument]
    ) -> tuple[Any, Any]:
        return await self._unless_deaf(name, partial(super().run_behind, barrier, name, keys, args))

    @override
    async def command(self, *command: Argument) -> Any:
        return await self._unless_deaf(command[0], partial(super().command, *command))

    async def _unless_deaf(self, name: Argument, request: Callable[[], Awaitable[Answer]]) -> Answer:
        deaf_until = self._deaf_until
        if deaf_until is None or name not in BUYERS:
            return await request()
        if monotonic() < deaf_until:
            raise NotExecuted("the partition did not answer a moment ago", reason="PARTITION")
        self._deaf_until = monotonic() + 2 * self.patience  # this one finds out, and nobody else meanwhile
        try:
            return await request()
        finally:
            if self._deaf_until is not None:  # nothing has answered, or the caller was cancelled
                self._deaf_until = monotonic() + AWAY

    @override
    async def _exchange(
        self, address: Address, packed: bytes, until: float, barrier: Barrier | None = None, *, asking: bool = False
    ) -> tuple[Any, Any]:
        try:
            answer = await super()._exchange(address, packed, until, barrier, asking=asking)
        except (NotExecuted, OutcomeUnknown) as error:
            if not isinstance(error.__cause__, (TimeoutError, exceptions.TimeoutError)):
                self._deaf_until = None
            elif self._deaf_until is None:
                self._deaf_until = monotonic() + AWAY
            raise
        self._deaf_until = None
        return answer
