"""What the documentation shows is true: its Python runs, its redis-cli lines answer, its links lead somewhere.

A page is one program: its blocks share their names, top to bottom, on an empty Redis and in an empty folder. Set-up
that would only be in the reader's way stands in `<!-- invisible-code: python` comments.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import fakeredis
import pytest
import redis
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import flashsale

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVER = re.compile(r"redis://[a-z-]+:6379")  # every Redis that a page names is the one of this run
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
EXAMPLES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples_in(source: str, names: dict[str, Any], where: str, line: int) -> None:
    """Runs a block of `>>>` lines and compares what they print."""
    test = doctest.DocTestParser().get_doctest(source, {}, where, where, line)
    test.globs = names
    said: list[str] = []
    failed = doctest.DocTestRunner(optionflags=EXAMPLES, verbose=False).run(test, out=said.append, clear_globs=False)
    assert not failed.failed, "".join(said)


class Runner:
    """Runs the Python of one page; lines with `await` run in one event loop, as redis-py's clients want it."""

    def __init__(self, redis_url: str, loop: asyncio.Runner) -> None:
        self._server = redis_url.removesuffix("/0")
        self._loop = loop

    def __call__(self, example: Example) -> None:
        source = SERVER.sub(self._server, str(example.parsed))
        line = example.line + example.parsed.line_offset
        if source.lstrip().startswith(">>>"):
            examples_in(source, example.namespace, example.path, line)
            return
        code = compile("\n" * line + source, example.path, "exec", FLAGS, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            self._loop.run(self._await(code, example.namespace))
        else:
            exec(code, example.namespace)

    async def _await(self, code: CodeType, names: dict[str, Any]) -> None:
        await eval(code, names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_python_of_a_page_runs(page: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as loop:
        parser = CodeBlockParser("python", Runner(redis_url, loop))
        document = Sybil([parser]).parse(page)
        document.namespace |= {
            "__name__": "shop",
            "monkeypatch": monkeypatch,  # for invisible set-up: what runs for ever must end here
        }
        for example in document.examples():
            example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_redis_cli_lines_of_a_page_are_answered(page: Path, redis_url: str) -> None:
    """No WRONGTYPE, no unknown command, and each key has the type that its line expects."""
    with redis.Redis.from_url(redis_url) as client:
        sale = flashsale.FlashSale(client, "nov11")
        sale.preload("phone", 10)
        sale.start("phone")
        sale.buy("phone", "alice", order_id="o-1")
        for line in shell_lines(page, "redis-cli"):
            client.execute_command(*shlex.split(line, comments=True)[1:])
        sale.close()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_command_lines_of_a_page_exist(page: Path) -> None:
    for line in shell_lines(page, "flashsale"):
        words = shlex.split(line, comments=True)[1:]
        verb = [word for word in words[:1] if not word.startswith("-")]
        shown = command_help(*verb)
        for flag in (word for word in words if word.startswith("--")):
            assert flag in shown, f"{name_of(page)}: {line}"


def command_help(*verb: str) -> str:
    command = [sys.executable, "-m", "flashsale", *verb, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def shell_lines(page: Path, program: str) -> list[str]:
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(program + " ")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(flashsale.__path__, "flashsale."):
        if not found.name.startswith("flashsale.testing"):  # needs pytest before it is imported
            yield found.name


def docstrings_of(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


@pytest.mark.parametrize("name", ["flashsale", *modules()])
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    """They find `client`, an empty Redis."""
    module = importlib.import_module(name)
    for test in docstrings_of(module):
        said: list[str] = []
        with fakeredis.FakeRedis() as client:
            test.globs["client"] = client
            done = doctest.DocTestRunner(optionflags=EXAMPLES, verbose=False).run(test, out=said.append)
        assert not done.failed, "".join(said)
