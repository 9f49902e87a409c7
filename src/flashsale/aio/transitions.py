"""The database decides, the ledger follows: cancel, confirm, expire, reject, restock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flashsale._rules.codes import about
from flashsale._rules.ledger_record import path
from flashsale._rules.observer import log
from flashsale.aio.gate import Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.ledger import Ledger
from flashsale.aio.store import AsyncOrderStore
from flashsale.errors import FlashSaleError, NotPersisted, RowRefused, StoreRequired
from flashsale.model import RELEASED, Goods, Order, OrderState, Stock
from flashsale.model.checks import check_id


class Transitions:
    """Moves orders of one sale, and the totals of its goods, in the order that keeps the guard right.

    Args:
        gate: of the sale.
        inventory: of the sale.
        ledger: of the sale.
        store: the host's database, or None.
    """

    def __init__(self, gate: Gate, inventory: Inventory, ledger: Ledger, store: AsyncOrderStore | None) -> None:
        self._gate = gate
        self._inventory = inventory
        self._ledger = ledger
        self._store = store

    async def settle(self, order_id: str, state: OrderState) -> OrderState | None:
        """Lets the database decide on a new state, then makes the ledger follow.

        Returns:
            The state that now stands; None when the ledger does not know the order.

        Raises:
            StoreRequired: the sale has no store.
        """
        if self._store is None:
            raise StoreRequired("to settle an order")
        with about(check_id("order_id", order_id)):
            await self._ledger.meet()
        record = await self._ledger.get(order_id)
        if record is None:
            return None
        if state in RELEASED and record.state in RELEASED:
            state = record.state  # an adopted order that was sold out: the database has yet to hear of it
        try:
            standing = await self._store.settle(record.order(order_id), state)
        except NotPersisted:
            if record.state not in RELEASED:
                raise
            return record.state  # it never had a row, and never will: asking again would not help
        except RowRefused:
            gone = record.state in RELEASED  # asked again
            if not (gone or record.state is OrderState.DEAD) or await self._store.states([order_id]):
                raise
            # Not even a tombstone: it never had a row, and with its letter goes the last way to one.
            standing = record.state if gone else state
        await self.follow(order_id, standing)
        return standing

    async def follow(self, order_id: str, state: OrderState) -> bool:
        """Moves the ledger to the state that the database has; a release gives units and slot back, once.

        Returns:
            True when the ledger now stands at `state`.
        """
        for _ in OrderState:  # a step that somebody else makes meanwhile is met at the next look
            record = await self._ledger.get(order_id)
            way = path(record.state, state) if record else []
            if record is None or not way:
                break
            move = await self._ledger.move(order_id, record, way[0])
            if move.slots:
                await self.leave(record.goods_id, move.slots)
            if move.made and way[0] in RELEASED:
                self._gate._refusals.forget(record.goods_id)
        return record is not None and record.state is state

    async def persist(self, orders: Sequence[Order]) -> dict[str, OrderState]:
        """Saves queued orders here and now, and makes the ledger follow; each id stands once in `orders`.

        Returns:
            The state that stands, of each order that the database took.
        """
        if self._store is None:
            raise StoreRequired("to persist orders")
        if not orders:
            return {}
        now = await self._ledger.time()
        standing = (await self._store.save([replace(order, created_at=now) for order in orders])).states
        await self._ledger.persisted(
            [order for order in orders if standing.get(order.order_id) not in RELEASED and order.order_id in standing]
        )
        for order_id, state in standing.items():
            if state is not OrderState.PERSISTED:
                await self.follow(order_id, state)
        return standing

    async def leave(self, goods_id: str, quantity: int) -> None:
        """Gives a slot back at the gate; when the gate does not answer, the syncer does it later."""
        try:
            await self._gate.leave(goods_id, quantity)
        except FlashSaleError as error:
            log.warning("a gate slot of %s waits for the syncer: %s", goods_id, type(error).__name__)

    async def adjust(self, goods: Goods, stock: Stock) -> int:
        """Makes the inventory follow the database's row: raising goes database first, lowering inventory first.

        Both under the row's version: whoever read it before somebody changed it must not move the guard any more.

        Returns:
            The total that stands, in units.
        """
        assert self._store is not None
        goods_id, granted = goods.goods_id, max(goods.total, stock.total)
        if goods.total != stock.total and not await self._store.grant(goods_id, granted, version=goods.version):
            return stock.total
        total = await self._inventory._configure(goods)
        if total != granted:
            await self._store.grant(goods_id, total, version=goods.version)
        return total
