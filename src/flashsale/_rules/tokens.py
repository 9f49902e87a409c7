"""Tokens of claimed elements: `delivery-lease`, and `-first+count`, the claim, where they share a lease. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flashsale._rules.codes import number


class Held(NamedTuple):
    """What a script is told of claims.

    Attributes:
        whole: names of claims of which all elements are there.
        parts: names of claims of which some are there.
        elements: the tokens of such parts, and of elements that have a lease of their own.
    """

    whole: list[str]
    parts: list[str]
    elements: list[str]


def held(tokens: Iterable[str]) -> Held:
    """Sorts tokens by claim; each counts once."""
    elements = list(dict.fromkeys(tokens))
    claim = elements[0].rpartition("-")[2] if elements else ""
    count = len(elements)
    if claim.endswith(f"+{count}") and "\n".join([*elements, ""]).count(f"-{claim}\n") == count:
        return Held([claim], [], [])  # nearly always: one claim, as it came
    counts = Counter([token.rpartition("-")[2] for token in elements])
    claims = {name: name.endswith(f"+{there}") for name, there in counts.items() if "+" in name}
    whole = [name for name, is_whole in claims.items() if is_whole]
    if whole:
        elements = [token for token in elements if not claims.get(token.rpartition("-")[2])]
    return Held(whole, [name for name, is_whole in claims.items() if not is_whole], elements)


def names(tokens: Iterable[str]) -> list[str]:
    """Returns the names of claims that the tokens are of, each once."""
    return list(dict.fromkeys(token.split("-")[2] for token in tokens if "+" in token))


def delivery_and_lease(token: str) -> list[str]:
    """Returns both numbers of a token."""
    return token.split("-")[:2]


class Element(NamedTuple):
    """What is claimed under one delivery, or was: attempts, body and token as in `Claim`."""

    delivery: str
    attempts: int
    body: bytes
    token: str


def elements_of(name: bytes, entry: bytes) -> Iterator[Element]:
    """Yields what a field of the hash `claimed` holds: one element, or those that share a lease."""
    first, _, count = name.partition(b"+")
    before, bodies = number(first), entry.split(b"\n")
    if before and number(count) == len(bodies):
        claim = name.decode()
        for each, body in enumerate(bodies, start=before):
            yield Element(str(each), 1, body, f"{each}-{each}-{claim}")
    else:
        attempts, lease, body = parts(entry)
        delivery = name.decode("ascii", "backslashreplace")
        yield Element(delivery, attempts, body, f"{delivery}-{lease}")


def parts(entry: bytes) -> tuple[int, int, bytes]:
    """Returns attempts, lease and body of an element or a dead letter; of what somebody else wrote, all is body."""
    attempts, _, rest = entry.partition(b"|")
    lease, bar, body = rest.partition(b"|")
    made, leased = number(attempts), number(lease)
    return (0, 0, entry) if made is None or leased is None or not bar else (made, leased, body)
