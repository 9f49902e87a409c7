"""Exceptions out of nowhere: one is raised at the n-th line that a call goes through, as a signal handler would."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

import flashsale
from flashsale._sync.transport.coalescer import Coalescer

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = tuple(str(Path(module.__file__).parent) for module in (flashsale, redis))


class Strike(Exception):
    """What rq raises by SIGALRM when a job takes too long is an Exception, too."""


class Blow:
    """Whether and where it has struck: file and line."""

    at: str | None = None


@contextlib.contextmanager
def striking(number: int) -> Iterator[Blow]:
    """Raises `Strike` in this thread at the n-th line that is executed in our package or in redis-py."""
    blow, seen = Blow(), 0

    def local(frame: Any, event: str, _: object) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == number:
                blow.at = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                raise Strike(blow.at)
        return local

    def enter(frame: Any, _: str, __: object) -> Any:
        return local if frame.f_code.co_filename.startswith(FOLDERS) else None

    sys.settrace(enter)
    try:
        yield blow
    finally:
        sys.settrace(None)


def let_threads_go() -> int:
    """Ends the waiting of threads behind a caller that was struck: on their alarms, and on a lock that nobody holds.

    Returns:
        how many threads waited.
    """
    waiting = 0
    for frame in sys._current_frames().values():
        line = frame.f_locals.get("self")
        if isinstance(line, Coalescer):
            waiting += 1
            call = frame.f_locals.get("call")
            asleep = call is not None and call.alarm.locked()
            if asleep:
                call.answer = flashsale.OutcomeUnknown("who led this call was struck")
            with contextlib.suppress(RuntimeError):  # it was let go in this very moment
                (call.alarm if asleep else line._lock).release()
    return waiting
