"""The trail: who did what to a sale, when, and what it changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """One command of an operator.

    Args:
        command: its name, such as "restock".
        actor: who gave it.
        host: where it ran.
        at: epoch seconds by that host's clock.
        arguments: what was asked; JSON.
        before: what was there, as far as it is changed; JSON.
        after: what is there now; JSON. None: the command did not come to its end, or has not yet.
        reason: why, in the actor's words.
        entry_id: its number in the database; 0 before it is written there.
    """

    command: str
    actor: str
    host: str
    at: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] | None = None
    reason: str | None = None
    entry_id: int = 0
