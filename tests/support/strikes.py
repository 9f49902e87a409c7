"""Exceptions out of nowhere: one is raised at the n-th line that a call goes through, as a signal handler would."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

import flashsale

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
