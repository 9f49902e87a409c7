"""What `enter`, `buy` and `buy_basket` return: admissions and receipts. Pure."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from flashsale.model.orders import OrderState, Outcome


class Admission(NamedTuple):
    """The gate's answer.

    Args:
        outcome: ADMITTED, NOT_STARTED, ENDED, PAUSED or SOLD_OUT; from `FlashSale.enter` also LIMIT_REACHED.
        remaining: units that may still pass, after this call.
        order_id: from `FlashSale.enter`: the id of the order that the ticket is for; None unless admitted.
        ticket: from `FlashSale.enter`: `buy` takes it; None unless admitted.
    """

    outcome: Outcome
    remaining: int
    order_id: str | None = None
    ticket: str | None = None

    @property
    def admitted(self) -> bool:
        """True when the buyer may go on to the stock."""
        return self.outcome is Outcome.ADMITTED


admission_of: Final = partial(tuple.__new__, Admission)
"""Makes an admission of a tuple of all its fields, at half the cost of `Admission(...)`."""


class Receipt(NamedTuple):
    """The answer to a purchase.

    Args:
        outcome: ACCEPTED, or why not. REJECTED: a hook of the host's refused the order, before anybody was answered
            (`durability=PERSISTED`).
        order_id: names the request; try again with it after `OutcomeUnknown`.
        goods_id: the item.
        quantity: units asked for.
        remaining: units left of the item, after this call.
        replayed: True when this order id was accepted before: this is the original answer again.
        state: the current state of the order; None unless accepted.
    """

    outcome: Outcome
    order_id: str
    goods_id: str
    quantity: int
    remaining: int
    replayed: bool = False
    state: OrderState | None = None

    @property
    def accepted(self) -> bool:
        """True when the units are booked for this order, as safely as the sale asks; False for UNCERTAIN."""
        return self.outcome is Outcome.ACCEPTED


receipt_of: Final = partial(tuple.__new__, Receipt)
"""Makes a receipt of a tuple of all its fields, at half the cost of `Receipt(...)`."""


class BasketReceipt(NamedTuple):
    """The answer to a basket.

    Args:
        outcome: ACCEPTED, or why not: the outcome of the first order that was refused.
        basket_id: names the request; try again with it after `OutcomeUnknown`.
        receipts: one for each item, sorted by `goods_id`.
    """

    outcome: Outcome
    basket_id: str
    receipts: tuple[Receipt, ...]

    @property
    def accepted(self) -> bool:
        """True when the whole basket is booked."""
        return self.outcome is Outcome.ACCEPTED
