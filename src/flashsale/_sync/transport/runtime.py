"""What is written for threads by hand: pauses, stopping on a signal, background tasks, the time of a call."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial, wraps
from types import FrameType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from flashsale._rules.deadline import BUDGET, Budget, current
from flashsale.errors import FlashSaleError

Answer = TypeVar("Answer")
Owner = TypeVar("Owner")
Rest = ParamSpec("Rest")


def in_time(method: Callable[Concatenate[Owner, Rest], Answer]) -> Callable[Concatenate[Owner, Rest], Answer]:
    """Gives each call of a public method one deadline, for all that it waits for: `self._timeout` seconds from now."""

    @wraps(method)
    def timed(self: Owner, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Answer:
        until = time.monotonic() + self._timeout  # type: ignore[attr-defined]
        return spend(until, partial(method, self, *args, **kwargs))

    return timed


def spend(until: float, function: Callable[..., Answer], *args: Any, has_place: bool = False) -> Answer:
    """Calls a function that has time until then (monotonic seconds), or less where the call around it has less.

    In a context of its own: it ends with the call, whatever ends the call.
    """
    outer = current()
    if outer is not None:
        until, has_place = min(until, outer.until), has_place or outer.has_place
    context = copy_context()
    context.run(BUDGET.set, Budget(until, None, has_place))
    return context.run(function, *args)


def in_main_thread() -> bool:
    """Returns whether a signal handler may raise here, between any two steps: it only ever strikes the main thread."""
    return threading.get_ident() == _main_thread


_main_thread = threading.main_thread().ident


def _forked() -> None:
    global _main_thread  # noqa: PLW0603 - one for the process
    _main_thread = threading.get_ident()  # the thread that forks is the child's main thread


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class StopEvent(Protocol):
    """What `threading.Event` offers to whoever waits for it."""

    def is_set(self) -> bool:
        """True once it is time to stop."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, `timeout` seconds at most."""
        ...


sleep = time.sleep
Lock = threading.Lock
new_stop = threading.Event


def end_of(answer: Any) -> Any:
    """What a host's function returned."""
    return answer


def pause(stop: StopEvent, seconds: float) -> None:
    """Waits until `stop` is set, `seconds` at most."""
    stop.wait(seconds)


class _SignalStop:
    """A stop that a signal handler may set; `threading.Event.set` could deadlock there."""

    def __init__(self) -> None:
        self._set = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not self._set and (until is None or time.monotonic() < until):
            time.sleep(0.05 if until is None else max(0.0, min(0.05, until - time.monotonic())))
        return self._set


@contextmanager
def stop_on_signals(stop: StopEvent | None) -> Iterator[StopEvent]:
    """Gives `stop`, or when it is None one that SIGTERM and SIGINT set (in the main thread only)."""
    if stop is not None:
        yield stop
        return
    flag = _SignalStop()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def together(
    calls: Sequence[Callable[[], Answer]], *, stop: threading.Event | None = None
) -> list[Answer | FlashSaleError]:
    """Makes calls at once, each in a thread, and returns what each returned, or the error of ours that it raised.

    Args:
        calls: to be made.
        stop: what calls without an end of their own wait for; it is set when an exception strikes who waits for them.
    """

    def tried(call: Callable[[], Answer]) -> Answer | FlashSaleError:
        try:
            return call()
        except FlashSaleError as error:
            return error

    with ThreadPoolExecutor(max(1, len(calls)), thread_name_prefix="flashsale-partition") as threads:
        try:
            return [each.result() for each in [threads.submit(copy_context().run, tried, call) for call in calls]]
        finally:
            if stop is not None:
                stop.set()


class BackgroundTask:
    """Does one thing while its owner does another: in a thread, that ends with the block."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="flashsale-aside")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def begin(self, work: Callable[[], Answer]) -> Callable[[], Answer]:
        """Begins `work`; what is returned waits for its end, and gives its value or raises its error."""
        return self._threads.submit(work).result


class BackgroundWork:
    """Works through calls in threads, and whoever began that may wait for it."""

    _MOST = 16  # threads: where so many hang, the next ones would

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._has_ended = False

    def prepare(self) -> None:
        """There is nothing to note."""

    def begin(self, calls: list[Callable[[], object]]) -> Callable[[float], object]:
        """Begins to make these calls, one after the other; what is returned waits so many seconds for their end."""

        def work() -> None:
            for call in calls:
                call()

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if self._has_ended or len(self._threads) >= self._MOST:
            return lambda _: None
        thread = threading.Thread(target=work, name="flashsale-following", daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread.join

    def end(self, within: float) -> None:
        """Waits so many seconds at most for what is under way, and begins nothing more."""
        self._has_ended = True
        until = time.monotonic() + within
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


class Later:
    """Does `work` once, some seconds after it was begun, in a thread; then it can be begun again."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._timer: threading.Timer | None = None
        self._has_ended = False
        self.is_begun = False  # while the time runs, and once it has ended

    def begin(self, seconds: float) -> None:
        """Does the work in so many seconds."""
        timer = threading.Timer(seconds, self._start)
        timer.name, timer.daemon = "flashsale-later", True
        with suppress(RuntimeError):  # the interpreter ends, or has no thread left
            timer.start()
            self._timer, self.is_begun = timer, True

    def _start(self) -> None:
        self.is_begun = self._has_ended
        self._work()

    def end(self, within: float) -> None:
        """Begins nothing more, and waits so many seconds at most for what is under way."""
        self._has_ended = self.is_begun = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join(within)


@contextmanager
def repeating(work: Callable[[], object], every: float, times: int) -> Iterator[None]:
    """Does `work` again every so many seconds while the block runs, so many times at most: in a thread."""
    stop = threading.Event()

    def repeat() -> None:
        for _ in range(times):
            if stop.wait(every):
                return
            work()

    thread = threading.Thread(target=repeat, name="flashsale-repeating", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
