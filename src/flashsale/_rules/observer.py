"""The seam for metrics and tracing. It gets counts and seconds, never ids of buyers or orders."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from flashsale.model import Outcome

log = logging.getLogger("flashsale")


class Observer(Protocol):
    """What a host's metrics implement; called on the hot path, so be quick, and never block."""

    def outcome(self, goods_id: str, outcome: Outcome) -> None:
        """A purchase was answered."""
        ...

    def batch(self, size: int, wait: float) -> None:
        """A script call carried `size` purchases and took `wait` seconds."""
        ...

    def lag(self, orders: int, seconds: float) -> None:
        """The worker settled `orders`; the oldest had been accepted `seconds` before, by the Redis clock."""
        ...


class Notifier:
    """Passes on to an observer; what the observer raises is logged, for the purchase has already happened."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self.observed = observer is not None

    def outcome(self, goods_id: str, outcome: Outcome) -> None:
        """Passes on."""
        self._tell("outcome", goods_id, outcome)

    def batch(self, size: int, wait: float) -> None:
        """Passes on."""
        self._tell("batch", size, wait)

    def lag(self, orders: int, seconds: float) -> None:
        """Passes on."""
        self._tell("lag", orders, seconds)

    def _tell(self, event: str, *values: Any) -> None:
        if self._observer is None:
            return
        try:
            getattr(self._observer, event)(*values)
        except Exception:
            log.exception("the observer failed on %s", event)
