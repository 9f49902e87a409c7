"""What the demo shows: a live panel on a terminal, plain lines elsewhere, and the settlement at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flashsale.demo.settlement import Settlement
from flashsale.demo.tally import Tally


@dataclass(slots=True)
class Snapshot:
    """The sale at one moment.

    Args:
        title: the phase.
        units: units for sale.
        booked: of them sold.
        passed: units that passed the gate.
        pending: orders queued on their way to the database.
        tally: what buyers have seen.
    """

    title: str = "getting ready"
    units: int = 0
    booked: int = 0
    passed: int = 0
    pending: int = 0
    tally: Tally = field(default_factory=Tally)

    def figures(self) -> dict[str, str]:
        """Returns the numbers to show, by name."""
        numbers = {
            "units sold": self.booked,
            "passed the gate": self.passed,
            "queued": self.pending,
            **dict(sorted(self.tally.answers.items())),
            "status queries": self.tally.statuses,
            "cancelled": self.tally.cancelled,
        }
        return {name: f"{number:,}" for name, number in numbers.items()}


class View:
    """The screen; also a context manager, for the live part.

    Args:
        console: where to write.
    """

    LINE_EVERY = 1.0  # seconds, where there is no terminal

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._began = time.monotonic()
        self._line_at = 0.0

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        clock = f"{time.monotonic() - self._began:5.1f} s"
        self._console.print(f"[dim]{clock}[/dim]  [bold]{escape(text)}[/bold]", soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """Shows where the sale is."""
        if self._is_live:
            self._live.update(_panel(snapshot), refresh=True)
        elif time.monotonic() >= self._line_at + self.LINE_EVERY:
            self._line_at = time.monotonic()
            figures = ", ".join(f"{name} {number}" for name, number in snapshot.figures().items())
            self._console.print(f"{self._line_at - self._began:5.1f} s  {snapshot.title}: {figures}", soft_wrap=True)

    def show_settlement(self, settlement: Settlement) -> None:
        """Writes the settlement."""
        self._console.print(_numbers(settlement))
        self._console.print(_checks(settlement))
        for name, counts in (("refused", settlement.refusals), ("rows in the database", settlement.rows)):
            listed = ", ".join(f"{state} {count:,}" for state, count in counts.items()) or "none"
            self._console.print(f"{name}: {listed}", soft_wrap=True)
        verdict = "[green]every number agrees[/green]" if settlement.agrees else "[red]the numbers DISAGREE[/red]"
        self._console.print(f"[bold]{verdict}[/bold] after {time.monotonic() - self._began:.1f} s")


def _panel(snapshot: Snapshot) -> Panel:
    figures = Table.grid(padding=(0, 2))
    for name, number in snapshot.figures().items():
        figures.add_row(name, Text(number, justify="right"))
    bar = ProgressBar(total=max(1, snapshot.units), completed=snapshot.booked)
    return Panel(Group(bar, figures), title=f"{snapshot.title}; {snapshot.units:,} units", width=60)


def _numbers(settlement: Settlement) -> Table:
    table = Table(title="settlement")
    table.add_column("")
    for side in ("buyers", "Redis", "database"):
        table.add_column(side, justify="right")
    table.add_column("agrees")
    for line in settlement.lines:
        table.add_row(line.name, *("" if value is None else f"{value:,}" for value in line[1:]), _mark(line.agrees))
    return table


def _checks(settlement: Settlement) -> Table:
    table = Table(show_header=False, box=None)
    for check in settlement.checks:
        table.add_row(check.name, check.numbers, _mark(check.agrees))
    return table


def _mark(agrees: bool) -> str:  # noqa: FBT001 - there is nothing else it could mean
    return "[green]yes[/green]" if agrees else "[bold red]NO[/bold red]"
