"""The Lua scripts: one operation a file, read once at import.

A line `-- include: name` is replaced by `include/name.lua`, so that what several scripts share is written once.
"""

from __future__ import annotations

import hashlib
import re
from enum import IntEnum, StrEnum
from functools import cache
from importlib import resources
from typing import Final, NamedTuple


class Code(IntEnum):
    """The codes that scripts return; the headers name them."""

    REPLAYED = 2
    DONE = 1
    REFUSED = 0
    UNKNOWN = -1
    CORRUPT = -2
    NOT_STARTED = -3
    ENDED = -4
    PAUSED = -5
    LIMIT_REACHED = -6
    CONFLICT = -7
    STALE = -8
    DIFFERENT = -9
    NOT_TOGETHER = -10


class Slot(StrEnum):
    """What the gate has to do with orders that are reserved; the script takes the words."""

    NONE = "none"
    """They pass it by, and hold no slot."""
    HELD = "held"
    """Each holds a slot already: taken at a gate on another Redis, or with a ticket."""
    TAKE = "take"
    """The gate is on the same Redis: the script asks it too, and takes a slot for each order that it accepts."""


class Script(NamedTuple):
    """A script as Redis gets it."""

    name: str
    text: str
    sha: str


_FOLDER: Final = resources.files(__name__)
_INCLUDE = re.compile(r"^-- include: (\w+)\n", re.MULTILINE)


def source(name: str) -> str:
    """Returns the text of `<name>.lua` with its includes in place."""
    text = (_FOLDER / f"{name}.lua").read_text("ascii")
    return _INCLUDE.sub(lambda match: _included(match[1]), text)


@cache
def _included(name: str) -> str:
    return (_FOLDER / "include" / f"{name}.lua").read_text("ascii")


def _load(name: str) -> Script:
    text = source(name)
    return Script(name, text, hashlib.sha1(text.encode("ascii"), usedforsecurity=False).hexdigest())


SCRIPTS: Final = {
    path.name.removesuffix(".lua"): _load(path.name.removesuffix(".lua"))
    for path in sorted(_FOLDER.iterdir(), key=lambda path: path.name)
    if path.name.endswith(".lua")
}

LAYOUT: Final = int(re.findall(r"OLDEST, NEWEST = \d+, (\d+)", SCRIPTS["layout"].text)[0])
"""In which this release begins a sale."""
