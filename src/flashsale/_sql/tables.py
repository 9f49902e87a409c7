"""The tables of `SQLAlchemyStore`, and the statements on them that are the same in both APIs. No connection here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Executable,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    Update,
    and_,
    bindparam,
    exists,
    func,
    insert,
    inspect,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.types import TypeEngine

from flashsale._rules.rows import TableName

METADATA: Final = MetaData()


def _words() -> TypeEngine[str]:
    """Text of people in any script, whatever the database's own character set holds."""
    return Text().with_variant(mysql.TEXT(charset="utf8mb4"), "mysql", "mariadb")


def _json() -> TypeEngine[str]:
    """ASCII JSON; MySQL's TEXT ends at 64 KiB."""
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql", "mariadb")


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
    Column("purged_at", Double),  # NULL: it was not purged
    Column("partitions", Integer),  # NULL: it was not loaded yet, or by a release that knew of none
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
    Column("settled_at", Double),  # of its last move; NULL: it has not moved since it was saved
    Column("reason", _words()),  # of a hook
    Column("persisted_at", Double),  # NULL: a tombstone, or saved by a release before
)

SETTLED: Final = Index("flashsale_orders_settled", ORDERS.c.sale, ORDERS.c.settled_at)
BUYER: Final = Index("flashsale_orders_buyer", ORDERS.c.sale, ORDERS.c.buyer_id)

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

