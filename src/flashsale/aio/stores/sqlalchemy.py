"""The store on SQLAlchemy Core: SQLite, PostgreSQL, MySQL and MariaDB.

Two rules keep its transactions apart. Each starts with a write, so that SQLite gives it the write lock at once and
nothing deadlocks on the way from reading to writing. And each takes order rows by id before goods rows by id. An event
gets its number while the order's row is locked: so numbers grow with each order's life.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

from sqlalchemy import URL, ColumnElement, Row, Table, Update, and_, case, delete, event, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateTable

from flashsale._rules.batches import batches
from flashsale._rules.rows import (
    CHUNK,
    COMES_FROM,
    Settling,
    check_ids,
    goods_values,
    is_same,
    order_values,
    policy_values,
    read_goods,
    read_order,
    read_state,
    saved,
)
from flashsale._sql.engines import ASYNC_DRIVERS, database_url, engine_options, prepare_sqlite, store_error
from flashsale._sql.event_rows import dead_events, due_events, event_values, read_event
from flashsale._sql.tables import (
    EVENTS,
    GOODS,
    METADATA,
    ORDERS,
    SALES,
    insert_new,
    key_of,
    whole,
)
from flashsale.errors import InvalidRequest, NotPersisted, OrderConflict, StoreError
from flashsale.model import RELEASED, Event, Goods, Order, OrderState, Saved, StoredOrder, by_goods
from flashsale.model.checks import MAX_UNITS, check_goods_id, check_int, check_sale


class SQLAlchemyStore:
    """The `AsyncOrderStore` of one sale, in four tables of the host's database.

    Transactions run at READ COMMITTED, whatever the engine is set to (on SQLite: as the engine does).

    Args:
        url_or_engine: a database URL, or an engine of the host's, which stays the host's to dispose of. A URL that
            names no driver gets the one in `ASYNC_DRIVERS`.
        sale: name of the sale.

    Raises:
        InvalidRequest: neither a URL nor an engine of this kind, or not a name of a sale.
    """

    def __init__(self, url_or_engine: str | URL | AsyncEngine, sale: str) -> None:
        self.sale = check_sale(sale)
        self._own: AsyncEngine | None = None
        if isinstance(url_or_engine, AsyncEngine):
            engine = url_or_engine
        else:
            url = database_url(url_or_engine, ASYNC_DRIVERS)
            engine = self._own = create_async_engine(url, **engine_options(url))
            if engine.dialect.name == "sqlite":
                event.listen(engine.pool, "connect", prepare_sqlite)
        self._dialect = engine.dialect.name
        if self._dialect != "sqlite":
            engine = engine.execution_options(isolation_level="READ COMMITTED")
        self._engine = engine

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections of an engine that was made from a URL; never the host's."""
        if self._own is not None:
            await self._own.dispose()

    async def create_all(self) -> None:
        """Creates the tables that do not exist yet."""
        for table in METADATA.sorted_tables:
            create = CreateTable(table, if_not_exists=True)
            try:
                async with self._begin() as connection:
                    await connection.execute(create)
            except StoreError:  # PostgreSQL says so to one of two processes that create it at the same moment
                async with self._begin() as connection:
                    await connection.execute(create)

    # -- goods and sale -------------------------------------------------------------------------------------------

    async def put_goods(self, goods: Goods) -> None:
        """Writes the host's wish for one goods: total, cap, window and hold.

        The first time all of `total` is granted. Later the version grows by one, or to `goods.version` if that is
        more, and what was booked, granted or loaded stays.
        """
        grown = GOODS.c.version + 1
        version = case((grown < goods.version, goods.version), else_=grown)
        change = update(GOODS).where(self._is_goods(goods.goods_id)).values(version=version, **policy_values(goods))
        async with self._begin() as connection:
            await self._upsert(connection, change, GOODS, goods_values(goods))

    async def goods(self) -> Iterable[Goods]:
        """Returns the policy of every goods of the sale."""
        query = select(GOODS).where(GOODS.c.sale == self.sale).order_by(GOODS.c.goods_id)
        async with self._begin() as connection:
            return [read_goods(row) for row in await connection.execute(query)]

    async def grant(self, goods_id: str, units: int, *, loaded: bool = False, version: int | None = None) -> bool:
        """Records how many units Redis is given; `loaded` is never unset.

        Returns:
            False when the row has another version than `version`; nothing was changed.

        Raises:
            StoreError: no row of these goods.
        """
        check_int("units", units, 0)
        change = update(GOODS).where(self._is_goods(goods_id)).values(granted=units)
        if loaded:
            change = change.values(loaded=True)
        if version is not None:
            change = change.where(GOODS.c.version == version)
        async with self._begin() as connection:
            if await _matched(connection, change):
                return True
            row = (await connection.execute(select(GOODS.c.version).where(self._is_goods(goods_id)))).one_or_none()
            if row is None or version is None:
                raise self._no_row(goods_id)
            return False

    async def restock(self, goods_id: str, units: int) -> Goods:
        """Adds `units` to the total, not below 0, raises the version by one, and returns the row.

        Raises:
            StoreError: no row of these goods.
        """
        check_int("units", units, -MAX_UNITS)
        grown = GOODS.c.total + units
        total = case((grown < 0, 0), else_=grown)
        change = update(GOODS).where(self._is_goods(goods_id)).values(total=total, version=GOODS.c.version + 1)
        async with self._begin() as connection:
            if not await _matched(connection, change):
                raise self._no_row(goods_id)
            row = (await connection.execute(select(GOODS).where(self._is_goods(goods_id)))).one()
            return read_goods(row)

    async def epoch(self) -> int:
        """Returns the epoch of the sale: 1 until the first rebuild."""
        async with self._begin() as connection:
            return await self._epoch(connection) or 1

    async def advance_epoch(self) -> int:
        """Raises the epoch by one, and returns it."""
        change = update(SALES).where(SALES.c.sale == self.sale).values(epoch=SALES.c.epoch + 1)
        async with self._begin() as connection:
            await self._upsert(connection, change, SALES, {"epoch": 2})
            return await self._epoch(connection)

    # -- orders ---------------------------------------------------------------------------------------------------

    async def save(self, orders: Sequence[Order]) -> Saved:
        """Writes a batch in one transaction; a second call with the same orders changes nothing.

        Raises:
            RowRefused: the database refused a row; nothing was written.
            StoreError: the database failed, or has no row of the goods; nothing was written.
        """
        ids = check_ids(orders)
        if not orders:
            return Saved()
        by_id = sorted(orders, key=lambda order: order.order_id)
        async with self._begin() as connection:
            inserted = await self._insert_orders(connection, by_id, OrderState.PERSISTED)
            standing = await self._standing(connection, ids - inserted)
            if len(inserted) + len(standing) < len(ids):
                raise StoreError("rows were deleted while a batch was saved")
            refused: set[str] = set()
            for goods_id, group in sorted(by_goods(o for o in orders if o.order_id in inserted).items()):
                refused |= await self._book(connection, goods_id, group)
        return saved(orders, inserted, refused, standing)

    async def states(self, order_ids: Collection[str]) -> Mapping[str, OrderState]:
        """Returns the state of those of `order_ids` that have a row."""
        async with self._begin() as connection:
            rows = await self._standing(connection, order_ids)
        return {order_id: read_state(row.state) for order_id, row in rows.items()}

    async def settle(self, order: Order, state: OrderState) -> OrderState:
        """Moves an order to a later state, if it may go there, and returns the state that stands.

        Raises:
            InvalidRequest: not CONFIRMED, CANCELLED, EXPIRED or REJECTED.
            NotPersisted: CONFIRMED was asked and there is no row yet.
            OrderConflict: the row has other content.
            StoreError: the database failed; nothing was written.
        """
        if state not in COMES_FROM:
            raise InvalidRequest("state", "must be CONFIRMED, CANCELLED, EXPIRED or REJECTED")
        this = and_(ORDERS.c.sale == self.sale, ORDERS.c.order_id == order.order_id)
        content = and_(*(ORDERS.c[name] == value for name, value in zip(_CONTENT, order.content, strict=True)))
        move = update(ORDERS).where(this, content).values(state=state.value)
        async with self._begin() as connection:
            for _ in range(3):  # again only when the row was inserted while we looked
                for previous in COMES_FROM[state]:
                    if await _matched(connection, move.where(ORDERS.c.state == previous.value)):
                        await self._tell(connection, [order.order_id], state, previous)
                        if state in RELEASED and not await self._take(connection, order.goods_id, -order.quantity):
                            raise self._no_row(order.goods_id)
                        return state
                row = (await self._standing(connection, [order.order_id])).get(order.order_id)
                if row is None:
                    if state not in RELEASED:
                        raise NotPersisted("the order has no row yet", order_id=order.order_id)
                    if await self._insert_orders(connection, [order], state):
                        await self._tell(connection, [order.order_id], state, OrderState.QUEUED)
                        return state
                elif not is_same(row, order):
                    raise OrderConflict(sale=self.sale, goods_id=order.goods_id, order_id=order.order_id)
                elif row.state not in COMES_FROM[state]:
                    return read_state(row.state)
        raise StoreError("the row of an order changes faster than it can be settled")

    async def settle_many(self, orders: Sequence[Order], state: OrderState) -> Mapping[str, OrderState]:
        """Settles each of the orders as `settle` does, all in one transaction: when one raises, nothing is written.

        Returns:
            The current state, by order id.

        Raises:
            InvalidRequest, NotPersisted, OrderConflict, StoreError: as in `settle`.
        """
        if state not in COMES_FROM:
            raise InvalidRequest("state", "must be CONFIRMED, CANCELLED, EXPIRED or REJECTED")
        if not check_ids(orders):
            return {}
        async with self._begin() as connection:
            rows = await self._lock(connection, [order.order_id for order in orders])
            changes = Settling(self.sale, orders, state, rows)
            if changes.new:
                if len(await self._insert_orders(connection, changes.new, state)) < len(changes.new):
                    raise StoreError("rows came while their orders were settled")
                await self._tell(connection, [order.order_id for order in changes.new], state, OrderState.QUEUED)
            for previous, moved in changes.moved.items():
                await self._move(connection, moved, state)
                await self._tell(connection, moved, state, previous)
            for goods_id, units in changes.returned.items():
                if not await self._take(connection, goods_id, -units):
                    raise self._no_row(goods_id)
        return changes.states

    async def orders(self, *, after: str | None = None, limit: int = 1000) -> Sequence[StoredOrder]:
        """Returns the next page of rows, by order id, after the order id `after`."""
        query = select(ORDERS).where(ORDERS.c.sale == self.sale).order_by(ORDERS.c.order_id).limit(limit)
        if after is not None:
            query = query.where(ORDERS.c.order_id > after)
        async with self._begin() as connection:
            return [read_order(row) for row in await connection.execute(query)]

    # -- events ---------------------------------------------------------------------------------------------------

    async def events(self, *, now: float, limit: int = 100) -> Sequence[Event]:
        """Returns events that wait and are due at `now` (epoch seconds): of each order only the first that waits."""
        async with self._begin() as connection:
            return [read_event(row) for row in await connection.execute(due_events(self.sale, now).limit(limit))]

    async def delivered(self, event_ids: Collection[int]) -> None:
        """Deletes events that the host has handled."""
        async with self._begin() as connection:
            for ids in batches(sorted(event_ids), CHUNK):
                await connection.execute(delete(EVENTS).where(EVENTS.c.sale == self.sale, EVENTS.c.event_id.in_(ids)))

    async def postpone(self, event_id: int, due_at: float | None) -> None:
        """Counts a failed attempt; the event waits until `due_at` (epoch seconds), or is dead (None)."""
        this = update(EVENTS).where(EVENTS.c.sale == self.sale, EVENTS.c.event_id == event_id)
        async with self._begin() as connection:
            await connection.execute(this.values(attempts=EVENTS.c.attempts + 1, due_at=due_at))

    async def dead_events(self, limit: int = 100) -> Sequence[Event]:
        """Returns dead letters, oldest first."""
        async with self._begin() as connection:
            return [read_event(row) for row in await connection.execute(dead_events(self.sale).limit(limit))]

    async def requeue_events(self) -> int:
        """Makes all dead letters due again, with no attempt counted, and returns how many."""
        dead = update(EVENTS).where(EVENTS.c.sale == self.sale, EVENTS.c.due_at.is_(None))
        async with self._begin() as connection:
            return (await connection.execute(dead.values(attempts=0, due_at=0.0))).rowcount

    # -- steps of a transaction -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise store_error(error) from error

    def _is_goods(self, goods_id: str) -> ColumnElement[bool]:
        return and_(GOODS.c.sale == self.sale, GOODS.c.goods_id == check_goods_id(goods_id))

    def _no_row(self, goods_id: str) -> StoreError:
        return StoreError(f"the database has no row of goods {goods_id!r} in sale {self.sale!r}")

    async def _epoch(self, connection: AsyncConnection) -> int:
        query = select(SALES.c.epoch).where(SALES.c.sale == self.sale)
        return (await connection.execute(query)).scalar() or 0

    async def _take(self, connection: AsyncConnection, goods_id: str, units: int) -> bool:
        """Books units, or gives back a negative number, if `booked` stays within 0 and `granted`."""
        booked = GOODS.c.booked + units
        bound = booked <= GOODS.c.granted if units > 0 else booked >= 0
        return await _matched(connection, update(GOODS).where(self._is_goods(goods_id), bound).values(booked=booked))

    async def _book(self, connection: AsyncConnection, goods_id: str, orders: Sequence[Order]) -> set[str]:
        """Books the inserted orders of one goods; writes those that do not fit as REJECTED and returns their ids."""
        if await self._take(connection, goods_id, sum(order.quantity for order in orders)):
            return set()
        free = select(GOODS.c.granted - GOODS.c.booked).where(self._is_goods(goods_id)).with_for_update()
        left = (await connection.execute(free)).scalar()
        if left is None:
            raise self._no_row(goods_id)
        units, refused = 0, set()
        for order in orders:
            if units + order.quantity <= left:
                units += order.quantity
            else:
                refused.add(order.order_id)
        for ids in batches(sorted(refused), CHUNK):
            named = and_(ORDERS.c.sale == self.sale, ORDERS.c.order_id.in_(ids))
            await connection.execute(update(ORDERS).where(named).values(state=OrderState.REJECTED.value))
            await self._tell(connection, ids, OrderState.REJECTED, OrderState.QUEUED)
        if units:
            await self._take(connection, goods_id, units)
        return refused

    async def _tell(
        self, connection: AsyncConnection, order_ids: Collection[str], state: OrderState, previous: OrderState
    ) -> None:
        """Writes the events of orders that have just moved."""
        rows = [event_values(self.sale, order_id, state, previous) for order_id in order_ids]
        await connection.execute(insert(EVENTS), rows)

    async def _standing(self, connection: AsyncConnection, order_ids: Collection[str]) -> dict[str, Row[Any]]:
        columns = select(ORDERS.c.order_id, ORDERS.c.state, *(ORDERS.c[name] for name in _CONTENT))
        standing = {}
        for ids in batches(sorted(order_ids), CHUNK):
            query = columns.where(ORDERS.c.sale == self.sale, ORDERS.c.order_id.in_(ids))
            standing.update({row.order_id: row for row in await connection.execute(query)})
        return standing

    async def _lock(self, connection: AsyncConnection, order_ids: Collection[str]) -> dict[str, Row[Any]]:
        """Returns the rows of orders, which nobody else can change until this transaction ends."""
        for ids in batches(sorted(order_ids), CHUNK):  # a write, as every transaction begins with
            named = and_(ORDERS.c.sale == self.sale, ORDERS.c.order_id.in_(ids))
            await connection.execute(update(ORDERS).where(named).values(state=ORDERS.c.state))
        return await self._standing(connection, order_ids)

    async def _move(self, connection: AsyncConnection, order_ids: Collection[str], state: OrderState) -> None:
        for ids in batches(sorted(order_ids), CHUNK):
            named = and_(ORDERS.c.sale == self.sale, ORDERS.c.order_id.in_(ids))
            await connection.execute(update(ORDERS).where(named).values(state=state.value))

    async def _upsert(self, connection: AsyncConnection, change: Update, table: Table, row: Mapping[str, Any]) -> None:
        if not await _matched(connection, change) and not await self._insert_new(connection, table, {}, [row]):
            await connection.execute(change)  # somebody inserted it in between

    async def _insert_orders(self, connection: AsyncConnection, orders: Iterable[Order], state: OrderState) -> set[str]:
        common = {"state": state.value}
        return await self._insert_new(connection, ORDERS, common, [order_values(order) for order in orders])

    async def _insert_new(
        self, connection: AsyncConnection, table: Table, common: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> set[str]:
        """Inserts the rows whose key is free, and returns the keys it wrote."""
        common = {"sale": self.sale, **common}
        if (one_insert := insert_new(self._dialect, table, common, rows)) is not None:
            return set((await connection.execute(*one_insert)).scalars())
        key = key_of(table)
        fresh = {row[key.name]: row for row in whole(common, rows)}
        while fresh:
            try:
                async with connection.begin_nested():
                    await connection.execute(insert(table), list(fresh.values()))
                return set(fresh)
            except IntegrityError:
                query = select(key).where(table.c.sale == self.sale, key.in_(list(fresh)))
                taken = set((await connection.execute(query)).scalars())
                if not taken:
                    raise  # not for its key was a row refused
                fresh = {name: row for name, row in fresh.items() if name not in taken}
        return set()


_CONTENT: Final = ("goods_id", "buyer_id", "quantity")  # in the order of `Order.content`


async def _matched(connection: AsyncConnection, change: Update) -> bool:
    return (await connection.execute(change)).rowcount > 0
