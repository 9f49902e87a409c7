"""What broke when units moved between partitions, one scenario each; and each mechanism taken out."""

from __future__ import annotations

import contextlib
import itertools
from time import monotonic
from typing import TYPE_CHECKING, Any
from unittest import mock
from zlib import crc32

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from flashsale import FlashSaleError, Goods, NotExecuted, Order, OrderState, Outcome, OutcomeUnknown
from flashsale.lua import Slot
from tests.support.machine import LONG, Crash, database
from tests.support.mutants import kills, promises
from tests.support.partition_machine import Process, World, machine, one_after_the_other, without_chance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.one_server
REAL = pytest.mark.parametrize("backend", [("redis", False)], ids=["redis"], indirect=True)
SEED = 1  # others would do
names = itertools.count()


class Small:
    """A sale of one item, a, over a few partitions, and two processes that sell it.

    Args:
        backend: the Redis.
        units: of a in each partition.
        cache_for: of the first process.
    """

    def __init__(self, backend: Any, *units: int, cache_for: float = 0.0) -> None:
        self.engine = database()
        self.world = World(backend, self.engine, f"m{next(names)}", len(units), 1)
        self.first, self.other = Process(self.world, cache_for), Process(self.world, 0.0)
        for goods in (Goods("a", sum(units)), Goods("b", 0)):
            self.world.store.put_goods(goods)
        self.other.syncer.run_once()
        self.other.sale.start("a")
        for place, keys in enumerate(self.world.keys):
            self.world.raw(place).hset(keys.stock("a"), "Total", units[place])
            self.world.raw(place).set(keys.count("a"), units[place])
        self.buyers = {place: self._buyers(place) for place in range(len(units))}

    def _buyers(self, place: int) -> Iterator[str]:
        partitions = self.world.partitions
        return (buyer for buyer in map(str, itertools.count()) if crc32(buyer.encode()) % partitions == place)

    def buy(self, place: int, quantity: int = 1, process: Process | None = None) -> Any:
        """Buys as somebody new whose partition this is."""
        return (process or self.first).sale.buy("a", next(self.buyers[place]), quantity)

    def move(self, place: int, to: int, units: int = 1, process: Process | None = None) -> None:
        transfers = (process or self.other).transfers
        transfers._move("a", place, to, units, transfers.look("a"))

    def stops(self, place: int, to: int, step: int, *, after: bool) -> None:
        """Somebody begins a move of one unit, and dies."""
        dying = Process(self.world, 0.0)
        look = dying.transfers.look("a")
        dying.faults.crash = step, after
        with contextlib.suppress(Crash):
            dying.transfers._move("a", place, to, 1, look)
        dying.close()

    def check(self) -> None:
        """No unit is gone, and each may be sold."""
        units = self.world.read_units()["a"]
        assert sum(part.total for part in units.parts) + units.under_way == units.allotted, "units are gone, or more"
        for part in units.parts:
            assert part.count == part.total, "units that nobody can buy"
            assert part.booked <= part.total
            assert part.access <= part.count, "a ticket is worth nothing"

    def close(self) -> None:
        for process in (self.first, self.other):
            process.close()
        self.world.close()
        self.engine.dispose()


@contextlib.contextmanager
def small(backend: Any, *units: int, cache_for: float = 0.0) -> Iterator[Small]:
    with without_chance(), contextlib.closing(Small(backend, *units, cache_for=cache_for)) as sale:
        yield sale


def units_move_during_a_pass(backend: Any) -> None:
    """Between any two steps of a syncer; what it has read of a partition is old then."""
    with small(backend, 1, 1) as sale:
        for boundary in range(300):
            place = boundary % 2
            sale.first.faults.meanwhile = (boundary, lambda place=place: sale.move(place, 1 - place, 1))
            sale.first.syncer.run_once()
            was_reached = sale.first.faults.meanwhile is None
            sale.first.faults.clear()
            sale.world.end("leases")
            sale.check()
            if not was_reached:
                return
        pytest.fail("a pass has more steps")


def a_check_has_no_time(backend: Any) -> None:
    """A unit is elsewhere, and the call's time is over before it can be fetched."""
    with small(backend, 0, 1) as sale:
        over = mock.patch("flashsale._sync.partitions.transfers.ends_at", lambda _: monotonic() - 1.0)
        with over, pytest.raises(NotExecuted):
            pytest.fail(f"{sale.buy(0).outcome}, and a unit is free")
        assert sale.buy(0).accepted


