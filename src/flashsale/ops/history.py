"""The command `trail`, which lists what operators did."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from flashsale._sync.store import trail
from flashsale.model.trail import TrailEntry
from flashsale.ops import clock
from flashsale.ops.frame import Context, Outcome, Stop, Verb
from flashsale.ops.tables import written
from flashsale.ops.trail import entries
from flashsale.ops.values import between

LAST: Final = 20  # entries


def _add(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--last", metavar="N", type=between(1, 1000), default=LAST, help=f"the last N entries ({LAST})")
    which.add_argument("--since", metavar="TIME", help=f"all since then: {clock.PAST}")


def _trail(context: Context) -> Outcome:
    if not hasattr(context.store, "trail"):
        raise Stop(f"{type(context.store).__name__} keeps no trail: each entry is in the log of its command")
    now = time.time()
    found = _entries(context, now)
    lines = [line for entry in found for line in shown(entry, now)]
    return Outcome(lines or ["no entries"], {"trail": [asdict(entry) for entry in found]})


def _entries(context: Context, now: float) -> Sequence[TrailEntry]:
    since = context.options.since
    if since is None:
        return trail(context.store, limit=context.options.last, last=True) or ()
    try:
        moment = clock.read_past(since, now)
    except ValueError as error:
        raise Stop(f"--since: must be {clock.PAST}, not {since!r}") from error
    return [entry for entry in entries(context.store) if entry.at >= moment]


def shown(entry: TrailEntry, now: float) -> list[str]:
    """Returns an entry, line by line."""
    after = "did not end" if entry.after is None else written(entry.after)
    said = [
        f"#{entry.entry_id}  {clock.shown(entry.at, now)}  {entry.actor} on {entry.host}  {entry.command} "
        f"{written(entry.arguments)}".rstrip(),
        f"  {written(entry.before)} -> {after}",
    ]
    return [*said, *([f"  why: {entry.reason}"] if entry.reason else [])]


VERBS: Final = (
    Verb(
        "trail",
        "list what operators did: who, when, what, what was there before and after, why",
        _trail,
        _add,
        "Lists the commands that changed the sale, oldest first: who gave it on which host, when by that host's clock, "
        "what was there before and after, and why.",
        needs=frozenset({"database", "sale"}),
    ),
)
