"""Whole purchases: the library against the obvious code, from one caller to two thousand."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import uvloop

from bench import harness, loads
from bench.harness import Case
from bench.peers import postgres, recipes, same_script
from bench.servers import postgres as postgres_server
from bench.servers import redis_server

CALLERS, THREADS, CONNECTIONS = [1, 8, 64, 512, 2000], [1, 8, 32, 128], [1, 16, 32]
LOOPS = {"": asyncio.new_event_loop, " (uvloop)": uvloop.new_event_loop}


def tasks(peer, loop_factory, callers, bed, seconds):
    """Measures an asyncio peer, and checks that what it sold is what it answered."""
    bed.fresh()

    async def measure():
        async with peer.open(bed, callers) as buy:
            return await loads.tasks(buy, callers, seconds)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        figures, answered = runner.run(measure())
    return _checked(figures, answered, peer.sold(bed)) | {"slow": bed.slow_calls()}


def threads(peer, callers, bed, seconds):
    """Measures a peer that blocks, likewise."""
    bed.fresh()
    with peer.open(bed, callers) as buy:
        figures, answered = loads.threads(buy, callers, seconds)
    return _checked(figures, answered, peer.sold(bed)) | {"slow": bed.slow_calls()}


def _postgres(peer, callers, server, seconds):
    with server.database() as uri:
        with peer.open(uri, callers) as buy:
            figures, answered = loads.threads(buy, callers, seconds)
        return _checked(figures, answered, peer.sold(uri))


def _checked(figures, answered, sold):
    if answered != sold:
        raise AssertionError(f"{answered} purchases were answered, {sold} units sold")
    return figures


def back_to_back(bed, payloads, orders):
    """Measures the script alone: ready-made calls, always some under way."""
    bed.fresh()
    seconds = bed.wire.back_to_back(bed.port, payloads)
    return _checked({"rate": orders / seconds}, orders, bed.booked()) | {"slow": bed.slow_calls()}


def run(bench):
    with redis_server() as bed, postgres_server() as database:
        cases = [*_asyncio(bench, bed), *_threads(bench, bed), *_postgresql(bench, database), *_limit(bench, bed)]
        records = bench.run("purchases", cases)
        slow = {"alone": 0, "shared": 0}  # whether only Redis ran on its core
        for case, record in zip(cases, records, strict=True):
            slow["alone" if case.pinned else "shared"] += sum(record["figures"].pop("slow", []))
        profile = _profile(bed, bench.seconds * 3)
    peers = [same_script.OURS, same_script.REDIS_ASYNCIO, same_script.REDIS_ASYNCIO_64, same_script.GLIDE]
    peers += [same_script.COREDIS, same_script.REDIS_POOL, recipes.LITERAL, recipes.LOCK, recipes.WATCH]
    peers += [postgres.UPDATE_INSERT, postgres.FOR_UPDATE, postgres.ONE_STATEMENT]
    about = {peer.name: peer.about() for peer in peers}
    return {"records": records, "peers": about, "profile": profile, "slow_calls": slow, "postgres": database.version}


def _asyncio(bench, bed):
    every = [
        same_script.OURS,
        same_script.REDIS_ASYNCIO,
        same_script.REDIS_ASYNCIO_64,
        same_script.GLIDE,
        same_script.COREDIS,
    ]
    for callers in bench.few(CALLERS):
        for peer in every:
            if peer is (same_script.REDIS_ASYNCIO_64 if callers <= 64 else None):
                continue  # the same as one per caller
            if peer is (same_script.REDIS_ASYNCIO if callers > 512 else None):
                continue  # 2,000 connections are no configuration
            for suffix, loop in LOOPS.items():
                if suffix and peer in {same_script.GLIDE, same_script.COREDIS}:
                    continue
                measure = partial(tasks, peer, loop, callers, bed, bench.seconds)
                yield Case("asyncio", peer.name + suffix, str(callers), measure)
    for peer in (recipes.LITERAL, recipes.LOCK, recipes.WATCH):
        for callers in bench.few([1, 64, 512] if peer is recipes.LITERAL else [1, 8, 64]):
            measure = partial(tasks, peer, asyncio.new_event_loop, callers, bed, bench.seconds)
            yield Case("asyncio", peer.name, str(callers), measure)
    measure = partial(tasks, same_script.GLIDE, asyncio.new_event_loop, 512, bed, bench.seconds)
    yield Case("asyncio", f"{same_script.GLIDE.name}, on both cores", "512", measure, pinned=False)


def _threads(bench, bed):
    for callers in bench.few(THREADS):
        for peer in (same_script.OURS_THREADS, same_script.REDIS_POOL):
            for pinned in (False, True):
                measure = partial(threads, peer, callers, bed, bench.seconds)
                yield Case("threads", peer.name + (", pinned" if pinned else ""), str(callers), measure, pinned=pinned)
    for callers in bench.few([1, 32]):
        measure = partial(threads, recipes.LITERAL_THREADS, callers, bed, bench.seconds)
        yield Case("threads", recipes.LITERAL_THREADS.name + ", pinned", str(callers), measure)


def _postgresql(bench, database):
    for callers in bench.few(CONNECTIONS):
        for peer in (postgres.UPDATE_INSERT, postgres.FOR_UPDATE, postgres.ONE_STATEMENT):
            measure = partial(_postgres, peer, callers, database, bench.seconds)
            yield Case("PostgreSQL", peer.name, str(callers), measure, pinned=False)


def _limit(bench, bed):
    for size, orders in ((1, 20_000), (128, 150_000)):
        names = [f"l-{number}" for number in range(orders // 10 if bench.quick else orders)]
        measure = partial(back_to_back, bed, bed.wire.batches(names, size), len(names))
        yield Case("limit", "the script, back to back", f"{size} a call", measure)


def _profile(bed, seconds, callers=512):
    """Samples what the client's CPU does while the library sells; shares of its own time by function."""
    places = Counter()

    def sample(_number, frame):
        code = frame.f_code
        path = Path(code.co_filename)
        module = ".".join([*path.parts[-2:-1], path.stem]) if path.suffix == ".py" else path.name
        places[f"{module}: {code.co_qualname}"] += 1

    with contextlib.ExitStack() as stack:
        stack.enter_context(harness.on(harness.CLIENT))
        stack.callback(signal.signal, signal.SIGPROF, signal.signal(signal.SIGPROF, sample))
        stack.callback(signal.setitimer, signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        figures = tasks(same_script.OURS, asyncio.new_event_loop, callers, bed, seconds)
    total = sum(places.values())
    shares = [[place, count / total] for place, count in places.most_common(15)]
    return {"callers": callers, "cpu": figures["cpu"], "places": shares}
