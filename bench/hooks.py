"""What a hook costs: a worker drains orders from Redis into PostgreSQL, with and without a row of the shop's for each.

    python -m bench.hooks

The hook inserts the rows of a batch by one executemany, or by one statement. Ways take turns; the figures are medians.
"""

from __future__ import annotations

import statistics
import time

import redis
from sqlalchemy import text

from flashsale import FlashSale, Goods, Order, Worker
from flashsale.stores import SQLAlchemyStore
from tests.support import servers

ORDERS, BATCH, ROUNDS = 20_000, 500, 5
TABLE = "CREATE TABLE shop_orders (order_id text PRIMARY KEY, buyer_id text, sku text, units int, status text)"
MANY = text("INSERT INTO shop_orders VALUES (:order_id, :buyer_id, :sku, :units, 'new')")
UNNEST = text(
    "INSERT INTO shop_orders SELECT *, 'new' FROM unnest(CAST(:ids AS text[]), CAST(:buyers AS text[]),"
    " CAST(:skus AS text[]), CAST(:units AS int[]))"
)


class Executemany:
    def saved(self, connection, orders):
        connection.execute(
            MANY,
            [
                {"order_id": one.order_id, "buyer_id": one.buyer_id, "sku": one.goods_id, "units": one.quantity}
                for one in orders
            ],
        )


class Unnest:
    def saved(self, connection, orders):
        columns = zip(*((one.order_id, one.buyer_id, one.goods_id, one.quantity) for one in orders), strict=True)
        connection.execute(UNNEST, dict(zip(("ids", "buyers", "skus", "units"), map(list, columns), strict=True)))


def drain(server, client, hooks) -> float:
    """Returns orders a second."""
    client.flushall()
    with server.database() as url, SQLAlchemyStore(url, "bench", hooks=hooks) as store:
        store.create_all()
        with store.transaction() as connection:
            connection.execute(text(TABLE))
        store.put_goods(Goods("phone", ORDERS))
        with FlashSale(client, "bench", store=store) as sale:
            sale.preload("phone", ORDERS)
            for at in range(0, ORDERS, BATCH):
                orders = [Order(f"order-{at + n:08}", "phone", f"buyer-{at + n:08}", 1) for n in range(BATCH)]
                sale.inventory.reserve(orders)
            worker, began, done = Worker(sale, batch=BATCH), time.perf_counter(), 0
            while done < ORDERS:
                done += worker.run_once()
            return ORDERS / (time.perf_counter() - began)


def main() -> None:
    ways = {
        "no hook": None,
        "a row an order, executemany": Executemany(),
        "a row an order, unnest": Unnest(),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with servers.postgres() as server, servers.redis_server() as store, redis.Redis(port=store.port) as client:
        for _ in range(ROUNDS):
            for name, hooks in ways.items():
                rates[name].append(drain(server, client, hooks))
    without = statistics.median(rates["no hook"])
    print("| way | orders a second | of the drain without |\n|---|---|---|")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"| {name} | {rate:,.0f} | {rate / without:.0%} |")


if __name__ == "__main__":
    main()
