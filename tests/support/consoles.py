"""A console that listens, on a sale of the command's options."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from argparse import Namespace
from typing import TYPE_CHECKING

from flashsale.ops.console import serve
from flashsale.ops.frame import Context
from flashsale.ops.opening import Opened
from flashsale.ops.pages import Console
from flashsale.ops.running import verbs
from tests.support import servers
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flashsale import FlashSale
    from flashsale.ops.frame import Verb

VERB = next(verb for verb in verbs() if verb.name == "console")


class Program:
    """Opens this sale, which stays open."""

    prog = "flashsale"

    def __init__(self, sale: FlashSale) -> None:
        self._sale = sale

    def add(self, parser: object, verb: Verb) -> None:
        pass

    def open(self, options: Namespace, verb: Verb, *, is_async: bool = False) -> Opened:
        return Opened(self._sale.name, self._sale, self._sale.store)


@contextlib.contextmanager
def console(sale: FlashSale, password: str = "") -> Iterator[str]:
    """Runs a console of a sale, and gives its address."""
    port, stop = servers.free_port(), threading.Event()
    with Context(VERB, Namespace(), Program(sale), sys.stdout, sys.stderr) as context:
        thread = threading.Thread(
            target=serve, args=(Console(context), port), kwargs={"password": password, "stop": stop}
        )
        thread.start()
        try:
            eventually(lambda: _is_open(port), "the console listens")
            yield f"http://127.0.0.1:{port}/"
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
