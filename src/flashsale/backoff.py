"""How long to wait for something that is down. Pure."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from `base` to `cap` seconds, each cut by up to half at random so that workers spread out."""

    def __init__(self, base: float = 0.2, cap: float = 5.0) -> None:
        self._base = base
        self._cap = cap
        self.reset()

    def reset(self) -> None:
        """It answered: start again from `base`."""
        self._delay = self._base

    def next(self) -> float:
        """Returns the seconds to wait now."""
        delay, self._delay = self._delay, min(self._cap, self._delay * 2)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
