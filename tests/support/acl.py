"""The users that docs/operating.md tells operators to make: the tests run as them, so that the page cannot lie."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "operating.md"
LIBRARY = {"username": "flashsale", "password": "secret"}
SHOP = {"username": "shop", "password": "secret"}
PROCESSES = {"worker", "syncer", "outbox", "exporter"}
HOST = (  # what a host adds for the plain layout, and to name its connections
    "~orderList",
    *(f"~{goods}{name}" for goods in ("phone", "GOODS") for name in ("", "_count", "_start", "_access")),
    "+client|setname",
)


PARTITIONS = PAGE.with_name("partitions.md")


@functools.cache
def users(*, more: tuple[str, ...] = ()) -> list[list[str]]:
    """Returns the page's `ACL SETUSER` commands, for every sale instead of nov11.

    Args:
        more: rules to append.
    """
    lines = re.findall(r"^redis-cli (ACL SETUSER .*?[^\\])$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    words = [shlex.split(line.replace("\\\n", "").replace("{nov11}", "{*}")) for line in lines]
    return [[*each, *more] for each in words]


def of_partitions() -> list[list[str]]:
    """Returns the commands that make the two users in a sale over four partitions, as both pages have them."""
    lines = [
        line
        for page in (PAGE, PARTITIONS)
        for line in re.findall(r"^redis-cli (ACL SETUSER .*?[^\\])$", page.read_text(), re.MULTILINE | re.DOTALL)
    ]
    return [shlex.split(line.replace("\\\n", "")) for line in lines]


def keys(username: str) -> list[str]:
    """Returns the key patterns of a user of the page."""
    (line,) = (words for words in users() if words[2] == username)
    return [word for word in line if word.startswith("~")]


def of_the_operator() -> list[str]:
    """Returns the page's `flashsale` commands that end by themselves, those of its tables first."""
    text = PAGE.read_text()
    looks = re.findall(r"^\|[^|]*\| `(flashsale [^`]*)` \|", text, re.MULTILINE)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("flashsale ")]
    return [line for line in (*dict.fromkeys(looks), *lines) if line.split()[1] not in PROCESSES]


def of_a_cluster() -> tuple[str, ...]:
    """Returns the rules that the page adds for a Cluster."""
    (rules,) = re.findall(r"On a Cluster both need `([^`]+)`", PAGE.read_text())
    return tuple(shlex.split(rules))


def allowed(username: str) -> set[str]:
    """Returns the commands that a user of the page may call."""
    (line,) = (words for words in users() if words[2] == username)
    return {word[1:].upper() for word in line if word.startswith("+")}
