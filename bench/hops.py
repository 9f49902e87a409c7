"""How far a purchase travels in Python: calls and depth inside `flashsale` of one unnamed `buy` that is accepted.

    python -m bench.hops

A server must be found, as for the benchmarks. Goods are open, gate and stock share one Redis, scripts and connections
are warm. A call is a Python function entered, also when a coroutine is resumed; a depth of 1 is `buy` itself.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Self

import redis
import redis.asyncio

import flashsale
from bench.servers import GOODS, HOST, SALE, redis_server
from flashsale import FlashSale, aio

PACKAGE = str(Path(flashsale.__file__).parent)


class Hops:
    """Counts while it is entered; `path` lists the calls with their depth."""

    def __init__(self) -> None:
        self.path: list[tuple[int, str]] = []
        self._depth = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    @property
    def calls(self) -> int:
        return len(self.path)

    @property
    def depth(self) -> int:
        return max(depth for depth, _ in self.path)

    def _event(self, frame: Any, event: str, _argument: object) -> None:
        if event not in {"call", "return"} or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if event == "return":
            self._depth -= 1
            return
        self._depth += 1
        name = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"
        self.path.append((self._depth, name))


def sync_hops(port: int) -> Hops:
    """Returns the hops of a blocking `buy`."""
    with redis.Redis(HOST, port) as client, FlashSale(client, SALE) as sale:
        for _ in range(3):
            sale.buy(GOODS, "b")
        with (hops := Hops()):
            receipt = sale.buy(GOODS, "b")
    assert receipt.accepted
    return hops


async def asyncio_hops(port: int) -> Hops:
    """Returns the hops of an awaited `buy`."""
    client = redis.asyncio.Redis(host=HOST, port=port)
    async with client, aio.FlashSale(client, SALE) as sale:
        for _ in range(3):
            await sale.buy(GOODS, "b")
        with (hops := Hops()):
            receipt = await sale.buy(GOODS, "b")
    assert receipt.accepted
    return hops


def main() -> None:
    with redis_server() as bed:
        bed.fresh()
        for api, hops in {"asyncio": asyncio.run(asyncio_hops(bed.port)), "sync": sync_hops(bed.port)}.items():
            print(f"{api}: {hops.calls} calls, {hops.depth} deep")
            if "--path" in sys.argv:
                print("\n".join("  " * depth + name for depth, name in hops.path))


if __name__ == "__main__":
    main()
