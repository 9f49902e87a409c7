"""A sale day as values, for what shows it: metrics, board and report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC

from flashsale.model import Order, OrderState, Outcome, StoredOrder
from flashsale.model.reports import Audit, Disagreement, Problem, Settlement, Units
from flashsale.model.snapshot import (
    BOUNDS,
    GoodsSnapshot,
    Histogram,
    PartitionSnapshot,
    Process,
    Sample,
    Snapshot,
    Totals,
)
from flashsale.model.trail import TrailEntry
from flashsale.ops.evidence import Evidence
from flashsale.ops.folding import OrderStats, SampleStats

OPENING = 1_794_344_400.0  # 2026-11-10 21:00 UTC
ZONE = UTC


@dataclass(frozen=True, slots=True)
class TimedOrder(StoredOrder):
    """A row that also says when it was saved and settled."""

    persisted_at: float | None = None
    settled_at: float | None = None


def goods(goods_id: str = "phone", *, total: int = 100, booked: int = 90, gate: int | None = 100) -> GoodsSnapshot:
    return GoodsSnapshot(goods_id, total, booked, gate, booked, True, 2, OPENING, None, 60.0)


def process(kind: str = "worker", instance: str = "web-2:27706", beat: float = OPENING + 599) -> Process:
    return Process(kind, instance, "0.1.0", beat, "save", beat - 1, 12, ((5, 16),), 143.0, "OperationalError")


def snapshot(
    *items: GoodsSnapshot,
    processes: tuple[Process, ...] = (process(),),
    partitions: tuple[PartitionSnapshot, ...] = (),
) -> Snapshot:
    return Snapshot(
        time=OPENING + 600,
        state="open",
        epoch=1,
        layout=7,
        leader="sync-1:27701",
        queued=7,
        oldest=OPENING + 590,
        claimed=12,
        dead=1,
        unpaid=30,
        goods=items or (goods(),),
        processes=processes,
        partitions=partitions,
    )


def totals() -> Totals:
    took = Histogram((3, 2, 1, *(0,) * (len(BOUNDS) - 3), 1), 61.5)
    return Totals(
        purchases={("phone", Outcome.ACCEPTED): 90, ("phone", Outcome.SOLD_OUT): 4_120},
        settled={OrderState.PERSISTED: 71, OrderState.CONFIRMED: 40},
        store_errors={("save", "OperationalError"): 2},
        store={"save": took},
        lag=took,
        batch=took,
    )


def rows(number: int, *, buyers: int = 40, name: str = "phone") -> Iterator[StoredOrder]:
    """Rows of a sale in which each third buyer pays, and each third lets the deadline pass."""
    ends = (OrderState.CONFIRMED, OrderState.EXPIRED, OrderState.PERSISTED)
    for place in range(number):
        at, state = OPENING + place * 0.05, ends[place % 3]
        order = Order(f"o-{place}", name, f"buyer-{place % buyers}", 1, created_at=at)
        yield TimedOrder(order, state, None, at + 0.4, None if state is OrderState.PERSISTED else at + 60)


def samples(number: int, *, total: int = 100) -> list[Sample]:
    return [
        Sample(
            OPENING + place, total, min(total, 4 * place), total, max(0, 50 - place), 12, 0, max(0.0, 5 - place / 10)
        )
        for place in range(number)
    ]


def minutes() -> dict[int, dict[tuple[str, str], int]]:
    first = int(OPENING // 60)
    return {
        first: {("phone", Outcome.ACCEPTED): 90, ("phone", Outcome.NOT_STARTED): 700},
        first + 3: {("phone", Outcome.SOLD_OUT): 4_120, ("phone", Outcome.LIMIT_REACHED): 12},
    }


def trail() -> list[TrailEntry]:
    return [
        TrailEntry("open", "anna", "shell-1", OPENING, {"goods_id": "phone"}, {"started": False}, {"started": True}),
        TrailEntry("restock", "bert", "shell-2", OPENING + 60, {"units": 20}, {"total": 80}, None, "supplier called"),
    ]


def settlement(*, ok: bool = True) -> Settlement:
    units = Units(total=100, free=10, sold=90) if ok else Units(total=100, free=10, queued=5, sold=84)
    lost = Order("o-9", "phone", "buyer-9", 1)
    orders = () if ok else (Disagreement(lost, Problem.NO_ROW, OrderState.PERSISTED, None),)
    return Settlement(
        audit=Audit({"phone": units}, orders),
        orders={OrderState.CONFIRMED: 90, OrderState.EXPIRED: 20},
        gate={},
        refused={"phone": 4_120},
    )


def evidence(*, ok: bool = True) -> Evidence:
    stats = OrderStats()
    stats.add(rows(300))
    return Evidence("nov11", settlement(ok=ok), snapshot(), stats, minutes(), sampled(samples(120)), trail(), totals())


def sampled(given: list[Sample]) -> SampleStats:
    stats = SampleStats()
    stats.add("phone", given)
    return stats
