"""What joins a transaction of the host's: which connection may be joined, and when its transaction has ended.

No event of SQLAlchemy tells that COMMIT was answered. So nobody trusts that there was one: whoever waits reads again.
And nothing is added to what is the host's, so nothing is left behind.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, RootTransaction, false, update

from flashsale._sql.engines import is_in_memory
from flashsale._sql.tables import GOODS
from flashsale.errors import InvalidRequest

Call: TypeAlias = Callable[[], Any]
Begin: TypeAlias = Callable[[list[Call]], Callable[[float], object]]

WRITE_LOCK: Final = update(GOODS).where(false()).values(booked=0)
"""Takes SQLite's write lock, and makes its driver begin: a savepoint without a transaction would commit at its end."""

WAIT: Final = 1.0  # seconds that a commit of the host's waits for what follows it
_TICK: Final = 0.05  # seconds between two looks at the transactions that are open


def not_joinable(why: str) -> InvalidRequest:
    """Returns the error for a `connection` that cannot be joined."""
    return InvalidRequest("connection", why)


def session_of(given: object, kind: type) -> Any:
    """Returns the Session that was given, or that a scoped one stands for; None: none whose connections are `kind`."""
    sessions: Any
    scoped: Any
    if kind is Connection:  # imported here: whoever has no Session does without
        from sqlalchemy.orm import Session, scoped_session  # noqa: PLC0415

        sessions, scoped = Session, scoped_session
    else:
        from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session  # noqa: PLC0415

        sessions, scoped = AsyncSession, async_scoped_session
    if isinstance(given, scoped):
        given = given()
    return given if isinstance(given, sessions) else None


def plain(connection: Any) -> Any:
    """Returns the connection, or the one under an `AsyncConnection`; None: that was not opened."""
    return getattr(connection, "sync_connection", connection)


def check_joinable(connection: Connection | None, engine: Any) -> Connection:
    """Returns the connection when it is open, and of the same database as `engine`.

    Raises:
        InvalidRequest: it is not.
    """
    if connection is None or connection.closed:
        raise not_joinable("is not open")
    ours, theirs = engine.url, connection.engine.url
    if connection.dialect.name != engine.dialect.name:
        raise not_joinable(f"is one of {connection.dialect.name}, the store is on {engine.dialect.name}")
    if is_in_memory(ours) or is_in_memory(theirs):
        same = connection.engine.pool is engine.pool
    elif engine.dialect.name == "sqlite":
        same = Path(str(ours.database)).resolve() == Path(str(theirs.database)).resolve()
    else:
        same = not (ours.database and theirs.database) or ours.database == theirs.database
    if not same:
        raise not_joinable("is of another database than the store")
    return connection


def check_transaction(connection: Connection) -> None:
    """Refuses a connection on which each statement is committed by itself.

    Raises:
        InvalidRequest: there is no transaction to join.
    """
    pooled = connection.connection
    drivers = (pooled.dbapi_connection, pooled.driver_connection)
    if connection.dialect.name == "sqlite":
        commits = not any(getattr(driver, "in_transaction", False) for driver in drivers)
    else:
        commits = any(map(_autocommits, drivers))
    if commits:
        raise not_joinable("is in autocommit mode: there is no transaction to join")


def _autocommits(driver: Any) -> bool:
    if (ask := getattr(driver, "get_autocommit", None)) is not None:  # of MySQL's drivers
        return bool(ask())
    return getattr(driver, "autocommit", False) is True


class Ending:
    """The end of one transaction of the host's, and what is done then.

    It is seen at once when the connection has gone back to its pool (a `with engine.begin()` or a Session ends), else
    by a thread that looks at what is open.

    Args:
        connection: the host's, with a transaction.
        transaction: the same.
    """

    def __init__(self, connection: Connection, transaction: RootTransaction) -> None:
        self._connection = weakref.ref(connection)
        self._transaction = weakref.ref(transaction)
        self._checkout = weakref.ref(connection.connection, self._returned)
        self._calls: dict[Begin, list[Call]] = {}
        self._waits: list[Callable[[float], object]] = []
        self._lock = threading.Lock()

    def add(self, begin: Begin, call: Call) -> None:
        """Lets `begin` begin this call, with its others, when the transaction has ended.

        Args:
            begin: takes the calls, and returns what waits for their end, so many seconds at most.
            call: one of them.
        """
        self._calls.setdefault(begin, []).append(call)

    def is_of(self, transaction: RootTransaction) -> bool:
        """Returns whether it is this transaction's."""
        return self._transaction() is transaction

    @property
    def has_come(self) -> bool:
        """True once the transaction has ended, whatever became of it."""
        transaction = self._transaction()
        return transaction is None or not transaction.is_active

    def begin(self) -> list[Callable[[float], object]]:
        """Begins what was to be done, once; returns what waits for it."""
        with self._lock:
            calls, self._calls = self._calls, {}
            self._waits += [begin(theirs) for begin, theirs in calls.items()]
        return self._waits

    def _returned(self, _: object) -> None:
        """The pool has its connection again: we hear it as soon as nobody refers to what was checked out."""
        connection = self._connection()
        if connection is None or not connection.closed:
            return  # the garbage collector found it, wherever the program was just then: the thread sees to it
        until = monotonic() + WAIT
        for wait in self.begin():
            wait(max(0.0, until - monotonic()))


_open: list[Ending] = []
_thread: threading.Thread | None = None


def ending(connection: Connection) -> Ending:
    """Returns the end of the transaction that is open on a connection."""
    global _thread  # noqa: PLW0603 - one for the process
    transaction = connection.get_transaction()
    assert isinstance(transaction, RootTransaction)
    for known in _open.copy():
        if known.is_of(transaction):
            return known
    new = Ending(connection, transaction)
    _open.append(new)
    if _thread is None:  # two at a time do no harm
        _thread = threading.Thread(target=_look, name="flashsale-endings", daemon=True)
        _thread.start()
    return new


def _look() -> None:
    global _thread  # noqa: PLW0603 - one for the process
    while True:
        sleep(_TICK)
        for known in _open.copy():
            if known.has_come:
                with suppress(Exception):  # the other thread does it; or none is to be had, and the syncer does it
                    _open.remove(known)
                    known.begin()
        if not _open:
            _thread = None  # whoever comes from now on starts another, and who came before is seen now
            if not _open:
                return


def _start_anew() -> None:
    """Of the parent's thread and transactions, a child that was forked has nothing."""
    global _thread  # noqa: PLW0603 - one for the process
    _thread = None
    _open.clear()


os.register_at_fork(after_in_child=_start_anew)
