"""`cancel`, `confirm`, `restock` and expiry: the database decides, then the ledger follows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from flashsale._rules.codes import about, fail, unknown
from flashsale._rules.ledger_record import Record
from flashsale._rules.observer import log
from flashsale._rules.rate_limited_log import RateLimitedLog, named
from flashsale.aio.following import Following
from flashsale.aio.gate import Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.ledger import Ledger, Move
from flashsale.aio.store import AsyncOrderStore, after_commit, bulk_settle, in_transaction, restock_once, stored
from flashsale.errors import (
    CorruptState,
    FlashSaleError,
    NotExecuted,
    NotPersisted,
    OrderConflict,
    OutcomeUnknown,
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
        self._log = RateLimitedLog()
        self._following = Following(store, self.follow_all)

    async def aclose(self) -> None:
        """Ends what follows transactions of the host's."""
        await self._following.aclose()

    async def settle(self, order_id: str, state: OrderState, store: AsyncOrderStore | None = None) -> OrderState | None:
        """Lets the database decide on a new state, then makes the ledger follow.

        Two trips to Redis, and one to the database between them. What the database has decided is returned, also where
        Redis cannot follow now: the syncer does it later. Inside a transaction of the host's the ledger follows after
        its commit; rolled back, nothing has moved.

        Args:
            order_id: of the order.
            state: where to.
            store: ours, joined to a transaction of the host's.

        Returns:
            The current state; None when neither the ledger nor the database knows the order.

        Raises:
            StoreRequired: the sale has no store.
        """
        store = self._store if store is None else store
        decided = await self._decided(store, order_id, state)
        if store is None or decided is None:
            return None
        if not self._following.later(store, StoredOrder(*decided)):
            await self._follow_or_log(*decided)
        return decided[1]

    async def _follow_or_log(self, order: Order, state: OrderState) -> None:
        try:
            await self.follow(order, state)
        except (CorruptState, OutcomeUnknown) as error:
            text = "order %s is %s in the database, the ledger waits for the syncer: %s"
            log.warning(text, order.order_id, state, named(error))

    async def settle_each(
        self, order_ids: Sequence[str], state: OrderState, store: AsyncOrderStore | None = None
    ) -> dict[str, OrderState | None]:
        """Moves the orders of one basket, in their turn.

        Raises:
            OutcomeUnknown: one of them failed when others had moved; the same call finishes the rest.
        """
        states: dict[str, OrderState | None] = {}
        for order_id in order_ids:
            try:
                states[order_id] = await self.settle(order_id, state, store)
            except RowRefused:  # asking again does not help: its own word says more
                raise
            except (NotExecuted, StoreError) as error:
                if not states:
                    raise
                raise unknown("orders of the basket have moved, and not all of them", error, order_id) from error
        return states

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
                decided = await self._decided(self._store, order_id, OrderState.EXPIRED)
                if decided is not None:
                    await self.follow(*decided)
                    states[order_id] = decided[1]
            except (CorruptState, OrderConflict, StoreError) as error:  # it stops this order, not the others
                message = "order %s cannot be expired, the next pass tries again: %s"
                self._log.tell((message, named(error)), message, order_id, named(error))
        return list(states.values()).count(OrderState.EXPIRED)

    async def follow(self, order: Order, state: OrderState) -> bool:
        """Moves the ledger to the state that the database has; a release gives units and slot back, once.

        Returns:
            True when the ledger is now at `state`.

        Raises:
            CorruptState: what Redis holds of the order or its item cannot be trusted; Redis was not changed.
            OutcomeUnknown: Redis does not answer; the row stands as it is.
        """
        (move,) = await self.follow_all([StoredOrder(order, state)])
        if move.code == Code.CORRUPT:
            fail(move.code, self._gate.sale, order.goods_id)
        return move.state is state

    async def follow_all(self, rows: Sequence[StoredOrder]) -> list[Move]:
        """Moves the ledger to the states of many rows, each order once; what is corrupt stops only its own order.

        Raises:
            OutcomeUnknown: Redis does not answer; the rows stand as they are.
        """
        try:
            moves = await self._ledger.move(rows)
        except NotExecuted as error:  # the rows have moved: nobody may be told that nothing happened
            raise unknown("the rows stand in the database, and the ledger has not followed", error) from error
        slots: Counter[str] = Counter()
        for row, move in zip(rows, moves, strict=True):
            slots[row.order.goods_id] += move.slots
            if move.made and row.state in RELEASED:
                self._gate._refusals.forget(row.order.goods_id)
        for goods_id, units in slots.items():
            for part in range(0, units, MAX_QUANTITY):
                await self.leave(goods_id, min(units - part, MAX_QUANTITY))
        return moves

    def require_commit(self) -> None:
        """Refuses what promises a row that is committed, inside a transaction that the host may still roll back.

        Raises:
            NotExecuted: `reason` is TRANSACTION.
        """
        if in_transaction(self._store):
            what = "PERSISTED cannot be promised inside an open transaction: buy before it, or after its commit"
            error = NotExecuted(what, reason="TRANSACTION")
            error.retry_safe = False
            raise error

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
        try:
            await self._ledger.persisted([order for order in saved if states[order.order_id] not in RELEASED])
            moved = [order for order in saved if states[order.order_id] is not OrderState.PERSISTED]
            await self.follow_all([StoredOrder(order, states[order.order_id]) for order in moved])
        except (NotExecuted, OutcomeUnknown, CorruptState) as error:  # the worker finds the rows, and ends this
            log.warning("%d rows are saved, the ledger waits for the worker: %s", len(saved), named(error))
        return states

    async def stored(self, order_ids: Sequence[str], store: AsyncOrderStore | None = None) -> list[str]:
        """Returns those of `order_ids` that have a row, as far as the store, ours or a joined one, can be asked."""
        store = self._store if store is None else store
        return [] if store is None else [row.order.order_id for row in await stored(store, order_ids)]

    async def refused_by_hook(self, order_ids: Sequence[str]) -> set[str]:
        """Returns those of REJECTED orders that a hook of the host's refused; all when the database does not answer."""
        if self._store is None or not order_ids:
            return set()
        try:
            rows = await stored(self._store, order_ids)
        except (StoreError, OutcomeUnknown):
            return set(order_ids)
        return {row.order.order_id for row in rows if row.reason is not None}

    async def leave(self, goods_id: str, quantity: int) -> None:
        """Gives a slot back at the gate; when the gate does not answer, the syncer does it later."""
        try:
            await self._gate.leave(goods_id, quantity)
        except FlashSaleError as error:
            log.warning("a gate slot of %s waits for the syncer: %s", goods_id, type(error).__name__)

    async def _decided(
        self, store: AsyncOrderStore | None, order_id: str, state: OrderState
    ) -> tuple[Order, OrderState] | None:
        """Returns an order and the state that the database decided on; None when no server knows it.

        Raises:
            NotExecuted: a rebuild may bring it back.
        """
        if store is None:
            raise StoreRequired("to settle an order")
        with about(check_id("order_id", order_id)):
            look = await self._ledger.look(order_id)
            if look.record is not None:  # with the time of the tombstone, should it have no row
                order = replace(look.record.order(order_id), created_at=look.time)
                return order, await self._decide(store, order, look.record.state, state)
            for row in await stored(store, [order_id]):  # Redis lost it
                return row.order, await store.settle(row.order, state)
            look.require_whole(order_id)
        return None

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
            message = "%d orders are settled one by one: %s"
            self._log.tell((message, named(error)), message, len(orders), named(error), level=logging.INFO)
            return {}
        return {row.order.order_id: row.state for row, move in pairs if move.code != Code.CORRUPT}

    async def restock(self, goods_id: str, units: int, request_id: str | None) -> int:
        """Restocks in the database, then in Redis; see `FlashSale.restock`."""
        assert self._store is not None
        if request_id is None:
            goods, result = await self._store.restock(goods_id, units), None
        else:
            goods, result = await restock_once(self._store, goods_id, units, request_id)
        if after_commit(self._store, partial(self._bring_or_log, goods)):
            total = goods.total
        else:
            total = await self._bring_or_log(goods)
        return total if result is None else result

    async def _bring_or_log(self, goods: Goods) -> int:
        try:
            return await self._bring(goods)
        except FlashSaleError as error:  # the database has it: who was told that nothing happened would add it twice
            log.warning("item %s has a new total, Redis waits for the syncer: %s", goods.goods_id, named(error))
            return goods.total

    async def _bring(self, goods: Goods) -> int:
        """Brings the total of an item to stock and gate, and returns what the stock now has."""
        goods_id, inventory = goods.goods_id, self._inventory
        await self.adjust(goods, await inventory.stock(goods_id))
        while True:  # whoever restocks at the same moment sets the gate as well: the last one to do so looks again
            total = (await inventory.stock(goods_id)).total
            await self._gate.resize(goods_id, total)
            if (await inventory.stock(goods_id)).total == total:
                return total

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
