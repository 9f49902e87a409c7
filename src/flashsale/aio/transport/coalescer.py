"""Natural coalescing on an event loop: many concurrent calls leave as few."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from flashsale._rules.deadline import BUDGET, Budget, current, ends_at
from flashsale._rules.observer import log
from flashsale.aio.transport.waiting import Callers, Line
from flashsale.errors import FlashSaleError, OutcomeUnknown

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH: Final = 128  # a script call of this many takes under 1 ms of Redis
IN_FLIGHT: Final = 2  # both sides stay busy; more only lengthens the queue at the server
MAX_WEIGHT: Final = 256 * 1024  # bytes of one call
WORTH_A_CALL: Final = 8  # callers: Redis is busy with as many while we are with others


class Coalescer(Line[Item, Answer]):
    """Makes many concurrent calls leave as few: while calls are in flight, newcomers gather. There is no timer.

    Args:
        send: takes a batch and returns an answer, or an error, for each of its items.
        callers: among whom those count who wait.
        time: seconds of a call that has no deadline yet.
        last: seconds of it that are left to a batch in flight: who waits gives up before those.
        weigh: bytes of one item, where they differ much.
        abandon: called with the answer of a caller that was cancelled meanwhile.
        worth_a_call: where half of those who wait are as many, they leave by two calls.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Answer | FlashSaleError]]],
        *,
        callers: Callers,
        time: float,
        last: float,
        weigh: Callable[[Item], int] | None = None,
        abandon: Callable[[Item, Answer], Awaitable[None]] | None = None,
        worth_a_call: int = WORTH_A_CALL,
    ) -> None:
        super().__init__(callers, time, last)
        self._send = send
        self._weigh = weigh
        self._abandon = abandon
        self._worth_a_call = worth_a_call
        self._alone: Any = None  # the coroutine
        self._flights: set[asyncio.Task[None]] = set()  # each takes batch after batch
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _in_flight(self) -> int:
        flights = [flight for flight in self._flights if not flight.done()]  # one that is done leaves a moment later
        return len(flights) + (self._alone is not None and self._alone.cr_await is not None)

    def submit(self, item: Item, until: float | None = None) -> Awaitable[Answer]:
        """Returns the answer for `item`, to be awaited at once, or raises its error.

        A caller cancelled before its batch leaves is dropped; afterwards its item is answered to nobody.

        Args:
            item: what is asked.
            until: monotonic seconds; None: as long as the call around it may take.

        Raises:
            Overloaded: too many callers wait.
            NotExecuted: its time is over, and it was not sent.
        """
        if until is None:
            until = ends_at(self._time)
        is_first = not self._waiting and (self._alone is None or self._alone.cr_await is None)
        if is_first and self._abandon is None and not (self._flights and self._in_flight):
            self._alone = alone = self._send_alone(item, until)
            return alone
        if self._waiting:
            self._callers.check()
        future: asyncio.Future[Answer] = asyncio.Future()  # to ask the loop for one costs half as much again
        self._waiting.append((item, future, until))
        if len(self._flights) < IN_FLIGHT or len(self._waiting) == 1:
            self.go_on()
        return future if self._abandon is None else self._attended(item, future)

    def go_on(self) -> None:
        """Lets a batch leave, if one may; else looks after those who wait."""
        if not self._waiting:
            return
        under_way = int(self._alone is not None and self._alone.cr_await is not None)
        for flight in self._flights:
            call: Any = flight.get_coro()
            if call.cr_await is not None or call.cr_running:
                under_way += 1
            elif not flight.done():
                return  # it is about to leave, and comes here itself when it leaves somebody behind
        if under_way >= IN_FLIGHT:
            self._callers.watch()
        else:
            batch: list[tuple[Item, asyncio.Future[Answer], float]] = []
            task = asyncio.create_task(self._drain(batch))
            task.add_done_callback(self._flights.discard)
            task.add_done_callback(partial(self._landed, batch))
            self._flights.add(task)  # last: what is in it will leave it

    async def _attended(self, item: Item, future: asyncio.Future[Answer]) -> Answer:
        """Waits for the answer, and undoes it when the caller is cancelled in the very moment that it comes."""
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                undo = asyncio.create_task(self._undo([(item, future.result())]))  # the caller never woke to see it
                self._tasks.add(undo)  # the loop itself holds tasks only weakly
                undo.add_done_callback(self._tasks.discard)
            raise

    async def _send_alone(self, item: Item, until: float) -> Answer:
        """Sends within the caller's own task: when nobody else is there, a task and a future would be for nothing."""
        BUDGET.set(Budget(until, self._alone, has_place=True, outer=current()))
        try:
            (answer,) = await self._send([item])
        finally:
            if self._waiting:
                self.go_on()  # what has gathered meanwhile takes this place in flight
        if isinstance(answer, FlashSaleError):
            raise answer
        return answer

    async def _drain(self, batch: list[tuple[Item, asyncio.Future[Answer], float]]) -> None:
        while self._cut(batch):
            if self._waiting:
                self.go_on()  # whoever is not in this batch need not wait for it
            BUDGET.set(Budget(min([until for _, _, until in batch]), has_place=True))
            answers: Sequence[Answer | FlashSaleError]
            try:
                answers = await self._send([item for item, _, _ in batch])
            except FlashSaleError as error:
                answers = [error._copy() for _ in batch]
            abandoned: list[tuple[Item, Answer]] = []
            for (item, future, _), answer in zip(batch, answers, strict=True):
                if isinstance(answer, FlashSaleError):
                    if not future.done():
                        future.set_exception(answer)
                elif future.done():
                    abandoned.append((item, answer))
                else:
                    future.set_result(answer)
            if abandoned:
                await self._undo(abandoned)

    def _landed(self, batch: Sequence[tuple[Item, asyncio.Future[Answer], float]], task: asyncio.Task[None]) -> None:
        """Answers those whom a flight left without an answer: an exception that is none of ours has ended it.

        The first of them gets that exception, and the others hear that nobody knows.
        """
        unanswered = [future for _, future, _ in batch if not future.done()]
        error = task.exception() if unanswered and not task.cancelled() else None
        for future in unanswered:
            if error is not None and future is unanswered[0]:
                future.set_exception(error)
            else:
                unknown = OutcomeUnknown("the call that this one shared was interrupted")
                unknown.__cause__ = error
                future.set_exception(unknown)
        if self._waiting and not task.cancelled():
            self.go_on()

    async def _undo(self, abandoned: Sequence[tuple[Item, Answer]]) -> None:
        for item, answer in abandoned if self._abandon else ():
            try:
                await self._abandon(item, answer)  # type: ignore[misc]
            except FlashSaleError as error:
                log.warning("a cancelled call was not undone: %s", type(error).__name__)

    def _cut(self, batch: list[tuple[Item, asyncio.Future[Answer], float]]) -> bool:
        """Makes those the batch who wait longest; False: nobody waits."""
        batch.clear()
        waiting, weigh = self._waiting, self._weigh
        weight, most = 0, self._share() if waiting else 0
        while waiting and len(batch) < most and weight < MAX_WEIGHT:
            call = waiting[0]
            if not call[1].done():
                batch.append(call)
                if weigh is not None:
                    weight += weigh(call[0])
            waiting.popleft()  # last: whatever strikes, somebody has the caller
        return bool(batch)

    def _share(self) -> int:
        """Returns how many may leave: half of those who wait, where a second call is to leave beside this one."""
        half = (len(self._waiting) + 1) // 2
        if half < self._worth_a_call or any(map(_is_under_way, self._flights)):
            return BATCH
        return min(half, BATCH)


def _is_under_way(flight: Any) -> bool:
    return flight.get_coro().cr_await is not None
