"""What `make bench` does with processes of its own: the calibration, a sale in either layout, one over primaries."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from rich.console import Console

from bench import report, scale, script_cost
from bench.__main__ import measured
from bench.calibration import calibrate
from bench.cpu_share import Cgroups, Stops, cpu_of
from bench.harness import Bench, Case
from bench.peers import consumers
from bench.results import Results, environment
from bench.servers import SALE, redis_server
from flashsale import FlashSale, Order
from flashsale.aio.partitions.transfers import Transfers
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_the_machine_is_measured_before_and_after_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("bench.__main__.calibrate", lambda: seen.append("loop") or len(seen))
    section = measured(lambda bench: seen.append("section") or {"records": []}, None)
    assert section == {"records": [], "calibration": [1, 3]}
    assert seen == ["loop", "section", "loop"]
    assert measured(lambda bench: None, None) is None  # it cannot be measured here


def test_the_calibration_takes_time() -> None:
    found = calibrate()
    assert found.keys() == {"cpu", "wall", "load"}
    assert min(found["cpu"], found["wall"]) > 0


@pytest.mark.parametrize(("layout", "leases"), [(None, 1), (1, 3)])
def test_the_queue_is_measured_in_the_layout_that_is_named(layout: int | None, leases: int) -> None:
    with redis_server() as bed, FlashSale(bed.client, SALE) as sale:
        consumers._sell(bed.client, sale, [Order(f"o-{n}", "phone", "ann", 1) for n in range(3)], layout)
        assert len(sale.queue.claim(3)) == 3
        assert bed.client.zcard(sale.keys.leases) == leases


@pytest.mark.parametrize("layout", script_cost.LAYOUTS)
def test_each_script_has_its_cost_in_each_layout(layout: int) -> None:
    with redis_server() as bed:
        found = script_cost.best(bed, "plain", layout, windows=1)
    assert found.keys() == {"reserve", "claim", "ack"}
    assert all(cost > 0 for cost in found.values())


# -- one sale over several primaries ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no partition that is away."""
    monkeypatch.setitem(Transfers.__init__.__kwdefaults__, "within", 10.0)


class Recorded(Bench):
    """A smoke run that remembers which processes it has seen, and fails in the middle if it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(quick=True, rounds=1, seconds=0.05, console=Console(file=io.StringIO()))
        self.fails = fails
        self.others = set(psutil.Process().children(recursive=True))  # of fixtures that live on
        self.seen: set[psutil.Process] = set()

    def _measure(self, case: Case, record: dict[str, Any]) -> None:
        super()._measure(case, record)
        self.seen |= set(psutil.Process().children(recursive=True)) - self.others
        if self.fails:
            raise KeyboardInterrupt


def test_a_sale_over_several_primaries_is_measured(tmp_path: Path) -> None:
    bench = Recorded()
    found = scale.run(bench)
    assert [record["error"] for record in found["records"] if "error" in record] == []
    assert {record["load"] for record in found["records"] if record["table"] == "purchases"} == {"1", "2"}
    assert bench.seen
    assert not any(process.is_running() for process in bench.seen)
    results = Results(tmp_path / "results.json")
    results.put("scale", found, environment() | {"rounds": 1, "seconds": 0.05, "command": "make bench"})
    page = report.text(results, [])
    assert "## One sale over several primaries" in page
    assert "| One sale over 2 primaries: at least 1.9x the purchases of one |" in page


def test_a_run_that_fails_leaves_no_process_behind() -> None:
    bench = Recorded(fails=True)
    with pytest.raises(KeyboardInterrupt):
        scale.run(bench)
    assert bench.seen
    assert not any(process.is_running() for process in bench.seen)


@pytest.fixture
def busy() -> Iterator[psutil.Popen]:
    with psutil.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


def runs_on(process: psutil.Popen) -> bool:
    before = cpu_of(process.pid)
    return eventually(lambda: cpu_of(process.pid) > before + 0.1, "a process that runs")


def test_a_process_is_stopped_once_it_has_had_its_share_and_runs_on_afterwards(busy: psutil.Popen) -> None:
    with Stops.hold([busy.pid], 0.01):
        eventually(lambda: busy.status() == psutil.STATUS_STOPPED, "a process that is stopped")
    assert runs_on(busy)


def test_a_process_is_continued_where_the_run_fails(busy: psutil.Popen) -> None:
    with pytest.raises(ZeroDivisionError), Stops.hold([busy.pid], 0.01):
        eventually(lambda: busy.status() == psutil.STATUS_STOPPED, "a process that is stopped")
        raise ZeroDivisionError
    assert runs_on(busy)


def test_a_cgroup_holds_a_process_to_its_share_and_is_removed_afterwards(busy: psutil.Popen) -> None:
    limiter = Cgroups.find()
    if limiter is None:
        pytest.skip("no cgroup may be written here")
    with limiter.hold([busy.pid], 0.01):
        (group,) = limiter._home.glob(f"flashsale-bench-{os.getpid()}-*")
        eventually(lambda: "nr_throttled 0\n" not in (group / "cpu.stat").read_text(), "a process that is held")
    assert not group.exists()
    assert runs_on(busy)
