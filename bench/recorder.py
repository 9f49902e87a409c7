"""What the recorder costs: CPU of one process for each purchase at 512 callers, and each refusal, with it and without.

    python -m bench.recorder

With and without take turns; a figure is the median of the ratios of neighbours. Redis runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from bench.servers import HOST, redis_server
from flashsale import aio
from flashsale._rules.tally import Tally

CALLERS, EACH, REFUSALS, ROUNDS = 512, 40, 200_000, 25


class Nothing(Tally):
    """Counts nothing."""

    def add(self, name: Any, number: int = 1) -> None:
        """Counts nothing."""

    def took(self, name: Any, seconds: float) -> None:
        """Counts nothing."""

    def batch(self, answers: Any, seconds: float) -> None:
        """Counts nothing."""


def silence(sale: aio.FlashSale) -> None:
    """Takes the recorder out of a sale."""
    nothing = Nothing()
    sale.gate._tally = sale._purchases._tally = sale.gate._refusals.tally = sale._ledger._tally = nothing


async def purchases(sale: aio.FlashSale) -> float:
    """Returns the CPU of one purchase, in microseconds."""

    async def caller(number: int) -> None:
        for _ in range(EACH):
            receipt = await sale.buy("phone", f"buyer-{number}")
            assert receipt.accepted

    began = time.process_time()
    await asyncio.gather(*map(caller, range(CALLERS)))
    return 1e6 * (time.process_time() - began) / (CALLERS * EACH)


async def refusals(sale: aio.FlashSale) -> float:
    """Returns the CPU of one refusal, in microseconds."""
    began = time.process_time()
    for _ in range(REFUSALS):
        await sale.buy("gone", "ann")
    return 1e6 * (time.process_time() - began) / REFUSALS


async def sales(port: int) -> dict[bool, aio.FlashSale]:
    made = {}
    for recorded in (True, False):
        sale = aio.FlashSale(redis.asyncio.Redis(host=HOST, port=port), "recorder", cache_for=3600)
        if not recorded:
            silence(sale)
        made[recorded] = sale
    await made[True].preload("phone", 10**9)
    await made[True].preload("gone", 0)
    for goods_id in ("phone", "gone"):
        await made[True].start(goods_id)
    return made


async def compare(what: Callable[[aio.FlashSale], Awaitable[float]], made: dict[bool, aio.FlashSale]) -> None:
    pairs = []
    for number in range(ROUNDS + 1):
        found = {}
        for recorded in (True, False) if number % 2 else (False, True):
            found[recorded] = await what(made[recorded])
        pairs.append(found)
    pairs = pairs[1:]  # the first round warms up
    ratio = statistics.median(pair[True] / pair[False] for pair in pairs)
    with_it, without = (statistics.median(pair[recorded] for pair in pairs) for recorded in (True, False))
    print(f"| {what.__name__} | {with_it:.3f} us | {without:.3f} us | {ratio - 1:+.1%} |", flush=True)


async def measure(port: int) -> None:
    made = await sales(port)
    for what in (purchases, refusals):
        await compare(what, made)
    for sale in made.values():
        await sale.aclose()


if __name__ == "__main__":
    print("| CPU of one | with the recorder | without | more |\n|---|---|---|---|")
    with redis_server() as server:
        asyncio.run(measure(server.port))
