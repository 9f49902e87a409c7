"""Admission with tickets: `enter` passes the gate and gives one out; `buy` takes it from its own buyer."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from flashsale._rules.codes import REFUSALS, seconds, unknown
from flashsale._rules.refusal_cache import OPEN, Refusal
from flashsale._rules.tickets import Tickets
from flashsale.aio.gate import Gate
from flashsale.aio.ledger import Ledger
from flashsale.aio.sale_state import SaleMeta
from flashsale.aio.transitions import Transitions
from flashsale.aio.transport.coalescer import Coalescer
from flashsale.aio.transport.link import Argument
from flashsale.errors import FlashSaleError, InvalidRequest, InvalidTicket, NotExecuted
from flashsale.lua import Code
from flashsale.model import Admission, Outcome
from flashsale.model.checks import check_goods_id, check_id, check_quantity, new_order_id

EPOCH_EVERY = 1.0  # seconds; a rebuild, which ends an epoch, takes longer
_ITEM_AND_UNITS: Final = itemgetter(0, 1)
_LINE: Final = itemgetter(2)

_Request: TypeAlias = tuple[str, int, str]  # item id, units, and a line of the script: see `_line`


class _Kept(NamedTuple):
    """A ticket that the gate keeps, of an item with a cap.

    Args:
        order_id: of the order that it is for.
        units: of that order, at most.
        lifetime: seconds that are left.
        before: True when it was given out before.
    """

    order_id: str
    units: int
    lifetime: float
    before: bool


_Entry: TypeAlias = tuple[Admission, _Kept | None]  # the gate's answer, with the ticket that it keeps, if any


class Ticketing:
    """Gives out tickets at the gate, and checks those that come with a purchase.

    Args:
        gate: of the sale.
        meta: knows the epoch.
        ledger: knows whether a ticket was used: then its order is there.
        transitions: gives slots back.
        tickets: signs and reads; None: this sale has no tickets.
        make_order_id: makes an id where the caller brings none.
    """

    def __init__(
        self,
        gate: Gate,
        meta: SaleMeta,
        ledger: Ledger,
        transitions: Transitions,
        tickets: Tickets | None,
        make_order_id: Callable[[], str] = new_order_id,
    ) -> None:
        self._gate = gate
        self._meta = meta
        self._ledger = ledger
        self._transitions = transitions
        self._maybe_tickets = tickets
        self._new_order_id = make_order_id
        self._epoch = 0
        self._epoch_at = float("-inf")  # monotonic seconds
        self._group = lru_cache(1024)(self._make_group)  # every call needs them, and they cost more than the lookup
        link = gate._link
        self._entries = Coalescer[_Request, _Entry](
            self._enter, callers=link.callers, time=link.timeout, last=link.patience, abandon=self._abandon
        )

    async def enter(self, goods_id: str, buyer_id: str, quantity: int, order_id: str | None) -> Admission:
        """See `FlashSale.enter`."""
        tickets = self._tickets
        refusal = self._gate._refusals.of(goods_id)
        if type(goods_id) is not str or goods_id not in self._gate._remembered:
            check_goods_id(goods_id)
        check_id("buyer_id", buyer_id)
        check_quantity(quantity)
        name = self._new_order_id() if order_id is None else check_id("order_id", order_id)
        epoch = await self._current_epoch()
        if refusal is not OPEN and (remembered := await self._remembered(goods_id, refusal)):
            return remembered
        admission, kept = await self._entries.submit((goods_id, quantity, _line(buyer_id, name)))
        while kept is not None and kept.before:
            if kept.order_id == name or not await self._is_used(kept.order_id):
                _check_same(kept, quantity, order_id)
                break
            admission, kept = await self._entries.submit((goods_id, quantity, _line(buyer_id, name, kept.order_id)))
        if not admission.admitted:
            return admission
        if kept is not None and not kept.before and order_id is not None:
            await self._leave_if_used(goods_id, quantity, order_id)
        name, lifetime = (name, tickets.lifetime) if kept is None else (kept.order_id, kept.lifetime)
        ticket = tickets.issue(self._gate.sale, epoch, goods_id, buyer_id, name, quantity, lifetime=lifetime)
        return admission._replace(order_id=name, ticket=ticket)

    async def check(self, shown: str, goods_id: str, buyer_id: str, quantity: int, order_id: str | None) -> str:
        """Returns the order id that the ticket names.

        Raises:
            InvalidTicket: it is not valid for this buyer and this purchase, now.
            InvalidRequest: the quantity is not valid.
        """
        ticket = self._tickets.read(shown)
        if (ticket.sale, ticket.goods_id, ticket.buyer_id) != (self._gate.sale, goods_id, buyer_id):
            raise InvalidTicket("is for another sale, item or buyer")
        if order_id is not None and order_id != ticket.order_id:
            raise InvalidTicket("is for another order")
        if check_quantity(quantity) > ticket.quantity:
            raise InvalidTicket(f"is for {ticket.quantity} units at most")
        if ticket.epoch != await self._current_epoch():
            raise InvalidTicket("is from before the sale was rebuilt")
        return ticket.order_id

    @property
    def _tickets(self) -> Tickets:
        if self._maybe_tickets is None:
            raise InvalidRequest("tickets", "this sale has no tickets: FlashSale(..., tickets=...)")
        return self._maybe_tickets

    async def _current_epoch(self) -> int:
        """Returns the epoch, which one caller reads once a second: a busy endpoint checks tickets without Redis."""
        now = time.monotonic()
        if not self._epoch or now >= self._epoch_at + EPOCH_EVERY:  # 0: nothing is loaded yet
            if self._epoch:
                self._epoch_at = now  # the others use the epoch that is known
            self._epoch = (await self._meta.state()).epoch or 0
            self._epoch_at = time.monotonic()
        return self._epoch

    async def _is_used(self, order_id: str) -> bool:
        """Returns whether a ticket for this order was used: the ledger has the order, whatever became of it."""
        return bool(await self._ledger.get_many([order_id]))

    async def _leave_if_used(self, goods_id: str, quantity: int, order_id: str) -> None:
        """Gives the slot of a new ticket back when its order exists: that has one of its own."""
        try:
            if await self._is_used(order_id):
                await self._transitions.leave(goods_id, quantity)
        except NotExecuted as error:
            raise unknown("the gate keeps a ticket, and enter returns it again", error, order_id) from error

    async def _remembered(self, goods_id: str, refusal: Refusal) -> Admission | None:
        """Returns a refusal that this process remembers; none that a buyer who has a ticket must not get."""
        if not refusal.for_buyers:
            return None
        admission = await self._gate._refused(goods_id, refusal)
        if admission is None or admission.outcome is not refusal.admission.outcome:
            return None  # a replica says that it is sold out by now: to whom it was sold only the primary knows
        return admission

    def _make_group(self, goods_id: str) -> tuple[str, ...]:
        keys = self._gate.keys
        return (*keys.gate(goods_id), keys.tickets(goods_id))

    async def _enter(self, requests: list[_Request]) -> list[_Entry | FlashSaleError]:
        """Sends one batch; buyers in a row who ask for the same are one run of the script."""
        runs = [(*asked, list(buyers)) for asked, buyers in groupby(requests, _ITEM_AND_UNITS)]
        goods = dict.fromkeys(goods_id for goods_id, _, _ in runs)
        numbers = {goods_id: number for number, goods_id in enumerate(goods, start=1)}
        keys = [key for goods_id in goods for key in self._group(goods_id)]
        arguments: list[Argument] = [seconds(self._tickets.lifetime)]
        for goods_id, units, buyers in runs:
            arguments += (numbers[goods_id], units, len(buyers), "".join(map(_LINE, buyers)))
        reply = await self._gate._link.run("ticket", keys, arguments)
        answers: list[_Entry | FlashSaleError] = []
        at = 0
        for goods_id, units, buyers in runs:
            code, admitted, left, tickets = reply[at : at + 4]
            at += 4
            if tickets:
                end = at + 5 * tickets
                answers += [self._answer(goods_id, *reply[place : place + 5]) for place in range(at, end, 5)]
                at = end
            else:
                told = self._gate._answer(goods_id, units, len(buyers), code, admitted, left, ticketless=True)
                answers += [(each, None) if isinstance(each, Admission) else each for each in told]
        return answers

    def _answer(self, goods_id: str, code: int, left: int, order_id: bytes, units: int, lifetime: bytes) -> _Entry:
        """Returns the answer to one buyer of an item with a cap."""
        if code in REFUSALS:
            refusal = Admission(REFUSALS[code], left)
            self._gate._refusals.note(goods_id, refusal)
            return refusal, None
        kept = _Kept(str(order_id, "ascii"), units, float(lifetime), code == Code.REPLAYED)
        return Admission(Outcome.ADMITTED, left), kept

    async def _abandon(self, request: _Request, entry: _Entry) -> None:
        """A caller was cancelled while the answer was under way: its slot returns, unless the gate keeps its ticket."""
        admission, kept = entry
        if admission.admitted and kept is None:
            await self._gate.leave(*request[:2])


def _line(buyer_id: str, order_id: str, used: str = "") -> str:
    """Returns who enters, for which order; `used` is the order id of the buyer's ticket, when it has been used."""
    return f"{buyer_id} {order_id} {used}\n"


def _check_same(kept: _Kept, quantity: int, order_id: str | None) -> None:
    """Refuses a request that is another one than the ticket that this buyer has."""
    if quantity != kept.units:
        raise InvalidRequest("quantity", f"this buyer has a ticket for {kept.units}, which is still valid")
    if order_id not in {None, kept.order_id}:
        raise InvalidRequest("order_id", "this buyer has a ticket for another order; enter without an id returns it")
