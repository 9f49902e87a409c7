"""What `reserve`, `claim` and `ack` cost Redis for each order, in full calls, in both layouts.

python -m bench.script_cost [windows]

Read from `INFO commandstats`; the best of many short windows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench.servers import SALE, Bed, redis_server
from bench.wire import BATCH
from flashsale import FlashSale, Order

CALLS = 10  # of one window
LAYOUTS = (1, 2)
KINDS = {  # of a batch: whether there is a cap, whether orders carry data, how many items
    "plain": (None, None, 1),
    "with a cap": (1000, None, 1),
    "with data": (None, {"colour": "green"}, 1),
    "with a cap, data, 4 goods": (1000, {"colour": "green"}, 4),
}


def costs(bed: Bed, sale: FlashSale, data: object, goods: int, window: str) -> dict[str, float]:
    """Returns, for each script, the microseconds of Redis for each order of one window."""
    numbers = range(CALLS * BATCH)
    orders = [Order(f"{window}-{n:x}", f"goods-{n % goods}", f"b-{window}-{n:x}", 1, data=data) for n in numbers]
    claims = []
    return {
        "reserve": _cost(bed, lambda: sale.inventory.reserve(orders)),
        "claim": _cost(bed, lambda: claims.extend(sale.queue.claim(BATCH) for _ in range(CALLS))),
        "ack": _cost(bed, lambda: [sale.queue.ack(claim) for claim in claims]),
    }


def _cost(bed: Bed, act: Callable[[], object]) -> float:
    """Returns microseconds of Redis for each order of so many full calls."""
    bed.client.config_resetstat()
    act()
    stats = bed.client.info("commandstats")["cmdstat_evalsha"]
    assert stats["calls"] == CALLS
    return float(stats["usec"] / (CALLS * BATCH))


def best(bed: Bed, kind: str, layout: int, windows: int) -> dict[str, float]:
    """Returns the lowest costs, each of all windows."""
    cap, data, goods = KINDS[kind]
    found = []
    for window in range(windows):
        bed.client.flushall()
        with FlashSale(bed.client, SALE) as sale:
            for number in range(goods):
                sale.preload(f"goods-{number}", 10**9, per_buyer=cap)
            bed.client.hset(sale.keys.meta, "layout", layout)
            found.append(costs(bed, sale, data, goods, str(window)))
    return {script: min(each[script] for each in found) for script in found[0]}


def main() -> None:
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with redis_server() as bed:
        for kind in KINDS:
            for layout in LAYOUTS:
                parts = (f"{script} {cost:.2f}" for script, cost in best(bed, kind, layout, windows).items())
                print(f"{kind}, layout {layout}: {', '.join(parts)} us an order")


if __name__ == "__main__":
    main()
