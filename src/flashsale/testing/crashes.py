"""Kill your own code at every point where a process can die: before or after each request to Redis or the database.

    for point in crash_points(sale):
        with point:
            checkout("o-1")  # dies somewhere inside
        checkout("o-1")  # the buyer asks again
        assert ...

The sale is one for threads; of an asyncio sale there are no crash points yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from unittest import mock

from flashsale.lua import SCRIPTS
from flashsale.sale import FlashSale
from flashsale.store import OrderStore

Reach: TypeAlias = Callable[[str, Callable[[], Any]], Any]

_SCRIPT_NAMES: Final = {script.sha: name for name, script in SCRIPTS.items()}
_STORE_CALLS: Final = [name for name in vars(OrderStore) if not name.startswith("_")]


class Crash(BaseException):
    """The process dies here. `except Exception` does not stop it, and `finally` reaches no server any more."""


class CrashPoint:
    """One place to die at; the block under `with` ends there, or runs through if it does not come so far.

    Args:
        sale: whose requests are counted, with those of its store.
        number: of the request, from 0.
        after: True: it has been done, and nobody hears of it.

    Attributes:
        crashed: whether the block died.
    """

    def __init__(self, sale: FlashSale, number: int, *, after: bool) -> None:
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
        if not self.crashed and self._left:
            self._left -= 1
            return call()
        if not self.crashed:
            self.crashed, self._at = True, name
            if self.after:
                with suppress(Exception):  # nobody hears of that either
                    call()
        raise Crash(repr(self))


def crash_points(sale: FlashSale) -> Iterator[CrashPoint]:
    """Yields every crash point of what you run under `with point:`, and ends with a pass that ran through.

    The sale goes on from pass to pass, so give each pass ids of its own. What you do outside the block is another
    process: it recovers, and checks.

    Raises:
        RuntimeError: a point was not used with `with`.
    """
    sale.gate.load_scripts()  # else the first pass would make one request more than the others
    for half in itertools.count():
        point = CrashPoint(sale, half // 2, after=bool(half % 2))
        yield point
        if not point.entered:
            raise RuntimeError("run something under `with point:`")
        if not point.crashed:
            return


@contextmanager
def boundaries(sale: FlashSale, reach: Reach) -> Iterator[None]:
    """Hands each request of the sale and each call of its store, with a name for it, to `reach`, which makes it."""

    def send(real: Callable[..., Any], *command: Any, **how: Any) -> Any:
        name = _SCRIPT_NAMES.get(command[2], "script") if command[1] in {"EVALSHA", "EVAL"} else str(command[1])
        return reach(name, partial(real, *command, **how))

    def ask(name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return reach(f"store.{name}", partial(real, *args, **kwargs))

    with ExitStack() as stack:
        for link in {sale._link, sale._gate_link}:  # noqa: SLF001 - the one way to its servers
            stack.enter_context(mock.patch.object(link, "_send", partial(send, link._send)))  # noqa: SLF001
        for name in _STORE_CALLS if sale.store is not None else ():
            stack.enter_context(mock.patch.object(sale.store, name, partial(ask, name, getattr(sale.store, name))))
        yield
