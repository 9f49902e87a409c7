"""What an operator is told of a sale: what is sold a second, and what needs attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from flashsale import Goods
from flashsale._rules.activity import left_by
from flashsale._rules.tally import totals_of
from flashsale.model.snapshot import BOUNDS, GoodsSnapshot, Histogram, Process, Sample, Snapshot, Totals
from flashsale.ops import clock
from flashsale.ops.health import Leases, judge, quantile, rate, told, word
from flashsale.ops.status import within

NOW = 1_000_000.0
PHONE = GoodsSnapshot(
    "phone", 100, 40, 100, 40, started=True, per_buyer=None, opens_at=None, closes_at=None, hold=900.0
)
ROW = Goods("phone", 100, hold=900.0, loaded=True)
WORKER = Process("worker", "web-2:7", "1.0", NOW - 1, claimed=12)
SYNCER = Process("syncer", "sync-1:1", "1.0", NOW - 1)
WELL = Snapshot(NOW, "open", 1, 1, "sync-1:1", 0, None, 0, 0, 3, (PHONE,), (SYNCER, WORKER))


def sample(ago: float, booked: int) -> Sample:
    return Sample(NOW - ago, 100, booked, booked, 0, 0, 0, 0.0)


def test_the_pace_is_that_of_the_last_ten_seconds() -> None:
    pace = rate(PHONE, [sample(60, 0), sample(10, 20), sample(5, 30)], {}, NOW)
    assert (pace.sold, pace.gone_in, pace.refused) == (2.0, 30.0, 0.0)
    assert rate(PHONE, [sample(60, 0)], {}, NOW).sold is None
    assert rate(replace(PHONE, booked=100), [sample(10, 90)], {}, NOW).gone_in is None
    returned = rate(PHONE, [sample(10, 50)], {}, NOW)
    assert (returned.sold, returned.gone_in) == (0.0, None)


def test_where_few_are_sold_the_end_is_that_of_five_minutes() -> None:
    slow = [sample(400, 0), sample(250, 15), sample(10, 39)]
    pace = rate(PHONE, slow, {}, NOW)
    assert (pace.sold, pace.gone_in) == (0.1, 60 / (25 / 250))
    assert (within(3600.0), within(3601.0)) == ("1 h", "more than 1 h")


def test_what_is_sold_while_other_units_return_counts() -> None:
    """Where as much returns as is sold, `booked` stands still, and nothing is ever gone."""
    counted = {int(NOW) // 60: {("phone", "ACCEPTED"): 500, ("case", "ACCEPTED"): 9, ("phone", "SOLD_OUT"): 50}}
    pace = rate(PHONE, [sample(10, 50)], counted, NOW)
    assert (pace.sold, pace.gone_in) == (500 / (60 + NOW % 60), None)
    assert rate(PHONE, [sample(10, 0)], {int(NOW) // 60: {("phone", "ACCEPTED"): 1}}, NOW).sold == 4.0


def test_refusals_are_those_of_the_last_minute_and_of_this_one() -> None:
    minute = int(NOW) // 60
    counted = {("phone", "SOLD_OUT"): 50, ("phone", "ACCEPTED"): 9, ("case", "SOLD_OUT"): 7}
    pace = rate(PHONE, [], {minute: counted, minute - 1: counted, minute - 2: counted}, NOW)
    assert pace.refused == 100 / (60 + NOW % 60)


@pytest.mark.parametrize(
    ("look", "state"),
    [
        (WELL, "SELLING"),
        (replace(WELL, state="paused"), "PAUSED"),
        (replace(WELL, state="closed"), "CLOSED"),
        (replace(WELL, goods=(replace(PHONE, booked=100),)), "SOLD OUT"),
        (replace(WELL, goods=(replace(PHONE, started=False),)), "NOT OPEN"),
        (replace(WELL, goods=(replace(PHONE, started=False, opens_at=NOW + 9),)), "NOT OPEN"),
        (replace(WELL, goods=(replace(PHONE, started=False, opens_at=NOW - 9),)), "SELLING"),
        (replace(WELL, goods=(replace(PHONE, closes_at=NOW - 1),)), "ENDED"),
        (replace(WELL, goods=(), epoch=None), "NOT THERE"),
    ],
)
def test_a_sale_has_one_word(look: Snapshot, state: str) -> None:
    assert word(look) == state


def wrong() -> Iterator[tuple[str, Snapshot, Totals, dict[str, str], tuple[Goods, ...]]]:
    none = Totals()
    yield "CLOSED", replace(WELL, state="closed"), none, {}, ()
    yield "PAUSED", replace(WELL, state="paused"), none, {}, ()
    yield "GOODS MISSING", WELL, none, {}, (ROW, Goods("case", 1, loaded=True))
    yield "OTHER POLICY", WELL, none, {}, (replace(ROW, per_buyer=2),)
    yield "OTHER POLICY", WELL, none, {}, (replace(ROW, total=99),)
    yield "NOT DRAINING", replace(WELL, queued=9, oldest=NOW - 12), none, {}, ()
    yield "NOT DRAINING", replace(WELL, queued=9, oldest=NOW - 12, processes=(SYNCER,)), none, {}, ()
    busy = replace(WORKER, doing="save", since=NOW - 12)
    yield "NOT DRAINING", replace(WELL, claimed=12, processes=(SYNCER, busy)), none, {}, ()
    yield "DEAD LETTERS", replace(WELL, dead=1), none, {}, ()
    yield "NO SYNCER", replace(WELL, processes=(WORKER,)), none, {}, ()
    yield "SILENT", replace(WELL, processes=(SYNCER, replace(WORKER, beat=NOW - 40))), none, {}, ()
    yield "BOOKED > TOTAL", replace(WELL, goods=(replace(PHONE, booked=101),)), none, {}, ()
    unsure = Totals({("phone", "ACCEPTED"): 98, ("phone", "UNCERTAIN"): 2, ("phone", "SOLD_OUT"): 900})
    yield "UNCERTAIN", WELL, unsure, {}, ()
    yield "MEMORY", WELL, none, {"used_memory": "81", "maxmemory": "100"}, ()
    yield "EVICTED", WELL, none, {"evicted_keys": "1"}, ()
    yield "AOF", WELL, none, {"aof_last_write_status": "err"}, ()


@pytest.mark.parametrize(("name", "look", "totals", "info", "rows"), list(wrong()))
def test_each_fault_is_named_alone(
    name: str, look: Snapshot, totals: Totals, info: dict[str, str], rows: tuple[Goods, ...]
) -> None:
    assert [each.name for each in judge(look, totals, {"": info}, rows)] == [name]


def test_when_all_is_well_nothing_is_named() -> None:
    info = {"used_memory": "79", "maxmemory": "100", "evicted_keys": "0", "aof_last_write_status": "ok"}
    working = replace(WELL, queued=500, oldest=NOW - 1, claimed=12)
    assert judge(working, Totals({("phone", "UNCERTAIN"): 1, ("phone", "ACCEPTED"): 99}), {"": info}, (ROW,)) == []
    full = replace(WELL, goods=(replace(PHONE, total=40),))
    assert judge(full, Totals(), {}, (replace(ROW, total=30),)) == []  # so many are booked
    assert judge(WELL, Totals(), {"": {"used_memory": "79", "maxmemory": "0"}}) == []


def test_a_process_is_told_in_one_line() -> None:
    stuck = replace(WORKER, doing="save", since=NOW - 12, last_error="StoreError", failed_at=NOW - 61)
    assert told(stuck, NOW) == "worker web-2:7 holds 12, in save for 12 s, last error StoreError 1 min 1 s ago"
    since = clock.shown(NOW - 40, NOW)
    frozen = replace(stuck, beat=NOW - 40)
    assert told(frozen, NOW) == f"worker web-2:7 silent since {since} (40 s ago), held 12 then, in save"


def test_a_silent_worker_is_told_of_with_the_end_of_its_leases() -> None:
    look = replace(WELL, processes=(SYNCER, replace(WORKER, beat=NOW - 40)))
    (found,) = judge(look, Totals(), {}, (), {"web-2:7": Leases(5, NOW + 300)})
    until = clock.shown(NOW + 300, NOW)
    assert f"Another worker takes 5 of them at {until} (in 5 min) at the latest" in found.text
    assert "`flashsale orders claimed`" in found.text


def test_what_somebody_else_has_taken_is_no_more_of_a_silent_worker() -> None:
    frozen = replace(WORKER, beat=NOW - 40, deliveries=((1, 3), (7, 7)))
    other = replace(WORKER, instance="w-2", deliveries=((2, 2), (7, 9)))
    assert left_by(frozen, [frozen, other, replace(other, beat=NOW - 50, deliveries=((1, 3),))]) == [1, 3]


def draining(look: Snapshot) -> str:
    return next((each.text for each in judge(look, Totals(), {}) if each.name == "NOT DRAINING"), "")


def test_of_many_workers_those_are_named_that_stand_still_longest() -> None:
    busy = [replace(WORKER, instance=f"w-{ago}", doing="save", since=NOW - ago) for ago in (11, 13, 12, 2)]
    silent = replace(WORKER, instance="frozen", beat=NOW - 40)
    look = replace(WELL, claimed=60, queued=1, oldest=NOW - 20, processes=(SYNCER, *busy, silent))
    waited, text = draining(look).split(". ", 1)
    assert waited == "the oldest order waits 20 s"
    assert [part.split()[1] for part in text.split("; ")[:3]] == ["frozen", "w-13", "w-12"]
    assert text.endswith("; 2 more")
    assert "frozen" not in draining(replace(look, queued=0, oldest=None))


def test_a_frozen_worker_does_not_hide_that_the_others_drain() -> None:
    frozen = replace(WORKER, instance="frozen", doing="save", since=NOW - 90, beat=NOW - 90)
    look = replace(WELL, claimed=3, processes=(SYNCER, WORKER, frozen))
    assert [each.name for each in judge(look, Totals(), {})] == ["SILENT"]


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    assert quantile(Histogram(tuple(counts)), 0.95) is None
    counts[0], counts[3], counts[-1] = 90, 5, 5
    assert quantile(Histogram(tuple(counts)), 0.9) == BOUNDS[0]
    assert quantile(Histogram(tuple(counts)), 0.95) == BOUNDS[3]
    assert quantile(Histogram(tuple(counts)), 0.99) is None


def test_totals_are_read_from_names_joined_by_bars() -> None:
    fields = {"phone|ACCEPTED": 3, ":settled|PERSISTED": 2, ":error|save|RowRefused": 1, ":store|save|2": 4}
    fields |= {":store|save|us": 100_000, ":lag||0": 1, ":batch||13": 1, ":batch||us": 61_000_000}
    totals = totals_of(fields.items())
    assert totals.purchases == {("phone", "ACCEPTED"): 3}
    assert totals.settled == {"PERSISTED": 2}
    assert totals.store_errors == {("save", "RowRefused"): 1}
    assert totals.store["save"] == Histogram((0, 0, 4, *[0] * 11), 0.1)
    assert totals.lag.counts[0] == totals.batch.counts[-1] == 1
    assert totals.batch.seconds == 61.0
