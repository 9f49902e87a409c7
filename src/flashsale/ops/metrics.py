"""The metrics of a sale: their list, and their values at one moment. Pure.

A metric is named once, in `METRICS`: docs/metrics.md, the rules and the board are held to that list. No label has an id
of a buyer or of an order, and no label has more values than is said here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Final, TypeAlias

from flashsale.model import OrderState, Outcome
from flashsale.model.snapshot import (
    AWAY,
    BOUNDS,
    MISSING,
    GoodsSnapshot,
    Histogram,
    PartitionSnapshot,
    Process,
    Snapshot,
    Totals,
)
from flashsale.ops import health

MAX_GOODS: Final = 50
"""Items with a name of their own in the metrics; the units and purchases of further ones are summed as `OTHER`."""

MAX_PROCESSES: Final = 100
MAX_OPERATIONS: Final = 6  # of the database
MAX_ERRORS: Final = 40  # pairs of operation and kind
OTHER: Final = "other"

STATES: Final = ("open", "paused", "closed")
_PART: Final = ("partition",)
_WRITTEN: Final = ("aof_last_write_status", "aof_last_bgrewrite_status")

_KINDS: Final = ("syncer", "outbox", "worker", "web")  # of processes; where there are too many, the first stay


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: as Prometheus has it.
        kind: counter, gauge or histogram.
        help: what it counts, in one sentence.
        labels: besides `sale`.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What one scrape has read.

    Args:
        sale: its name.
        version: of flashsale, of the process that reads.
        snapshot: of the sale; None: Redis could not be read.
        totals: what all processes have counted; None likewise.
        info: Redis's INFO, name and value, of several servers `as_one`; empty where it is not to be had.
    """

    sale: str
    version: str
    snapshot: Snapshot | None = None
    totals: Totals | None = None
    info: Mapping[str, str] = field(default_factory=dict)


Value: TypeAlias = float | Histogram
Values: TypeAlias = Iterable[tuple[tuple[str, ...], Value]]
"""The values of a metric, each with its labels."""


class Shown:
    """Chooses the items that have a name of their own. Whoever has one keeps it, so that no counter ever falls."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def meet(self, goods_ids: Iterable[str]) -> None:
        """Gives names to new items, in the order of their ids, while there is room."""
        new = sorted(set(goods_ids) - self._named)
        self._named.update(islice(new, MAX_GOODS - len(self._named)))

    def name(self, goods_id: str) -> str:
        """Returns what the metrics call an item."""
        return goods_id if goods_id in self._named else OTHER


# -- the values -----------------------------------------------------------------------------------------------------


def values(reading: Reading, shown: Shown) -> Iterator[tuple[Metric, Values]]:
    """Returns each metric of which something is known, with its values."""
    snapshot, totals = reading.snapshot, reading.totals
    yield UP, [((), float(snapshot is not None))]
    yield BUILD, [((reading.version, "" if snapshot is None else str(snapshot.layout or "")), 1.0)]
    if snapshot is not None:
        shown.meet(goods.goods_id for goods in snapshot.goods)
        for metric, look in _OF_SNAPSHOT.items():
            yield metric, look(snapshot)
        for metric, units in _OF_GOODS.items():
            yield metric, _units(snapshot.goods, units, shown)
        if snapshot.partitions:
            for metric, count_in in _OF_PARTITIONS.items():
                yield metric, [((str(part.place),), float(count_in(part))) for part in snapshot.partitions]
    if totals is not None:
        yield PURCHASES, _purchases(totals, shown)
        for metric, count in _OF_TOTALS.items():
            yield metric, count(totals)
    for metric, tell in _OF_REDIS.items():
        yield metric, tell(reading.info)


def as_one(infos: Iterable[Mapping[str, str]]) -> Mapping[str, str]:
    """Returns the INFO of several servers as one: the fullest server's, all evicted keys, the worst append-only file.

    >>> as_one([{"used_memory": "9", "evicted_keys": "1"}, {"used_memory": "7", "evicted_keys": "2"}])
    {'used_memory': '9', 'evicted_keys': '3'}
    """
    told = sorted(filter(None, infos), key=_fullness)
    if len(told) < 2:
        return told[0] if told else {}
    whole = dict(told[-1])
    if any("evicted_keys" in info for info in told):
        whole["evicted_keys"] = str(sum(health.count(info, "evicted_keys") for info in told))
    written = [info for info in told if info.get("aof_enabled") == "1"]
    if written:
        worst = min(written, key=_is_written_well)
        whole |= {name: worst[name] for name in ("aof_enabled", *_WRITTEN) if name in worst}
    return whole


def _fullness(info: Mapping[str, str]) -> tuple[float, int]:
    used, most = (health.count(info, name) for name in ("used_memory", "maxmemory"))
    return (used / most if most else 0.0), used


def _is_written_well(info: Mapping[str, str]) -> bool:
    return all(info.get(name) == "ok" for name in _WRITTEN)


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Returns the buckets as Prometheus has them: upper bound, and how many took no longer."""
    bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(histogram.counts), strict=True)]


