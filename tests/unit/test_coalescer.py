"""Which callers share a call, on an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flashsale.aio.transport.coalescer import BATCH, WORTH_A_CALL, Coalescer
from flashsale.aio.transport.waiting import Callers
from flashsale.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Sequence


class Server:
    """Answers a call when it is told to."""

    def __init__(self, most: int = 1000, **settings: Any) -> None:
        self.calls: list[tuple[int, asyncio.Event]] = []
        self.coalescer = Coalescer[int, int](self._send, callers=Callers(most), time=60, last=1, **settings)

    @property
    def sizes(self) -> list[int]:
        return [size for size, _ in self.calls]

    async def _send(self, batch: Sequence[int]) -> Sequence[int]:
        reply = asyncio.Event()
        self.calls.append((len(batch), reply))
        await reply.wait()
        return batch

    async def crowd(self, callers: int) -> asyncio.Future[list[int | BaseException]]:
        async def call(number: int) -> int:
            return await self.coalescer.submit(number)

        answers = asyncio.gather(*map(call, range(callers)), return_exceptions=True)
        await self.settle()
        return answers

    async def answer(self, place: int) -> None:
        self.calls[place][1].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_crowd_leaves_by_two_calls() -> None:
    """Redis serves one while the process serves the other; before the first of them, somebody went alone."""
    server = Server()
    answers = await server.crowd(65)
    assert server.sizes == [1, 32]
    await server.answer(0)
    assert server.sizes == [1, 32, 32]
    await server.answer(1)
    await server.answer(2)
    assert await answers == list(range(65))


async def test_who_waits_while_a_call_is_under_way_leaves_by_one() -> None:
    server = Server()
    first = await server.crowd(65)
    await server.answer(0)
    second = await server.crowd(64)
    assert server.sizes == [1, 32, 32]
    await server.answer(1)
    assert server.sizes == [1, 32, 32, 64]
    await server.answer(2)
    await server.answer(3)
    assert len(await first + await second) == 65 + 64


async def test_a_few_callers_are_one_call() -> None:
    few = 2 * WORTH_A_CALL - 2
    server = Server()
    answers = await server.crowd(1 + few)
    assert server.sizes == [1, few]
    await server.answer(0)
    await server.answer(1)
    assert len(await answers) == 1 + few


async def test_callers_whose_replies_come_together_leave_by_two_calls_again() -> None:
    """A server far away serves both at once; as one batch they would wait for each other from then on."""
    server = Server()

    async def ask(times: int) -> None:
        for number in range(times):
            await server.coalescer.submit(number)

    callers = asyncio.gather(*map(ask, [3, 2, 2, 2]))
    await server.settle()
    await server.answer(0)
    assert server.sizes == [1, 3, 1]
    for _, reply in server.calls:
        reply.set()
    await server.settle()
    assert server.sizes == [1, 3, 1, 1, 3]
    await server.answer(3)
    await server.answer(4)
    await callers


async def test_calls_that_cost_the_server_little_are_not_halved() -> None:
    server = Server(worth_a_call=BATCH)
    answers = await server.crowd(1 + 64)
    assert server.sizes == [1, 64]
    await server.answer(0)
    await server.answer(1)
    assert len(await answers) == 1 + 64


async def test_a_call_is_one_task() -> None:
    """Its caller may ask again before the task is gone."""

    async def undo(item: int, answer: int) -> None: ...

    server = Server(abandon=undo)
    begun: list[asyncio.Task[Any]] = []

    def begin(loop: asyncio.AbstractEventLoop, work: Any, **settings: Any) -> asyncio.Task[Any]:
        begun.append(asyncio.Task(work, loop=loop, **settings))
        return begun[-1]

    async def ask(times: int) -> None:
        for number in range(times):
            await server.coalescer.submit(number)

    caller = asyncio.create_task(ask(10))
    asyncio.get_running_loop().set_task_factory(begin)
    await server.settle()
    for place in range(10):
        await server.answer(place)
    await caller
    assert (len(begun), server.sizes) == (10, [1] * 10)


async def test_no_call_is_larger_than_a_batch() -> None:
    server = Server()
    answers = await server.crowd(1 + 2 * BATCH + 100)
    await server.answer(0)
    assert server.sizes == [1, BATCH, BATCH]
    await server.answer(1)
    assert server.sizes == [1, BATCH, BATCH, 100]
    await server.answer(2)
    await server.answer(3)
    assert len(await answers) == 1 + 2 * BATCH + 100


async def test_the_line_has_an_end_behind_a_lone_call_and_a_batch_that_hang() -> None:
    server = Server(most=5)
    first, second = await server.crowd(20), await server.crowd(20)
    assert server.sizes == [1, 5]
    await server.answer(0)
    await server.answer(1)
    await server.answer(2)
    answers = await first + await second
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 40 - 1 - 5 - 5
