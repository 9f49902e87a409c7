"""Natural coalescing on an event loop: many concurrent calls leave as few."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

from flashsale._rules.observer import log
from flashsale.errors import FlashSaleError, Overloaded

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH: Final = 128  # a script call of this many takes under 1 ms of Redis
IN_FLIGHT: Final = 2  # both sides stay busy; more only lengthens the queue at the server
MAX_WEIGHT: Final = 256 * 1024  # bytes of one call


class Coalescer(Generic[Item, Answer]):
    """Makes many concurrent calls leave as few: while calls are in flight, newcomers gather. There is no timer.

    Args:
        send: takes a batch and returns an answer, or an error, for each of its items.
        max_waiting: callers that may wait before `Overloaded` is raised.
        weigh: bytes of one item, where they differ much.
        abandon: called with the answer of a caller that was cancelled meanwhile.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Answer | FlashSaleError]]],
        *,
        max_waiting: int,
        weigh: Callable[[Item], int] | None = None,
        abandon: Callable[[Item, Answer], Awaitable[None]] | None = None,
    ) -> None:
        self._send = send
        self._max_waiting = max_waiting
        self._weigh = weigh
        self._abandon = abandon
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, item: Item) -> Awaitable[Answer]:
        """Returns the answer for `item`, to be awaited at once, or raises its error.

        A caller cancelled before its batch leaves is dropped; afterwards its item is answered to nobody.
        """
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(len(self._waiting))
        if not self._in_flight and self._abandon is None:
            return self._send_alone(item)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._in_flight < IN_FLIGHT:
            self._in_flight += 1
            self._spawn(self._drain())
        return future if self._abandon is None else self._attended(item, future)

    async def _attended(self, item: Item, future: asyncio.Future[Answer]) -> Answer:
        """Waits for the answer, and undoes it when the caller is cancelled in the very moment that it comes."""
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._spawn(self._undo([(item, future.result())]))  # answered, but the caller never woke to see it
            raise

    async def _send_alone(self, item: Item) -> Answer:
        """Sends within the caller's own task: when nobody else is there, a task and a future would be for nothing."""
        self._in_flight += 1
        try:
            (answer,) = await self._send([item])
        finally:
            if self._waiting:
                self._spawn(self._drain())  # what has gathered meanwhile takes this place in flight
            else:
                self._in_flight -= 1
        if isinstance(answer, FlashSaleError):
            raise answer
        return answer

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        try:
            while batch := self._cut():
                answers: Sequence[Answer | Exception]
                try:
                    answers = await self._send([item for item, _ in batch])
                except FlashSaleError as error:
                    answers = [error._copy() for _ in batch]
                except Exception as error:  # noqa: BLE001 - raised again in every caller of the batch
                    answers = [error] * len(batch)
                except BaseException as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    raise
                abandoned: list[tuple[Item, Answer]] = []
                for (item, future), answer in zip(batch, answers, strict=True):
                    if isinstance(answer, Exception):
                        if not future.done():
                            future.set_exception(answer)
                    elif future.done():
                        abandoned.append((item, answer))
                    else:
                        future.set_result(answer)
                await self._undo(abandoned)
        finally:
            self._in_flight -= 1

    async def _undo(self, abandoned: Sequence[tuple[Item, Answer]]) -> None:
        for item, answer in abandoned if self._abandon else ():
            try:
                await self._abandon(item, answer)  # type: ignore[misc]
            except FlashSaleError as error:
                log.warning("a cancelled call was not undone: %s", type(error).__name__)

    def _cut(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        weight = 0
        while self._waiting and len(batch) < BATCH and weight < MAX_WEIGHT:
            call = self._waiting.popleft()
            if not call[1].done():
                batch.append(call)
                if self._weigh is not None:
                    weight += self._weigh(call[0])
        return batch
