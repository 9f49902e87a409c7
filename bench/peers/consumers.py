"""One queue in a process of its own: enqueues orders one by one, then consumes them until the handler has seen all.

python -m bench.peers.consumers PEER REDIS_PORT JOBS [POSTGRESQL_URI]
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial

import redis
import redis.asyncio

from bench.peers import handler
from bench.servers import ENDLESS, GOODS, HOST, SALE

THREADS = 8  # of a consumer whose handler waits for PostgreSQL
TASKS = 100  # of a consumer in an event loop


@dataclass(frozen=True)
class Queue:
    """A queue.

    Args:
        jobs: how many a measurement takes when the handler does nothing, and when it inserts.
        configuration: what a reader needs to do the same.
        at_least_once: whether a job survives the kill of its consumer.
    """

    jobs: tuple[int, int]
    configuration: str
    at_least_once: str


QUEUES = {
    "flashsale": Queue(
        (100_000, 40_000),
        "`OrderQueue.push`; `claim(500)` and `ack`; into PostgreSQL `Worker` and `SQLAlchemyStore` with their "
        "defaults, guarded by `booked <= granted`",
        "yes: leases",
    ),
    "flashsale.aio": Queue(
        (100_000, 40_000),
        "the same in asyncio, but two loops of `claim(250)` and `ack`, and two `Worker`s: both this process and the "
        "servers work",
        "yes: leases",
    ),
    "flashsale, layout 1": Queue(
        (100_000, 40_000), "as `flashsale`, in a sale that an older release began", "yes: leases"
    ),
    "flashsale.aio, layout 1": Queue(
        (100_000, 40_000), "as `flashsale.aio`, in a sale that an older release began", "yes: leases"
    ),
    "BRPOP": Queue((8000, 2500), "redis-py: LPUSH; BRPOP, and one INSERT, one commit each", "no"),
    "BRPOP, threads": Queue((16_000, 8000), "the same loop in 2 threads, 8 for PostgreSQL", "no"),
    "rq": Queue((300, 200), "`SimpleWorker` (does not fork), no results kept", "no: the job is failed"),
    "dramatiq": Queue(
        (3000, 1500), "no middleware, queue_prefetch 500; 1 worker thread, 8 for PostgreSQL", "yes: heartbeats"
    ),
    "celery": Queue(
        (2000, 800),
        "Redis broker, results ignored, no gossip, mingle or heartbeat, prefetch 1000; solo pool, 8 threads for "
        "PostgreSQL",
        "only with acks_late",
    ),
    "huey": Queue((4000, 1500), "`RedisHuey`, no results; 1 worker thread, 8 for PostgreSQL", "no"),
    "arq": Queue(
        (3000, 1500),
        f"max_jobs {TASKS}, poll_delay 10 ms, no results; a newer redis-py than it declares; psycopg's asyncio "
        "connections",
        "yes",
    ),
    "saq": Queue((3000, 1500), f"concurrency {TASKS}, job info not kept; psycopg's asyncio connections", "yes: sweep"),
}


def _orders(jobs):
    return [
        {"order_id": f"o-{number}", "goods_id": GOODS, "buyer_id": f"b-{number}", "quantity": 1}
        for number in range(jobs)
    ]


def _enqueue(jobs, send):
    begin = time.perf_counter()
    for order in _orders(jobs):
        send(order)
    handler.enqueued(time.perf_counter() - begin)


async def _enqueue_async(jobs, send):
    begin = time.perf_counter()
    for order in _orders(jobs):
        await send(order)
    handler.enqueued(time.perf_counter() - begin)


# -- ours -----------------------------------------------------------------------------------------------------------


class _Progress:
    """An observer that hears of every batch a worker has settled."""

    def outcome(self, goods_id, outcome):
        pass

    def batch(self, size, wait):
        pass

    def lag(self, orders, seconds):
        handler.done(orders)


def flashsale(port, jobs, uri, layout=None):
    from flashsale import FlashSale, Goods, Order, Worker

    store = None
    if uri:
        from flashsale.stores import SQLAlchemyStore

        store = SQLAlchemyStore(uri, SALE)
        store.create_all()
        store.put_goods(Goods(GOODS, ENDLESS))
    with redis.Redis(HOST, port) as client, FlashSale(client, SALE, store=store, observer=_Progress()) as sale:
        orders = [Order(**order) for order in _orders(jobs)]
        if not layout:  # `push` is the same in all
            begin = time.perf_counter()
            for order in orders[:2000]:
                sale.queue.push(order)
            handler.enqueued((time.perf_counter() - begin) * jobs / len(orders[:2000]))
        _sell(client, sale, orders, layout)
        if uri:
            Worker(sale).run()
        while True:
            claims = sale.queue.claim(500)
            for claim in claims:
                handler.nothing(claim.order)
            sale.queue.ack(claims)
            handler.done(len(claims))


def flashsale_aio(port, jobs, uri, layout=None):
    from flashsale import FlashSale, Goods, Order, aio

    async def run():
        store = None
        if uri:
            from flashsale.aio.stores import SQLAlchemyStore

            store = SQLAlchemyStore(uri, SALE)
            await store.create_all()
            await store.put_goods(Goods(GOODS, ENDLESS))
        with redis.Redis(HOST, port) as client, FlashSale(client, SALE) as sale:
            _sell(client, sale, [Order(**order) for order in _orders(jobs)], layout)
        async with (
            redis.asyncio.Redis(host=HOST, port=port) as client,
            aio.FlashSale(client, SALE, store=store, observer=_Progress()) as sale,
        ):
            if uri:
                never = asyncio.Event()
                await asyncio.gather(aio.Worker(sale).run(never), aio.Worker(sale).run(never))
            await asyncio.gather(consume(sale.queue), consume(sale.queue))

    async def consume(queue):
        while True:
            claims = await queue.claim(250)
            for claim in claims:
                handler.nothing(claim.order)
            await queue.ack(claims)
            handler.done(len(claims))

    asyncio.run(run())


def _sell(client, sale, orders, layout):
    """Queues orders in a new sale, which has the newest layout unless another is named."""
    client.flushall()
    sale.preload(GOODS, ENDLESS)
    if layout:
        client.hset(sale.keys.meta, "layout", layout)
    for first in range(0, len(orders), 1000):
        sale.inventory.reserve(orders[first : first + 1000])


# -- the others -----------------------------------------------------------------------------------------------------


def brpop(port, jobs, uri, threads=1):
    def consume():
        while True:
            _, body = client.brpop("orderList")
            handler.handle(json.loads(body))

    with redis.Redis(HOST, port) as client:
        _enqueue(jobs, lambda order: client.lpush("orderList", json.dumps(order)))
        for _ in range(threads - 1):
            threading.Thread(target=consume).start()
        consume()


def brpop_threads(port, jobs, uri):
    brpop(port, jobs, uri, THREADS if uri else 2)


def rq(port, jobs, uri):
    from rq import Queue, SimpleWorker

    with redis.Redis(HOST, port) as client:
        queue = Queue("bench", connection=client)
        _enqueue(jobs, lambda order: queue.enqueue(handler.handle, order, result_ttl=0))
        SimpleWorker([queue], connection=client, log_job_description=False).work(logging_level="ERROR")


def dramatiq(port, jobs, uri):
    import os

    os.environ["dramatiq_queue_prefetch"] = "500"  # noqa: SIM112 - its name
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=f"redis://{HOST}:{port}", middleware=[])
    actor = dramatiq.actor(handler.handle, broker=broker)
    _enqueue(jobs, actor.send)
    dramatiq.Worker(broker, worker_threads=THREADS if uri else 1).start()
    threading.Event().wait()


def celery(port, jobs, uri):
    from celery import Celery

    app = Celery("bench", broker=f"redis://{HOST}:{port}/0")
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=1000,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,  # the handler prints the figures
    )
    task = app.task(handler.handle)
    _enqueue(jobs, task.delay)
    pool = ["--pool=threads", f"--concurrency={THREADS}"] if uri else ["--pool=solo", "--concurrency=1"]
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    app.worker_main(["--quiet", "worker", *pool, *alone])


def huey(port, jobs, uri):
    from huey import RedisHuey

    queue = RedisHuey("bench", results=False, host=HOST, port=port)
    task = queue.task()(handler.handle)
    _enqueue(jobs, task)
    queue.create_consumer(workers=THREADS if uri else 1, periodic=False, check_worker_health=False).run()


def arq(port, jobs, uri):
    import arq.connections
    import arq.worker

    async def handle(_context, order):
        await handler.handle_async(order)

    async def run():
        pool = await arq.create_pool(arq.connections.RedisSettings(HOST, port))
        await _enqueue_async(jobs, lambda order: pool.enqueue_job("handle", order))
        function = arq.worker.func(handle, name="handle", keep_result=0)
        worker = arq.Worker([function], redis_pool=pool, max_jobs=TASKS, poll_delay=0.01, log_results=False)
        await worker.async_run()

    asyncio.run(run())


def saq(port, jobs, uri):
    import saq
    from saq.queue.redis import RedisQueue

    async def handle(_context, *, order):
        await handler.handle_async(order)

    async def run():
        client = redis.asyncio.Redis(host=HOST, port=port, max_connections=3 * TASKS)
        queue = RedisQueue(client, max_concurrent_ops=TASKS)
        await _enqueue_async(jobs, lambda order: queue.enqueue("handle", order=order, ttl=-1))
        await saq.Worker(queue, [("handle", handle)], concurrency=TASKS).start()

    asyncio.run(run())


RUNS = {"flashsale": flashsale, "flashsale.aio": flashsale_aio, "BRPOP": brpop, "BRPOP, threads": brpop_threads}
RUNS |= {f"{peer}, layout 1": partial(RUNS[peer], layout=1) for peer in ("flashsale", "flashsale.aio")}
RUNS |= {"rq": rq, "dramatiq": dramatiq, "celery": celery, "huey": huey, "arq": arq, "saq": saq}


def main(peer, port, jobs, uri=""):
    logging.basicConfig(level=logging.ERROR)
    handler.prepare(int(jobs), "" if peer.startswith("flashsale") else uri)
    RUNS[peer](int(port), int(jobs), uri)


if __name__ == "__main__":
    main(*sys.argv[1:])
