"""A pure model of a sale: what every operation must answer, and what must stand in Redis and in the database after it.

An operation of several steps is a generator: it yields wherever the process may die, that is after each change that
Redis or the database makes at once. Driven to the end it gives the answer; traced, it gives every state that a crash
may leave behind.

Two numbers are never counted here but derived: booked units are the untracked ones and those of the active orders
of the ledger; booked units of the database are those of its active rows. So whoever compares them compares the promise.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from flashsale import (
    Admission,
    AlreadyLoaded,
    FlashSaleError,
    GateState,
    Goods,
    InvalidRequest,
    NotExecuted,
    NotPersisted,
    Order,
    OrderConflict,
    OrderState,
    Outcome,
    Receipt,
    Stock,
    StoreError,
    SyncReport,
    UnknownGoods,
    UnknownSale,
)
from flashsale.model import RELEASED, TRANSITIONS

NOW: Final = 1e9  # the model's clock stands still; windows lie far before it or far after it
NEWEST: Final = 2  # the layout of new sales
FAR: Final = 4e9  # a lease or a deadline that has not ended; below it lie the ended ones, by the step that ended them
MAX_ATTEMPTS: Final = 5
ALONE: Final = 10**14  # in a lease: how often its element was claimed alone

QUEUED, PERSISTED, CONFIRMED, CANCELLED, EXPIRED, REJECTED, DEAD = (
    OrderState[name] for name in ("QUEUED", "PERSISTED", "CONFIRMED", "CANCELLED", "EXPIRED", "REJECTED", "DEAD")
)
ROW_ACTIVE: Final = frozenset({PERSISTED, CONFIRMED})

Element: TypeAlias = Order | bytes  # on the list: an order without its time, or what is none
Steps: TypeAlias = Generator[None, None, Any]


class Refused(Exception):
    """The operation raises an error of this type, and nothing more happens."""

    def __init__(self, error: type[FlashSaleError]) -> None:
        self.error = error


class Policy(NamedTuple):
    per_buyer: int | None = None
    opens_at: float | None = None
    closes_at: float | None = None
    hold: float | None = None


def policy_of(goods: Goods) -> Policy:
    return Policy(goods.per_buyer, goods.opens_at, goods.closes_at, goods.hold)


@dataclass
class StockHash:
    total: int
    direct: int  # units taken past the ledger
    policy: Policy
    version: int
    preload: tuple[Any, ...] | None  # None: after a rebuild


@dataclass
class Kept:
    """A ticket that the gate keeps."""

    order_id: str
    units: int
    ends: float


@dataclass
class GateKeys:
    count: int
    preload: int
    start: bool = False
    access: int = 0
    opens_at: float | None = None
    closes_at: float | None = None
    auto: bool = False  # the clock may still set the flag
    pause: bool = False
    cap: int | None = None
    tickets: dict[str, Kept] = field(default_factory=dict)  # by buyer

    @property
    def left(self) -> int:
        return max(0, self.count - self.access)

    def refusal(self) -> Outcome | None:
        refusal = shut(self.opens_at, self.closes_at, paused=self.pause)
        return refusal or (None if self.start or self.auto else Outcome.NOT_STARTED)

    def admit(self, units: int) -> None:
        self.access += units
        if not self.start:
            self.start, self.auto = True, False


@dataclass
class Record:
    """An order in the ledger."""

    order: Order
    state: OrderState
    gated: bool = False
    counted: bool = False  # against the buyer's cap

    @property
    def active(self) -> bool:
        return self.state not in RELEASED


@dataclass
class Delivery:
    attempts: int
    lease: int
    element: Element
    ends: float
    claim: str = ""  # the name of the claim whose elements share a lease


@dataclass
class GoodsRow:
    total: int
    granted: int
    version: int
    policy: Policy
    loaded: bool = False


@dataclass
class OrderRow:
    order: Order
    state: OrderState
    moved: int = 0  # in which step, if it did
    is_tombstone: bool = False


class Handle(NamedTuple):
    """A claim as its holder knows it."""

    delivery: int
    lease: int
    element: Element
    attempts: int
    claim: str = ""


def _is_broken(element: Element) -> bool:
    return isinstance(element, bytes) and b"\n" in element


def shut(opens_at: float | None, closes_at: float | None, *, paused: bool) -> Outcome | None:
    if closes_at is not None and closes_at <= NOW:
        return Outcome.ENDED
    if paused:
        return Outcome.PAUSED
    if opens_at is not None and opens_at > NOW:
        return Outcome.NOT_STARTED
    return None


def way(start: OrderState, end: OrderState) -> list[OrderState]:
    """The shortest way of allowed steps."""
    ways = [[start]]
    for steps in ways:
        if steps[-1] is end:
            return steps[1:]
        ways += [[*steps, state] for state in sorted(TRANSITIONS[steps[-1]]) if state not in steps]
    return []


@dataclass
class Model:
    """One sale.

    Args:
        one_redis: gate and stock share a Redis: then one script decides both.
    """

    one_redis: bool = True
    state: str | None = None  # open or paused, from the first preload on
    layout: int | None = None  # from the first preload on
    stocks: dict[str, StockHash] = field(default_factory=dict)
    gates: dict[str, GateKeys] = field(default_factory=dict)
    ledger: dict[str, Record] = field(default_factory=dict)
    queue: list[Element] = field(default_factory=list)  # the oldest first
    claimed: dict[int, Delivery] = field(default_factory=dict)
    turn: int | None = None
    counter: int = 0  # of deliveries and leases
    epoch: int = 1
    dead: dict[str, Delivery] = field(default_factory=dict)
    holds: dict[str, float] = field(default_factory=dict)
    led: bool = False  # a syncer died while it led
    rows: dict[str, GoodsRow] = field(default_factory=dict)
    orders: dict[str, OrderRow] = field(default_factory=dict)
    poison: frozenset[str] = frozenset()  # buyers whose rows the database refuses
    popped: set[str] = field(default_factory=set)  # orders that another consumer took
    step: int = 0
    last: dict[str, tuple[int, int]] = field(default_factory=dict)  # what the syncer remembers
    granted: dict[str, int] = field(default_factory=dict)  # likewise
    cursor: str | None = None  # likewise: the last row that it has looked at; None: the next pass begins again
    outage: tuple[int, bool] | None = None  # the database fails at the call of this number, before or after it

    # -- running ----------------------------------------------------------------------------------------------------

    def copy(self) -> Model:
        return pickle.loads(pickle.dumps(self))  # several times as fast as deepcopy

    def run(self, steps: Steps) -> Any:
        """Drives an operation of this model to its end; returns the answer, or the type of the error."""
        return self.trace(steps, [])

    def trace(self, steps: Steps, states: list[Model] | None) -> Any:
        """Like `run`, and appends to `states` a copy of the model after each step, the first one before all."""
        keep = states is not None and states != []
        try:
            while True:
                next(steps)
                if keep:
                    states.append(self.copy())
        except StopIteration as end:
            return end.value
        except Refused as refused:
            return refused.error
        finally:
            if keep:
                states.append(self.copy())

    def restarted(self) -> None:
        """The process died: what it only remembered is gone."""
        self.last, self.granted, self.cursor = {}, {}, None

    # -- derived ----------------------------------------------------------------------------------------------------

    def in_ledger(self, goods_id: str) -> int:
        return sum(r.order.quantity for r in self.ledger.values() if r.active and r.order.goods_id == goods_id)

    def booked(self, goods_id: str) -> int:
        return self.stocks[goods_id].direct + self.in_ledger(goods_id)

    def free(self, goods_id: str) -> int:
        return max(0, self.stocks[goods_id].total - self.booked(goods_id))

    def held(self, goods_id: str, buyer_id: str) -> int:
        """Units that count against the buyer's cap."""
        mine = (r for r in self.ledger.values() if r.order.buyer_id == buyer_id and r.order.goods_id == goods_id)
        return sum(r.order.quantity for r in mine if r.active and r.counted)

    def row_booked(self, goods_id: str) -> int:
        mine = (row for row in self.orders.values() if row.order.goods_id == goods_id)
        return sum(row.order.quantity for row in mine if row.state in ROW_ACTIVE)

    def stock(self, goods_id: str) -> Steps:
        yield from ()
        self._known(goods_id in self.stocks)
        stock, booked = self.stocks[goods_id], self.booked(goods_id)
        return Stock(stock.total, booked, max(0, stock.total - booked), stock.direct)

    def gate_state(self, goods_id: str) -> Steps:
        yield from ()
        self._known(goods_id in self.gates)
        gate = self.gates[goods_id]
        return GateState(count=gate.count, started=gate.refusal() is None, access=gate.access, remaining=gate.left)

    def _known(self, known: object) -> None:
        if not known:
            raise Refused(UnknownGoods)

    @property
    def is_known(self) -> bool:
        """Whether Redis or the database knows the sale."""
        return bool(self.state or self.ledger or self.counter or self.rows)

    def _known_sale(self) -> None:
        """Somebody has begun the sale: in the database, or in Redis."""
        if not self.is_known:
            raise Refused(UnknownSale)

    # -- setting up -------------------------------------------------------------------------------------------------

    def load(self, goods_id: str, total: int, booked: int, policy: Policy, version: int = 0) -> None:
        request = (total, booked, policy)
        if goods_id in self.stocks:
            stock = self.stocks[goods_id]
            again = (stock.total, 0, Policy()) if stock.preload is None else stock.preload
            if again != request:
                raise Refused(AlreadyLoaded)
            return
        self.stocks[goods_id] = StockHash(total, booked, policy, version, request)
        self.state, self.layout = self.state or "open", self.layout or NEWEST

    def open_gate(self, goods_id: str, total: int, policy: Policy) -> None:
        if goods_id not in self.gates:
            self.gates[goods_id] = GateKeys(total, total, cap=policy.per_buyer)
            self.schedule(goods_id, policy)
        elif total not in {self.gates[goods_id].count, self.gates[goods_id].preload}:
            raise Refused(AlreadyLoaded)

    def preload(self, goods_id: str, total: int, policy: Policy) -> Steps:
        self.load(goods_id, total, 0, policy)
        yield
        self.open_gate(goods_id, total, policy)

    def schedule(self, goods_id: str, policy: Policy) -> None:
        gate = self.gates[goods_id]
        if (gate.opens_at, gate.closes_at) != (policy.opens_at, policy.closes_at):
            new = gate.opens_at != policy.opens_at
            gate.opens_at, gate.closes_at = policy.opens_at, policy.closes_at
            gate.auto = policy.opens_at is not None and (new or gate.auto)

    def flag(self, goods_id: str, *, start: bool) -> Steps:
        yield from ()
        self._known(goods_id in self.gates)
        self.gates[goods_id].start, self.gates[goods_id].auto = start, False

    def set_state(self, state: str) -> Steps:
        self._known_sale()
        self._known(self.state)
        self.state = state
        yield
        goods = sorted(self.stocks)  # Redis names them in an order of its own: hence all states that may lie between
        for chosen in range(1, 2 ** len(goods)):
            before = {goods_id: self.gates[goods_id].pause for goods_id in goods if goods_id in self.gates}
            for place, goods_id in enumerate(goods):
                if chosen >> place & 1 and goods_id in self.gates:
                    self.gates[goods_id].pause = state == "paused"
            yield
            if chosen < 2 ** len(goods) - 1:
                for goods_id, pause in before.items():
                    self.gates[goods_id].pause = pause

    # -- the gate ---------------------------------------------------------------------------------------------------

    def enter(self, goods_id: str, units: int) -> Steps:
        yield from ()
        return self._enter(goods_id, units)

    def _enter(self, goods_id: str, units: int) -> Admission:
        self._known(goods_id in self.gates)
        gate = self.gates[goods_id]
        if refusal := gate.refusal():
            return Admission(refusal, gate.left)
        if units > gate.left:
            return Admission(Outcome.SOLD_OUT, gate.left)
        gate.admit(units)
        return Admission(Outcome.ADMITTED, gate.left)

    def enter_with_ticket(self, order: Order, *, named: bool) -> Steps:
        """`order` is what the ticket would be for; answers with the admission, and the units of the ticket."""
        yield from ()
        self._known(order.goods_id in self.gates)
        gate, units, known = self.gates[order.goods_id], order.quantity, self.ledger
        kept = gate.tickets.get(order.buyer_id)
        kept = kept if kept and kept.ends == FAR else None
        if gate.refusal() or gate.cap is None or not (gate.left or gate.tickets):
            kept = None
        elif units > gate.cap:
            return Admission(Outcome.LIMIT_REACHED, gate.left), 0
        if kept and (kept.order_id not in known or order.order_id == kept.order_id):
            if units != kept.units or (named and order.order_id != kept.order_id):
                raise Refused(InvalidRequest)
            return Admission(Outcome.ADMITTED, gate.left, kept.order_id), kept.units
        admission = self._enter(order.goods_id, units)
        if not admission.admitted:
            return admission, 0
        if gate.cap is not None:
            gate.tickets[order.buyer_id] = Kept(order.order_id, units, FAR)
            if order.order_id in known:  # named: it exists, with a slot of its own
                gate.access -= units
        return admission._replace(order_id=order.order_id), units

    def buy_with_ticket(self, order: Order) -> Steps:
        yield from ()
        return self._told(self._answer(order, gate=False, gated=True))

    def leave(self, goods_id: str, units: int) -> Steps:
        yield from ()
        return self._leave(goods_id, units)

    def _leave(self, goods_id: str, units: int) -> int:
        self._known(goods_id in self.gates)
        back = min(self.gates[goods_id].access, units)
        self.gates[goods_id].access -= back
        return back

    def resize(self, goods_id: str, count: int) -> Steps:
        yield from ()
        self._known(goods_id in self.gates)
        gate = self.gates[goods_id]
        gate.count = max(count, gate.access)
        return gate.count

    # -- untracked units -----------------------------------------------------------------------------------------------

    def deduct(self, goods_id: str, units: int) -> Steps:
        yield from ()
        self._known(goods_id in self.stocks)
        if units > self.stocks[goods_id].total - self.booked(goods_id):
            return 0
        self.stocks[goods_id].direct += units
        return units

    def release(self, goods_id: str, units: int) -> Steps:
        yield from ()
        self._known(goods_id in self.stocks)
        back = min(units, self.stocks[goods_id].direct)
        self.stocks[goods_id].direct -= back
        return back

    # -- buying -----------------------------------------------------------------------------------------------------

    def _left(self, goods_id: str, *, gate: bool) -> int:
        if goods_id not in self.stocks or (gate and goods_id not in self.gates):
            return 0
        return min(self.free(goods_id), self.gates[goods_id].left) if gate else self.free(goods_id)

    def _why_not(self, order: Order, *, gate: bool) -> Outcome | type[FlashSaleError] | None:
        goods_id = order.goods_id
        if goods_id not in self.stocks or (gate and goods_id not in self.gates):
            return UnknownGoods
        policy = self.stocks[goods_id].policy
        refusal = self.gates[goods_id].refusal() if gate else None
        refusal = refusal or shut(policy.opens_at, policy.closes_at, paused=self.state != "open")
        if refusal:
            return refusal
        if policy.per_buyer is not None and self.held(goods_id, order.buyer_id) + order.quantity > policy.per_buyer:
            return Outcome.LIMIT_REACHED
        return Outcome.SOLD_OUT if order.quantity > self._left(goods_id, gate=gate) else None

    def _answer(self, order: Order, *, gate: bool, gated: bool) -> Receipt | type[FlashSaleError]:
        """Consistency one order, or says why not."""
        goods_id, known = order.goods_id, self.ledger.get(order.order_id)
        if known and known.order.content != order.content:
            return OrderConflict
        why = None if known else self._why_not(order, gate=gate)
        if isinstance(why, type):
            return why
        if not known and not why:
            capped = self.stocks[goods_id].policy.per_buyer is not None
            self.ledger[order.order_id] = Record(order, QUEUED, gated, capped)
            self.queue.append(order)
            if gate:
                self.gates[goods_id].admit(order.quantity)
        state = self.ledger[order.order_id].state if not why else None
        outcome = why or Outcome.ACCEPTED
        left = self._left(goods_id, gate=gate)
        return Receipt(outcome, order.order_id, goods_id, order.quantity, left, replayed=bool(known), state=state)

    def buy(self, order: Order, *, named: bool) -> Steps:
        if self.one_redis:
            yield from ()
            return self._told(self._answer(order, gate=True, gated=True))
        if not (named and order.order_id in self.ledger):
            admission = self._enter(order.goods_id, order.quantity)
            if not admission.admitted:
                return Receipt(admission.outcome, *_asked(order), admission.remaining)
            yield
            answer = self._answer(order, gate=False, gated=True)
            yield
            if not isinstance(answer, Receipt) or not answer.accepted or answer.replayed:
                self._leave(order.goods_id, order.quantity)
            return self._told(answer)
        return self._told(self._answer(order, gate=False, gated=True))

    def _told(self, answer: Any) -> Any:
        if isinstance(answer, type):
            raise Refused(answer)
        return answer

    def reserve(self, orders: Sequence[Order], *, together: bool) -> Steps:
        """Answers with a receipt or the type of an error for each order."""
        yield from ()
        if together and len({order.order_id for order in orders}) < len(orders):
            raise Refused(InvalidRequest)
        before = self.copy()
        answers = [self._answer(order, gate=False, gated=False) for order in orders]
        receipts = [answer for answer in answers if isinstance(answer, Receipt) and answer.accepted]
        replays = {receipt.replayed for receipt in receipts}
        if not together or (len(receipts) == len(answers) and len(replays) < 2):
            return answers
        self.ledger, self.queue = before.ledger, before.queue
        return self._basket(orders, answers, before)

    def _basket(self, orders: Sequence[Order], answers: list[Any], before: Model) -> list[Any]:
        """The answers of a basket that was not accepted."""
        if any(isinstance(answer, Receipt) and answer.replayed for answer in answers):
            return [OrderConflict] * len(answers)
        outcomes = [answer.outcome for answer in answers if isinstance(answer, Receipt) and not answer.accepted]
        told: list[Any] = []
        for order, answer in zip(orders, answers, strict=True):
            own = isinstance(answer, Receipt) and not answer.accepted
            if isinstance(answer, type):
                told.append(answer)
            elif outcomes:
                outcome = answer.outcome if own else outcomes[0]
                told.append(Receipt(outcome, *_asked(order), before._left(order.goods_id, gate=False)))
            else:
                told.append(NotExecuted)
        return told

    # -- the queue --------------------------------------------------------------------------------------------------

    def push(self, element: Element) -> Steps:
        yield from ()
        self.queue.append(element)
        return len(self.queue)

    def pop(self) -> Steps:
        yield from ()
        if not self.queue:
            return None
        element = self.queue.pop(0)
        if isinstance(element, bytes):
            raise Refused(InvalidRequest)
        self.popped.add(element.order_id)
        return element

    def claim(self, limit: int, *, expired: bool = False) -> Steps:
        parts = 0
        for name in dict.fromkeys(name for _, name in self._due(limit)):
            if "+" in name and parts < limit:
                parts += self._split(name)
        due = [(ends, name) for ends, name in self._due(limit) if "+" not in name]
        lost = [(ends, int(number)) for ends, number in due if self.claimed[int(number)].lease]
        own = [int(number) for _, number in due if not self.claimed[int(number)].lease]
        fresh = limit - len(own)
        if lost and (not (own or self.queue) or (self.turn is not None and self.counter >= self.turn)):
            together = sum(ends == lost[0][0] for ends, _ in lost)
            own, fresh = [number for _, number in lost[: max(1, together // 2)]], 0
        elements, self.queue = self.queue[:fresh], self.queue[fresh:]
        alone = len(own) + len(elements) == 1
        shares = self.layout == NEWEST and len(elements) > 1 and not any(_is_broken(each) for each in elements)
        for number in own:
            delivery = self.claimed[number]
            self.counter += 1
            delivery.attempts += not delivery.lease
            delivery.lease = min(9, delivery.lease // ALONE + alone) * ALONE + self.counter
        name = f"{self.counter + 1}+{len(elements)}" if shares else ""
        for element in elements:
            self.counter += 1
            own.append(self.counter)
            self.claimed[self.counter] = Delivery(1, self.counter + ALONE * alone, element, FAR, name)
        for number in own:
            self.claimed[number].ends = float(self.step) if expired else FAR
        if not lost:
            self.turn = None
        elif own and self.turn is None:
            self.turn = self.counter + len(self.queue)
        taken = [(number, self.claimed[number]) for number in own]
        handles = [Handle(number, d.lease, d.element, d.attempts, d.claim) for number, d in taken]
        yield
        worn_out = [each for each in handles if each.attempts > MAX_ATTEMPTS or each.lease // ALONE > MAX_ATTEMPTS]
        if worn_out:
            self._bury(worn_out)
            yield
        return [each for each in handles if each not in worn_out]

    def _due(self, limit: int) -> list[tuple[float, str]]:
        """The leases that have ended, in their order: each element's own, or the one that a claim shares."""
        return sorted({(d.ends, d.claim or str(number)) for number, d in self.claimed.items() if d.ends < FAR})[:limit]

    def _split(self, claim: str) -> int:
        """Gives the elements of a claim leases of their own; returns how many there were."""
        members = [delivery for delivery in self.claimed.values() if claim and delivery.claim == claim]
        for delivery in members:
            delivery.claim = ""
        return len(members)

    def _split_parts(self, handles: Sequence[Handle]) -> None:
        """Splits the claims of which only some elements are meant."""
        named = Counter(handle.claim for handle in set(handles) if handle.claim)
        for claim, count in named.items():
            if not claim.endswith(f"+{count}"):
                self._split(claim)

    def _holds(self, handle: Handle) -> Delivery | None:
        delivery = self.claimed.get(handle.delivery)
        return delivery if delivery and delivery.lease == handle.lease else None

    def _bury(self, handles: Iterable[Handle]) -> int:
        buried = 0
        for handle in handles:
            self._split(handle.claim)
            if self._holds(handle) is None:
                continue
            delivery = self.claimed.pop(handle.delivery)
            known = self.ledger.get(handle.element.order_id) if isinstance(handle.element, Order) else None
            if known and known.state is QUEUED and known.order.content == handle.element.content:
                known.state = DEAD
                self.dead[known.order.order_id] = delivery
            else:
                self.dead[f" {handle.delivery}"] = delivery
            buried += 1
        return buried

    def bury(self, handles: Iterable[Handle]) -> Steps:
        yield from ()
        return self._bury(handles)

    def nack(self, handles: Iterable[Handle], *, delayed: bool, count_attempt: bool = True) -> Steps:
        yield from ()
        return self._nack(handles, delayed=delayed, count_attempt=count_attempt)

    def _nack(self, handles: Iterable[Handle], *, delayed: bool, count_attempt: bool = True) -> int:
        gone = 0
        for handle in handles:
            self._split(handle.claim)
            if delivery := self._holds(handle):
                delivery.attempts -= 0 if count_attempt else 1
                delivery.lease, delivery.ends = 0, FAR if delayed else float(self.step)
                gone += 1
        return gone

    def extend(self, handles: Iterable[Handle]) -> Steps:
        yield from ()
        held, handles = 0, list(handles)
        self._split_parts(handles)
        for handle in handles:
            if delivery := self._holds(handle):
                delivery.ends = FAR
                held += 1
        return held

    def ack(self, handles: Iterable[Handle]) -> Steps:
        yield from ()
        return self._ack(handles)

    def _ack(self, handles: Iterable[Handle]) -> int:
        dropped, handles = 0, list(handles)
        self._split_parts(handles)
        for handle in handles:
            dropped += self.claimed.pop(handle.delivery, None) is not None
            known = self.ledger.get(handle.element.order_id) if isinstance(handle.element, Order) else None
            if known and known.state is QUEUED:
                self._persisted(known)
        return dropped

    def _persisted(self, known: Record) -> None:
        """From now on the buyer has so long to pay."""
        known.state = PERSISTED
        stock = self.stocks.get(known.order.goods_id)
        if stock and stock.policy.hold is not None:
            self.holds[known.order.order_id] = FAR

    def requeue_dead(self, fields: Sequence[str]) -> Steps:
        """The letters, by their ids."""
        yield from ()
        for name in fields:
            self.queue.append(self.dead.pop(name).element)
            known = self.ledger.get(name)
            if known and known.state is DEAD:
                known.state = QUEUED
        return len(fields)

    # -- the database -----------------------------------------------------------------------------------------------

    def put_goods(self, goods: Goods) -> Steps:
        yield from ()
        row = self.rows.get(goods.goods_id)
        if row is None:
            self.rows[goods.goods_id] = GoodsRow(goods.total, goods.total, goods.version, policy_of(goods))
        else:
            row.total, row.version, row.policy = goods.total, max(row.version + 1, goods.version), policy_of(goods)

    def _fails(self, *, after: bool) -> None:
        """Raises where the outage is."""
        if self.outage is None:
            return
        left, then = self.outage
        if left == 0 and then == after:
            self.outage = None
            raise Refused(StoreError)
        if after:
            self.outage = (left - 1, then)

    def save(self, orders: Sequence[Order]) -> dict[str, OrderState]:
        """One transaction; returns the states that stand, without those of conflicts."""
        self._fails(after=False)
        new = [order for order in orders if order.order_id not in self.orders]
        if any(order.goods_id not in self.rows for order in new):
            raise Refused(StoreError)
        standing = {}
        for order in orders:
            row = self.orders.get(order.order_id)
            if row is None:
                fits = self.row_booked(order.goods_id) + order.quantity <= self.rows[order.goods_id].granted
                row = self.orders[order.order_id] = OrderRow(order, PERSISTED if fits else REJECTED, self.step)
            if row.order.content == order.content:
                standing[order.order_id] = row.state
                if row.is_tombstone and row.order.data is None:
                    row.order = order
        self._fails(after=True)
        return standing

    def store_settle(self, order: Order, state: OrderState) -> OrderState:
        self._fails(after=False)
        row = self.orders.get(order.order_id)
        if row is None:
            if state is CONFIRMED:
                raise Refused(NotPersisted)
            row = self.orders[order.order_id] = OrderRow(order, state, self.step, is_tombstone=True)
        elif row.order.content != order.content:
            raise Refused(OrderConflict)
        elif state in TRANSITIONS[row.state]:
            row.state, row.moved = state, self.step
        self._fails(after=True)
        return row.state

    # -- the lifecycle of an order ------------------------------------------------------------

    def settle(self, order_id: str, state: OrderState) -> Steps:
        known = self.ledger.get(order_id)
        if known is None:
            self._known_sale()
            return None
        if state in RELEASED and known.state in RELEASED:
            state = known.state  # released already: the database can only learn how
        bare = Order(order_id, *known.order.content)
        if state is CONFIRMED and known.state in RELEASED and order_id not in self.orders:
            current = known.state  # it was sold out when it was adopted, and will never have a row
        else:
            current = self.store_settle(bare, state)
        yield
        yield from self.follow({order_id: current})
        return current

    def follow(self, states: Mapping[str, OrderState]) -> Steps:
        """The ledger goes where the database stands, at once; a gate at another Redis hears of it after that."""
        slots: Counter[str] = Counter()
        ways = {
            order_id: way(self.ledger[order_id].state, state)
            for order_id, state in states.items()
            if order_id in self.ledger
        }
        dead = [order_id for order_id in ways if ways[order_id] and self.ledger[order_id].state is DEAD]
        for order_id in sorted(ways, key=dead.__contains__):
            known = self.ledger[order_id]
            if order_id in dead[:1]:
                yield
                self.dead = {name: letter for name, letter in self.dead.items() if name not in dead}
                yield  # their letters are removed by a command of its own
            for step in ways[order_id]:
                known.state = step
                self.holds.pop(order_id, None)
                if step is PERSISTED:
                    self._persisted(known)
                if step in RELEASED and known.gated:
                    slots[known.order.goods_id] += known.order.quantity
        if not self.one_redis:
            yield
        for goods_id, units in slots.items():
            self._leave(goods_id, units)
            if not self.one_redis:
                yield
        yield

    # -- the worker -------------------------------------------------------------------------------------------------

    def adopt(
        self, order: Order, state: OrderState = QUEUED, *, most: int | None = None
    ) -> OrderState | type[FlashSaleError]:
        known = self.ledger.get(order.order_id)
        if known:
            return known.state if known.order.content == order.content else OrderConflict
        stock = self.stocks.get(order.goods_id)
        if stock is None:
            return UnknownGoods
        taken = min(stock.direct, order.quantity if most is None else most)
        if most is None and taken < order.quantity:
            taken = 0
        if taken < order.quantity and order.quantity - taken > stock.total - self.booked(order.goods_id):
            state = REJECTED
        else:
            stock.direct -= taken
        counted = stock.policy.per_buyer is not None and state is not REJECTED
        self.ledger[order.order_id] = Record(order, state, gated=False, counted=counted)
        return state

    def work(self, batch: int = 500) -> Steps:
        claims = yield from self.claim(batch)
        unreadable = [claim for claim in claims if isinstance(claim.element, bytes)]
        self._bury(unreadable)
        yield
        claims = [claim for claim in claims if isinstance(claim.element, Order)]
        try:
            return (yield from self._work(claims))
        except Refused as refused:
            if refused.error is StoreError:  # nobody is to blame: this attempt does not count
                self._nack(claims, delayed=True, count_attempt=False)
            raise

    def _work(self, claims: list[Handle]) -> Steps:
        states = [(claim, self.adopt(claim.element)) for claim in claims]
        yield
        self._bury(claim for claim, state in states if state is OrderConflict)
        yield
        for claim, state in states:
            if state is UnknownGoods:
                self._nack([claim], delayed=True)
                yield
        rejected = [claim for claim, state in states if state is REJECTED]
        for claim in rejected:
            self.store_settle(claim.element, REJECTED)
            yield
        self._ack(rejected)
        yield
        claims = [claim for claim, state in states if isinstance(state, OrderState) and state is not REJECTED]
        orders = {claim.element.order_id: claim.element for claim in reversed(claims)}  # of twins the first
        wanted = list(dict.fromkeys(claim.element.order_id for claim in claims))
        standing = yield from self._saved([orders[order_id] for order_id in wanted])
        firsts = {claim.element.order_id: claim for claim in reversed(claims)}
        known = {order_id for order_id, claim in firsts.items() if claim.attempts > 1}
        refused = [order_id for order_id in wanted if orders[order_id].buyer_id in self.poison]
        if 1 < len(refused) == len(wanted) and not known.issuperset(refused):
            raise Refused(StoreError)  # all alike: the database's fault
        for _ in refused:
            yield  # the reason
        if known.intersection(standing):
            yield  # reasons that are forgotten
        yield from self.follow({order_id: state for order_id, state in standing.items() if state is not PERSISTED})
        self._ack(claim for claim in claims if claim.element.order_id in standing)
        yield
        for claim in claims:
            if claim.element.order_id not in standing:
                self._nack([claim], delayed=True)
                yield
        return len(standing) + len(rejected)

    def _saved(self, orders: Sequence[Order]) -> Steps:
        if not orders:
            return {}
        if any(order.buyer_id in self.poison for order in orders):
            self._fails(after=False)
            self._fails(after=True)
            if len(orders) == 1:
                return {}
            middle = len(orders) // 2
            first = yield from self._saved(orders[:middle])
            second = yield from self._saved(orders[middle:])
            return first | second
        standing = self.save(orders)
        yield
        return standing

    # -- the syncer -------------------------------------------------------------------------------------------------

    def sync(self) -> Steps:
        if self.led:
            return SyncReport(leading=False)
        self.led = True
        yield
        try:
            return (yield from self._sync())
        finally:
            self.led = False

    def _sync(self) -> Steps:
        expired, returned = (yield from self._expire()), 0
        loaded, missing, resized = [], [], []
        for goods_id, row in sorted(self.rows.items()):
            stock = self.stocks.get(goods_id)
            if stock is None and row.loaded:
                missing.append(goods_id)
                continue
            if stock is None:
                loaded.append(goods_id)
                row.granted = row.total
                yield
                self.load(goods_id, row.total, 0, row.policy, row.version)
                stock = self.stocks[goods_id]
                yield
                row.loaded = True
            elif not row.loaded:
                row.granted = max(row.total, stock.total)
                row.loaded = True
            yield
            before = stock.total
            yield from self._adjust(goods_id, before)
            if self.granted.get(goods_id) != stock.total:  # a crash may have left the guard looser than the stock
                row.granted = self.granted[goods_id] = stock.total
                yield
            if stock.total != before:
                resized.append((goods_id, stock.total))
            returned += yield from self._mirror(goods_id, row)
        return SyncReport(
            leading=True,
            loaded=tuple(loaded),
            missing=tuple(missing),
            resized=tuple(resized),
            returned=returned,
            expired=expired,
            settled=(yield from self._reconcile_page()),
            recovered=(yield from self._recover()),
        )

    def _recover(self) -> Steps:
        """What lost its place with a key comes back, if the ledger tells; a busy queue tells nothing."""
        recovered, idle = 0, not self.queue and not self.claimed and self.counter
        for order_id, known in sorted(self.ledger.items()):
            row, stock = self.orders.get(order_id), self.stocks.get(known.order.goods_id)
            if row is None and known.state is DEAD and order_id not in self.dead:
                known.state = QUEUED
                yield
            elif row is None and known.state is QUEUED and idle:
                pass
            elif row and row.state is known.state is PERSISTED and order_id not in self.holds:
                if stock is None or stock.policy.hold is None:
                    continue
                self.holds[order_id] = FAR
                recovered += 1
                yield
                continue
            else:
                continue
            self.queue.append(Order(order_id, *known.order.content))
            self.popped.discard(order_id)
            recovered += 1
            yield
        return recovered

    def _expire(self) -> Steps:
        """All that is overdue, in one transaction; then the ledger follows."""
        overdue = [order_id for order_id, ends in sorted(self.holds.items()) if ends < FAR]
        orders = [Order(order_id, *self.ledger[order_id].order.content) for order_id in overdue]
        states = {order.order_id: self.store_settle(order, EXPIRED) for order in orders}
        yield
        yield from self.follow(states)
        return list(states.values()).count(EXPIRED)

    def _adjust(self, goods_id: str, before: int) -> Steps:
        """Raising: the guard first. Lowering: the stock first, never below what is booked."""
        row, stock = self.rows[goods_id], self.stocks[goods_id]
        wished = max(row.total, before)
        if row.total != before:
            row.granted = wished
            yield
        if row.version >= stock.version:
            bound = min(self.booked(goods_id), stock.total) if stock.total else self.booked(goods_id)
            stock.total, stock.version = max(row.total, bound), row.version
            stock.policy = row.policy
            yield
        if stock.total != wished:
            row.granted = stock.total
            yield

    def restock(self, goods_id: str, units: int) -> Steps:
        self._known_sale()
        self._known(goods_id in self.stocks)
        before = self.stocks[goods_id].total
        row = self.rows.get(goods_id)
        if row is None:
            raise Refused(StoreError)
        row.total, row.version = max(0, row.total + units), row.version + 1
        yield
        yield from self._adjust(goods_id, before)
        yield from self.resize(goods_id, self.stocks[goods_id].total)
        return self.stocks[goods_id].total

    def _reconcile_page(self) -> Steps:
        """The ledger follows the rows from which a crash kept it: moves at once, saved rows page by page."""
        page = [pair for pair in sorted(self.orders.items()) if self.cursor is None or pair[0] > self.cursor]
        self.cursor = page[-1][0] if page else None
        settled = 0
        moved = [pair for pair in self.orders.items() if pair[1].state is not PERSISTED]
        moved.sort(key=lambda pair: (pair[1].moved, pair[1].order.goods_id, pair[0]))
        for order_id, row in [*moved, *page]:
            known = self.ledger[order_id]
            if way(known.state, row.state):
                yield from self.follow({order_id: row.state})
                settled += 1
        return settled

    def _mirror(self, goods_id: str, row: GoodsRow, *, looks: bool = True) -> Steps:
        total, booked = self.stocks[goods_id].total, self.booked(goods_id)
        if goods_id not in self.gates:
            self.gates[goods_id] = GateKeys(total, total, cap=row.policy.per_buyer)
            self.schedule(goods_id, row.policy)
        gate = self.gates[goods_id]
        yield
        self.schedule(goods_id, row.policy)
        yield
        before, access = self.last.get(goods_id), gate.access
        if looks and before == (booked, access):
            access = min(access, booked)  # nobody is between gate and stock: the rest has leaked
        access = max(access, min(booked, total))
        returned = max(0, gate.access - access)
        refusal = gate.refusal()
        gate.count, gate.access, gate.pause = max(total, access), access, self.state != "open"
        gate.cap = row.policy.per_buyer
        if refusal is Outcome.ENDED:
            gate.start = False
        elif refusal is None and not gate.start:
            gate.start, gate.auto = True, False
        if looks:
            self.last[goods_id] = (booked, access)
        yield
        used = self.ledger if self.one_redis else {}
        gate.tickets = {
            buyer_id: kept for buyer_id, kept in gate.tickets.items() if kept.ends == FAR and kept.order_id not in used
        }
        yield
        return returned

    # -- what is lost, and what brings it back ------------------------------------------------------------------------

    def lose(self, name: str, goods_id: str) -> None:
        """A key is gone; what the ledger, or an item that sells nothing, would answer is not asked until `rebuild`."""
        gate, stock = self.gates.get(goods_id), self.stocks[goods_id]
        if name == "meta":
            self.counter, self.turn, self.layout = 0, None, None
        elif name == "stock":
            stock.direct = 0  # nobody knows them any more
        elif name == "count" and gate:
            gate.count = gate.preload = stock.total
            gate.auto = gate.auto or stock.policy.opens_at is not None
        elif name == "window" and gate:
            gate.opens_at, gate.closes_at, gate.auto, gate.pause, gate.preload = None, None, False, False, -1
        elif name == "start" and gate:
            gate.start = False
        elif name == "access" and gate:
            gate.access = 0
        elif name == "order_list":
            self.queue = []
        elif name == "claimed":
            self.claimed = {}
        elif name == "leases":
            for delivery in self.claimed.values():
                delivery.ends = FAR
        elif name == "dead":
            self.dead = {}
        elif name == "holds":
            self.holds = {}

    def places(self) -> set[str]:
        """Ids of the orders that are in the ledger, on the list, under a lease or among the dead."""
        deliveries = (*self.claimed.values(), *self.dead.values())
        elements = (*self.queue, *(delivery.element for delivery in deliveries))
        return {*self.ledger, *(element.order_id for element in elements if isinstance(element, Order))}

    def rebuild(self, lost: str = "", of: str = "") -> Steps:
        """The ledger is what the database has, and what waits in the queue, which stays.

        Args:
            lost: the key that was lost.
            of: its item; with `stock` it is not known what the ledger had.
        """
        yield from ()
        if self.lowered("" if lost != "stock" else of):
            raise Refused(InvalidRequest)
        tracked = {
            goods_id: 0 if (lost, of) == ("stock", goods_id) else self.in_ledger(goods_id) for goods_id in self.stocks
        }
        direct = {goods_id: stock.direct for goods_id, stock in self.stocks.items()}
        before = {} if lost == "orders" else self.ledger
        self.ledger, self.holds, self.state, self.epoch = {}, {}, "open", self.epoch + 1
        self.layout = self.layout or NEWEST
        self.counter = max(self.counter, self.epoch * 10**9)
        for order_id, row in self.orders.items():
            policy = self.rows[row.order.goods_id].policy
            self.ledger[order_id] = Record(row.order, row.state, gated=True, counted=policy.per_buyer is not None)
            if row.state is PERSISTED and policy.hold is not None:
                self.holds[order_id] = FAR
        for goods_id, item in self.rows.items():
            stock = self.stocks[goods_id] = StockHash(0, direct[goods_id], item.policy, item.version, None)
            stock.total = item.granted = max(item.total, self.booked(goods_id))
            yield from self._mirror(goods_id, item, looks=False)
        waiting = {
            state: [order for order in orders if order.order_id not in self.ledger]
            for state, orders in self._waiting().items()
        }
        own: Counter[str] = Counter()
        for orders in waiting.values():
            known = {order.order_id for order in orders if _had_units(before.get(order.order_id), order)}
            orders.sort(key=lambda order, known=known: order.order_id not in known)
            for order in orders:
                own[order.goods_id] += order.quantity if order.order_id in known else 0
        ours = {name: max(units - self.in_ledger(name), own[name]) for name, units in tracked.items()}
        self._take_up(waiting, ours)
        self.popped &= self.ledger.keys()

    def shares_an_id(self) -> bool:
        """True if different orders have the same id: without a ledger, nobody knows which of them is ours."""
        deliveries = [*self.claimed.values(), *self.dead.values()]
        elements = [*self.queue, *(delivery.element for delivery in deliveries)]
        different = {(order.order_id, order.content) for order in elements if isinstance(order, Order)}
        return len({order_id for order_id, _ in different}) < len(different)

    def is_rejected(self, order_id: str) -> bool:
        """True for an order of the ledger that had no units, and has no row yet."""
        known = self.ledger.get(order_id)
        return known is not None and known.state is REJECTED and order_id not in self.orders

    def lowered(self, gone: str = "") -> dict[str, int]:
        """Units that are sold, of the items of which the host wants to sell fewer while some wait for the database.

        Args:
            gone: the item whose stock is lost.
        """
        waiting = {
            order.goods_id
            for orders in self._waiting().values()
            for order in orders
            if order.order_id not in self.orders
        }
        sold = {name: min(self.stocks[name].total, self.booked(name)) for name in self.rows if name in self.stocks}
        return {
            name: units for name, units in sold.items() if name in waiting - {gone} and self.rows[name].total < units
        }

    def _take_up(self, waiting: Mapping[OrderState, list[Order]], ours: dict[str, int]) -> None:
        """Who waits is booked before anybody else can buy; `ours`: units that no external program deducted."""
        for state, orders in waiting.items():
            for order in orders:
                own = min(order.quantity, ours.get(order.goods_id, 0))
                ours[order.goods_id] = ours.get(order.goods_id, 0) - own
                self.adopt(order, state, most=order.quantity - own)

    def _waiting(self) -> dict[OrderState, list[Order]]:
        """Returns who waits, sorted, each id once."""
        letters = [delivery.element for delivery in self.dead.values()]
        listed = [*self.queue, *(delivery.element for delivery in self.claimed.values())]
        dead = [each for each in letters if isinstance(each, Order) and each.order_id in self.dead]
        listed = [each for each in listed if isinstance(each, Order) and each.order_id not in self.dead]
        waiting = {}
        for state, orders in ((DEAD, dead), (QUEUED, listed)):
            in_order = sorted(orders, key=lambda order: (order.order_id, order.content), reverse=True)
            waiting[state] = list({order.order_id: order for order in in_order}.values())[::-1]
        return waiting

    def repair(self) -> Steps:
        """Returns how many orders were mended."""
        yield from ()
        mended = 0
        elements = [*self.queue, *(delivery.element for delivery in self.claimed.values())]
        pending = {element.order_id for element in elements if isinstance(element, Order)}
        for order_id, known in sorted(self.ledger.items()):
            row, hold = self.orders.get(order_id), self.stocks[known.order.goods_id].policy.hold
            if row is None and known.state in {QUEUED, DEAD} and order_id not in {*pending, *self.dead}:
                known.state = QUEUED
                self.queue.append(Order(order_id, *known.order.content))
                self.popped.discard(order_id)
            elif row and row.state is known.state is PERSISTED and hold is not None and order_id not in self.holds:
                self.holds[order_id] = FAR
            elif row and way(known.state, row.state) and not (known.state is QUEUED and order_id in pending):
                yield from self.follow({order_id: row.state})
            else:
                continue
            mended += 1
        return mended

    # -- time -------------------------------------------------------------------------------------------------------

    def time_passes(self, *, leases: bool, holds: bool) -> None:
        """All leases end, also the syncer's, and all delays; all payment deadlines pass, and tickets expire."""
        if leases:
            self.led = False
            for delivery in self.claimed.values():
                delivery.ends = min(delivery.ends, float(self.step))
        if holds:
            self.holds = {order_id: min(ends, float(self.step)) for order_id, ends in self.holds.items()}
            for gate in self.gates.values():
                for kept in gate.tickets.values():
                    kept.ends = 1.0

    # -- looking ----------------------------------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """Everything that can be read, as `test_state_machine` reads it from Redis and from the database."""
        goods = sorted(self.stocks)
        buyers = sorted({record.order.buyer_id for record in self.ledger.values()})
        return {
            "state": self.state,
            "layout": self.layout,
            "goods": goods,
            "stock": {
                goods_id: (s.total, self.booked(goods_id), self.in_ledger(goods_id), s.version, s.policy)
                for goods_id, s in self.stocks.items()
            },
            "held": {
                (goods_id, buyer_id): held
                for goods_id in goods
                for buyer_id in buyers
                if (held := self.held(goods_id, buyer_id))
            },
            "gate": {
                goods_id: (g.count, g.start, g.access, g.opens_at, g.closes_at, g.auto, g.pause, g.cap)
                for goods_id, g in self.gates.items()
            },
            "tickets": {
                (goods_id, buyer_id): (kept.ends == FAR, kept.units, kept.order_id)
                for goods_id, gate in self.gates.items()
                for buyer_id, kept in gate.tickets.items()
            },
            "ledger": {order_id: (r.state, r.order.content, r.gated, r.counted) for order_id, r in self.ledger.items()},
            "list": self.queue,
            "claimed": {n: (d.attempts, d.lease, d.element, d.ends < FAR, d.claim) for n, d in self.claimed.items()},
            "dead": {name: (d.attempts, d.lease, d.element) for name, d in self.dead.items()},
            "holds": {order_id: ends < FAR for order_id, ends in self.holds.items()},
            "led": self.led,
            "rows": {
                goods_id: (r.total, r.granted, self.row_booked(goods_id), r.version, r.policy, r.loaded)
                for goods_id, r in self.rows.items()
            },
            "orders": {order_id: (row.state, row.order) for order_id, row in self.orders.items()},
        }


def _had_units(record: Record | None, order: Order) -> bool:
    return record is not None and record.active and record.order.content == order.content


def _asked(order: Order) -> tuple[str, str, int]:
    return order.order_id, order.goods_id, order.quantity
