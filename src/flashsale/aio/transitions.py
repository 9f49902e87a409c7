"""`cancel`, `confirm`, `restock` and expiry: the database decides, then the ledger follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flashsale._rules.codes import about, fail
from flashsale._rules.ledger_record import Record
from flashsale._rules.observer import log
from flashsale.aio.gate import Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.ledger import Ledger, Move
from flashsale.aio.store import AsyncOrderStore, bulk_settle
from flashsale.errors import (
    CorruptState,
    FlashSaleError,
    NotPersisted,
    OrderConflict,
    RowRefused,
    StoreError,
    StoreRequired,
)
from flashsale.lua import Code
from flashsale.model import RELEASED, Goods, Order, OrderState, Stock, StoredOrder
from flashsale.model.checks import MAX_QUANTITY, check_id


class Transitions:
    """Moves orders of one sale, and the totals of its items, in the order that keeps the guard right.

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

        Two trips to Redis, and one to the database between them.

        Returns:
            The current state; None when the ledger does not know the order.

        Raises:
            StoreRequired: the sale has no store.
        """
        if self._store is None:
            raise StoreRequired("to settle an order")
        with about(check_id("order_id", order_id)):
            record = await self._ledger.get_to_move(order_id)
            if record is None:
                return None
            order = record.order(order_id)
            current = await self._decide(self._store, order, record.state, state)
            await self.follow(order, current)
        return current

    async def expire(self, records: Mapping[str, Record | None]) -> int:
        """Expires overdue orders in one transaction and one script.

        Where one of them fails, each is expired by itself, so that it stops no other.

        Args:
            records: of at most a few hundred orders, as `Ledger.overdue` reads them.

        Returns:
            How many of them are EXPIRED.
        """
        together = [
            record.order(order_id)
            for order_id, record in records.items()
            if record is not None and record.state not in RELEASED
        ]
        states: dict[str, OrderState | None] = {**await self._settle_together(together, OrderState.EXPIRED)}
        for order_id in [order_id for order_id in records if order_id not in states]:
            try:
                states[order_id] = await self.settle(order_id, OrderState.EXPIRED)
            except (CorruptState, OrderConflict, StoreError):  # it stops this order, not the others
                log.exception("an order past its deadline cannot be expired")
        return list(states.values()).count(OrderState.EXPIRED)

    async def follow(self, order: Order, state: OrderState) -> bool:
        """Moves the ledger to the state that the database has; a release gives units and slot back, once.

        Returns:
            True when the ledger is now at `state`.

        Raises:
            CorruptState: what Redis holds of the order or its items cannot be trusted; nothing was changed.
        """
        (move,) = await self.follow_all([StoredOrder(order, state)])
        if move.code == Code.CORRUPT:
            fail(move.code, self._gate.sale, order.goods_id)
        return move.state is state

    async def follow_all(self, rows: Sequence[StoredOrder]) -> list[Move]:
        """Moves the ledger to the states of many rows, each order once; what is corrupt stops only its own order."""
        moves = await self._ledger.move(rows)
        slots: Counter[str] = Counter()
        for row, move in zip(rows, moves, strict=True):
            slots[row.order.goods_id] += move.slots
            if move.made and row.state in RELEASED:
                self._gate._refusals.forget(row.order.goods_id)
        for goods_id, units in slots.items():
            for part in range(0, units, MAX_QUANTITY):
                await self.leave(goods_id, min(units - part, MAX_QUANTITY))
        return moves

    async def persist(self, orders: Sequence[Order]) -> dict[str, OrderState]:
        """Saves queued orders here and now, and makes the ledger follow; each id stands once in `orders`.

        Returns:
            The current state of each order that the database took.
        """
        if self._store is None:
            raise StoreRequired("to persist orders")
        if not orders:
            return {}
        now = await self._ledger.time()
        states = (await self._store.save([replace(order, created_at=now) for order in orders])).states
        saved = [order for order in orders if order.order_id in states]
        await self._ledger.persisted([order for order in saved if states[order.order_id] not in RELEASED])
        for order in saved:
            if states[order.order_id] is not OrderState.PERSISTED:
                await self.follow(order, states[order.order_id])
        return states

    async def leave(self, goods_id: str, quantity: int) -> None:
        """Gives a slot back at the gate; when the gate does not answer, the syncer does it later."""
        try:
            await self._gate.leave(goods_id, quantity)
        except FlashSaleError as error:
            log.warning("a gate slot of %s waits for the syncer: %s", goods_id, type(error).__name__)

    async def _decide(self, store: AsyncOrderStore, order: Order, known: OrderState, state: OrderState) -> OrderState:
        """Returns the state that the database decides on, for an order that the ledger knows as `known`."""
        gone = known in RELEASED
        if gone and state in RELEASED:
            state = known  # an adopted order that was sold out: the database has yet to hear of it
        try:
            return await store.settle(order, state)
        except NotPersisted:
            if not gone:
                raise
            return known  # it never had a row, and never will: asking again would not help
        except RowRefused:
            if not (gone or known is OrderState.DEAD) or await store.states([order.order_id]):
                raise
            # Not even a tombstone: it never had a row, and with its letter goes the last way to one.
            return known if gone else state

    async def _settle_together(self, orders: Sequence[Order], state: OrderState) -> dict[str, OrderState]:
        """Decides a page in one transaction, and moves the ledger by one script.

        Returns:
            The current state by order id, without orders that need a try of their own: all of them, if one failed.
        """
        settle_many = bulk_settle(self._store)
        if settle_many is None or not orders:
            return {}
        try:
            states = await settle_many(orders, state)
            rows = [StoredOrder(order, states[order.order_id]) for order in orders if order.order_id in states]
            pairs = zip(rows, await self.follow_all(rows), strict=True)
        except (CorruptState, OrderConflict, StoreError) as error:
            log.info("%d orders are settled one by one: %s", len(orders), type(error).__name__)
            return {}
        return {row.order.order_id: row.state for row, move in pairs if move.code != Code.CORRUPT}

    async def adjust(self, goods: Goods, stock: Stock) -> int:
        """Makes the inventory follow the database's row: raising goes database first, lowering inventory first.

        Both under the row's version: whoever read it before somebody changed it must not move the guard any more.

        Returns:
            The current total, in units.
        """
        assert self._store is not None
        goods_id, granted = goods.goods_id, max(goods.total, stock.total)
        if goods.total != stock.total and not await self._store.grant(goods_id, granted, version=goods.version):
            return stock.total
        total = await self._inventory._configure(goods)
        if total != granted:
            await self._store.grant(goods_id, total, version=goods.version)
        return total
