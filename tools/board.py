"""Writes what follows from the list of metrics: Grafana's board and the table of docs/metrics.md; or checks both.

    python tools/board.py            # write them
    python tools/board.py --check    # fail when one is not what the list says

A panel names its metrics; how each is asked for follows from its kind. A metric that no panel shows is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from flashsale.ops.metrics import METRICS, Metric

PROJECT = Path(__file__).resolve().parent.parent
BOARD = PROJECT / "src" / "flashsale" / "ops" / "data" / "flashsale.json"
PAGE = PROJECT / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics: written by tools/board.py -->\n", "<!-- metrics: end -->\n"
COLUMNS = 24  # of Grafana's grid
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: what it shows.
        metrics: whose; of a further query after the name, its own text.
        unit: Grafana's name of it.
        kind: timeseries, stat or table.
        width: in columns.
        by: the labels that make a line; None: all.
    """

    title: str
    metrics: tuple[str, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    by: tuple[str, ...] | None = None


PANELS = (
    Panel("Redis can be read", ("flashsale_up",), kind="stat", width=4),
    Panel("State", ("flashsale_state",), kind="stat", width=4),
    Panel("Items lost", ("flashsale_missing_goods",), kind="stat", width=4),
    Panel("Dead letters", ("flashsale_dead_orders",), kind="stat", width=4),
    Panel("Leader", ("flashsale_leader_info",), kind="stat", width=4),
    Panel("Release and layout", ("flashsale_build_info",), kind="stat", width=4),
    Panel("Units", ("flashsale_total_units", "flashsale_booked_units", "flashsale_gate_units")),
    Panel("Free units of each partition", ("flashsale_partition_free_units",)),
    Panel(
        "Partitions that answer, are closed, have lost items",
        ("flashsale_partition_up", "flashsale_partition_closed", "flashsale_partition_missing_goods"),
    ),
    Panel("Answers a second", ("flashsale_purchases_total",), unit="ops", by=("outcome",)),
    Panel("Orders moved a second", ("flashsale_orders_settled_total",), unit="ops", by=("state",)),
    Panel("Orders that wait", ("flashsale_queued_orders", "flashsale_claimed_orders")),
    Panel("Age of the oldest order on the queue", ("flashsale_oldest_queued_timestamp_seconds",), unit="s"),
    Panel("From accepted to saved, 95 %", ("flashsale_order_lag_seconds",), unit="s"),
    Panel("Unpaid", ("flashsale_unpaid_orders",)),
    Panel("Database, 95 %", ("flashsale_store_seconds",), unit="s"),
    Panel("Errors of the database a second", ("flashsale_store_errors_total",), unit="ops"),
    Panel("Script calls, 95 %", ("flashsale_batch_seconds",), unit="s"),
    Panel("Memory of Redis", ("flashsale_redis_memory_used_bytes", "flashsale_redis_memory_max_bytes"), unit="bytes"),
    Panel("Keys evicted a second", ("flashsale_redis_evicted_keys_total",), unit="ops"),
    Panel("Age of the last beat", ("flashsale_process_beat_timestamp_seconds",), unit="s", width=12),
    Panel("Append-only file is written", ("flashsale_redis_aof_ok",), width=6, kind="stat"),
    Panel("Clock of Redis", ("flashsale_time_seconds",), unit="dateTimeAsIso", width=6, kind="stat"),
)


def board() -> dict[str, object]:
    """Returns Grafana's board."""
    known = {metric.name: metric for metric in METRICS}
    shown = {name for panel in PANELS for name in panel.metrics}
    if shown != known.keys():
        raise SystemExit(f"board: PANELS and METRICS differ: {', '.join(sorted(shown ^ known.keys()))}")
    places = grid([panel.width for panel in PANELS])
    return {
        "uid": "flashsale",
        "title": "flashsale",
        "description": "One sale. Written by tools/board.py.",
        "tags": ["flashsale"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [data_source(), sales()]},
        "annotations": {"list": []},
        "panels": [
            drawn(number, panel, place, [known[name] for name in panel.metrics])
            for number, (panel, place) in enumerate(zip(PANELS, places, strict=True), start=1)
        ],
    }


def grid(widths: list[int]) -> list[dict[str, int]]:
    """Returns a place for each panel: from left to right, in rows of one height."""
    places, x, y = [], 0, 0
    for width in widths:
        if x + width > COLUMNS:
            x, y = 0, y + HEIGHT
        places.append({"x": x, "y": y, "w": width, "h": HEIGHT})
        x += width
    return places


def drawn(number: int, panel: Panel, place: dict[str, int], metrics: list[Metric]) -> dict[str, object]:
    targets = [
        {
            "refId": chr(ord("A") + count),
            "datasource": SOURCE,
            "expr": asked(metric, panel),
            "legendFormat": legend(metric, panel),
        }
        for count, metric in enumerate(metrics)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(metric.help for metric in metrics),
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0} if panel.kind == "timeseries" else {"unit": panel.unit},
            "overrides": [],
        },
        "options": {"textMode": "name"} if is_said(metrics[0]) else {},
        "targets": targets,
    }


def asked(metric: Metric, panel: Panel) -> str:
    """Returns the query of a metric."""
    series = f'{metric.name}{{sale="$sale"}}'
    by = panel.by if panel.by is not None else metric.labels
    if metric.kind == "histogram":
        labels = ", ".join((*by, "le"))
        buckets = series.replace(metric.name, f"{metric.name}_bucket")
        return f"histogram_quantile(0.95, sum by ({labels}) (rate({buckets}[$__rate_interval])))"
    if metric.kind == "counter":
        return f"sum by ({', '.join(by)}) (rate({series}[$__rate_interval]))"
    if metric.name.endswith("_timestamp_seconds"):
        return f'scalar(flashsale_time_seconds{{sale="$sale"}}) - {series}'
    return f"{series} == 1" if is_said(metric) else f"{series} * 1000" if panel.unit == "dateTimeAsIso" else series


def is_said(metric: Metric) -> bool:
    """True when what matters are the labels of the series that is 1."""
    return metric.name == "flashsale_state" or metric.name.endswith("_info")


def legend(metric: Metric, panel: Panel) -> str:
    labels = [f"{{{{{label}}}}}" for label in (panel.by if panel.by is not None else metric.labels)]
    first = [metric.name.removeprefix("flashsale_").rpartition("_")[0]] if len(panel.metrics) > 1 else []
    return " ".join([*first, *labels]) or metric.name.removeprefix("flashsale_")


def data_source() -> dict[str, object]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def sales() -> dict[str, object]:
    query = "label_values(flashsale_up, sale)"
    made = {"name": "sale", "label": "Sale", "type": "query", "datasource": SOURCE, "query": query}
    return made | {"definition": query, "refresh": 2, "sort": 1}


def table() -> str:
    """Returns the table of the metrics, as Markdown."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | kind | labels | what it is |", "|---|---|---|---|", *rows, ""])


def page() -> str:
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"board: {PAGE.name} has no place for the table")
    return f"{before}{BEGIN}{table()}{END}{after}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is old")
    check = parser.parse_args(argv).check
    wanted = {BOARD: json.dumps(board(), indent=2) + "\n", PAGE: page()}
    old = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    if check:
        for path in old:
            print(f"board: {path.name} is old; run: make sync", file=sys.stderr)
        return int(bool(old))
    for path in old:
        path.write_text(wanted[path], "utf-8")
        print(f"board: wrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
