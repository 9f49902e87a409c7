"""Writes and reads the trail for the other commands: who, when, what, why."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flashsale.model.trail import TrailEntry

PAGE: Final = 1000  # entries of one read


def entry(
    command: str, actor: str | None, arguments: Mapping[str, Any], before: Mapping[str, Any], reason: str | None
) -> TrailEntry:
    """Returns the entry of a command that is about to begin.

    Args:
        command: its name.
        actor: who gave it; None: the user of this process.
        arguments: what was asked.
        before: what is there.
        reason: why.
    """
    return TrailEntry(
        command=command,
        actor=actor or user(),
        host=socket.gethostname(),
        at=time.time(),
        arguments=arguments,
        before=before,
        reason=reason,
    )


def user() -> str:
    """Returns the name of the user of this process, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def entries(store: Any) -> Iterator[TrailEntry]:
    """Yields the whole trail of a sale, oldest first; nothing where the store keeps none."""
    after = 0
    while page := store.trail(after=after, limit=PAGE) if hasattr(store, "trail") else ():
        yield from page
        after = page[-1].entry_id


def done(store: Any, command: str) -> Iterator[TrailEntry]:
    """Yields the entries of a command that came to its end, oldest first."""
    of_store = getattr(store, "trail_of", None)
    found = entries(store) if of_store is None else of_store(command)
    its = (entry for entry in found if entry.command == command)
    return (entry for entry in its if entry.after is not None and "error" not in entry.after)
