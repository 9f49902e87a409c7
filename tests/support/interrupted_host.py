"""A process of a shop in which a signal's handler raises at any moment of a purchase, as job queues' timeouts do.

    python -m tests.support.interrupted_host REDIS_URL SALE DURABILITY REPLICAS

Reads purchases as JSON lines, makes each of them until nothing strikes it, and answers in JSON lines.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import flashsale
from flashsale import FlashSale, FlashSaleError, Outcome, Receipt
from flashsale.clients import from_url

if TYPE_CHECKING:
    from collections.abc import Callable

STRIKES = 0.004  # seconds after which a call is struck, at the median; most are over by then


class Struck(Exception):
    """What the handler raises."""


def main(url: str, sale_name: str, durability: str, replicas: str) -> None:
    signal.signal(signal.SIGALRM, _strike)
    with FlashSale(from_url(url), sale_name, durability=durability, replicas=int(replicas)) as sale:
        for line in sys.stdin:
            goods_id, buyer_id, quantity, order_id = json.loads(line)
            answer, struck = _answer(lambda: sale.buy(goods_id, buyer_id, quantity, order_id=order_id))  # noqa: B023
            print(json.dumps({"struck": struck, **answer}), flush=True)


def _strike(*_: object) -> None:
    raise Struck


def _answer(buy: Callable[[], Receipt]) -> tuple[dict[str, Any], int]:
    struck = 0
    while True:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.expovariate(0.7 / STRIKES))
                receipt = buy()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Struck:
            struck += 1
        except FlashSaleError as error:
            return {"error": type(error).__name__, "message": str(error)}, struck
        else:
            return {"receipt": receipt}, struck


class InterruptedHost:
    """Such a process, seen from a run of chaos. A context manager.

    Attributes:
        struck: calls that an exception struck.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._one = asyncio.Lock()
        self.struck = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.interrupted_host", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()

    async def buy(self, goods_id: str, buyer_id: str, quantity: int, *, order_id: str) -> Receipt:
        """Makes a purchase there, until nothing strikes it."""
        async with self._one:
            line = await asyncio.to_thread(self._ask, json.dumps([goods_id, buyer_id, quantity, order_id]))
        answer = json.loads(line)
        self.struck += answer["struck"]
        if "error" in answer:
            raise getattr(flashsale, answer["error"])(answer["message"])
        outcome, *others = answer["receipt"]
        return Receipt(Outcome(outcome), *others)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
