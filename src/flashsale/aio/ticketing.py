"""Admission with tickets: `enter` passes the gate and gives one out; `buy` takes it instead of the gate."""

from __future__ import annotations

import time

from flashsale._rules.tickets import Tickets
from flashsale.aio.gate import Gate
from flashsale.aio.sale_state import SaleMeta
from flashsale.errors import InvalidRequest, InvalidTicket
from flashsale.model import Admission
from flashsale.model.checks import check_id, check_quantity, new_order_id

EPOCH_EVERY = 1.0  # seconds; a rebuild, which ends an epoch, takes longer


class Ticketing:
    """Gives out tickets at the gate, and checks those that come with a purchase.

    Args:
        gate: of the sale.
        meta: knows the epoch.
        tickets: signs and reads; None: this sale has no tickets.
    """

    def __init__(self, gate: Gate, meta: SaleMeta, tickets: Tickets | None) -> None:
        self._gate = gate
        self._meta = meta
        self._maybe_tickets = tickets
        self._epoch = 0
        self._epoch_at = float("-inf")  # monotonic seconds

    async def enter(self, goods_id: str, buyer_id: str, quantity: int, order_id: str | None) -> Admission:
        """See `FlashSale.enter`."""
        tickets = self._tickets
        check_id("buyer_id", buyer_id)
        name = new_order_id() if order_id is None else check_id("order_id", order_id)
        epoch = await self._current_epoch()
        admission = await self._gate.enter(goods_id, quantity)
        if not admission.admitted:
            return admission
        ticket = tickets.issue(self._gate.sale, epoch, goods_id, buyer_id, name, quantity)
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
