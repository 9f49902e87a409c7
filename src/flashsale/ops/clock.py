"""Moments: the clock of Redis is their source, and they are shown and read in the operator's zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Final

FORMS: Final = "now, 21:00, +10m, 2026-11-11T21:00, or epoch seconds"
PAST: Final = "10m (ago), 21:00, 2026-11-11T21:00, or epoch seconds"

_AFTER = re.compile(r"\+(\d+)\s*([smhd])")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_BEFORE = re.compile(r"(\d+)\s*([smhd])")
_EPOCH = re.compile(r"\d{9,11}(?:\.\d+)?")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def local(moment: float) -> datetime:
    """Returns epoch seconds as a time of the operator's zone."""
    return datetime.fromtimestamp(moment, tz=UTC).astimezone()


def shown(moment: float, now: float) -> str:
    """Returns a moment as the operator's clock shows it, with the date on another day."""
    there = local(moment)
    return there.strftime("%H:%M:%S" if there.date() == local(now).date() else "%Y-%m-%d %H:%M:%S %Z")


def gap(moment: float, now: float) -> str:
    """Returns how far a moment is away.

    >>> gap(1000.0, 940.0), gap(940.0, 1000.0)
    ('in 1 min', '1 min ago')
    """
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def near(moment: float, now: float) -> str:
    """Returns a moment and how far it is away."""
    return f"{shown(moment, now)} ({gap(moment, now)})"


def away(moment: float, now: float) -> str:
    """Returns a moment and how far it is away by the clock of Redis.

    >>> away(1000.0, 940.0).partition("(")[2]
    "in 1 min by Redis's clock)"
    """
    return f"{shown(moment, now)} ({gap(moment, now)} by Redis's clock)"


def span(seconds: float) -> str:
    """Returns a length of time, in its two largest units.

    >>> span(11_520), span(61.4), span(0.2)
    ('3 h 12 min', '1 min 1 s', '0 s')
    """
    left, parts = round(seconds), []
    for length, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, length)
        parts += [f"{count} {name}"] if count else []
    return " ".join(parts[:2]) or "0 s"


def read(text: str, now: float) -> float:
    """Returns the moment that an operator has named, epoch seconds.

    A time without a day is the next one of that time; one without a zone is of the operator's.

    Args:
        text: one of `FORMS`.
        now: the time of Redis.

    Raises:
        ValueError: it is none of them.
    """
    if text == "now":
        return now
    if found := _AFTER.fullmatch(text):
        return now + int(found[1]) * _SECONDS[found[2]]
    if _EPOCH.fullmatch(text):
        return float(text)
    if found := _CLOCK.fullmatch(text):
        return _next(time(int(found[1]), int(found[2]), int(found[3] or 0)), now)
    return datetime.fromisoformat(text).astimezone().timestamp()


def read_past(text: str, now: float) -> float:
    """Returns a moment that has been, epoch seconds; a time without a day is the last one of that time.

    Args:
        text: one of `PAST`.
        now: the time.

    Raises:
        ValueError: it is none of them.
    """
    if found := _BEFORE.fullmatch(text):
        return now - int(found[1]) * _SECONDS[found[2]]
    moment = read(text, now)
    if _CLOCK.fullmatch(text) and moment > now:
        return datetime.combine(local(moment).date() - timedelta(days=1), local(moment).time()).astimezone().timestamp()
    return moment


def _next(clock: time, now: float) -> float:
    today = local(now).date()
    first = datetime.combine(today, clock).astimezone().timestamp()
    return first if first > now else datetime.combine(today + timedelta(days=1), clock).astimezone().timestamp()
