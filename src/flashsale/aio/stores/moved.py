"""The first step beyond `RowStore`: tables that also tell when an order came and moved, what was restocked, purged."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from flashsale._rules.rows import ORDER_COLUMNS, Row, order_values, purged, read_goods, read_order
from flashsale.aio.stores.base import Connection, RowStore
from flashsale.errors import InvalidRequest, OutcomeUnknown, StoreError
from flashsale.model import RELEASED, Goods, Order, OrderState, Saved, StoredOrder
from flashsale.model.checks import MAX_UNITS, check_id, check_int


class MovedRowStore(RowStore[Connection]):
    """A `RowStore` with four columns, one table and one index more.

    - `orders.persisted_at`: float, NULL: when `save` inserted the row, also of an order that it then refused. A
      tombstone has none.
    - `orders.settled_at`: float, NULL, indexed after `sale`.
    - `orders.buyer_id`: indexed after `sale`.
    - `sales.purged_at`: float, NULL.
    - `sales.partitions`: integer, NULL: over how many the sale is spread.
    - `requests`: sale, request_id, goods_id, units, result. Key: sale, request_id.
    """

    _order_columns: Sequence[str] = (*ORDER_COLUMNS, "persisted_at", "settled_at")

    @abstractmethod
    async def select_settled(self, connection: Connection, moment: float, order_id: str, limit: int) -> Iterable[Row]:
        """Returns the first `limit` rows of orders after this moment, by `settled_at`, then by order id.

        A row of just this moment is after it when its order id is after `order_id`. `settled_at` is among the columns.
        """

    @abstractmethod
    async def select_buyer(self, connection: Connection, buyer_id: str, limit: int) -> Iterable[Row]:
        """Returns the last `limit` rows of a buyer's orders by `created_at`, newest first."""

    async def save(self, orders: Sequence[Order]) -> Saved:
        """Writes a batch; see `RowStore.save`. A tombstone that it meets gets the time and the data of its order."""
        saved = await super().save(orders)
        gone = {order_id for order_id, state in saved.existing.items() if state in RELEASED}
        if gone:
            with suppress(StoreError, OutcomeUnknown):  # the batch is saved, whatever becomes of this
                await self._complete(order for order in orders if order.order_id in gone)
        return saved

    async def _complete(self, orders: Iterable[Order]) -> None:
        """Writes into tombstones what only the queue knew: when the order was accepted, and its data."""
        async with self._writing() as connection:
            for values in map(order_values, sorted(orders, key=lambda order: order.order_id)):
                this = {"sale": self.sale, "order_id": values["order_id"], "persisted_at": None}
                await self.update(connection, "orders", this, {"created_at": values["created_at"]})
                if values["data"] is not None:
                    await self.update(connection, "orders", this | {"data": None}, {"data": values["data"]})

    async def find_buyer(self, buyer_id: str, *, limit: int = 100) -> Sequence[StoredOrder]:
        """Returns the last `limit` orders of a buyer, newest first."""
        async with self._reading() as connection:
            return [read_order(row) for row in await self.select_buyer(connection, buyer_id, limit)]

    async def settled(
        self, moment: float, order_id: str = "", *, limit: int = 1000
    ) -> Sequence[tuple[StoredOrder, float]]:
        """Returns the next page of orders that have moved since `moment` (epoch seconds), each with when it did."""
        async with self._reading() as connection:
            rows = await self.select_settled(connection, moment, order_id, limit)
            return [(read_order(row), float(row["settled_at"])) for row in rows]

    async def purge(self) -> int:
        """Records that the sale was purged: it is over, and nothing of it is granted to Redis any more.

        Returns:
            The epoch of the sale, raised by one: a rebuild that has begun is refused from then.
        """
        async with self._writing() as connection:
            return await self._raise_epoch(connection, purged_at=time.time())

    async def purged(self) -> bool:
        """Returns whether the sale was purged."""
        async with self._reading() as connection:
            return await self._is_purged(connection)

    async def fix_partitions(self, number: int) -> int:
        """Records over how many partitions the sale is spread, unless that is known; returns what is known.

        A sale that was loaded by a release before this one has one.
        """
        async with self._writing() as connection:
            goods = await self.select(connection, "goods", ("loaded",), {"sale": self.sale})
            first = {"epoch": 1, "partitions": 1 if any(row["loaded"] for row in goods) else number}
            row = await self._lock_or_insert(connection, "sales", ("partitions",), first)
            if row is not None and row["partitions"] is not None:
                return int(row["partitions"])
            if row is not None:
                await self.update(connection, "sales", {"sale": self.sale}, {"partitions": first["partitions"]})
            return first["partitions"]

    async def restock_once(self, goods_id: str, units: int, request_id: str) -> tuple[Goods, int]:
        """Adds `units` as `restock` does, once for each request id.

        Returns:
            The row of the item as it now is, and the total that this request has set.

        Raises:
            InvalidRequest: the request id belongs to another restock, or the sale was purged.
            StoreError: no row of this item.
        """
        check_int("units", units, -MAX_UNITS)
        values = {"request_id": check_id("request_id", request_id), "goods_id": goods_id, "units": units, "result": 0}
        async with self._writing() as connection:
            row = await self._lock_goods(connection, goods_id)  # first: on MySQL three equal inserts at once deadlock
            known = await self._lock_or_insert(connection, "requests", ("goods_id", "units", "result"), values)
            if known is None:
                goods = await self._add_units(connection, row, units)
                this = {"sale": self.sale, "request_id": request_id}
                await self.update(connection, "requests", this, {"result": goods.total})
                return goods, goods.total
            if (known["goods_id"], known["units"]) != (goods_id, units):
                raise InvalidRequest("request_id", "belongs to another restock")
            return read_goods(row), known["result"]

    async def _add_units(self, connection: Connection, row: Row, units: int) -> Goods:
        await self._refuse_purged(connection)
        return await super()._add_units(connection, row, units)

    async def _refuse_purged(self, connection: Connection) -> None:
        if await self._is_purged(connection):
            raise purged(self.sale)

    async def _is_purged(self, connection: Connection) -> bool:
        rows = await self.select(connection, "sales", ("purged_at",), {"sale": self.sale})
        return any(row["purged_at"] is not None for row in rows)

    def _state_values(self, state: OrderState) -> dict[str, Any]:
        now, is_new = time.time(), state is OrderState.PERSISTED
        times = {"settled_at": None, "persisted_at": now} if is_new else {"settled_at": now}
        return super()._state_values(state) | times
