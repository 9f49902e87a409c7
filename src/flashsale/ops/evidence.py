"""`Evidence`, the input of the report, and what its parts share: times, durations, sections. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from flashsale.model.reports import Settlement
from flashsale.model.snapshot import Snapshot, Totals
from flashsale.model.trail import TrailEntry
from flashsale.ops.folding import OrderStats, SampleStats
from flashsale.ops.markup import Html, tag


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the report is made of.

    Args:
        sale: its name.
        settlement: the proof.
        snapshot: of the sale, at the time of the report.
        orders: all orders, folded.
        minutes: purchases by minute since the epoch, then by item and outcome.
        samples: of all items, folded.
        trail: the operators' commands, in the order of time.
        totals: what all processes have counted.
    """

    sale: str
    settlement: Settlement
    snapshot: Snapshot
    orders: OrderStats = field(default_factory=OrderStats)
    minutes: Mapping[int, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    samples: SampleStats = field(default_factory=SampleStats)
    trail: Sequence[TrailEntry] = ()
    totals: Totals = field(default_factory=Totals)


class Clock:
    """Writes times in one zone."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone

    def date(self, at: float) -> str:
        """Returns date, time and zone."""
        return self._of(at).strftime("%Y-%m-%d %H:%M:%S %Z")

    def time(self, at: float) -> str:
        """Returns the time of day."""
        return self._of(at).strftime("%H:%M:%S")

    def _of(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone).astimezone(self._zone)


def span(seconds: float) -> str:
    """Returns a duration as people read it.

    >>> span(0.8), span(72), span(7260)
    ('0.8 s', '1 min 12 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def section(title: str, *inside: Html | None) -> Html:
    """Returns a section of the page under its heading."""
    name = title.lower().replace(" ", "-")
    return tag("section", tag("h2", title, id=name), *inside, aria_labelledby=name)
