"""What Prometheus makes of a few scrapes: the alerts that fire at the last one. promtool plays Prometheus."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.promtool import judged

RULES = Path(__file__).parents[2] / "src" / "flashsale" / "ops" / "data" / "flashsale.rules.yml"


def firing(pages: Sequence[str], every: int = 10) -> set[str]:
    """Returns the names of the alerts that fire at the last of these pages.

    Args:
        pages: of an exporter, in the order in which they were scraped.
        every: seconds between two.
    """
    asked = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{every * (len(pages) - 1)}s", "exp_samples": []}
    test = {"interval": f"{every}s", "input_series": series(pages), "promql_expr_test": [asked]}
    with tempfile.TemporaryDirectory(prefix="flashsale-") as folder:
        file = Path(folder) / "test.yml"
        played = {"rule_files": [str(RULES)], "evaluation_interval": f"{every}s", "tests": [test]}
        file.write_text(json.dumps(played))  # which is YAML too, and takes a tenth of the time
        status, said = judged("test", "rules", file)
    names = set(re.findall(r'alertname="(\w+)"', said))
    assert bool(status) == bool(names), said
    return names


def series(pages: Sequence[str]) -> list[dict[str, str]]:
    """Returns the series of these pages, as promtool wants them; one that is gone is stale."""
    values: dict[str, list[str]] = {}
    for place, page in enumerate(pages):
        for name, value in samples(page).items():
            values.setdefault(name, ["_"] * place).append(value)
        for known in values.values():
            if len(known) == place:
                known.append("_" if known[-1] in {"_", "stale"} else "stale")
    return [{"series": name, "values": " ".join(found)} for name, found in values.items()]


@functools.cache  # a fault asks again and again about a series that grows
def samples(page: str) -> dict[str, str]:
    """Returns the value of each series of a page, by its name and labels."""
    return {
        f"{sample.name}{{{_labels(sample.labels)}}}": f"{sample.value:f}"
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
