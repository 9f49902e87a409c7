"""Ways to insert a batch of orders into PostgreSQL through SQLAlchemy, each with the guard in the same transaction.

    python -m bench.inserts

The process runs on one core, PostgreSQL on all. Ways take turns; the figures are medians.
"""

from __future__ import annotations

import json
import resource
import time

from sqlalchemy import create_engine, insert, text, update
from sqlalchemy.dialects import postgresql

from bench import harness
from bench.servers import ENDLESS, GOODS, SALE, postgres
from flashsale import Order, OrderState
from flashsale._rules.rows import order_values
from flashsale._sql import tables

ORDERS, BATCH, ROUNDS = 20_000, 500, 5
COMMON = {"sale": SALE, "state": OrderState.PERSISTED.value}
KEY = [tables.ORDERS.c.sale, tables.ORDERS.c.order_id]
SKIP = postgresql.insert(tables.ORDERS).on_conflict_do_nothing(index_elements=KEY)
COLUMNS = "order_id, goods_id, buyer_id, quantity, created_at, data"
TYPED = "order_id text, goods_id text, buyer_id text, quantity int, created_at float8, data text"
INTO = f"INSERT INTO flashsale_orders (sale, state, {COLUMNS}) SELECT :sale, :state, {COLUMNS} FROM "
NEW = " ON CONFLICT (sale, order_id) DO NOTHING RETURNING order_id"
JSON = text(f"{INTO} json_to_recordset(CAST(:rows AS json)) AS r({TYPED}) {NEW}")
STAGE = text(f"CREATE TEMP TABLE IF NOT EXISTS stage ({TYPED}) ON COMMIT DELETE ROWS")
FROM_STAGE = text(f"{INTO} stage {NEW}")


def _own(orders):
    return [order_values(order) for order in orders]


def _executemany(connection, orders):
    connection.execute(SKIP, tables.whole(COMMON, _own(orders)))


def _insertmanyvalues(connection, orders):
    return connection.execute(SKIP.returning(KEY[1]), tables.whole(COMMON, _own(orders))).scalars()


def _unnest_all(connection, orders):
    rows = tables.whole(COMMON, _own(orders))
    return connection.execute(*tables.insert_new("postgresql", tables.ORDERS, {}, rows)).scalars()


def _unnest(connection, orders):
    return connection.execute(*tables.insert_new("postgresql", tables.ORDERS, COMMON, _own(orders))).scalars()


def _json(connection, orders):
    rows = json.dumps(_own(orders))
    return connection.execute(JSON, {**COMMON, "rows": rows}).scalars()


def _copy(connection, orders):
    connection.execute(STAGE)
    with (
        connection.connection.driver_connection.cursor() as cursor,
        cursor.copy(f"COPY stage ({COLUMNS}) FROM STDIN") as copy,
    ):
        for row in _own(orders):
            copy.write_row(tuple(row.values()))
    return connection.execute(FROM_STAGE, COMMON).scalars()


WAYS = {
    "executemany, does not say which rows are new": _executemany,
    "insertmanyvalues": _insertmanyvalues,
    "unnest, an array for each column": _unnest_all,
    "unnest, sale and state as one value each": _unnest,
    "json_to_recordset": _json,
    "COPY into a temporary table, then INSERT ... SELECT": _copy,
}


def _cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _measure(engine, way):
    """Returns rows a second, and microseconds of this process for each row."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE flashsale_orders, flashsale_goods"))
        goods = {"total": ENDLESS, "granted": ENDLESS, "booked": 0, "version": 0, "loaded": True}
        connection.execute(insert(tables.GOODS).values(sale=SALE, goods_id=GOODS, **goods))
    booked = tables.GOODS.c.booked + BATCH
    guard = update(tables.GOODS).where(booked <= tables.GOODS.c.granted).values(booked=booked)
    orders = [Order(f"o-{n}", GOODS, f"b-{n}", 1, 1_700_000_000.5 + n) for n in range(ORDERS)]
    begin, used = time.perf_counter(), _cpu()
    for first in range(0, ORDERS, BATCH):
        with engine.begin() as connection:
            new = way(connection, orders[first : first + BATCH])
            if new is not None and len(set(new)) < BATCH:
                raise AssertionError("rows are missing")
            connection.execute(guard)
    return ORDERS / (time.perf_counter() - begin), 1e6 * (_cpu() - used) / ORDERS


def main():
    figures = {name: [] for name in WAYS}
    with postgres() as server, server.database() as uri, harness.on(harness.CLIENT):
        engine = create_engine(uri.replace("postgresql:", "postgresql+psycopg:", 1), isolation_level="READ COMMITTED")
        tables.METADATA.create_all(engine)
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                figures[name].append(_measure(engine, way))
        engine.dispose()
    print("| way | rows a second | µs of the client for each row |\n|---|---|---|")
    for name, rounds in figures.items():
        rate, cpu = (harness.median(each) for each in zip(*rounds, strict=True))
        print(f"| {name} | {rate:,.0f} | {cpu:.1f} |")


if __name__ == "__main__":
    main()
