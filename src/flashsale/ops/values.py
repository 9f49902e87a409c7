"""Numbers on a command line, checked as they are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from flashsale.model.checks import MAX_UNITS


def between(low: int, high: int) -> Callable[[str], int]:
    """Returns what reads a whole number in low..high."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number in {low}..{high}, not {text!r}")
        return value

    return number


def seconds(text: str) -> float:
    """Reads seconds of a setting: a millisecond to a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be seconds in 0.001..86400, not {text!r}")
    return value


def units(text: str) -> int:
    """Reads units of an item: 0 or more; 20,000 is one number."""
    return _units(text, 0)


def signed(text: str) -> int:
    """Reads units to add, or to take away."""
    value = _units(text, -MAX_UNITS)
    if not value:
        raise argparse.ArgumentTypeError("must not be 0")
    return value


def _units(text: str, low: int) -> int:
    try:
        value = int(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
    if not low <= value <= MAX_UNITS:
        raise argparse.ArgumentTypeError(f"must be in {low}..{MAX_UNITS}, not {text!r}")
    return value


def or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns what reads a value of a kind, or "none"."""
    return lambda text: None if text == "none" else kind(text)
