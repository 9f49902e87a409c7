"""The tables of `SQLAlchemyStore`, and how goods and orders become rows and come back.

Pure: no connection here. Both stores, sync and async, use this one module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Executable,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.types import TypeEngine

METADATA: Final = MetaData()


def _id(length: int) -> TypeEngine[str]:
    """Ids are ASCII and compared byte by byte, whatever the database's own collation folds or sorts."""
    return (
        String(length)
        .with_variant(String(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    )


SALES: Final = Table(
    "flashsale_sales",
    METADATA,
    Column("sale", _id(64), primary_key=True),
    Column("epoch", Integer, nullable=False),
)

GOODS: Final = Table(
    "flashsale_goods",
    METADATA,
    Column("sale", _id(64), primary_key=True),
    Column("goods_id", _id(64), primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("booked", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("per_buyer", BigInteger),
    Column("opens_at", Double),
    Column("closes_at", Double),
    Column("hold", Double),
    Column("loaded", Boolean, nullable=False),
)

ORDERS: Final = Table(
    "flashsale_orders",
    METADATA,
    Column("sale", _id(64), primary_key=True),
    Column("order_id", _id(128), primary_key=True),
    Column("goods_id", _id(64), nullable=False),
    Column("buyer_id", _id(128), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Double),
    Column("data", Text),
)

EVENTS: Final = Table(
    "flashsale_events",
    METADATA,
    Column("event_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("sale", _id(64), nullable=False),
    Column("order_id", _id(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("previous", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Double),  # NULL: dead
    UniqueConstraint("sale", "order_id", "event_id"),  # the index; as a constraint it is created with the table
    sqlite_autoincrement=True,  # no id twice, also after the last row was deleted
)
"""What the host's handler has not heard yet. A row's order is in `ORDERS`."""


# -- inserts that skip what exists ----------------------------------------------------------------------------------


def key_of(table: Table) -> Column[Any]:
    """Returns the column that names a row within its sale (of `SALES`: the sale itself)."""
    return list(table.primary_key)[-1]


def insert_new(
    dialect: str, table: Table, common: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[Executable, Mapping[str, Any] | Sequence[Mapping[str, Any]]] | None:
    """Returns statement and parameters of one INSERT that skips the keys that exist and returns those it wrote.

    None for a dialect that has no such statement. Only the primary key is skipped: any other constraint refuses the
    row aloud.

    Args:
        dialect: SQLAlchemy's name of it.
        table: into which.
        common: the columns that are the same in all rows.
        rows: the other columns of each.
    """
    if dialect == "postgresql":
        arrays = {name: [row[name] for row in rows] for name in rows[0]}
        return _unnest(table, tuple(common)), {**common, **arrays}
    if dialect == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing(index_elements=list(table.primary_key))
        return statement.returning(key_of(table)), whole(common, rows)
    return None


def whole(common: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns each row with the columns that all share."""
    return [{**common, **row} for row in rows]


@cache
def _unnest(table: Table, common: tuple[str, ...]) -> Executable:
    """One array for each column that differs, one value for each that does not; docs/design.md has what it wins."""

    def sent(column: Column[Any]) -> TypeEngine[Any]:
        # text, not varchar(n): a cast to varchar(n) would cut a long value silently
        return Text() if isinstance(column.type, String) else column.type

    own = [column for column in table.c if column.name not in common]
    arrays = [bindparam(column.name, type_=postgresql.ARRAY(sent(column))) for column in own]
    rows = func.unnest(*arrays).table_valued(*(column.name for column in own)).render_derived()
    shared = [bindparam(name, type_=sent(table.c[name])) for name in common]
    names = [*common, *(column.name for column in own)]
    statement = postgresql.insert(table).from_select(names, select(*shared, *rows.c))
    return statement.on_conflict_do_nothing(index_elements=list(table.primary_key)).returning(key_of(table))
