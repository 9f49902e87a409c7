"""One sale over several primaries, each of them held to the same small share of a core.

So one machine has room for eight, and the client is not what limits them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import redis
import redis.asyncio

from bench import loads
from bench.cpu_share import cpu_of, limiter
from bench.harness import Case, median
from bench.peers import one_sale
from bench.servers import CAP, ENDLESS, GOODS, HOST, SALE, cluster, redis_process
from flashsale import FlashSale, Outcome, aio

ROOT = Path(__file__).parent.parent
SHARE = 0.02  # of a core, for each primary
PRIMARIES, PARTITIONS = [1, 2, 4, 8], [1, 2, 4, 8, 16]
CALLERS = 512  # of each primary
JOBS = 3000  # orders in the queue of each primary
BEFORE = "599c7a0"  # the last commit without partitions
PAIRS = 8  # bursts of each, in one round


class Primary(NamedTuple):
    """A Redis.

    Args:
        port: at `HOST`.
        pid: its process.
    """

    port: int
    pid: int


@contextlib.asynccontextmanager
async def _sale(primaries, partitions, total=ENDLESS, *, in_cluster=False, **settings):
    """Opens a new sale on empty servers."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for primary in primaries:
            clients.append(await stack.enter_async_context(redis.asyncio.Redis(host=HOST, port=primary.port)))
            await clients[-1].flushall()
        client = clients if partitions > 1 else clients[0]
        if in_cluster:
            client = await stack.enter_async_context(redis.asyncio.RedisCluster(host=HOST, port=primaries[0].port))
        sale = await stack.enter_async_context(aio.FlashSale(client, SALE, partitions=partitions, **settings))
        await _load(sale, GOODS, total)
        yield sale


async def _load(sale, goods_id, total):
    await sale.preload(goods_id, total, per_buyer=CAP)
    await sale.start(goods_id)


async def _booked(sale):
    """Returns the units that are gone from all partitions together."""
    return ENDLESS - (await sale.view(GOODS)).remaining


def _check(answered, sold):
    if answered != sold:
        raise AssertionError(f"{answered} orders were answered, {sold} units sold")


def _purchases(primaries, partitions, limit, seconds, callers, **kind):
    """Measures purchases by so many callers; `limit` holds the servers meanwhile."""

    async def measure():
        async with _sale(primaries, partitions, max_waiting=partitions * callers, **kind) as sale:

            async def buy(name):
                assert (await sale.buy(GOODS, name)).accepted

            await asyncio.gather(*(buy(f"first-{number}") for number in range(callers)))  # connects
            await _bytes(primaries)
            with limit([primary.pid for primary in primaries]):
                before = _cpu(primaries)
                figures, answered = await loads.tasks(buy, callers, seconds)
                figures["redis"] = 1e6 * (_cpu(primaries) - before) / answered
            figures |= {name: total / answered for name, total in (await _bytes(primaries)).items()}
            await asyncio.sleep(0.06)  # longer than a view is remembered
            _check(answered + callers, await _booked(sale))
            return figures

    return asyncio.run(measure())


def _cpu(primaries):
    return sum(cpu_of(primary.pid) for primary in primaries)


async def _bytes(primaries):
    """Returns what went over the network since this was asked last."""
    found = {"to redis": 0, "from redis": 0}
    for primary in primaries:
        async with redis.asyncio.Redis(host=HOST, port=primary.port) as client:
            stats = await client.info("stats")
            await client.config_resetstat()
        found["to redis"] += stats["total_net_input_bytes"]
        found["from redis"] += stats["total_net_output_bytes"]
    return found


def _refused(primaries, partitions, limit, seconds, callers, **settings):
    """Measures refusals of an item that is sold out everywhere."""

    async def measure():
        async with _sale(primaries, partitions, total=0, **settings) as sale:

            async def buy(name):
                assert (await sale.buy(GOODS, name)).outcome is Outcome.SOLD_OUT

            await asyncio.gather(*(buy(f"first-{number}") for number in range(callers)))  # connects
            with limit([primary.pid for primary in primaries]):
                return (await loads.tasks(buy, callers, seconds))[0]

    return asyncio.run(measure())


