"""What the buyers of the demo have seen: their own account of the sale, apart from Redis and the database. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from flashsale.model import OrderState


class Purchase(NamedTuple):
    """An accepted order as its buyer knows it; `state` is the last one that the buyer was told."""

    buyer_id: str
    quantity: int
    resale: bool
    state: OrderState


@dataclass(slots=True)
class Tally:
    """Counts of what buyers did and were told; tallies of several processes can be added.

    Args:
        answers: how often each outcome was received.
        observed: how often flashsale's observer saw each outcome, in the same processes.
        repeats: purchases asked for a second time with the same order id.
        replays: of those, the ones answered with the first order again.
        statuses: status queries answered.
        cancelled: orders that their buyers cancelled.
        unanswered: purchases whose outcome a buyer never learnt, by the last error.
        purchases: accepted orders by order id.
    """

    answers: Counter[str] = field(default_factory=Counter)
    observed: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    replays: int = 0
    statuses: int = 0
    cancelled: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    purchases: dict[str, Purchase] = field(default_factory=dict)

    def to_json(self, *, purchases: bool) -> dict[str, Any]:
        """Returns it as JSON; the purchases only where they are wanted, they are many."""
        wire: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__ if name != "purchases"}
        return wire | {"purchases": self.purchases if purchases else {}}

    @classmethod
    def from_json(cls, wire: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        purchases = {
            order_id: Purchase(buyer_id, quantity, resale, OrderState(state))
            for order_id, (buyer_id, quantity, resale, state) in wire["purchases"].items()
        }
        counters = {name: Counter(wire[name]) for name in ("answers", "observed", "unanswered")}
        return cls(**{**wire, **counters, "purchases": purchases})

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            answers=self.answers + other.answers,
            observed=self.observed + other.observed,
            repeats=self.repeats + other.repeats,
            replays=self.replays + other.replays,
            statuses=self.statuses + other.statuses,
            unanswered=self.unanswered + other.unanswered,
            cancelled=self.cancelled + other.cancelled,
            purchases=self.purchases | other.purchases,
        )
