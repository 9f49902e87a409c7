"""Ends what a database does not answer, at our side of the socket: a frozen host still acknowledges packets."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from math import inf
from typing import Any, Final, Self

from flashsale._rules.deadline import ends_at
from flashsale.errors import StoreError

TIMEOUT: Final = 7.0  # seconds of a transaction
_TICK: Final = 0.25  # seconds between two looks at what lasts


class Deadline:
    """A time for what happens on one connection, from the beginning of the context; then its socket is shut.

    The driver finds the connection ended, and raises, in a thread as in an event loop. One thread of the process looks
    after all, as long as there is something to look after.

    Args:
        seconds: it is less where the call around it has less time left.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._twin: socket.socket | None = None

    def __enter__(self) -> Self:
        self._end = ends_at(self._seconds)
        if self._end <= time.monotonic():
            raise StoreError("its time was over before the database was asked")
        return self

    def watch(self, driver: Any) -> None:
        """Begins to watch a driver's connection, in the place of another; one without a socket is left alone."""
        self.__exit__()
        number = None if self._end == inf else _file_number(driver)
        if number is not None:
            self._twin = socket.socket(fileno=os.dup(number))  # of our own: its number is not used again meanwhile
            _add(self._twin, self._end)

    def left(self, seconds: float) -> float:
        """Returns how many seconds there are for a step: so many, or less where there is less."""
        return max(0.0, min(seconds, self._end - time.monotonic()))

    def __exit__(self, *_: object) -> None:
        twin, self._twin = self._twin, None
        if twin is not None and _ends.pop(twin, None) is not None:
            twin.close()  # else whoever has taken it out does


def time_left(seconds: float) -> float:
    """Returns how many seconds there are for a step: so many, or less where the call around it has less left."""
    return max(0.0, ends_at(seconds) - time.monotonic())


_ends: dict[socket.socket, float] = {}  # no lock: an exception that strikes would leave it locked
_thread: threading.Thread | None = None


def _add(twin: socket.socket, end: float) -> None:
    global _thread  # noqa: PLW0603 - one for the process
    _ends[twin] = end
    if _thread is None:  # two at a time do no harm
        _thread = threading.Thread(target=_look, name="flashsale-deadlines", daemon=True)
        _thread.start()


def _look() -> None:
    global _thread  # noqa: PLW0603 - one for the process
    while True:
        time.sleep(_TICK)
        now = time.monotonic()
        for twin in [twin for twin, end in list(_ends.items()) if end < now]:
            if _ends.pop(twin, None) is not None:
                with suppress(OSError):  # it has ended by itself
                    twin.shutdown(socket.SHUT_RDWR)
                twin.close()
        if not _ends:
            _thread = None  # whoever comes from now on starts another, and who came before is seen now
            if not _ends:
                return


def _start_anew() -> None:
    """Of the parent's thread and connections, a child that was forked has nothing."""
    global _thread  # noqa: PLW0603 - one for the process
    _thread = None
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
