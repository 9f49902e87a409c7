"""Small things that many tests need."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

_READERS: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda raw, key: raw.get(key),
    b"hash": lambda raw, key: dict(sorted(raw.hgetall(key).items())),
    b"list": lambda raw, key: raw.lrange(key, 0, -1),
    b"set": lambda raw, key: sorted(raw.smembers(key)),
    b"zset": lambda raw, key: raw.zrange(key, 0, -1, withscores=True),
}


def snapshot(raw: redis.Redis[bytes]) -> dict[bytes, tuple[bytes, Any]]:
    """Returns every key with its type and whole value: two equal ones mean that nothing was changed.

    Args:
        raw: a client with bytes replies (fixture `raw`).
    """
    found = {}
    for key in sorted(raw.keys("*")):
        kind = raw.type(key)
        found[key] = (kind, _READERS[kind](raw, key))
    return found


def eventually(check: Callable[[], Any], what: str, *, within: float = 20.0) -> Any:
    """Returns the first true answer of `check`, asked again and again; fails after `within` seconds.

    The deadline is for what would hang for ever, not a promise of speed.
    """
    deadline = time.monotonic() + within
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        time.sleep(0.01)
    return answer
