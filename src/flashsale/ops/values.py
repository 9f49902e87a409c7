"""Numbers on a command line, checked as they are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable


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