def _alone(primaries, partitions, calls):
    """Measures one caller: a purchase, one that must fetch a unit, and one that finds too few anywhere.

    The last two ask for an item of which each partition has one unit.
    """

    async def timed(sale, found, kind, goods_id, quantity, wanted):
        before, began = _cpu(primaries), time.perf_counter()
        receipt = await sale.buy(goods_id, f"{kind} {goods_id}".replace(" ", "-"), quantity)
        took = 1e3 * (time.perf_counter() - began)
        assert receipt.outcome is wanted
        found[kind].append((took, 1e6 * (_cpu(primaries) - before)))

    async def measure():
        async with _sale(primaries, partitions, cache_for=0) as sale:
            found = {"purchase": [], "fetch": [], "sold out": []}
            for number in range(calls + 1):
                goods_id = f"item-{number}"
                await _load(sale, goods_id, partitions)
                await timed(sale, found, "purchase", GOODS, 1, Outcome.ACCEPTED)
                if partitions > 1:
                    await timed(sale, found, "fetch", goods_id, 2, Outcome.ACCEPTED)
                await timed(sale, found, "sold out", goods_id, CAP, Outcome.SOLD_OUT)
            figures = {}
            for kind, calls_of in found.items():
                for times in [sorted(took for took, _ in calls_of[1:])]:  # the first one connects
                    if times:
                        figures[kind] = median(times)
                        figures[f"{kind} p99"] = times[int(0.99 * len(times))]
                        figures[f"{kind} redis"] = median([cpu for _, cpu in calls_of[1:]])
            return figures

    return asyncio.run(measure())


def _drain(primaries, limit, jobs):
    """Measures a worker process for each primary, from the first tenth of the orders to the last."""
    jobs *= len(primaries)

    async def sell(sale):
        async def caller(number):
            for count in range(number, jobs, CALLERS):
                assert (await sale.buy(GOODS, f"b-{count}")).accepted

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))

    async def measure():
        async with _sale(primaries, len(primaries)) as sale, contextlib.AsyncExitStack() as stack:
            await sell(sale)
            workers = [await stack.enter_async_context(_worker(primaries)) for _ in primaries]
            stack.enter_context(limit([primary.pid for primary in primaries]))
            for worker in workers:
                worker.stdin.write(b"go\n")
            done, moments = 0, []

            async def follow(worker):
                nonlocal done
                while done < jobs:
                    line = await worker.stdout.readline()
                    done += int(line)
                    moments.append((done, time.perf_counter()))

            async with asyncio.timeout(60):
                followers = [asyncio.create_task(follow(worker)) for worker in workers]
                await asyncio.wait(followers, return_when=asyncio.FIRST_COMPLETED)
            for each in followers:
                each.cancel() if not each.done() else each.result()
            first = next(moment for moment in moments if moment[0] * 10 >= jobs)
            last = moments[-1]
            _check(last[0], jobs)
            return {"rate": (last[0] - first[0]) / (last[1] - first[1])}

    return asyncio.run(measure())


@contextlib.asynccontextmanager
async def _worker(primaries):
    command = [sys.executable, "-m", "bench.peers.drain", str(len(primaries))]
    command += [str(primary.port) for primary in primaries]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    worker = await asyncio.create_subprocess_exec(*command, **pipes)
    try:
        if await worker.stdout.readline() != b"ready\n":
            raise ChildProcessError("a worker did not begin")
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


# -- one partition beside the code before ---------------------------------------------------------------------------


@contextlib.contextmanager
def _code_before():
    """Yields the sources of the last commit without partitions; None where there is no repository that has it."""
    command = ["git", "-C", str(ROOT), "archive", BEFORE, "src/flashsale"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError), tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(command, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder) / "src"
        return
    yield None


