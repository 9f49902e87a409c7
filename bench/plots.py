"""The plots of the page, as SVG, from the run's JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.harness import median
from bench.results import Results

mpl.use("Agg")
mpl.rcParams |= {
    "svg.hashsalt": "flashsale",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
OURS, OTHERS = "#c0392b", ["#34495e", "#2980b9", "#7f8c8d", "#8e44ad", "#16a085", "#d68910", "#5d6d7e", "#a04000"]


def draw(results: Results, folder: Path) -> list[str]:
    """Draws what the sections that are there allow; returns the plots' names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, plot in PLOTS.items():
        if figure := plot(results):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight", facecolor="white")
            plt.close(figure)
            drawn.append(name)
    return drawn


def _lines(section: str, table: str, across: str, along: str, figure: str = "rate") -> Callable:
    def plot(results):
        peers: dict[str, list] = {}
        for record in results.records(section, table):
            if figure in record["figures"]:
                peers.setdefault(record["peer"], []).append((int(record["load"]), record["figures"][figure]))
        if not peers:
            return None
        image, axes = plt.subplots(figsize=(7, 4))
        colours = iter(OTHERS * 3)
        for peer, points in peers.items():
            points.sort(key=lambda point: point[0])
            ours = peer.startswith("flashsale") or len(peers) == 1
            colour = OURS if ours else next(colours)
            style = {"color": colour, "label": peer, "marker": "o", "markersize": 3, "linewidth": 2.2 if ours else 1.2}
            loads = [load for load, _ in points]
            axes.plot(loads, [median(values) for _, values in points], "--" if "(" in peer else "-", **style)
            lows, highs = [min(values) for _, values in points], [max(values) for _, values in points]
            axes.fill_between(loads, lows, highs, color=colour, alpha=0.12, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel=across, ylabel=along)
        ticks = sorted({load for points in peers.values() for load, _ in points})
        axes.set_xticks(ticks, [f"{load:,}" for load in ticks])
        axes.minorticks_off()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return image

    return plot


def _bars(section: str, tables: dict[str, str], along: str, *, loads: bool = False) -> Callable:
    def plot(results):
        bars = []
        for table, prefix in tables.items():
            for record in results.records(section, table):
                if values := record["figures"].get("rate"):
                    label = f"{prefix}{record['peer']}" + (f", {record['load']}" if loads else "")
                    ours = "flashsale" in label or "in process" in label
                    bars.append((label, median(values), min(values), max(values), ours))
        if not bars:
            return None
        image, axes = plt.subplots(figsize=(7, 0.32 * len(bars) + 0.8))
        rows = range(len(bars))
        middles = [bar[1] for bar in bars]
        errors = [[bar[1] - bar[2] for bar in bars], [bar[3] - bar[1] for bar in bars]]
        colours = [OURS if bar[4] else OTHERS[0] for bar in bars]
        axes.barh(rows, middles, xerr=errors, color=colours, ecolor="#888888", height=0.65)
        for row, middle in zip(rows, middles, strict=True):
            axes.annotate(f"{middle:,.0f}", (middle, row), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(rows, [bar[0] for bar in bars])
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel=along)
        axes.grid(axis="y", visible=False)
        return image

    return plot


PLOTS = {
    "purchases": _lines("purchases", "asyncio", "callers in one asyncio process", "purchases a second"),
    "latency": _lines("purchases", "asyncio", "callers in one asyncio process", "p99 of a purchase, ms", "p99"),
    "threads": _lines("purchases", "threads", "threads in one process", "purchases a second"),
    "gate": _bars(
        "gate",
        {"admitted": "admitted: ", "refused": "refused ", "storm": "sold-out storm: "},
        "answers a second",
        loads=True,
    ),
    "queue": _bars("queue", {"no-op": "no-op: ", "PostgreSQL": "PostgreSQL: "}, "orders consumed a second"),
    "aof": _bars("aof", {"aof": ""}, "purchases a second", loads=True),
    "growth": _lines("growth", "growth", "orders in the ledger", "purchases a second"),
    "script": _lines("growth", "script", "orders in one call", "microseconds of Redis per call", "time"),
    "web": _bars("web", {"web": ""}, "requests a second", loads=True),
}
