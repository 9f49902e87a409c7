"""From the values of a sale to the alerts: each fault fires the right ones and no other, by the exporter's pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flashsale.model import OrderState, Outcome
from flashsale.model.snapshot import AWAY, PartitionSnapshot, Process, Snapshot, Totals
from flashsale.ops.exporter import Collector
from flashsale.ops.metrics import Reading
from tests.support import evidence
from tests.support.scrapes import firing
from tests.unit.test_metrics import INFO

STRIKES = 300  # seconds after the first scrape
Fault = Callable[[Reading, int], Reading]


def well(at: int) -> Reading:
    """A sale at this second: it sells, saves and has a leader."""
    now = evidence.OPENING + at
    processes = (process("worker", "web-2:7", now - 3), process("syncer", "sync-1:1", now - 1))
    snapshot = replace(evidence.snapshot(processes=processes), time=now, dead=0, oldest=now - 1)
    accepted = {("phone", Outcome.ACCEPTED): 20 * at, ("phone", Outcome.UNCERTAIN): at // 20}
    totals = replace(evidence.totals(), purchases=accepted, settled={OrderState.PERSISTED: 20 * at})
    return Reading("nov11", "0.1.0", snapshot, totals, INFO)


def process(kind: str, instance: str, beat: float) -> Process:
    return replace(evidence.process(kind, instance, beat), doing="")


def alerts(fault: Fault, seconds: int) -> set[str]:
    """Returns what fires so many seconds after a fault struck."""
    times = range(0, STRIKES + seconds + 1, 10)
    readings = iter([fault(well(at), at - STRIKES) if at > STRIKES else well(at) for at in times])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(lambda: next(readings)))
    return firing([generate_latest(registry).decode() for _ in times])


def seen(reading: Reading, **changes: Any) -> Reading:
    assert reading.snapshot is not None
    return replace(reading, snapshot=replace(reading.snapshot, **changes))


def shown(reading: Reading) -> Snapshot:
    assert reading.snapshot is not None
    return reading.snapshot


def counted(reading: Reading, **changes: Any) -> Reading:
    return replace(reading, totals=replace(reading.totals or Totals(), **changes))


def told(reading: Reading, **info: str) -> Reading:
    return replace(reading, info={**reading.info, **info})


def nothing(reading: Reading, since: int) -> Reading:
    del since
    return reading


def stalled(reading: Reading, since: int) -> Reading:
    """Nothing is saved any more, and the queue grows."""
    reading = counted(reading, settled={OrderState.PERSISTED: 20 * STRIKES})
    return seen(reading, queued=20 * since, oldest=shown(reading).time - since)


def frozen_worker(reading: Reading, since: int) -> Reading:
    worker, syncer = shown(reading).processes
    return seen(stalled(reading, since), processes=(replace(worker, beat=worker.beat - since), syncer))


def locked_table(reading: Reading, since: int) -> Reading:
    """The worker waits in `save`, and says so."""
    return stalled(reading, since)


def dead_leader(reading: Reading, since: int) -> Reading:
    worker, syncer = shown(reading).processes
    return seen(reading, leader=None, processes=(worker, replace(syncer, beat=syncer.beat - since)))


def full_memory(reading: Reading, since: int) -> Reading:
    """Redis takes nothing more: no purchase, no lease of a leader, no beat, no count; what was there is drained."""
    silent = tuple(replace(each, beat=each.beat - since) for each in shown(reading).processes)
    reading = counted(reading, settled={OrderState.PERSISTED: 20 * STRIKES}, purchases={})
    reading = seen(reading, processes=silent, leader=None, queued=0, claimed=0, oldest=None)
    return told(reading, used_memory=INFO["maxmemory"])


def evicting(reading: Reading, since: int) -> Reading:
    return told(reading, evicted_keys=str(since))


def lost_sale(reading: Reading, since: int) -> Reading:
    del since
    return seen(reading, state="closed")


def lost_item(reading: Reading, since: int) -> Reading:
    del since
    return seen(reading, goods=(evidence.goods(), evidence.goods("case", gate=None)))


def partition_away(reading: Reading, since: int) -> Reading:
    del since
    return seen(reading, partitions=(PartitionSnapshot(0, "open"), PartitionSnapshot(1, AWAY)))


def partition_closed(reading: Reading, since: int) -> Reading:
    del since
    return seen(reading, state="closed", partitions=(PartitionSnapshot(0, "open"), PartitionSnapshot(1, "closed")))


def partition_short_of_an_item(reading: Reading, since: int) -> Reading:
    del since
    short, whole = evidence.goods("case", gate=None), evidence.goods()
    parts = (PartitionSnapshot(0, "open", goods=(whole,)), PartitionSnapshot(1, "open", goods=(short,)))
    return seen(reading, goods=(whole, short), partitions=parts)


def dead_letter(reading: Reading, since: int) -> Reading:
    del since
    return seen(reading, dead=1)


def lost_units(reading: Reading, since: int) -> Reading:
    del since
    return seen(reading, goods=(evidence.goods(total=100, booked=101),))


def doubtful(reading: Reading, since: int) -> Reading:
    accepted, uncertain = (dict(reading.totals.purchases)["phone", each] for each in ("ACCEPTED", "UNCERTAIN"))
    return counted(reading, purchases={("phone", "ACCEPTED"): accepted, ("phone", "UNCERTAIN"): uncertain + since})


def unwritten(reading: Reading, since: int) -> Reading:
    del since
    return told(reading, aof_last_write_status="err")


def unreadable(reading: Reading, since: int) -> Reading:
    del since
    return Reading(reading.sale, reading.version)


CASES = [
    (nothing, 120, set()),
    (frozen_worker, 20, set()),
    (frozen_worker, 50, {"FlashsaleNotDraining"}),
    (frozen_worker, 90, {"FlashsaleNotDraining", "FlashsaleQueueOld", "FlashsaleProcessSilent"}),
    (locked_table, 50, {"FlashsaleNotDraining"}),
    (locked_table, 90, {"FlashsaleNotDraining", "FlashsaleQueueOld"}),
    (dead_leader, 30, {"FlashsaleNoLeader"}),
    (full_memory, 30, {"FlashsaleNoLeader"}),
    (full_memory, 90, {"FlashsaleMemory", "FlashsaleNoLeader", "FlashsaleProcessSilent"}),
    (evicting, 20, {"FlashsaleEviction"}),
    (lost_sale, 10, {"FlashsaleClosed"}),
    (lost_item, 30, {"FlashsaleGoodsMissing"}),
    (partition_away, 30, {"FlashsalePartitionAway"}),
    (partition_closed, 30, {"FlashsaleClosed", "FlashsalePartitionLost"}),
    (partition_short_of_an_item, 30, {"FlashsaleGoodsMissing", "FlashsalePartitionLost"}),
    (dead_letter, 10, {"FlashsaleDeadLetters"}),
    (lost_units, 60, {"FlashsaleOverbooked"}),
    (doubtful, 60, {"FlashsaleUncertain"}),
    (unwritten, 90, {"FlashsaleAppendOnlyFile"}),
    (unreadable, 60, {"FlashsaleUnreadable"}),
]


@pytest.mark.parametrize(("fault", "seconds", "wanted"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_a_fault_fires_the_right_alerts_and_no_other(fault: Fault, seconds: int, wanted: set[str]) -> None:
    assert alerts(fault, seconds) == wanted
