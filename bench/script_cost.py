"""What `reserve` costs Redis for each order, in full calls: `INFO commandstats`, the best of many short windows.

python -m bench.script_cost [windows]
"""

from __future__ import annotations

import sys

from bench.servers import SALE, Bed, redis_server
from bench.wire import BATCH
from flashsale import FlashSale, Order

CALLS = 10  # of one window
KINDS = {  # of a batch: whether there is a cap, whether orders carry data, how many items
    "plain": (None, None, 1),
    "with a cap": (1000, None, 1),
    "with data": (None, {"colour": "green"}, 1),
    "with a cap, data, 4 goods": (1000, {"colour": "green"}, 4),
}


def cost(bed: Bed, sale: FlashSale, data: object, goods: int, window: str) -> float:
    """Returns microseconds of Redis for each order of one window."""
    numbers = range(CALLS * BATCH)
    orders = [Order(f"{window}-{n:x}", f"goods-{n % goods}", f"b-{window}-{n:x}", 1, data=data) for n in numbers]
    bed.client.config_resetstat()
    sale.inventory.reserve(orders)
    stats = bed.client.info("commandstats")["cmdstat_evalsha"]
    assert stats["calls"] == CALLS
    return float(stats["usec"] / len(orders))


def main() -> None:
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with redis_server() as bed:
        for kind, (cap, data, goods) in KINDS.items():
            costs = []
            for window in range(windows):
                bed.client.flushall()
                with FlashSale(bed.client, SALE) as sale:
                    for number in range(goods):
                        sale.preload(f"goods-{number}", 10**9, per_buyer=cap)
                    costs.append(cost(bed, sale, data, goods, str(window)))
            print(f"{kind}: {min(costs):.2f} us an order")


if __name__ == "__main__":
    main()
