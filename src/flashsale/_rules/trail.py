"""A note: one command of the trail while it is carried out, and the row that it becomes. No database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any, Final

from flashsale._rules.observer import log
from flashsale._rules.rows import Row
from flashsale.errors import FlashSaleError, StoreError
from flashsale.model.trail import TrailEntry

TRAIL_COLUMNS: Final = (
    *("entry_id", "at", "actor", "host", "command"),
    *("arguments", "before", "after", "reason"),
)


class Note:
    """An entry of the trail from the beginning of its command to the end.

    Args:
        entry: what was asked.
        store: that writes it; None: none does.

    Attributes:
        entry: with what is known by now.
        store: as given.
        row_id: the number of its row, as far as one was written; 0: none was.
        is_carried: True while a transaction carries the row, and once one has.
        is_logged: True once it was logged in the place of a row.
    """

    def __init__(self, entry: TrailEntry, store: object = None) -> None:
        self.entry = replace(entry, after=None)
        self.store = store
        self.row_id = 0
        self.is_carried = False
        self.is_logged = False

    def finish(self, after: Mapping[str, Any]) -> None:
        """Says what is there after the command; the last word counts."""
        self.entry = replace(self.entry, after=after)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sees how the command ends; the transactions of `store` can find the note meanwhile, by `noted`."""
        outer = _NOTED.set(self)
        try:
            yield
        except BaseException as error:
            self.finish({"error": _told(error)})
            raise
        else:
            if self.entry.after is None:
                self.finish({})
        finally:
            _NOTED.reset(outer)

    def log(self) -> None:
        """Logs the entry in the place of a row; without a log of the host's, it goes to stderr."""
        self.is_logged = True
        log.warning("not written to the trail: %s", entry_text(self.entry))


_NOTED: Final[ContextVar[Note | None]] = ContextVar("flashsale_note", default=None)


def noted(store: object) -> Note | None:
    """Returns the note that the next transaction of this store carries, in this thread or task; None: none."""
    note = _NOTED.get()
    return None if note is None or note.store is not store or note.is_carried else note


def _told(error: BaseException) -> str:
    """Returns the type of an error, and what ours say; what others say may hold buyers' data."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, FlashSaleError) else name


def entry_values(entry: TrailEntry) -> dict[str, Any]:
    """Returns the row of an entry, but for its sale and its number."""
    return {
        "at": entry.at,
        "actor": entry.actor,
        "host": entry.host,
        "command": entry.command,
        "arguments": _text(entry.arguments),
        "before": _text(entry.before),
        "after": after_text(entry),
        "reason": entry.reason,
    }


def after_text(entry: TrailEntry) -> str | None:
    """Returns the column `after`; None: the command has not come to its end."""
    return None if entry.after is None else _text(entry.after)


def read_entry(row: Row) -> TrailEntry:
    """Returns the entry that a row of the trail holds.

    Raises:
        StoreError: somebody else wrote it.
    """
    values = {name: row[name] for name in TRAIL_COLUMNS}
    try:
        known = {
            name: json.loads(values[name]) for name in ("arguments", "before", "after") if values[name] is not None
        }
        return TrailEntry(**values | known)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"a row of the trail is not what flashsale writes: {type(error).__name__}") from None


def entry_text(entry: TrailEntry) -> str:
    """Returns an entry as JSON."""
    return _text(asdict(entry))


def read_text(text: bytes) -> TrailEntry | None:
    """Returns the entry of such JSON; None where somebody else wrote it."""
    try:
        return TrailEntry(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None


def _text(value: object) -> str:
    """Returns ASCII JSON; what JSON cannot express as its text: an entry is never refused for it."""
    return json.dumps(value, separators=(",", ":"), default=str)
