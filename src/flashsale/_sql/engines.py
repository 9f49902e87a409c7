"""What `SQLAlchemyStore` needs of an engine: its URL, its options, and its errors turned into ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError

from flashsale._rules.sqlstates import blames_row, is_rolled_back
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
TIMEOUT: Final = 7.0  # seconds: waiting for a free connection and a transaction on it stay within 15
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


def engine_options(url: URL, timeout: float) -> dict[str, Any]:
    """Returns how we make an engine: without buyers' data in messages, and a database in memory shared by all.

    It waits `timeout` seconds for a connection of the pool, and as long to make one.
    """
    options: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() != "sqlite":
        options["isolation_level"] = ISOLATION  # once a connection, where a host's engine needs it in each transaction
        options["pool_timeout"] = timeout
        options["connect_args"] = _connect_args(url.get_driver_name(), timeout)
    if is_in_memory(url):
        # Each connection would have a database of its own: one connection, and whoever comes second waits for it.
        pool = url.get_dialect().get_pool_class(url.set(database="file"))  # type: ignore[attr-defined]
        options |= {"poolclass": pool, "pool_size": 1, "max_overflow": 0}
        options["connect_args"] = {"check_same_thread": False}
    return options


def _connect_args(driver: str, timeout: float) -> dict[str, Any]:
    whole = max(2, round(timeout))  # libpq takes 1 for 2
    if driver in {"psycopg", "psycopg2", "mysqldb"}:
        return {"connect_timeout": whole}
    if driver == "pymysql":
        return {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole}
    if driver == "aiomysql":
        return {"async_creator_fn": partial(_connect_aiomysql, timeout)}
    return {"timeout": timeout} if driver == "asyncpg" else {}


async def _connect_aiomysql(timeout: float, **settings: Any) -> Any:
    """Connects within `timeout` seconds: its own `connect_timeout` does not cover the handshake."""
    aiomysql = import_module("aiomysql")
    async with asyncio.timeout(timeout):
        return await aiomysql.connect(**settings)


def limit_waiting(dialect: str, timeout: float, connection: Any, _record: object) -> None:
    """Sets up a new connection: the server gives up as well, so that what we left holds no lock for long."""
    lock = max(1, round(timeout / 2))
    cursor = connection.cursor()
    if dialect in {"mysql", "mariadb"}:
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}")
    elif dialect == "postgresql":
        cursor.execute(f"SET statement_timeout = {timeout * 1000:.0f}")
        cursor.execute(f"SET lock_timeout = {lock * 1000}")
        connection.commit()
    cursor.close()


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
