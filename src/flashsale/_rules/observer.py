"""The interface for metrics and tracing, and the package's logger. Pure.

An observer gets counts and seconds, never ids of buyers or orders.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from flashsale.model import Outcome

log = logging.getLogger("flashsale")


class Observer(Protocol):
    """What your metrics implement. It is called on the hot path, so it must be quick and never block."""

    def outcome(self, goods_id: str, outcome: Outcome) -> None:
        """A purchase was answered."""
        ...

    def batch(self, size: int, wait: float) -> None:
        """A script call carried `size` purchases and took `wait` seconds."""
        ...

    def lag(self, orders: int, seconds: float) -> None:
        """The worker saved `orders`; the oldest was accepted `seconds` before, by the Redis clock."""
        ...


class Notifier:
    """Calls an observer, if there is one. Its errors are logged: the purchase has already happened."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self.observed = observer is not None

    def outcome(self, goods_id: str, outcome: Outcome) -> None:
        """Calls the observer."""
        self._tell("outcome", goods_id, outcome)

    def batch(self, size: int, wait: float) -> None:
        """Calls the observer."""
        self._tell("batch", size, wait)

    def lag(self, orders: int, seconds: float) -> None:
        """Calls the observer."""
        self._tell("lag", orders, seconds)

    def _tell(self, event: str, *values: Any) -> None:
        if self._observer is None:
            return
        try:
            getattr(self._observer, event)(*values)
        except Exception:
            log.exception("the observer failed on %s", event)
