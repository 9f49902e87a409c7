"""A worker of its own process, whose database takes everything at once: what is measured is Redis and the worker.

python -m bench.peers.drain PARTITIONS PORT...

It begins with a line of input, and ends when there is no more. For each batch it prints how many orders it has saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import redis.asyncio

from bench.servers import ENDLESS, GOODS, HOST, SALE
from flashsale import Goods, Saved, aio


class Nowhere:
    """A database that keeps nothing."""

    async def goods(self):
        return [Goods(GOODS, ENDLESS)]

    async def save(self, orders):
        return Saved(inserted=frozenset(order.order_id for order in orders))


class Progress:
    """An observer that tells of every batch."""

    def outcome(self, goods_id, outcome):
        pass

    def batch(self, size, wait):
        pass

    def lag(self, orders, seconds):
        print(orders, flush=True)


async def main(partitions: int, ports: list[int]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(redis.asyncio.Redis(host=HOST, port=port)) for port in ports]
        client = clients if partitions > 1 else clients[0]
        settings = {"store": Nowhere(), "observer": Progress(), "partitions": partitions}
        sale = await stack.enter_async_context(aio.FlashSale(client, SALE, **settings))
        print("ready", flush=True)
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        await loop.run_in_executor(None, sys.stdin.readline)
        ended = loop.run_in_executor(None, sys.stdin.read)
        ended.add_done_callback(lambda _: stop.set())
        await aio.Worker(sale).run(stop)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
