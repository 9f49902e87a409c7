"""What the documentation shows is true: its Python runs, its commands exist, its tables are complete.

A page is one program: its blocks share their names, from top to bottom, on an empty Redis and in an empty folder.
Set-up that would only be in the reader's way stands in `<!-- invisible-code: python` comments.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
from importlib.metadata import metadata
from pathlib import Path

import fakeredis
import pytest
import redis
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import flashsale
from flashsale.cli import main
from flashsale.lua import SCRIPTS
from flashsale.ops.command import GROUPS
from tests.browser.test_tutorials import TUTORIALS

ROOT = Path(__file__).parent.parent.parent
DESIGN = ROOT / "docs" / "design.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVER = re.compile(r"redis://[a-z-]+:6379")  # every Redis that a page names is the one of this run
LAYOUT = flashsale.Keys("nov11")
KEYS = {
    *(name(goods) for name in (LAYOUT.stock, LAYOUT.buyers) for goods in ("phone", "GOODS")),
    *(key for goods in ("phone", "GOODS") for key in LAYOUT.gate(goods)),
    *(value for name in dir(LAYOUT) if str(value := getattr(LAYOUT, name)).startswith("flashsale:")),
}

ELSEWHERE = {"migrations.md", "runbook.md", *TUTORIALS}  # tests of the same names
PROGRAMS = [page for page in PAGES if page.name not in ELSEWHERE]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_program = pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: str(page.relative_to(ROOT)))


def run_doctest(test: doctest.DocTest) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    assert not runner.run(test, out=said.append, clear_globs=False).failed, "".join(said)


# -- Python ---------------------------------------------------------------------------------------------------------


class Runner:
    """Runs the blocks of one page; those with `await` in one event loop, as redis-py's clients want it."""

    def __init__(self, redis_url: str, loop: asyncio.Runner) -> None:
        self._server = redis_url.removesuffix("/0")
        self._loop = loop

    def __call__(self, example: Example) -> None:
        source = SERVER.sub(self._server, str(example.parsed))
        line = example.line + example.parsed.line_offset
        if source.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(source, {}, example.path, example.path, line)
            test.globs = example.namespace
            run_doctest(test)
            return
        code = compile("\n" * line + source, example.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            self._loop.run(eval(code, example.namespace))
        else:
            exec(code, example.namespace)


@each_program
def test_the_python_of_a_page_runs(page: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as loop, contextlib.ExitStack() as stack:
        document = Sybil([CodeBlockParser("python", Runner(redis_url, loop))]).parse(page)
        document.namespace["__name__"] = "shop"
        document.namespace["monkeypatch"] = monkeypatch  # for invisible set-up: what runs for ever must end here
        document.namespace["stack"] = stack  # likewise, for servers of the page's own
        for example in document.examples():
            example.evaluate()


MODULES = [
    "flashsale",
    *(
        found.name
        for found in pkgutil.walk_packages(flashsale.__path__, "flashsale.")
        if not re.search(r"testing|django|__main__", found.name)  # these want to be set up first
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    """They find `client`, an empty Redis."""
    for test in doctest.DocTestFinder().find(importlib.import_module(name)):
        with fakeredis.FakeRedis() as client:
            test.globs["client"] = client
            run_doctest(test)


# -- commands -------------------------------------------------------------------------------------------------------


def shell_lines(page: Path, program: str) -> list[list[str]]:
    """Returns the words of each line of a `sh` block that runs `program`."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [words[1:] for words in lines if words[:1] == [program]]


@each_program
def test_the_redis_cli_lines_of_a_page_are_answered(page: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, flashsale.FlashSale(client, "nov11") as sale:
        sale.preload("phone", 10, per_buyer=1)
        sale.start("phone")
        assert sale.buy("phone", "alice", order_id="o-1").accepted
        for words in shell_lines(page, "redis-cli"):
            for key in (word for word in words if word.startswith("flashsale:") and not word.endswith("*")):
                assert key in KEYS
            if not words[0].startswith("--"):
                client.execute_command(*words)


def named_in_text(page: Path) -> list[list[str]]:
    """Returns the words of each `flashsale` command that stands between backticks in a page's text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(words) for words in re.findall(r"`flashsale\s+([a-z][^`]*)`", text)]


@each_page
def test_the_flashsale_lines_of_a_page_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, *words in shell_lines(page, "flashsale") + named_in_text(page):
        verbs = [] if verb.startswith("-") else [verb, *words[: verb in GROUPS]]
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*verbs, "--help"])
        shown = capsys.readouterr().out
        for flag in (word for word in (verb, *words) if word.startswith("--")):
            assert flag in shown


@each_page
def test_the_extras_that_a_page_installs_exist(page: Path) -> None:
    extras = set(metadata("flashsale").get_all("Provides-Extra") or ())
    for named in re.findall(r"pip install '[^']*\[([\w,]+)\]'", page.read_text()):
        assert set(named.split(",")) <= extras


# -- completeness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "examples" / "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        if not anchor:
            continue
        headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, target


def first_cells(page: Path) -> set[str]:
    """Returns what stands in backticks in the first cell of a table's row."""
    return {name for cell in re.findall(r"^\| (`.*?) \|", page.read_text(), re.MULTILINE) for name in cell.split("`")}


def test_the_design_names_every_script() -> None:
    assert set(SCRIPTS) <= first_cells(DESIGN)


def test_the_design_names_every_key() -> None:
    documented = {name.replace("{sale}", "{nov11}") for name in first_cells(DESIGN)}
    assert {key for key in KEYS if ":phone:" not in key} <= documented


def test_the_web_page_answers_every_outcome() -> None:
    page = (ROOT / "docs" / "web.md").read_text()
    answered = set(re.findall(r"\b[A-Z_]{5,}\b", page))
    silent = {"ADMITTED"}  # the gate's own answer
    assert {outcome.name for outcome in flashsale.Outcome} - silent <= answered


def test_the_operating_page_tells_what_to_do_about_every_error() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    errors = {
        name
        for name, value in vars(flashsale).items()
        if isinstance(value, type) and issubclass(value, flashsale.FlashSaleError)
    }
    calls = {"FlashSaleError", "InvalidRequest", "InvalidTicket", "StoreRequired"}  # the root, and mistakes
    for name in errors - calls:
        assert f"| `{name}` |" in page, name
