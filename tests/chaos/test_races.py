"""One process sleeps at any of its boundaries while others act, for longer than every lease; then it goes on.

No model here: what must be true is true whoever was first. At the end all that is left to do is done, and Redis and
database agree order by order.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from flashsale import FlashSaleError, Goods, Order
from flashsale.model import RELEASED
from flashsale.model.reports import Problem
from tests.support.machine import LONG, Process, World, database, usual, usual_order
from tests.support.model import QUEUED, REJECTED, Model

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
VERBS = ("buy", "buy", "cancel", "cancel", "confirm", "work", "work", "sync", "restock", "push", "pay late", "requeue")
acts = st.tuples(st.sampled_from(VERBS), usual, st.integers(-3, 3))
plays = st.tuples(
    acts,
    st.sampled_from([0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8, 11]),  # where the first one sleeps
    st.lists(
        st.tuples(st.sampled_from(VERBS), st.sampled_from([True, True, False]), usual, st.integers(-3, 3)),
        min_size=1,
        max_size=3,
    ),  # what the others do: with the same order, or with another one
)
scripts = st.lists(plays, min_size=3, max_size=14)
names = itertools.count()

# A restock that had looked at the stock before another one went by took the guard for granted.
RESTOCKED_BETWEEN = [
    (("restock", usual_order(1), -2), 0, [("buy", True, usual_order(1), 0)]),
    (("buy", usual_order(1), 0), 0, [("sync", True, usual_order(1), 0)]),
    (("buy", usual_order(1), 0), 0, [("cancel", True, usual_order(1), 0)]),
    (("restock", usual_order(1), 2), 1, [("restock", True, usual_order(1), -1)]),
]


class Race:
    """A sale, two processes, and what must be true of it at every moment."""

    def __init__(self, backend: Any, engine: Any, *, one_redis: bool) -> None:
        self.world = World(backend, engine, f"r{next(names)}", one_redis=one_redis, wrap=lambda store: store)
        self.world.flush()
        self.accepted: set[str] = set()  # by the stock; what another program pushes may be refused
        self.sleeper, self.others = Process(self.world), Process(self.world)
        for goods in (Goods("a", 5, hold=LONG), Goods("b", 4, per_buyer=2)):
            self.world.store.put_goods(goods)
        self.act(self.others, ("sync", None, 0))
        for goods_id in ("a", "b"):
            self.others.sale.start(goods_id)
        for number in range(1, 5):
            self.act(self.others, ("buy", usual_order(number), 0))

    def close(self) -> None:
        self.sleeper.close()
        self.others.close()
        self.world.close()

    def act(self, process: Process, act: tuple[str, Order, int]) -> None:
        verb, order, number = act
        sale = process.sale
        with contextlib.suppress(FlashSaleError):
            if verb == "buy":
                receipt = sale.buy(order.goods_id, order.buyer_id, order.quantity, order_id=order.order_id)
                if receipt.accepted and not receipt.replayed:
                    self.accepted.add(order.order_id)
            elif verb in {"cancel", "confirm"}:
                getattr(sale, verb)(order.order_id)
            elif verb == "work":
                process.worker.run_once()
            elif verb == "sync":
                process.syncer.run_once()
            elif verb == "restock":
                sale.restock(order.goods_id, number)
            elif verb == "push":
                sale.queue.push(order)
            elif verb == "pay late":
                self._end(self.world.keys.holds)
            else:
                sale.queue.requeue_dead()

    def _end(self, key: str) -> None:
        raw = self.world.raw
        if ends := raw.zrange(key, 0, -1):
            raw.zadd(key, dict.fromkeys(ends, 0))

    def leases_end(self) -> None:
        self._end(self.world.keys.leases)
        self.world.raw.hdel(self.world.keys.meta, "leader_until")

    def play(self, act: Any, boundary: int, meanwhile: list[Any]) -> None:
        def others() -> None:
            self.leases_end()
            for verb, same, order, number in meanwhile:
                self.act(self.others, (verb, act[1] if same else order, number))
            self.check()

        self.leases_end()
        self.sleeper.faults.meanwhile = (boundary, others)
        self.act(self.sleeper, act)
        self.sleeper.faults.clear()
        self.check()

    def check(self) -> dict[str, Any]:
        found = self.world.view(Model(), 0.0)
        for goods_id, (total, booked, ledger, _, _) in found["stock"].items():
            mine = [record for record in found["ledger"].values() if record[1][0] == goods_id]
            active = sum(content[2] for state, content, _, _ in mine if state not in RELEASED)
            assert booked == ledger == active, f"{goods_id}: booked {booked}, ledger {ledger}, orders {active}"
            assert booked <= total, f"oversold: {goods_id}"
        for goods_id, (_, granted, booked, _, _, _) in found["rows"].items():
            mine = [order for state, order in found["orders"].values() if state not in RELEASED]
            assert booked == sum(order.quantity for order in mine if order.goods_id == goods_id)
            assert booked <= granted, f"oversold in the database: {goods_id}"
        return found

    def end(self) -> None:
        process = self.others
        for turn in range(8):
            self.leases_end()
            process.worker.run_once()
            if turn == 5:
                process.sale.queue.requeue_dead()
        for _ in range(3):
            self.leases_end()
            process.syncer.run_once()
        found = self.check()
        for order_id, (state, content, _, _) in found["ledger"].items():
            assert state is not QUEUED, f"{order_id} is stranded"
            row = found["orders"].get(order_id)
            assert row, f"{order_id} has no row"
            assert order_id not in self.accepted or state is not REJECTED, f"{order_id} was accepted, and then refused"
            assert row[0] is state, f"{order_id} {content} is {state} in the ledger, {row[0]} in its row"
        for goods_id, (_, granted, _, _, _, _) in found["rows"].items():
            assert granted == found["stock"][goods_id][0], f"the guard of {goods_id} is not what Redis was given"
            booked, (count, _, access, *_) = found["stock"][goods_id][1], found["gate"][goods_id]
            assert min(booked, count) <= access <= booked, f"slots of {goods_id} are lost"
        audit = process.syncer.audit()
        assert not [each for each in audit.orders if each.problem is not Problem.NO_DEADLINE], audit


@pytest.mark.timeout(0 if NIGHTLY else 600)
@pytest.mark.parametrize("backend", [("fakeredis", False), ("redis", True)], ids=["fakeredis", "redis"], indirect=True)
def test_a_process_that_sleeps_anywhere_does_no_harm(backend):
    engine = database()
    examples = 2000 if NIGHTLY else 30 if backend.kind == "redis" else 10  # the fake is slow

    @hypothesis.settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(one_redis=st.booleans(), script=scripts)
    @hypothesis.example(one_redis=False, script=RESTOCKED_BETWEEN)
    def race(one_redis: bool, script: list[Any]) -> None:
        with contextlib.closing(Race(backend, engine, one_redis=one_redis)) as sale:
            for act, boundary, meanwhile in script:
                sale.play(act, boundary, meanwhile)
            sale.end()

    try:
        race()
    finally:
        engine.dispose()