def the_last_one_returns(backend: Any) -> None:
    """This process has just found that there is none."""
    with small(backend, 0, 1, cache_for=LONG) as sale:
        receipt = sale.buy(1)
        assert receipt.accepted
        assert sale.buy(0).outcome is Outcome.SOLD_OUT
        assert sale.first.sale.cancel(receipt.order_id) is OrderState.CANCELLED
        assert sale.buy(0).accepted, "a unit is free, and the process that freed it says SOLD_OUT"
        assert sale.buy(0).outcome is Outcome.SOLD_OUT
        assert sale.first.sale.restock("a", 1) == 2
        assert sale.buy(0).accepted, "a unit was added, and the process that added it says SOLD_OUT"


def two_of_a_batch(backend: Any) -> None:
    """The unit here is for the first one; whatever goes wrong then is the second one's alone."""
    for boundary, after in itertools.product(range(1, 9), (False, True)):
        with small(backend, 1, 1) as sale:
            first, second = _book_two(sale, lost=(boundary, after))
            assert first.accepted
            assert isinstance(second, NotExecuted | OutcomeUnknown) or second.accepted
            sale.check()


def _book_two(sale: Small, **faults: Any) -> Sequence[Any]:
    """Books two orders by one call, as two buyers at once would."""
    part = sale.first.sale._parts[0]
    buyers = [next(sale.buyers[0]) for _ in range(2)]
    orders = [Order(sale.first.sale.order_id(buyer), "a", buyer, 1) for buyer in buyers]
    for name, value in faults.items():
        setattr(sale.first.faults, name, value)
    answers: Sequence[Any] = part._purchases._book(orders, part._purchases._modes[Slot.TAKE])
    sale.first.faults.clear()
    return answers


def another_partition_is_empty(backend: Any) -> None:
    """It has lost all: the batch has what is here, and the others hear that nothing happened."""
    with small(backend, 1, 1, 1) as sale:
        sale.world.lose(2)
        first, second = _book_two(sale)
        assert first.accepted
        assert isinstance(second, NotExecuted), f"{second!r}"
        with pytest.raises(NotExecuted):
            sale.buy(0)
        assert sale.buy(1).accepted


def a_partition_does_not_answer(backend: Any) -> None:
    """Buyers of a dry one ask it once; the others go on."""
    with small(backend, 0, 1, 1, cache_for=LONG) as sale:
        sale.world.away, asked = {2}, []
        place_of = sale.world.place_of
        with mock.patch.object(sale.world, "place_of", lambda key: asked.append(place_of(key)) or asked[-1]):
            for _ in range(5):
                with pytest.raises(NotExecuted):
                    sale.buy(0)
            assert sale.buy(1).accepted
        assert asked.count(2) == 2, "each buyer asks a partition that is away: it was asked once, and once more why"


def a_slot_is_taken(backend: Any) -> None:
    """Whoever passed the gate has a unit here, also if another partition has just seen it, and fetches it."""
    for boundary in range(8):
        with small(backend, 0, 1) as sale:
            gate, admitted = sale.other.sale._parts[1].gate, []
            sale.first.faults.meanwhile = boundary, lambda: admitted.append(gate.enter("a").admitted)  # noqa: B023
            receipt = sale.buy(0)
            assert receipt.accepted is not any(admitted)
            sale.check()


def a_mover_of_an_older_epoch(backend: Any) -> None:
    """It knows a move by its number, and after the rebuild another one has that number."""
    with small(backend, 6, 0) as sale:
        sale.world.units = sale.world.read_units()
        for _ in range(4):
            sale.move(0, 1)
        late, sale.world.units = list(sale.world.late), None
        sale.first.syncer.rebuild()
        sale.stops(0, 1, 0, after=True)
        units = sale.world.read_units()["a"]
        seq, _ = units.parts[0].sent[1]
        credit, landed = [call for call in late if call.args[2] == seq]
        assert units.under_way == 1
        for call in (landed, credit):
            sale.world.resend(call)
            assert sale.world.read_units()["a"].under_way == 1, f"{call.name} of an older epoch counts"
        sale.first.transfers.spread("a")
        sale.check()


