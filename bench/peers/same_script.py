"""The library, and clients that send its very script once per purchase: all with the same guarantees."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import coredis
import glide
import redis
import redis.asyncio

import flashsale.aio
from bench.peers import YES, Peer
from bench.servers import GOODS, HOST, SALE, Bed
from flashsale import FlashSale


@contextlib.asynccontextmanager
async def _ours(bed, callers):
    async with redis.asyncio.Redis(host=HOST, port=bed.port) as client, flashsale.aio.FlashSale(client, SALE) as sale:
        yield lambda name: sale.buy(GOODS, name, order_id=name)


@contextlib.contextmanager
def _ours_threads(bed, callers):
    with redis.Redis(HOST, bed.port) as client, FlashSale(client, SALE) as sale:
        yield lambda name: sale.buy(GOODS, name, order_id=name)


@contextlib.asynccontextmanager
async def _redis_asyncio(bed, callers):
    async with redis.asyncio.Redis(host=HOST, port=bed.port, max_connections=callers) as client:
        yield lambda name: client.execute_command("EVALSHA", *bed.wire.purchase(name))


@contextlib.asynccontextmanager
async def _redis_asyncio_64(bed, callers):
    room = asyncio.Semaphore(64)

    async with redis.asyncio.Redis(host=HOST, port=bed.port, max_connections=64) as client:

        async def buy(name):
            async with room:
                return await client.execute_command("EVALSHA", *bed.wire.purchase(name))

        yield buy


@contextlib.asynccontextmanager
async def _glide(bed, callers):
    settings = glide.GlideClientConfiguration(
        [glide.NodeAddress(HOST, bed.port)], request_timeout=10_000, inflight_requests_limit=callers + 100
    )
    client = await glide.GlideClient.create(settings)
    try:
        yield lambda name: client.custom_command(["EVALSHA", *bed.wire.purchase(name)])
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def _coredis(bed, callers):
    sha, keys = bed.wire.one[1], int(bed.wire.one[2])

    def buy(client, name):
        words = bed.wire.purchase(name)[2:]
        return client.evalsha(sha, keys=words[:keys], args=words[keys:])

    async with coredis.Redis(host=HOST, port=bed.port, max_connections=min(callers, 64)) as client:
        yield partial(buy, client)


@contextlib.contextmanager
def _redis_pool(bed, callers):
    with redis.Redis(HOST, bed.port, max_connections=callers) as client:
        yield lambda name: client.execute_command("EVALSHA", *bed.wire.purchase(name))


def _same(name, configuration, open_):
    return Peer(name, configuration, YES, YES, YES, open_, Bed.booked)


OURS = _same("flashsale", "`flashsale.aio.FlashSale.buy` with its defaults", _ours)
OURS_THREADS = _same("flashsale", "`flashsale.FlashSale.buy`, one object for all threads", _ours_threads)
REDIS_ASYNCIO = _same("redis.asyncio", "EVALSHA per call, RESP parser hiredis, a connection per caller", _redis_asyncio)
REDIS_ASYNCIO_64 = _same(
    "redis.asyncio, 64 connections", "the same, at most 64 connections behind a semaphore", _redis_asyncio_64
)
GLIDE = _same("valkey-glide", "EVALSHA per call, one multiplexed connection, its Rust core on the same core", _glide)
COREDIS = _same("coredis", "EVALSHA per call, at most 64 connections", _coredis)
REDIS_POOL = _same("redis-py", "EVALSHA per call, RESP parser hiredis, a connection per thread", _redis_pool)
