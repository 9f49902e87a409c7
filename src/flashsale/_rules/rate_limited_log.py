"""A log that writes one line a minute for each cause, and counts the repeats."""

from __future__ import annotations

import logging
import time
from typing import Final

from flashsale._rules.observer import log
from flashsale.errors import PartitionMismatch

EVERY: Final = 60.0  # seconds between two lines about one cause


class RateLimitedLog:
    """Writes at most one line a minute about each cause; the next line says how often it happened meanwhile.

    A line names orders, never buyers. Causes are few: a sentence and a type of error.
    """

    def __init__(self) -> None:
        self._told: dict[object, tuple[float, int]] = {}  # cause -> when it was told last, how often it came since

    def tell(self, cause: object, message: str, *values: object, level: int = logging.WARNING) -> None:
        """Logs the message, unless this cause was told less than a minute ago."""
        now = time.monotonic()
        told, since = self._told.get(cause, (now - EVERY, 0))
        if now - told < EVERY:
            self._told[cause] = (told, since + 1)
            return
        self._told[cause] = (now, 0)
        more = f" (and {since} times more since it was told last)" if since else ""
        log.log(level, f"{message}%s", *values, more)


def named(error: BaseException) -> str:
    """Returns the types of an error and of its cause, the driver's where it is one; their words may be a buyer's data.

    >>> named(ValueError("alice"))
    'ValueError'

    A PartitionMismatch has numbers only, and they say which setting of this process is wrong:

    >>> named(PartitionMismatch(4, 1, 0)).partition(": give")[0]
    'PartitionMismatch: the sale was begun with 4 partitions'
    """
    if isinstance(error, PartitionMismatch):
        return f"{type(error).__name__}: {error}"
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    return type(error).__name__ + (f" ({type(cause).__name__})" if cause else "")
