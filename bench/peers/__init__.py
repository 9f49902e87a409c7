"""Who is compared: each peer in the best configuration we know, said in one line, with what it guarantees."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any

YES, NO = "yes", "no"


@dataclass(frozen=True)
class Peer:
    """A way to buy.

    Args:
        name: as in the tables.
        configuration: what a reader needs to do the same.
        idempotent: whether asking twice is asking once.
        capped: whether a buyer's units are bounded.
        queue: whether an order that was sold is sure to reach the database.
        open: takes a `Bed` (PostgreSQL: a database URI) and the number of callers; a context manager that gives
            `buy(name)`, name being order id and buyer id.
        sold: takes the same; how many units were sold.
    """

    name: str
    configuration: str
    idempotent: str
    capped: str
    queue: str
    open: Callable[[Any, int], AbstractAsyncContextManager | AbstractContextManager]
    sold: Callable[[Any], int]

    def about(self) -> dict[str, str]:
        """Returns what the page says."""
        return {
            "configuration": self.configuration,
            "idempotent": self.idempotent,
            "capped": self.capped,
            "queue": self.queue,
        }
