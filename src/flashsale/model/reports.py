"""What `Syncer` returns: the reports of a pass, an audit, a repair, a rebuild and a settlement. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from enum import StrEnum

from flashsale.model import GateState, Order, OrderState


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one pass of the syncer did; items are named by `goods_id`.

    Args:
        leading: False when another syncer held the lease, and this pass did nothing.
        closed: True while a rebuild is under way, has failed, or is needed: this pass did nothing.
        purged: True when the database says that the sale was purged: this pass did nothing.
        lost: the key, `orders` or `meta`, whose loss this pass noticed; it closed the sale.
        loaded: items preloaded now.
        missing: items that were loaded once and that Redis no longer holds, or no longer knows what each buyer has:
            closed until `rebuild`, or for ever if the sale was purged.
        corrupt: items whose keys in Redis are not what flashsale writes; left alone.
        resized: items whose `Total` changed, with their current total.
        returned: gate slots given back, in units.
        expired: orders whose payment deadline had passed.
        settled: orders that the ledger had wrong or did not know, and that now follow the database.
        recovered: orders that lost their place with a key: queued again, or given a payment deadline.
    """

    leading: bool
    closed: bool = False
    purged: bool = False
    lost: str | None = None
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    corrupt: tuple[str, ...] = ()
    resized: tuple[tuple[str, int], ...] = ()
    returned: int = 0
    expired: int = 0
    settled: int = 0
    recovered: int = 0


class Problem(StrEnum):
    """How an order disagrees between Redis and the database."""

    NOT_QUEUED = "NOT_QUEUED"  # the ledger says queued, but it is on no list, under no lease and in no row
    NO_ROW = "NO_ROW"  # the ledger says persisted, but the database has no row
    BEHIND = "BEHIND"  # the ledger has not followed the database
    AHEAD = "AHEAD"  # the ledger says paid, the database does not know
    UNKNOWN = "UNKNOWN"  # an active row that the ledger does not know
    RELEASED = "RELEASED"  # an active row whose units the ledger gave back: sold twice, perhaps
    NO_LETTER = "NO_LETTER"  # the ledger says dead, but its dead letter is gone
    NO_DEADLINE = "NO_DEADLINE"  # an unpaid order of an item with a hold has no payment deadline


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One order about which Redis and the database disagree.

    Args:
        order: which, as the ledger or the row has it.
        problem: how.
        ledger: the ledger's state, or None.
        database: the row's state, or None.
    """

    order: Order
    problem: Problem
    ledger: OrderState | None
    database: OrderState | None

    @property
    def order_id(self) -> str:
        """Which order."""
        return self.order.order_id


@dataclass(frozen=True, slots=True)
class Units:
    """Where the units of one item, or of the whole sale, are: total = free + queued + held + sold + dead + direct.

    Args:
        total: for sale.
        free: not booked; below 0 when more is booked than for sale.
        queued: accepted, on the way to the database.
        held: in the database, not paid yet.
        sold: paid.
        dead: of dead letters, until an operator decides.
        direct: untracked: booked, but of no order in the ledger.
    """

    total: int = 0
    free: int = 0
    queued: int = 0
    held: int = 0
    sold: int = 0
    dead: int = 0
    direct: int = 0

    @property
    def agree(self) -> bool:
        """True when every unit is accounted for."""
        return self.total == self.free + self.queued + self.held + self.sold + self.dead + self.direct

    def __add__(self, other: Units) -> Units:
        return Units(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Audit:
    """How Redis and the database compare.

    Args:
        goods: the units of each item, by `goods_id`.
        orders: every order on which they disagree, and still did when asked again.
        lost: of the expected order ids, those that no system holds.
        pending: orders on the list or under a lease, also those that an external program pushed.
        unreadable: elements of the queue that are not orders.
        corrupt: what in Redis is not what flashsale writes, key and field: `orders o-1`, `phone stock`, `meta seq`. It
            stops only what it names; a rebuild mends it.
        moving: True when the sale moved so fast that the units could not be summed at one moment; orders are exact.
        adrift: units that a failover has lost on their way between two partitions, by `goods_id`; below 0: it has left
            over so many. `repair` mends them.
    """

    goods: Mapping[str, Units]
    orders: tuple[Disagreement, ...] = ()
    lost: tuple[str, ...] = ()
    pending: int = 0
    unreadable: int = 0
    corrupt: tuple[str, ...] = ()
    moving: bool = False
    adrift: Mapping[str, int] = field(default_factory=dict)

    @property
    def units(self) -> Units:
        """The units of all items together."""
        return sum(self.goods.values(), Units())

    @property
    def ok(self) -> bool:
        """True when nothing disagrees, nothing is lost, and every unit is accounted for."""
        sums = self.moving or all(units.agree for units in self.goods.values())
        return sums and not (self.orders or self.lost or self.unreadable or self.corrupt or self.adrift)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The proof at the end of a sale.

    Args:
        audit: where every unit is.
        orders: rows of the database, by state.
        gate: the gate of each item, by `goods_id`.
        refused: refusals, by `goods_id`: those that all processes have told of, each ten seconds, and all of this one.
    """

    audit: Audit
    orders: Mapping[OrderState, int]
    gate: Mapping[str, GateState]
    refused: Mapping[str, int]

    @property
    def ok(self) -> bool:
        """True when every unit and every order is accounted for, and nothing is under way."""
        audit, units = self.audit, self.audit.units
        under_way = audit.pending or units.queued or units.held or units.dead or audit.moving
        return audit.ok and not under_way


@dataclass(frozen=True, slots=True)
class Repair:
    """What was found, and what was done about it.

    Args:
        audit: what was found.
        mended: the disagreements that were mended; with `dry_run` those that would be.
        dry_run: True when nothing was changed.
    """

    audit: Audit
    mended: tuple[Disagreement, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What a rebuild brought back.

    Args:
        epoch: the new epoch.
        orders: rows recorded in the ledger.
        goods: booked units of each item, verified against the database.
    """

    epoch: int
    orders: int
    goods: Mapping[str, int]
