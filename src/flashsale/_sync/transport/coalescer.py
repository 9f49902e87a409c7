"""Natural coalescing between threads: many concurrent calls leave as few."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, Generic, TypeVar

from flashsale.errors import FlashSaleError, OutcomeUnknown, Overloaded

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH: Final = 128  # a script call of this many takes under 1 ms of Redis
IN_FLIGHT: Final = 2  # a server that is far away is kept busy; more only makes batches smaller
MAX_WEIGHT: Final = 256 * 1024  # bytes of one call


class _Call(Generic[Item, Answer]):
    """One waiting caller. The lock is its alarm clock: acquired here, released by whoever wakes or promotes it.

    Attributes:
        wakes: the next one of the batch, whom this one wakes.
        awake: woken by the one before it, or by an interrupt: it need not be woken.
    """

    __slots__ = ("alarm", "answer", "awake", "item", "leads", "wakes")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer | BaseException
        self.leads = False
        self.wakes: _Call[Item, Answer] | None = None
        self.awake = False
        self.alarm = threading.Lock()
        self.alarm.acquire()


class Coalescer(Generic[Item, Answer]):
    """Makes many concurrent calls leave as few: while calls are in flight, newcomers gather. There is no timer.

    No thread of its own: the first caller leads a batch; when it is done it promotes the longest waiting one. The rest
    of the batch wake each other in turn, so that they do not all fight for the interpreter at once. While they do, this
    process has enough to do: a second batch leaves only beside a first one that keeps nobody busy.

    Args:
        send: takes a batch and returns an answer, or an error, for each of its items.
        max_waiting: callers that may wait before `Overloaded` is raised.
        weigh: bytes of one item, where they differ much.
        abandon: not called: a thread cannot be cancelled while it waits.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Sequence[Answer | FlashSaleError]],
        *,
        max_waiting: int,
        weigh: Callable[[Item], int] = lambda _: 0,
        abandon: Callable[[Item, Answer], None] | None = None,  # noqa: ARG002 - the twin's signature
    ) -> None:
        self._send = send
        self._max_waiting = max_waiting
        self._weigh = weigh
        self.reset()
        _COALESCERS.add(self)

    def reset(self) -> None:
        """Starts empty, as a forked child must: the parent's callers are not in it."""
        self._lock = threading.Lock()
        self._waiting: deque[_Call[Item, Answer]] = deque()
        self._in_flight = 0
        self._waking = 0  # batches of which not all are awake yet

    def submit(self, item: Item) -> Answer:
        """Returns the answer for `item`, or raises its error."""
        call: _Call[Item, Answer] = _Call(item)
        with self._lock:
            if len(self._waiting) >= self._max_waiting:
                raise Overloaded(len(self._waiting))
            if self._may_leave():
                self._in_flight += 1
                call.leads = True
            else:
                self._waiting.append(call)
        if not call.leads:
            self._follow(call)
        if call.leads:
            self._lead(call)
        if isinstance(call.answer, BaseException):
            raise call.answer
        return call.answer

    def _may_leave(self) -> bool:
        return not self._in_flight or (self._in_flight < IN_FLIGHT and not self._waking)

    def _promote(self) -> None:
        """Lets the one who waits longest lead, if a batch may leave; the lock is held."""
        if self._waiting and self._may_leave():
            self._in_flight += 1
            heir = self._waiting.popleft()
            heir.leads = True
            heir.alarm.release()

    def _wake(self, call: _Call[Item, Answer] | None) -> None:
        """Wakes the first of these who sleeps; the lock is held."""
        while call is not None and call.awake:
            call = call.wakes
        if call is None:
            self._waking -= 1
            self._promote()
        else:
            call.awake = True
            call.alarm.release()

    def _follow(self, call: _Call[Item, Answer]) -> None:
        """Waits to be woken or promoted. An interrupt (KeyboardInterrupt) leaves no gap in the line."""
        interrupted = True
        try:
            call.alarm.acquire()
            interrupted = False
        finally:
            with self._lock:
                woken, call.awake = call.awake, True
                if woken:
                    self._wake(call.wakes)
                elif not call.leads and call in self._waiting:
                    self._waiting.remove(call)
            if interrupted and call.leads:
                self._lead(call)

    def _lead(self, leader: _Call[Item, Answer]) -> None:
        """Sends one batch: the leader's own item, and what waits."""
        with self._lock:
            batch = self._cut(leader)
        answers: Sequence[Answer | BaseException] = [OutcomeUnknown("the sending thread was interrupted")] * len(batch)
        try:
            answers = self._send([call.item for call in batch])
        except FlashSaleError as error:
            answers = [error._copy() for _ in batch]
        except Exception as error:  # noqa: BLE001 - raised again in every caller of the batch
            answers = [error] * len(batch)
        finally:
            for call, answer in zip(batch, answers, strict=True):
                call.answer = answer
            for call, behind in pairwise(batch[1:]):
                call.wakes = behind
            with self._lock:
                self._in_flight -= 1
                self._waking += len(batch) > 1
                self._promote()
                if len(batch) > 1:
                    self._wake(batch[1])

    def _cut(self, leader: _Call[Item, Answer]) -> list[_Call[Item, Answer]]:
        batch = [leader]
        weight = self._weigh(leader.item)
        while self._waiting and len(batch) < BATCH and weight < MAX_WEIGHT:
            call = self._waiting.popleft()
            batch.append(call)
            weight += self._weigh(call.item)
        return batch


_COALESCERS: Final[weakref.WeakSet[Coalescer[Any, Any]]] = weakref.WeakSet()


def _forked() -> None:
    for coalescer in list(_COALESCERS):
        coalescer.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
