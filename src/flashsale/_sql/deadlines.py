"""Ends what a database does not answer, at our side of the socket: a frozen host still acknowledges packets."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final, Self

_TICK: Final = 0.25  # seconds between two looks at what lasts


class Deadline:
    """A time for what happens on one connection, from `watch` to the end of the context; then its socket is shut.

    The driver finds the connection ended, and raises, in a thread as in an event loop. One thread of the process looks
    after all, as long as there is something to look after.

    Args:
        seconds: None: for ever.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._twin: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def watch(self, driver: Any) -> None:
        """Begins to watch a driver's connection; one without a socket is left alone."""
        number = None if self._seconds is None else _file_number(driver)
        if self._seconds is not None and number is not None:
            self._twin = socket.socket(fileno=os.dup(number))  # of our own: its number is not used again meanwhile
            _add(self._twin, time.monotonic() + self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._twin is not None:
            with _lock:
                _ends.pop(self._twin, None)
            self._twin.close()


_lock = threading.Lock()
_ends: dict[socket.socket, float] = {}
_thread: threading.Thread | None = None


def _add(twin: socket.socket, end: float) -> None:
    global _thread  # noqa: PLW0603 - one for the process
    with _lock:
        _ends[twin] = end
        if _thread is None:
            _thread = threading.Thread(target=_look, name="flashsale-deadlines", daemon=True)
            _thread.start()


def _look() -> None:
    global _thread  # noqa: PLW0603 - one for the process
    while True:
        time.sleep(_TICK)
        with _lock:
            if not _ends:
                _thread = None
                return
            now = time.monotonic()
            for twin in [twin for twin, end in _ends.items() if end < now]:
                with suppress(OSError):  # it has ended by itself
                    twin.shutdown(socket.SHUT_RDWR)


def _start_anew() -> None:
    """Of the parent's thread and connections, a child that was forked has nothing."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    _ends.clear()


os.register_at_fork(after_in_child=_start_anew)


def _file_number(driver: Any) -> int | None:
    """Returns the file number of a connection of psycopg, psycopg2, asyncpg, PyMySQL or aiomysql."""
    if (writer := getattr(driver, "_writer", None)) is not None:
        driver = writer.get_extra_info("socket")
    elif (transport := getattr(driver, "_transport", None)) is not None:
        driver = transport.get_extra_info("socket")
    elif (plain := getattr(driver, "_sock", None)) is not None:
        driver = plain
    fileno = getattr(driver, "fileno", None)
    return None if fileno is None else int(fileno())