def hide_and_seek(sale: Small, looks: int) -> Any:
    """The one unit of 1 and 2 is in 2 while a look is at 1, and in 1 while it is at 2; so often."""
    done, is_moving = itertools.count(), False

    def look(queries: Sequence[Any], until: float) -> list[Any]:
        nonlocal is_moving
        if is_moving or next(done) >= looks:
            return one_after_the_other(queries, until)
        answers = []
        for place, query in enumerate(queries):
            is_moving = True
            if place:
                sale.move(place, 3 - place)
            is_moving = False
            answers += one_after_the_other([query], until)
        return answers

    return mock.patch("flashsale._sync.partitions.transfers.read_all", look)


def a_unit_hides_from_a_look(backend: Any) -> None:
    with small(backend, 0, 1, 0) as sale, hide_and_seek(sale, 1):
        assert sale.buy(0).accepted, "one look is not enough"


def a_unit_hides_from_two_looks(backend: Any) -> None:
    """Both find the same: only how often units moved tells them apart."""
    with small(backend, 0, 1, 0) as sale, hide_and_seek(sale, 2):
        assert sale.buy(0).accepted, "two looks that agree, and a unit moved between them"


def a_donor_fails_over(backend: Any) -> None:
    """Its replica had not heard of the move: a unit is there twice, repair takes it away, and the next move counts."""
    with small(backend, 0, 3, 0) as sale:
        raw = sale.world.raw(1)
        before = {key: raw.dump(key) for key in raw.keys("*") if sale.world.place_of(key.decode()) == 1}
        sale.move(1, 2)
        for key in raw.keys("*"):
            if sale.world.place_of(key.decode()) == 1:
                raw.delete(key)
        for key, value in before.items():
            raw.restore(key, 0, value)
        assert sale.first.syncer.audit().adrift == {"a": -1}
        sale.first.syncer.repair(dry_run=False)
        sale.check()
        sale.move(1, 2)
        sale.check()
        assert sale.world.read_units()["a"].parts[2].total == 2, "the move never arrived"


def a_move_is_begun_twice(backend: Any) -> None:
    """The first one was never credited."""
    with small(backend, 3, 0) as sale:
        sale.stops(0, 1, 0, after=True)
        sale.move(0, 1)
        sale.check()


def a_credit_comes_twice(backend: Any) -> None:
    """A mover died after it; the next one finishes the move."""
    with small(backend, 3, 0) as sale:
        sale.stops(0, 1, 1, after=True)
        sale.first.transfers.spread("a")
        sale.check()


SCENARIOS = {
    "a policy leaves the total of a partition": units_move_during_a_pass,
    "the gate reads the total in the script": units_move_during_a_pass,
    "no verdict at the deadline": a_check_has_no_time,
    "a verdict is forgotten": the_last_one_returns,
    "an error of those who are asked again": two_of_a_batch,
    "the breaker": a_partition_does_not_answer,
    "a move leaves what slots hold": a_slot_is_taken,
    "the epoch of a landing": a_mover_of_an_older_epoch,
    "the epoch of a credit": a_mover_of_an_older_epoch,
    "the second look": a_unit_hides_from_a_look,
    "moves are counted": a_unit_hides_from_two_looks,
    "the numbers that the receiver has seen": a_donor_fails_over,
    "one open move of a pair": a_move_is_begun_twice,
    "a credit counts once": a_credit_comes_twice,
}


@REAL
@pytest.mark.parametrize(
    "scenario",
    [*dict.fromkeys(SCENARIOS.values()), another_partition_is_empty],
    ids=lambda scenario: scenario.__name__,
)
def test_the_scenario_holds(scenario, backend):
    scenario(backend)


@REAL
@promises(SCENARIOS, by=FlashSaleError)
def test_the_scenario_misses(promise, backend):
    promise(backend)


@REAL
@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(name, marks=kills(name))
        for name in (
            "a verdict is forgotten",
            "a credit counts once",
            "one open move of a pair",
        )
    ],
)
def test_the_machine_misses(mutant, backend):
    engine = database()
    quick = hypothesis.settings(
        max_examples=100,
        stateful_step_count=25,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(hypothesis.seed(SEED)(machine(backend, engine)), settings=quick)
    finally:
        engine.dispose()