def _units(goods: Iterable[GoodsSnapshot], units: Callable[[GoodsSnapshot], int | None], shown: Shown) -> Values:
    summed = Counter[str]()
    for each in goods:
        found = units(each)
        if found is not None:
            summed[shown.name(each.goods_id)] += found
    return [((name,), float(number)) for name, number in summed.items()]


def _purchases(totals: Totals, shown: Shown) -> Values:
    """Returns the purchases; an item's outcomes are all there from the start, or Prometheus would miss the first."""
    shown.meet(goods_id for goods_id, _ in totals.purchases)
    known = [outcome.value for outcome in Outcome]
    summed = Counter[tuple[str, str]]()
    for (goods_id, outcome), number in totals.purchases.items():
        name = shown.name(goods_id)
        summed.update(dict.fromkeys(((name, each) for each in known), 0))
        summed[name, outcome if outcome in known else OTHER] += number
    return [(labels, float(number)) for labels, number in summed.items()]


def _settled(totals: Totals) -> Values:
    moved = [state.value for state in OrderState if state not in {OrderState.QUEUED, OrderState.DEAD}]
    return [((state,), float(totals.settled.get(state, 0))) for state in moved]


def _errors(totals: Totals) -> Values:
    summed = Counter[tuple[str, str]]()
    for place, (labels, number) in enumerate(sorted(totals.store_errors.items())):
        summed[labels if place < MAX_ERRORS else (OTHER, OTHER)] += number
    return [(labels, float(number)) for labels, number in summed.items()]


def _store(totals: Totals) -> Values:
    return [((operation,), took) for operation, took in islice(sorted(totals.store.items()), MAX_OPERATIONS)]


def _state(snapshot: Snapshot) -> Values:
    return [((state,), float(snapshot.state == state)) for state in STATES]


def _oldest(snapshot: Snapshot) -> Values:
    return [] if snapshot.oldest is None else [((), snapshot.oldest)]


def _leader(snapshot: Snapshot) -> Values:
    return [] if snapshot.leader is None else [((snapshot.leader,), 1.0)]


def _beats(snapshot: Snapshot) -> Values:
    """Returns the last sign of life of each process; where there are too many, of the most telling ones."""

    def rank(process: Process) -> tuple[int, float]:
        return (_KINDS.index(process.kind) if process.kind in _KINDS else len(_KINDS), process.beat)

    first = sorted(snapshot.processes, key=rank)[:MAX_PROCESSES]
    return [((process.kind, process.instance), process.beat) for process in first]


def _number_of(name: str) -> Callable[[Mapping[str, str]], Values]:
    def tell(info: Mapping[str, str]) -> Values:
        return [((), float(info[name]))] if info.get(name, "").isdigit() else []

    return tell


def _max_memory(info: Mapping[str, str]) -> Values:
    return [] if info.get("maxmemory") == "0" else _number_of("maxmemory")(info)


def _is_written(info: Mapping[str, str]) -> Values:
    if info.get("aof_enabled") != "1":
        return []
    return [((), float(_is_written_well(info)))]


# -- the list -------------------------------------------------------------------------------------------------------

UP: Final = Metric("flashsale_up", "gauge", "1 when Redis could be read, else 0.")
BUILD: Final = Metric(
    "flashsale_build_info", "gauge", "The exporter's release, and the layout of the sale.", ("version", "layout")
)
PURCHASES: Final = Metric(
    "flashsale_purchases_total", "counter", "Purchases that were answered, by outcome.", ("goods", "outcome")
)

