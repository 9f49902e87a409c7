"""The alerts: promtool accepts and plays them, each is described, and each link leads to a heading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashsale.ops.metrics import METRICS
from tests.support.promtool import promtool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "src" / "flashsale" / "ops" / "data" / "flashsale.rules.yml"
PLAYED = Path(__file__).with_name("data") / "flashsale.rules.test.yml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]
}
PAGES = {
    *("FlashsaleUnreadable", "FlashsaleNotDraining", "FlashsaleQueueOld", "FlashsaleDeadLetters", "FlashsaleNoLeader"),
    *(
        "FlashsaleClosed",
        "FlashsaleGoodsMissing",
        "FlashsalePartitionAway",
        "FlashsalePartitionLost",
        "FlashsaleEviction",
    ),
}

each_alert = pytest.mark.parametrize("name", ALERTS)


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", PLAYED)


@each_alert
def test_an_alert_is_played_both_ways(name: str) -> None:
    played = [test for group in yaml.safe_load(PLAYED.read_text("utf-8"))["tests"] for test in group["alert_rule_test"]]
    fired = {bool(test["exp_alerts"]) for test in played if test["alertname"] == name}
    assert fired == {True, False}


def test_rules_that_never_fire_are_noticed(tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text("utf-8"))
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = f"({rule['expr']}) and on () vector(1) == 0"
    played = yaml.safe_load(PLAYED.read_text("utf-8")) | {"rule_files": ["rules.yml"]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "test.yml").write_text(yaml.safe_dump(played))
    with pytest.raises(AssertionError) as missed:
        promtool("test", "rules", tmp_path / "test.yml")
    assert {name for name in ALERTS if name in str(missed.value)} == ALERTS.keys()


@each_alert
def test_an_alert_asks_for_metrics_that_there_are(name: str) -> None:
    known = {metric.name for metric in METRICS}
    assert set(re.findall(r"flashsale_\w+", ALERTS[name]["expr"])) <= known


@each_alert
def test_an_alert_says_what_is_wrong_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"] == {"severity": "page" if name in PAGES else "ticket"}
    assert rule["annotations"].keys() == {"summary", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_alert
def test_the_page_describes_an_alert(name: str) -> None:
    rule = ALERTS[name]
    link = rule["annotations"]["runbook"].removeprefix("docs/")
    rows = (ROOT / "docs" / "metrics.md").read_text("utf-8").splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
    assert f"| {rule['labels']['severity']} |" in row
    assert f"]({link})" in row


def test_the_page_describes_no_other_alert() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(Flashsale\w+)`", text, re.MULTILINE)) == ALERTS.keys()
