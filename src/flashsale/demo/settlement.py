"""The settlement of the demo: compares what buyers, Redis and the database say about the sale. Pure.

Each side's numbers come from that side alone: the buyers' from the answers that they received, those of Redis from its
stock, gate and ledger, those of the database from its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flashsale.demo.options import PER_BUYER
from flashsale.demo.tally import Tally
from flashsale.model import RELEASED, OrderState, Outcome


class Entry(NamedTuple):
    """One order as one side has it.

    Args:
        buyer_id: whose.
        quantity: units.
        state: its current state.
        resale: True when it was accepted after the open phase, by that side's own clock or count.
    """

    buyer_id: str
    quantity: int
    state: OrderState
    resale: bool


Orders = Mapping[str, Entry]  # by order id


@dataclass(frozen=True, slots=True)
class RedisSide:
    """What Redis says, when nothing is under way any more.

    Args:
        total: `Total` of the stock.
        booked: `Booked` of the stock.
        direct: untracked units: booked, and of no order in the ledger.
        count: units that the gate lets pass.
        access: slots of the gate in use.
        pending: orders on the list, leased, or dead.
        unsold: units that were left at the end of the open phase.
        most_booked: the highest `Booked` seen while the sale ran.
        ledger: every order that Redis knows.
    """

    total: int
    booked: int
    direct: int
    count: int
    access: int
    pending: int
    unsold: int
    most_booked: int
    ledger: Orders


@dataclass(frozen=True, slots=True)
class DatabaseSide:
    """What the database says: `total` of the row of the item, and every order row."""

    total: int
    rows: Orders


class Line(NamedTuple):
    """One number as each side has it; None where a side cannot know it."""

    name: str
    buyers: int | None
    redis: int | None
    database: int | None

    @property
    def agrees(self) -> bool:
        """True when all sides that know the number have the same."""
        return len({value for value in self[1:] if value is not None}) == 1


class Check(NamedTuple):
    """A statement that must hold, with the numbers it was checked on."""

    name: str
    numbers: str
    agrees: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of the demo.

    Args:
        lines: numbers that several sides know.
        checks: what must hold between numbers.
        refusals: answers other than ACCEPTED, by outcome, as the buyers received them.
        rows: rows in the database, by state.
    """

    lines: Sequence[Line]
    checks: Sequence[Check]
    refusals: Mapping[str, int]
    rows: Mapping[str, int]

    @property
    def agrees(self) -> bool:
        """True when every number agrees and every check holds."""
        return all(line.agrees for line in self.lines) and all(check.agrees for check in self.checks)


def compare(units: int, tally: Tally, redis: RedisSide, database: DatabaseSide, exits: Mapping[str, int]) -> Settlement:
    """Compares the three sides.

    Args:
        units: what was put up for sale.
        tally: the buyers' side.
        redis: the side of Redis.
        database: the side of the database.
        exits: exit codes of the processes that served the sale, by name.
    """
    buyers = {order_id: Entry(p.buyer_id, p.quantity, p.state, p.resale) for order_id, p in tally.purchases.items()}
    sides = (buyers, redis.ledger, database.rows)

    def line(name: str, wanted: Callable[[Entry], bool]) -> Line:
        return Line(name, *(_units(orders, wanted) for orders in sides))

    sold, held = line("units sold, resale included", _any), line("units held at the end", _is_held)
    cancelled, resold = line("units cancelled", _is_cancelled), line("units resold", _is_resold)
    lines = (
        Line("units for sale", units, redis.total, database.total),
        sold,
        Line("orders accepted", *(len(orders) for orders in sides)),
        cancelled,
        resold,
        line("units paid", lambda entry: entry.state is OrderState.CONFIRMED),
        held,
        Line("units held, as Booked has it", held.buyers, redis.booked, held.database),
        Line("units held, as the gate's access has it", held.buyers, redis.access, held.database),
        Line("units free at the end", units - _units(buyers, _is_held), redis.total - redis.booked, _free(database)),
    )
    return Settlement(
        lines=lines,
        checks=(*_order_checks(sides), *_unit_checks(units, tally, redis, database), *_process_checks(tally, exits)),
        refusals={name: count for name, count in sorted(tally.answers.items()) if name != Outcome.ACCEPTED},
        rows=dict(sorted(Counter(str(entry.state) for entry in database.rows.values()).items())),
    )


