"""Crash points: kill your own code before or after each request to Redis or the database.

    for point in crash_points(sale):
        with point:
            checkout("o-1")  # dies somewhere inside
        checkout("o-1")  # the buyer asks again
        assert ...

Around an asyncio sale it is `async for point in async_crash_points(sale)` and `async with point`.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from unittest import mock

from flashsale import aio
from flashsale._sync.sale import FlashSale
from flashsale._sync.store import OrderStore, bulk_settle
from flashsale.lua import SCRIPTS

Reach: TypeAlias = Callable[[str, Callable[[], Any]], Any]

_SCRIPT_NAMES: Final = {script.sha: name for name, script in SCRIPTS.items()}
_STORE_CALLS: Final = [name for name in vars(OrderStore) if not name.startswith("_")]
_BESIDE: Final = ("find", "purge", "purged", "restock_once", "settled")  # what a store may have beside the protocol


class Crash(BaseException):
    """The process dies here. `except Exception` does not stop it, and `finally` reaches no server any more."""


class _Place:
    """One place to die at: it counts the requests that come by.

    Args:
        sale: whose requests are counted, with those of its store.
        number: of the request, from 0.
        after: True: it has been done, and nobody hears of it.

    Attributes:
        crashed: whether the block died.
    """

    def __init__(self, sale: FlashSale | aio.FlashSale, number: int, *, after: bool) -> None:
        self.number = number
        self.after = after
        self.crashed = False
        self.entered = False
        self._sale = sale
        self._left = number
        self._at = "not reached"
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<{'after' if self.after else 'before'} request {self.number} ({self._at})>"

    def _passes(self) -> bool:
        """True: the request is made, and its caller hears of it."""
        if self.crashed or not self._left:
            return False
        self._left -= 1
        return True

    def _is_last(self, name: str) -> bool:
        """Dies; True: this request is still made."""
        if self.crashed:
            return False
        self.crashed, self._at = True, name
        return self.after

    def _require_entered(self) -> None:
        if not self.entered:
            raise RuntimeError("run something under `with point:`")


class CrashPoint(_Place):
    """One place to die at; the block under `with` ends there, or runs through if it does not come so far.

    Args:
        sale: whose requests are counted, with those of its store.
        number: of the request, from 0.
        after: True: it has been done, and nobody hears of it.

    Attributes:
        crashed: whether the block died.
    """

    def __enter__(self) -> Self:
        self.entered = True
        self._stack.enter_context(boundaries(self._sale, self._reach))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._stack.close()
        return isinstance(error, Crash)

    def _reach(self, name: str, call: Callable[[], Any]) -> Any:
        if self._passes():
            return call()
        if self._is_last(name):
            with suppress(Exception):  # nobody hears of that either
                call()
        raise Crash(repr(self))


class AsyncCrashPoint(_Place):
    """The same for `async with`, around an asyncio sale. Tasks that were begun in the block die with it.

    Args:
        sale: whose requests are counted, with those of its store.
        number: of the request, from 0.
        after: True: it has been done, and nobody hears of it.

    Attributes:
        crashed: whether the block died.
    """

    async def __aenter__(self) -> Self:
        self.entered = True
        self._tasks: list[asyncio.Future[Any]] = []
        self._stack.enter_context(_collecting(self._tasks))
        self._stack.enter_context(boundaries(self._sale, self._reach))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        with self._stack:
            while self.crashed and (running := [task for task in self._tasks if not task.done()]):
                await asyncio.sleep(0)  # one that never began would not clean up what was counted when it was made
                for task in running:
                    task.cancel()
                await asyncio.wait(running)
        for task in self._tasks if self.crashed else ():
            _ = task.cancelled() or task.exception()  # seen: the event loop does not complain of it
        if not isinstance(error, BaseExceptionGroup):
            return isinstance(error, Crash)
        crashes, others = error.split(Crash)  # asyncio.TaskGroup
        if crashes is not None and others is not None:
            raise others from None
        return others is None

    async def _reach(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if self._passes():
            return await call()
        if self._is_last(name):
            with suppress(Exception):  # nobody hears of that either
                await call()
        raise Crash(repr(self))


def crash_points(sale: FlashSale) -> Iterator[CrashPoint]:
    """Yields every crash point of what you run under `with point:`, and ends with a pass that ran through.

    The sale goes on from pass to pass, so give each pass ids of its own. What you do outside the block is another
    process: it recovers, and checks.

    Raises:
        RuntimeError: a point was not used with `with`.
    """
    for part in sale._partitions():
        part.gate.load_scripts()  # else the first pass would make one request more than the others
    for half in itertools.count():
        point = CrashPoint(sale, half // 2, after=bool(half % 2))
        yield point
        point._require_entered()
        if not point.crashed:
            return


async def async_crash_points(sale: aio.FlashSale) -> AsyncIterator[AsyncCrashPoint]:
    """Yields every crash point of what you run under `async with point:`; see `crash_points`.

    Where tasks run side by side, which of them comes by first may differ from pass to pass.

    Raises:
        RuntimeError: a point was not used with `async with`.
    """
    for part in sale._partitions():
        await part.gate.load_scripts()
    for half in itertools.count():
        point = AsyncCrashPoint(sale, half // 2, after=bool(half % 2))
        yield point
        point._require_entered()
        if not point.crashed:
            return


@contextmanager
def boundaries(sale: FlashSale | aio.FlashSale, reach: Reach) -> Iterator[None]:
    """Hands each request of the sale and each call of its store, with a name for it, to `reach`, which makes it.

    Of an asyncio sale, `reach` returns an awaitable, and what it makes is one.
    """

    def send(real: Callable[..., Any], *command: Any, **how: Any) -> Any:
        name = _SCRIPT_NAMES.get(command[2], "script") if command[1] in {"EVALSHA", "EVAL"} else str(command[1])
        return reach(name, partial(real, *command, **how))

    def ask(name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return reach(f"store.{name}", partial(real, *args, **kwargs))

    with ExitStack() as stack:
        links: set[Any] = {link for part in sale._partitions() for link in (part._link, part._gate_link)}
        for link in links:
            stack.enter_context(mock.patch.object(link, "_send", partial(send, link._send)))
        names = _store_calls(sale.store)
        if hasattr(sale.store, "joined"):
            joined = partial(_joined, sale.store, copy(sale.store), lambda twin: _watch_store(twin, names, ask))
            stack.enter_context(mock.patch.object(sale.store, "joined", joined))
        for name in names:
            stack.enter_context(mock.patch.object(sale.store, name, partial(ask, name, getattr(sale.store, name))))
        yield


def _joined(watched: Any, plain: Any, watch: Callable[[Any], Any], connection: Any) -> Any:
    """Joins a transaction of the host's, and watches the store that works in it."""

    async def awaited() -> Any:
        twin = await answer
        return watched if twin is plain else watch(twin)

    answer = plain.joined(connection)
    if inspect.isawaitable(answer):
        return awaited()
    return watched if answer is plain else watch(answer)


def _watch_store(store: Any, names: Sequence[str], ask: Callable[..., Any]) -> Any:
    for name in names:
        setattr(store, name, partial(ask, name, getattr(store, name)))
    return store


def _store_calls(store: OrderStore | aio.AsyncOrderStore | None) -> list[str]:
    if store is None:
        return []
    bulk: Any = bulk_settle  # of either kind
    beside = ["settle_many"] if bulk(store) else []
    return [*_STORE_CALLS, *beside, *(name for name in _BESIDE if getattr(store, name, None))]


@contextmanager
def _collecting(tasks: list[asyncio.Future[Any]]) -> Iterator[None]:
    """Notes every task that begins meanwhile in the running loop."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **how: Any) -> Any:
        task = asyncio.Task(coroutine, loop=loop, **how) if before is None else before(loop, coroutine, **how)
        tasks.append(task)
        return task

    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(before)
