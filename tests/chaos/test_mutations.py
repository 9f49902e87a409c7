"""Each mechanism taken out, one at a time: the machine of `test_state_machine`, or a scenario, must notice.

A mechanism that nothing misses is either not needed or not tested.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from flashsale import (
    FlashSale,
    Goods,
    Order,
    OrderState,
    StoredOrder,
    StoreError,
    UnknownGoods,
    Worker,
)
from tests.support.machine import Crash, Faults, Store, database, machine
from tests.support.mutants import MUTANTS, Killers, kills, promises
from tests.support.small_sale import SmallSale

ROOT = Path(__file__).parent.parent.parent
REAL = pytest.mark.parametrize("backend", [("redis", False)], ids=["redis"], indirect=True)  # the fake takes longer
SEED = 6  # others would do: with this one each mutant is found within ten examples
QUICK = hypothesis.settings(
    max_examples=400,
    stateful_step_count=40,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@REAL
@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(name, marks=kills(name))
        for name in (
            "the order id in the script",
            "the cap of a buyer",
            "the bound of the stock",
            "the bound of a release",
            "the bound of the gate",
            "the one preload",
            "the units of an adopted order",
            "the end of a lease",
            "states that stand",
            "the allowance that comes back",
            "the ack after the commit",
        )
    ],
)
def test_the_machine_misses(mutant, backend):
    engine = database()
    try:
        run_state_machine_as_test(hypothesis.seed(SEED)(machine(backend, engine)), settings=QUICK)
    except AssertionError as failure:
        print(*getattr(failure, "__notes__", ()), sep="\n")
        raise
    finally:
        engine.dispose()


# -- scenarios: what needs two processes at once, or a loss ------------------------------------------------------------


def two_cancels_at_once(backend: Any) -> None:
    """Both have read the ledger before either moves it."""
    with SmallSale(backend) as small:
        for order_id in ("o1", "o2"):
            assert small.sale.buy("a", "ann", order_id=order_id).accepted
        row = StoredOrder(Order("o1", "a", "ann", 1), OrderState.CANCELLED)
        for _ in range(2):
            small.sale._ledger.move([row])
        assert small.booked() == 1, "the units of one order came back twice"


def a_late_syncer(backend: Any) -> None:
    """It read the row, slept, and goes on after the host has lowered the total."""
    with SmallSale(backend, total=5) as small:
        (late,) = small.store.goods()
        small.sale.restock("a", -3)
        small.sale.inventory._configure(late)
        assert small.sale.inventory.stock("a").total == 2, "an old row brought the old total back"


def a_late_syncer_grants(backend: Any) -> None:
    """It goes on after the host has raised the total, and dies after its first call of the database."""
    with SmallSale(backend, total=5) as small:
        small.store.put_goods(Goods("a", 3))
        (late,), stock = small.store.goods(), small.sale.inventory.stock("a")
        assert small.sale.restock("a", 5) == 8
        faults = Faults()
        zombie = FlashSale(backend.client(), "s", store=Store(small.store, faults, set()), cache_for=0)
        faults.crash = (0, True)
        with zombie, contextlib.suppress(Crash):
            zombie._transitions.adjust(late, stock)
        assert small.sale.buy("a", "ann", 8, order_id="o1").accepted
        small.worker.run_once()
        assert small.sale.status("o1") is OrderState.PERSISTED, "the guard refused what the stock had accepted"


def acknowledged_writes_are_lost(backend: Any) -> None:
    """A failover: the new primary never heard of an order that was accepted and persisted."""
    with SmallSale(backend) as small:
        before = {key: small.raw.dump(key) for key in small.raw.keys("*")}
        assert small.sale.buy("a", "ann", 2, order_id="o1").accepted
        small.worker.run_once()
        small.raw.flushdb()
        for key, value in before.items():
            small.raw.restore(key, 0, value)
        assert small.sale.buy("a", "bob", 2, order_id="o2").accepted  # Redis cannot know better
        small.worker.run_once()
        assert small.sale.status("o2") is OrderState.REJECTED, "two units were sold to two buyers"
        assert small.row_units() == 2


def everything_is_lost(backend: Any) -> None:
    """FLUSHALL while the syncer goes on."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", 2).accepted
        small.worker.run_once()
        small.syncer.run_once()
        small.raw.flushdb()
        small.syncer.run_once()
        with contextlib.suppress(UnknownGoods):
            small.sale.start("a")
            assert not small.sale.buy("a", "bob", 2).accepted, "units were sold again that the database has sold"


