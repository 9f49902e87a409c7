"""A whole flash sale: gate, inventory, queue and store under one name."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from flashsale.aio.clients import Client
from flashsale.aio.control import Control
from flashsale.aio.gate import Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.ledger import Ledger
from flashsale.aio.order_queue import OrderQueue
from flashsale.aio.scripts import Link
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.waiting import Coalescer
from flashsale.errors import (
    FlashSaleError,
    NotExecuted,
    OutcomeUnknown,
    Overloaded,
    StoreRequired,
)
from flashsale.keys import Keys
from flashsale.model import (
    RELEASED,
    Admission,
    Order,
    OrderState,
    Outcome,
    Receipt,
    check_policy,
    check_sale,
    new_order_id,
)
from flashsale.observer import Notifier, Observer, log
from flashsale.records import path


class FlashSale:
    """Sells a limited stock, exactly once, under hundreds of times the usual traffic.

    The sale's policy (totals, caps, windows, holds) lives in the database and in Redis; what is given here are settings
    of this process. Make one per process and event loop, and share it.

    Args:
        client: a redis-py asyncio client of the primary that holds the stock; we copy its settings, with retries off.
        sale: name of the sale: 1-64 of `A-Z a-z 0-9 _ . -`.
        gate_client: a client of the Redis that holds the gate, when it is another one.
        gate_replica: a client of a replica of the gate.
        store: the host's database; needed to cancel and confirm, and by `Worker` and `Syncer`.
        keys: the key layout; `PlainKeys()` for the article's bare names.
        cache_for: seconds for which a refusal is answered from the process.
        max_waiting: callers that may wait in this process before `Overloaded` is raised.
        observer: metrics and tracing.
    """

    def __init__(
        self,
        client: Client,
        sale: str,
        *,
        gate_client: Client | None = None,
        gate_replica: Client | None = None,
        store: AsyncOrderStore | None = None,
        keys: Keys | None = None,
        cache_for: float = 0.05,
        max_waiting: int = 10_000,
        observer: Observer | None = None,
    ) -> None:
        self.name = check_sale(sale)
        self.keys = (keys or Keys()).of(sale)
        self._link = Link(client)
        self._one_redis = gate_client is None or gate_client is client
        self._gate_link = self._link if gate_client is None or gate_client is client else Link(gate_client)
        self.gate = Gate(
            self._gate_link,
            sale,
            replica=gate_replica,
            keys=self.keys,
            cache_for=cache_for,
            max_waiting=max_waiting,
        )
        self.inventory = Inventory(self._link, sale, keys=self.keys)
        self.queue = OrderQueue(self._link, sale, keys=self.keys)
        self.ledger = Ledger(self._link, self.keys, gate_here=self._one_redis)
        self.control = Control(self._link, self.keys)
        self.store = store
        self.notify = Notifier(observer)
        self._purchases = Coalescer[Order, Receipt](self._purchase, max_waiting=max_waiting, weigh=_weigh)

    # -- before the sale --------------------------------------------------------------------------------------------

    async def preload(
        self,
        goods_id: str,
        total: int,
        *,
        per_buyer: int | None = None,
        opens_at: float | None = None,
        closes_at: float | None = None,
        hold: float | None = None,
    ) -> None:
        """Creates stock and gate of one goods, shut; the same call again changes nothing.

        With a store, the `Syncer` does this from the database.

        Args:
            goods_id: which goods.
            total: units for sale.
            per_buyer: most units one buyer may hold.
            opens_at: epoch seconds when the Redis clock starts the goods; None: `start` does.
            closes_at: epoch seconds when it ends.
            hold: seconds to pay after the order was persisted.

        Raises:
            AlreadyLoaded: it exists with other values.
        """
        await self.inventory.preload(
            goods_id, total, per_buyer=per_buyer, opens_at=opens_at, closes_at=closes_at, hold=hold
        )
        await self.open_gate(goods_id, total, opens_at=opens_at, closes_at=closes_at)

    async def open_gate(
        self, goods_id: str, total: int, *, opens_at: float | None = None, closes_at: float | None = None
    ) -> None:
        """Creates the gate of goods whose stock is there, and sets its window if it differs."""
        check_policy(None, opens_at, closes_at)
        await self.gate.preload(goods_id, total)
        if await self.gate.window(goods_id) != (opens_at, closes_at):
            await self.gate.schedule(goods_id, opens_at=opens_at, closes_at=closes_at)

    async def start(self, goods_id: str) -> None:
        """Sets the gate's start flag to 1.

        Raises:
            UnknownGoods: never preloaded.
        """
        await self.gate.start(goods_id)

    async def stop(self, goods_id: str) -> None:
        """Sets the gate's start flag to 0, at once.

        Raises:
            UnknownGoods: never preloaded.
        """
        await self.gate.stop(goods_id)

    async def pause(self) -> None:
        """Holds the whole sale: every purchase is answered PAUSED until `resume`.

        Raises:
            UnknownGoods: no goods were ever preloaded.
        """
        await self._hold(paused=True)

    async def resume(self) -> None:
        """Ends a pause.

        Raises:
            UnknownGoods: no goods were ever preloaded.
        """
        await self._hold(paused=False)

    # -- during the sale --------------------------------------------------------------------------------------------

    async def buy(
        self,
        goods_id: str,
        buyer_id: str,
        quantity: int = 1,
        *,
        order_id: str | None = None,
        data: Any = None,
    ) -> Receipt:
        """Buys: gate, window, cap, stock, ledger and queue. Asking twice with one `order_id` is asking once.

        After `OutcomeUnknown` ask again with the error's `order_id`: the ledger is asked before gate and window, so the
        order is found even when the last unit is gone. One such retry is made here already.

        Args:
            goods_id: what.
            buyer_id: who; 1-128 printable ASCII characters without spaces.
            quantity: units, 1..1,000,000.
            order_id: names the request; None: we make one that nobody can guess.
            data: any JSON value of the host's that goes with the order to the database.

        Returns:
            The receipt; sold out is an answer, not an exception.

        Raises:
            InvalidRequest: an argument breaks the contract.
            UnknownGoods: never preloaded, or lost.
            OrderConflict: the order id is taken by other content.
            OutcomeUnknown: sent, no reply.
            NotExecuted: surely nothing happened; `Overloaded` when too many callers wait in this process.
            CorruptState: what Redis holds of these goods cannot be trusted.
        """
        order = Order(new_order_id() if order_id is None else order_id, goods_id, buyer_id, quantity, data=data)
        if order_id is None and (refusal := await self.gate.refused(goods_id)):
            self.notify.outcome(goods_id, refusal.outcome)
            return _refusal(order, refusal)
        receipt = await self._buy_once_more(order, known=order_id is not None)
        self.notify.outcome(goods_id, receipt.outcome)
        return receipt

    # -- after the sale ---------------------------------------------------------------------------------------------

    async def status(self, order_id: str) -> OrderState | None:
        """Returns where an order stands, from Redis in one read; None when the ledger does not know it.

        Whoever knows the id may ask: let the host check that the order is the buyer's, or use unguessable ids.
        """
        record = await self.ledger.get(order_id)
        return record.state if record else None

    async def cancel(self, order_id: str) -> OrderState | None:
        """Cancels an order, paid or not: the database decides, then its units, allowance and slot return, once.

        Returns:
            The state that now stands: CANCELLED, or another if it was final before; None for an unknown id.

        Raises:
            StoreRequired: the sale has no store.
            StoreError: the database did not answer; ask again.
        """
        return await self.settle(order_id, OrderState.CANCELLED)

    async def confirm(self, order_id: str) -> OrderState | None:
        """Confirms that an order is paid.

        Returns:
            The state that now stands: CONFIRMED, or what was final before; None for an unknown id.

        Raises:
            NotPersisted: the row is not in the database yet; ask again.
            StoreRequired: the sale has no store.
            StoreError: the database did not answer; ask again.
        """
        return await self.settle(order_id, OrderState.CONFIRMED)

    async def settle(self, order_id: str, state: OrderState) -> OrderState | None:
        """Lets the database decide on a new state, then makes the ledger follow; `cancel` and `confirm` are this."""
        if self.store is None:
            raise StoreRequired("to settle an order")
        record = await self.ledger.get(order_id)
        if record is None:
            return None
        standing = await self.store.settle(record.order(order_id), state)
        await self.follow(order_id, standing)
        return standing

    async def follow(self, order_id: str, state: OrderState) -> bool:
        """Moves the ledger to the state that the database has; a release gives units and slot back, once.

        Returns:
            True when the ledger now stands at `state`.
        """
        record = await self.ledger.get(order_id)
        if record is None:
            return False
        for step in path(record.state, state):
            move = await self.ledger.move(order_id, record, step)
            if not move.made:
                break
            if move.slots:
                await self._leave(record.goods_id, move.slots)
            if step in RELEASED:
                self.gate.refusals.forget(record.goods_id)
        return await self.status(order_id) is state

    # -- life -------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Closes our connections; the host's stay."""
        await self.gate.aclose()
        if not self._one_redis:
            await self._gate_link.close()
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _buy_once_more(self, order: Order, *, known: bool) -> Receipt:
        """Tries, and once more with the same order id when the first try failed."""
        try:
            return await self._buy(order, known=known)
        except Overloaded as error:
            error.order_id = order.order_id
            raise
        except (NotExecuted, OutcomeUnknown) as error:
            first = error
        try:
            return await self._buy(order, known=True)
        except (NotExecuted, OutcomeUnknown) as error:
            if isinstance(first, OutcomeUnknown) and isinstance(error, NotExecuted):
                error = first  # the first try may still have happened
            error.order_id = order.order_id
            raise error from first

    async def _buy(self, order: Order, *, known: bool) -> Receipt:
        if self._one_redis:
            return await self._purchases.submit(order)
        if known and await self.ledger.get(order.order_id):
            return await self._purchases.submit(order)
        admission = await self.gate.enter(order.goods_id, order.quantity)
        if not admission.admitted:
            return _refusal(order, admission)
        try:
            receipt = await self._purchases.submit(order)
        except OutcomeUnknown:
            raise  # the order may hold the slot
        except FlashSaleError:
            await self._leave(order.goods_id, order.quantity)
            raise
        if not receipt.accepted or receipt.replayed:
            await self._leave(order.goods_id, order.quantity)
        return receipt

    async def _purchase(self, orders: list[Order]) -> list[Receipt | FlashSaleError]:
        """Sends one batch of purchases; where gate and stock share a Redis, one script decides both."""
        began = time.perf_counter()
        answers = await self.inventory.answer(orders, gated=True, gate=self.keys if self._one_redis else None)
        self.notify.batch(len(orders), time.perf_counter() - began)
        for answer in answers:
            if isinstance(answer, Receipt) and not answer.accepted and answer.outcome is not Outcome.LIMIT_REACHED:
                self.gate.refusals.note(answer.goods_id, Admission(answer.outcome, answer.remaining))
        return answers

    async def _leave(self, goods_id: str, quantity: int) -> None:
        try:
            await self.gate.leave(goods_id, quantity)
        except FlashSaleError as error:
            log.warning("a gate slot of %s waits for the syncer: %s", goods_id, type(error).__name__)

    async def _hold(self, *, paused: bool) -> None:
        await self.control.pause(paused=paused)
        for goods_id in await self.control.goods():
            await self.gate.hold(goods_id, paused=paused)
        self.gate.refusals.forget()


def _refusal(order: Order, admission: Admission) -> Receipt:
    return Receipt(admission.outcome, order.order_id, order.goods_id, order.quantity, admission.remaining)


def _weigh(order: Order) -> int:
    return 200 if order.data is None else len(order.to_json())
