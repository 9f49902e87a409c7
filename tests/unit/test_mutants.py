"""The registry of mutants is the one place that knows them: no other test quotes a script, and each entry fits."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from flashsale.lua import SCRIPTS
from tests.support import mutants

TESTS = Path(__file__).parent.parent
CODE = "\n".join(script.text for script in SCRIPTS.values())
SIGNS = ("(", "[", "=", " then", "..")  # of code, that a key or a name has not


def quoted(path: Path) -> set[str]:
    """Returns the strings of a file that are code of a script."""
    strings = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {text for text in strings if len(text) > 10 and text in CODE and any(sign in text for sign in SIGNS)}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_script_is_quoted_outside_the_registry(path: Path) -> None:
    assert path.name == "mutants.py" or quoted(path) == set()


def test_the_registry_quotes_scripts() -> None:
    assert len(quoted(Path(mutants.__file__))) > 50


LINES = [part for mutant in mutants.MUTANTS.values() for part in mutant.how if isinstance(part, mutants.Lua)]


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.script}: {line.old[:40]}")
def test_a_line_is_taken_out_once(line: mutants.Lua) -> None:
    text = SCRIPTS[line.script].text
    with pytest.MonkeyPatch.context() as monkeypatch:
        line(monkeypatch, None)
        assert SCRIPTS[line.script].text != text
    assert SCRIPTS[line.script].text == text
