"""The algorithm of every store, over nine primitives that read and write rows; the base class of a host's own store.

The primitives are `transaction`, `select`, `select_orders`, `select_events`, `insert_new`, `insert_events`, `update`,
`book` and `delete_events`.

Our own stores extend it by steps: `moved`, `hooked`, `trailed`.

Two rules keep its transactions apart. Each that writes starts with a write or a lock, so that SQLite gives it the write
lock at once and nothing deadlocks on the way from reading to writing. And each takes order rows by id before item rows
by id. An event gets its number while the order's row is locked: so the numbers of one order's events grow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from flashsale._rules.batches import batches
from flashsale._rules.rows import (
    CHUNK,
    COMES_FROM,
    CURRENT_COLUMNS,
    EVENT_STATES,
    GOODS_COLUMNS,
    KEYS,
    ORDER_COLUMNS,
    Row,
    Settling,
    TableName,
    check_events,
    check_ids,
    check_target,
    completed,
    event_values,
    goods_values,
    in_turn,
    is_same,
    order_values,
    policy_values,
    read_event,
    read_goods,
    read_order,
    read_state,
    saved,
)
from flashsale.errors import NotPersisted, OrderConflict, OutcomeUnknown, StoreError
from flashsale.model import RELEASED, Event, Goods, Order, OrderState, Saved, StoredOrder, by_goods
from flashsale.model.checks import MAX_UNITS, check_goods_id, check_int, check_sale

Connection = TypeVar("Connection")


class RowStore(ABC, Generic[Connection]):
    """The `AsyncOrderStore` of one sale; a subclass says how rows are read and written, in nine primitives.

    The tables, their columns and their keys; `sale` and the ids are ASCII, compared byte by byte:

    - `sales`: sale, epoch. Key: sale.
    - `goods`: sale, goods_id, total, granted, booked, version, per_buyer, opens_at, closes_at, hold, loaded. Key: sale,
      goods_id.
    - `orders`: sale, order_id, goods_id, buyer_id, quantity, state, created_at, data. Key: sale, order_id.
    - `events`: event_id, sale, order_id, state, previous, attempts, due_at. Key: event_id, which the database counts up
      and never uses twice.

    Times are float epoch seconds, `data` is JSON text, units and numbers are integers of 64 bits. per_buyer, opens_at,
    closes_at, hold, created_at, data and due_at may be NULL.

    A row gives values by the names of columns. A condition `where` is a mapping of columns to values, all of which must
    match: a list stands for any of its members (1..500), None for NULL. Each primitive is called within a
    `transaction`, and gets the connection that it gave.

    Args:
        sale: name of the sale.
        events: the states that leave an event, also as a text with commas. With PERSISTED among them each order that is
            saved leaves one. Every process of the sale should have the same.

    Raises:
        InvalidRequest: not a name of a sale, or not states.
    """

    _order_columns: Sequence[str] = ORDER_COLUMNS

    def __init__(self, sale: str, *, events: str | Iterable[str] = EVENT_STATES) -> None:
        self.sale = check_sale(sale)
        self._events = check_events(events)

    # -- the primitives -------------------------------------------------------------------------------------------

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """Returns a context in which everything happens or nothing, at READ COMMITTED; it gives the connection.

        It commits at its end, and rolls back when anything is raised in it. What the database raises becomes
        `RowRefused` where a row is to blame, `OutcomeUnknown` where COMMIT was sent and nothing says that it failed,
        else `StoreError`; without the row in its message. A row is to blame for the SQLSTATE classes 22, 23, 44 and P0.
        """

    @abstractmethod
    async def select(
        self,
        connection: Connection,
        table: TableName,
        columns: Sequence[str],
        where: Mapping[str, Any],
        *,
        lock: bool = False,
    ) -> Iterable[Row]:
        """Returns at least these columns of the rows that `where` names, in any order.

        With `lock` the rows are as the last transaction left them, and nobody else changes them before this one ends
        (SELECT ... FOR UPDATE). It may be a transaction's first statement: on SQLite take the write lock.
        """

    @abstractmethod
    async def select_orders(self, connection: Connection, after: str | None, limit: int) -> Iterable[Row]:
        """Returns the first `limit` rows of the sale's orders, by order id; of those after the id `after`."""

    @abstractmethod
    async def select_events(self, connection: Connection, due: float | None, limit: int) -> Iterable[Row]:
        """Returns the first `limit` rows of the sale's events, by event id, each joined with the row of its order.

        `state` is the event's. An event whose order has no row any more is left out.

        Args:
            connection: of the transaction.
            due: events with `due_at` up to it, of each order only the first whose `due_at` is not NULL. None: the dead
                letters, whose `due_at` is NULL.
            limit: at most so many.
        """

    @abstractmethod
    async def insert_new(
        self, connection: Connection, table: TableName, common: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> set[str]:
        """Inserts the rows whose key has no row yet, and returns the keys it wrote.

        A row of the same key that another transaction has not committed yet is waited for. Any other constraint is an
        error. Into `sales`, `goods` or `orders`; the keys are values of the column `sale`, `goods_id` or `order_id`.

        Args:
            connection: of the transaction.
            table: into which.
            common: the columns that are the same in all rows.
            rows: the other columns, the same in each; at least one row, each key once.
        """

    @abstractmethod
    async def insert_events(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows of events; the database gives each a number greater than all that were given before."""

    @abstractmethod
    async def update(
        self, connection: Connection, table: TableName, where: Mapping[str, Any], values: Mapping[str, Any]
    ) -> int:
        """Writes `values` into the rows that `where` names, and returns how many it named.

        One conditional UPDATE: of several transactions that would move a row away from `where`, one wins.
        """

    @abstractmethod
    async def book(self, connection: Connection, goods_id: str, units: int) -> bool:
        """Adds `units` to the `booked` of an item's row, in one conditional UPDATE.

        Positive, if `booked + units <= granted`. Negative, if `booked + units >= 0`.

        Returns:
            False when that does not hold, or when there is no such row; nothing was changed.
        """

    @abstractmethod
    async def delete_events(self, connection: Connection, event_ids: Sequence[int]) -> None:
        """Deletes the sale's events of these numbers (1..500); a number without a row is no error."""

    # -- items and sale -------------------------------------------------------------------------------------------

    async def put_goods(self, goods: Goods, *, replace: bool = False) -> None:
        """Writes the policy of one item, as the host decides it: total, cap, window and hold.

        The first time all of `total` is granted. Later the version grows by one, or to `goods.version` if that is
        more, and what was booked, granted or loaded stays.

        Args:
            goods: the item. Where it has a row, None leaves cap, window and hold as they are.
            replace: None removes them.

        Raises:
            InvalidRequest: what it changes and what it leaves do not go together, or the sale was purged.
        """
        async with self._writing() as connection:
            row = await self._lock_or_insert(connection, "goods", GOODS_COLUMNS, goods_values(goods))
            await self._refuse_purged(connection)
            if row is None:
                await self._new_goods(connection, goods)
                return
            policy = policy_values(goods if replace else completed(goods, row))
            await self._write_goods(connection, row, policy | {"version": max(row["version"] + 1, goods.version)})

    async def goods(self) -> Iterable[Goods]:
        """Returns the policy of every item of the sale."""
        async with self._reading() as connection:
            rows = await self.select(connection, "goods", GOODS_COLUMNS, {"sale": self.sale})
            return sorted((read_goods(row) for row in rows), key=lambda goods: goods.goods_id)

    async def grant(self, goods_id: str, units: int, *, loaded: bool = False, version: int | None = None) -> bool:
        """Records how many units Redis is given; `loaded` is never unset.

        Returns:
            False when the row has another version than `version`; nothing was changed.

        Raises:
            InvalidRequest: the sale was purged.
            StoreError: no row of this item.
        """
        check_int("units", units, 0)
        async with self._writing() as connection:
            row = await self._lock_goods(connection, goods_id)
            await self._refuse_purged(connection)
            if version is not None and version != row["version"]:
                return False
            await self._write_goods(connection, row, {"granted": units} | ({"loaded": True} if loaded else {}))
            return True

    async def restock(self, goods_id: str, units: int) -> Goods:
        """Adds `units` to the total, not below 0, raises the version by one, and returns the row.

        Raises:
            InvalidRequest: the sale was purged.
            StoreError: no row of this item.
        """
        check_int("units", units, -MAX_UNITS)
        async with self._writing() as connection:
            return await self._add_units(connection, await self._lock_goods(connection, goods_id), units)

    async def epoch(self) -> int:
        """Returns the epoch of the sale: 1 until the first rebuild."""
        async with self._reading() as connection:
            rows = await self.select(connection, "sales", ("epoch",), {"sale": self.sale})
            return next((int(row["epoch"]) for row in rows), 1)

    async def advance_epoch(self) -> int:
        """Raises the epoch by one, and returns it."""
        async with self._writing() as connection:
            return await self._raise_epoch(connection)

    # -- orders ---------------------------------------------------------------------------------------------------

    async def save(self, orders: Sequence[Order]) -> Saved:
        """Writes a batch in one transaction; a second call with the same orders changes nothing.

        Raises:
            RowRefused: the database refused a row; nothing was written.
            StoreError: the database failed, or has no row of the item; nothing was written.
            OutcomeUnknown: the answer to COMMIT was lost; save the same orders again.
        """
        ids = check_ids(orders)
        if not orders:
            return Saved()
        async with self._writing() as connection:
            inserted = await self._insert_orders(connection, orders, OrderState.PERSISTED)
            current = await self._current(connection, ids - inserted)
            if len(inserted) + len(current) < len(ids):
                raise StoreError("rows were deleted while a batch was saved")
            new = [order for order in orders if order.order_id in inserted]
            unfit: list[Order] = []
            for _, group in sorted(by_goods(new).items()):
                unfit += await self._book(connection, group)
            if unfit:
                await self._moved(connection, unfit, OrderState.REJECTED, OrderState.QUEUED)
            refused = {order.order_id for order in unfit}
            refused |= await self._saved(connection, [order for order in new if order.order_id not in refused])
            kept = [order for order in new if order.order_id not in refused]
            await self._leave_events(connection, kept, OrderState.PERSISTED, OrderState.QUEUED)
        return saved(orders, inserted, refused, current)

    async def states(self, order_ids: Collection[str]) -> Mapping[str, OrderState]:
        """Returns the state of those of `order_ids` that have a row."""
        async with self._reading() as connection:
            rows = await self._current(connection, order_ids)
        return {order_id: read_state(row["state"]) for order_id, row in rows.items()}

    async def find(self, order_ids: Collection[str]) -> Sequence[StoredOrder]:
        """Returns those of `order_ids` that have a row, by order id."""
        found: list[StoredOrder] = []
        async with self._reading() as connection:
            for ids in batches(sorted(set(order_ids)), CHUNK):
                these = {"sale": self.sale, "order_id": ids}
                found += map(read_order, await self.select(connection, "orders", self._order_columns, these))
        return sorted(found, key=lambda row: row.order.order_id)

    async def settle(self, order: Order, state: OrderState) -> OrderState:
        """Moves an order to a later state, if it may go there, and returns its current state.

        Raises:
            InvalidRequest: not CONFIRMED, CANCELLED, EXPIRED or REJECTED.
            NotPersisted: CONFIRMED was asked and there is no row yet.
            OrderConflict: the row has other content.
            StoreError: the database failed; nothing was written.
            OutcomeUnknown: the answer to COMMIT was lost; settle again.
        """
        check_target(state)
        async with self._writing() as connection:
            for _ in range(3):  # again only when the row was inserted while we looked
                if await self._move(connection, order, state):
                    return state
                # locked: a host's transaction may read by a snapshot that is old
                row = (await self._current(connection, [order.order_id], lock=True)).get(order.order_id)
                if row is None:
                    if await self._insert_tombstone(connection, order, state):
                        return state
                elif not is_same(row, order):
                    raise OrderConflict(sale=self.sale, goods_id=order.goods_id, order_id=order.order_id)
                elif row["state"] not in COMES_FROM[state]:
                    return read_state(row["state"])
        raise StoreError("the row of an order changes faster than it can be settled")

    async def settle_many(self, orders: Sequence[Order], state: OrderState) -> Mapping[str, OrderState]:
        """Settles each of the orders as `settle` does, all in one transaction: when one raises, nothing is written.

        Returns:
            The current state, by order id.

        Raises:
            InvalidRequest, NotPersisted, OrderConflict, StoreError, OutcomeUnknown: as in `settle`.
        """
        check_target(state)
        ids = check_ids(orders)
        if not ids:
            return {}
        async with self._writing() as connection:
            changes = Settling(self.sale, orders, state, await self._current(connection, ids, lock=True))
            if changes.new and len(await self._insert_orders(connection, changes.new, state)) < len(changes.new):
                raise StoreError("rows came while their orders were settled")
            for moved in changes.moved.values():
                await self._write_state(connection, moved, state)
            await self._give_back(connection, changes.returned)
            if changes.new:
                await self._moved(connection, changes.new, state, OrderState.QUEUED)
            for previous, moved in changes.moved.items():
                await self._moved(connection, moved, state, previous)
        return changes.states

    async def orders(self, *, after: str | None = None, limit: int = 1000) -> Sequence[StoredOrder]:
        """Returns the next page of rows, by order id, after the order id `after`."""
        async with self._reading() as connection:
            return [read_order(row) for row in await self.select_orders(connection, after, limit)]

    # -- events ---------------------------------------------------------------------------------------------------

    async def events(self, *, now: float, limit: int = 100) -> Sequence[Event]:
        """Returns events that wait and are due at `now` (epoch seconds): of each order only the first that waits."""
        async with self._reading() as connection:
            return [read_event(row) for row in await self.select_events(connection, now, limit)]

    async def delivered(self, event_ids: Collection[int]) -> None:
        """Deletes events that the host has handled."""
        async with self._writing() as connection:
            for ids in batches(sorted(event_ids), CHUNK):
                await self.delete_events(connection, ids)

    async def postpone(self, event_id: int, due_at: float | None) -> None:
        """Counts a failed attempt; the event waits until `due_at` (epoch seconds), or is dead (None)."""
        this = {"sale": self.sale, "event_id": event_id}
        async with self._writing() as connection:
            for row in await self.select(connection, "events", ("attempts",), this, lock=True):
                await self.update(connection, "events", this, {"attempts": row["attempts"] + 1, "due_at": due_at})

    async def dead_events(self, limit: int = 100) -> Sequence[Event]:
        """Returns dead letters, oldest first."""
        async with self._reading() as connection:
            return [read_event(row) for row in await self.select_events(connection, None, limit)]

    async def requeue_events(self) -> int:
        """Makes all dead letters due again, with no attempt counted, and returns how many."""
        async with self._writing() as connection:
            dead = {"sale": self.sale, "due_at": None}
            return await self.update(connection, "events", dead, {"attempts": 0, "due_at": 0.0})

    # -- steps of a transaction -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        """Gives a connection to read by: whatever became of its COMMIT, nothing was written."""
        try:
            async with self.transaction() as connection:
                yield connection
        except OutcomeUnknown as error:
            raise StoreError(str(error)) from error.__cause__

    def _writing(self) -> AbstractAsyncContextManager[Connection]:
        """Returns a transaction that writes."""
        return self.transaction()

    def _goods_key(self, goods_id: str) -> dict[str, Any]:
        return {"sale": self.sale, "goods_id": check_goods_id(goods_id)}

    def _no_row(self, goods_id: str) -> StoreError:
        return StoreError(f"the database has no row of goods {goods_id!r} in sale {self.sale!r}")

    async def _lock_goods(self, connection: Connection, goods_id: str) -> Row:
        for row in await self.select(connection, "goods", GOODS_COLUMNS, self._goods_key(goods_id), lock=True):
            return row
        raise self._no_row(goods_id)

    async def _raise_epoch(self, connection: Connection, **values: Any) -> int:
        """Raises the epoch by one, writes `values` beside it, and returns it."""
        row = await self._lock_or_insert(connection, "sales", ("epoch",), {"epoch": 2, **values})
        if row is None:
            return 2
        grown = int(row["epoch"]) + 1
        await self.update(connection, "sales", {"sale": self.sale}, {"epoch": grown, **values})
        return grown

    async def _refuse_purged(self, connection: Connection) -> None:
        """Raises InvalidRequest when the rows say that the sale was purged."""

    async def _add_units(self, connection: Connection, row: Row, units: int) -> Goods:
        values = {"total": max(0, row["total"] + units), "version": row["version"] + 1}
        await self._write_goods(connection, row, values)
        return read_goods({**row, **values})

    async def _new_goods(self, connection: Connection, goods: Goods) -> None:
        """Called once the first row of an item was inserted."""

    async def _write_goods(self, connection: Connection, row: Row, values: Mapping[str, Any]) -> None:
        """Writes into the row of an item, which is locked, but for what is booked."""
        await self.update(connection, "goods", self._goods_key(row["goods_id"]), values)

    async def _lock_or_insert(
        self, connection: Connection, table: TableName, columns: Sequence[str], values: Mapping[str, Any]
    ) -> Row | None:
        """Returns the row of this key, locked, or None when there was none and `values` were inserted."""
        whole = {"sale": self.sale, **values}
        this = {"sale": self.sale, KEYS[table]: whole[KEYS[table]]}
        for _ in range(2):  # again when somebody inserted it in between
            for row in await self.select(connection, table, columns, this, lock=True):
                return row
            if await self.insert_new(connection, table, {}, [whole]):
                return None
        raise StoreError(f"a row of {table} comes and goes")

    def _state_values(self, state: OrderState) -> dict[str, Any]:
        """Returns what each write of a state writes into the row of an order."""
        return {"state": state.value}

    async def _insert_orders(self, connection: Connection, orders: Iterable[Order], state: OrderState) -> set[str]:
        common = {"sale": self.sale, **self._state_values(state)}
        by_id = sorted(orders, key=lambda order: order.order_id)
        return await self.insert_new(connection, "orders", common, [order_values(order) for order in by_id])

    async def _current(
        self, connection: Connection, order_ids: Collection[str], *, lock: bool = False
    ) -> dict[str, Row]:
        current: dict[str, Row] = {}
        for ids in batches(sorted(order_ids), CHUNK):
            these = {"sale": self.sale, "order_id": ids}
            rows = await self.select(connection, "orders", CURRENT_COLUMNS, these, lock=lock)
            current.update((row["order_id"], row) for row in rows)
        return current

    async def _book(self, connection: Connection, orders: Sequence[Order]) -> list[Order]:
        """Books the inserted orders of one item; writes those that do not fit as REJECTED and returns them."""
        goods_id = orders[0].goods_id
        if await self.book(connection, goods_id, sum(order.quantity for order in orders)):
            return []
        row = await self._lock_goods(connection, goods_id)
        units, refused = in_turn(orders, row["granted"] - row["booked"])
        if refused:
            await self._write_state(connection, refused, OrderState.REJECTED)
        if units:
            await self.book(connection, goods_id, units)
        return refused

    async def _give_back(self, connection: Connection, units: Mapping[str, int]) -> None:
        """Gives back units that orders held, by item id in their order."""
        for goods_id, returned in units.items():
            if not await self.book(connection, goods_id, -returned):
                raise self._no_row(goods_id)

    async def _saved(self, connection: Connection, orders: Sequence[Order]) -> set[str]:  # noqa: ARG002
        """Called once a batch is booked, with its new orders; returns the ids of those that are REJECTED after all."""
        return set()

    async def _write_state(self, connection: Connection, orders: Iterable[Order], state: OrderState) -> None:
        for ids in batches(sorted(order.order_id for order in orders), CHUNK):
            await self.update(connection, "orders", {"sale": self.sale, "order_id": ids}, self._state_values(state))

    async def _move(self, connection: Connection, order: Order, state: OrderState) -> bool:
        """Moves the row of an order from where it may come from, and gives back the units that it held."""
        goods_id, buyer_id, quantity = order.content
        content = {"goods_id": goods_id, "buyer_id": buyer_id, "quantity": quantity}
        this = {"sale": self.sale, "order_id": order.order_id, **content}
        for previous in COMES_FROM[state]:
            if await self.update(connection, "orders", this | {"state": previous.value}, self._state_values(state)):
                if state in RELEASED:
                    await self._give_back(connection, {order.goods_id: order.quantity})
                await self._moved(connection, [order], state, previous)
                return True
        return False

    async def _insert_tombstone(self, connection: Connection, order: Order, state: OrderState) -> bool:
        """Writes the tombstone of an order without a row; False when it has one by now."""
        if state not in RELEASED:
            raise NotPersisted("the order has no row yet", order_id=order.order_id)
        if not await self._insert_orders(connection, [order], state):
            return False
        await self._moved(connection, [order], state, OrderState.QUEUED)
        return True

    async def _moved(
        self, connection: Connection, orders: Iterable[Order], state: OrderState, previous: OrderState
    ) -> None:
        """Ends, in the transaction of their move, each refusal and each move of orders, with their events.

        The rows of orders and items are written before: what comes here is the last.
        """
        await self._leave_events(connection, orders, state, previous)

    async def _leave_events(
        self, connection: Connection, orders: Iterable[Order], state: OrderState, previous: OrderState
    ) -> None:
        rows = [{"sale": self.sale, **event_values(order, state, previous)} for order in orders]
        if rows and state in self._events:
            await self.insert_events(connection, rows)
