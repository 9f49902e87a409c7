"""Each mechanism taken out, one at a time: the machine of `test_state_machine`, or a scenario, must notice.

A mechanism that nothing misses is either not needed or not tested.
"""

from __future__ import annotations

import contextlib
import time
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
from flashsale.stores import SQLAlchemyStore
from tests.support.machine import Crash, Faults, Store, database, machine
from tests.support.mutants import (
    AlwaysBurns,
    AnyVersion,
    BooksTwice,
    NeverLoaded,
    NoGuard,
    NoTombstone,
    NoWinner,
    mutate,
)
from tests.support.scenes import Scene

FAKE = pytest.mark.parametrize("backend", [("fakeredis", False)], ids=["fakeredis"], indirect=True)
QUICK = hypothesis.settings(
    max_examples=200,
    stateful_step_count=40,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def search(backend: Any, wrap: Any = lambda store: store) -> str:
    """Runs the machine until it fails; returns what it says."""
    engine = database()
    try:
        with pytest.raises(AssertionError) as failure:
            run_state_machine_as_test(machine(backend, engine, wrap=wrap), settings=QUICK)
    finally:
        engine.dispose()
    return "\n".join([str(failure.value), *getattr(failure.value, "__notes__", ())])


# -- scripts: what the machine finds -----------------------------------------------------------------------------------

SCRIPT_MUTATIONS = {
    "the ledger is not asked first": ("reserve", "nil, fresh[id] or known[i]", "nil, nil"),
    "a basket is not all or nothing": ("reserve", "if together and not whole then", "if false then"),
    "the cap is not checked": (
        "reserve",
        "if goods.cap and goods.held[buyer] + units > goods.cap then",
        "if false then",
    ),
    "the stock is not checked": ("reserve", "if units > goods.left then", "if false then"),
    "more is released than was taken": (
        "release",
        "math.min(units, math.max(0, goods.booked - goods.ledger))",
        "units",
    ),
    "the gate is not bounded": ("enter", "math.min(callers, math.floor(gate.left / units))", "callers"),
    "a second preload starts again": ("load", "if (values[1] or values[2]) and not foreign then", "if false then"),
    "an adopted order takes no units": (
        "adopt",
        "goods.ledger, goods.changed = goods.ledger + units, true",
        "units = 0",
    ),
    "leases do not end": ("claim", '"-inf", string.format("%.6f", time), "LIMIT"', '"-inf", "0", "LIMIT"'),
    "ack moves what is released": ("ack", '"^QUEUED(', '"^%u+('),
    "a release keeps the buyer's allowance": ("settle", "goods.held[buyer], goods.touched = ", "local _, _ = "),
}


@FAKE
@pytest.mark.parametrize("mutation", SCRIPT_MUTATIONS)
def test_machine_misses_the_mechanism_of_a_script(mutation, backend, monkeypatch):
    mutate(monkeypatch, *SCRIPT_MUTATIONS[mutation])
    print(search(backend))


# -- database and worker: what the machine finds -----------------------------------------------------------------------


@FAKE
def test_machine_misses_the_ack_after_the_commit(backend, monkeypatch):
    settle = Worker._settle

    def eager(self, claims):
        self._queue.ack([claim for claim in claims if claim.order])
        return settle(self, claims)

    monkeypatch.setattr(Worker, "_settle", eager)
    print(search(backend))


# -- scenarios: what needs two processes at once, or a loss ------------------------------------------------------------


def two_cancels_at_once(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """Both have read the ledger before either moves it."""
    with Scene(backend, mutant) as scene:
        for order_id in ("o1", "o2"):
            assert scene.sale.buy("a", "ann", order_id=order_id).accepted
        record = scene.sale._ledger.get("o1")
        for _ in range(2):
            scene.sale._ledger.move("o1", record, OrderState.CANCELLED)
        assert scene.booked() == 1, "the units of one order came back twice"


def a_late_syncer(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """It read the row, slept, and goes on after the host has lowered the total."""
    with Scene(backend, mutant, total=5) as scene:
        (late,) = scene.store.goods()
        scene.sale.restock("a", -3)
        scene.sale.inventory._configure(late)
        assert scene.sale.inventory.stock("a").total == 2, "an old row brought the old total back"


def a_late_syncer_grants(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """It goes on after the host has raised the total, and dies after its first call of the database."""
    with Scene(backend, mutant, total=5) as scene:
        scene.store.put_goods(Goods("a", 3))
        (late,), stock = scene.store.goods(), scene.sale.inventory.stock("a")
        assert scene.sale.restock("a", 5) == 8
        faults = Faults()
        zombie = FlashSale(backend.client(), "s", store=Store(scene.store, faults, set()), cache_for=0)
        faults.crash = (0, True)
        with zombie, contextlib.suppress(Crash):
            zombie._transitions.adjust(late, stock)
        assert scene.sale.buy("a", "ann", 8, order_id="o1").accepted
        scene.worker.run_once()
        assert scene.sale.status("o1") is OrderState.PERSISTED, "the guard refused what the stock had accepted"


def acknowledged_writes_are_lost(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """A failover: the new primary never heard of an order that was accepted and persisted."""
    with Scene(backend, mutant) as scene:
        before = {key: scene.raw.dump(key) for key in scene.raw.keys("*")}
        assert scene.sale.buy("a", "ann", 2, order_id="o1").accepted
        scene.worker.run_once()
        scene.raw.flushdb()
        for key, value in before.items():
            scene.raw.restore(key, 0, value)
        assert scene.sale.buy("a", "bob", 2, order_id="o2").accepted  # Redis cannot know better
        scene.worker.run_once()
        assert scene.sale.status("o2") is OrderState.REJECTED, "two units were sold to two buyers"
        assert scene.row_units() == 2


def everything_is_lost(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """FLUSHALL while the syncer goes on."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", 2).accepted
        scene.worker.run_once()
        scene.syncer.run_once()
        scene.raw.flushdb()
        scene.syncer.run_once()
        with contextlib.suppress(UnknownGoods):
            scene.sale.start("a")
            assert not scene.sale.buy("a", "bob", 2).accepted, "units were sold again that the database has sold"


def a_late_auditor(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """It read an active row, slept through a cancellation, a loss and the rebuild, and goes on."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", 2, order_id="o1").accepted
        scene.worker.run_once()
        rows, epoch = [StoredOrder(Order("o1", "a", "ann", 2), OrderState.PERSISTED)], scene.store.epoch()
        scene.sale.cancel("o1")
        scene.raw.flushdb()
        scene.syncer.rebuild()
        scene.sale._ledger.restore(rows, epoch)
        assert scene.booked() == 0, "an order of an older epoch was booked again"


def a_zombie_lets_go(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """A worker slept for longer than its lease, and nacks what another one works on by now."""
    with Scene(backend, mutant) as scene:
        scene.sale.buy("a", "ann")
        zombies = _claimed_and_lost(scene)
        scene.sale.queue.claim(1, timeout=0)
        scene.sale.queue.nack(zombies)
        assert scene.sale.queue.claim(1, timeout=0) == [], "two workers hold one order"


def a_zombie_holds_on(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """A worker slept for longer than its lease, and extends the lease of another one."""
    with Scene(backend, mutant) as scene:
        scene.sale.buy("a", "ann")
        zombies = _claimed_and_lost(scene)
        scene.sale.queue.claim(1, timeout=0)
        assert scene.sale.queue.extend(zombies) == 0, "two workers hold one order"


def _claimed_and_lost(scene: Scene) -> list[Any]:
    claims = scene.sale.queue.claim(1, lease=0.001, timeout=0)
    time.sleep(0.01)
    return claims


def a_zombie_gives_up(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """A worker slept for longer than its lease, and buries what another one works on by now."""
    with Scene(backend, mutant) as scene:
        scene.sale.buy("a", "ann", order_id="o1")
        zombies = _claimed_and_lost(scene)
        scene.sale.queue.claim(1, timeout=0)
        scene.sale.queue._bury(zombies)
        assert scene.sale.status("o1") is OrderState.QUEUED, "an order died in another worker's hands"


def the_database_is_away(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """For many passes of the worker: nobody is to blame."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        scene.sale.store = Store(scene.store, faults := Faults(), set())
        worker = Worker(scene.sale)
        for _ in range(7):
            faults.outage = (0, False)
            with contextlib.suppress(StoreError):
                worker.run_once()
            scene.no_delays()
        faults.clear()
        worker.run_once()
        assert scene.sale.status("o1") is OrderState.PERSISTED, "an order died of a database that was away"


def cancelled_before_its_row(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """The buyer is faster than the worker."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        assert scene.sale.cancel("o1") is OrderState.CANCELLED
        scene.worker.run_once()
        assert scene.row_units() == 0, "the database sells what was cancelled"


def paid_after_it_was_cancelled(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """One of two that decide at once is the first."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        scene.worker.run_once()
        scene.sale.cancel("o1")
        assert scene.sale.confirm("o1") is OrderState.CANCELLED, "paid, and its unit was given away"


def buyers_who_never_came(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """They passed the gate and went no further."""
    with Scene(backend, mutant) as scene:
        scene.sale.gate.enter("a", 2)
        for _ in range(2):
            scene.syncer.run_once()
        assert scene.sale.gate.enter("a").admitted, "units are left, and nobody is let in"


def lowered_too_far(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """The host takes away more than is left."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann").accepted
        assert scene.sale.restock("a", -2) == 1, "less is for sale than was sold"


def resold(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """Somebody waits for a cancelled unit."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", 2, order_id="o1").accepted
        scene.sale.cancel("o1")
        assert scene.sale.buy("a", "bob", 2).accepted, "the gate keeps out whoever would buy it"


def two_syncers(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """One acts at a time."""
    with Scene(backend, mutant) as scene:
        assert scene.sale._meta.lead("another one", 30.0)
        assert not scene.syncer.run_once().leading, "two syncers act at once"


def deducted_past_the_end(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """Three units of two."""
    with Scene(backend, mutant) as scene:
        assert [scene.sale.inventory.deduct("a") for _ in range(3)] == [1, 1, 0], "oversold"


def another_order_of_that_id(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """A foreign program uses the id of an order of ours; nobody can settle its element, so at last it is buried."""
    with Scene(backend, mutant) as scene:
        scene.sale.queue.push(Order("o1", "a", "bob", 2))
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        claims = scene.sale.queue.claim(1, timeout=0)
        scene.sale.queue._bury(claims)
        assert scene.sale.status("o1") is OrderState.QUEUED, "somebody else's element took the order with it"


def requeued(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """An operator gives a dead order another chance."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        scene.sale.queue._bury(scene.sale.queue.claim(1, timeout=0))
        scene.sale.queue.requeue_dead()
        scene.worker.run_once()
        assert scene.sale.status("o1") is OrderState.PERSISTED, "it is in the database, and dead in the ledger"


def the_worker_dies_before_its_ack(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """The syncer finds the row first: the buyer's time to pay begins all the same."""
    with Scene(backend, mutant) as scene:
        scene.store.put_goods(Goods("a", 2, hold=60))
        scene.syncer.run_once()
        order = scene.sale.buy("a", "ann", 2, order_id="o1")
        assert order.accepted
        (claim,) = scene.sale.queue.claim(1, timeout=0)
        scene.store.save([claim.order])
        scene.syncer.run_once()
        assert scene.sale.status("o1") is OrderState.PERSISTED
        for order_id in scene.raw.zrange(scene.sale.keys.holds, 0, -1):
            scene.raw.zadd(scene.sale.keys.holds, {order_id: 0})  # the minute is over
        scene.syncer.run_once()
        assert scene.booked() == 0, "an order that nobody pays keeps its units for ever"


def saved_twice(backend: Any, mutant: Any = SQLAlchemyStore) -> None:
    """A worker dies between commit and ack, and the next one saves the order again."""
    with Scene(backend, mutant) as scene:
        assert scene.sale.buy("a", "ann", order_id="o1").accepted
        (claim,) = scene.sale.queue.claim(1, timeout=0)
        for _ in range(2):
            scene.store.save([claim.order])
        assert scene.sale.buy("a", "bob", order_id="o2").accepted
        scene.worker.run_once()
        assert scene.sale.status("o2") is OrderState.PERSISTED, "the guard counted one order twice"


SCENARIOS = {
    "a ledger state is left once": (
        two_cancels_at_once,
        ("settle", '" " .. to .. " ", 1, true) then', '"", 1, true) then'),
    ),
    "the lease, when letting go": (a_zombie_lets_go, ("nack", "if lease == ARGV[at + 1] then", "if lease then")),
    "the lease, when holding on": (a_zombie_holds_on, ("extend", '|(%d+)|") == ARGV[at + 1]', '|(%d+)|")')),
    "the lease, when giving up": (
        a_zombie_gives_up,
        ("bury", 'string.match(entry, "^%d+|(%d+)|") == ARGV[at + 1]', 'entry ~= ""'),
    ),
    "the tombstone": (cancelled_before_its_row, NoTombstone),
    "the conditional update": (paid_after_it_was_cancelled, NoWinner),
    "leaked slots return": (buyers_who_never_came, ("mirror", "if show(access) == ARGV[3] then", "if false then")),
    "the total stops at what is booked": (
        lowered_too_far,
        ("configure", "math.max(integer(ARGV[2]), goods.booked)", "integer(ARGV[2])"),
    ),
    "a release returns the slot": (
        resold,
        ("settle", "access = access and math.max(0, access - units)", "access = false"),
    ),
    "one syncer leads": (two_syncers, ("lead", "and time < (tonumber(values[2]) or 0) then", "and false then")),
    "the attempt that does not count": (the_database_is_away, AlwaysBurns),
    "the bound of a deduction": (
        deducted_past_the_end,
        ("deduct", "goods.booked + goods.taken + units <= goods.total", "true"),
    ),
    "the version of the total": (a_late_syncer, ("configure", "if integer(ARGV[1]) < standing then", "if false then")),
    "the version of the grant": (a_late_syncer_grants, AnyVersion),
    "a dead order is itself": (another_order_of_that_id, ("bury", '"|") == ARGV[at + 3]', '"|") ~= ""')),
    "a requeued order is queued": (requeued, ("requeue", 'if state == "DEAD" then', "if false then")),
    "persisted starts the deadline": (
        the_worker_dies_before_its_ack,
        ("settle", 'local hold = to == "PERSISTED" and', "local hold = false and"),
    ),
    "only inserted rows are booked": (saved_twice, BooksTwice),
    "the guard": (acknowledged_writes_are_lost, NoGuard),
    "once loaded, never preloaded again": (everything_is_lost, NeverLoaded),
    "the epoch": (a_late_auditor, ("restore", "if meta[1] ~= ARGV[1] then", "if false then")),
}


@FAKE
@pytest.mark.parametrize("mechanism", SCENARIOS)
def test_scenario_misses(mechanism, backend, monkeypatch):
    scenario, mutation = SCENARIOS[mechanism]
    scenario(backend)
    mutant = SQLAlchemyStore
    if isinstance(mutation, tuple):
        mutate(monkeypatch, *mutation)
    elif mutation is AlwaysBurns:
        mutation.patch(monkeypatch)
    else:
        mutant = mutation
    with pytest.raises(AssertionError) as failure:
        scenario(backend, mutant)
    print(failure.value)
