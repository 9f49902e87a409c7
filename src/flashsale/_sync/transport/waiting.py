"""Threads that wait: how many there may be, of every kind, and how long each of them waits.

An exception from a signal handler may strike the main thread anywhere, inside a lock too. So the main thread shares
nothing with others here: it waits for nobody, and nobody waits for it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from flashsale._rules.deadline import ends_at, too_late
from flashsale._sync.transport.runtime import in_main_thread
from flashsale.errors import Overloaded

Answer = TypeVar("Answer")


class Line(Protocol):
    """Callers that wait for one thing."""

    _waiting: deque[Any]

    def reset(self) -> None:
        """Starts empty, as a forked child must: the parent's callers are not in it."""
        ...


class Callers:
    """All that wait in this process for the servers of one sale.

    Args:
        most: may wait before `Overloaded` is raised.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: list[Line] = []
        self._room = 0  # so many may come before they are counted anew: those who leave only make more room

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum([len(line._waiting) for line in self._lines])

    def add(self, line: Line) -> None:
        """Counts those who wait in this line, too."""
        self._lines.append(line)
        line.reset()
        _LINES.add(line)

    def check(self) -> None:
        """Makes room for one more.

        Raises:
            Overloaded: too many wait.
        """
        if self._room <= 0:
            self.refuse_if_full()
            self._room = (self._most - self.waiting) // 2  # half: of two threads that count at once, one may be lost
        self._room -= 1

    def refuse_if_full(self) -> None:
        """Spares a call that would have to wait its way there.

        Raises:
            Overloaded: too many wait.
        """
        if (waiting := self.waiting) >= self._most:
            raise Overloaded(waiting)


class Places:
    """So many requests at once; others wait for a place.

    Args:
        number: of places.
        callers: among whom those count who wait.
        time: seconds of a call that has no deadline yet.
        last: seconds of it that are left to the request itself: who waits gives up before those.
    """

    def __init__(self, number: int, callers: Callers, time: float, last: float) -> None:
        self._number = number
        self._callers = callers
        self._time = time
        self._last = last
        self._waiting: deque[threading.Lock] = deque()
        callers.add(self)

    def reset(self) -> None:
        """Starts empty, as a forked child must: the parent's callers are not in it."""
        self._lock = threading.Lock()
        self._waiting.clear()
        self._free = self._number

    def use(self, request: Callable[..., Answer], *args: Any) -> Answer:
        """Makes a request as soon as there is a place for it.

        Raises:
            Overloaded: too many callers wait.
            NotExecuted: its time is over, and there was no place.
        """
        if in_main_thread():
            return request(*args)
        alarm: threading.Lock | None = None
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                self._callers.check()
                alarm = threading.Lock()
                alarm.acquire()
                self._waiting.append(alarm)
        if alarm is not None:
            self._wait(alarm)
        try:
            return request(*args)
        finally:
            self._leave()

    def _wait(self, alarm: threading.Lock) -> None:
        """Waits for the place of somebody who leaves."""
        woken = False
        try:
            woken = alarm.acquire(timeout=max(0.0, ends_at(self._time) - self._last - monotonic()))
        finally:
            if not woken and not self._withdraw(alarm):
                self._leave()  # it was given a place at the last moment
        if not woken:
            raise too_late()

    def _withdraw(self, alarm: threading.Lock) -> bool:
        with self._lock:
            waits = alarm in self._waiting
            if waits:
                self._waiting.remove(alarm)
            return waits

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


_LINES: Final[weakref.WeakSet[Line]] = weakref.WeakSet()


def _forked() -> None:
    for line in list(_LINES):
        line.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
