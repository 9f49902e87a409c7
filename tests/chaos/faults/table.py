"""docs/guarantees.md: the rows as a table, with what their last run said."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.faults.catalogue import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "guarantees.md"

INTRO = """\
# Guarantees

What a sale promises, and what happens to each promise when its mechanism is taken out.

| | promise |
|---|---|
| O | never oversold: the database never has more active units than were granted |
| E | every accepted order that Redis still has reaches the database exactly once, or ends REJECTED |
| L | no unit is stranded for ever: it is sold, free, or part of an order that somebody sees |
| T | the caller gets a value or a typed error that says whether anything happened; nothing hangs |

Each row is one test on real servers, in `tests/chaos/faults`. It plays one fault from end to end, with the sync and
with the asyncio API, and where the database is what fails also with Django's store. Then it plays it again with each
mechanism taken out: the same assertions must fail. `make guarantees` plays all rows and writes this page. The
[runbook](runbook.md) tells an operator what to do about each fault.

"""


def rows() -> list[Row]:
    """Returns all rows, in order."""
    for module in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"{__package__}.{module.stem}")
    return [ROWS[number] for number in sorted(ROWS)]


def render(results: Mapping[str, str], servers: str) -> str:
    """Returns the page.

    Args:
        results: outcome of each test, by pytest's name of it; one that was not run counts as such.
        servers: what it ran on, and when.
    """
    lines = [
        "| # | fault | how | holds | mechanism | test | taken out | last result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        path, name = row.test.split("::")
        cells = [
            str(row.number),
            row.fault,
            row.how,
            row.holds,
            row.mechanism,
            f"[`{name}`](../{path})",
            "; ".join(row.mechanisms),
            _result(row, results),
        ]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return f"{INTRO}{servers}\n\n" + "\n".join(lines) + "\n"


def _result(row: Row, results: Mapping[str, str]) -> str:
    runs = {name.split("[")[1].rstrip("]"): outcome for name, outcome in results.items() if _is_of(name, row)}
    sound = [case for case in row.cases if not case.startswith("without ")]
    broken = [case for case in runs if case not in sound and runs[case] == "passed"]
    words = [f"{case} {runs[case]}" for case in sound if case in runs] or ["not run"]
    return f"{', '.join(words)}; {len(broken)} of {len(row.mechanisms)} mutations red"


def _is_of(name: str, row: Row) -> bool:
    return name.startswith(f"{row.test}[")


def without_the_run(page: str) -> str:
    """Returns the page without what changes from run to run: the line with date and versions."""
    return re.sub(r"^Last run: .*$", "", page, flags=re.MULTILINE)
