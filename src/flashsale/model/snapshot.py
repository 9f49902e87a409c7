"""What the recorder knows of a sale: a `Snapshot`, samples, counts (`Totals`), an order's place (`Found`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flashsale.model.orders import Claim, Order, OrderState, Outcome
from flashsale.model.rows import StoredOrder


@dataclass(frozen=True, slots=True)
class GoodsSnapshot:
    """One item at one moment.

    Args:
        goods_id: which.
        total: units for sale.
        booked: units of them sold or reserved.
        gate: units that the gate may let in; None when the gate does not know the item.
        access: units that it has let in.
        started: the start flag.
        per_buyer: most units of one buyer; None: no cap.
        opens_at: epoch seconds; None: `start` opens it.
        closes_at: epoch seconds; None: never.
        hold: seconds to pay; None: no deadline.
    """

    goods_id: str
    total: int
    booked: int
    gate: int | None
    access: int
    started: bool
    per_buyer: int | None
    opens_at: float | None
    closes_at: float | None
    hold: float | None

    @property
    def free(self) -> int:
        """Units that nobody has booked; below 0 after a restore, perhaps."""
        return self.total - self.booked

    @property
    def is_lost(self) -> bool:
        """True when Redis has lost the gate or the stock of the item."""
        return self.gate is None or (self.total == 0 and self.gate > 0)


@dataclass(frozen=True, slots=True)
class Process:
    """What a process last told of itself.

    Args:
        kind: web, worker, syncer or outbox.
        instance: host and process id, `web-2:27706`.
        version: of flashsale.
        beat: epoch seconds of Redis TIME.
        doing: what it does just now, such as "save"; empty while it waits.
        since: epoch seconds at which it began that; None while it waits.
        claimed: orders, or events, that it holds.
        deliveries: first and last number of those that it holds, pair by pair; see `holds`.
        last_ms: milliseconds that it took for this the last time; None before the first.
        last_error: what failed last, without ids; empty when nothing has.
        layout: in which it begins a sale; None: it does not say.
        failed_at: when `last_error` was, epoch seconds; None: it does not say.
    """

    kind: str
    instance: str
    version: str
    beat: float
    doing: str = ""
    since: float | None = None
    claimed: int = 0
    deliveries: tuple[tuple[int, int], ...] = ()
    last_ms: float | None = None
    last_error: str = ""
    layout: int | None = None
    failed_at: float | None = None

    def holds(self, delivery: int) -> bool:
        """Returns whether this worker holds the delivery of this number, as far as it has told."""
        return any(first <= delivery <= last for first, last in self.deliveries)


AWAY: Final = "away"
MISSING: Final = "missing"
"""States of a partition that does not answer, and of one that has lost all it had."""


@dataclass(frozen=True, slots=True)
class PartitionSnapshot:
    """One partition of a sale at one moment.

    Args:
        place: which, from 0.
        state: open, paused, closed; `AWAY`, when it does not answer; or `MISSING`.
        queued: orders on its list.
        claimed: of its orders, those that workers have claimed.
        dead: its dead letters.
        unpaid: its orders with a payment deadline.
        goods: what it has of each item, by `goods_id`.
    """

    place: int
    state: str
    queued: int = 0
    claimed: int = 0
    dead: int = 0
    unpaid: int = 0
    goods: tuple[GoodsSnapshot, ...] = ()

    @property
    def lost(self) -> tuple[str, ...]:
        """The items of which it has lost gate or stock."""
        return tuple(each.goods_id for each in self.goods if each.is_lost)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole sale at one moment; over several partitions the sum of one look at each.

    Args:
        time: epoch seconds of Redis TIME.
        state: open, paused or closed.
        epoch: of the sale; None: Redis holds nothing of it.
        layout: of its keys; None likewise.
        leader: instance of the syncer that acts, or acted within the last five seconds; None: there is none.
        queued: orders on the list.
        oldest: when the oldest of them was accepted, epoch seconds; None: there is none, or it does not say.
        claimed: orders that workers have claimed.
        dead: dead letters.
        unpaid: orders with a payment deadline.
        goods: by `goods_id`.
        processes: by kind and instance.
        partitions: each of them, where there are several.
    """

    time: float
    state: str
    epoch: int | None
    layout: int | None
    leader: str | None
    queued: int
    oldest: float | None
    claimed: int
    dead: int
    unpaid: int
    goods: tuple[GoodsSnapshot, ...] = ()
    processes: tuple[Process, ...] = ()
    partitions: tuple[PartitionSnapshot, ...] = ()

    @property
    def away(self) -> tuple[int, ...]:
        """The partitions that do not answer; the first of them, 0, is the one that knows of processes and counts."""
        return tuple(each.place for each in self.partitions if each.state == AWAY)


@dataclass(frozen=True, slots=True)
class Sample:
    """One item at one moment; a syncer takes one each interval.

    Args:
        time: epoch seconds of Redis TIME.
        total: units for sale.
        booked: units sold or reserved.
        access: units that the gate has let in.
        queued: orders on the list, of the whole sale.
        claimed: orders that workers have claimed, of the whole sale.
        dead: dead letters, of the whole sale.
        lag: seconds since the oldest order on the list was accepted; 0 when there is none.
    """

    time: float
    total: int
    booked: int
    access: int
    queued: int
    claimed: int
    dead: int
    lag: float


BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of a histogram's buckets, in seconds; a last bucket takes what is longer."""

BOUGHT: Final = frozenset({Outcome.ACCEPTED, Outcome.UNCERTAIN})
"""Outcomes of a purchase that has its units; all others refused it."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took.

    Args:
        counts: of each bucket of `BOUNDS`, and of the last one; not cumulative.
        seconds: the sum.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """What all processes have counted since the sale began.

    Args:
        purchases: by `goods_id` and outcome.
        settled: orders that the database moved, by their new state; PERSISTED are those that a worker saved.
        store_errors: by operation, such as "save", and kind of error.
        store: how long the database took, by operation.
        lag: from accepted to saved, one value for each batch of a worker: that of its oldest order.
        batch: one script call of purchases.
    """

    purchases: Mapping[tuple[str, str], int] = field(default_factory=dict)
    settled: Mapping[str, int] = field(default_factory=dict)
    store_errors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    store: Mapping[str, Histogram] = field(default_factory=dict)
    lag: Histogram = Histogram()
    batch: Histogram = Histogram()


@dataclass(frozen=True, slots=True)
class Found:
    """Where one order is.

    Args:
        order: which.
        ledger: its state in Redis; None: Redis does not know it.
        row: its row in the database; None: there is none, or the database was not asked.
        ahead: orders that leave the list before it; None: it is not on the list.
        claim: a worker's hold on it; None: there is none.
        lease_ends_in: seconds until the lease of that ends, below 0 when it has; None: it has none.
        worker: which worker that is, as far as it has told; None: nobody has told.
        silent: workers of which nothing is heard, where nobody has told: one of them may hold it.
        reason: why the database refused it last; None: it did not.
        due: epoch seconds of its payment deadline; None: it has none.
        is_dead: it is a dead letter.
    """

    order: Order
    ledger: OrderState | None = None
    row: StoredOrder | None = None
    ahead: int | None = None
    claim: Claim | None = None
    lease_ends_in: float | None = None
    worker: Process | None = None
    silent: tuple[Process, ...] = ()
    reason: str | None = None
    due: float | None = None
    is_dead: bool = False
