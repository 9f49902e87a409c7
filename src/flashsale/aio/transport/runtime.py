"""What is written for asyncio by hand: pauses, stopping on a signal, background tasks, the time of a call."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import wraps
from time import monotonic
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from flashsale._rules.deadline import BUDGET, Budget, current
from flashsale.errors import FlashSaleError

Answer = TypeVar("Answer")
Owner = TypeVar("Owner")
Rest = ParamSpec("Rest")
StopEvent = asyncio.Event


def in_time(
    method: Callable[Concatenate[Owner, Rest], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[Owner, Rest], Coroutine[Any, Any, Answer]]:
    """Gives each call of a public method one deadline, for all that it waits for: `self._timeout` seconds from now."""

    @wraps(method)
    async def timed(self: Owner, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Answer:
        until = monotonic() + self._timeout  # type: ignore[attr-defined]
        outer = current()
        call = method(self, *args, **kwargs)
        BUDGET.set(_budget(until, call, outer))
        return await call

    return timed


async def spend(until: float, function: Callable[..., Coroutine[Any, Any, Answer]], *args: Any) -> Answer:
    """Calls a function that has time until then (monotonic seconds), or less where the call around it has less."""
    outer = current()
    call = function(*args)
    BUDGET.set(_budget(until, call, outer))
    return await call


def _budget(until: float, call: Any, outer: Budget | None) -> Budget:
    if outer is None:
        return Budget(until, call)
    return Budget(min(until, outer.until), call, outer.has_place, outer)


async def end_of(answer: Any) -> Any:
    """Waits for the end of what a host's function began; a plain function has ended already."""
    return await answer if inspect.isawaitable(answer) else answer


sleep = asyncio.sleep
Lock = asyncio.Lock
new_stop = asyncio.Event


async def pause(stop: StopEvent, seconds: float) -> None:
    """Waits until `stop` is set, `seconds` at most."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


@asynccontextmanager
async def stop_on_signals(stop: StopEvent | None) -> AsyncIterator[StopEvent]:
    """Gives `stop`, or when it is None an event that SIGTERM and SIGINT set."""
    if stop is not None:
        yield stop
        return
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError, ValueError):
        for number in _SIGNALS:
            loop.add_signal_handler(number, _stop_all)
        _STOPS.add(stop)  # else Windows, or not the main thread: whoever runs us stops us by cancelling
    try:
        yield stop
    finally:
        if stop in _STOPS:
            _STOPS.remove(stop)
            if not _STOPS:
                for number in _SIGNALS:
                    loop.remove_signal_handler(number)


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STOPS: Final[set[StopEvent]] = set()  # of all that a signal stops; a loop has one handler for each signal


def _stop_all() -> None:
    for stop in _STOPS:
        stop.set()


async def together(
    calls: Sequence[Callable[[], Awaitable[Answer]]],
    *,
    stop: asyncio.Event | None = None,  # noqa: ARG001 - the twin's signature: tasks are cancelled
) -> list[Answer | FlashSaleError]:
    """Makes calls at once, and returns what each returned, or the error of ours that it raised."""

    async def tried(call: Callable[[], Awaitable[Answer]]) -> Answer | FlashSaleError:
        try:
            return await call()
        except FlashSaleError as error:
            return error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(tried(call)) for call in calls]
    except BaseExceptionGroup as group:  # another error is raised as it is, and has ended the other calls
        raise group.exceptions[0] from None
    return [task.result() for task in tasks]


class BackgroundTask:
    """Does one thing while its owner does another."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()

    def begin(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Callable[[], Awaitable[Answer]]:
        """Begins `work`; what is returned waits for its end, and gives its value or raises its error."""
        task: asyncio.Task[Answer] = asyncio.create_task(work())
        self._task = task

        async def end() -> Answer:
            return await task

        return end


class BackgroundWork:
    """Works through calls that nobody waits for, in tasks: they end with it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_ended = False

    def prepare(self) -> None:
        """Notes the loop that runs: `begin` may be called from any thread."""
        self._loop = asyncio.get_running_loop()

    def begin(self, calls: list[Callable[[], Awaitable[object]]]) -> Callable[[float], object]:
        """Begins to make these calls, one after the other; what is returned does not wait: a loop must not."""

        async def work() -> None:
            for call in calls:
                await call()

        def start() -> None:
            if not self._has_ended:
                task = asyncio.create_task(work())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        with suppress(RuntimeError):  # the loop has been closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(start)
        return lambda _: None

    async def end(self, within: float) -> None:
        """Ends after so many seconds what is under way, and begins nothing more."""
        await asyncio.sleep(0)  # what was to begin begins
        self._has_ended = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within)
            for task in late:
                task.cancel()


class Later:
    """Does `work` once, some seconds after it was begun; then it can be begun again."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._work = work
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._has_ended = False
        self.is_begun = False  # while the time runs, and once it has ended

    def begin(self, seconds: float) -> None:
        """Does the work in so many seconds."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self._start)
        self.is_begun = True

    def _start(self) -> None:
        self.is_begun = self._has_ended
        self._task = asyncio.create_task(self._work())

    async def end(self, within: float) -> None:
        """Begins nothing more, and waits so many seconds at most for what is under way."""
        self._has_ended = self.is_begun = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._task], timeout=within)


@asynccontextmanager
async def repeating(work: Callable[[], Awaitable[object]], every: float, times: int) -> AsyncIterator[None]:
    """Does `work` again every so many seconds while the block runs, so many times at most."""
    stop = asyncio.Event()

    async def repeat() -> None:
        for _ in range(times):
            await pause(stop, every)
            if stop.is_set():
                return
            await work()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        stop.set()
        await task
