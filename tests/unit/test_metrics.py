"""The metrics of a sale: complete, bounded, without ids, and as Prometheus wants them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flashsale.model import OrderState, Outcome
from flashsale.model.snapshot import AWAY, BOUNDS, MISSING, Histogram, PartitionSnapshot, Snapshot, Totals
from flashsale.ops import metrics
from flashsale.ops.exporter import Collector
from flashsale.ops.metrics import METRICS, OTHER, Metric, Reading, Shown, values
from tests.support import evidence
from tests.support.promtool import promtool

INFO = {
    "used_memory": "8388608",
    "maxmemory": "2147483648",
    "evicted_keys": "0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
}
LABELS = {"sale", "goods", "outcome", "state", "op", "kind", "instance", "version", "layout", "partition", "le"}


def reading(snapshot: Snapshot | None = None, totals: Totals | None = None, **info: str) -> Reading:
    return Reading("nov11", "0.1.0", snapshot or evidence.snapshot(), totals or evidence.totals(), INFO | info)


def found(read: Reading, shown: Shown | None = None) -> dict[str, dict[tuple[str, ...], metrics.Value]]:
    return {metric.name: dict(each) for metric, each in values(read, shown or Shown())}


def page(*readings: Reading) -> str:
    """Returns what the last of a few scrapes answers."""
    left = list(readings)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(lambda: left.pop(0)))
    return [generate_latest(registry).decode() for _ in readings][-1]


def full() -> Reading:
    """As much as there can be: more items, processes, calls and errors than have a name."""
    names = [f"item-{place:03}" for place in range(80)]
    long = Histogram((1,) * (len(BOUNDS) + 1), 1.0)
    processes = tuple(
        evidence.process(kind, f"web-{place}:1")
        for place, kind in product(range(60), ("web", "worker", "syncer", "outbox"))
    )
    counted = Totals(
        purchases={(name, outcome): 1 for name in names for outcome in Outcome},
        settled=dict.fromkeys(OrderState, 1),
        store_errors={(f"call-{place}", f"Error{other}"): 1 for place, other in product(range(10), range(10))},
        store={f"call-{place}": long for place in range(20)},
        lag=long,
        batch=long,
    )
    return reading(evidence.snapshot(*(evidence.goods(name) for name in names), processes=processes), counted)


def test_a_scrape_has_every_metric_of_the_list_and_no_other() -> None:
    of_partitions = {metric.name for metric in METRICS if "partition" in metric.labels}
    assert found(reading()).keys() == {metric.name for metric in METRICS} - of_partitions
    spread = reading(evidence.snapshot(partitions=(PartitionSnapshot(0, "open"),)))
    assert found(spread).keys() == {metric.name for metric in METRICS}
    assert all(each for each in found(spread).values()), "and each has a value"


def test_a_partition_that_is_away_closed_or_has_lost_something_is_named() -> None:
    phone, lost = evidence.goods(), evidence.goods(gate=None)
    parts = (
        PartitionSnapshot(0, "open", goods=(phone,)),
        PartitionSnapshot(1, AWAY),
        PartitionSnapshot(2, "closed", goods=(phone,)),
        PartitionSnapshot(3, "open", goods=(lost,)),
        PartitionSnapshot(4, MISSING),
    )
    told = found(reading(evidence.snapshot(partitions=parts)))
    assert [told["flashsale_partition_up"][str(place),] for place in range(5)] == [1, 0, 1, 1, 1]
    assert [told["flashsale_partition_closed"][str(place),] for place in range(5)] == [0, 0, 1, 0, 1]
    assert [told["flashsale_partition_missing_goods"][str(place),] for place in range(5)] == [0, 0, 0, 1, 0]
    assert [told["flashsale_partition_free_units"][str(place),] for place in range(5)] == [10, 0, 10, 10, 0]


def test_a_full_sale_of_fifty_items_has_a_thousand_series_at_most() -> None:
    lines = [line for line in page(full()).splitlines() if not line.startswith("#")]
    assert 800 < len(lines) <= 1_050


def test_further_items_are_summed() -> None:
    units = found(full())["flashsale_total_units"]
    assert len(units) == metrics.MAX_GOODS + 1
    assert units[OTHER,] == 30 * 100
    purchases = found(full())["flashsale_purchases_total"]
    assert purchases[OTHER, "SOLD_OUT"] == 30


def test_an_item_keeps_its_name_when_another_one_comes() -> None:
    shown = Shown()
    shown.meet(f"item-{place}" for place in range(50))
    shown.meet(["a-new-one"])
    assert shown.name("item-7") == "item-7"
    assert shown.name("a-new-one") == OTHER


def test_no_label_can_have_an_id() -> None:
    assert {label for metric in METRICS for label in metric.labels} <= LABELS
    text = page(reading())
    assert "buyer" not in text
    assert "order_id" not in text


def test_an_outcome_that_has_not_come_yet_is_zero() -> None:
    purchases = found(reading())["flashsale_purchases_total"]
    assert purchases["phone", "UNCERTAIN"] == 0
    assert {outcome for _, outcome in purchases} == {each.value for each in Outcome}
    assert found(reading())["flashsale_orders_settled_total"]["EXPIRED",] == 0


def test_the_buckets_of_a_histogram_are_cumulative() -> None:
    counts = [count for _, count in metrics.buckets(Histogram((3, 2, *(0,) * (len(BOUNDS) - 2), 1), 61.0))]
    assert counts[:3] == [3, 5, 5]
    assert counts[-1] == 6
    assert len(counts) == len(BOUNDS) + 1


def test_too_many_processes_leave_those_that_alerts_need() -> None:
    beats = found(full())["flashsale_process_beat_timestamp_seconds"]
    assert len(beats) == metrics.MAX_PROCESSES
    assert {kind for kind, _ in beats} == {"syncer", "outbox"}


def test_a_lost_item_is_counted_and_has_no_gate() -> None:
    lost = found(reading(evidence.snapshot(evidence.goods(), evidence.goods("case", gate=None))))
    assert lost["flashsale_missing_goods"][()] == 1
    assert lost["flashsale_gate_units"] == {("phone",): 100}
    emptied = evidence.goods("case", total=0, booked=0)
    assert found(reading(evidence.snapshot(emptied)))["flashsale_missing_goods"][()] == 1


def test_what_redis_does_not_tell_is_absent() -> None:
    nothing = found(replace(reading(), info={}))
    assert not any(each for name, each in nothing.items() if name.startswith("flashsale_redis_"))
    assert not found(reading(maxmemory="0"))["flashsale_redis_memory_max_bytes"]
    assert not found(reading(aof_enabled="0"))["flashsale_redis_aof_ok"]
    assert found(reading(aof_last_write_status="err"))["flashsale_redis_aof_ok"][()] == 0
    idle = replace(evidence.snapshot(), oldest=None, leader=None)
    assert not found(reading(idle))["flashsale_oldest_queued_timestamp_seconds"]
    assert not found(reading(idle))["flashsale_leader_info"]


def test_several_servers_are_told_by_the_one_that_is_worst_off() -> None:
    large = INFO | {"used_memory": "900", "maxmemory": "9000", "evicted_keys": "1"}
    full = INFO | {"used_memory": "80", "maxmemory": "100", "evicted_keys": "2", "aof_enabled": "0"}
    broken = large | {"aof_last_write_status": "err"}
    for infos in ([large, full, broken, {}], [broken, {}, full, large]):
        told = metrics.as_one(infos)
        assert (told["used_memory"], told["maxmemory"], told["evicted_keys"]) == ("80", "100", "4")
        assert found(replace(reading(), info=told))["flashsale_redis_aof_ok"][()] == 0
    assert metrics.as_one([{}, large]) == large
    assert metrics.as_one([]) == {}
    assert found(replace(reading(), info=metrics.as_one([large, full])))["flashsale_redis_aof_ok"][()] == 1


def test_a_scrape_that_cannot_read_redis_says_so() -> None:
    text = page(reading(), Reading("nov11", "0.1.0"))
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [
        'flashsale_up{sale="nov11"} 0.0',
        'flashsale_build_info{layout="",sale="nov11",version="0.1.0"} 1.0',
    ]


@pytest.mark.parametrize("read", [reading(), full(), Reading("nov11", "0.1.0")], ids=["small", "full", "unreadable"])
def test_promtool_has_nothing_to_say_about_the_page(read: Reading) -> None:
    assert not promtool("check", "metrics", page=page(read)).strip()


def test_promtool_would_find_a_bad_name() -> None:
    """What the test above rests on."""
    with pytest.raises(AssertionError, match="_total"):
        promtool("check", "metrics", page="# HELP sold_count x\n# TYPE sold_count counter\nsold_count 1\n")


def test_every_metric_says_what_it_is() -> None:
    for metric in METRICS:
        assert metric.help.endswith(".")
        assert metric.name.startswith("flashsale_")
        assert metric.kind in {"counter", "gauge", "histogram"}
        assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert isinstance(METRICS[0], Metric)
