"""What one writes first: the article's steps one by one, a lock, an optimistic transaction. None is idempotent."""

from __future__ import annotations

import contextlib
import random
from asyncio import sleep

import redis
import redis.asyncio
from redis.exceptions import WatchError

from bench.peers import NO, Peer
from bench.servers import ENDLESS, HOST
from tests.support.article import SCRIPT


def _order(name):
    return f'{{"order_id":"{name}","goods_id":"goodsId","buyer_id":"{name}","quantity":1}}'


def _prepare(bed):
    """Sets the article's keys and a plain counter; returns the SHA1 of the article's script."""
    bed.client.mset({"goodsId_count": ENDLESS, "goodsId_start": 1, "goodsId_access": 0, "left": ENDLESS})
    bed.client.hset("goodsId", mapping={"Total": ENDLESS, "Booked": 0})
    return bed.client.script_load(SCRIPT)


@contextlib.asynccontextmanager
async def _literal(bed, callers):
    sha = _prepare(bed)
    async with redis.asyncio.Redis(host=HOST, port=bed.port, max_connections=callers) as client:

        async def buy(name):
            if await client.get("goodsId_start") != b"1":
                return
            count = int(await client.get("goodsId_count"))
            if await client.incr("goodsId_access") > count:
                return
            if await client.evalsha(sha, 1, "goodsId", 1):
                await client.lpush("orderList", _order(name))

        yield buy


@contextlib.contextmanager
def _literal_threads(bed, callers):
    sha = _prepare(bed)
    with redis.Redis(HOST, bed.port, max_connections=callers) as client:

        def buy(name):
            if client.get("goodsId_start") != b"1":
                return
            count = int(client.get("goodsId_count"))
            if client.incr("goodsId_access") > count:
                return
            if client.evalsha(sha, 1, "goodsId", 1):
                client.lpush("orderList", _order(name))

        yield buy


@contextlib.asynccontextmanager
async def _lock(bed, callers):
    _prepare(bed)
    async with redis.asyncio.Redis(host=HOST, port=bed.port, max_connections=callers) as client:

        async def buy(name):
            async with client.lock("lock", timeout=60, sleep=0.001):
                left = int(await client.get("left"))
                if left > 0:
                    await client.set("left", left - 1)
                    await client.lpush("orderList", _order(name))

        yield buy


@contextlib.asynccontextmanager
async def _watch(bed, callers):
    _prepare(bed)
    async with redis.asyncio.Redis(host=HOST, port=bed.port, max_connections=callers) as client:

        async def buy(name):
            async with client.pipeline() as pipe:
                while True:
                    try:
                        await pipe.watch("left")
                        left = int(await pipe.get("left"))
                        pipe.multi()
                        if left > 0:
                            pipe.set("left", left - 1)
                            pipe.lpush("orderList", _order(name))
                        await pipe.execute()
                        return
                    except WatchError:
                        await sleep(random.random() * 0.001 * callers)

        yield buy


def _booked(bed):
    return int(bed.client.hget("goodsId", "Booked"))


def _taken(bed):
    return ENDLESS - int(bed.client.get("left"))


LITERAL = Peer(
    "the article's recipe",
    "its steps one by one, five round trips: GET start, GET count, INCR access, EVALSHA, LPUSH; redis.asyncio, a "
    "connection per caller",
    NO,
    NO,
    "no: a crash before the LPUSH loses the order, one after the BRPOP too",
    _literal,
    _booked,
)
LITERAL_THREADS = Peer(LITERAL.name, "the same with redis-py", NO, NO, LITERAL.queue, _literal_threads, _booked)
LOCK = Peer(
    "Lock + GET/SET",
    "redis.asyncio's `Lock` looking every millisecond, GET, SET, LPUSH",
    NO,
    NO,
    "no: oversells when the lock times out",
    _lock,
    _taken,
)
WATCH = Peer(
    "WATCH/MULTI",
    "redis.asyncio's pipeline: WATCH, GET, then SET and LPUSH in MULTI; random pause after a conflict",
    NO,
    NO,
    "pushed atomically; BRPOP loses",
    _watch,
    _taken,
)
