"""What the index on the buyer costs: a worker drains orders from Redis into a database, with the index and without.

    python -m bench.buyer_index

The buyers' ids are random, so that the index grows everywhere. Ways take turns; the figures are medians.
"""

from __future__ import annotations

import random
import statistics
import time

import redis
from sqlalchemy import text

from flashsale import FlashSale, Goods, Order, Worker
from flashsale._sql.tables import BUYER
from flashsale.stores import SQLAlchemyStore
from tests.support import servers

ORDERS, BATCH, ROUNDS = 20_000, 500, 5
DROP = {
    "PostgreSQL": f"DROP INDEX {BUYER.name}",
    "MariaDB or MySQL": f"DROP INDEX {BUYER.name} ON flashsale_orders",
}


def drain(server, client, drop: str) -> float:
    """Returns orders a second."""
    client.flushall()
    with server.database() as url, SQLAlchemyStore(url, "bench") as store:
        store.create_all()
        if drop:
            with store.transaction() as connection:
                connection.execute(text(drop))
        store.put_goods(Goods("phone", ORDERS))
        with FlashSale(client, "bench", store=store) as sale:
            sale.preload("phone", ORDERS)
            for at in range(0, ORDERS, BATCH):
                buyers = [f"buyer-{random.getrandbits(64):016x}" for _ in range(BATCH)]
                sale.inventory.reserve([Order(f"o-{at + n:08}", "phone", buyer, 1) for n, buyer in enumerate(buyers)])
            worker, began, done = Worker(sale, batch=BATCH), time.perf_counter(), 0
            while done < ORDERS:
                done += worker.run_once()
            return ORDERS / (time.perf_counter() - began)


def main() -> None:
    print("| database | orders a second without the index | with it | cost |\n|---|---|---|---|")
    with servers.redis_server() as store, redis.Redis(port=store.port) as client:
        for name, start in (("PostgreSQL", servers.postgres), ("MariaDB or MySQL", servers.mysql)):
            rates: dict[str, list[float]] = {DROP[name]: [], "": []}
            with start() as server:
                for _ in range(ROUNDS):
                    for drop, found in rates.items():
                        found.append(drain(server, client, drop))
            without, indexed = (statistics.median(found) for found in rates.values())
            print(f"| {name} | {without:,.0f} | {indexed:,.0f} | {1 - indexed / without:.1%} |", flush=True)


if __name__ == "__main__":
    main()
