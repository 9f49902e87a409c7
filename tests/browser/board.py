"""Draws the board for Grafana without Grafana: a Prometheus answers the query of each panel."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from flashsale.ops.svg import Line, lines, number
from tests.support import servers
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPAN = 60  # seconds that the curves show
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: flashsale, honor_labels: true, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 8px; width: 1264px; font: 13px sans-serif; background: #f4f5f5; color: #24292e }}
main {{ display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: 26px; gap: 6px }}
figure {{ margin: 0; padding: 6px 8px; background: #fff; border: 1px solid #ddd; overflow: hidden }}
figcaption {{ font-weight: bold }}
svg {{ display: block; max-height: 165px; width: 100% }}
.legend {{ margin-right: 10px }} .legend svg {{ display: inline; width: 28px }}
.stat {{ font-size: 22px; margin: 26px 0; text-align: center; overflow-wrap: anywhere }}
</style><main>{panels}</main>"""


@contextlib.contextmanager
def watched(folder: Path, where: list[str]) -> Iterator[str]:
    """Runs an exporter of the sale, and a Prometheus that scrapes it each second; yields the URL of the latter."""
    exported, listening = servers.free_port(), servers.free_port()
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(port=exported))
    commands = (
        [sys.executable, "-m", "flashsale", "exporter", "--port", str(exported), *where],
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/prometheus", "--log.level=error",
         f"--web.listen-address=127.0.0.1:{listening}"],
    )  # fmt: skip
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        url = f"http://127.0.0.1:{listening}"
        eventually(lambda: _is_ready(url), "Prometheus answers")
        yield url
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False


def page(url: str, sale: str) -> str:
    """Returns the board as a page, each panel where Grafana puts it."""
    board = json.loads((resources.files("flashsale.ops") / "data" / "flashsale.json").read_text())
    return PAGE.format(panels="".join(_panel(url, sale, panel) for panel in board["panels"]))


def _panel(url: str, sale: str, panel: dict[str, Any]) -> str:
    drawn = [line for target in panel["targets"] for line in _asked(url, sale, target)]
    inside = _stat(panel, drawn) if panel["type"] == "stat" else _curves(panel, drawn)
    place = panel["gridPos"]
    columns = f"{place['x'] + 1} / span {place['w']}"
    rows = f"{place['y'] + 1} / span {place['h']}"
    return f'<div style="display: grid; grid-column: {columns}; grid-row: {rows}">{inside}</div>'


def _asked(url: str, sale: str, target: dict[str, Any]) -> list[Line]:
    now = time.time()
    query = target["expr"].replace("$sale", sale).replace("$__rate_interval", "20s")
    asked = urllib.parse.urlencode({"query": query, "start": now - SPAN, "end": now, "step": 1})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{asked}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return [
        Line(_legend(target["legendFormat"], series["metric"]), [(at, float(value)) for at, value in series["values"]])
        for series in found
    ]


def _legend(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), text)


def _stat(panel: dict[str, Any], drawn: list[Line]) -> str:
    says_labels = "{{" in panel["targets"][0]["legendFormat"]
    latest = max(drawn, key=lambda line: line.points[-1][0], default=None)
    if latest is None:
        said = "No data"
    elif says_labels:
        said = latest.name
    elif panel["fieldConfig"]["defaults"]["unit"] == "dateTimeAsIso":
        said = time.strftime("%H:%M:%S", time.localtime(latest.points[-1][1] / 1000))
    else:
        said = number(latest.points[-1][1])
    return f'<figure><figcaption>{escape(panel["title"])}</figcaption><p class="stat">{escape(said)}</p></figure>'


def _curves(panel: dict[str, Any], drawn: list[Line]) -> str:
    known = [Line(line.name, [point for point in line.points if math.isfinite(point[1])]) for line in drawn]
    name = f"panel-{panel['id']}"
    return str(lines(name, panel["title"], known, lambda at: time.strftime("%H:%M:%S", time.localtime(at))))
