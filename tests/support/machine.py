"""A sale under test beside its model: the same operations on both, faults at every boundary, and all state compared.

A boundary is a request to Redis or a call of the database. At each of them the process may die, before it or after it;
then a new process begins on the same Redis and database. Redis's clock cannot be steered, so windows lie in the far
past or future, and "time passes" by moving the ends of leases and deadlines into the past.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import create_engine, select
from sqlalchemy.pool import StaticPool

from flashsale import (
    Claim,
    FlashSale,
    FlashSaleError,
    Goods,
    InvalidRequest,
    Keys,
    NotExecuted,
    Order,
    OrderState,
    Outcome,
    OutcomeUnknown,
    Receipt,
    RowRefused,
    StoreError,
    Syncer,
    Tickets,
    UnknownGoods,
    Worker,
)
from flashsale._rules.rows import read_order
from flashsale._sql.tables import GOODS, ORDERS
from flashsale.model.reports import Problem
from flashsale.stores import SQLAlchemyStore
from flashsale.testing import Crash
from tests.support.article import SCRIPT
from tests.support.claims import read_claim
from tests.support.model import (
    FAR,
    PERSISTED,
    QUEUED,
    REJECTED,
    ROW_ACTIVE,
    Element,
    Handle,
    Model,
    Policy,
    policy_of,
    shut,
)

if TYPE_CHECKING:
    from tests.conftest import Backend

PAST, FUTURE = 1000.0, FAR
LONG = 3600.0  # seconds: no lease or deadline of this length ends while a test runs
GOODS_IDS = ("a", "b", "x")  # nobody ever preloads x
BUYERS = ("ann", "bob", "eve")
TICKETS = Tickets({"a": b"s" * 32}, lifetime=LONG)


class Faults:
    """What goes wrong in one process: at the boundary of this number, before it or after it."""

    def __init__(self) -> None:
        self.dead = False
        self.clear()

    def clear(self) -> None:
        self.crash: tuple[int, bool] | None = None
        self.lost: tuple[int, bool] | None = None  # the request, or its reply
        self.outage: tuple[int, bool] | None = None  # of the database, counting what it decides
        self.meanwhile: tuple[int, Callable[[], Any]] | None = None  # others act while this process sleeps

    def send(self, real: Callable[..., Any], *command: Any, **how: Any) -> Any:
        if "BLPOP" in command:  # nobody waits here
            at = command.index("BLPOP")
            return real(*command[:at], "LLEN", command[at + 1], **how)
        call = partial(real, *command, **how)
        if self.lost is not None:
            left, after = self.lost
            self.lost = (left - 1, after) if left else None
            if not left:
                if not after:
                    raise NotExecuted("lost on the way")
                self.boundary(call)
                raise OutcomeUnknown("the reply was lost")
        return self.boundary(call)

    def store(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.outage is not None and name in {"save", "settle", "settle_many"}:
            left, after = self.outage
            self.outage = (left - 1, after) if left else None
            if not left:
                if after:
                    with contextlib.suppress(RowRefused):  # nobody hears of it
                        self.boundary(partial(real, *args, **kwargs))
                raise StoreError("the database is down")
        return self.boundary(partial(real, *args, **kwargs))

    def boundary(self, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash  # nothing runs in a dead process, not even `finally`
        if self.meanwhile is not None:
            left, act = self.meanwhile
            self.meanwhile = (left - 1, act) if left else None
            if not left:
                act()
        if self.crash is None:
            return call()
        left, after = self.crash
        self.crash = (left - 1, after)
        if left:
            return call()
        if after:
            call()
        self.dead = True
        raise Crash


class Store:
    """A store whose process may die, whose database may be down, and that refuses the rows of some buyers."""

    def __init__(self, inner: Any, faults: Faults, poison: set[str]) -> None:
        self.inner, self.faults, self.poison = inner, faults, poison

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.inner, name)
        return partial(self.faults.store, name, self._save if name == "save" else real)

    def _save(self, orders: Iterable[Order]) -> Any:
        orders = list(orders)
        if any(order.buyer_id in self.poison for order in orders):
            raise RowRefused("a constraint of the host's")
        return self.inner.save(orders)


class Process:
    """What one process of the host holds."""

    def __init__(self, world: World) -> None:
        self.faults = Faults()
        self.store = Store(world.store, self.faults, world.poison)
        gate = {"gate_client": world.gate_client} if world.gate_client is not None else {}
        self.sale = FlashSale(world.client, world.name, store=self.store, cache_for=0, tickets=TICKETS, **gate)
        for link in {self.sale._link, self.sale._gate_link}:
            link._send = partial(self.faults.send, link._send)
        self.sale._recorder._later.end(0)  # its thread would meet the faults by the clock
        self.worker = Worker(self.sale)
        self.syncer = Syncer(self.sale)

    def close(self) -> None:
        with contextlib.suppress(Crash):  # a dead process has nothing to tell
            self.sale.close()


class World:
    """Redis and database of one sale, and how to read all that is in them.

    Args:
        backend: the Redis.
        engine: the database.
        name: of the sale, used once.
        one_redis: gate and stock share it.
        wrap: makes a store of ours another one, for mutations.
    """

    def __init__(
        self, backend: Backend, engine: Any, name: str, *, one_redis: bool, wrap: Callable[[Any], Any]
    ) -> None:
        self.name = name
        self.keys = Keys().of(name)
        self.poison: set[str] = set()
        self.client = backend.client()
        self.raw = backend.raw(name)
        self.gate_client = None if one_redis else backend.client(db=1)
        self.gate_raw = self.raw if one_redis else backend.raw(db=1)
        self.engine = engine
        self.store = wrap(SQLAlchemyStore(engine, name))
        self.article = self.raw.register_script(SCRIPT)

    def flush(self) -> None:
        self.raw.flushdb()
        self.gate_raw.flushdb()

    def close(self) -> None:
        for client in {self.client, self.raw, self.gate_client, self.gate_raw} - {None}:
            client.close()

    def view(self, model: Model, since: float) -> dict[str, Any]:
        """Everything that can be read, in the form of `Model.view`.

        Args:
            model: decides whether what ended while we looked had ended.
            since: Redis TIME when the step began.
        """
        keys = self.keys
        pipe = self.raw.pipeline(transaction=False)
        pipe.time()
        for key in (keys.meta, keys.orders, keys.claimed, keys.dead):
            pipe.hgetall(key)
        pipe.smembers(keys.goods)
        pipe.lrange(keys.order_list, 0, -1)
        for key in (keys.leases, keys.holds):
            pipe.zrange(key, 0, -1, withscores=True)
        for goods_id in GOODS_IDS:
            pipe.hgetall(keys.stock(goods_id))
            pipe.hgetall(keys.buyers(goods_id))
        (seconds, micros), meta, ledger, claimed, dead, goods, elements, leases, holds, *rest = pipe.execute()
        now = seconds + micros / 1e6
        pipe = self.gate_raw.pipeline(transaction=False)
        for goods_id in GOODS_IDS:
            pipe.mget(*keys.gate(goods_id)[:3])
            pipe.hgetall(keys.window(goods_id))
            pipe.hgetall(keys.tickets(goods_id))
        gates = pipe.execute()

        def ended(score: float, ends: float | None) -> bool:
            if since + 0.25 < score <= now:  # a slow machine: it was ahead when it was written, or it was not
                return ends is not None and ends < FAR
            return score <= now

        ends = dict(leases)
        assert ends.keys() == claimed.keys(), "a lease without an element, or an element without a lease"
        deliveries = {
            number: (*_delivery(text), ended(ends[name], _ends(model.claimed.get(number))), claim)
            for name, entry in claimed.items()
            for number, text, claim in read_claim(name, entry)
        }
        records = {name.decode(): _record(text) for name, text in ledger.items()}
        stocks, held = {}, {}
        for goods_id, stock, buyers in zip(GOODS_IDS, rest[::2], rest[1::2], strict=True):
            if stock:
                policy = Policy(
                    *(_number(stock.get(name)) for name in (b"per_buyer", b"opens_at", b"closes_at", b"hold"))
                )
                units = (int(stock[name]) for name in (b"Total", b"Booked", b"Ledger", b"version"))
                stocks[goods_id] = (*units, policy)
            held |= {(goods_id, buyer.decode()): int(units) for buyer, units in buyers.items() if int(units)}
        return {
            "state": meta[b"state"].decode() if b"state" in meta else None,
            "layout": int(meta[b"layout"]) if b"layout" in meta else None,
            "goods": sorted(name.decode() for name in goods),
            "stock": stocks,
            "held": held,
            "gate": {
                goods_id: _gate(counters, window)
                for goods_id, counters, window in zip(GOODS_IDS, gates[::3], gates[1::3], strict=True)
                if counters[0] is not None
            },
            "tickets": {
                (goods_id, buyer.decode()): _ticket(text, now)
                for goods_id, tickets in zip(GOODS_IDS, gates[2::3], strict=True)
                for buyer, text in tickets.items()
            },
            "ledger": records,
            "list": [_element(body) for body in reversed(elements)],
            "claimed": deliveries,
            "dead": {name.decode(): _delivery(text) for name, text in dead.items()},
            "holds": {name.decode(): ended(score, model.holds.get(name.decode())) for name, score in holds},
            "led": float(meta.get(b"leader_until", 0)) > now,
        } | self._database()

    def _database(self) -> dict[str, Any]:
        with self.engine.connect() as connection:
            goods = connection.execute(select(GOODS).where(GOODS.c.sale == self.name)).all()
            orders = connection.execute(select(ORDERS).where(ORDERS.c.sale == self.name)).mappings().all()
        stored = [read_order(row) for row in orders]
        return {
            "rows": {
                row.goods_id: (row.total, row.granted, row.booked, row.version, policy_of(row), row.loaded)
                for row in goods
            },
            "orders": {each.order.order_id: (each.state, replace(each.order, created_at=None)) for each in stored},
        }

    def lose(self, name: str, goods_id: str) -> bool:
        """Deletes a key; False when it was not there."""
        raw = self.gate_raw if name in {"count", "start", "access", "window"} else self.raw
        key = getattr(self.keys, name)
        if name == "claimed":  # what is left of them ends: the next claim drops it
            self.raw.zadd(self.keys.leases, dict.fromkeys(self.raw.hkeys(key), 0) or {"none": 0}, xx=True)
        return bool(raw.delete(key if isinstance(key, str) else key(goods_id)))

    def time(self) -> float:
        seconds, micros = self.raw.time()
        return seconds + micros / 1e6

    def set_time(self, model: Model) -> None:
        """Moves the ends of leases and deadlines to where the model has them."""
        if model.claimed:
            ends = {delivery.claim or number: delivery.ends for number, delivery in model.claimed.items()}
            self.raw.zadd(self.keys.leases, ends, xx=True)
        if model.holds:
            self.raw.zadd(self.keys.holds, dict(model.holds), xx=True)
        for goods_id, gate in model.gates.items():
            for buyer_id, kept in gate.tickets.items():
                text = f"{kept.ends:.6f}|{kept.units}|{kept.order_id}"
                self.gate_raw.hset(self.keys.tickets(goods_id), buyer_id, text)


def _number(text: bytes | None) -> float | None:
    return None if text is None else float(text)


def _element(body: bytes) -> Element:
    try:
        return replace(Order.from_json(body), created_at=None)
    except InvalidRequest:
        return body


def _ends(delivery: Any) -> float | None:
    return None if delivery is None else delivery.ends


def _delivery(text: bytes) -> tuple[Any, ...]:
    attempts, lease, body = text.split(b"|", 2)
    return (int(attempts), int(lease), _element(body))


def _record(text: bytes) -> tuple[Any, ...]:
    assert text.count(b"|") >= 5, f"not a record: {text!r}"
    state, quantity, gated, goods_id, _, buyer_id = text.decode().split("|", 5)
    return (OrderState(state), (goods_id, buyer_id, int(quantity)), gated in {"1", "3"}, gated in {"2", "3"})


def _ticket(text: bytes, now: float) -> tuple[Any, ...]:
    ends, units, order_id = text.decode().split("|", 2)
    return (float(ends) > now, int(units), order_id)


def _gate(counters: list[bytes | None], window: dict[bytes, bytes]) -> tuple[Any, ...]:
    count, start, access = counters
    times = (_number(window.get(b"opens_at")), _number(window.get(b"closes_at")))
    flags = (window.get(name) == b"1" for name in (b"auto", b"pause"))
    return (int(count or 0), start == b"1", int(access or 0), *times, *flags, _number(window.get(b"per_buyer")))


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    """Names what differs, part by part."""
    lines = []
    for part, mine in wanted.items():
        theirs = found[part]
        if mine == theirs:
            continue
        if isinstance(mine, dict):
            for name in sorted({*mine, *theirs}, key=str):
                if mine.get(name) != theirs.get(name):
                    lines.append(f"  {part}[{name!r}]: wanted {mine.get(name)}, found {theirs.get(name)}")
        else:
            lines.append(f"  {part}: wanted {mine}, found {theirs}")
    return "\n".join(lines)


def usual_order(number: int) -> Order:
    """What one order id usually asks for: so that asking again is asking the same."""
    return Order(f"o{number}", "ab"[number % 2], BUYERS[number % 3], number % 3 + 1)


# -- what is drawn ---------------------------------------------------------------------------------------------------

goods_ids = st.integers(0, 15).map(lambda number: "x" if number == 11 else "ab"[number % 2])
loadable = st.sampled_from(["a", "b"])
buyers = st.sampled_from(BUYERS)
order_ids = st.sampled_from([f"o{number}" for number in range(1, 9)])
units = st.integers(1, 3)
totals = st.integers(0, 8)
windows = st.sampled_from([(None, None), (None, None), (PAST, None), (PAST, FUTURE), (FUTURE, None), (None, PAST)])
policies = st.builds(
    lambda per_buyer, window, hold: Policy(per_buyer, *window, hold),
    st.sampled_from([None, None, 2, 4]),
    windows,
    st.sampled_from([None, LONG]),
)
orders = st.builds(
    lambda order_id, goods_id, buyer_id, quantity, data: Order(order_id, goods_id, buyer_id, quantity, data=data),
    order_ids,
    goods_ids,
    buyers,
    units,
    st.sampled_from([None, None, {"colour": "red"}]),
)
usual = st.integers(1, 8).map(usual_order)
junk = st.sampled_from(
    [
        b"junk",
        b"two\nlines",
        b'{"order_id":"o1"}',
        b"[1]",
        b'{"order_id":"o1","goods_id":"a","buyer_id":"ann","quantity":0}',
    ]
)
boundaries = st.tuples(st.sampled_from([0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 9, 12]), st.booleans())
crashes = st.one_of(st.none(), boundaries)
outages = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 2), st.booleans()))
CLAIM_VERBS: Final = ("save", "save", "save", "ack", "ack", "nack", "nack later", "nack uncounted", "extend", "bury")
PRIVATE: Final = {"bury": "_bury"}  # in the real queue
BACK: Final = {  # a key that is lost, and what brings it back
    **dict.fromkeys(("meta", "orders", "stock", "buyers"), "rebuild"),
    **dict.fromkeys(("goods", "count", "access", "window", "wakeup"), "sync"),
    **dict.fromkeys(("order_list", "claimed", "leases", "dead", "holds"), "repair"),
    "start": "start",
}
picks = st.lists(st.integers(0, 30), min_size=1, max_size=4)


class SaleMachine(RuleBasedStateMachine):
    """One sale. `backend`, `engine` and `wrap` are set by `machine()`."""

    backend: Backend
    engine: Any
    wrap: Callable[[Any], Any]
    steps = 0
    crashed = 0
    lost = 0
    names = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.failed = self.lossy = False
        self.process: Process | None = None
        self.world: World
        self.made = itertools.count(1)
        self.patches = contextlib.ExitStack()
        new_id = staticmethod(lambda: f"made-{next(self.made)}")
        self.patches.enter_context(mock.patch.object(FlashSale, "_new_order_id", new_id))
        self.patches.enter_context(mock.patch("flashsale._sync.auditor.BETWEEN", 0))
        self.patches.enter_context(mock.patch("flashsale._sync.ticketing.EPOCH_EVERY", 0))  # no clock of ours decides
        self.tickets: list[tuple[str, Order]] = []  # and what they are for
        self.handles: list[tuple[Claim, Handle]] = []
        self.accepted: set[str] = set()

    # -- running a step on both -------------------------------------------------------------------------------------

    def step(
        self,
        real: Callable[[Process], Any],
        ideal: Callable[[Model], Any],
        *,
        crash: tuple[int, bool] | None = None,
        lost: tuple[int, bool] | None = None,
        outage: tuple[int, bool] | None = None,
        also: Callable[[Model], Any] | None = None,
    ) -> Any:
        """Runs an operation on the sale and on the model, compares answers and state; returns the answer.

        Args:
            real: the operation on the sale.
            ideal: the same on the model.
            crash, lost, outage: see `Faults`.
            also: with `lost`, another way that the operation may go.
        """
        type(self).steps += 1
        before_all, self.failed = self.failed, True
        try:
            return self._step(real, ideal, crash, lost, outage, also)
        finally:
            self.failed = before_all if self._sound else True

    _sound = False

    def _step(self, real, ideal, crash, lost, outage, also) -> Any:
        self._sound = False
        process, model = self.process, self.model
        model.step += 1
        since = self.world.time()
        faults = process.faults
        faults.crash, faults.lost, faults.outage = crash, lost, outage
        start = model.copy() if lost else None
        try:
            answer = real(process)
        except Crash:
            answer = Crash
        except FlashSaleError as error:
            answer = type(error)
        finally:
            faults.clear()
        states = [model.copy()] if crash or lost else None
        model.outage = outage
        wanted = model.trace(ideal(model), states)
        model.outage = None
        if answer is Crash:
            type(self).crashed += 1
            self._adopt(states, since)
            self.model.restarted()
            self.restart()
        elif lost:
            if also is not None:
                start.step = model.step
                more = [start]
                start.trace(also(start), more)
                states += more
            self._adopt(states, since)
            assert answer not in {NotExecuted, OutcomeUnknown}, f"one lost request was not made good: {answer}"
        else:
            assert answer == wanted, f"wanted {wanted}, got {answer}"
        self._compare(since)
        self._sound = True
        return answer

    def _adopt(self, states: list[Model], since: float) -> None:
        """Goes on from the state that the interrupted operation left, which must be one that it may leave."""
        found = self.world.view(self.model, since)
        for state in states:
            state.outage = None
            if state.view() == found:
                self.model = state
                return
        raise AssertionError(
            "no step of the operation ends in this state; next to it:\n"
            + min((differences(state.view(), found) for state in states), key=len)
        )

    def _compare(self, since: float) -> None:
        """All the state that can be read, and what must be true of it whatever was done."""
        model, found = self.model, self.world.view(self.model, since)
        wanted = model.view()
        assert found == wanted, "\n" + differences(wanted, found)
        for goods_id, (total, booked, _, _, _) in found["stock"].items():
            assert booked <= total, f"oversold: {goods_id}"
        for goods_id, (_, granted, booked, _, _, _) in found["rows"].items():
            assert booked <= granted, f"oversold in the database: {goods_id}"
        for order_id in self.accepted - model.popped:  # another consumer has those
            assert order_id in found["ledger"] or self._is_somewhere(found, order_id), f"accepted and gone: {order_id}"
        self.world.set_time(model)
        sale = self.process.sale
        goods_id = GOODS_IDS[model.step % len(GOODS_IDS)]  # in turn: the keys behind the answers were all compared
        for read, ideal in ((sale.inventory.stock, model.stock), (sale.gate.state, model.gate_state)):
            try:
                answer: Any = read(goods_id)
            except FlashSaleError as error:
                answer = type(error)
            ideally = model.run(ideal(goods_id))
            assert answer == ideally, f"wanted {ideally}, got {answer}"
        assert sale.queue.size() == len(model.queue)

    def _is_somewhere(self, found: dict[str, Any], order_id: str) -> bool:
        """True for an order on the list, under a lease or among the dead: after a rebuild it comes back from there."""
        deliveries = [*found["claimed"].values(), *found["dead"].values()]
        elements = [*found["list"], *(delivery[2] for delivery in deliveries)]
        return any(isinstance(element, Order) and element.order_id == order_id for element in elements)

    def restart(self) -> None:
        self.process.close()
        self.process = Process(self.world)

    # -- before the sale --------------------------------------------------------------------------------------------

    @initialize(
        one_redis=st.booleans(),
        begun=st.integers(0, 9).map(lambda number: number != 7),
        layout=st.sampled_from([2, 2, 1]),
    )
    def begin(self, one_redis: bool, begun: bool, layout: int) -> None:
        self.world = World(self.backend, self.engine, f"s{next(self.names)}", one_redis=one_redis, wrap=self.wrap)
        self.world.flush()
        self.process = Process(self.world)
        self.process.sale.gate.load_scripts()  # as often as it runs: every request is a boundary
        self.model = Model(one_redis=one_redis)
        if begun:
            for goods in (Goods("a", 6, hold=LONG), Goods("b", 5, per_buyer=2)):
                self.put(goods)
            self.sync(None)
            self.world.raw.hset(self.world.keys.meta, "layout", layout)
            self.model.layout = layout
            for goods_id in ("a", "b"):
                self.start(goods_id)

    def put(self, goods: Goods) -> None:
        self.step(lambda process: process.store.put_goods(goods, replace=True), lambda model: model.put_goods(goods))

    @rule(
        what=st.sampled_from(["put", "put", "restock", "restock", "preload"]),
        goods_id=loadable,
        total=totals,
        policy=policies,
        crash=crashes,
    )
    def policy(self, what: str, goods_id: str, total: int, policy: Policy, crash: Any) -> None:
        change = total - 4
        if what == "put":
            self.put(Goods(goods_id, total, **policy._asdict()))
        elif what == "restock":
            self.step(lambda p: p.sale.restock(goods_id, change), lambda m: m.restock(goods_id, change), crash=crash)
        else:
            self.step(
                lambda p: p.sale.preload(goods_id, total, **policy._asdict()),
                lambda m: m.preload(goods_id, total, policy),
                crash=crash,
            )

    def start(self, goods_id: str) -> None:
        self.step(lambda p: p.sale.start(goods_id), lambda m: m.flag(goods_id, start=True))

    @rule(paused=st.sampled_from([False, False, False, True]), crash=crashes)
    def pause(self, paused: bool, crash: Any) -> None:
        self.step(
            lambda p: p.sale.pause() if paused else p.sale.resume(),
            lambda m: m.set_state("paused" if paused else "open"),
            crash=crash,
        )

    # -- the gate ---------------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["enter", "leave", "resize", "start", "start", "stop"]), goods_id=goods_ids, number=totals
    )
    def at_the_gate(self, what: str, goods_id: str, number: int) -> None:
        if what in {"start", "stop"}:
            self.step(lambda p: getattr(p.sale, what)(goods_id), lambda m: m.flag(goods_id, start=what == "start"))
        else:
            number = number if what == "resize" else max(1, number)
            self.step(
                lambda p: getattr(p.sale.gate, what)(goods_id, number), lambda m: getattr(m, what)(goods_id, number)
            )

    # -- buying -----------------------------------------------------------------------------------------------------

    def _buy(self, order: Order, *, named: bool = True, **faults: Any) -> None:
        def again(model: Model) -> Any:
            """The gate was asked twice: its first answer was lost."""
            model.run(model.enter(order.goods_id, order.quantity))
            yield
            return (yield from model.buy(order, named=named))

        answer = self.step(
            lambda p: p.sale.buy(
                order.goods_id,
                order.buyer_id,
                order.quantity,
                order_id=order.order_id if named else None,
                data=order.data,
            ),
            lambda m: m.buy(order, named=named),
            also=None if self.model.one_redis else again,
            **faults,
        )
        self._accept(answer)

    def _accept(self, *answers: Any) -> None:
        self.accepted |= {each.order_id for each in answers if isinstance(each, Receipt) and each.accepted}

    @rule(order=usual, crash=crashes)
    def buy(self, order: Order, crash: Any) -> None:
        self._buy(order, crash=crash)

    @rule(order=usual, lost=st.tuples(st.integers(0, 3), st.booleans()))
    def buy_over_a_bad_line(self, order: Order, lost: Any) -> None:
        self._buy(order, lost=lost)

    @rule(order=orders)
    def buy_anything(self, order: Order) -> None:
        self._buy(order)

    def _next_made(self) -> str:
        """The order id that will be made next."""
        number = next(self.made)
        self.made = itertools.chain([number], self.made)
        return f"made-{number}"

    @rule(goods_id=goods_ids, buyer_id=buyers, quantity=units, crash=crashes)
    def buy_unnamed(self, goods_id: str, buyer_id: str, quantity: int, crash: Any) -> None:
        self._buy(Order(self._next_made(), goods_id, buyer_id, quantity), named=False, crash=crash)

    @rule(order=usual, named=st.sampled_from([False, False, True]))
    def enter_with_ticket(self, order: Order, named: bool) -> None:
        order = order if named else replace(order, order_id=self._next_made())

        def real(process: Process) -> Any:
            name = order.order_id if named else None
            admission = process.sale.enter(order.goods_id, order.buyer_id, order.quantity, order_id=name)
            if not admission.admitted:
                return admission, 0
            ticket = TICKETS.read(admission.ticket)
            self.tickets.append((admission.ticket, replace(order, order_id=ticket.order_id, quantity=ticket.quantity)))
            return admission._replace(ticket=None), ticket.quantity

        self.step(real, lambda m: m.enter_with_ticket(order, named=named))

    @precondition(lambda self: self.tickets)
    @rule(picked=st.integers(0, 3))
    def buy_with_ticket(self, picked: int) -> None:
        """Most often one of the last, also one that the gate knows no more."""
        ticket, order = self.tickets[-1 - picked % len(self.tickets)]
        answer = self.step(
            lambda p: p.sale.buy(order.goods_id, order.buyer_id, order.quantity, ticket=ticket),
            lambda m: m.buy_with_ticket(order),
        )
        self._accept(answer)

    @rule(basket=st.lists(st.one_of(usual, orders), min_size=1, max_size=4), together=st.booleans(), crash=crashes)
    def reserve(self, basket: list[Order], together: bool, crash: Any) -> None:
        def real(process: Process) -> Any:
            try:
                return process.sale.inventory.reserve(basket, together=together)
            except FlashSaleError as error:
                if not hasattr(error, "answers"):
                    raise
                return [type(each) if isinstance(each, FlashSaleError) else each for each in error.answers]

        answer = self.step(real, lambda m: m.reserve(basket, together=together), crash=crash)
        self._accept(*(answer if isinstance(answer, list) else ()))

    # -- another program beside us ----------------------------------------------------------------------------------

    def _article(self, goods_id: str, quantity: int) -> int:
        """The article's script; a negative number gives back."""
        key = [self.world.keys.stock(goods_id)]
        if quantity < 0:
            return self.step(lambda _: -self.world.article(key, [quantity]), lambda m: m.release(goods_id, -quantity))
        return self.step(lambda _: self.world.article(key, [quantity]), lambda m: m.deduct(goods_id, quantity))

    @rule(what=st.sampled_from(["deduct", "release", "article", "purchase"]), order=usual)
    def directly(self, what: str, order: Order) -> None:
        """Units are taken past the ledger, by us or by another program; that one may push plain JSON if it got them."""
        goods_id, quantity = order.goods_id, order.quantity
        if what in {"deduct", "release"}:
            self.step(
                lambda p: getattr(p.sale.inventory, what)(goods_id, quantity),
                lambda m: getattr(m, what)(goods_id, quantity),
            )
        elif goods_id in self.model.stocks:
            direct = self.model.stocks[goods_id].direct
            taken = self._article(goods_id, -quantity if what == "article" and quantity <= direct else quantity)
            if taken and what == "purchase":
                self._push("external", order)

    def _push(self, what: str, order: Order, body: bytes = b"") -> None:
        if what == "ours":
            self.step(lambda p: p.sale.queue.push(order), lambda m: m.push(order))
            return
        wire = {name: getattr(order, name) for name in ("quantity", "order_id", "buyer_id", "goods_id")}
        element = body or json.dumps(wire if order.data is None else wire | {"data": order.data})
        self.step(lambda _: self.world.raw.lpush(self.world.keys.order_list, element), lambda m: m.push(body or order))

    @rule(what=st.sampled_from(["ours", "external", "external"]), order=st.one_of(usual, usual, orders))
    def push(self, what: str, order: Order) -> None:
        self._push(what, order)

    @rule(order=usual, body=junk)
    def push_junk(self, order: Order, body: bytes) -> None:
        self._push("external", order, body)

    # -- the queue --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.queue and self.model.step % 9 == 0)  # it takes an order out of the sale
    @rule()
    def pop(self) -> None:
        def real(process: Process) -> Any:
            order = process.sale.queue.pop(0)
            return order and replace(order, created_at=None)

        self.step(real, lambda m: m.pop())

    @precondition(lambda self: self.model.queue or self.model.claimed)
    @rule(
        limit=st.integers(1, 4),
        short=st.sampled_from([False, False, True]),
        crash=crashes,
        then=st.lists(st.sampled_from(CLAIM_VERBS), max_size=3),
    )
    def claim(self, limit: int, short: bool, crash: Any, then: list[str]) -> None:
        """A worker of the host's own."""
        claims: list[Claim] = []

        def real(process: Process) -> Any:
            try:
                claims[:] = process.sale.queue.claim(limit, lease=0.001 if short else LONG, timeout=0)
            finally:
                time.sleep(0.003 if short else 0.0)
            return [_handle(claim) for claim in claims]

        answer = self.step(real, lambda m: m.claim(limit, expired=short), crash=crash)
        if isinstance(answer, list):
            self.handles += zip(claims, answer, strict=True)
            for what in then if answer else ():
                self.with_claims(what, list(range(-len(answer), 0)))

    def _picked(self, picked: list[int]) -> tuple[list[Claim], list[Handle]]:
        pairs = [self.handles[number] for number in dict.fromkeys(each % len(self.handles) for each in picked)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _committed(self, handle: Handle) -> bool:
        """True when an ack is right: the row is committed, and the ledger has followed what is not PERSISTED."""
        order = handle.element
        if isinstance(order, bytes):
            return True
        row, known = self.model.orders.get(order.order_id), self.model.ledger.get(order.order_id)
        if row is None or known is None or not row.order.content == known.order.content == order.content:
            return False
        return row.state is PERSISTED or known.state is not QUEUED

    @precondition(lambda self: self.handles)
    @rule(what=st.sampled_from(CLAIM_VERBS), picked=picks)
    def with_claims(self, what: str, picked: list[int]) -> None:
        """With claims that somebody holds, or held once: so does a worker that was away for longer than its lease."""
        claims, handles = self._picked(picked)
        if what == "save":
            self._save(handles)
            return
        if what == "ack":
            pairs = [pair for pair in zip(claims, handles, strict=True) if self._committed(pair[1])]
            claims, handles = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        verb, _, how = what.partition(" ")
        real, ideal = {
            "later": ({"delay": LONG}, {"delayed": True}),
            "uncounted": ({"count_attempt": False}, {"delayed": False, "count_attempt": False}),
            "": ({"lease": LONG} if verb == "extend" else {}, {"delayed": False} if verb == "nack" else {}),
        }[how]
        self.step(
            lambda p: getattr(p.sale.queue, "_bury" if verb == "bury" else verb)(
                claims, **(real | ({"lease": LONG} if verb == "extend" else {}))
            ),
            lambda m: getattr(m, verb)(handles, **ideal),
        )

    def _may_be_saved(self, handle: Handle) -> bool:
        order = handle.element
        known = self.model.ledger.get(order.order_id) if isinstance(order, Order) else None
        return known is not None and known.order.content == order.content and known.state is not REJECTED

    def _save(self, handles: list[Handle]) -> None:
        """The first half of a worker: it may be away for long before it acks, or never come back."""
        mine = [handle.element for handle in handles if self._may_be_saved(handle)]
        saved = {order.order_id: order for order in mine if order.buyer_id not in self.world.poison}

        def real(process: Process) -> Any:
            answer = process.store.save(list(saved.values()))
            inserted, refused = dict.fromkeys(answer.inserted, PERSISTED), dict.fromkeys(answer.refused, REJECTED)
            return inserted | refused | dict(answer.existing)

        def ideal(model: Model) -> Any:
            yield from ()
            return model.save(list(saved.values()))

        if saved:
            self.step(real, ideal)

    @rule(order_id=order_ids)
    def follow(self, order_id: str) -> None:
        """The second half of a cancellation, or of a worker; late, or twice."""
        row = self.model.orders.get(order_id)
        if row is not None:
            self.step(
                lambda p: p.sale._transitions.follow(row.order, row.state) and None,
                lambda m: m.follow({order_id: row.state}),
            )

    @precondition(lambda self: self.model.dead)
    @rule()
    def requeue_dead(self) -> None:
        letters = self._letters()
        self.step(lambda p: p.sale.queue.requeue_dead(), lambda m: m.requeue_dead(letters))

    def _letters(self) -> list[str]:
        cursor, page = self.world.raw.hscan(self.world.keys.dead, count=500)
        assert cursor == 0
        return sorted(name.decode() for name in page)

    # -- worker, syncer, buyers -------------------------------------------------------------------------------------

    @rule(crash=crashes)
    def work(self, crash: Any) -> None:
        self.step(lambda p: p.worker.run_once(), lambda m: m.work(), crash=crash)

    @rule(outage=outages)
    def work_without_database(self, outage: Any) -> None:
        self.step(lambda p: p.worker.run_once(), lambda m: m.work(), outage=outage)

    @rule(crash=crashes)
    def sync(self, crash: Any) -> None:
        self.step(lambda p: p.syncer.run_once(), lambda m: m.sync(), crash=crash)

    def _known(self, order_id: str, number: int) -> str:
        """An order id, most often one that the ledger knows."""
        known = sorted(self.model.ledger)
        return known[number % len(known)] if known and number != 13 else order_id

    @rule(
        verb=st.sampled_from(["cancel", "cancel", "confirm"]),
        order_id=order_ids,
        number=st.integers(0, 20),
        crash=crashes,
        outage=outages,
    )
    def decide(self, verb: str, order_id: str, number: int, crash: Any, outage: Any) -> None:
        state = OrderState.CANCELLED if verb == "cancel" else OrderState.CONFIRMED
        self._settle(verb, state, self._known(order_id, number), crash, outage)

    def _settle(self, verb: str, state: OrderState, order_id: str, crash: Any, outage: Any) -> None:
        faults = {"crash": crash} if crash else {"outage": outage}
        self.step(lambda p: getattr(p.sale, verb)(order_id), lambda m: m.settle(order_id, state), **faults)
        known = self.model.ledger.get(order_id)
        if self.model.is_known:
            assert self.process.sale.status(order_id) is (known.state if known else None)

    # -- the world --------------------------------------------------------------------------------------------------

    @rule(leases=st.booleans(), holds=st.booleans())
    def time_passes(self, leases: bool, holds: bool) -> None:
        self.model.step += 1
        self.model.time_passes(leases=leases, holds=holds)
        self.world.set_time(self.model)
        if leases:
            self.world.raw.hdel(self.world.keys.meta, "leader_until")

    @precondition(lambda self: self.model.stocks and self.model.stocks.keys() <= self.model.rows.keys())
    @rule(name=st.sampled_from(sorted(BACK)), goods_id=loadable)
    def lose(self, name: str, goods_id: str) -> None:
        """A key is gone; the table in docs/operating.md says who notices, and what brings it back."""
        self.world.raw.hdel(self.world.keys.meta, "leader_until")
        self.model.led = False
        for _ in range(3):  # so that the next pass would find nothing else
            self.sync(None)
        if goods_id not in self.model.stocks:
            goods_id = min(self.model.stocks)
        if self.world.lose(name, goods_id):
            type(self).lost += 1
            self.lossy = True
            self.model.lose(name, goods_id)
            if BACK[name] == "repair":  # since a rebuild the ledger may not know what was lost now
                self.accepted &= self.model.places()
            self._bring_back(BACK[name], name, goods_id)

    def _bring_back(self, how: str, name: str, goods_id: str) -> None:
        if how == "rebuild":
            self._rebuild(name, goods_id)
        elif how == "start":
            self.start(goods_id)
        elif how == "sync":
            self.sync(None)
        else:
            if self.model.claimed or name == "claimed":
                self.claim(500, short=False, crash=None, then=[])
            self.repair()

    def repair(self) -> None:
        self.step(lambda p: len(p.syncer.repair(dry_run=False).mended), lambda m: m.repair())

    def _rebuild(self, name: str, goods_id: str) -> None:
        """Nothing is sold until the rebuild, and the syncer says why."""
        policy = self.model.stocks[goods_id].policy
        whole = name != "buyers"  # without that key one item alone is paused, once it has started
        wanted = shut(policy.opens_at, policy.closes_at, paused=whole) or Outcome.PAUSED
        for looks in range(2):
            if name != "buyers" or policy.per_buyer is not None:  # items without a cap do not need that key
                assert self._probe(goods_id) == (UnknownGoods if name == "stock" else wanted), f"sold without {name}"
            if not looks:
                report = Syncer(self.process.sale).run_once()  # not the one whose memory the model follows
                noticed = goods_id in report.missing if name in {"stock", "buyers"} else report.lost == name
                assert noticed, f"lost {name}, and the syncer says {report}"
        self.accepted -= self.model.popped - self.model.orders.keys()  # another consumer has these
        for lowered, sold in self.model.lowered(goods_id if name == "stock" else "").items():
            with contextlib.suppress(InvalidRequest):
                self.process.syncer.rebuild()
                raise AssertionError("a rebuild rejects orders that were accepted")
            goods = Goods(lowered, sold, **self.model.rows[lowered].policy._asdict())
            self.process.store.put_goods(goods, replace=True)  # nothing is compared, while the key is lost
            self.model.run(self.model.put_goods(goods))
        doubtful = name == "stock" or self.model.shares_an_id()  # which units, and which order, are whose
        self.step(lambda p: p.syncer.rebuild() and None, lambda m: m.rebuild(name, goods_id))
        gone = {order_id for order_id in self.accepted if self.model.is_rejected(order_id)}
        assert doubtful or not gone, f"accepted, and rejected by a rebuild: {gone}"
        self.accepted -= gone
        self.tickets.clear()  # from before the rebuild: they are refused, within a second

    def _probe(self, goods_id: str) -> Any:
        """What the stock answers to a purchase."""
        try:
            (receipt,) = self.process.sale.inventory.reserve([Order("probe", goods_id, "ann", 1)])
        except FlashSaleError as error:
            return type(error)
        return receipt.outcome

    @rule(what=st.sampled_from(["new process", "scripts", "poison", "cure"]))
    def upset(self, what: str) -> None:
        """A new process; SCRIPT FLUSH; the database refuses every row of one buyer, for a while."""
        if what == "new process":
            self.restart()
            self.model.restarted()
        elif what == "scripts":
            self.world.raw.script_flush()
            self.world.gate_raw.script_flush()
        else:
            self.world.poison.clear()
            self.world.poison.update({"eve"} if what == "poison" else ())
            self.model.poison = frozenset(self.world.poison)

    # -- the end ----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.process is not None and not self.failed:
                self.drain()
        finally:
            self.patches.close()
            if self.process is not None:
                self.process.close()
                self.world.close()

    def drain(self) -> None:
        """Every worker and operator does what is left to do: then Redis and database agree order by order."""
        note("drained")
        self.upset("cure")
        for goods_id in sorted(self.model.stocks.keys() - self.model.rows.keys()):
            self.put(Goods(goods_id, self.model.stocks[goods_id].total))
        self._run_empty()
        self.requeue_dead()
        self._run_empty()
        if self.lossy:  # an element that only had the id of a lost one was in its place
            self.repair()
            self._run_empty()
        self.sync(None)  # what another consumer took is queued again, beside workers
        self._run_empty()
        for _ in range(3):
            self.sync(None)
        self.agree()

    def _run_empty(self) -> None:
        for _ in range(60):
            self.time_passes(True, False)
            if not self.model.queue and not self.model.claimed:
                return
            self.work(None)
        raise AssertionError("the queue does not run empty")

    def agree(self) -> None:
        model = self.model
        for order_id, known in model.ledger.items():
            if order_id not in model.popped:
                row = model.orders.get(order_id)
                if row is None and known.state is REJECTED and self.lossy:
                    continue  # a rebuild had no units for it, and then its element was lost
                assert row is not None, f"{order_id} is {known.state} in the ledger and has no row"
                assert row.state is known.state, f"{order_id} is {known.state} in the ledger, {row.state} in its row"
        assert model.orders.keys() <= model.ledger.keys()
        for goods_id, row in model.rows.items():
            if goods_id not in model.stocks:
                continue
            assert row.granted == model.stocks[goods_id].total, f"the guard of {goods_id} is not what Redis was given"
            gate, booked = model.gates[goods_id], model.booked(goods_id)
            assert min(booked, gate.count) <= gate.access <= booked, f"slots of {goods_id} are lost"
        if model.rows and not model.popped:  # without rows, nobody knows the sale
            audit = self.process.syncer.audit(self.accepted)
            odd = [each for each in audit.orders if each.problem is not Problem.NO_DEADLINE]  # the hold came later
            assert not odd, odd
            assert (audit.lost, audit.unreadable) == ((), 0)
            assert all(units.agree for units in audit.goods.values())


def _handle(claim: Claim) -> Handle:
    delivery, lease, *name = claim.token.split("-")
    return Handle(int(delivery), int(lease), _element(claim.body), claim.attempts, *name)


def database() -> Any:
    """An SQLite database in memory, for all the sales of a run: each has a name of its own."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    SQLAlchemyStore(engine, "any").create_all()
    return engine


def machine(backend: Backend, engine: Any, *, wrap: Callable[[Any], Any] = lambda store: store) -> type[SaleMachine]:
    """The machine on one backend; the class counts the steps it made and the crashes it survived."""
    body = {"backend": backend, "engine": engine, "wrap": staticmethod(wrap), "steps": 0, "crashed": 0, "lost": 0}
    return type("SaleMachine", (SaleMachine,), body)


__all__ = ["ROW_ACTIVE", "Crash", "SaleMachine", "database", "machine"]
