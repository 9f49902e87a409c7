"""How everything is measured: interleaved rounds on pinned cores, with every round's figure kept."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
PATIENCE = 2  # failures of one case
SERVER, CLIENT = set(CPUS[:1]), set(CPUS[1:2] or CPUS[:1])

Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Args:
        table: which table of the section it belongs to.
        peer: its row.
        load: its column.
        measure: runs once and returns figures; `rate`, per second, is the usual one.
        pinned: this process runs on one core, the servers being on another; else on any.
    """

    table: str
    peer: str
    load: str
    measure: Callable[[], Figures]
    pinned: bool = True


@contextlib.contextmanager
def on(cpus: set[int]) -> Iterator[None]:
    """Runs this thread, and the threads and processes it starts meanwhile, on these cores."""
    if not CPUS:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Bench:
    """What a section gets: how long and how often to measure, and `run`, which does it.

    Attributes:
        quick: a smoke run; its figures mean nothing.
        rounds: how often each case is measured.
        seconds: for how long, where time decides.
    """

    def __init__(self, *, quick: bool, rounds: int, seconds: float, console: Console) -> None:
        self.quick = quick
        self.rounds = rounds
        self.seconds = seconds
        self.console = console

    def few(self, loads: Sequence[int]) -> Sequence[int]:
        """Returns all loads, or for a smoke run the first and the one that the targets name."""
        return [loads[0], 512 if 512 in loads else loads[-1]] if self.quick else loads

    def run(self, section: str, cases: Sequence[Case], rounds: int | None = None) -> list[dict[str, Any]]:
        """Measures all cases in turn, round by round, so that a disturbance hits every case alike.

        Returns:
            One record per case, with each figure of each round. A case that failed has an `error`, and is
            given up after the second time.
        """
        rounds = rounds or self.rounds
        records = [{"table": case.table, "peer": case.peer, "load": case.load, "figures": {}} for case in cases]
        columns = TextColumn("{task.description:60}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(section, total=rounds * len(cases))
            for _ in range(rounds):
                for case, record in zip(cases, records, strict=True):
                    progress.update(task, description=f"{section}: {case.table}, {case.peer}, {case.load}"[:60])
                    if record.get("failures", 0) < PATIENCE:
                        self._measure(case, record)
                    progress.advance(task)
        return records

    def _measure(self, case: Case, record: dict[str, Any]) -> None:
        gc.collect()
        try:
            with on(CLIENT if case.pinned else set(CPUS)):
                figures = case.measure()
        except Exception as error:
            causes = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            record["failures"] = record.get("failures", 0) + 1
            text = f"{type(causes[0]).__name__}: {causes[0]}"
            for private in (sys.executable, sys.prefix, str(Path.cwd()), str(Path.home())):
                text = text.replace(private, "...")  # the page names nobody's folders
            record["error"] = text[:200]
            self.console.print(f"[red]{case.table}, {case.peer}, {case.load}: {record['error']}", highlight=False)
            return
        for name, value in figures.items():
            record["figures"].setdefault(name, []).append(value)


def summary(latencies: list[float], rate: float, cpu: float) -> Figures:
    """Returns the figures of calls that took `latencies`, in seconds; `cpu`: of this process per call, seconds."""
    latencies.sort()
    percentiles = {name: 1e3 * latencies[int(share * len(latencies))] for name, share in _SHARES.items()}
    return {"rate": rate, "cpu": 1e6 * cpu, **percentiles}


_SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def median(values: Sequence[float]) -> float:
    """Returns the median."""
    return statistics.median(values)
