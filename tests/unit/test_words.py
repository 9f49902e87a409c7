"""One thing has one word: the words that were retired stay out of what people read (docs/glossary.md).

To retire a word, add it to `RETIRED` with an example that must be found, and to `NAMES` if no name in the code may have
it. What keeps an old word because programs or operators depend on it, such as the Redis key `bell`, is in `ALLOWED`.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())

SCOPES = {
    "pages": ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "docs/*.md"],
    "code": ["src/**/*.py", "src/**/*.lua", "tests/**/*.py", "bench/**/*.py", "tools/*.py", "examples/**/*.py"],
}
CHECKED = ["pages", "code"]


class Word(NamedTuple):
    """A retired word.

    Attributes:
        pattern: finds it, in any case.
        instead: what to write.
        example: an old sentence in which it must be found.
    """

    pattern: str
    instead: str
    example: str


RETIRED = [
    Word(r"\bgoods\b", "item", "the goods are sold out"),
    Word(r"\bwish(es)?\b", "request (of a buyer), total (of the host)", "the host's wish"),
    Word(r"\b(bells?|rung)\b", "wake-up key", "the bell wakes a worker"),
    Word(r"\bstanding\b", "current state", "returns the standing of the order"),
    Word(r"\bforeign\b", "external", "a foreign program"),
    Word(r"\bdirect (units?|ones|deductions?)\b|\*direct\*|\bis direct\b", "untracked units", "direct units"),
    Word(r"\bburn(s|ed|ing)?\b", "count an attempt", "no attempt is burned"),
    Word(r"\bpayment holds?\b", "payment deadline", "payment holds"),
    Word(r"\bhold(s|ing)? ((its|their|the|two) )?(units?|slots?|whole sale)\b", "book, own", "holds its units"),
    Word(r"\b(units?|slots?) (is|are )?held\b|\bheld (units?|slots?|links?)\b", "booked, blocked", "units held"),
    Word(r"\bsettle[sd]? (the )?orders?\b", "save (a worker), decide (the database)", "the worker settled orders"),
    Word(r"\bsale's policy\b", "policy (of an item)", "the sale's policy"),
    Word(r"\border's life\b|\blife of (an|the) order\b", "lifecycle", "in the order of the order's life"),
    Word(r"\b(the|its|all) books\b", "consistency", "the books agree"),
    Word(r"\brush(es)?\b", "load, peak, phase", "after each rush"),
    Word(r"\bfaces?\b", "API", "the asyncio face"),
    Word(r"\bturmoil\b", "chaos", "in a turmoil"),
    Word(r"\btroupe\b", "processes", "the troupe of the play"),
    Word(r"\bscenes?\b", "snapshot", "the same scene again"),
    Word(r"\bcues?\b", "signal", "on its cue"),
    Word(r"\bgets the first answer\b|\bis the first answer\b", "returns the original result", "gets the first answer"),
    Word(r"\bwho brings\b", "plain words, the subject first", "Who brings the same one again"),
    Word(r"\blet go of\b|\blets go of\b", "requeue", "lets go of orders that fail"),
]  # fmt: skip

NAMES = {  # words that no name in the code may have, and what to write
    **dict.fromkeys(["aside"], "background task"),
    **dict.fromkeys(["burn", "burns", "burned"], "count an attempt"),
    **dict.fromkeys(["cue", "cues"], "signal"),
    **dict.fromkeys(["face", "faces"], "API"),
    **dict.fromkeys(["foreign"], "external"),
    **dict.fromkeys(["rung"], "woken"),
    **dict.fromkeys(["rush"], "phase, load"),
    **dict.fromkeys(["scene", "scenes"], "snapshot"),
    **dict.fromkeys(["settler"], "transitions"),
    **dict.fromkeys(["steady"], "stable"),
    **dict.fromkeys(["troupe"], "processes"),
    **dict.fromkeys(["turmoil"], "chaos"),
    **dict.fromkeys(["wish", "wishes"], "request, total"),
}

ALLOWED = [  # names, keys and log lines that programs and operators depend on
    r"\w*goods_\w+|\w+_goods\w*|\bgoodsId\w*",  # goods_id, put_goods, flashsale_goods; and the article's keys
    r"\bGoods\b|\w+Goods\b|\bGoods\w+|\bGOODS\b",  # Goods, UnknownGoods, GoodsView; GOODS in names of keys
    r"\bgoods\.\w+|\.goods\b|\bgoods\(\)|`goods`",  # goods.py, store.goods(), the key `goods`
    r"`unknown-goods`|state\\?\|quantity\\?\|gated\\?\|goods",  # the type of a problem body; a record of the ledger
    r"\d+ goods in the database",
    r"\bforeign keys?\b",  # of a database
    r"goods lost from Redis, closed until rebuild",
    r"`goods \w+ cannot be synced\b",
    r"`[^`\n]*\bgoods (list|set)\b[^`\n]*`",  # commands
    r"`bell`|:bell\b|:goods`|-- include: goods",
    r"\w+\([^()]*\bgoods\b[^()]*\)|(?m:^-- (KEYS|ARGV)\[\d+\.*\]\s+goods\b)",  # names in Lua
    r"(?m:^\s+goods: .*$)|UPDATE goods SET|\bput_goods|write_goods|, goods\)|\(goods\)",  # parameters, fields, SQL
]

BLOCK = re.compile(r"^```\w*\n.*?^```$|^<!-- invisible-code.*?^-->$", re.MULTILINE | re.DOTALL)
REFERENCE = re.compile(r"^```{eval-rst}\n.*?^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?<!\S)(?:#|--) .*")
NOT_WRITTEN_HERE = [
    re.compile(r"<!-- rooms: .*?^```$", re.MULTILINE | re.DOTALL),  # docstrings, which "code" checks
    re.compile(r"^ *\| `flashsale\.[\w.]+` \|.*$", re.MULTILINE),  # import paths that were renamed
]


def found(text: str) -> list[str]:
    """Returns what is retired in a text, with its line and what to write instead."""
    text = re.sub("|".join(ALLOWED), _empty_lines, text)
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}, write: {word.instead}"
        for word in RETIRED
        for match in re.finditer(word.pattern, text, re.IGNORECASE)
    ]


def found_in_names(python: str) -> list[str]:
    """Returns the names in which a retired word is, with their line and what to write instead."""
    return [
        f"line {token.start[0]}: {token.string}, write: {NAMES[word]}"
        for token in _tokens(python)
        if token.type == tokenize.NAME and not token.string.startswith("ForeignKey")  # SQLAlchemy's and Django's
        for word in map(str.lower, re.findall(r"[A-Z]?[a-z]+|[A-Z]+", token.string))
        if word in NAMES
    ]


def prose(path: Path) -> str:
    """Returns what somebody wrote in a file to be read, each word on its line."""
    text = path.read_text("utf-8")
    return {".md": prose_of_page, ".py": prose_of_python}.get(path.suffix, comments)(text)


def prose_of_page(page: str) -> str:
    for part in (*NOT_WRITTEN_HERE, REFERENCE):
        page = part.sub(_empty_lines, page)
    return BLOCK.sub(lambda block: comments(block[0]), page)


def prose_of_python(text: str) -> str:
    lines = [""] * (text.count("\n") + 1)
    for token in _tokens(text):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] += token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number, line in enumerate(node.value.value.split("\n"), node.lineno - 1):
                lines[number] += line
    return "\n".join(lines)


def comments(text: str) -> str:
    return "\n".join(" ".join(COMMENT.findall(line)) for line in text.split("\n"))


@functools.lru_cache(1)  # prose and names are looked for in the same text
def _tokens(python: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(python).readline))


def _empty_lines(match: re.Match[str]) -> str:
    """Stands for a match, so that what follows keeps its line."""
    return "\n" * match[0].count("\n")


def files(scope: str) -> list[Path]:
    paths = {path for pattern in SCOPES[scope] for path in ROOT.glob(pattern)}
    return sorted(paths - {Path(__file__).resolve()})


@pytest.mark.parametrize(
    "path", [path for scope in CHECKED for path in files(scope)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_retired_word_is_used(path: Path) -> None:
    assert not found(prose(path))
    assert path.suffix != ".py" or not found_in_names(path.read_text("utf-8"))


@pytest.mark.parametrize("word", RETIRED, ids=lambda word: word.instead)
def test_a_retired_word_is_found(word: Word) -> None:
    assert found(f"`goods_id`\n{word.example}\n")[0].startswith("line 2: ")


def test_of_code_in_a_page_only_comments_are_read() -> None:
    page = "```python\nfor goods in store.goods():  # each of the goods\n    pass\n```\n"
    assert found(prose_of_page(page)) == ["line 2: 'goods', write: item"]


def test_of_python_names_comments_and_docstrings_are_read() -> None:
    python = 'def is_foreign(goods):\n    """A wish."""\n    return goods  # burned\n'
    assert [line.split(", ")[0] for line in found_in_names(python)] == ["line 1: is_foreign"]
    assert [line.split(", ")[0] for line in found(prose_of_python(python))] == ["line 2: 'wish'", "line 3: 'burned'"]


def test_every_scope_has_files() -> None:
    assert all(files(scope) for scope in SCOPES)
