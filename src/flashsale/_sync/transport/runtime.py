"""What loops need in threads: pauses, stopping on a signal, background tasks."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, Self, TypeVar

Answer = TypeVar("Answer")


class StopEvent(Protocol):
    """What `threading.Event` offers to whoever waits for it."""

    def is_set(self) -> bool:
        """True once it is time to stop."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, `timeout` seconds at most."""
        ...


sleep = time.sleep


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
