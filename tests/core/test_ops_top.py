"""`top`: the screen with its curves, and its keys on a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from flashsale.model.snapshot import Sample
from flashsale.ops.top import curve, paces
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from tests.support.operator import Operator


def test_curves_are_bars_of_the_highest_value() -> None:
    assert curve([]) == ""
    assert curve([0, 0]) == "▁▁"
    assert curve([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    samples = [Sample(float(second), 9, booked, 0, 0, 0, 0, 0.0) for second, booked in enumerate([0, 3, 3, 1])]
    assert paces(samples) == [3.0, 0.0, 0.0]


def test_without_a_terminal_it_says_what_to_take(operator: Operator) -> None:
    operator.begin()
    told = operator("top")
    assert (told.code, "status --watch" in told.err) == (2, True)


class Terminal:
    """A terminal in which `top` runs."""

    def __init__(self, operator: Operator) -> None:
        self._ours, theirs = pty.openpty()
        words = [sys.executable, "-m", "flashsale", "top", "--every", "0.05", "--sale", "spring"]
        where = ["--redis", operator.redis_url, "--database", operator.database]
        self.process = subprocess.Popen(
            [*words, *where], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, close_fds=True
        )
        os.close(theirs)
        self.text = ""

    def reads(self, word: str) -> bool:
        """Returns whether this has come to the screen since it was last asked for."""
        ready, _, _ = select.select([self._ours], [], [], 0.1)
        with contextlib.suppress(OSError):  # the process has ended
            self.text += os.read(self._ours, 65_536).decode("utf-8", "replace") if ready else ""
        return word in self.text

    def types(self, key: str) -> None:
        self.text = ""
        os.write(self._ours, key.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_it_shows_the_sale_until_q_is_pressed(operator: Operator) -> None:
    operator.begin()
    terminal = Terminal(operator)
    try:
        eventually(lambda: terminal.reads("SELLING"), "the first screen", within=60)
        operator.sale.pause()
        eventually(lambda: terminal.reads("PAUSED"), "the next screen", within=60)
        terminal.types(" ")
        operator.sale.resume()
        time.sleep(0.3)  # frozen: a screen that was under way may still come
        terminal.text = ""
        terminal.types(" ")
        eventually(lambda: terminal.reads("SELLING"), "it goes on", within=60)
        terminal.types("q")
        eventually(lambda: terminal.reads("") and terminal.process.poll() is not None, "the end", within=60)
        assert terminal.process.returncode == 1  # there is no syncer: attention
    finally:
        terminal.close()
