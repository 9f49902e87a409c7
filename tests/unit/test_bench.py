"""The page of `make bench`: how far the rounds of a figure differ, and whether the machine was slow or busy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import report
from bench.results import Figure, Results
from bench.targets import targets

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
RUN = {
    **dict.fromkeys(("cpu", "system", "python", "server", "command"), "some"),
    "cores": 2,
    "packages": {},
    "load": 0.1,
    "when": "2026-11-23 00:55 UTC",
    "rounds": 5,
    "seconds": 0.6,
}
CALM = {"cpu": 0.2, "wall": 0.21, "load": 0.1}


def section(*calibration: dict, kept: Sequence[float] = (90.0,)) -> dict:
    """What a run of the append-only file has found, with these rates where there is one."""
    peer = "the script, back to back, 128 a call"
    rates = {"off": [100.0, 100.0, 200.0], "everysec": list(kept)}
    records = [{"table": "aof", "peer": peer, "load": load, "figures": {"rate": rate}} for load, rate in rates.items()]
    return {"records": records} | ({"calibration": list(calibration)} if calibration else {})


def page(tmp_path: Path, *calibration: dict, load: float = 0.1) -> str:
    results = Results(tmp_path / "results.json")
    results.put("growth", {"records": [], "calibration": [CALM, CALM]}, RUN)
    results.put("aof", section(*calibration), RUN | {"load": load})
    return report.text(results, [])


def test_the_page_of_runs_without_calibration_is_written(tmp_path: Path) -> None:
    sections = json.loads((ROOT / "docs/plots/benchmarks.json").read_text())
    for each in sections.values():
        each.pop("calibration", None)
        each.pop("fastest", None)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(sections))
    text = report.text(Results(file), [])
    assert "| target | measured | lowest to highest | reached |" in text
    assert all(f"## {report.SECTIONS[name][0]}\n" in text for name in sections)
    assert "loop took" not in text


def test_of_a_calm_machine_the_page_says_only_what_the_loop_took(tmp_path: Path) -> None:
    text = page(tmp_path, CALM, CALM | {"cpu": 0.22, "load": 9.0})  # the load is the section's own
    assert "The calibration loop took 0.20 s of CPU before and 0.22 s after." in text
    assert "The machine was" not in text


@pytest.mark.parametrize(
    ("calibration", "load", "sentence"),
    [
        (
            [CALM, {"cpu": 0.31, "wall": 0.32, "load": 1.0}],
            0.1,
            "slow: the calibration loop took 0.31 s of CPU, at its fastest 0.20 s",
        ),
        (
            [{"cpu": 0.2, "wall": 0.4, "load": 1.0}, CALM],
            0.1,
            "busy: the calibration loop took 0.40 s, of which it ran 0.20 s",
        ),
        ([CALM, CALM], 2.5, "busy: its load before the run was 2.5 on 2 cores"),
        ([], 2.5, "busy: its load before the run was 2.5 on 2 cores"),
        (
            [CALM, {"cpu": 0.3, "wall": 0.9, "load": 1.0}],
            2.5,
            (
                "slow: the calibration loop took 0.30 s of CPU, at its fastest 0.20 s, and "
                "busy: the calibration loop took 0.90 s, of which it ran 0.30 s"
            ),
        ),
    ],
)
def test_the_page_names_a_slow_or_busy_machine(
    tmp_path: Path, calibration: list[dict], load: float, sentence: str
) -> None:
    text = page(tmp_path, *calibration, load=load)
    assert f"**The machine was {sentence}.**" in text
    assert "**The machine was slow or busy when it measured aof: those" in text


def test_the_fastest_loop_is_remembered_when_its_section_is_measured_anew(tmp_path: Path) -> None:
    file, slow = tmp_path / "results.json", {"cpu": 0.3, "wall": 0.3, "load": 0.1}
    for calibration in (CALM, slow):
        Results(file).put("aof", section(calibration, calibration), RUN)
    Results(file).put("growth", {"records": []}, RUN)
    assert Results(file).fastest() == 0.2
    assert "**The machine was slow: " in report.text(Results(file), [])


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
