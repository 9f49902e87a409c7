"""One row of the sale's database, locked: what is read there, compared and written is one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Locked:
    """A row that nobody else changes before the transaction ends.

    Args:
        store: the store within the transaction.
        connection: of the transaction.
        row: the row; None: there is none.
    """

    store: Any
    connection: Any
    row: Mapping[str, Any] | None


def can_lock(store: Any) -> bool:
    """Returns whether this store can: those of this library do, one of a host's own need not."""
    return all(hasattr(store, name) for name in ("_writing", "select", "joined"))


@contextmanager
def locked(store: Any, table: str, columns: Sequence[str], **key: str) -> Iterator[Locked]:
    """Begins a transaction with the lock of one row of the sale; it carries the entry of the trail, if one is noted."""
    with store._writing() as connection:
        within = store.joined(connection)
        where = {"sale": store.sale, **key}
        found = [dict(row) for row in within.select(connection, table, columns, where, lock=True)]
        yield Locked(within, connection, found[0] if found else None)
