"""The handler that every queue runs: nothing, or one row into PostgreSQL. It ends the process when all is done."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time

import psycopg

SCHEMA = "CREATE TABLE orders (order_id text PRIMARY KEY, goods_id text, buyer_id text, quantity int)"
INSERT = "INSERT INTO orders VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
POOL = 8  # connections of an asyncio consumer


class _State:
    jobs = 0
    uri = ""
    began = 0.0
    enqueued = 0.0
    count = itertools.count(1)
    own = threading.local()
    pool: asyncio.Queue | None = None


def prepare(jobs: int, uri: str) -> None:
    """Sets what is to be done: with a libpq URI each job is inserted, without one nothing is."""
    _State.jobs, _State.uri = jobs, uri
    if uri:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(SCHEMA)


def enqueued(seconds: float) -> None:
    """Notes how long it took to enqueue all jobs."""
    _State.enqueued = _State.jobs / seconds


def handle(order: dict) -> None:
    """Handles one order in a thread."""
    if _State.uri:
        if not hasattr(_State.own, "connection"):
            _State.own.connection = psycopg.connect(_State.uri, autocommit=True, prepare_threshold=1)
        _State.own.connection.execute(INSERT, _values(order))
    done()


async def handle_async(order: dict) -> None:
    """Handles one order in an event loop."""
    if _State.uri:
        if _State.pool is None:
            _State.pool = asyncio.Queue()
            for _ in range(POOL):
                connect = psycopg.AsyncConnection.connect(_State.uri, autocommit=True, prepare_threshold=1)
                _State.pool.put_nowait(await connect)
        connection = await _State.pool.get()
        try:
            await connection.execute(INSERT, _values(order))
        finally:
            _State.pool.put_nowait(connection)
    done()


def nothing(order: object) -> None:
    """Gets one order of a batch that is counted as a whole."""


def _values(order):
    return order["order_id"], order["goods_id"], order["buyer_id"], order["quantity"]


def done(orders: int = 1) -> None:
    """Counts; the clock runs from the first tenth to the last order, when connections and caches are warm."""
    for number in itertools.islice(_State.count, orders):
        if number == max(1, _State.jobs // 10):
            _State.began = time.perf_counter()
        elif number == _State.jobs:
            rate = (_State.jobs - max(1, _State.jobs // 10)) / (time.perf_counter() - _State.began)
            print(json.dumps({"enqueue": _State.enqueued, "rate": rate}), flush=True)
            os._exit(0)  # no queue here ends by itself at a number of jobs
