"""What the ledger's size costs: throughput, memory, and the script's time by batch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial

import redis.asyncio

from bench.harness import Case
from bench.servers import GOODS, HOST, SALE, redis_server
from flashsale.aio import FlashSale

SIZES = [1_000, 10_000, 100_000, 1_000_000]
BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
CALLERS, CALLS = 512, 4  # of one burst


class Ledger:
    """A Redis of its own with `size` orders in it."""

    def __init__(self, bed, size):
        self.bed, self.size = bed, size
        self.extra = size  # forces the first filling
        self._bursts = 0

    def fill(self):
        """Makes the ledger as small as it should be, once bursts have made it 4 % larger."""
        if self.extra * 25 >= self.size:
            self.bed.fresh()
            self.bed.fill(self.size)
            self.extra = 0

    def throughput(self, seconds):
        """Measures bursts of purchases, until they have taken `seconds` together."""
        return asyncio.run(self._throughput(seconds))

    async def _throughput(self, seconds):
        orders, took = 0, 0.0
        async with redis.asyncio.Redis(host=HOST, port=self.bed.port) as client, FlashSale(client, SALE) as sale:
            await self._burst(sale)  # connects
            while took < seconds:
                took += await self._burst(sale)
                orders += CALLERS * CALLS
        return {"rate": orders / took}

    async def _burst(self, sale):
        self.fill()
        self._bursts += 1

        async def caller(number):
            for count in range(CALLS):
                name = f"{self._bursts}-{number}-{count}"
                await sale.buy(GOODS, name, order_id=name)

        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(caller(number))
        self.extra += CALLERS * CALLS
        return time.perf_counter() - begin

    def memory(self):
        """Measures bytes of Redis per order: while queued, and after the list has been emptied."""
        self.bed.fresh()
        empty = self._used()
        self.bed.fill(self.size)
        queued = self._used() - empty
        self.bed.client.delete(f"flashsale:{{{SALE}}}:orderList")
        kept = self._used() - empty
        self.extra = self.size
        return {"queued": queued / self.size, "kept": kept / self.size}

    def _used(self):
        return self.bed.client.info("memory")["used_memory"]


def _script_time(bed, size, orders):
    """Measures the server's own time for one call."""
    bed.fresh()
    payloads = bed.wire.batches([f"s-{number}" for number in range(orders)], size)
    bed.client.config_resetstat()
    bed.wire.back_to_back(bed.port, payloads)
    return {"time": bed.client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]}


def run(bench):
    sizes = SIZES[:2] if bench.quick else SIZES
    with contextlib.ExitStack() as stack:
        cases = []
        for size in sizes:
            ledger = Ledger(stack.enter_context(redis_server()), size)
            seconds = bench.seconds / 3 if size == SIZES[0] else bench.seconds  # which fills far more often
            cases.append(Case("growth", "flashsale, 512 callers", str(size), partial(ledger.throughput, seconds)))
        records = bench.run("growth", cases)
    with redis_server() as bed:
        cases = [Case("memory", "bytes per order", str(size), Ledger(bed, size).memory) for size in sizes]
        records += bench.run("growth", cases, rounds=1)  # it does not vary
        cases = [
            Case("script", "one call", str(size), partial(_script_time, bed, size, 20_000 if size > 8 else 5_000))
            for size in bench.few(BATCHES)
        ]
        return {"records": records + bench.run("growth", cases)}
