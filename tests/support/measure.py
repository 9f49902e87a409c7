"""What a sale costs: bytes of Redis for an order, the time to rebuild a sale, its report, and its recorder.

    python -m tests.support.measure --memory 20000 --rebuild 1000000
    python -m tests.support.measure --memory 0 --rebuild 0 --report 1000000 --recorder 4

Nothing here is a test: the numbers are of the machine that runs it.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import pstats
import random
import resource
import sys
import time
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import redis

from flashsale import FlashSale, Goods, Keys, Order, StoredOrder, Syncer, Worker
from flashsale._rules.activity import Activity
from flashsale.ops.folding import OrderStats
from flashsale.ops.report import render
from flashsale.stores import SQLAlchemyStore
from tests.support import evidence, servers

if TYPE_CHECKING:
    from collections.abc import Sequence

SALE = "measure"
GOODS = "phone"
ROWS = """
INSERT INTO flashsale_orders (sale, order_id, goods_id, buyer_id, quantity, state, created_at)
SELECT '{sale}', md5(n::text), '{goods}', 'buyer-' || lpad(n::text, 10, '0'), 1,
       CASE WHEN mod(n, 20) = 0 THEN 'CANCELLED' WHEN mod(n, 2) = 0 THEN 'CONFIRMED' ELSE 'PERSISTED' END,
       1700000000 + n / 1e4
FROM generate_series(1, {count}) AS n
"""
TIMES = "UPDATE flashsale_orders SET persisted_at = created_at + 0.4, settled_at = created_at + 60"
BOOKED = """
UPDATE flashsale_goods SET loaded = true, booked =
    (SELECT sum(quantity) FROM flashsale_orders WHERE sale = '{sale}' AND state <> 'CANCELLED')
