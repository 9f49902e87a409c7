"""What `make bench` does with processes of its own: the calibration, and a sale in either layout."""

from __future__ import annotations

import pytest

from bench import script_cost
from bench.__main__ import measured
from bench.calibration import calibrate
from bench.peers import consumers
from bench.servers import SALE, redis_server
from flashsale import FlashSale, Order


def test_the_machine_is_measured_before_and_after_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("bench.__main__.calibrate", lambda: seen.append("loop") or len(seen))
    section = measured(lambda bench: seen.append("section") or {"records": []}, None)
    assert section == {"records": [], "calibration": [1, 3]}
    assert seen == ["loop", "section", "loop"]
    assert measured(lambda bench: None, None) is None  # it cannot be measured here


def test_the_calibration_takes_time() -> None:
    found = calibrate()
    assert found.keys() == {"cpu", "wall", "load"}
    assert min(found["cpu"], found["wall"]) > 0


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
