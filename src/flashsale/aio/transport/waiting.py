"""Callers that wait on an event loop: how many there may be, of every kind, and how long each of them waits.

An exception may strike anywhere, from a signal handler or a cancelled task. So nothing is counted up and down: what is
under way is seen by the coroutines and tasks that still run, and whoever was not woken is woken at the next tick.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from types import CoroutineType
from typing import Any, Final, Generic, TypeVar

from flashsale._rules.deadline import ends_at, too_late
from flashsale.errors import Overloaded

Item = TypeVar("Item")
Answer = TypeVar("Answer")

TICK: Final = 0.1  # seconds between two looks at who waits too long


class Callers:
    """All that wait in this process for the servers of one sale.

    Args:
        most: may wait before `Overloaded` is raised.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: list[Line[Any, Any]] = []
        self._room = 0  # so many may come before they are counted anew: those who leave only make more room
        self._ticker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum([len(line._waiting) for line in self._lines])

    def add(self, line: Line[Any, Any]) -> None:
        """Counts those who wait in this line, too."""
        self._lines.append(line)

    def check(self) -> None:
        """Makes room for one more.

        Raises:
            Overloaded: too many wait.
        """
        if self._room <= 0:
            if (waiting := self.waiting) >= self._most:
                raise Overloaded(waiting)
            self._room = self._most - waiting
        self._room -= 1

    def refuse_if_full(self) -> None:
        """Spares a call that would have to wait its way there.

        Raises:
            Overloaded: too many wait.
        """
        if self._room <= 0 and (waiting := self.waiting) >= self._most:
            raise Overloaded(waiting)

    def watch(self) -> None:
        """Looks after those who wait, as long as there are any."""
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while self.waiting:
            await asyncio.sleep(TICK)
            now = monotonic()
            for line in self._lines:
                line.give_up(now)
                line.go_on()


class Line(Generic[Item, Answer]):
    """Callers that wait for one thing; the first one is the next.

    Args:
        callers: among whom they count.
        time: seconds of a call that has no deadline yet.
        last: seconds of it that are left to the request itself: who waits gives up before those.
    """

    def __init__(self, callers: Callers, time: float, last: float) -> None:
        self._callers = callers
        self._time = time
        self._last = last
        self._waiting: deque[tuple[Item, asyncio.Future[Answer], float]] = deque()  # the last: until when it has time
        callers.add(self)

    def go_on(self) -> None:
        """Lets those go who may."""
        raise NotImplementedError

    def give_up(self, now: float) -> None:
        """Tells those who have waited too long that nothing happened."""
        waiting = self._waiting
        for _, future, until in waiting:
            if until - self._last <= now and not future.done():
                future.set_exception(too_late())
        while waiting and waiting[0][1].done():
            waiting.popleft()


class Places(Line[None, None]):
    """So many requests at once; others wait for a place.

    Args:
        number: of places.
    """

    def __init__(self, number: int, callers: Callers, time: float, last: float) -> None:
        super().__init__(callers, time, last)
        self._number = number
        self._taken: set[CoroutineType[Any, Any, Any]] = set()

    async def use(self, request: Callable[..., Coroutine[Any, Any, Answer]], *args: Any) -> Answer:
        """Makes a request as soon as there is a place for it.

        Raises:
            Overloaded: too many callers wait.
            NotExecuted: its time is over, and there was no place.
        """
        until = 0.0
        while len(self._taken) >= self._number and not self._free():
            self._callers.check()
            until = until or ends_at(self._time)
            future: asyncio.Future[None] = asyncio.Future()
            self._waiting.append((None, future, until))
            self._callers.watch()
            try:
                await future
            except asyncio.CancelledError:
                if not future.cancelled():  # it was woken: now another one may go
                    self._wake(1)
                raise
        run: Any = request(*args)
        try:
            self._taken.add(run)
            return await run  # type: ignore[no-any-return]
        finally:
            self._taken.discard(run)
            if self._waiting:
                self._wake(1)

    def go_on(self) -> None:
        """Wakes as many as there are places."""
        self._wake(self._free())

    def _wake(self, number: int) -> None:
        for _ in range(number):
            while self._waiting and self._waiting[0][1].done():
                self._waiting.popleft()
            if self._waiting:
                self._waiting[0][1].set_result(None)
                self._waiting.popleft()

    def _free(self) -> int:
        self._taken = {run for run in self._taken if run.cr_await is not None}  # without those that an exception ended
        return max(0, self._number - len(self._taken))
