"""The page of `make bench`: how far the rounds of a figure differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import report
from bench.results import Figure, Results
from bench.targets import targets

RUN = {
    **dict.fromkeys(("cpu", "system", "python", "server", "command"), "some"),
    "cores": 2,
    "packages": {},
    "load": 0.1,
    "when": "2026-11-23 00:55 UTC",
    "rounds": 5,
    "seconds": 0.6,
}


def section(kept: Sequence[float] = (90.0,)) -> dict:
    """What a run of the append-only file has found, with these rates where there is one."""
    peer = "the script, back to back, 128 a call"
    rates = {"off": [100.0, 100.0, 200.0], "everysec": list(kept)}
    records = [{"table": "aof", "peer": peer, "load": load, "figures": {"rate": rate}} for load, rate in rates.items()]
    return {"records": records}


def test_a_ratio_spreads_as_its_rounds_do() -> None:
    ratio = Figure.of([10.0, 20.0, 40.0]).over(Figure.of([1.0, 1.0, 4.0]))
    assert ratio == (20.0, (10.0, 20.0, 10.0))
    assert ratio.spread() == "10.00 to 20.00"


def test_rounds_that_are_no_pairs_give_no_spread() -> None:
    ratio = Figure.of([10.0, 20.0, 30.0]).over(Figure.of([1.0, 1.0]))
    assert ratio == (20.0, ())
    assert ratio.spread() == ""
    assert Figure.of([10.0]).spread() == ""


@pytest.mark.parametrize(
    ("kept", "row"),
    [([80.0, 90.0, 180.0], "| 10.0 % {} | 10.0 to 20.0 | yes |"), ([80.0, 70.0, 196.0], "| 20.0 % {} | 2.0 to 30.0 |")],
)
def test_a_target_is_judged_by_its_median_and_shows_its_spread(tmp_path: Path, kept: list[float], row: str) -> None:
    results = Results(tmp_path / "results.json")
    results.put("aof", section(kept=kept), RUN)
    assert row.format("(the script, back to back, 128 a call)") in report.text(results, [])
    reached = next(target.reached for target in targets(results) if target.sentence.startswith("AOF everysec"))
    assert reached == ("yes" if kept[1] == 90.0 else "**no**")