def a_late_auditor(backend: Any) -> None:
    """It read an active row, slept through a cancellation, a loss and the rebuild, and goes on."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", 2, order_id="o1").accepted
        small.worker.run_once()
        rows, epoch = [StoredOrder(Order("o1", "a", "ann", 2), OrderState.PERSISTED)], small.store.epoch()
        small.sale.cancel("o1")
        small.raw.flushdb()
        small.syncer.rebuild()
        small.sale._ledger.restore(rows, epoch)
        assert small.booked() == 0, "an order of an older epoch was booked again"


def a_zombie_lets_go(backend: Any) -> None:
    """A worker slept for longer than its lease, and nacks what another one works on by now."""
    with SmallSale(backend) as small:
        small.sale.buy("a", "ann")
        zombies = _claimed_and_lost(small)
        small.sale.queue.claim(1, timeout=0)
        small.sale.queue.nack(zombies)
        assert small.sale.queue.claim(1, timeout=0) == [], "two workers hold one order"


def a_zombie_holds_on(backend: Any) -> None:
    """A worker slept for longer than its lease, and extends the lease of another one."""
    with SmallSale(backend) as small:
        small.sale.buy("a", "ann")
        zombies = _claimed_and_lost(small)
        small.sale.queue.claim(1, timeout=0)
        assert small.sale.queue.extend(zombies) == 0, "two workers hold one order"


def _claimed_and_lost(small: SmallSale) -> list[Any]:
    claims = small.sale.queue.claim(1, lease=0.001, timeout=0)
    time.sleep(0.01)
    return claims


def a_zombie_gives_up(backend: Any) -> None:
    """A worker slept for longer than its lease, and buries what another one works on by now."""
    with SmallSale(backend) as small:
        small.sale.buy("a", "ann", order_id="o1")
        zombies = _claimed_and_lost(small)
        small.sale.queue.claim(1, timeout=0)
        small.sale.queue._bury(zombies)
        assert small.sale.status("o1") is OrderState.QUEUED, "an order died in another worker's hands"


def the_database_is_away(backend: Any) -> None:
    """For many passes of the worker: nobody is to blame."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        small.sale.store = Store(small.store, faults := Faults(), set())
        worker = Worker(small.sale)
        for _ in range(7):
            faults.outage = (0, False)
            with contextlib.suppress(StoreError):
                worker.run_once()
            small.no_delays()
        faults.clear()
        worker.run_once()
        assert small.sale.status("o1") is OrderState.PERSISTED, "an order died of a database that was away"


def cancelled_before_its_row(backend: Any) -> None:
    """The buyer is faster than the worker."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        assert small.sale.cancel("o1") is OrderState.CANCELLED
        small.worker.run_once()
        assert small.row_units() == 0, "the database sells what was cancelled"


def paid_after_it_was_cancelled(backend: Any) -> None:
    """One of two that decide at once is the first."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        small.worker.run_once()
        small.sale.cancel("o1")
        assert small.sale.confirm("o1") is OrderState.CANCELLED, "paid, and its unit was given away"


def buyers_who_never_came(backend: Any) -> None:
    """They passed the gate and went no further."""
    with SmallSale(backend) as small:
        small.sale.gate.enter("a", 2)
        for _ in range(2):
            small.syncer.run_once()
        assert small.sale.gate.enter("a").admitted, "units are left, and nobody is let in"


def lowered_too_far(backend: Any) -> None:
    """The host takes away more than is left."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann").accepted
        assert small.sale.restock("a", -2) == 1, "less is for sale than was sold"


def resold(backend: Any) -> None:
    """Somebody waits for a cancelled unit."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", 2, order_id="o1").accepted
        small.sale.cancel("o1")
        assert small.sale.buy("a", "bob", 2).accepted, "the gate keeps out whoever would buy it"


def two_syncers(backend: Any) -> None:
    """One acts at a time."""
    with SmallSale(backend) as small:
        assert small.sale._meta.lead("another one", 30.0)
        assert not small.syncer.run_once().leading, "two syncers act at once"


