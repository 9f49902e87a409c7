"""Turns redis-py's errors into ours: which ones mean that nothing happened, and which leave it unknown."""

from __future__ import annotations

import re
from typing import Final

from redis import exceptions

from flashsale.errors import CorruptState, FlashSaleError, NotExecuted, OutcomeUnknown, PartitionMismatch, UnknownLayout

# What redis-py raises; a host's own exception (a task's time limit) is not ours to translate. A name of a host that
# cannot be one is a UnicodeError, a connection that the other side has closed is on uvloop a RuntimeError; every other
# RuntimeError is raised as it is.
FAILURES: Final = (exceptions.RedisError, OSError, UnicodeError, RuntimeError)
_CLOSED: Final = "the handler is closed"  # uvloop's words

# What a server answers when it refused before the first write; Redis 6.2 wraps what a script's first write was told.
_REFUSED: Final = re.compile(
    r"^(?:Error running script .*: -)?"
    r"(ASK|BUSY|CLUSTERDOWN|CROSSSLOT|MASTERDOWN|MISCONF|MOVED|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNKILLABLE|"
    r"unknown command)\b"
)
# redis-py strips the words that it knows, and names a class instead.
_WORDS: Final = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "ClusterCrossSlotError": "CROSSSLOT",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
_LAYOUT: Final = re.compile(r"^LAYOUT (\d+) (\d+) (\d+)")  # what our scripts answer
_PARTITIONS: Final = "PARTITIONS "  # to a process without partitions
_SHAPE: Final = re.compile(r"(\d{1,4}) (\d{1,4}) (\d{1,4})", re.ASCII)
_CORRUPT: Final = re.compile(r"(?:^|[ -])WRONGTYPE\b")
# Refusals after which the connection points at the wrong server, or at a server that will not serve it.
_STALE: Final = frozenset({"CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOAUTH", "READONLY"})


def unsent(error: Exception) -> NotExecuted:
    """Returns our error for one that came before the send."""
    _pass_on(error)
    return NotExecuted(f"no connection to Redis: {type(error).__name__}", reason=_word(error))


def sent(error: Exception) -> FlashSaleError:
    """Returns our error for one that came after the send. A server's text is not quoted: it may hold arguments."""
    _pass_on(error)
    if word := _word(error):
        return NotExecuted(f"Redis refused: {word}", reason=word)
    if not isinstance(error, exceptions.ResponseError):
        return OutcomeUnknown(f"no reply from Redis: {type(error).__name__}")
    if other := _LAYOUT.match(str(error)):
        return UnknownLayout(*map(int, other.groups()))
    if str(error).startswith(_PARTITIONS):
        return mismatch(str(error).removeprefix(_PARTITIONS))
    if _CORRUPT.search(str(error)):
        return CorruptState("a key has the wrong type")
    return OutcomeUnknown(f"Redis answered with an error: {type(error).__name__}")


def mismatch(text: str) -> FlashSaleError:
    """Returns our error where `meta` says that the sale was begun with other partitions."""
    if found := _SHAPE.fullmatch(text.strip()):
        return PartitionMismatch(*map(int, found.groups()))
    return CorruptState("what the sale says of its partitions cannot be trusted")


def _pass_on(error: Exception) -> None:
    if isinstance(error, RuntimeError) and _CLOSED not in str(error):
        raise error


def is_stale(error: FlashSaleError) -> bool:
    """Returns whether the server's answer means that another server must be found."""
    return isinstance(error, NotExecuted) and error.reason in _STALE


def shown(error: Exception) -> Exception | None:
    """Returns the error that may be chained as the cause: None when it quotes the command, with a buyer's data."""
    return None if "with args beginning" in str(error) else error


def _word(error: Exception) -> str | None:
    """Returns the word with which a server refused before the first write; None when it did not, or may have begun."""
    known = _WORDS.get(type(error).__name__)
    if known == "NOPERM" and "in script" in str(error):
        return None  # one command of a script was forbidden; those before it were not undone
    if known is None and isinstance(error, exceptions.ResponseError) and (refused := _REFUSED.search(str(error))):
        return refused[1]
    return known
