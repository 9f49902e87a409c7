"""The second step beyond `RowStore`: the host's hooks are called in the store's transactions."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from flashsale._rules.batches import batches
from flashsale._rules.hooks import HookFailed, Refuse, methods_of, refusals
from flashsale._rules.rows import CHUNK, EVENT_STATES, Row, read_order
from flashsale.aio.hooks import AsyncOrderHooks
from flashsale.aio.stores.base import Connection
from flashsale.aio.stores.moved import MovedRowStore
from flashsale.model import Goods, Order, OrderState, Saved


class HookedRowStore(MovedRowStore[Connection]):
    """A `MovedRowStore` that calls `AsyncOrderHooks`, with one column and one primitive more.

    - `orders.reason`: text, NULL.

    A hook comes last in its transaction: our own rows are locked before it, orders by id, then items by id.

    Args:
        sale: name of the sale.
        hooks: the host's, or None.
        database_errors: what the database raises by itself, in a hook too: that is no error of the hook.
        events: as in `RowStore`.
    """

    _order_columns: Sequence[str] = (*MovedRowStore._order_columns, "reason")

    def __init__(
        self,
        sale: str,
        hooks: object,
        database_errors: tuple[type[Exception], ...],
        *,
        events: str | Iterable[str] = EVENT_STATES,
    ) -> None:
        super().__init__(sale, events=events)
        self._hooks = hooks
        self._called = methods_of(hooks, AsyncOrderHooks)
        self._database_errors = database_errors

    @abstractmethod
    def savepoint(self, connection: Connection) -> AbstractAsyncContextManager[object]:
        """Returns a context within the transaction: what is written in it is undone when anything is raised in it."""

    async def save(self, orders: Sequence[Order]) -> Saved:
        """Writes a batch in one transaction; see `RowStore.save`.

        Raises:
            Exception: what a hook raised; nothing was written.
        """
        try:
            return await super().save(orders)
        except HookFailed as error:
            raised = error.raised
        raise raised

    async def purge(self) -> int:
        """Records that the sale was purged; see `MovedRowStore.purge`. What is not booked is the shop's again."""
        async with self._writing() as connection:
            epoch = await self._raise_epoch(connection, purged_at=time.time())
            if self._called.stock:
                rows = await self.select(connection, "goods", ("goods_id",), {"sale": self.sale})
                await self._grant_booked(connection, [row["goods_id"] for row in rows])
            return epoch

    # -- saved ----------------------------------------------------------------------------------------------------

    async def _saved(self, connection: Connection, orders: Sequence[Order]) -> set[str]:
        refused: set[str] = set()
        again = self._called.saved is not None
        while again and (left := tuple(order for order in orders if order.order_id not in refused)):
            reasons, again = await self._ask(connection, left)
            if reasons:
                await self._refuse(connection, [order for order in left if order.order_id in reasons], reasons)
                refused |= reasons.keys()
        return refused

    async def _ask(self, connection: Connection, orders: Sequence[Order]) -> tuple[dict[str, str], bool]:
        """Returns whom `saved` refuses, and whether what it wrote was undone: then it is called again."""
        try:
            async with self.savepoint(connection):
                answer = await self._call("saved", connection, orders)
        except HookFailed as error:
            if not isinstance(error.raised, Refuse):
                raise
            answer, undone = {error.raised.order_id: error.raised.reason}, True
        else:
            undone = False
        try:
            return refusals(answer, orders), undone
        except (TypeError, ValueError) as error:
            raise HookFailed("saved", error) from error

    async def _refuse(self, connection: Connection, orders: Sequence[Order], reasons: Mapping[str, str]) -> None:
        """Writes orders that were booked as REJECTED, and gives their units back."""
        by_reason: dict[str, list[str]] = {}
        units: Counter[str] = Counter()
        for order in sorted(orders, key=lambda order: (order.goods_id, order.order_id)):
            by_reason.setdefault(reasons[order.order_id], []).append(order.order_id)
            units[order.goods_id] += order.quantity
        for reason, order_ids in by_reason.items():
            values = {**self._state_values(OrderState.REJECTED), "reason": reason}
            for ids in batches(order_ids, CHUNK):
                await self.update(connection, "orders", {"sale": self.sale, "order_id": ids}, values)
        await self._give_back(connection, units)
        await self._moved(connection, orders, OrderState.REJECTED, OrderState.QUEUED)

    # -- settled --------------------------------------------------------------------------------------------------

    async def _moved(
        self, connection: Connection, orders: Iterable[Order], state: OrderState, previous: OrderState
    ) -> None:
        orders = list(orders)
        await super()._moved(connection, orders, state, previous)
        if self._called.settled is None:
            return
        for ids in batches([order.order_id for order in orders], CHUNK):
            rows = await self.select(
                connection, "orders", self._order_columns, {"sale": self.sale, "order_id": list(ids)}
            )
            for row in sorted(map(read_order, rows), key=lambda row: row.order.order_id):
                await self._call("settled", connection, row.order, previous, state)

    # -- stock ----------------------------------------------------------------------------------------------------

    async def _new_goods(self, connection: Connection, goods: Goods) -> None:
        await self._tell_stock(connection, goods.goods_id, goods.total)

    async def _write_goods(self, connection: Connection, row: Row, values: Mapping[str, Any]) -> None:
        if self._called.stock and "granted" not in values:  # a raise is granted with it, or refused
            values = {**values, "granted": max(row["granted"], values["total"])}
        await super()._write_goods(connection, row, values)
        await self._tell_stock(connection, row["goods_id"], values.get("granted", row["granted"]) - row["granted"])

    async def _give_back(self, connection: Connection, units: Mapping[str, int]) -> None:
        await super()._give_back(connection, units)
        if self._called.stock and await self._is_purged(connection):
            await self._grant_booked(connection, units)

    async def _grant_booked(self, connection: Connection, goods_ids: Iterable[str]) -> None:
        """Grants what is booked and no more: the sale is over."""
        changes: dict[str, int] = {}
        for goods_id in sorted(goods_ids):
            row = await self._lock_goods(connection, goods_id)
            changes[goods_id] = row["booked"] - row["granted"]
            await self.update(connection, "goods", self._goods_key(goods_id), {"granted": row["booked"]})
        for goods_id, units in changes.items():
            await self._tell_stock(connection, goods_id, units)

    async def _tell_stock(self, connection: Connection, goods_id: str, units: int) -> None:
        if self._called.stock and units:
            await self._call("stock", connection, goods_id, units)

    async def _call(self, name: str, *arguments: Any) -> Any:
        """Calls a hook that there is.

        Raises:
            HookFailed: it raised something of its own.
        """
        try:
            return await getattr(self._called, name)(*arguments)
        except self._database_errors:
            raise
        except Exception as error:
            raise HookFailed(name, error) from error
