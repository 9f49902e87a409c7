"""Goods: the policy in the database, and what stock and gate hold of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from flashsale.model.checks import check_goods_id, check_int, check_policy
from flashsale.model.orders import Outcome


@dataclass(frozen=True, slots=True)
class Goods:
    """One goods of a sale as the database has it: the sale's policy.

    Args:
        goods_id: which goods.
        total: units for sale, the host's wish.
        version: grows with every change of the row; Redis refuses older ones.
        per_buyer: most units one buyer may hold, or None.
        opens_at: epoch seconds when the Redis clock starts the goods, or None: by hand.
        closes_at: epoch seconds when it ends, or None.
        hold: seconds to pay after the order was persisted, or None.
        loaded: True once Redis was given these goods; never preloaded again.
    """

    goods_id: str
    total: int
    version: int = 0
    per_buyer: int | None = None
    opens_at: float | None = None
    closes_at: float | None = None
    hold: float | None = None
    loaded: bool = False

    def __post_init__(self) -> None:
        check_goods_id(self.goods_id)
        check_int("total", self.total, 0)
        check_int("version", self.version, 0)
        check_policy(self.per_buyer, self.opens_at, self.closes_at, self.hold)


@dataclass(frozen=True, slots=True)
class GateState:
    """What the gate holds of one item, and what it would tell a buyer; the same for everybody.

    Two states are equal when their first four fields are: the others follow from the window and the clock.

    Args:
        count: units that may pass.
        started: True while buyers may pass, as long as units are left; the window counts, by the Redis clock.
        access: units that have passed.
        remaining: units that may still pass.
        outcome: ADMITTED while a buyer may pass, else why not: NOT_STARTED, SOLD_OUT, PAUSED or ENDED.
        now: epoch seconds of the Redis clock, for a countdown that no visitor's clock disturbs.
        opens_at: epoch seconds, or None.
        closes_at: epoch seconds, or None.
        may_return: only from `FlashSale.view`: sold out, but orders of the sale await payment, so units may come back.
    """

    count: int
    started: bool
    access: int
    remaining: int
    outcome: Outcome = field(default=Outcome.NOT_STARTED, compare=False)
    now: float = field(default=0.0, compare=False)
    opens_at: float | None = field(default=None, compare=False)
    closes_at: float | None = field(default=None, compare=False)
    may_return: bool = field(default=False, compare=False)

    @property
    def opens_in(self) -> float | None:
        """Seconds until the opening, by the Redis clock; None where no time is set."""
        return None if self.opens_at is None else self.opens_at - self.now


class Stock(NamedTuple):
    """The stock of one goods, in units; `direct` is what was taken past the ledger."""

    total: int
    booked: int
    remaining: int
    direct: int