@contextlib.contextmanager
def _bursts(primary, name, source):
    """Yields what makes one burst, and returns its microseconds of CPU: of the client and of Redis, a purchase."""
    with redis.Redis(HOST, primary.port) as client, FlashSale(client, name) as sale:
        sale.preload(GOODS, ENDLESS, per_buyer=CAP)
        sale.start(GOODS)
    command = [sys.executable, "-m", "bench.peers.one_sale", str(primary.port), name, str(source)]
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONHASHSEED": "0"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}

    def burst():
        before = cpu_of(primary.pid)
        child.stdin.write("\n")
        client = float(child.stdout.readline())
        return client, 1e6 * (cpu_of(primary.pid) - before) / one_sale.BURST

    with subprocess.Popen(command, env=environment, cwd=ROOT, **pipes) as child:
        try:
            yield burst
        finally:
            child.kill()


def _beside_before(primary, source, pairs):
    """Measures both in turn, on one Redis; the figures are medians of the round."""
    with redis.Redis(HOST, primary.port) as client:
        client.flushall()
    with _bursts(primary, "before", source) as before, _bursts(primary, "now", ROOT / "src") as now:
        both = {"before": before, "now": now}
        found = {name: [] for name in both}
        for burst in both.values():
            burst()  # connects
        for number in range(pairs):
            for name in both if number % 2 else reversed(both):
                found[name].append(both[name]())
        return {
            f"{name} {part}": median([each[place] for each in bursts])
            for name, bursts in found.items()
            for place, part in enumerate(("client", "redis"))
        }


# -- all of it ------------------------------------------------------------------------------------------------------


def run(bench):
    if not sys.platform.startswith("linux"):
        return None
    limits = limiter()
    bench.console.print(f"scale: each primary is held to {SHARE:.0%} of a core by {limits.name}", highlight=False)
    held = partial(limits.hold, share=SHARE)
    quick = bench.quick
    primaries, partitions = (PRIMARIES[:2], PARTITIONS[:2]) if quick else (PRIMARIES, PARTITIONS)
    seconds, callers = 5 * bench.seconds, 32 if quick else CALLERS
    with contextlib.ExitStack() as stack:
        servers = [Primary(*stack.enter_context(redis_process())) for _ in range(max(primaries))]
        cases = []
        for number in primaries:
            some = servers[:number]
            for each, name in ((1, "one partition each"), (2, "two partitions each")):
                measure = partial(_purchases, some, each * number, held, seconds, callers * number)
                cases.append(Case("purchases", name, str(number), measure, pinned=False))
            measure = partial(_refused, some, number, held, seconds, callers, cache_for=0)
            cases.append(Case("refused", "checked each time", str(number), measure, pinned=False))
            measure = partial(_refused, some, number, _free, bench.seconds, 1)
            cases.append(Case("refused", "in process, unthrottled", str(number), measure))
            measure = partial(_drain, some, held, JOBS // 2 if quick else JOBS)
            cases.append(Case("drained", "a worker each", str(number), measure, pinned=False))
        nodes = [Primary(*node) for node in stack.enter_context(cluster(2 if quick else 4))]
        measure = partial(_purchases, nodes, len(nodes), held, seconds, callers * len(nodes), in_cluster=True)
        cases.append(Case("purchases", "a Cluster, one partition each", str(len(nodes)), measure, pinned=False))
        for number in partitions:
            measure = partial(_purchases, servers[:1], number, _free, bench.seconds, callers)
            cases.append(Case("cpu", "512 callers", str(number), measure))
            measure = partial(_alone, servers[:number], number, 3 if quick else 60)
            cases.append(Case("alone", "one caller", str(number), measure))
        source = stack.enter_context(_code_before())
        if source is not None:
            measure = partial(_beside_before, servers[0], source, 1 if quick else PAIRS)
            cases.append(Case("before", "one partition", "512", measure))
        records = bench.run("scale", cases)
    return {"records": records, "limiter": limits.name, "share": SHARE, "before": source and BEFORE}


@contextlib.contextmanager
def _free(_pids):
    yield
