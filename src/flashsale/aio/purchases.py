"""`buy` and `buy_basket`, step by step: refusal cache, gate, stock, and one retry with the same order id."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from flashsale._rules.codes import about, set_order_id
from flashsale._rules.deadline import TOO_LATE
from flashsale._rules.durability import Durability, Guarantee
from flashsale._rules.observer import Notifier, log
from flashsale._rules.refusal_cache import OPEN, Refusal
from flashsale.aio.gate import Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.ledger import Ledger
from flashsale.aio.reservations import Answers, Mode
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.transitions import Transitions
from flashsale.aio.transport.runtime import spend
from flashsale.errors import (
    FlashSaleError,
    InvalidRequest,
    NotExecuted,
    OrderConflict,
    OutcomeUnknown,
    Overloaded,
    StoreError,
)
from flashsale.lua import Slot
from flashsale.model import RELEASED, Admission, BasketReceipt, Order, OrderState, Outcome, Receipt
from flashsale.model.checks import check_goods_id, check_id, check_pairs, check_quantity

MAX_GOODS: Final = 50  # items of one basket
MAX_BASKET_ID: Final = 120  # characters; its order ids are a little longer

Answer = TypeVar("Answer")


class Purchases:
    """Takes purchases through gate and stock; concurrent ones share script calls.

    Args:
        gate: of the sale.
        inventory: of the sale.
        ledger: of the sale.
        transitions: makes the ledger follow the database.
        notifier: told of outcomes and batches.
        guarantee: what must have happened before a purchase is ACCEPTED.
        one_redis: gate and stock share a Redis: one script decides both.
    """

    def __init__(
        self,
        gate: Gate,
        inventory: Inventory,
        ledger: Ledger,
        transitions: Transitions,
        notifier: Notifier,
        guarantee: Guarantee,
        *,
        one_redis: bool,
    ) -> None:
        self._gate = gate
        self._ledger = ledger
        self._transitions = transitions
        self._notifier = notifier
        self._tally = gate._tally
        self._one_redis = one_redis
        self._callers = inventory._link.callers
        self._persists = guarantee.durability is Durability.PERSISTED
        self._book, self._submit = inventory._reservations.book, inventory._reservations.singles.submit
        slot = Slot.TAKE if one_redis else Slot.HELD
        self._held = Mode(Slot.HELD, guarantee=guarantee, finish=self._finish)
        taking = Mode(Slot.TAKE, guarantee=guarantee, finish=self._finish)
        self._modes = {Slot.HELD: self._held, Slot.TAKE: taking if one_redis else None}
        self._basket = Mode(slot, together=True, guarantee=guarantee, finish=self._finish)

    async def buy(self, order: Order, slot: Slot, until: float, *, named: bool, refusal: Refusal = OPEN) -> Receipt:
        """Buys; with a slot that is HELD, refused by the stock, the slot stays the ticket's.

        Args:
            order: what is bought.
            slot: TAKE one at the gate; or one is HELD, by a ticket.
            until: monotonic seconds that the call has.
            named: the caller brought the order id, so that the ledger may know it.
            refusal: what this process remembers of the item, where that may answer.
        """
        if self._persists:
            self._transitions.require_commit()
        mode = self._modes[slot]
        admission = None
        if refusal is not OPEN:
            admission = await spend(until, self._gate._refused, order.goods_id, refusal)
        if admission is not None:
            receipt = _refusal(order, admission)
        else:
            try:
                if mode:
                    receipt = await self._submit((order, mode), until)
                else:
                    receipt = await spend(until, self._take_and_hold, order, named)
            except (NotExecuted, OutcomeUnknown) as error:
                again = (
                    partial(self._submit, (order, mode), until)
                    if mode
                    else partial(spend, until, self._take_and_hold, order, True)  # noqa: FBT003
                )
                receipt = await _once_more(error, again, order.order_id, named=named)
        if self._notifier.observed:
            self._notifier.outcome(order.goods_id, receipt.outcome)
        return receipt

    async def buy_basket(
        self, basket_id: str, buyer_id: str, items: Iterable[tuple[str, int]], data: Any, *, named: bool
    ) -> BasketReceipt:
        """Buys all or none; see `FlashSale.buy_basket`."""
        _check_basket_id(basket_id)
        if self._persists:
            self._transitions.require_commit()
        with about(basket_id):
            self._callers.refuse_if_full()
        orders = _orders_of(basket_id, buyer_id, items, data)
        try:
            receipts = await self._buy_all(orders)
        except (NotExecuted, OutcomeUnknown) as error:
            receipts = await _once_more(error, lambda: self._buy_all(orders), basket_id, named=named)
        if receipts[0].replayed and await self._ledger.get(f"{basket_id}#{len(orders) + 1}"):
            raise OrderConflict(sale=self._gate.sale, goods_id=orders[0].goods_id, order_id=basket_id)
        for receipt in receipts:
            self._notifier.outcome(receipt.goods_id, receipt.outcome)
        outcome = next((receipt.outcome for receipt in receipts if not receipt.accepted), Outcome.ACCEPTED)
        return BasketReceipt(outcome, basket_id, tuple(receipts))

    async def basket(self, basket_id: str, store: AsyncOrderStore | None = None) -> list[str]:
        """Returns the order ids of a basket, in one read; those of the database, or `store`, where Redis lost it."""
        _check_basket_id(basket_id)
        names = [f"{basket_id}#{place}" for place in range(1, MAX_GOODS + 1)]
        with about(basket_id):
            return list(await self._ledger.get_many(names)) or await self._transitions.stored(names, store)

    async def _take_and_hold(self, order: Order, known: bool) -> Receipt:  # noqa: FBT001
        """Takes a slot at the gate on its own Redis, then reserves with it; refused by the stock, the slot returns."""
        request = order, self._held
        if known and await self._ledger.get(order.order_id):
            return await self._submit(request)
        admission = await self._gate._ask((order.goods_id, order.quantity))
        if not admission.admitted:
            return _refusal(order, admission)
        try:
            receipt = await self._submit(request)
        except OutcomeUnknown:
            raise  # the order may own the slot
        except FlashSaleError:
            await self._transitions.leave(order.goods_id, order.quantity)
            raise
        if receipt.state is None or receipt.replayed:
            await self._transitions.leave(order.goods_id, order.quantity)
        return receipt

    async def _buy_all(self, orders: Sequence[Order]) -> list[Receipt]:
        entered: Sequence[Order] = ()
        if not self._one_redis and not await self._ledger.get(orders[0].order_id):
            refusal = await self._enter_all(orders)
            if refusal is not None:
                return [_refusal(each, Admission(refusal.outcome, 0)) for each in orders]
            entered = orders
        try:
            answers = await self._book(orders, self._basket)
        except OutcomeUnknown:
            raise  # the orders may own the slots
        except FlashSaleError:
            await self._leave_all(entered)
            raise
        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        if len(receipts) < len(orders) or receipts[0].state is None or receipts[0].replayed:
            await self._leave_all(entered)
        errors = [answer for answer in answers if isinstance(answer, FlashSaleError)]
        if errors:  # what is wrong with one order tells more than that the others were not tried
            raise next((error for error in errors if not isinstance(error, NotExecuted)), errors[0])
        if any(receipt.outcome is not Outcome.ACCEPTED for receipt in receipts):
            return await self._undo_half(receipts)
        return receipts

    async def _undo_half(self, receipts: list[Receipt]) -> list[Receipt]:
        """Gives back what the database left of a basket of which the guard, or a hook, refused an order."""
        if not any(receipt.state is OrderState.REJECTED for receipt in receipts):
            return receipts
        states: list[OrderState | None] = []
        try:
            for receipt in receipts:
                state = receipt.state
                if state is not None and state not in RELEASED:
                    state = await self._transitions.settle(receipt.order_id, OrderState.CANCELLED)
                states.append(state)
        except (StoreError, NotExecuted, OutcomeUnknown):  # asked again, the basket finishes this
            return [receipt._replace(outcome=Outcome.UNCERTAIN) for receipt in receipts]
        by_hook = any(receipt.outcome is Outcome.REJECTED for receipt in receipts)
        return [
            receipt._replace(outcome=Outcome.REJECTED if by_hook else Outcome.SOLD_OUT, state=state)
            for receipt, state in zip(receipts, states, strict=True)
        ]

    async def _enter_all(self, orders: Sequence[Order]) -> Admission | None:
        """Takes a slot for each order; refused one, it keeps none and returns the refusal."""
        for place, order in enumerate(orders):
            try:
                admission = await self._gate._ask((order.goods_id, order.quantity))
            except FlashSaleError:
                await self._leave_all(orders[:place])
                raise
            if not admission.admitted:
                await self._leave_all(orders[:place])
                return admission
        return None

    async def _leave_all(self, orders: Sequence[Order]) -> None:
        for order in orders:
            await self._transitions.leave(order.goods_id, order.quantity)

    async def _finish(self, orders: Sequence[Order], mode: Mode, answers: Answers, began: float) -> Answers:
        """Does with the answers of one call what is to be done before anybody reads them."""
        if self._persists:
            answers = await self._persist(orders, answers)
        took = time.perf_counter() - began
        self._tally.batch(answers, took)
        if self._notifier.observed:
            self._notifier.batch(len(orders), took)
        if mode.together:  # the refusal of a basket says nothing of each of its items
            self._tally.refused(answers)
        else:
            self._gate._refusals.learn(answers)
        return answers

    async def _persist(self, orders: Sequence[Order], answers: Answers) -> Answers:
        """Commits a batch before anybody is answered; the worker meets rows that exist. One commit serves the batch."""
        queued = {
            order.order_id: order
            for order, answer in zip(orders, answers, strict=True)
            if isinstance(answer, Receipt) and answer.state is OrderState.QUEUED
        }
        try:
            states = await self._transitions.persist(list(queued.values()))
        except Exception as error:  # noqa: BLE001 - the units are booked: nobody may be told that nothing happened
            log.warning("a batch of %d is left to the worker: %s", len(queued), type(error).__name__)
            states = {}
        found = {
            answer.order_id: states.get(answer.order_id, answer.state)
            for answer in answers
            if isinstance(answer, Receipt)
        }
        rejected = [order_id for order_id, state in found.items() if state is OrderState.REJECTED]
        refused = await self._transitions.refused_by_hook(rejected)
        return [
            _persisted(answer, found[answer.order_id], by_hook=answer.order_id in refused)
            if isinstance(answer, Receipt)
            else answer
            for answer in answers
        ]


async def _once_more(
    first: NotExecuted | OutcomeUnknown, ask: Callable[[], Awaitable[Answer]], order_id: str, *, named: bool
) -> Answer:
    """Asks again with the same order id after an error: the ledger then answers what was answered."""
    set_order_id(first, order_id, by_caller=named)
    if isinstance(first, NotExecuted) and (isinstance(first, Overloaded) or first.reason == TOO_LATE):
        raise first
    try:
        return await ask()
    except (NotExecuted, OutcomeUnknown) as error:
        set_order_id(error, order_id, by_caller=named)
        if isinstance(first, OutcomeUnknown):
            raise first from error  # it may still have happened
        raise


def _orders_of(basket_id: str, buyer_id: str, items: Iterable[tuple[str, int]], data: Any) -> list[Order]:
    units: Counter[str] = Counter()
    for goods_id, quantity in check_pairs("items", items):
        units[check_goods_id(goods_id)] += check_quantity(quantity)
    if not 1 <= len(units) <= MAX_GOODS:
        raise InvalidRequest("items", f"1..{MAX_GOODS} goods")
    return [
        Order(f"{basket_id}#{place}", goods_id, buyer_id, units[goods_id], data=data)
        for place, goods_id in enumerate(sorted(units), start=1)
    ]


def _persisted(receipt: Receipt, state: OrderState | None, *, by_hook: bool) -> Receipt:
    """Returns the receipt of a purchase whose row is in `state`; None: refused by the stock.

    The guard had no unit for a REJECTED order, unless a hook of the host's refused it.
    """
    if state in {OrderState.QUEUED, OrderState.DEAD}:
        return receipt._replace(outcome=Outcome.UNCERTAIN)
    if state is OrderState.REJECTED:
        return receipt._replace(outcome=Outcome.REJECTED if by_hook else Outcome.SOLD_OUT, state=state)
    return receipt._replace(state=state)


def _check_basket_id(basket_id: str) -> None:
    if len(check_id("basket_id", basket_id)) > MAX_BASKET_ID:
        raise InvalidRequest("basket_id", f"longer than {MAX_BASKET_ID} characters")


def _refusal(order: Order, admission: Admission) -> Receipt:
    return Receipt(admission.outcome, order.order_id, order.goods_id, order.quantity, admission.remaining)
