"""What `tests.chaos.soak` measures each second, and the rule by which a curve is flat."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.claims import claimed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import redis

    from flashsale import Keys

SLACK = 0.05  # of the second quarter's median
LEAST = {"files": 3.0, "MiB": 2.0, "connections": 3.0, "s": 1.0, "orders": 10.0}
"""By unit: a smaller rise is noise."""


@dataclass
class Curve:
    """One thing measured over time; None where it could not be, because a server was down."""

    name: str
    unit: str
    values: list[float | None] = field(default_factory=list)

    def quarter(self, number: int) -> float:
        """Returns the median of the first, second, third or fourth quarter."""
        size = len(self.values) / 4
        part = self.values[round(size * (number - 1)) : round(size * number)]
        return statistics.median(value for value in part if value is not None)

    @property
    def rise(self) -> float:
        """From the second quarter's median to the last one's: in the first, pools and caches still fill."""
        return self.quarter(4) - self.quarter(2)

    @property
    def allowed(self) -> float:
        """How much of a rise is still flat."""
        return max(SLACK * self.quarter(2), LEAST[self.unit])

    @property
    def is_flat(self) -> bool:
        return self.rise <= self.allowed


def of_process(pid: int) -> tuple[float, float]:
    """Returns open files and resident MiB of a process and its children."""
    files = memory = 0.0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        files += each.num_fds()
        memory += each.memory_info().rss / 2**20
    return files, memory


def of_queue(raw: redis.Redis, keys: Keys) -> tuple[float, float]:
    """Returns how many orders wait or are claimed, and how old the oldest on the list is, in seconds."""
    oldest: Any = raw.lindex(keys.order_list, -1)
    seconds, microseconds = raw.time()
    lag = 0.0 if oldest is None else seconds + microseconds / 1e6 - json.loads(oldest)["created_at"]
    return raw.llen(keys.order_list) + len(claimed(raw, keys)), lag


class Samples:
    """The curves of one run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.curves: dict[str, Curve] = {}

    def add(self, at: float, found: Mapping[tuple[str, str], float | None]) -> None:
        """Adds the values of one moment, by name and unit; None: not to be had."""
        for name, unit in found:
            self.curves.setdefault(name, Curve(name, unit, [None] * len(self.seconds)))
        self.seconds.append(at)
        for curve in self.curves.values():
            curve.values.append(found.get((curve.name, curve.unit)))

    @property
    def not_flat(self) -> list[str]:
        return [
            f"{curve.name} rose by {curve.rise:.1f} {curve.unit}" for curve in self.curves.values() if not curve.is_flat
        ]

    def table(self) -> str:
        """Returns the medians as a Markdown table."""
        rows = ["| curve | unit | second quarter | last quarter | may rise by | flat |", "|---|---|---|---|---|---|"]
        rows += [
            f"| {curve.name} | {curve.unit} | {curve.quarter(2):.1f} | {curve.quarter(4):.1f} | {curve.allowed:.1f} | "
            f"{'yes' if curve.is_flat else 'NO'} |"
            for curve in self.curves.values()
        ]
        return "\n".join(rows)

    def plot(self, path: Path, faults: Sequence[tuple[float, str]]) -> None:
        """Draws one panel a unit, with the faults below."""
        import matplotlib as mpl

        mpl.use("svg")
        mpl.rcParams |= {"svg.hashsalt": "flashsale", "font.size": 8}
        from matplotlib import pyplot as plt

        units = list(dict.fromkeys(curve.unit for curve in self.curves.values()))
        figure, panels = plt.subplots(len(units) + 1, 1, sharex=True, figsize=(8, 1.5 * len(units) + 1.2))
        minutes: Callable[[Sequence[float]], list[float]] = lambda seconds: [at / 60 for at in seconds]  # noqa: E731
        for panel, unit in zip(panels, units, strict=False):
            for curve in self.curves.values():
                if curve.unit == unit:
                    known = [value if value is not None else float("nan") for value in curve.values]
                    panel.plot(minutes(self.seconds), known, linewidth=0.8, label=curve.name)
            panel.set_ylabel(unit)
            panel.set_ylim(bottom=0)
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        kinds = sorted({kind for _, kind in faults})
        for place, kind in enumerate(kinds):
            times = minutes([at for at, each in faults if each == kind])
            panels[-1].plot(times, [place] * len(times), "|", color="black", markersize=6)
        panels[-1].set_yticks(range(len(kinds)), kinds)
        panels[-1].set_ylim(-0.5, len(kinds) - 0.5)
        panels[-1].set_xlabel("minutes")
        figure.align_ylabels(panels)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