_OF_SNAPSHOT: Final[dict[Metric, Callable[[Snapshot], Values]]] = {
    Metric("flashsale_state", "gauge", "1 for the state of the sale, 0 for the others.", ("state",)): _state,
    Metric("flashsale_time_seconds", "gauge", "Redis's clock, by which all times here are."): (
        lambda snapshot: [((), snapshot.time)]
    ),
    Metric("flashsale_queued_orders", "gauge", "Orders on the queue."): (
        lambda snapshot: [((), float(snapshot.queued))]
    ),
    Metric("flashsale_claimed_orders", "gauge", "Orders that workers have claimed."): (
        lambda snapshot: [((), float(snapshot.claimed))]
    ),
    Metric("flashsale_dead_orders", "gauge", "Dead letters."): lambda snapshot: [((), float(snapshot.dead))],
    Metric("flashsale_unpaid_orders", "gauge", "Orders with a payment deadline."): (
        lambda snapshot: [((), float(snapshot.unpaid))]
    ),
    Metric("flashsale_oldest_queued_timestamp_seconds", "gauge", "When the oldest order on the queue was accepted."): (
        _oldest
    ),
    Metric("flashsale_missing_goods", "gauge", "Items that Redis has lost: closed until a rebuild."): (
        lambda snapshot: [((), float(sum(goods.is_lost for goods in snapshot.goods)))]
    ),
    Metric("flashsale_leader_info", "gauge", "The syncer that acts.", ("instance",)): _leader,
    Metric(
        "flashsale_process_beat_timestamp_seconds", "gauge", "When a process last told of itself.", ("kind", "instance")
    ): _beats,
}

_OF_GOODS: Final[dict[Metric, Callable[[GoodsSnapshot], int | None]]] = {
    Metric("flashsale_total_units", "gauge", "Units for sale.", ("goods",)): lambda goods: goods.total,
    Metric("flashsale_booked_units", "gauge", "Units sold or reserved.", ("goods",)): lambda goods: goods.booked,
    Metric("flashsale_gate_units", "gauge", "Units that the gate may let in.", ("goods",)): lambda goods: goods.gate,
}

_OF_PARTITIONS: Final[dict[Metric, Callable[[PartitionSnapshot], int]]] = {
    Metric("flashsale_partition_up", "gauge", "1 when a partition answers, else 0; none without partitions.", _PART): (
        lambda part: part.state != AWAY
    ),
    Metric("flashsale_partition_closed", "gauge", "1 when a partition is closed, or has lost all it had.", _PART): (
        lambda part: part.state in {"closed", MISSING}
    ),
    Metric("flashsale_partition_missing_goods", "gauge", "Items that a partition has lost.", _PART): (
        lambda part: len(part.lost)
    ),
    Metric("flashsale_partition_free_units", "gauge", "Units that nobody has booked; others come for them.", _PART): (
        lambda part: sum(goods.free for goods in part.goods)
    ),
}

_OF_TOTALS: Final[dict[Metric, Callable[[Totals], Values]]] = {
    Metric(
        "flashsale_orders_settled_total", "counter", "Orders that the database moved, by their new state.", ("state",)
    ): _settled,
    Metric("flashsale_store_errors_total", "counter", "Calls of the database that failed.", ("op", "kind")): _errors,
    Metric(
        "flashsale_order_lag_seconds", "histogram", "From accepted to saved: the oldest order of each batch."
    ): lambda totals: [((), totals.lag)],
    Metric("flashsale_store_seconds", "histogram", "How long the database took.", ("op",)): _store,
    Metric("flashsale_batch_seconds", "histogram", "How long a script call of purchases took."): (
        lambda totals: [((), totals.batch)]
    ),
}

_OF_REDIS: Final[dict[Metric, Callable[[Mapping[str, str]], Values]]] = {
    Metric(
        "flashsale_redis_memory_used_bytes", "gauge", "Memory that Redis uses; of several servers the fullest."
    ): _number_of("used_memory"),
    Metric("flashsale_redis_memory_max_bytes", "gauge", "Memory that it may use; absent where there is no limit."): (
        _max_memory
    ),
    Metric("flashsale_redis_evicted_keys_total", "counter", "Keys that Redis has thrown away for want of memory."): (
        _number_of("evicted_keys")
    ),
    Metric("flashsale_redis_aof_ok", "gauge", "1 when each append-only file is written; absent without."): (
        _is_written
    ),
}

METRICS: Final = (UP, BUILD, *_OF_SNAPSHOT, *_OF_GOODS, *_OF_PARTITIONS, PURCHASES, *_OF_TOTALS, *_OF_REDIS)
"""All of them."""
