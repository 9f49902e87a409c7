"""A sale that a command has opened, and the asyncio API as a thread sees it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import flashsale
import flashsale._sync.finder
import flashsale._sync.overview
import flashsale.aio
import flashsale.aio.finder
import flashsale.aio.overview


@dataclass(frozen=True)
class Opened:
    """A sale that a command has opened; closed at its end.

    Args:
        name: of the sale.
        sale: as the API for threads has it; None where Redis was not asked for.
        store: likewise; None: there is none.
        runner: of the event loop, when the sale is one of `flashsale.aio`.
        closes: what is closed at the end, in this order.
    """

    name: str
    sale: Any
    store: Any
    runner: asyncio.Runner | None = None
    closes: tuple[Callable[[], object], ...] = ()

    def finder(self) -> Any:
        """Returns a finder of orders of the sale."""
        if self.runner is None:
            return flashsale._sync.finder.Finder(self.sale)
        return Blocking(flashsale.aio.finder.Finder(self.sale._real), self.runner)

    def overview(self) -> Any:
        """Returns what asks all partitions of the sale."""
        if self.runner is None:
            return flashsale._sync.overview.Overview(self.sale)
        return Blocking(flashsale.aio.overview.Overview(self.sale._real), self.runner)

    def part(self, name: str, *given: Any, **settings: Any) -> Any:
        """Returns a part, such as a worker, of the sale."""
        if self.runner is None:
            return getattr(flashsale, name)(self.sale, *given, **settings)
        made = getattr(flashsale.aio, name)(self.sale._real, *given, **settings)
        return Blocking(made, self.runner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for close in self.closes:
            close()
        if self.runner is not None:
            self.runner.close()


class Blocking:
    """An object of `flashsale.aio` whose methods wait for what they return.

    Args:
        real: the object.
        runner: of its event loop.
    """

    def __init__(self, real: Any, runner: asyncio.Runner) -> None:
        self._real = real
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return self._seen(getattr(self._real, name))

    def _seen(self, value: Any) -> Any:
        if inspect.isroutine(value) or isinstance(value, partial):
            return partial(self._call, value)
        if hasattr(value, "__aenter__") and not hasattr(value, "__enter__") and not _is_ours(value):
            return _Context(value, self._runner)
        if hasattr(value, "__aiter__"):
            return self._each(value)
        return Blocking(value, self._runner) if _is_ours(value) else value

    def _call(self, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        given = tuple(each._real if isinstance(each, Blocking) else each for each in given)
        return self._seen(self._runner.run(_awaited(method, *given, **named)))

    def _each(self, values: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._runner.run(_awaited(values.__anext__))
            except StopAsyncIteration:
                return


class _Context:
    """A context of asyncio, entered from a thread."""

    def __init__(self, real: Any, runner: asyncio.Runner) -> None:
        self._real = real
        self._runner = runner

    def __enter__(self) -> Any:
        return self._runner.run(_awaited(self._real.__aenter__))

    def __exit__(self, *failure: object) -> Any:
        return self._runner.run(_awaited(self._real.__aexit__, *failure))


def _is_ours(value: object) -> bool:
    return type(value).__module__.startswith("flashsale.aio")


async def _awaited(method: Callable[..., Any], *given: Any, **named: Any) -> Any:
    answer = method(*given, **named)
    return await answer if inspect.isawaitable(answer) else answer
