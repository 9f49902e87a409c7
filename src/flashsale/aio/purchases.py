"""The way of a purchase: remembered refusals, gate, stock, one retry with the same order id."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from flashsale.aio.gate import Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.ledger import Ledger
from flashsale.aio.waiting import Coalescer
from flashsale.errors import FlashSaleError, InvalidRequest, NotExecuted, OrderConflict, OutcomeUnknown, Overloaded
from flashsale.model import (
    Admission,
    BasketReceipt,
    Order,
    Outcome,
    Receipt,
    check_quantity,
)
from flashsale.observer import Notifier, log

MAX_GOODS: Final = 50  # goods of one basket

Answer = TypeVar("Answer")


class Purchases:
    """Takes purchases through gate and stock; concurrent ones share script calls.

    Args:
        gate: of the sale.
        inventory: of the sale.
        ledger: of the sale.
        notify: told of outcomes and batches.
        one_redis: gate and stock share a Redis: one script decides both.
        max_waiting: callers that may wait before `Overloaded`.
    """

    def __init__(
        self,
        gate: Gate,
        inventory: Inventory,
        ledger: Ledger,
        notify: Notifier,
        *,
        one_redis: bool,
        max_waiting: int,
    ) -> None:
        self._gate = gate
        self._inventory = inventory
        self._ledger = ledger
        self._notify = notify
        self._one_redis = one_redis
        self._waiting = Coalescer[Order, Receipt](self._reserve, max_waiting=max_waiting, weigh=_weigh)

    async def buy(self, order: Order, *, named: bool) -> Receipt:
        """Buys; `named` when the caller brought the order id, so that the ledger may know it."""
        refusal = None if named else await self._gate.refused(order.goods_id)
        if refusal is not None:
            receipt = _refusal(order, refusal)
        else:
            receipt = await _once_more(lambda known: self._buy(order, known=known), order.order_id, known=named)
        self._notify.outcome(order.goods_id, receipt.outcome)
        return receipt

    async def buy_basket(
        self, basket_id: str, buyer_id: str, items: Iterable[tuple[str, int]], data: Any
    ) -> BasketReceipt:
        """Buys all or none; see `FlashSale.buy_basket`."""
        units: Counter[str] = Counter()
        for goods_id, quantity in items:
            units[goods_id] += check_quantity(quantity)
        if not 1 <= len(units) <= MAX_GOODS:
            raise InvalidRequest("items", f"1..{MAX_GOODS} goods")
        orders = [
            Order(f"{basket_id}#{place}", goods_id, buyer_id, units[goods_id], data=data)
            for place, goods_id in enumerate(sorted(units), start=1)
        ]
        receipts = await _once_more(lambda known: self._buy_all(orders, known=known), basket_id, known=True)
        if receipts[0].replayed and await self._ledger.get(f"{basket_id}#{len(orders) + 1}"):
            raise OrderConflict(sale=self._gate.sale, goods_id=orders[0].goods_id, order_id=basket_id)
        for receipt in receipts:
            self._notify.outcome(receipt.goods_id, receipt.outcome)
        return BasketReceipt(receipts[0].outcome, basket_id, tuple(receipts))

    async def basket(self, basket_id: str) -> list[str]:
        """Returns the order ids of a basket, in one read."""
        names = [f"{basket_id}#{place}" for place in range(1, MAX_GOODS + 1)]
        return list(await self._ledger.get_many(names))

    async def leave(self, goods_id: str, quantity: int) -> None:
        """Gives a slot back at the gate; when the gate does not answer, the syncer does it later."""
        try:
            await self._gate.leave(goods_id, quantity)
        except FlashSaleError as error:
            log.warning("a gate slot of %s waits for the syncer: %s", goods_id, type(error).__name__)

    async def _buy(self, order: Order, *, known: bool) -> Receipt:
        if self._one_redis or (known and await self._ledger.get(order.order_id)):
            return await self._waiting.submit(order)
        admission = await self._gate.enter(order.goods_id, order.quantity)
        if not admission.admitted:
            return _refusal(order, admission)
        try:
            receipt = await self._waiting.submit(order)
        except OutcomeUnknown:
            raise  # the order may hold the slot
        except FlashSaleError:
            await self.leave(order.goods_id, order.quantity)
            raise
        if not receipt.accepted or receipt.replayed:
            await self.leave(order.goods_id, order.quantity)
        return receipt

    async def _buy_all(self, orders: Sequence[Order], *, known: bool) -> list[Receipt]:
        entered: list[Order] = []
        if not self._one_redis and not (known and await self._ledger.get(orders[0].order_id)):
            for order in orders:
                admission = await self._gate.enter(order.goods_id, order.quantity)
                if not admission.admitted:
                    await self._leave_all(entered)
                    return [_refusal(each, Admission(admission.outcome, 0)) for each in orders]
                entered.append(order)
        try:
            answers = await self._reserve(orders, together=True)
        except OutcomeUnknown:
            raise  # the orders may hold the slots
        except FlashSaleError:
            await self._leave_all(entered)
            raise
        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        if len(receipts) < len(orders) or not receipts[0].accepted or receipts[0].replayed:
            await self._leave_all(entered)
        for answer in answers:
            if isinstance(answer, FlashSaleError):
                raise answer
        return receipts

    async def _leave_all(self, orders: Sequence[Order]) -> None:
        for order in orders:
            await self.leave(order.goods_id, order.quantity)

    async def _reserve(self, orders: Sequence[Order], *, together: bool = False) -> list[Receipt | FlashSaleError]:
        """Sends one batch; where gate and stock share a Redis, one script decides both."""
        began = time.perf_counter()
        gate = self._gate.keys if self._one_redis else None
        answers = await self._inventory.answer(orders, together=together, gated=True, gate=gate)
        self._notify.batch(len(orders), time.perf_counter() - began)
        for answer in () if together else answers:
            if isinstance(answer, Receipt) and not answer.replayed:  # a replay says nothing of the gate
                self._remember(answer)
        return answers

    def _remember(self, receipt: Receipt) -> None:
        """Keeps a refusal for a while; the first buyer who finds the goods open sends the others to ask as well."""
        if receipt.accepted or (receipt.outcome is Outcome.LIMIT_REACHED and receipt.remaining > 0):
            self._gate.refusals.forget(receipt.goods_id)
        elif receipt.outcome is not Outcome.LIMIT_REACHED:
            self._gate.refusals.note(receipt.goods_id, Admission(receipt.outcome, receipt.remaining))


async def _once_more(ask: Callable[[bool], Awaitable[Answer]], order_id: str, *, known: bool) -> Answer:
    """Asks, and when that failed once more with the same order id: the ledger then answers what was answered."""
    try:
        return await ask(known)
    except Overloaded as error:
        error.order_id = order_id
        raise
    except (NotExecuted, OutcomeUnknown) as error:
        first = error
    try:
        return await ask(True)  # noqa: FBT003 - the ledger may know it now
    except (NotExecuted, OutcomeUnknown) as error:
        first.order_id = error.order_id = order_id
        if isinstance(first, OutcomeUnknown):
            raise first from error  # it may still have happened
        raise


def _refusal(order: Order, admission: Admission) -> Receipt:
    return Receipt(admission.outcome, order.order_id, order.goods_id, order.quantity, admission.remaining)


def _weigh(order: Order) -> int:
    return 200 if order.data is None else len(order.to_json())
