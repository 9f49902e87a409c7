"""Which database the demo writes to: the host's, or SQLite in a temporary folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import sqlalchemy
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from flashsale import stores
from flashsale._sql.engines import DRIVERS, database_url
from flashsale._sql.tables import METADATA
from flashsale.aio import stores as aio_stores
from flashsale.demo.options import OptionError
from flashsale.errors import StoreError


class Database(NamedTuple):
    """The database of the demo: its URL, without a driver, and what to call it."""

    url: str
    label: str


def database_for(url: str | None, folder: Path, sale: str) -> Database:
    """Returns the host's database at `url`, or SQLite in `folder`; with the tables, which are made if need be.

    Raises:
        OptionError: it cannot be used; the message holds no password.
    """
    if url is None:
        parsed, label = make_url(f"sqlite:///{folder / 'sale.db'}"), "SQLite in a temporary folder"
    else:
        parsed = _parse(url)
        label = parsed.render_as_string(hide_password=True)
    plain = parsed.set(drivername=parsed.get_backend_name()).render_as_string(hide_password=False)
    try:
        aio_stores.SQLAlchemyStore(plain, sale)  # the crowd's: the asyncio API has its own driver
        with stores.SQLAlchemyStore(plain, sale) as store:
            store.create_all()
    except ModuleNotFoundError as error:
        raise OptionError(f"--database: its driver is not installed: pip install {error.name}") from error
    except SQLAlchemyError as error:  # its text may quote the URL
        raise OptionError(f"--database: not of a kind that flashsale knows ({type(error).__name__})") from error
    except StoreError as error:
        raise OptionError(f"--database: {label}: {error}") from error
    return Database(plain, label)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise OptionError("--database: must be an SQLAlchemy URL such as postgresql://user@localhost/name") from error
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise OptionError("--database: several processes share it; name a file, as in sqlite:///sale.db")
    return parsed


def forget(url: str, sale: str) -> None:
    """Deletes the rows of `sale`; the tables stay."""
    engine = sqlalchemy.create_engine(database_url(url, DRIVERS))
    try:
        with engine.begin() as connection:
            for table in METADATA.sorted_tables:
                connection.execute(table.delete().where(table.c.sale == sale))
    finally:
        engine.dispose()
