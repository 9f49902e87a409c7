"""Every Lua script does what its header says it does with KEYS, ARGV and codes, and uses only what every server has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flashsale import lua

FOLDER = Path(lua.__file__).parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.lua"))
FRAGMENTS = sorted(path.stem for path in (FOLDER / "include").glob("*.lua"))

MAX_LINES = 150
KEY_TYPES = {"string", "hash", "list", "set", "sorted set", "groups", "hashes"}
# Not on Redis 6.2, not on fakeredis, or with a meaning that must not hang on a TTL.
FORBIDDEN_COMMANDS = re.compile(r"B?[LZ]MPOP|FUNCTION|FCALL|H?P?EXPIRE\w*|P?SETEX|GETEX|PERSIST|KEYS|SCAN")
FORBIDDEN_LIBRARIES = {"cjson", "cmsgpack", "bit", "struct", "loadstring", "setfenv", "getfenv", "_G"}

_ARGUMENT = re.compile(r"^-- (KEYS|ARGV)\[(\d+)(\.\.)?\]\s+(\S.*)$")
_CODE = re.compile(r"^--\s+(-?\d+)  \S")
_NO_CODE = re.compile(r"""--\[\[.*?\]\]|--[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)


def own(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text("ascii")


def header(text: str) -> list[str]:
    """The comment lines before the first other line."""
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return lines[:end]


def code(text: str) -> str:
    """The script without comments, each string emptied."""
    return _NO_CODE.sub(lambda match: "" if match[0].startswith("--") else '""', text)


def strings(text: str) -> list[str]:
    return [match[0][1:-1] for match in _NO_CODE.finditer(text) if not match[0].startswith("--")]


def documented(name: str, table: str) -> tuple[set[int], int | None]:
    """The single indexes of KEYS or ARGV in the header, and where the repeated group starts."""
    found = [match for line in header(own(name)) if (match := _ARGUMENT.match(line)) and match[1] == table]
    groups = [int(match[2]) for match in found if match[3]]
    assert len(groups) <= 1, f"two repeated groups of {table}"
    return {int(match[2]) for match in found if not match[3]}, groups[0] if groups else None


def literal_indexes(name: str, table: str) -> set[int]:
    """The indexes that the code names, and those of fragments that take four: `read_gate(time, 1)`, `partition(2)`."""
    text = code(lua.source(name))
    indexes = {int(index) for index in re.findall(rf"\b{table}\[(\d+)\]", text)}
    if table == "KEYS":
        for first in re.findall(r"\b(?:read_gate\([\w()]+, |partition\()(\d+)\)", text):
            indexes |= set(range(int(first), int(first) + 4))
    return indexes


def has_dynamic_use(name: str, table: str) -> bool:
    use = rf"#{table}\b|\b(?:ipairs|unpack)\({table}\b|\b{table}\[[^\]\d]"
    return re.search(use, code(lua.source(name))) is not None


def assigned_globals(text: str) -> set[str]:
    """The names that the code assigns to without having declared them local anywhere."""
    plain = code(text)
    while re.search(r"\{[^{}]*\}", plain):  # inside braces `name =` is a field
        plain = re.sub(r"\{[^{}]*\}", "", plain)
    names = r"[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*"
    local = set()
    for declaration in (rf"\blocal (?!function\b)({names})", rf"\bfor ({names})", rf"\bfunction\b[^(\n]*\(({names})\)"):
        local |= {name for found in re.findall(declaration, plain) for name in re.findall(r"\w+", found)}
    local |= set(re.findall(r"\blocal function (\w+)", plain))
    targets = re.findall(rf"(?<![\w.\]])({names})\s*=(?!=)", re.sub(r"[~<>]=", "", plain))
    assigned = {name for target in targets for name in re.findall(r"\w+", target)} - {"local", "for"}
    assigned |= set(re.findall(r"(?<!local )\bfunction\s+(\w+)", plain))
    return assigned - local


def test_there_are_scripts() -> None:
    assert SCRIPTS
    assert set(lua.SCRIPTS) == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_first_line_says_what_the_script_does(name: str) -> None:
    assert re.match(rf"-- {name}: \S.*[^\s]$", own(name).splitlines()[0])
    assert len(own(name).splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_header_documents_every_argument_in_order(name: str) -> None:
    found = [match for line in header(own(name)) if (match := _ARGUMENT.match(line))]
    mentioned = [line for line in header(own(name)) if re.match(r"^--\s*(KEYS|ARGV)", line)]
    assert len(found) == len(mentioned), "a line of the header is not `-- KEYS[n]  name  type  meaning`"
    for table in ("KEYS", "ARGV"):
        lines = [match for match in found if match[1] == table]
        assert [int(match[2]) for match in lines] == list(range(1, len(lines) + 1))
        assert not any(match[3] for match in lines[:-1]), "only the last one repeats"
    assert found == sorted(found, key=lambda match: match[1] == "ARGV"), "KEYS come first"


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_has_a_type(name: str) -> None:
    for line in header(own(name)):
        if (match := _ARGUMENT.match(line)) and match[1] == "KEYS":
            columns = re.split(r"\s{2,}", match[4])
            assert len(columns) == 3 or (match[3] and len(columns) == 2), line
            assert columns[-2] in KEY_TYPES, line


@pytest.mark.parametrize("table", ["KEYS", "ARGV"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_header_and_the_code_name_the_same_arguments(name: str, table: str) -> None:
    single, group = documented(name, table)
    used = literal_indexes(name, table)
    undocumented = {index for index in used - single if group is None or index < group}
    assert not undocumented, "used and not documented"
    assert not single - used, "documented and not used"
    assert group is None or has_dynamic_use(name, table), "the repeated group is not used"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_header_says_what_comes_back(name: str) -> None:
    lines = header(own(name))
    starts = [i for i, line in enumerate(lines) if line.startswith("-- Returns ")]
    assert len(starts) == 1
    codes = [int(match[1]) for line in lines[starts[0] + 1 :] if (match := _CODE.match(line))]
    assert len(codes) == len(set(codes)), "a code twice"
    assert set(codes) <= set(lua.Code), "a code that the enum does not know"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_code_that_the_script_returns_is_documented(name: str) -> None:
    codes = {int(match[1]) for line in header(own(name)) if (match := _CODE.match(line))}
    # a minus after `==` compares, after a name or a bracket it subtracts, after a command and its key it is an argument
    other = r'(?<![=~]= )(?<![\w)\]] )(?<!call\("", KEYS\[\d\], )(?<!\w)'
    negative = {int(number) for number in re.findall(rf"{other}-\d+\b", code(own(name)))}
    assert negative <= codes


def test_every_code_of_the_enum_is_returned_by_a_script() -> None:
    codes = {int(match[1]) for name in SCRIPTS for line in header(own(name)) if (match := _CODE.match(line))}
    assert set(lua.Code) == codes


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_uses_only_what_every_server_has(name: str) -> None:
    text = lua.source(name)
    assert not text.startswith("#!")
    assert not set(re.findall(r"\w+", code(text))) & FORBIDDEN_LIBRARIES
    commands = re.findall(r"""\bredis\.p?call\(\s*["']([^"']*)["']""", text)
    assert commands == [command.upper() for command in commands]
    assert not [command for command in commands if FORBIDDEN_COMMANDS.fullmatch(command)]
    assert not [string for string in strings(text) if "flashsale" in string], "keys go through KEYS"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_has_no_globals(name: str) -> None:
    assert not assigned_globals(lua.source(name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_lua_5_1(name: str) -> None:
    lua51 = pytest.importorskip("lupa.lua51")
    lua51.LuaRuntime().compile(lua.source(name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_registry_puts_every_include_in_place(name: str) -> None:
    included = re.findall(r"^-- include: (\w+)$", own(name), re.MULTILINE)
    assert set(included) <= set(FRAGMENTS)
    assert len(included) == len(set(included)), "included twice"
    text = lua.source(name)
    assert "-- include:" not in text
    for fragment in included:
        assert (FOLDER / "include" / f"{fragment}.lua").read_text("ascii") in text


def test_every_fragment_is_included_somewhere() -> None:
    included = {name for script in SCRIPTS for name in re.findall(r"^-- include: (\w+)$", own(script), re.MULTILINE)}
    assert included == set(FRAGMENTS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("total = 1", {"total"}),
        ("local total\ntotal = 1", set()),
        ("local a, b = 1, 2\na, b = b, a", set()),
        ("local a\na, b = 1, 2", {"b"}),
        ("for i, x in ipairs(KEYS) do x = i end", set()),
        ("local t = { x = 1, y = { z = 2 } }\nt.x = 2\nt[1] = 3", set()),
        ("function help() end", {"help"}),
        ("local function help(x) x = 1 end", set()),
        ("local a = 1 -- b = 2\nif a == 1 or a ~= 2 or a <= 3 then a = 'c = 4' end", set()),
        ("local function f() if x then y = 1 end end", {"y"}),
    ],
)
def test_globals_are_found(text: str, names: set[str]) -> None:
    assert assigned_globals(text) == names
