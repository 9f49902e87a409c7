"""Exponential backoff: how long to wait before the next try. Pure."""

from __future__ import annotations

import random


def delay_after(failures: int, base: float, cap: float) -> float:
    """Returns the seconds to wait after `failures` (1, 2, ...): doubled from `base` up to `cap`, less up to half."""
    delay = min(cap, base * 2.0 ** min(failures - 1, 64))
    return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


class Backoff:
    """Delays that double from `base` to `cap` seconds, less up to half at random, so that workers spread out.

    By default the end of an outage is noticed within half a second, however long it was. A few tries a second do no
    harm to a server that is down.
    """

    def __init__(self, base: float = 0.1, cap: float = 0.5) -> None:
        self._base = base
        self._cap = cap
        self.reset()

    def reset(self) -> None:
        """Starts again from `base`: the server answered."""
        self._failures = 0

    def next(self) -> float:
        """Returns the seconds to wait now."""
        self._failures += 1
        return delay_after(self._failures, self._base, self._cap)

    @property
    def is_news(self) -> bool:
        """True at the first failure in a row and at every tenth after it: those are worth a log line."""
        return self._failures % 10 == 1
