"""A store whose tables also tell when an order moved, what was restocked and what was purged: those of this release."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from flashsale._rules.rows import Row, purged, read_goods, read_order
from flashsale.aio.stores.base import Connection, RowStore
from flashsale.errors import InvalidRequest
from flashsale.model import Goods, OrderState, StoredOrder
from flashsale.model.checks import MAX_UNITS, check_id, check_int


class MovedRowStore(RowStore[Connection]):
    """A `RowStore` with two columns and one table more.

    - `orders.settled_at`: float, NULL, indexed after `sale`.
    - `sales.purged_at`: float, NULL.
    - `requests`: sale, request_id, goods_id, units, result. Key: sale, request_id.
    """

    @abstractmethod
    async def select_settled(self, connection: Connection, moment: float, order_id: str, limit: int) -> Iterable[Row]:
        """Returns the first `limit` rows of orders after this moment, by `settled_at`, then by order id.

        A row of just this moment is after it when its order id is after `order_id`. `settled_at` is among the columns.
        """

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
        async with self.transaction() as connection:
            return await self._raise_epoch(connection, purged_at=time.time())

    async def purged(self) -> bool:
        """Returns whether the sale was purged."""
        async with self._reading() as connection:
            return await self._is_purged(connection)

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
        async with self.transaction() as connection:
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
        moved_at = None if state is OrderState.PERSISTED else time.time()
        return super()._state_values(state) | {"settled_at": moved_at}