def _order_checks(sides: tuple[Orders, Orders, Orders]) -> Iterable[Check]:
    buyers, ledger, rows = sides
    known = len(buyers.keys() | ledger.keys() | rows.keys())
    same = sum(buyers.get(order_id) == ledger.get(order_id) == entry for order_id, entry in rows.items())
    yield Check("all orders the same on three sides", f"{same} of {known}", same == known)
    holders: Counter[str] = Counter()
    for entry in rows.values():
        holders[entry.buyer_id] += entry.quantity if _is_held(entry) else 0
    most = max(holders.values(), default=0)
    yield Check(f"nobody holds more than {PER_BUYER} units", f"at most {most}", most <= PER_BUYER)
    unwanted = sum(entry.state not in _WANTED for entry in rows.values())
    yield Check("no order rejected, expired, left behind", f"{unwanted} were", unwanted == 0)


def _unit_checks(units: int, tally: Tally, redis: RedisSide, database: DatabaseSide) -> Iterable[Check]:
    most = max(redis.most_booked, redis.booked, _units(database.rows, _is_held))
    yield Check("never oversold", f"{most} booked at most, of {units}", most <= units)
    first = sum(purchase.quantity for purchase in tally.purchases.values() if not purchase.resale)
    sums = f"{first} + {redis.unsold} = {units}"
    yield Check("open phase: sold + unsold = units", sums, first + redis.unsold == units)
    back = _units(database.rows, _is_cancelled) + redis.unsold
    resold, free = _units(database.rows, _is_resold), redis.total - redis.booked
    sums = f"{back - redis.unsold} + {redis.unsold} = {resold} + {free}"
    yield Check("cancelled + unsold = resold + free", sums, back == resold + free)
    ledger = _units(redis.ledger, _is_held)
    sums = f"{ledger} + {redis.direct} = {redis.booked}"
    yield Check("ledger + direct = Booked", sums, ledger == redis.booked and redis.direct == 0)
    yield Check("the gate's count is the stock's total", f"{redis.count} of {redis.total}", redis.count == redis.total)
    yield Check("nothing pending: queue, leases, dead", f"{redis.pending} are", redis.pending == 0)


def _process_checks(tally: Tally, exits: Mapping[str, int]) -> Iterable[Check]:
    answers, seen = tally.answers.total(), tally.observed.total()
    yield Check("the observer saw every answer", f"{answers} = {seen}", tally.answers == tally.observed)
    accepted, orders = tally.answers[Outcome.ACCEPTED], len(tally.purchases)
    sums = f"{accepted} - {tally.replays} = {orders}"
    yield Check("accepted answers - repeats = orders", sums, accepted - tally.replays == orders)
    sums = f"{tally.replays} of {tally.repeats}"
    yield Check("asking twice was asking once", sums, tally.replays == tally.repeats)
    reasons = "".join(f"; {reason}" for reason in tally.unanswered)
    lost = tally.unanswered.total()
    yield Check("nobody is left without an answer", f"{lost} are{reasons}", lost == 0)
    codes = f"exit codes {' '.join(str(code) for code in exits.values())}"
    yield Check("all processes ended well", codes, not any(exits.values()))


_WANTED = {OrderState.PERSISTED, OrderState.CONFIRMED, OrderState.CANCELLED}


def _units(orders: Orders, wanted: Callable[[Entry], bool]) -> int:
    return sum(entry.quantity for entry in orders.values() if wanted(entry))


def _any(_entry: Entry) -> bool:
    return True


def _is_held(entry: Entry) -> bool:
    return entry.state not in RELEASED


def _is_cancelled(entry: Entry) -> bool:
    return entry.state is OrderState.CANCELLED


def _is_resold(entry: Entry) -> bool:
    return entry.resale


def _free(database: DatabaseSide) -> int:
    return database.total - _units(database.rows, _is_held)
