"""`top`: the screen of `status`, again each second, with curves. Needs the extra `top`."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Final

from flashsale.model.snapshot import Sample
from flashsale.ops.frame import ATTENTION, Context, Outcome, Stop, Verb
from flashsale.ops.status import View, lines, see
from flashsale.ops.values import seconds
from flashsale.ops.words import number

WIDTH: Final = 60  # samples of a curve
_BARS: Final = "▁▂▃▄▅▆▇█"
_HELP: Final = "space freezes the screen, q quits"


def curve(values: Sequence[float]) -> str:
    """Returns the values as bars, the highest of them full.

    >>> curve([0, 4, 8])
    '▁▅█'
    """
    most = max(values, default=0.0) or 1.0
    return "".join(_BARS[min(7, int(value / most * 8))] for value in values)


def paces(samples: Sequence[Sample]) -> list[float]:
    """Returns the units sold a second between neighbours."""
    return [max(0, b.booked - a.booked) / max(0.001, b.time - a.time) for a, b in pairwise(samples)]


def screen(view: View) -> list[str]:
    """Returns the lines of the screen: the status, then the curves of the last minute."""
    curves = {f"{goods_id} sold/s": paces(samples[-WIDTH - 1 :]) for goods_id, samples in view.samples.items()}
    curves["on the list"] = [
        float(each.queued) for samples in list(view.samples.values())[:1] for each in samples[-WIDTH:]
    ]
    width = max(map(len, curves))
    shown = [f"{name:{width}}  {curve(values):{WIDTH}}  at most {_most(values)}" for name, values in curves.items()]
    return [*lines(view), "", *shown, "", _HELP]


def _most(values: Sequence[float]) -> str:
    return number(round(max(values, default=0)))


class Keyboard:
    """The keys of a terminal, one by one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pressed(self, within: float) -> str:
        """Returns the key that is pressed within so many seconds; empty: none is."""
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, within))
        return os.read(self._descriptor, 1).decode("ascii", "replace") if ready else ""


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Gives the keyboard, without waiting for Enter; the terminal is as before afterwards."""
    import termios  # noqa: PLC0415 - not on Windows
    import tty  # noqa: PLC0415 - likewise

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _top(context: Context) -> Outcome:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Stop("top needs a terminal; elsewhere: status --watch")
    try:
        from rich.live import Live  # noqa: PLC0415 - needs the extra
        from rich.text import Text  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise Stop("top needs: pip install 'flashsale[top]'") from error
    view = see(context)
    with keyboard() as keys, Live(screen=True, auto_refresh=False) as live:
        is_frozen = False
        while True:
            if not is_frozen:
                live.update(Text("\n".join(screen(view)), no_wrap=True), refresh=True)
            key = _key(keys, context.options.every)
            if key == "q":
                break
            is_frozen ^= key == " "
            if not is_frozen:
                view = see(context)
    return Outcome(lines(view), {}, ATTENTION if view.attention else 0)


def _key(keys: Keyboard, every: float) -> str:
    """Returns the key that is pressed before it is time for the next screen."""
    until = time.monotonic() + every
    while (left := until - time.monotonic()) > 0:
        if key := keys.pressed(left):
            return key
    return ""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=seconds, default=1.0, metavar="S", help="seconds between two screens (1)")


VERBS: Final = (
    Verb(
        "top",
        "watch the sale: the status again each second, with curves",
        _top,
        _add,
        f"Shows the status again each second, with the curves of the last minute; {_HELP}. Needs: pip install "
        "'flashsale[top]'.",
    ),
)
