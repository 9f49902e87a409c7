"""What is claimed, by element: those of one claim share a field and a lease until they are split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import redis

    from flashsale import Keys


def read_claim(name: bytes, entry: bytes) -> Iterator[tuple[int, bytes, str]]:
    """Yields number, attempts|lease|body and the name of the claim, empty for an element with a lease of its own."""
    first, plus, _ = name.partition(b"+")
    for number, body in enumerate(entry.split(b"\n") if plus else [entry], start=int(first)):
        yield number, b"1|%d|%s" % (number, body) if plus else body, name.decode() if plus else ""


def claimed(raw: redis.Redis, keys: Keys) -> dict[int, bytes]:
    """Returns attempts|lease|body of each element that is claimed, by its number."""
    return by_element(raw.hgetall(keys.claimed))


def by_element(entries: Mapping[bytes | str, bytes | str]) -> dict[int, bytes]:
    """Returns attempts|lease|body of each element of the hash `claimed`, by its number."""
    read = (read_claim(_bytes(name), _bytes(entry)) for name, entry in entries.items())
    return {number: text for claim in read for number, text, _ in claim}


def leased(raw: redis.Redis, keys: Keys) -> int:
    """Returns how many elements have a lease."""
    names = [_bytes(name) for name in raw.zrange(keys.leases, 0, -1)]
    return sum(int(name.partition(b"+")[2] or 1) for name in names)


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
