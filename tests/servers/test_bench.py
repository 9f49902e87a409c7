"""What the bench does with a server of its own: a sale in either layout."""

from __future__ import annotations

import pytest

from bench import script_cost
from bench.peers import consumers
from bench.servers import SALE, redis_server
from flashsale import FlashSale, Order


@pytest.mark.parametrize(("layout", "leases"), [(None, 1), (1, 3)])
def test_the_queue_is_measured_in_the_layout_that_is_named(layout: int | None, leases: int) -> None:
    with redis_server() as bed, FlashSale(bed.client, SALE) as sale:
        consumers._sell(bed.client, sale, [Order(f"o-{n}", "phone", "ann", 1) for n in range(3)], layout)
        assert len(sale.queue.claim(3)) == 3
        assert bed.client.zcard(sale.keys.leases) == leases


@pytest.mark.parametrize("layout", script_cost.LAYOUTS)
def test_each_script_has_its_cost_in_each_layout(layout: int) -> None:
    with redis_server() as bed:
        found = script_cost.best(bed, "plain", layout, windows=1)
    assert found.keys() == {"reserve", "claim", "ack"}
    assert all(cost > 0 for cost in found.values())
