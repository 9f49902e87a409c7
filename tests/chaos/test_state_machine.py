"""The sale against its model, step by step and crash by crash; and what that found, one scenario each.

`HYPOTHESIS_PROFILE=nightly` makes 100,000 steps of it.
"""

from __future__ import annotations

import contextlib
import os

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis.stateful import run_state_machine_as_test

from flashsale import FlashSale, Goods, Order, OrderState, Outcome, Syncer
from tests.support.machine import Crash, Faults, Store, database, machine
from tests.support.scenes import Scene

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
EXAMPLES, STEPS = (750, 100) if NIGHTLY else (80, 50)


@pytest.mark.timeout(0 if NIGHTLY else 600)  # a failure is shrunk, which takes minutes
@pytest.mark.parametrize("backend", [("fakeredis", False), ("redis", True)], ids=["fakeredis", "redis"], indirect=True)
def test_the_sale_does_what_its_model_does(backend, record_property):
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
        print(f"{sale.steps} steps, {sale.crashed} crashes")
    record_property("steps", sale.steps)
    record_property("crashes", sale.crashed)
    assert sale.steps >= EXAMPLES * STEPS * 0.7  # Hypothesis ends a few examples early


# -- what it found ---------------------------------------------------------------------------------------------------


def test_a_restock_of_the_row_moves_stock_and_gate(backend):
    """The syncer met the gate with its old count, and failed on every pass from then on."""
    with Scene(backend) as scene:
        scene.store.put_goods(Goods("a", 5))
        assert scene.syncer.run_once().resized == (("a", 5),)
        assert scene.sale.gate.state("a").count == 5


def test_a_crash_between_stock_and_guard_does_not_leave_the_guard_loose(backend):
    """Total was lowered, `granted` was not, and no later pass looked at it again."""
    with Scene(backend, total=5) as scene:
        scene.store.put_goods(Goods("a", 3))
        faults = Faults()
        scene.sale.store = Store(scene.store, faults, set())
        dying = Syncer(scene.sale)
        faults.crash = (2, False)  # goods(), grant(5), then grant(3)
        with contextlib.suppress(Crash):
            dying.run_once()
        assert scene.sale.inventory.stock("a").total == 3
        scene.sale.store = scene.store
        Syncer(scene.sale).run_once()
        scene.store.save([Order(f"o{number}", "a", "ann", 1) for number in range(5)])
        assert scene.row_units() == 3


def test_a_cap_that_comes_later_counts_what_is_bought_under_it(backend):
    """Cancelling what was bought before gave back allowance that had never been taken: four units instead of two."""
    with Scene(backend, total=9) as scene:
        assert scene.sale.buy("a", "ann", 2, order_id="before").accepted
        scene.store.put_goods(Goods("a", 9, per_buyer=2))
        scene.syncer.run_once()
        assert scene.sale.buy("a", "ann", 2, order_id="under").accepted
        scene.sale.cancel("before")
        assert scene.sale.buy("a", "ann", 1).outcome is Outcome.LIMIT_REACHED


def test_cancelling_what_was_sold_out_says_rejected_everywhere(backend):
    """The worker died between adopting and telling the database; the buyer cancelled: two states for one order."""
    with Scene(backend) as scene:
        assert scene.sale.buy("a", "ann", 2).accepted
        order = Order("late", "a", "bob", 1)
        scene.sale.queue.push(order)
        scene.sale._ledger.adopt([order])
        assert scene.sale.cancel("late") is OrderState.REJECTED
        assert scene.store.states(["late"]) == {"late": OrderState.REJECTED}
        assert scene.sale.status("late") is OrderState.REJECTED


def test_slots_of_a_gate_elsewhere_return_with_a_release_and_only_then(backend):
    """On two Redises a cancellation failed as corrupt, and paying gave the slot back."""
    with Scene(backend, two=True) as scene:
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        scene.worker.run_once()
        assert scene.sale.confirm("o1") is OrderState.CONFIRMED
        assert scene.sale.gate.state("a").access == 1
        assert scene.sale.cancel("o1") is OrderState.CANCELLED
        assert scene.sale.gate.state("a").access == 0
        assert scene.booked() == 0


def test_an_old_row_does_not_move_the_guard(backend):
    """A syncer that had read the row before a restock granted the old total over the new one: orders were refused."""
    with Scene(backend, total=5) as scene:
        (late,) = scene.store.goods()
        assert scene.sale.restock("a", 3) == 8
        assert scene.store.grant("a", 5, version=late.version) is False
        scene.sale._transitions.adjust(late, scene.sale.inventory.stock("a"))
        assert scene.sale.buy("a", "ann", 8, order_id="o1").accepted
        scene.worker.run_once()
        assert scene.sale.status("o1") is OrderState.PERSISTED


def test_a_basket_of_old_and_new_orders_books_nothing(backend):
    """It was told to be a conflict, and the new orders were booked all the same."""
    with Scene(backend) as scene:
        old, new = Order("o1", "a", "ann", 1), Order("o2", "a", "ann", 1)
        scene.sale.inventory.reserve([old])
        answers = scene.sale.inventory.answer([old, new], together=True)
        assert [type(answer).__name__ for answer in answers] == ["OrderConflict"] * 2
        assert scene.booked() == 1


def test_the_article_and_its_script_stay_in_the_sums(backend):
    """A second process on the same Redis sees what the first one sold, to the unit."""
    with Scene(backend) as scene, FlashSale(backend.client(), "s", store=scene.store, cache_for=0) as other:
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        assert other.buy("a", "ann", order_id="o1").replayed
        assert other.inventory.deduct("a") == 1
        assert scene.sale.buy("a", "bob").outcome is Outcome.SOLD_OUT
