"""The store on SQLAlchemy Core: SQLite, PostgreSQL, MySQL and MariaDB."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from copy import copy
from functools import partial
from typing import Any, Self

from sqlalchemy import URL, delete, event, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from flashsale._rules.rows import EVENT_STATES, Row, TableName
from flashsale._sql.deadlines import TIMEOUT, Deadline
from flashsale._sql.engines import (
    ASYNC_DRIVERS,
    ISOLATION,
    connect_in_time,
    database_url,
    driver_connection,
    engine_options,
    is_in_memory,
    limit_waiting,
    prepare_sqlite,
    store_error,
)
from flashsale._sql.joining import (
    WRITE_LOCK,
    Begin,
    Call,
    check_joinable,
    check_transaction,
    ending,
    not_joinable,
    plain,
    session_of,
)
from flashsale._sql.tables import (
    AUDIT,
    EVENTS,
    GOODS,
    METADATA,
    ORDERS,
    TABLES,
    buyer_query,
    condition,
    events_query,
    insert_events,
    insert_new,
    key_of,
    last_event_query,
    missing_parts,
    select_where,
    settled_query,
    trail_query,
    update_where,
    whole,
)
from flashsale.aio.stores.trailed import TrailedRowStore
from flashsale.errors import StoreError
from flashsale.model.checks import check_seconds


class SQLAlchemyStore(TrailedRowStore[AsyncConnection]):
    """The `AsyncOrderStore` of one sale, in six tables of the host's database.

    It may be made before the process forks: a child makes connections of its own, as soon as it needs one.
    Transactions run at READ COMMITTED, whatever the engine is set to (on SQLite: as the engine does).

    Args:
        url_or_engine: a database URL, or an engine of the host's, which stays the host's to dispose of. A URL that
            names no driver gets the one in `ASYNC_DRIVERS`.
        sale: name of the sale.
        hooks: an `AsyncOrderHooks`: your own code in the store's transactions.
        events: the states that leave an event for the `Outbox`, also as a text with commas; with PERSISTED among them,
            each order that is saved. The same in every process of the sale.
        timeout: seconds after which a database that does not answer is given up, with `StoreError` or, at its COMMIT,
            `OutcomeUnknown`: half of them at most in waiting for a connection of the pool, and as many in making one.
            A host's engine has its own times for these two. Hooks count, too.

    Raises:
        InvalidRequest: neither a URL nor an engine of this kind, not a name of a sale, no hooks of this kind, or not
            states.
    """

    def __init__(
        self,
        url_or_engine: str | URL | AsyncEngine,
        sale: str,
        *,
        hooks: object = None,
        events: str | Iterable[str] = EVENT_STATES,
        timeout: float = TIMEOUT,
    ) -> None:
        check_seconds("timeout", timeout, low=1.0)
        self._own: AsyncEngine | None = None
        if isinstance(url_or_engine, AsyncEngine):
            engine = url_or_engine
        else:
            url = database_url(url_or_engine, ASYNC_DRIVERS)
            engine = self._own = create_async_engine(url, **engine_options(url, timeout, ASYNC_DRIVERS))
            is_sqlite = engine.dialect.name == "sqlite"
            prepare = prepare_sqlite if is_sqlite else partial(limit_waiting, engine.dialect.name)
            event.listen(engine.pool, "connect", partial(prepare, timeout))
            event.listen(getattr(engine, "sync_engine", engine), "do_connect", partial(connect_in_time, timeout))
        # where it sets a connection's isolation, SQLAlchemy lets what the driver raises pass as it is
        driver_error = engine.dialect.loaded_dbapi.Error
        super().__init__(sale, hooks, (StatementError, driver_error), events=events)
        self._errors = (OSError, SQLAlchemyError, driver_error)
        self._dialect = engine.dialect.name
        self._engine = engine
        self._process = os.getpid()
        self._inherited: list[object] = []
        self._timeout = timeout
        self._isolates = self._own is None and self._dialect != "sqlite"
        self._joined: AsyncConnection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections of an engine that was made from a URL; never the host's."""
        if self._own is not None:
            await self._own.dispose()

    async def joined(self, connection: object) -> Self:
        """Returns this store in a transaction of the host's, which is begun where it has not begun yet.

        What the store does there is done with the host's commit, or never. It works in a savepoint, so that a call that
        raises has done nothing; it neither commits, nor rolls back what is the host's, and keeps the host's isolation.

        Args:
            connection: `AsyncConnection` or `AsyncSession` of the same database.

        Raises:
            InvalidRequest: it is something else, or is in autocommit mode.
            StoreError: the database failed.
        """
        try:
            if (session := session_of(connection, AsyncConnection)) is not None:
                connection = await session.connection(bind_arguments={"clause": ORDERS})
            if not isinstance(connection, AsyncConnection):
                raise not_joinable("must be AsyncConnection or AsyncSession of SQLAlchemy")
            opened = check_joinable(plain(connection), self._engine)
            if not connection.in_transaction():
                await connection.begin()
            if self._dialect == "sqlite":
                await connection.execute(WRITE_LOCK)
            check_transaction(opened)
        except self._errors as error:
            raise store_error(error) from error
        twin = copy(self)
        twin._joined = connection
        return twin

    def on_end(self, begin: Begin, call: Call) -> object:
        """Lets `begin` begin `call`, with its others, once the joined transaction has ended, whatever became of it.

        Returns:
            What all calls of that transaction have in common.
        """
        assert self._joined is not None
        end = ending(plain(self._joined))
        end.add(begin, call)
        return end

    async def _leave_parent(self) -> None:
        """Makes connections of this process's own: two processes must not speak on one."""
        if is_in_memory(self._engine.url):
            raise StoreError("a database in memory belongs to the process that opened it: this one was forked")
        self._inherited.append(self._engine.pool)  # collected as garbage, it might end the parent's connections
        self._process = os.getpid()
        await self._engine.dispose(close=False)

    def findings(self) -> list[str]:
        """Returns what of the engine's settings does not suit a sale; `FlashSale.check` asks."""
        wait: Any = getattr(self._engine.pool, "timeout", float)()
        if self._own is not None or wait <= TIMEOUT / 2:
            return []
        return [f"callers wait {wait:g} s for a connection of the engine's pool: set pool_timeout to {TIMEOUT / 2:g}"]

    async def create_all(self) -> None:
        """Creates the tables that do not exist yet; those that do stay as they are: `upgrade` adds columns to them."""
        for table in METADATA.sorted_tables:
            create = partial(table.create, checkfirst=True)
            try:
                await self._create(create)
            except StoreError:  # a database says so to one of two processes that create it at the same moment
                await self._create(create)

    async def upgrade(self) -> None:
        """Creates what `create_all` does, and adds to tables of the release before the columns that this one needs.

        The release before still works on them. It adds columns, and two indexes to the orders: do it before the sale, a
        long table is locked meanwhile.
        """
        await self.create_all()
        for _ in range(6):  # four columns, two indexes: another process may add each of them at the same moment
            with suppress(StoreError):
                await self._add_missing()
        await self._add_missing()

    async def _create(self, create: Callable[[Any], None]) -> None:
        async with self.transaction() as connection:
            await connection.run_sync(create)

    async def _add_missing(self) -> None:
        async with self.transaction() as connection:
            for statement in await connection.run_sync(missing_parts):
                await connection.execute(statement)

    # -- the primitives of `RowStore` -----------------------------------------------------------------------------

    async def sales(self) -> list[str]:
        """Returns the names of the sales that have items in this database: the first hundred."""
        async with self._reading() as connection:
            names = await connection.execute(select(GOODS.c.sale).distinct().order_by(GOODS.c.sale).limit(100))
            return [row.sale for row in names]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Gives a connection with a transaction; see `RowStore.transaction`."""
        if self._joined is not None:
            async with self._within(self._joined) as joined:
                yield joined
            return
        committing = False
        if os.getpid() != self._process:
            await self._leave_parent()
        with Deadline(self._timeout) as deadline:
            try:
                async with self._engine.connect() as connection:
                    deadline.watch(driver_connection(connection))
                    if self._isolates:
                        await connection.execution_options(isolation_level=ISOLATION)
                    async with connection.begin():
                        yield connection
                        committing = True
            except self._errors as error:
                raise store_error(error, committing=committing) from error

    @asynccontextmanager
    async def _within(self, connection: AsyncConnection) -> AsyncIterator[AsyncConnection]:
        with Deadline(self._timeout) as deadline:
            try:
                deadline.watch(driver_connection(connection))
                async with connection.begin_nested():
                    yield connection
            except self._errors as error:
                raise store_error(error) from error

    def savepoint(self, connection: AsyncConnection) -> AbstractAsyncContextManager[object]:
        """Returns a savepoint; see `HookedRowStore.savepoint`."""
        return connection.begin_nested()

    async def select(
        self,
        connection: AsyncConnection,
        table: TableName,
        columns: Sequence[str],
        where: Mapping[str, Any],
        *,
        lock: bool = False,
    ) -> Iterable[Row]:
        """Reads rows; see `RowStore.select`."""
        shape, known = condition(where)
        query = select_where(table, tuple(columns), shape)
        if lock:
            query = query.with_for_update()
            if self._dialect == "sqlite":  # knows no FOR UPDATE: a write takes its lock
                await connection.execute(update_where(table, shape), {**known, "sale": self.sale})
        rows: Iterable[Row] = (await connection.execute(query, known)).mappings().all()
        return rows

    async def select_orders(self, connection: AsyncConnection, after: str | None, limit: int) -> Iterable[Row]:
        """Reads a page of orders; see `RowStore.select_orders`."""
        query = select(ORDERS).where(ORDERS.c.sale == self.sale).order_by(ORDERS.c.order_id).limit(limit)
        if after is not None:
            query = query.where(ORDERS.c.order_id > after)
        return (await connection.execute(query)).mappings().all()

    async def select_events(self, connection: AsyncConnection, due: float | None, limit: int) -> Iterable[Row]:
        """Reads events and their orders; see `RowStore.select_events`."""
        rows: list[Row] = []
        after: int | None = 0
        window = 2 * limit
        while after is not None and len(rows) < limit:
            query = events_query(self.sale, due, after, window).limit(limit - len(rows))
            rows += (await connection.execute(query)).mappings().all()
            after = await connection.scalar(last_event_query(after, window))
            window *= 2
        return rows

    async def select_settled(
        self, connection: AsyncConnection, moment: float, order_id: str, limit: int
    ) -> Iterable[Row]:
        """Reads orders that have moved; see `MovedRowStore.select_settled`."""
        query = settled_query(self.sale, moment, order_id, limit)
        rows: Iterable[Row] = (await connection.execute(query)).mappings().all()
        return rows

    async def select_buyer(self, connection: AsyncConnection, buyer_id: str, limit: int) -> Iterable[Row]:
        """Reads a buyer's orders; see `MovedRowStore.select_buyer`."""
        rows: Iterable[Row] = (await connection.execute(buyer_query(self.sale, buyer_id, limit))).mappings().all()
        return rows

    async def select_trail(self, connection: AsyncConnection, after: int, limit: int, *, last: bool) -> Iterable[Row]:
        """Reads the trail; see `TrailedRowStore.select_trail`."""
        query = trail_query(self.sale, after, limit, last=last)
        rows: Iterable[Row] = (await connection.execute(query)).mappings().all()
        return rows

    async def insert_entry(self, connection: AsyncConnection, values: Mapping[str, Any]) -> int:
        """Inserts a row of the trail; see `TrailedRowStore.insert_entry`."""
        key: Any = (await connection.execute(insert(AUDIT), values)).inserted_primary_key
        return int(key[0])

    async def insert_new(
        self,
        connection: AsyncConnection,
        table: TableName,
        common: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
    ) -> set[str]:
        """Inserts the rows whose key is free; see `RowStore.insert_new`."""
        it = TABLES[table]
        if (one_insert := insert_new(self._dialect, it, common, rows)) is not None:
            return set((await connection.execute(*one_insert)).scalars())
        key = key_of(it)
        fresh = {row[key.name]: row for row in whole(common, rows)}
        while fresh:
            try:
                async with connection.begin_nested():
                    await connection.execute(insert(it), list(fresh.values()))
                return set(fresh)
            except IntegrityError:
                query = select(key).where(it.c.sale == self.sale, key.in_(list(fresh)))
                taken = set((await connection.execute(query)).scalars())
                if not taken:
                    raise  # not for its key was a row refused
                fresh = {name: row for name, row in fresh.items() if name not in taken}
        return set()

    async def insert_events(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts events; see `RowStore.insert_events`."""
        await connection.execute(*insert_events(self._dialect, rows))

    async def update(
        self, connection: AsyncConnection, table: TableName, where: Mapping[str, Any], values: Mapping[str, Any]
    ) -> int:
        """Writes into rows; see `RowStore.update`."""
        shape, known = condition(where)
        return (await connection.execute(update_where(table, shape), {**known, **values})).rowcount

    async def book(self, connection: AsyncConnection, goods_id: str, units: int) -> bool:
        """Moves `booked` under its guard; see `RowStore.book`."""
        booked = GOODS.c.booked + units
        bound = booked <= GOODS.c.granted if units > 0 else booked >= 0
        change = update(GOODS).where(GOODS.c.sale == self.sale, GOODS.c.goods_id == goods_id, bound)
        return (await connection.execute(change.values(booked=booked))).rowcount > 0

    async def delete_events(self, connection: AsyncConnection, event_ids: Sequence[int]) -> None:
        """Deletes events; see `RowStore.delete_events`."""
        await connection.execute(delete(EVENTS).where(EVENTS.c.sale == self.sale, EVENTS.c.event_id.in_(event_ids)))
