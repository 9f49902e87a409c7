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

from flashsale import FlashSale, Goods, Order, OrderConflict, OrderState, Outcome, Syncer
from tests.support.machine import Crash, Faults, Store, database, machine
from tests.support.small_sale import SmallSale

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
EXAMPLES, STEPS = (750, 100) if NIGHTLY else (30, 50)


@pytest.mark.timeout(0 if NIGHTLY else 600)  # a failure is shrunk, which takes minutes
@pytest.mark.parametrize("backend", [("fakeredis", False), ("redis", True)], ids=["fakeredis", "redis"], indirect=True)
def test_the_sale_does_what_its_model_does(backend, record_property):
    engine = database()
    sale = machine(backend, engine)
    is_slow = backend.kind == "fakeredis" and not NIGHTLY
    examples = EXAMPLES // 3 if is_slow else EXAMPLES
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
        print(f"{sale.steps} steps, {sale.crashed} crashes")
    record_property("steps", sale.steps)
    record_property("crashes", sale.crashed)
    assert sale.steps >= examples * STEPS * 0.7  # Hypothesis ends a few examples early


# -- what it found ---------------------------------------------------------------------------------------------------


def test_a_restock_of_the_row_moves_stock_and_gate(backend):
    """The syncer met the gate with its old count, and failed on every pass from then on."""
    with SmallSale(backend) as small:
        small.store.put_goods(Goods("a", 5))
        assert small.syncer.run_once().resized == (("a", 5),)
        assert small.sale.gate.state("a").count == 5


def test_a_crash_between_stock_and_guard_does_not_leave_the_guard_loose(backend):
    """Total was lowered, `granted` was not, and no later pass looked at it again."""
    with SmallSale(backend, total=5) as small:
        small.store.put_goods(Goods("a", 3))
        faults = Faults()
        small.sale.store = Store(small.store, faults, set())
        dying = Syncer(small.sale)
        faults.crash = (2, False)  # goods(), grant(5), then grant(3)
        with contextlib.suppress(Crash):
            dying.run_once()
        assert small.sale.inventory.stock("a").total == 3
        small.sale.store = small.store
        Syncer(small.sale).run_once()
        small.store.save([Order(f"o{number}", "a", "ann", 1) for number in range(5)])
        assert small.row_units() == 3


def test_a_cap_that_comes_later_counts_what_is_bought_under_it(backend):
    """Cancelling what was bought before gave back allowance that had never been taken: four units instead of two."""
    with SmallSale(backend, total=9) as small:
        assert small.sale.buy("a", "ann", 2, order_id="before").accepted
        small.store.put_goods(Goods("a", 9, per_buyer=2))
        small.syncer.run_once()
        assert small.sale.buy("a", "ann", 2, order_id="under").accepted
        small.sale.cancel("before")
        assert small.sale.buy("a", "ann", 1).outcome is Outcome.LIMIT_REACHED


def test_cancelling_what_was_sold_out_says_rejected_everywhere(backend):
    """The worker died between adopting and telling the database; the buyer cancelled: two states for one order."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", 2).accepted
        order = Order("late", "a", "bob", 1)
        small.sale.queue.push(order)
        small.sale._ledger.adopt([order])
        assert small.sale.cancel("late") is OrderState.REJECTED
        assert small.store.states(["late"]) == {"late": OrderState.REJECTED}
        assert small.sale.status("late") is OrderState.REJECTED


def test_slots_of_a_gate_elsewhere_return_with_a_release_and_only_then(backend):
    """On two Redises a cancellation failed as corrupt, and paying gave the slot back."""
    with SmallSale(backend, two=True) as small:
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        small.worker.run_once()
        assert small.sale.confirm("o1") is OrderState.CONFIRMED
        assert small.sale.gate.state("a").access == 1
        assert small.sale.cancel("o1") is OrderState.CANCELLED
        assert small.sale.gate.state("a").access == 0
        assert small.booked() == 0


def test_an_old_row_does_not_move_the_guard(backend):
    """A syncer that had read the row before a restock granted the old total over the new one: orders were refused."""
    with SmallSale(backend, total=5) as small:
        (late,) = small.store.goods()
        assert small.sale.restock("a", 3) == 8
        assert small.store.grant("a", 5, version=late.version) is False
        small.sale._transitions.adjust(late, small.sale.inventory.stock("a"))
        assert small.sale.buy("a", "ann", 8, order_id="o1").accepted
        small.worker.run_once()
        assert small.sale.status("o1") is OrderState.PERSISTED


def test_a_basket_of_old_and_new_orders_books_nothing(backend):
    """It was told to be a conflict, and the new orders were booked all the same."""
    with SmallSale(backend) as small:
        old, new = Order("o1", "a", "ann", 1), Order("o2", "a", "ann", 1)
        small.sale.inventory.reserve([old])
        with pytest.raises(OrderConflict) as conflict:
            small.sale.inventory.reserve([old, new], together=True)
        assert [type(answer) for answer in conflict.value.answers] == [OrderConflict] * 2
        assert small.booked() == 1


def test_the_article_and_its_script_stay_in_the_sums(backend):
    """A second process on the same Redis sees what the first one sold, to the unit."""
    with SmallSale(backend) as small, FlashSale(backend.client(), "s", store=small.store, cache_for=0) as other:
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        assert other.buy("a", "ann", order_id="o1").replayed
        assert other.inventory.deduct("a") == 1
        assert small.sale.buy("a", "bob").outcome is Outcome.SOLD_OUT
