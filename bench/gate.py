"""The gate: admissions, refusals, and the storm after the last unit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial

import redis
import redis.asyncio
import uvloop

import flashsale.aio
from bench import loads
from bench.harness import Case
from bench.servers import GOODS, HOST, SALE, redis_server
from flashsale import FlashSale

CALLERS = [1, 64, 512]
STORM = 512  # callers
LOOP = "the measuring loop alone"
LATE = 20  # one request in so many comes before the last unit is gone
WAYS = {
    "three round trips": "GET start, GET count, INCR access; redis.asyncio, a connection per caller",
    "one script": "EVALSHA of the library's own `enter` script per call; redis.asyncio, a connection per caller",
    "flashsale": "`flashsale.aio.Gate.enter` with its defaults",
    "one script, buy": "EVALSHA of the library's own `reserve` script per call; redis.asyncio, a connection per caller",
    "flashsale, buy": "`flashsale.aio.FlashSale.buy` without an order id, with its defaults",
}


@contextlib.asynccontextmanager
async def _client(bed, callers):
    async with redis.asyncio.Redis(host=HOST, port=bed.port, max_connections=callers) as client:
        yield client


@contextlib.asynccontextmanager
async def _three(bed, callers):
    async with _client(bed, callers) as client:
        start, count, access = (f"flashsale:{{{SALE}}}:{GOODS}:{name}" for name in ("start", "count", "access"))

        async def enter(_name):
            if await client.get(start) != b"1":
                return False
            return int(await client.get(count)) >= await client.incr(access)

        yield enter


@contextlib.asynccontextmanager
async def _script(bed, callers):
    async with _client(bed, callers) as client:
        yield lambda _name: client.execute_command(*bed.enter)


@contextlib.asynccontextmanager
async def _script_buy(bed, callers):
    async with _client(bed, callers) as client:
        yield lambda name: client.execute_command("EVALSHA", *bed.wire.purchase(name))


@contextlib.asynccontextmanager
async def _sale(bed, **settings):
    async with _client(bed, None) as client, flashsale.aio.FlashSale(client, SALE, **settings) as sale:
        yield sale


@contextlib.asynccontextmanager
async def _ours(bed, _callers, **settings):
    async with _sale(bed, **settings) as sale:
        yield lambda _name: sale.gate.enter(GOODS)


@contextlib.asynccontextmanager
async def _ours_buy(bed, _callers):
    async with _sale(bed) as sale:
        yield lambda name: sale.buy(GOODS, name)


def _crowd(bed, way, callers, seconds, *, total=None, loop=asyncio.new_event_loop):
    """Measures a crowd at an open gate, or with `total` 0 at one that is sold out."""
    bed.fresh() if total is None else bed.fresh(total)

    async def measure():
        async with way(bed, callers) as ask:
            return await loads.tasks(ask, callers, seconds)

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(measure())[0]


def _nothing(_goods_id):
    """What the loop alone costs."""


async def _nothing_asyncio(_goods_id):
    """What the loop and one coroutine cost."""


def _in_process(bed, call, seconds):
    """Measures refusals that this process remembers: one caller, in a row, before the sale."""
    bed.fresh(started=False)
    with redis.Redis(HOST, bed.port) as client, FlashSale(client, SALE) as sale:
        enter = _nothing if call == LOOP else sale.gate.enter
        buy = sale.buy
        count, begin = 0, time.perf_counter()
        while (now := time.perf_counter()) < begin + seconds:
            if call == "buy":
                for _ in range(500):
                    buy(GOODS, "b")
            else:
                for _ in range(500):
                    enter(GOODS)
            count += 500
        return {"rate": count / (now - begin)}


def _in_process_asyncio(bed, call, seconds):
    bed.fresh(started=False)

    async def measure():
        async with _sale(bed) as sale:
            enter = _nothing_asyncio if call == LOOP else sale.gate.enter
            buy = sale.buy
            count, begin = 0, time.perf_counter()
            while (now := time.perf_counter()) < begin + seconds:
                if call == "buy":
                    for _ in range(500):
                        await buy(GOODS, "b")
                else:
                    for _ in range(500):
                        await enter(GOODS)
                count += 500
            return {"rate": count / (now - begin)}

    return asyncio.run(measure())


def _storm(bed, way, requests):
    """Measures so many requests from a crowd, of which the first few get all there is; connections are warm."""
    each = requests // STORM
    bed.fresh(STORM + each * STORM // LATE)

    async def measure():
        async with way(bed, STORM) as ask:
            await asyncio.gather(*(ask(f"w-{number}") for number in range(STORM)))
            begin = time.perf_counter()

            async def caller(number):
                for count in range(each):
                    await ask(f"{number}-{count}")

            await asyncio.gather(*(caller(number) for number in range(STORM)))
            return time.perf_counter() - begin

    return {"rate": each * STORM / asyncio.run(measure())}


def run(bench):
    seconds = bench.seconds
    with redis_server() as bed:
        cases = []
        for callers in bench.few(CALLERS):
            for peer, way in {"three round trips": _three, "one script": _script, "flashsale": _ours}.items():
                cases.append(Case("admitted", peer, str(callers), partial(_crowd, bed, way, callers, seconds)))
            measure = partial(_crowd, bed, _ours, callers, seconds, loop=uvloop.new_event_loop)
            cases.append(Case("admitted", "flashsale (uvloop)", str(callers), measure))
        uncached = partial(_ours, cache_for=0)
        for peer, way in {"one script": _script, "flashsale, `cache_for=0`": uncached}.items():
            measure = partial(_crowd, bed, way, 512, seconds, total=0)
            cases.append(Case("refused", f"by Redis: {peer}", "512 callers", measure))
        for call in (LOOP, "enter", "buy"):
            for api, measure in {"asyncio": _in_process_asyncio, "sync": _in_process}.items():
                case = Case("refused", f"in process: {call}, {api}", "1 caller", partial(measure, bed, call, seconds))
                cases.append(case)
        size = 0.1 if bench.quick else 1
        for peer, way, requests in (
            ("one script", _script, 15_000),
            ("flashsale", _ours, 1_000_000),
            ("one script, buy", _script_buy, 15_000),
            ("flashsale, buy", _ours_buy, 400_000),
        ):
            measure = partial(_storm, bed, way, int(size * requests))
            cases.append(Case("storm", peer, "512 callers", measure))
        return {"records": bench.run("gate", cases), "ways": WAYS}
