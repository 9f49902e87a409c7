"""The trail of what operators did: who, when, what, why."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from flashsale.model.trail import TrailEntry


class Noted:
    """A command that is under way; what is there after it stands in `after`, once it is known."""

    def __init__(self) -> None:
        self.after: Mapping[str, Any] | None = None


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


@contextmanager
def noting(store: Any, begun: TrailEntry) -> Iterator[Noted]:  # noqa: ARG001 - where it will be kept
    """Notes a command at its end, also when it fails: then nothing is known of what is there after it."""
    noted = Noted()
    try:
        yield noted
    finally:
        _log(replace(begun, after=noted.after))


def _log(noted: TrailEntry) -> None:
    """Writes an entry as one line to stderr."""
    line = {"trail": {name: value for name, value in asdict(noted).items() if name != "entry_id"}}
    print(json.dumps(line, separators=(",", ":"), default=str), file=sys.stderr, flush=True)


def absent(store: Any, commands: set[str]) -> set[str]:
    """Returns those of these commands that the trail of a sale has not; none where the store keeps no trail."""
    kept = getattr(store, "trail", None)
    return set() if kept is None else commands - {each.command for each in kept()}
