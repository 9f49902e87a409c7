"""What `SQLAlchemyStore` needs of an engine: its URL, its options, and its errors turned into ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError
from sqlalchemy.pool import Pool, QueuePool

from flashsale._rules.sqlstates import blames_row, is_rolled_back
from flashsale._sql.deadlines import Deadline, time_left
from flashsale.errors import InvalidRequest, OutcomeUnknown, RowRefused, StoreError

DRIVERS: Final = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""The driver we choose where a URL names none."""

ASYNC_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
}

ISOLATION: Final = "READ COMMITTED"
SQLITE_WAIT: Final = 10.0  # seconds that a writer waits for another before it gives up


def database_url(url: object, drivers: Mapping[str, str]) -> URL:
    """Returns the URL with the driver of `drivers` where it names none.

    Raises:
        InvalidRequest: not a database URL; the message does not quote it, it may hold a password.
    """
    try:
        parsed = make_url(url)  # type: ignore[arg-type]
    except ArgumentError as error:
        raise InvalidRequest("url_or_engine", "must be an engine or a database URL") from error
    return parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername))


def engine_options(url: URL, timeout: float, drivers: Mapping[str, str]) -> dict[str, Any]:
    """Returns how we make an engine: without buyers' data in messages, and a database in memory shared by all.

    It waits for a connection of the pool for half of `timeout` at most.
    """
    options: dict[str, Any] = {"hide_parameters": True}
    dialect: Any = url.get_dialect()
    if drivers is ASYNC_DRIVERS:
        dialect = dialect.get_async_dialect_cls(url)
    if url.get_backend_name() != "sqlite":
        options["isolation_level"] = ISOLATION  # once a connection, where a host's engine needs it in each transaction
    if is_in_memory(url):
        # Each connection would have a database of its own: one connection, and whoever comes second waits for it.
        url = url.set(database="file")
        options |= {"pool_size": 1, "max_overflow": 0}
        options["connect_args"] = {"check_same_thread": False}
    kind: type[Pool] = dialect.get_pool_class(url)
    if issubclass(kind, QueuePool):
        options |= {"poolclass": _in_time(kind), "pool_timeout": timeout / 2}
    return options


def _in_time(kind: type[QueuePool]) -> type[QueuePool]:
    """Returns a pool that is waited for no longer than the call around it has time."""

    class InTime(kind):  # type: ignore[valid-type, misc]
        longest = 0.0

        @property
        def _timeout(self) -> float:
            return time_left(self.longest)

        @_timeout.setter
        def _timeout(self, seconds: float) -> None:
            self.longest = seconds

        def recreate(self) -> QueuePool:
            pool: InTime = super().recreate()
            pool.longest = self.longest
            return pool

    return InTime


def connect_in_time(timeout: float, dialect: Any, _record: object, _args: object, settings: dict[str, Any]) -> None:
    """Limits the making of a connection to half of `timeout`, or to what the call around it has left."""
    left = time_left(timeout / 2)
    whole = max(2, round(left))  # libpq takes 1 for 2
    if dialect.driver in {"psycopg", "psycopg_async", "psycopg2", "mysqldb"}:
        settings["connect_timeout"] = whole
    elif dialect.driver == "pymysql":
        settings |= {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole}
    elif dialect.driver == "aiomysql":
        settings["async_creator_fn"] = partial(_connect_aiomysql, left)
    elif dialect.driver == "asyncpg":
        settings["timeout"] = left


async def _connect_aiomysql(timeout: float, **settings: Any) -> Any:
    """Connects within `timeout` seconds: its own `connect_timeout` does not cover the handshake."""
    aiomysql = import_module("aiomysql")
    async with asyncio.timeout(timeout):
        return await aiomysql.connect(**settings)


def limit_waiting(dialect: str, timeout: float, connection: Any, _record: object) -> None:
    """Sets up a new connection: the server gives up as well, so that what we left holds no lock for long.

    Nor does a process that hangs within a transaction, where the server can tell: in PostgreSQL and MariaDB.
    """
    lock = max(1, round(timeout / 2))
    driver = getattr(connection, "driver_connection", connection)
    with Deadline(timeout) as deadline:
        deadline.watch(driver)
        cursor = connection.cursor()
        if dialect in {"mysql", "mariadb"}:
            idle = f"/*M! , idle_transaction_timeout = {max(1, round(timeout))} */"  # MySQL has nothing like it
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock} {idle}")
        elif dialect == "postgresql":
            cursor.execute(f"SET statement_timeout = {timeout * 1000:.0f}")
            cursor.execute(f"SET lock_timeout = {lock * 1000}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {timeout * 1000:.0f}")
            connection.commit()
        cursor.close()
    if hasattr(
        driver, "_read_timeout"
    ):  # PyMySQL's, which was for connecting: from here on each transaction is watched
        driver._read_timeout = driver._write_timeout = None


def driver_connection(connection: Any) -> Any:
    """Returns the driver's own connection under one of SQLAlchemy."""
    return getattr(connection, "sync_connection", connection).connection.driver_connection


def is_in_memory(url: URL) -> bool:
    """True for a database that lives in one process only."""
    return url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}


def prepare_sqlite(timeout: float, connection: Any, _record: object) -> None:
    """Sets up a new SQLite connection: writers wait for each other, and readers for nobody."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {min(SQLITE_WAIT, timeout) * 1000:.0f}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def store_error(error: Exception, *, committing: bool = False) -> StoreError | OutcomeUnknown:
    """Returns our error for what the database or its driver raised, without buyers' data in the message.

    The chained error is shown with it, and is cleaned too: a host's engine may show parameters, and a server quotes
    the row it refuses. The driver's own error, unchanged, is its `orig`.

    Args:
        error: what was raised.
        committing: it came instead of the answer to COMMIT.
    """
    driver = getattr(error, "orig", None) or error
    name = type(driver).__name__
    if isinstance(error, StatementError):
        error.hide_parameters = True
        if _blames_row(error):
            error.args = (name,)
            error.__cause__ = None
            return RowRefused(f"the database refused a row: {name}")
    if committing and not is_rolled_back(driver):
        return OutcomeUnknown(f"the database did not answer COMMIT: {name}")
    return StoreError(f"the database failed: {name}")


def _blames_row(error: StatementError) -> bool:
    if isinstance(error, DBAPIError):
        return not error.connection_invalidated and blames_row(error.orig)
    return True  # a value that no column takes