"""


def memory(count: int, server: servers.RedisServer, database_url: str, depth: int, **policy: float) -> None:
    """Prints what queued and persisted orders take, by the server's own counters.

    Args:
        count: orders.
        server: a Redis, which is emptied.
        database_url: of an empty database.
        depth: the server's `list-compress-depth`.
        policy: of the item.
    """
    raw, keys = server.client(), Keys(SALE)
    raw.flushall()
    raw.config_set("list-compress-depth", depth)
    named = (keys.orders, keys.order_list, keys.claimed, keys.leases, keys.holds, keys.buyers(GOODS))
    with SQLAlchemyStore(database_url, SALE) as store, FlashSale(raw, SALE, store=store) as sale:
        store.create_all()
        store.put_goods(Goods(GOODS, count, **policy))
        Syncer(sale).run_once()
        worker = Worker(sale, batch=500)
        sale.inventory.reserve([_order(0)])
        worker.run_once()  # scripts, connections and small keys are there before we look
        before, steps = _used(raw), []
        for start in range(1, count, 1000):
            sale.inventory.reserve([_order(number) for number in range(start, min(count, start + 1000))])
        steps.append(("queued", _used(raw) - before, _by_key(raw, named)))
        while worker.run_once():
            pass
        steps.append(("persisted", _used(raw) - before, _by_key(raw, named)))
    what = ", ".join(f"{name}={value:g}" for name, value in policy.items()) or "no cap, no deadline"
    what += f", list-compress-depth {depth}"
    print(f"{count - 1:,} orders, one unit each, order ids of 32 and buyer ids of 16 characters; {what}")
    for state, used, by_key in steps:
        parts = ", ".join(f"{key.rpartition(':')[2]} {size / count:.0f}" for key, size in by_key.items() if size > 1000)
        print(f"  {state:<10} {used / (count - 1):6.0f} bytes an order (used_memory); by MEMORY USAGE: {parts}")


def _order(number: int) -> Order:
    chance = random.Random(number)
    return Order(f"{chance.getrandbits(128):032x}", GOODS, f"buyer-{chance.randrange(10**10):010}", 1)


def _used(raw: redis.Redis) -> int:
    raw.memory_purge()
    return int(raw.info("memory")["used_memory"])


def _by_key(raw: redis.Redis, keys: Sequence[str]) -> dict[str, int]:
    return {key: raw.memory_usage(key, samples=0) or 0 for key in keys}


def rebuild(count: int, server: servers.RedisServer, database_url: str, *, profile: bool, **policy: float) -> None:
    """Fills the tables with SQL, rebuilds an empty Redis from them, and prints how long that took."""
    raw, keys = server.client(), Keys(SALE)
    raw.flushall()
    with SQLAlchemyStore(database_url, SALE) as store, FlashSale(raw, SALE, store=store) as sale:
        store.create_all()
        store.put_goods(Goods(GOODS, count, **policy))
        began = time.perf_counter()
        with store.transaction() as connection:
            connection.exec_driver_sql("TRUNCATE flashsale_orders")
            connection.exec_driver_sql(ROWS.format(sale=SALE, goods=GOODS, count=count))
            connection.exec_driver_sql(BOOKED.format(sale=SALE))
            connection.exec_driver_sql("ANALYZE flashsale_orders")
        print(f"{count:,} rows written in {time.perf_counter() - began:.1f} s")
        profiler = cProfile.Profile()
        began, cpu = time.perf_counter(), time.process_time()
        if profile:
            profiler.enable()
        report = Syncer(sale).rebuild()
        profiler.disable()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        server_cpu = sum(float(raw.info("cpu")[name]) for name in ("used_cpu_user", "used_cpu_sys"))
        booked = int(raw.hget(keys.stock(GOODS), "Booked") or 0)
        assert (report.orders, report.goods[GOODS]) == (count, booked) == (raw.hlen(keys.orders), count - count // 20)
    print(
        f"rebuilt {report.orders:,} orders in {seconds:.1f} s: {report.orders / seconds:,.0f} orders/s "
        f"({booked:,} units booked, {_used(raw) / 2**20:.0f} MiB of Redis; CPU of this process {cpu:.1f} s, "
        f"of Redis so far {server_cpu:.1f} s)"
    )
    if profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(35)


def report(count: int, database_url: str) -> None:
    """Fills the table with SQL, folds it page by page, renders the report, and prints what that took."""
    stats = OrderStats()
    with SQLAlchemyStore(database_url, SALE, timeout=600.0) as store:
        store.create_all()
        with store.transaction() as connection:
            connection.exec_driver_sql(ROWS.format(sale=SALE, goods=GOODS, count=count))
            if "persisted_at" in {field.name for field in fields(StoredOrder)}:
                connection.exec_driver_sql(TIMES)
            connection.exec_driver_sql("ANALYZE flashsale_orders")
        before, began, cpu, last = _peak(), time.perf_counter(), time.process_time(), None
        while page := store.orders(after=last, limit=1000):
            stats.add(page)
            last = page[-1].order.order_id
        html = render(replace(evidence.evidence(), orders=stats), zone=evidence.ZONE)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"report of {count:,} orders in {seconds:.1f} s (CPU of this process {cpu:.1f} s), {len(html):,} bytes; "
        f"this process takes {_peak():.0f} MiB at most, {before:.0f} MiB before"
    )


def recorder(hours: int, server: servers.RedisServer) -> None:
    """Writes what the recorder writes in so many hours of a sale of one item, and prints what that takes in Redis."""
    raw, keys, began = server.client(), Keys(SALE), 1_700_000_000
    raw.flushall()
    with raw.pipeline(transaction=False) as pipe:
        for second in range(hours * 3600):
            lag = f"{second % 7}.{second % 1000:03}"
            pipe.rpush(keys.samples(GOODS), f"{began + second}.123|20000|{second}|{second}|{second % 5000}|500|0|{lag}")
        for minute in range(began // 60, began // 60 + hours * 60):
            pipe.zadd(keys.minutes, {str(minute): minute})
            pipe.hset(keys.stats_of(minute), mapping={f"{GOODS}-{n}|SOLD_OUT": 10_000 + n for n in range(30)})
        for number in range(100):
            told = Activity("web").told()[0]
            pipe.hset(keys.processes, f"web web-{number}:{20_000 + number}", f"{began}.123456||{told}")
        pipe.execute()
    minutes = [key.decode() for key in raw.keys(keys.stats_of(0)[:-1] + "*")]
    for what, names in {
        "samples of an item": [keys.samples(GOODS)],
        "minutes of 30 names": [keys.minutes, *minutes],
        "100 processes": [keys.processes],
    }.items():
        taken = sum(raw.memory_usage(name, samples=0) or 0 for name in names)
        print(f"{hours} h: {what} {taken / 2**20:.2f} MiB")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.measure",
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--memory", type=int, default=20_000, metavar="N", help="orders to weigh; 0: none (20000)")
    add("--rebuild", type=int, default=1_000_000, metavar="N", help="orders to rebuild; 0: none (1000000)")
    add("--report", type=int, default=0, metavar="N", help="orders to report; 0: none (0)")
    add("--recorder", type=int, default=0, metavar="H", help="hours of the recorder to weigh; 0: none (0)")
    add("--hold", type=float, metavar="S", help="rebuild goods with a payment deadline")
    add("--per-buyer", type=int, metavar="N", help="rebuild goods with a buyer's limit")
    add("--profile", action="store_true", help="show where the time of the rebuild goes; slows it")
    options = parser.parse_args(argv)
    given = {"hold": options.hold, "per_buyer": options.per_buyer}
    policy = {name: value for name, value in given.items() if value is not None}
    with servers.redis_server() as server, servers.postgres() as postgres:
        if options.memory:
            for each, depth in itertools.product(({}, {"per_buyer": 1, "hold": 900.0}), (0, 1)):
                with postgres.database() as database_url:
                    memory(options.memory, server, database_url, depth, **each)
        if options.rebuild:
            with postgres.database() as database_url:
                rebuild(options.rebuild, server, database_url, profile=options.profile, **policy)
        if options.recorder:
            recorder(options.recorder, server)
        if options.report:
            with postgres.database() as database_url:
                report(options.report, database_url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