def deducted_past_the_end(backend: Any) -> None:
    """Three units of two."""
    with SmallSale(backend) as small:
        assert [small.sale.inventory.deduct("a") for _ in range(3)] == [1, 1, 0], "oversold"


def another_order_of_that_id(backend: Any) -> None:
    """An external program uses the id of an order of ours; nobody can settle its element, so at last it is buried."""
    with SmallSale(backend) as small:
        small.sale.queue.push(Order("o1", "a", "bob", 2))
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        claims = small.sale.queue.claim(1, timeout=0)
        small.sale.queue._bury(claims)
        assert small.sale.status("o1") is OrderState.QUEUED, "somebody else's element took the order with it"


def requeued(backend: Any) -> None:
    """An operator gives a dead order another chance."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        small.sale.queue._bury(small.sale.queue.claim(1, timeout=0))
        small.sale.queue.requeue_dead()
        small.worker.run_once()
        assert small.sale.status("o1") is OrderState.PERSISTED, "it is in the database, and dead in the ledger"


def the_worker_dies_before_its_ack(backend: Any) -> None:
    """The syncer finds the row first: the buyer's time to pay begins all the same."""
    with SmallSale(backend) as small:
        small.store.put_goods(Goods("a", 2, hold=60))
        small.syncer.run_once()
        order = small.sale.buy("a", "ann", 2, order_id="o1")
        assert order.accepted
        (claim,) = small.sale.queue.claim(1, timeout=0)
        small.store.save([claim.order])
        assert small.syncer.run_once().recovered == 0, "the time to pay does not begin with the state"
        assert small.sale.status("o1") is OrderState.PERSISTED
        for order_id in small.raw.zrange(small.sale.keys.holds, 0, -1):
            small.raw.zadd(small.sale.keys.holds, {order_id: 0})  # the minute is over
        small.syncer.run_once()
        assert small.booked() == 0, "an order that nobody pays keeps its units for ever"


def saved_twice(backend: Any) -> None:
    """A worker dies between commit and ack, and the next one saves the order again."""
    with SmallSale(backend) as small:
        assert small.sale.buy("a", "ann", order_id="o1").accepted
        (claim,) = small.sale.queue.claim(1, timeout=0)
        for _ in range(2):
            small.store.save([claim.order])
        assert small.sale.buy("a", "bob", order_id="o2").accepted
        small.worker.run_once()
        assert small.sale.status("o2") is OrderState.PERSISTED, "the guard counted one order twice"


SCENARIOS = {
    "a state is left once": two_cancels_at_once,
    "the lease of nack": a_zombie_lets_go,
    "the lease of extend": a_zombie_holds_on,
    "the lease of bury": a_zombie_gives_up,
    "the tombstone": cancelled_before_its_row,
    "the conditional update": paid_after_it_was_cancelled,
    "leaked slots return": buyers_who_never_came,
    "the total stops at what is booked": lowered_too_far,
    "the slot that comes back": resold,
    "one leads": two_syncers,
    "the attempt that does not count": the_database_is_away,
    "the bound of a deduction": deducted_past_the_end,
    "the version of the total": a_late_syncer,
    "the version of the grant": a_late_syncer_grants,
    "a dead order is itself": another_order_of_that_id,
    "the state of a dead order": requeued,
    "the deadline of a row found first": the_worker_dies_before_its_ack,
    "the count of inserted rows alone": saved_twice,
    "the guard in the database": acknowledged_writes_are_lost,
    "the mark that they were loaded": everything_is_lost,
    "the epoch of a restore": a_late_auditor,
}


@REAL
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.__name__)
def test_the_scenario_holds(scenario, backend):
    scenario(backend)


@REAL
@promises(SCENARIOS)
def test_the_scenario_misses(promise, backend):
    promise(backend)


def test_every_mutant_is_killed(request: pytest.FixtureRequest) -> None:
    """Each test marked so must fail without its mechanism: tests/conftest.py."""
    if not {Path(each).resolve() for each in request.config.args} & {ROOT, ROOT / "tests"}:
        pytest.skip("only a run of all tests collects all that kill: python -m tests.support.mutants")
    killed = request.config.pluginmanager.get_plugin(Killers.NAME).of
    assert [name for name in MUTANTS if not killed[name]] == []
