"""The last step beyond `RowStore`: the trail, in the transactions of the commands. Our own stores extend this one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from flashsale._rules.rows import Row
from flashsale._rules.trail import TRAIL_COLUMNS, Note, after_text, entry_values, noted, read_entry
from flashsale.aio.stores.base import Connection
from flashsale.aio.stores.hooked import HookedRowStore
from flashsale.errors import OutcomeUnknown, StoreError
from flashsale.model.trail import TrailEntry


class TrailedRowStore(HookedRowStore[Connection]):
    """A `HookedRowStore` with one table more, and two primitives.

    - `audit`: entry_id, sale, at, actor, host, command, arguments, before, after, reason. Key: entry_id, which the
      database counts up and never uses twice.

    `at` is float epoch seconds; arguments, before and after are JSON text. after and reason may be NULL. No method
    deletes a row.
    """

    @abstractmethod
    async def insert_entry(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Inserts a row into `audit`, and returns its number."""

    @abstractmethod
    async def select_trail(self, connection: Connection, after: int, limit: int, *, last: bool) -> Iterable[Row]:
        """Returns the first `limit` rows of the sale's trail after this number, or the last; in any order."""

    async def note(self, entry: TrailEntry) -> int:
        """Writes an entry to the trail, and returns its number."""
        async with self.transaction() as connection:
            return await self.insert_entry(connection, {"sale": self.sale, **entry_values(entry)})

    async def trail(self, *, after: int = 0, limit: int = 100, last: bool = False) -> Sequence[TrailEntry]:
        """Returns entries of the trail, oldest first.

        Args:
            after: the number of an entry: only those after it.
            limit: at most so many.
            last: the last ones, not the first.
        """
        async with self._reading() as connection:
            entries = [read_entry(row) for row in await self.select_trail(connection, after, limit, last=last)]
        return sorted(entries, key=lambda entry: entry.entry_id)

    async def trail_of(self, command: str) -> Sequence[TrailEntry]:
        """Returns the entries of one command, such as "settle", oldest first."""
        where = {"sale": self.sale, "command": command}
        async with self._reading() as connection:
            entries = [read_entry(row) for row in await self.select(connection, "audit", TRAIL_COLUMNS, where)]
        return sorted(entries, key=lambda entry: entry.entry_id)

    @asynccontextmanager
    async def noting(self, entry: TrailEntry) -> AsyncIterator[Note]:
        """Gives the note of a command, and writes its entry to the trail.

        The first transaction of this store that writes inside the block, in this thread or task, carries the row: both
        are committed, or neither. Else it is inserted at the end. The outcome, as `Note.finish` was told, or as `error`
        what the block raised, is written at the end: a row without one has begun, and nobody knows how it ended.

        Where the database takes no entry at the end, it is logged: the command was carried out all the same.
        """
        note = Note(entry, self)
        try:
            with note.watched():
                yield note
        finally:
            await self._end(note)

    async def _end(self, note: Note) -> None:
        try:
            async with self.transaction() as connection:
                outcome = {"after": after_text(note.entry)}
                if not (note.row_id and await self.update(connection, "audit", self._key(note), outcome)):
                    await self.insert_entry(connection, self._values(note))
        except (StoreError, OutcomeUnknown):
            note.log()

    def _writing(self) -> AbstractAsyncContextManager[Connection]:
        note = noted(self)
        return super()._writing() if note is None else self._carrying(note)

    @asynccontextmanager
    async def _carrying(self, note: Note) -> AsyncIterator[Connection]:
        """Gives a transaction that inserts the row of a note at its end."""
        note.is_carried, before = True, note.row_id
        try:
            async with self.transaction() as connection:
                yield connection
                if not await self._is_written(connection, note):
                    note.row_id = await self.insert_entry(connection, self._values(note) | {"after": None})
        except BaseException as error:
            note.is_carried = False
            if not isinstance(error, OutcomeUnknown):  # else the row may be there
                note.row_id = before
            raise

    async def _is_written(self, connection: Connection, note: Note) -> bool:
        return bool(note.row_id and await self.select(connection, "audit", ("entry_id",), self._key(note)))

    def _values(self, note: Note) -> dict[str, Any]:
        return {"sale": self.sale, **entry_values(note.entry)}

    def _key(self, note: Note) -> dict[str, Any]:
        """Returns what names the row; a number that was rolled back may be another's, on SQLite."""
        return {"sale": self.sale, "entry_id": note.row_id, "at": note.entry.at, "actor": note.entry.actor}
