"""The script `reserve`: gathers the orders of concurrent callers into few calls, and makes receipts of the replies."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeAlias

from flashsale._rules.codes import REFUSALS, basket_codes, goods_error
from flashsale._rules.durability import Guarantee
from flashsale._rules.ledger_record import STATES
from flashsale.aio.transport.coalescer import Coalescer
from flashsale.aio.transport.link import Argument, Barrier, Link
from flashsale.errors import FlashSaleError, NotExecuted, OrderConflict
from flashsale.keys import Keys
from flashsale.lua import Code, Slot
from flashsale.model import Order, OrderState, Outcome, Receipt, receipt_of

_NEW: Final = int(Code.DONE)  # of every order accepted: looking a member up in its enum costs as much as the receipt
_QUEUED: Final = OrderState.QUEUED
_PLAIN: Final = 200  # bytes of an order without data on the list, about
_ORDER_ID: Final = attrgetter("order_id")
_BUYER_ID: Final = attrgetter("buyer_id")
_REQUEST: Final = attrgetter("goods_id", "quantity", "_body")

Answers: TypeAlias = list[Receipt | FlashSaleError]


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """How orders are reserved. Single orders of the same mode, the same object, share calls.

    Args:
        slot: what the gate has to do with it.
        together: all or nothing, as for a basket.
        guarantee: what must have happened before an order is ACCEPTED; short of it, it is UNCERTAIN.
        finish: called with the orders of each call, its mode, the answers, and when it began; returns what the callers
            get.
    """

    slot: Slot
    together: bool = False
    guarantee: Guarantee | None = None
    finish: Callable[[Sequence[Order], Mode, Answers, float], Awaitable[Answers]] | None = None


Request: TypeAlias = tuple[Order, Mode]


class Reservations:
    """Books orders by the script `reserve`; whoever reserves comes this way.

    Args:
        link: to the Redis of the stock.
        keys: of the sale.

    Attributes:
        singles: takes one order and its mode, and gives its receipt.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._head = (keys.meta, keys.orders, keys.order_list, keys.wakeup)
        self._group = lru_cache(1024)(self._make_group)  # every call needs them, and they cost more than the lookup
        self.singles = Coalescer[Request, Receipt](
            self._send, callers=link.callers, time=link.timeout, last=link.patience, weigh=_weigh
        )

    async def book(self, orders: Sequence[Order], mode: Mode) -> Answers:
        """Books orders by one call, and returns what became of each: its receipt or its error.

        Raises:
            OutcomeUnknown: sent, no reply.
            NotExecuted: nothing happened.
        """
        began = time.perf_counter()
        keys, arguments = self._words(orders, mode)
        guarantee = mode.guarantee
        barrier = self._barrier(guarantee, len(orders)) if guarantee is not None and guarantee.needs_barrier else None
        reply, acknowledged = await self._link.run_behind(barrier, "reserve", keys, arguments)
        met = barrier is None or guarantee is None or guarantee.is_met(acknowledged)
        answers = self._answers(orders, mode, reply, Outcome.ACCEPTED if met else Outcome.UNCERTAIN)
        return answers if mode.finish is None else await mode.finish(orders, mode, answers, began)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _send(self, requests: Sequence[Request]) -> Answers:
        """Books single orders, by one call for each mode; nearly always they have one."""
        mode = requests[0][1]
        orders = [order for order, its in requests if its is mode]
        if len(orders) == len(requests):
            return await self.book(orders, mode)
        answers = {}
        for mode in dict.fromkeys(its for _, its in requests):
            orders = [order for order, its in requests if its is mode]
            try:
                answers[mode] = iter(await self.book(orders, mode))
            except FlashSaleError as error:  # of these alone: the others have their own answers
                answers[mode] = iter([error._copy() for _ in orders])
        return [next(answers[its]) for _, its in requests]

    def _make_group(self, goods_id: str, slot: Slot) -> tuple[str, ...]:
        group = (self._keys.stock(goods_id), self._keys.buyers(goods_id))
        return group + self._keys.gate(goods_id) if slot is Slot.TAKE else group

    def _words(self, orders: Sequence[Order], mode: Mode) -> tuple[list[str], list[Argument]]:
        """Returns KEYS and ARGV of the script; orders in a row that ask for the same are one run."""
        keys = list(self._head)
        arguments: list[Argument] = ["1" if mode.together else "0", mode.slot, str(len(orders))]
        arguments += map(_ORDER_ID, orders)
        arguments += map(_BUYER_ID, orders)
        places: dict[str, int] = {}
        for (goods_id, quantity, body), run in groupby(orders, _REQUEST):
            if goods_id not in places:
                places[goods_id] = len(places) + 1
                keys += self._group(goods_id, mode.slot)
            arguments += (f"{places[goods_id]} {len(list(run))} {goods_id} {quantity}", body)
        return keys, arguments

    def _barrier(self, guarantee: Guarantee, orders: int) -> Barrier:
        """Returns what is to be waited for behind the script, once it has accepted something."""

        def wait_for_others(reply: list[int]) -> Sequence[Sequence[Argument]]:
            return guarantee.barrier(self._keys.meta) if any(code > 0 for code in reply[: 2 * orders : 2]) else ()

        return wait_for_others

    def _answers(self, orders: Sequence[Order], mode: Mode, reply: list[Any], accepted: Outcome) -> Answers:
        end = 2 * len(orders)
        units_left, states = reply[1:end:2], iter(reply[end:])
        codes = basket_codes(reply[:end:2]) if mode.together else reply[:end:2]
        answers: Answers = []
        for order, code, left in zip(orders, codes, units_left, strict=True):
            if code <= 0:
                answers.append(self._refusal(order, code, left))
                continue
            replayed = code != _NEW
            state = STATES[next(states)] if replayed else _QUEUED
            fields = (accepted, order.order_id, order.goods_id, order.quantity, left, replayed, state)
            answers.append(receipt_of(fields))
        return answers

    def _refusal(self, order: Order, code: int, left: int) -> Receipt | FlashSaleError:
        if code in REFUSALS:
            return Receipt(REFUSALS[code], order.order_id, order.goods_id, order.quantity, left)
        if code == Code.NOT_TOGETHER:
            return NotExecuted("another order of the basket failed", order_id=order.order_id)
        if code == Code.CONFLICT:
            return OrderConflict(sale=self._keys.sale, goods_id=order.goods_id, order_id=order.order_id)
        return goods_error(code, self._keys.sale, order.goods_id)


def _weigh(request: Request) -> int:
    """Returns the bytes of an order on the list; roughly, when it is plain."""
    return len(request[0]._body) or _PLAIN
