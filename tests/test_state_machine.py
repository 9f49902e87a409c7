from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis.stateful import run_state_machine_as_test

from tests.machine import database, machine

EXAMPLES, STEPS = (500, 100) if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else (55, 50)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", [("fakeredis", False), ("redis", True)], ids=["fakeredis", "redis"], indirect=True)
def test_sale_agrees_with_its_model(backend, record_property):
    engine = database()
    sale = machine(backend, engine)
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(sale, settings=settings)
    finally:
        engine.dispose()
    record_property("steps", sale.steps)
    record_property("crashes", sale.crashed)
    print(sale.steps, sale.crashed)
    assert sale.steps > 2500
