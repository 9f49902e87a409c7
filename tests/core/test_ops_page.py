"""docs/command.md says what `--help` says."""

from __future__ import annotations

import re
from pathlib import Path

from flashsale.cli import _DEMO
from flashsale.ops import running
from flashsale.ops.verbs import VERBS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command.md").read_text()
ALL = (*VERBS, *running.verbs(), _DEMO)


def test_the_page_lists_every_command() -> None:
    rows = dict(re.findall(r"^\| `flashsale ([\w ]+)` \| (.*?) \|", PAGE, re.MULTILINE))
    assert rows == {verb.name: verb.help for verb in ALL}


def test_the_page_says_what_asks() -> None:
    rows = re.findall(r"^\| `flashsale ([\w ]+)` \| .*? \| ?(.*?) ?\|$", PAGE, re.MULTILINE)
    assert {name for name, asks in rows if asks} == {verb.name for verb in VERBS if verb.asks}


def test_the_page_says_what_wants_a_reason() -> None:
    (line,) = re.findall(r"^- `--reason` says why\. (.*) do nothing without a reason\.$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`([\w ]+)`", line)) == {verb.name for verb in VERBS if verb.wants_reason}
