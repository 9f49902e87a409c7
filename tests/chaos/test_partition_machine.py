"""A sale over partitions against the model of its units, step by step and crash by crash; and what that found.

`HYPOTHESIS_PROFILE=nightly` makes many more steps of it.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis.stateful import run_state_machine_as_test

from tests.support.machine import database
from tests.support.partition_machine import machine

pytestmark = pytest.mark.one_server
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
EXAMPLES, STEPS = (1500, 50) if NIGHTLY else (16, 20)


@pytest.mark.timeout(0 if NIGHTLY else 600)  # a failure is shrunk, which takes minutes
@pytest.mark.parametrize("backend", [("fakeredis", False), ("redis", True)], ids=["fakeredis", "redis"], indirect=True)
def test_the_units_do_what_their_model_does(backend, record_property):
    engine = database()
    sale = machine(backend, engine)
    is_slow = backend.kind == "fakeredis" and not NIGHTLY
    examples = EXAMPLES // 4 if is_slow else EXAMPLES
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=not NIGHTLY,  # only the nightly run searches: no change fails by an older fault
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(sale, settings=settings)
    finally:
        engine.dispose()
        print(f"{sale.steps} steps, {sale.crashed} crashes, {sale.resent} late messages, {sale.sold_out} sold out")
    record_property("steps", sale.steps)
    record_property("crashes", sale.crashed)
    assert sale.steps >= examples * STEPS * 0.5  # a rule is several steps, or none


def test_a_total_below_what_is_sold_is_set_back_before_a_rebuild(backend):
    """Found by the machine: the order that waited was rejected, and its slot stayed at the gate."""
    engine = database()
    sale = machine(backend, engine)()
    try:
        sale.begin(partitions=2, caches=(0.0, 0.0), total=2, in_turn=False, spread_out=False)
        sale.some_steps(steps=[(0, ("buy", 0, -1), {}), (0, ("restock", 18, -3), {})])
        sale.a_partition_is_emptied(buyers=[], dies=False, place=1, where=(2, False))
    finally:
        sale.teardown()  # sells out and compares, unless a step has failed; and undoes the patches
        engine.dispose()