REQUESTS: Final = Table(
    "flashsale_requests",
    METADATA,
    Column("sale", _id(64), primary_key=True),
    Column("request_id", _id(128), primary_key=True),
    Column("goods_id", _id(64), nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("result", BigInteger, nullable=False),
)
"""Restocks that were done, by the ids that their callers gave them."""

AUDIT: Final = Table(
    "flashsale_audit",
    METADATA,
    Column("entry_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("sale", _id(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("actor", _words(), nullable=False),
    Column("host", _words(), nullable=False),
    Column("command", _words(), nullable=False),
    Column("arguments", _json(), nullable=False),
    Column("before", _json(), nullable=False),
    Column("after", _json()),  # NULL: begun, and nobody knows how it ended
    Column("reason", _words()),
    sqlite_autoincrement=True,
)
"""The trail: one row for each command of an operator. Nothing deletes one."""

TABLES: Final[Mapping[TableName, Table]] = {
    "sales": SALES,
    "goods": GOODS,
    "orders": ORDERS,
    "events": EVENTS,
    "requests": REQUESTS,
    "audit": AUDIT,
}


def missing_parts(connection: Connection) -> list[Executable]:
    """Returns the statements that bring tables of the release before up to date; that release still works on them."""
    seen, missing = inspect(connection), list[Executable]()
    for column in (SALES.c.purged_at, SALES.c.partitions, ORDERS.c.settled_at, ORDERS.c.reason, ORDERS.c.persisted_at):
        if column.name not in {known["name"] for known in seen.get_columns(column.table.name)}:
            kind = column.type.compile(connection.dialect)
            missing.append(text(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))
    indexes = {index["name"] for index in seen.get_indexes(ORDERS.name)}
    missing += [CreateIndex(index) for index in (SETTLED, BUYER) if index.name not in indexes]
    return missing


def settled_query(sale: str, moment: float, order_id: str, limit: int) -> Select[Any]:
    """Returns the query of `MovedRowStore.select_settled`."""
    later = or_(ORDERS.c.settled_at > moment, ORDERS.c.order_id > order_id)
    query = select(ORDERS).where(ORDERS.c.sale == sale, ORDERS.c.settled_at >= moment, later)
    return query.order_by(ORDERS.c.settled_at, ORDERS.c.order_id).limit(limit)


def buyer_query(sale: str, buyer_id: str, limit: int) -> Select[Any]:
    """Returns the query of `MovedRowStore.select_buyer`; in the order of the key, SQLite would read by the key."""
    query = select(ORDERS).where(ORDERS.c.sale == sale, ORDERS.c.buyer_id == buyer_id)
    return query.order_by(ORDERS.c.created_at.desc(), ORDERS.c.order_id).limit(limit)


def trail_query(sale: str, after: int, limit: int, *, last: bool) -> Select[Any]:
    """Returns the query of `TrailedRowStore.select_trail`."""
    query = select(AUDIT).where(AUDIT.c.sale == sale, AUDIT.c.entry_id > after)
    return query.order_by(AUDIT.c.entry_id.desc() if last else AUDIT.c.entry_id).limit(limit)


# -- statements, each made once for the columns that it names -------------------------------------------------------


Columns: TypeAlias = ReadOnlyColumnCollection[str, Any]
Shape: TypeAlias = tuple[tuple[str, str], ...]


def condition(where: Mapping[str, Any]) -> tuple[Shape, dict[str, Any]]:
    """Returns the shape of a condition of `RowStore`, which names its statement, and the parameters of that."""
    shape = tuple((name, _kind(value)) for name, value in where.items())
    return shape, {f"{name}_is": value for name, value in where.items() if value is not None}


def _kind(value: object) -> str:
    return "null" if value is None else "any" if isinstance(value, list) else "one"


def _test(column: Column[Any], kind: str) -> ColumnElement[bool]:
    if kind == "null":
        return column.is_(None)
    given: BindParameter[Any] = bindparam(f"{column.name}_is", expanding=kind == "any")
    return column.in_(given) if kind == "any" else column == given


@cache
def select_where(table: TableName, columns: tuple[str, ...], shape: Shape) -> Select[Any]:
    """Returns the SELECT of these columns."""
    it = TABLES[table].c
    return select(*(it[name] for name in columns)).where(*(_test(it[name], kind) for name, kind in shape))


@cache
def update_where(table: TableName, shape: Shape) -> Update:
    """Returns the UPDATE of what its parameters name beside those of the condition."""
    it = TABLES[table]
    return update(it).where(*(_test(it.c[name], kind) for name, kind in shape))


def events_query(sale: str, due: float | None, after: int, window: int) -> Select[Any]:
    """Returns the query of `RowStore.select_events`, without its limit, on the next `window` events after this one.

    A window cannot be read but in the order of its key: without one, PostgreSQL sorts all events of the sale for a page
    as long as it has not analyzed the table, and SQLite always does.
    """
    page = select(EVENTS).where(EVENTS.c.event_id > after).order_by(EVENTS.c.event_id).limit(window).subquery()
    it, first = page.c, EVENTS.alias()
    of_order = [column for column in ORDERS.c if column.name != "state"]
    its_order = and_(ORDERS.c.sale == it.sale, ORDERS.c.order_id == it.order_id)
    query = select(it.event_id, it.state, it.previous, it.attempts, *of_order).join_from(page, ORDERS, its_order)
    query = query.where(it.sale == sale)
    if due is None:
        query = query.where(it.due_at.is_(None))
    else:
        query = query.where(it.due_at <= due, ~_waits_for_another(it, first.c))
    return query.order_by(it.event_id)


def _waits_for_another(it: Columns, first: Columns) -> ColumnElement[bool]:
    same_order = and_(first.sale == it.sale, first.order_id == it.order_id)
    return exists().where(same_order, first.event_id < it.event_id, first.due_at.is_not(None))


def last_event_query(after: int, window: int) -> Select[Any]:
    """Returns the query of the number of the last event in a window that is full."""
    later = select(EVENTS.c.event_id).where(EVENTS.c.event_id > after).order_by(EVENTS.c.event_id)
    return later.offset(window - 1).limit(1)


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
        return _unnest_new(table, tuple(common), tuple(rows[0])), {**common, **arrays}
    if dialect == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing(index_elements=list(table.primary_key))
        return statement.returning(key_of(table)), whole(common, rows)
    return None


def insert_events(
    dialect: str, rows: Sequence[Mapping[str, Any]]
) -> tuple[Executable, Mapping[str, Any] | Sequence[Mapping[str, Any]]]:
    """Returns statement and parameters that insert events; the drivers of MySQL make one statement of it, too."""
    if dialect == "postgresql":
        return _unnest(EVENTS, (), tuple(rows[0])), {name: [row[name] for row in rows] for name in rows[0]}
    return insert(EVENTS), rows


def whole(common: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns each row with the columns that all share."""
    return [{**common, **row} for row in rows]


@cache
def _unnest_new(table: Table, common: tuple[str, ...], own: tuple[str, ...]) -> Executable:
    fresh = _unnest(table, common, own).on_conflict_do_nothing(index_elements=list(table.primary_key))
    return fresh.returning(key_of(table))


@cache
def _unnest(table: Table, common: tuple[str, ...], own: tuple[str, ...]) -> postgresql.Insert:
    """One array for each column that differs, one value for each that does not; docs/design.md has what it wins."""

    def sent(column: Column[Any]) -> TypeEngine[Any]:
        # text, not varchar(n): a cast to varchar(n) would cut a long value silently
        return Text() if isinstance(column.type, String) else column.type

    arrays = [bindparam(name, type_=postgresql.ARRAY(sent(table.c[name]))) for name in own]
    rows = func.unnest(*arrays).table_valued(*own).render_derived()
    shared = [bindparam(name, type_=sent(table.c[name])) for name in common]
    names = [*common, *own]
    return postgresql.insert(table).from_select(names, select(*shared, *rows.c))
