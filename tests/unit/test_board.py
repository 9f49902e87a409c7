"""Grafana's board: written from the list of metrics, whole, and laid out without an overlap."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashsale.ops.metrics import METRICS
from tests.support.promtool import promtool
from tools import board

FILE = Path(__file__).parents[2] / "src" / "flashsale" / "ops" / "data" / "flashsale.json"
BOARD: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
PANELS: list[dict[str, Any]] = BOARD["panels"]
SUFFIXES = r"_bucket$"


def test_the_board_and_the_table_are_what_the_list_says() -> None:
    assert board.main(["--check"]) == 0


def test_the_board_shows_every_metric_and_no_other() -> None:
    asked = {
        re.sub(SUFFIXES, "", name)
        for panel in PANELS
        for target in panel["targets"]
        for name in re.findall(r"flashsale_\w+", target["expr"])
    }
    assert asked == {metric.name for metric in METRICS}


def test_a_metric_without_a_panel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "PANELS", board.PANELS[1:])
    with pytest.raises(SystemExit, match="flashsale_up"):
        board.board()


def test_the_board_has_what_grafana_wants() -> None:
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time", "timezone"} <= BOARD.keys()
    source, sale = BOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert (sale["name"], sale["type"]) == ("sale", "query")
    for panel in PANELS:
        assert panel["type"] in {"timeseries", "stat"}
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["expr"].count('sale="$sale"') == len(re.findall(r"flashsale_\w+", target["expr"]))
            assert target["expr"].count("(") == target["expr"].count(")")
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_promtool_can_read_every_query(tmp_path: Path) -> None:
    texts = {target["expr"].replace("$__rate_interval", "1m") for panel in PANELS for target in panel["targets"]}
    rules = [{"record": f"shown:{number}:query", "expr": text} for number, text in enumerate(sorted(texts))]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert f"{len(texts)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_no_two_panels_have_one_id_or_one_place() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in PANELS)
    ]
    assert all(x < board.COLUMNS for places in taken for x, _ in places)
    assert not any(one & other for one, other in combinations(taken, 2))
