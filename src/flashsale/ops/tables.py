"""The trail and the processes of a sale, as the report and the console show them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flashsale.model.snapshot import Process, Snapshot
from flashsale.model.trail import TrailEntry
from flashsale.ops.evidence import Clock, Evidence, section, span
from flashsale.ops.markup import Html, table, tag
from flashsale.ops.svg import number

MAX_ROWS: Final = 200
"""Orders that disagree, and processes, that are shown one by one; of further ones only the number."""


def trail(evidence: Evidence, clock: Clock) -> Html:
    """Returns the section: what the operators did."""
    return section("Trail", trail_table(evidence.trail, clock))


def trail_table(entries: Iterable[TrailEntry], clock: Clock) -> Html:
    """Returns the table of what the operators did."""
    heads = ("At", "Who", "Command", "Before", "After", "Reason")
    rows = [_trail_row(entry, clock) for entry in entries]
    return table("What the operators did", heads, rows, numbers=False) if rows else tag("p", "Nobody did anything.")


def _trail_row(entry: TrailEntry, clock: Clock) -> Sequence[object]:
    after = "did not end" if entry.after is None else written(entry.after)
    command = f"{entry.command} {written(entry.arguments)}".strip()
    who = f"{entry.actor} on {entry.host}"
    return (clock.date(entry.at), who, command, written(entry.before), after, entry.reason or "")


def written(values: Mapping[str, Any]) -> str:
    """Returns names and values as an operator types them."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in values.items()
    }
    return " ".join(f"{name}={text}" for name, text in texts.items())


def processes(evidence: Evidence, clock: Clock) -> Html:
    """Returns the section: what the processes told of themselves, and errors."""
    errors = [
        (operation, kind, number(count)) for (operation, kind), count in sorted(evidence.totals.store_errors.items())
    ]
    return section(
        "Processes and errors",
        process_table(evidence.snapshot, clock),
        table("Errors of the database", ("Call", "Error", "Times"), errors, numbers=False) if errors else None,
    )


def process_table(snapshot: Snapshot, clock: Clock) -> Html:
    """Returns the table of what the processes told of themselves."""
    rows = [_process_row(process, snapshot.time, clock) for process in snapshot.processes[:MAX_ROWS]]
    heads = ("Process", "Release", "Last beat", "Does", "Claimed", "Last took", "Last error")
    count = number(len(snapshot.processes))
    return table(f"Processes: {count}", heads, rows, numbers=False) if rows else tag("p", "No process told of itself.")


def _process_row(process: Process, now: float, clock: Clock) -> Sequence[object]:
    beat = f"{clock.time(process.beat)}, {span(max(0.0, now - process.beat))} before"
    since = "" if process.since is None else f" since {clock.time(process.since)}"
    took = "" if process.last_ms is None else f"{number(process.last_ms)} ms"
    doing = f"{process.doing}{since}" if process.doing else "waits"
    name = f"{process.kind} {process.instance}"
    return (name, process.version, beat, doing, number(process.claimed), took, process.last_error or "none")
