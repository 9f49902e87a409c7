"""Bursts of purchases in a process of its own, by whichever `flashsale` is found first: two releases take turns so.

python -m bench.peers.one_sale PORT SALE FOLDER

The sale is open, and FOLDER has the package. Each line of input makes one burst; each line of output has its
microseconds of CPU, for each purchase.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path

import redis.asyncio

import flashsale
from bench.servers import GOODS, HOST
from flashsale.aio import FlashSale

CALLERS, EACH = 512, 30
BURST = CALLERS * EACH  # purchases


async def main(port: int, name: str) -> None:
    async with redis.asyncio.Redis(host=HOST, port=port) as client, FlashSale(client, name) as sale:

        async def caller(number: int, burst: int) -> None:
            for count in range(EACH):
                receipt = await sale.buy(GOODS, f"{burst}-{number}-{count}")
                assert receipt.accepted

        for burst, _ in enumerate(sys.stdin):
            gc.collect()
            began = time.process_time()
            await asyncio.gather(*(caller(number, burst) for number in range(CALLERS)))
            print(1e6 * (time.process_time() - began) / BURST, flush=True)


if __name__ == "__main__":
    assert Path(flashsale.__file__).is_relative_to(Path(sys.argv[3]).resolve()), "another release was found"
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
