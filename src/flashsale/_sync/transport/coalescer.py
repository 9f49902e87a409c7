"""Natural coalescing between threads: many concurrent calls leave as few."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from flashsale._rules.deadline import ends_at, too_late
from flashsale._sync.transport.runtime import in_main_thread, spend
from flashsale._sync.transport.waiting import Callers
from flashsale.errors import FlashSaleError, OutcomeUnknown

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH: Final = 128  # a script call of this many takes under 1 ms of Redis
IN_FLIGHT: Final = 2  # a server that is far away is kept busy; more only makes batches smaller
MAX_WEIGHT: Final = 256 * 1024  # bytes of one call
SLOW: Final = 0.1  # of a call's time: after a batch that took longer, the whole line is looked through
_UNTIL: Final = attrgetter("until")


class _Call(Generic[Item, Answer]):
    """One waiting caller. The lock is its alarm clock: acquired here, released by whoever wakes or promotes it.

    Attributes:
        until: monotonic seconds that it has.
        wakes: the next one of the batch, whom this one wakes.
        awake: woken by the one before it, or by an interrupt: it need not be woken.
    """

    __slots__ = ("alarm", "answer", "awake", "item", "leads", "until", "wakes")

    def __init__(self, item: Item, until: float) -> None:
        self.item = item
        self.until = until
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

    The main thread goes alone: a signal handler may raise there in the middle of anything, and it leads nobody.

    Args:
        send: takes a batch and returns an answer, or an error, for each of its items.
        callers: among whom those count who wait.
        time: seconds of a call that has no deadline yet.
        last: seconds of it that are left to a batch in flight: who waits gives up before those.
        weigh: bytes of one item, where they differ much.
        abandon: not called: a thread cannot be cancelled while it waits.
        worth_a_call: not used: a second batch leaves beside one that keeps nobody busy.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Sequence[Answer | FlashSaleError]],
        *,
        callers: Callers,
        time: float,
        last: float,
        weigh: Callable[[Item], int] = lambda _: 0,
        abandon: Callable[[Item, Answer], None] | None = None,  # noqa: ARG002 - the twin's signature
        worth_a_call: int = 0,  # noqa: ARG002 - the twin's
    ) -> None:
        self._send = send
        self._callers = callers
        self._time = time
        self._last = last
        self._weigh = weigh
        callers.add(self)

    def reset(self) -> None:
        """Starts empty, as a forked child must: the parent's callers are not in it."""
        self._lock = threading.Lock()
        self._waiting: deque[_Call[Item, Answer]] = deque()
        self._in_flight = 0
        self._waking = 0  # batches of which not all are awake yet

    def submit(self, item: Item, until: float | None = None) -> Answer:
        """Returns the answer for `item`, or raises its error.

        Args:
            item: what is asked.
            until: monotonic seconds; None: as long as the call around it may take.

        Raises:
            Overloaded: too many callers wait.
            NotExecuted: its time is over, and it was not sent.
        """
        if until is None:
            until = ends_at(self._time)
        if in_main_thread():
            (answer,) = spend(until, self._send, [item], has_place=True)
            if isinstance(answer, FlashSaleError):
                raise answer
            return answer
        call: _Call[Item, Answer] = _Call(item, until)
        with self._lock:
            if self._may_leave():
                self._in_flight += 1
                call.leads = True
            else:
                self._callers.check()
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
        now = monotonic()
        while self._waiting and self._may_leave():
            heir = self._waiting.popleft()
            if heir.until - self._last <= now:
                _tell_too_late(heir)
            else:
                self._in_flight += 1
                heir.leads = True
                heir.alarm.release()
                return

    def _give_up(self, now: float) -> None:
        """Tells all those in the line whose time is over; the lock is held."""
        late = [call for call in self._waiting if call.until - self._last <= now]
        self._waiting = deque([call for call in self._waiting if call.until - self._last > now])
        for call in late:
            _tell_too_late(call)

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
        """Waits to be woken or promoted. An interrupt (a task's time limit) leaves no gap in the line.

        The time of who leads is limited, and whoever has led tells those whose time is over: that costs less than an
        alarm clock with a time of its own for each.
        """
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
        began = monotonic()
        with self._lock:
            batch = self._cut(leader, began)
        answers: Sequence[Answer | BaseException] | None = None
        try:
            until = min(map(_UNTIL, batch))
            answers = spend(until, self._send, [call.item for call in batch], has_place=True)
        except FlashSaleError as error:
            answers = [error._copy() for _ in batch]
        finally:
            if answers is None:  # an exception that is none of ours: its caller has it, and the others ask again
                answers = [OutcomeUnknown("the call that this one shared was interrupted") for _ in batch]
            for call, answer in zip(batch, answers, strict=True):
                call.answer = answer
            for call, behind in pairwise(batch[1:]):
                call.wakes = behind
            with self._lock:
                self._in_flight -= 1
                self._waking += len(batch) > 1
                if self._waiting and (now := monotonic()) - began > SLOW * self._time:
                    self._give_up(now)
                if self._waiting:
                    self._promote()
                if len(batch) > 1:
                    self._wake(batch[1])

    def _cut(self, leader: _Call[Item, Answer], now: float) -> list[_Call[Item, Answer]]:
        batch = [leader]
        weight = self._weigh(leader.item) if self._waiting else 0
        while self._waiting and len(batch) < BATCH and weight < MAX_WEIGHT:
            call = self._waiting.popleft()
            if call.until - self._last <= now:
                _tell_too_late(call)
            else:
                batch.append(call)
                weight += self._weigh(call.item)
        return batch


def _tell_too_late(call: _Call[Any, Any]) -> None:
    """Wakes a caller whose time is over; it has left the line, and the lock is held."""
    call.answer = too_late()
    call.alarm.release()
