"""The options of the demo as values, and the errors that end it; `cli` reads them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GOODS_ID: Final = "phone"
PER_BUYER: Final = 2  # units
LEAD: Final = 3.0  # seconds in which the crowd finds the sale not started


class DemoError(Exception):
    """The demo cannot go on; the message is for the user."""


class OptionError(DemoError):
    """An option cannot be used; nothing was started."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `flashsale demo`.

    Args:
        buyers: people in the crowd.
        units: units for sale.
        processes: processes that the crowd shares.
        seed: of everything that is random.
        redis: URL of the host's server; None: start one.
        database: SQLAlchemy URL; None: SQLite in a temporary folder.
        keep: leave keys and rows in the host's servers.
    """

    buyers: int = 20_000
    units: int = 1_000
    processes: int = 4
    seed: int = 1
    redis: str | None = None
    database: str | None = None
    keep: bool = False

    @property
    def patience(self) -> float:
        """Seconds that one phase may take: for what would hang for ever, not a promise of speed."""
        return 60 + self.buyers / 500 + self.units / 50
