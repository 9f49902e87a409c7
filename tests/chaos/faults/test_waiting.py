"""Rows 51 to 53: many callers at a Redis that does not answer, and exceptions that strike anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import FlashSaleError, Overloaded
from tests.chaos.faults.catalogue import fault
from tests.support.helpers import eventually, until
from tests.support.strikes import Strike, let_threads_go, striking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.faults.world import World

MAX_WAITING = 20
AT_ONCE = 64 + 6  # connections
IN_BATCHES = 6 * MAX_WAITING  # that may have left in two batches of each coalescer
HANGS = 20.0  # seconds
LATE = 12.0  # seconds after which it is not only the machine that is busy

CALLS: dict[str, Callable[[Any, int], Any]] = {
    "buy": lambda sale, n: sale.buy("phone", f"b-{n}"),
    "buy_basket": lambda sale, n: sale.buy_basket(f"b-{n}", [("phone", 1)]),
    "enter": lambda sale, _: sale.gate.enter("phone"),
    "deduct": lambda sale, _: sale.inventory.deduct("phone"),
    "view": lambda sale, _: sale.view("phone"),
    "status": lambda sale, n: sale.status(f"o-{n}"),
    "cancel": lambda sale, n: sale.cancel(f"o-{n}"),
    "confirm": lambda sale, n: sale.confirm(f"o-{n}"),
}


@fault(
    51,
    "callers of every kind at a frozen Redis",
    "SIGSTOP; 40 callers each of buy, baskets, enter, deduct, view, status, cancel and confirm, `max_waiting=20`",
    holds="T",
    mechanism="one count of all who wait; past it, `Overloaded` at once",
    without=("the count of all who wait",),
)
async def test_row_51_callers_of_every_kind(world: World) -> None:
    server = world.server()
    sale = await world.sell(server.port, 1000, max_waiting=MAX_WAITING, timeout=4.0)
    server.freeze()
    world.at_end(server.thaw)
    calls = [call(sale, number) for number in range(40) for call in CALLS.values()]
    tasks = [asyncio.create_task(world.answer(call, within=HANGS)) for call in calls]
    many = len(tasks) - MAX_WAITING - AT_ONCE - IN_BATCHES
    await until(lambda: sum(task.done() for task in tasks) >= many, "some answers", within=HANGS)
    early = [type(task.result()) for task in tasks if task.done()]
    assert early.count(Overloaded) >= many, f"T: {early.count(Overloaded)} of {len(tasks)} were turned away"
    assert sale.real._link.callers.waiting <= MAX_WAITING
    assert len(sale.real._link._servers._made) <= AT_ONCE
    answers = await asyncio.gather(*tasks)
    assert all(isinstance(answer, FlashSaleError) for answer in answers)
    server.thaw()
    assert (await sale.buy("phone", "last", order_id="last")).accepted


@fault(
    52,
    "a thousand callers at a frozen Redis",
    "SIGSTOP; 1,000 buyers, threads or tasks",
    holds="T",
    mechanism="one deadline for a call: its waiting, its try and its retry",
    without=("one deadline for a call",),
)
async def test_row_52_a_thousand_callers(world: World) -> None:
    server = world.server()
    sale = await world.sell(server.port, 10_000, timeout=4.0)
    server.freeze()
    world.at_end(server.thaw)
    longest = 0.0

    async def buy(number: int) -> Any:
        nonlocal longest
        begun = time.monotonic()
        answer = await world.answer(sale.buy("phone", f"b-{number}"), within=LATE)
        longest = max(longest, time.monotonic() - begun)
        return answer

    answers = await asyncio.gather(*(buy(number) for number in range(1000)))
    assert all(isinstance(answer, FlashSaleError) and answer.order_id for answer in answers)
    assert longest < LATE, f"T: a call took {longest:.1f} s of the 4 that it has"
    server.thaw()
    assert (await sale.buy("phone", "last", order_id="last")).accepted


@pytest.fixture
def rubbish() -> Iterator[None]:
    """Collects what strikes left behind, within this test: coroutines that never began, connections of nobody."""
    yield
    gc.collect()


@pytest.fixture
def free_threads(world: World) -> Iterator[None]:
    """Ends the waiting of threads that a strike left asleep, before `world` waits for them."""
    yield
    looks = 0

    def have_gone() -> bool:
        nonlocal looks
        looks = 0 if let_threads_go() else looks + 1
        return looks == 20  # whoever was woken may ask once more

    eventually(have_gone, "the end of the threads' waiting")


@pytest.mark.usefixtures("rubbish", "free_threads")
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@fault(
    53,
    "an exception raised by a signal handler",
    "an exception at each line in turn of `buy`, of a basket, of `enter` and of `status`; cancelled tasks",
    holds="T",
    mechanism="the main thread shares no lock and no count; a loop sees what still runs, and answers who shared a call",
    without=("the main thread goes alone", "who shares a call is answered"),
)
async def test_row_53_an_exception_at_every_line(world: World) -> None:
    sale = await world.sell(world.redis_server.port, 100_000, timeout=5.0)
    lines = sale.real._link.callers._lines
    before = _counts(lines)
    if world.is_async:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # strikes in callbacks
    for name in ("buy", "buy_basket", "enter", "status"):
        with contextlib.nullcontext() if world.is_async else _others_buy(sale):
            number, struck = 0, True
            while struck:
                number += 1
                if world.is_async:
                    struck = await _strike_tasks(world, sale, name, number)
                else:
                    struck = _strike_main_thread(sale, name, number)
                again = await world.answer(sale.buy("phone", "again"))
                assert getattr(again, "accepted", False), f"T: {again!r} after a strike at line {number} of {name}"
        await until(lambda: _counts(lines) == before, f"T: the end of all calls after {name}")  # the recorder's, too


def _strike_main_thread(sale: Any, name: str, number: int) -> bool:
    with contextlib.suppress(Strike), striking(number) as blow:
        CALLS[name](sale.real, number)
    return blow.at is not None


async def _strike_tasks(world: World, sale: Any, name: str, number: int) -> bool:
    """Four callers at once: whoever is not struck gets a receipt, or a typed error where the call is not repeated."""
    with striking(number) as blow:
        calls = [asyncio.create_task(CALLS[name](sale.real, each)) for each in range(4)]
        if number % 5 == 0:
            await asyncio.sleep(0)
            calls[0].cancel()
        done, late = await asyncio.wait(calls, timeout=5.0)
    assert not late, f"T: others were not answered after a strike at {blow.at}"
    errors = [error for call in done if not call.cancelled() and (error := call.exception()) is not None]
    others = [error for error in errors if not isinstance(error, Strike)]
    assert all(isinstance(error, FlashSaleError) for error in others)
    assert len(errors) - len(others) <= 1, f"T: a strike at {blow.at} hit several callers"
    if name == "buy":
        assert not others, f"T: {others[0]!r} after a strike at {blow.at}"
    return blow.at is not None


@contextlib.contextmanager
def _others_buy(sale: Any) -> Iterator[None]:
    """Other threads buy all the time."""
    stop, errors = threading.Event(), []

    def buy() -> None:
        while not stop.is_set():
            try:
                assert sale.real.buy("phone", "other").accepted
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=buy, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        hangs = time.monotonic() + 3.0
        for thread in threads:
            thread.join(max(0.0, hangs - time.monotonic()))
    assert not errors, f"T: {errors[0]!r} for another thread"
    assert not any(thread.is_alive() for thread in threads), "T: another thread hangs"


def _counts(lines: list[Any]) -> list[tuple[int, int]]:
    """Of each line: how many are under way, and how many wait."""
    return [(_under_way(line), len(line._waiting)) for line in lines]


def _under_way(line: Any) -> int:
    if not hasattr(line, "_number"):
        return int(line._in_flight)
    return line._number - (line._free() if callable(line._free) else line._free)
