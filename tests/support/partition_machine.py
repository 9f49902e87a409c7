"""A sale over partitions beside a model of its units: they move, are lost on the way, and come twice, and none is gone.

The model knows what each script of a move must answer and do. It is told of every script that ran, in their order, so
two processes may be at work at once. Who has bought what is read, and must follow the invariants of docs/partitions.md.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unittest import mock
from zlib import crc32

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import select

from flashsale import (
    FlashSale,
    FlashSaleError,
    Goods,
    InvalidRequest,
    NotExecuted,
    NotPersisted,
    OrderState,
    Outcome,
    OutcomeUnknown,
    Syncer,
    Worker,
)
from flashsale._rules.partitions import tag_of
from flashsale._sql.tables import GOODS, ORDERS
from flashsale._sync.transport.link import read_all
from flashsale.keys import Keys, PartitionKeys
from flashsale.lua import SCRIPTS, Code
from flashsale.model import RELEASED
from flashsale.stores import SQLAlchemyStore
from flashsale.testing import Crash
from tests.support.machine import LONG, Faults, Store

if TYPE_CHECKING:
    from tests.conftest import Backend

GOODS_IDS: Final = ("a", "b")
CAP: Final = 3  # units of b that one buyer may have
BUYERS: Final = tuple(f"buyer-{number}" for number in range(7))
BOOKING: Final = frozenset(
    {"reserve", "settle", "adopt", "ack", "bury", "mirror", "release"}
)  # who changes Booked, access
AHEAD: Final = {
    OrderState.QUEUED: {OrderState.PERSISTED, OrderState.CONFIRMED, *RELEASED},
    OrderState.PERSISTED: {OrderState.CONFIRMED, *RELEASED},
    OrderState.CONFIRMED: {OrderState.CANCELLED},
}


# -- the model -------------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """What one partition has of one item.

    Attributes:
        sent: to -> seq and units of the last transfer to there; 0 units: it has landed.
        credited: from -> seq of the last transfer from there.
    """

    total: int
    booked: int
    count: int
    access: int
    moves: int = 0
    sent: dict[int, tuple[int, int]] = field(default_factory=dict)
    credited: dict[int, int] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return min(self.total - self.booked, self.count - self.access)

    def add(self, units: int) -> None:
        self.total += units
        self.count += units
        self.moves += 1


class Units:
    """The units of one item, and what the scripts of a move do with them.

    Args:
        epoch: of the sale.
        parts: of each partition.
        allotted: units of the whole sale.
    """

    def __init__(self, epoch: str, parts: Sequence[Part], allotted: int) -> None:
        self.epoch = epoch
        self.parts = parts
        self.allotted = allotted
        self.lows: list[int] = []  # fewest and most free units, since each step that is under way began
        self.highs: list[int] = []

    @property
    def free(self) -> int:
        """Units that nobody has booked and no slot holds, those on their way among them."""
        return sum(max(0, part.left) for part in self.parts) + self.under_way

    @property
    def under_way(self) -> int:
        """Units that no partition has."""
        pairs = ((place, to, *sent) for place, part in enumerate(self.parts) for to, sent in part.sent.items())
        return sum(units for place, to, seq, units in pairs if self.parts[to].credited.get(place, 0) < seq)

    def see(self) -> None:
        """Notes how many are free now."""
        self.lows = [min(low, self.free) for low in self.lows]
        self.highs = [max(high, self.free) for high in self.highs]

    def debit(self, place: int, epoch: str, to: str, wished: int, seen: int) -> list[int]:
        """Returns what the script must answer, and does what it must do; so do the others."""
        part, other = self.parts[place], int(to, 16)
        seq, units = part.sent.get(other, (0, 0))
        if epoch != self.epoch:
            return [Code.STALE, 0, 0]
        if units:
            return [Code.REPLAYED, seq, units]
        taken = min(wished, part.left)
        if taken < 1:
            return [Code.REFUSED, 0, 0]
        seq = max(seq, seen) + 1
        part.add(-taken)
        part.sent[other] = seq, taken
        return [Code.DONE, seq, taken]

    def credit(self, place: int, epoch: str, origin: str, seq: int, units: int) -> list[int]:
        part, other = self.parts[place], int(origin, 16)
        if epoch != self.epoch:
            return [Code.STALE]
        if seq <= part.credited.get(other, 0):
            return [Code.REPLAYED]
        part.add(units)
        part.credited[other] = seq
        return [Code.DONE]

    def landed(self, place: int, epoch: str, to: str, seq: int) -> list[int]:
        part, other = self.parts[place], int(to, 16)
        if epoch != self.epoch:
            return [Code.STALE]
        if part.sent.get(other, (0, 0))[0] != seq or not part.sent[other][1]:
            return [Code.REFUSED]
        part.sent[other] = seq, 0
        return [Code.DONE]

    def allot(self, place: int, _epoch: str, _version: int, total: int, *, reply: list[int]) -> list[int]:
        """The version is the host's: what an older one may not do, others test."""
        if reply[0] != Code.DONE:
            return reply
        more = max(total - self.allotted, -max(0, self.parts[place].left))
        if more:
            self.parts[place].add(more)
        self.allotted += more
        return [Code.DONE, self.allotted]


class Call(NamedTuple):
    """A script of a move, as somebody sent it."""

    name: str
    place: int
    goods_id: str
    args: tuple[Any, ...]


# -- the sale ---------------------------------------------------------------------------------------------------------


class Line(Faults):
    """What goes wrong between one process and the servers; and partitions that are away for all."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def send(self, real: Callable[..., Any], *command: Any, **how: Any) -> Any:
        if self.world.place_of(command[0]) in self.world.away:
            if self.dead:
                raise Crash
            raise self.world.away_with
        return super().send(partial(self.world.watched, real), *command, **how)


class Process:
    """What one process of the host holds.

    Attributes:
        checked: item -> fewest units that may have been free when it last checked that there are too few.
        is_deaf: it remembers that a partition did not answer.
    """

    def __init__(self, world: World, cache_for: float) -> None:
        self.cache_for = cache_for
        self.checked: dict[str, int] = {}
        self.is_deaf = False
        self.faults = Line(world)
        self.store = Store(world.store, self.faults, set())
        self.sale = FlashSale(
            world.clients if world.servers > 1 else world.clients[0],
            world.name,
            store=self.store,
            cache_for=cache_for,
            timeout=120.0,
            partitions=world.partitions,
        )
        parts = self.sale._partitions()
        links = {id(link): link for link in [*getattr(self.sale, "_links", []), *(part._link for part in parts)]}
        for link in links.values():
            link._send = partial(self.faults.send, link._send)
            link.faults = self.faults
        if world.partitions > 1:
            self.transfers._within = 60.0  # no clock of ours decides
        self.sale._recorder._later.end(0)  # its thread would meet the faults by the clock
        self.worker = Worker(self.sale)
        self.syncer = Syncer(self.sale)

    @property
    def transfers(self) -> Any:
        return self.sale._transfers

    def grow_old(self) -> None:
        """All that it remembers is older than it may be."""
        self.checked, self.is_deaf = {}, False
        for refusal in self.sale._refusals.by_goods.values():
            refusal.fresh_until -= 2 * LONG
        if hasattr(self.sale, "_transfers"):
            transfers = self.transfers
            transfers._deaf_until = -inf
            transfers._checked = {name: (at - 2 * LONG, free) for name, (at, free) in transfers._checked.items()}

    def close(self) -> None:
        with contextlib.suppress(Crash):  # a dead process has nothing to tell
            self.sale.close()


class World:
    """Redis and database of one sale, how to read all that is in them, and the model of its units.

    Args:
        backend: the Redis; of a sale over several servers, each is a database of it.
        engine: the database.
        name: of the sale, used once.
        partitions: of the sale.
        servers: over which they are.
    """

    def __init__(self, backend: Backend, engine: Any, name: str, partitions: int, servers: int) -> None:
        self.name, self.partitions, self.servers = name, partitions, servers
        self.clients = [backend.client(db=number) for number in range(servers)]
        self.raws = [backend.raw(name, db=number) for number in range(servers)]
        self.raws[0].flushall()
        pipe = self.raws[0].pipeline(transaction=False)
        for script in SCRIPTS.values():  # as often as it runs: every request is a boundary
            pipe.script_load(script.text)
        pipe.execute()
        self.engine = engine
        self.store = SQLAlchemyStore(engine, name)
        places = range(partitions)
        self.keys: list[Any] = [PartitionKeys(name, tag_of(name, place, partitions)) for place in places]
        if partitions == 1:
            self.keys = [Keys().of(name)]
        self.places = {_tag(keys.meta): place for place, keys in enumerate(self.keys)}
        self.names = {script.sha: name for name, script in SCRIPTS.items()}
        self.names |= {script.text: name for name, script in SCRIPTS.items()}
        self.away: set[int] = set()
        self.away_with: FlashSaleError = NotExecuted("refused")
        self.late: list[Call] = []  # what a mover may still send, or send again
        self.units: dict[str, Units] | None = None  # None: no model now

    def raw(self, place: int) -> Any:
        return self.raws[place % self.servers]

    def place_of(self, key: str | None) -> int | None:
        """The partition of a key; None: it is of the whole sale."""
        return self.places.get(_tag(key)) if key and self.partitions > 1 else 0 if key else None

    def close(self) -> None:
        for client in (*self.clients, *self.raws):
            client.close()

    # -- what runs ----------------------------------------------------------------------------------------------------

    def watched(self, real: Callable[..., Any], *command: Any, **how: Any) -> Any:
        """Runs what a process sends, and tells the model."""
        answer = real(*command, **how)
        name = self.names.get(command[2]) if command[1] in {"EVALSHA", "EVAL"} else None
        if self.units is not None and name is not None and self.partitions > 1:
            end = 4 + int(command[3])
            self.saw(name, command[4:end], command[end:], answer[0])
        return answer

    def saw(self, name: str, keys: Sequence[str], args: Sequence[Any], reply: Any) -> None:
        place = self.place_of(keys[0])
        assert self.units is not None
        if name in {"debit", "credit", "landed", "allot"}:
            goods_id = keys[1].partition("}:")[2].partition(":")[0]
            first, second, *numbers = args
            self.moved(Call(name, place, goods_id, (first, str(second), *map(int, numbers))), reply)
        elif name in BOOKING:
            pipe = self.raw(place).pipeline(transaction=False)
            for goods_id in self.units:
                pipe.hget(self.keys[place].stock(goods_id), "Booked")
                pipe.get(self.keys[place].access(goods_id))
            found = [int(each or 0) for each in pipe.execute()]
            for (goods_id, units), booked, access in zip(self.units.items(), found[::2], found[1::2], strict=True):
                part = units.parts[place]
                part.booked, part.access = booked, access
                if name == "mirror" and keys[0] == self.keys[place].count(goods_id):
                    part.count = max(part.total, access)  # slots that a rebuild left may be gone
                units.see()
        else:
            assert name != "mend", "nothing was lost, and something was mended"

    def moved(self, call: Call, reply: Any) -> None:
        """A script of a move has run: it answered what the model answers."""
        units = self.units[call.goods_id]
        got = [int(each) for each in reply] if isinstance(reply, list) else [int(reply)]
        more = {"reply": got} if call.name == "allot" else {}
        wanted = getattr(units, call.name)(call.place, *call.args, **more)
        assert got == wanted, f"{call}: wanted {wanted}, got {got}"
        units.see()
        if got[0] not in {Code.DONE, Code.REPLAYED} or call.name in {"landed", "allot"}:
            return
        epoch, other, *_ = call.args
        here, there = f"{call.place:02x}", int(other, 16)
        if call.name == "debit":
            self.late.append(Call("credit", there, call.goods_id, (epoch, here, got[1], got[2])))
        else:
            self.late.append(Call("landed", there, call.goods_id, (epoch, here, call.args[2])))

    def resend(self, call: Call) -> None:
        """A mover that slept goes on."""
        keys = self.keys[call.place]
        names = [keys.meta, keys.transfers(call.goods_id)] if call.name == "landed" else keys.units(call.goods_id)
        reply = self.raw(call.place).eval(SCRIPTS[call.name].text, len(names), *names, *call.args)
        if self.units is not None:  # else in the midst of a rebuild, that begins from the rows
            self.moved(call, reply)

    def ask_all(self, ask: Callable[[Any, Any], Any]) -> list[list[Any]]:
        """Asks for something of each partition, by its keys; one trip to each server."""
        pipes = [raw.pipeline(transaction=False) for raw in self.raws]
        for place, keys in enumerate(self.keys):
            ask(pipes[place % self.servers], keys)
        replies = [pipe.execute() for pipe in pipes]
        each = [len(answers) * self.servers // self.partitions for answers in replies]
        starts = [place // self.servers * each[place % self.servers] for place in range(self.partitions)]
        return [
            replies[place % self.servers][start : start + each[place % self.servers]]
            for place, start in enumerate(starts)
        ]

    # -- what is there ------------------------------------------------------------------------------------------------

    def read_units(self) -> dict[str, Units]:
        """Reads the units of each item from all partitions."""
        parts: dict[str, list[Part]] = {goods_id: [] for goods_id in GOODS_IDS}
        allotted: dict[str, int] = {}
        epoch = ""

        def ask(pipe: Any, keys: Any) -> None:
            pipe.hget(keys.meta, "epoch")
            for goods_id in GOODS_IDS:
                pipe.hmget(keys.stock(goods_id), "Total", "Booked", "Allotted")
                pipe.mget(keys.count(goods_id), keys.access(goods_id))
                pipe.hgetall(keys.transfers(goods_id) if self.partitions > 1 else "none")

        for place, (found, *rest) in enumerate(self.ask_all(ask)):
            assert not epoch or epoch == found.decode(), "partitions of two epochs"
            epoch = found.decode()
            for goods_id, stock, gate, transfers in zip(GOODS_IDS, rest[::3], rest[1::3], rest[2::3], strict=True):
                total, booked, of_all = (int(each or 0) for each in stock)
                parts[goods_id].append(_part(total, booked, *(int(each or 0) for each in gate), transfers))
                if not place:
                    allotted[goods_id] = of_all if self.partitions > 1 else total
        return {goods_id: Units(epoch, parts[goods_id], allotted[goods_id]) for goods_id in GOODS_IDS}

    def read_ledger(self) -> dict[str, Any]:
        """Reads order id -> state, item, buyer, quantity of all partitions."""
        found = {}
        for place, (records,) in enumerate(self.ask_all(lambda pipe, keys: pipe.hgetall(keys.orders))):
            for name, text in records.items():
                state, quantity, _, goods_id, _, buyer = text.decode().split("|", 5)
                order_id = name.decode()
                found[order_id] = (OrderState(state), goods_id, buyer, int(quantity))
                home = crc32(buyer.encode()) % self.partitions
                assert home == place, f"{order_id} of {buyer} is in partition {place}"
                assert self.partitions == 1 or order_id[:2] == f"{home:02x}", f"{order_id} is of partition {home}"
        return found

    def read_rows(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads the rows of the items and of the orders."""
        with self.engine.connect() as connection:
            goods = connection.execute(select(GOODS).where(GOODS.c.sale == self.name)).all()
            orders = connection.execute(select(ORDERS).where(ORDERS.c.sale == self.name)).all()
        return {row.goods_id: row for row in goods}, {row.order_id: row for row in orders}

    def end(self, name: str) -> None:
        """Leases, or deadlines, end now; a syncer leads no more."""

        def ask(pipe: Any, keys: Any) -> None:
            pipe.zrange(getattr(keys, name), 0, -1)
            pipe.hdel(keys.meta, "leader_until")

        for place, (ends, _) in enumerate(self.ask_all(ask)):
            if ends:
                self.raw(place).zadd(getattr(self.keys[place], name), dict.fromkeys(ends, 0), xx=True)

    def lose(self, place: int) -> None:
        """A partition is empty."""
        raw = self.raw(place)
        if names := [key for key in raw.keys("*") if self.places.get(_tag(key.decode())) == place]:
            raw.delete(*names)


def _part(total: int, booked: int, count: int, access: int, transfers: dict[bytes, bytes]) -> Part:
    part = Part(total, booked, count, access)
    for name, value in transfers.items():
        kind, _, place = name.decode().partition(":")
        if kind == "to":
            seq, _, units = value.decode().partition(" ")
            part.sent[int(place, 16)] = int(seq), int(units)
        elif kind == "from":
            part.credited[int(place, 16)] = int(value)
        elif kind == "moves":
            part.moves = int(value)
    return part


def _tag(key: str) -> str:
    return key.partition("{")[2].partition("}")[0]


def one_after_the_other(queries: Sequence[Any], _until: float) -> list[Any]:
    """Stands for `read_all`: each partition is asked at a moment of its own, and that is a boundary."""

    def answer(query: Any) -> Any:
        with contextlib.suppress(NotExecuted, OutcomeUnknown):
            return query.link.run(query.name, query.keys, query.args)

    return [answer(query) for query in queries]


def real_looks(queries: Sequence[Any], until: float) -> list[Any]:
    """Stands for `read_all` as it is, where partitions may be away."""
    faults = queries[0].link.faults
    replies = read_all(queries, until)
    gone = [faults.world.place_of(query.keys[0]) in faults.world.away for query in queries]
    return [None if is_gone else reply for is_gone, reply in zip(gone, replies, strict=True)]


def each_in_turn(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Stands for `together`: faults are counted, so no two threads may come by."""
    answers: list[Any] = []
    for call in calls:
        try:
            answers.append(call())
        except FlashSaleError as error:
            answers.append(error)
    return answers


@contextlib.contextmanager
def without_chance(look: Callable[..., Any] = one_after_the_other) -> Iterator[None]:
    """No thread, no clock of ours and no random id decides what a sale over partitions does."""
    made = itertools.count(1)
    values = {
        "transfers.read_all": look,
        "transfers.sleep": lambda _: None,
        "sale.together": each_in_turn,
        "worker.together": each_in_turn,
        "sale.AGAIN": 0.0,
        "sale.MEETING": 60.0,
        "partition.new_order_id": lambda: f"--made-{next(made)}",
    }
    with contextlib.ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(mock.patch(f"flashsale._sync.partitions.{name}", value))
        stack.enter_context(mock.patch("flashsale._sync.auditor.BETWEEN", 0))
        yield


# -- what is drawn ----------------------------------------------------------------------------------------------------

VERBS: Final = (
    *("buy",) * 6,
    *("cancel",) * 3,
    *("basket", "sync", "work", "restock", "restock", "spread", "move", "move"),
)
acts = st.tuples(st.sampled_from(VERBS), st.integers(0, 20), st.integers(-3, 3))
boundaries = st.tuples(st.sampled_from([*range(8), *range(6), 10, 13, 17, 22, 30, 45, 60]), st.booleans())
faults = st.one_of(
    st.just({}),
    st.just({}),
    boundaries.map(lambda where: {"crash": where}),
    boundaries.map(lambda where: {"lost": where}),
)


class PartitionMachine(RuleBasedStateMachine):
    """One sale. `backend` and `engine` are set by `machine()`."""

    backend: Backend
    engine: Any
    steps = crashed = sold_out = resent = 0
    names = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.patches = contextlib.ExitStack()
        self.processes: list[Process] = []
        self.failed = self.lossy = False
        self.known: dict[str, Any] = {}  # order id -> as the ledger had it
        self.accepted: set[str] = set()
        self.under_way = 0  # steps

    @initialize(
        partitions=st.sampled_from([2, 3, 2, 3, 2, 3, 1, 2, 3, 2, 3, 16]),
        spread_out=st.booleans(),
        caches=st.tuples(*[st.sampled_from([0.0, LONG])] * 2),
        in_turn=st.integers(0, 4).map(bool),
        total=st.sampled_from([2, 3, 1, 4, 0, 6]),
    )
    def begin(self, partitions: int, spread_out: bool, caches: tuple[float, float], in_turn: bool, total: int) -> None:
        self.patches.enter_context(without_chance(one_after_the_other if in_turn else real_looks))
        servers = partitions if spread_out and partitions > 1 else 1
        name = f"p{next(self.names)}"
        self.world = World(self.backend, self.engine, name, partitions, servers)
        self.processes = [Process(self.world, cache_for) for cache_for in caches]
        for goods in (Goods("a", total, hold=LONG), Goods("b", 4, per_buyer=CAP)):
            self.world.store.put_goods(goods)
        self.processes[0].syncer.run_once()
        for goods_id in GOODS_IDS:
            self.processes[0].sale.start(goods_id)
        self.world.units = self.world.read_units()
        self.check()

    # -- a step -------------------------------------------------------------------------------------------------------

    def run(self, who: int, call: Callable[[Process], Any], **how: Any) -> Any:
        """Runs a step of one process; returns its answer, the error of ours that it raised, or Crash."""
        type(self).steps += 1
        process, before = self.processes[who], self.failed
        self.failed = True
        for name, value in how.items():
            setattr(process.faults, name, value)
        self.under_way += 1
        try:
            answer = call(process)
        except Crash:
            answer = Crash
        except FlashSaleError as error:
            answer = error
        finally:
            process.faults.clear()
            self.under_way -= 1
        process.is_deaf = process.is_deaf or bool(self.world.away)
        if answer is Crash:
            type(self).crashed += 1
            process.close()
            self.processes[who] = Process(self.world, process.cache_for)
            self.world.end("leases")
        elif how:
            self.world.end("leases")
        if isinstance(answer, FlashSaleError) and not ({"crash", "lost"} & how.keys() or process.is_deaf):
            raise answer
        self.failed = before
        return answer

    def act(self, who: int, act: tuple[str, int, int], **how: Any) -> None:
        verb, number, change = act
        getattr(self, verb)(who, number, change, how)
        if not self.under_way:
            self.check()

    @contextlib.contextmanager
    def watch(self) -> Any:
        """Gives, for each item, the fewest and the most units that are free while the block runs."""
        seen: dict[str, tuple[int, int]] = {}
        for units in self.world.units.values():
            units.lows.append(units.free)
            units.highs.append(units.free)
        yield seen
        for goods_id, units in self.world.units.items():
            units.see()
            seen[goods_id] = units.lows.pop(), units.highs.pop()

    def adopt(self) -> None:
        """A sale of one partition is not modelled: only looked at."""
        if self.world.partitions == 1:
            before, self.world.units = self.world.units, self.world.read_units()
            for goods_id, units in self.world.units.items():
                units.lows, units.highs = before[goods_id].lows, before[goods_id].highs
                units.see()

    def order_id(self, buyer: str, name: str) -> str:
        return self.processes[0].sale.order_id(buyer, name)

    def buy(self, who: int, number: int, change: int, how: dict[str, Any]) -> Any:
        """Most often by a name, so that asking again is asking the same."""
        buyer, goods_id, quantity = BUYERS[number % 7], GOODS_IDS[number % 2], number % 3 + 1
        order_id = self.order_id(buyer, f"o{number}") if change else None
        return self._buy(who, goods_id, buyer, quantity, order_id, how)

    def _buy(self, who: int, goods_id: str, buyer: str, quantity: int, order_id: str | None, how: Any) -> Any:
        known = self.world.read_ledger().get(order_id)
        held = self._held(buyer)
        left = self._left(buyer, goods_id)
        with self.watch() as seen:
            answer = self.run(who, lambda p: p.sale.buy(goods_id, buyer, quantity, order_id=order_id), **how)
            self.adopt()
        process, (low, high) = self.processes[who], seen[goods_id]
        if isinstance(answer, FlashSaleError):
            assert process.is_deaf, f"one lost request was not made good: {answer!r}"
            assert known is None or self.world.away, f"a known order was not found: {answer!r}"
            assert left < quantity, f"units were here: {answer!r}"
        elif answer is not Crash:
            self._judge(process, answer, goods_id, quantity, low, high, known)
            if answer.outcome is Outcome.LIMIT_REACHED:
                assert goods_id == "b"
                assert max(held, self._held(buyer)) + quantity > CAP
        return answer

    def _judge(
        self, process: Process, answer: Any, goods_id: str, quantity: int, low: int, high: int, known: Any
    ) -> None:
        """What a purchase was told is true of some moment while it was asked; SOLD_OUT, of one that is remembered."""
        if answer.accepted:
            self.accepted.add(answer.order_id)
            assert answer.replayed or high >= quantity, f"{quantity} were sold, where {high} were free"
            assert answer.replayed or known is None
        elif answer.outcome is Outcome.SOLD_OUT:
            type(self).sold_out += 1
            low = min(low, process.checked.get(goods_id, low))
            assert low < quantity, f"SOLD_OUT, while {low} were free for one of {quantity}"
            if process.cache_for:
                process.checked[goods_id] = low
            elif low == high and self.world.partitions > 1:
                assert answer.remaining == low
        else:
            assert answer.outcome is Outcome.LIMIT_REACHED

    def _held(self, buyer: str) -> int:
        """Units of b that the buyer has."""
        records = self.world.read_ledger().values()
        return sum(q for state, goods_id, of, q in records if (goods_id, of) == ("b", buyer) and state not in RELEASED)

    def _left(self, buyer: str, goods_id: str) -> float:
        """Units that are free where this buyer is; none if that is away."""
        place = crc32(buyer.encode()) % self.world.partitions
        return -inf if place in self.world.away else self.world.units[goods_id].parts[place].left

    def basket(self, who: int, number: int, change: int, how: dict[str, Any]) -> None:
        buyer, wanted = BUYERS[number % 7], {"a": number % 3 + 1, "b": abs(change) or 1}
        basket_id = self.order_id(buyer, f"k{number}{change}")
        names = [f"{basket_id}#1", f"{basket_id}#2"]
        held = self._held(buyer)
        with self.watch() as seen:
            answer = self.run(who, lambda p: p.sale.buy_basket(buyer, wanted.items(), basket_id=basket_id), **how)
            self.adopt()
        process, ledger = self.processes[who], self.world.read_ledger()
        assert len(ledger.keys() & names) in {0, 2}, "half of a basket"
        if answer is Crash or isinstance(answer, FlashSaleError):
            return
        if answer.accepted:
            self.accepted.update(names)
            assert answer.receipts[0].replayed or all(seen[goods_id][1] >= units for goods_id, units in wanted.items())
        elif answer.outcome is Outcome.SOLD_OUT:
            lows = {name: min(low, process.checked.get(name, low)) for name, (low, _) in seen.items()}
            assert any(lows[name] < units for name, units in wanted.items()), f"SOLD_OUT, while there were {lows}"
            if process.cache_for:
                process.checked |= lows
        else:
            assert max(held, self._held(buyer)) + wanted["b"] > CAP

    def cancel(self, who: int, number: int, change: int, how: dict[str, Any]) -> None:
        known = sorted(name for name, record in self.world.read_ledger().items() if record[0] not in RELEASED)
        order_id = known[number % len(known)] if known else self.order_id(BUYERS[number % 7], f"o{number}")
        confirm = change == 3
        state = OrderState.CONFIRMED if confirm else OrderState.CANCELLED
        _, goods_id, _, _ = self.world.read_ledger().get(order_id, (None, "a", None, None))
        try:
            answer = self.run(who, lambda p: getattr(p.sale, "confirm" if confirm else "cancel")(order_id), **how)
        except NotPersisted:
            assert confirm
            answer, self.failed = None, False
        self.adopt()
        is_quiet = not (how or self.under_way or self.world.away)
        if known and answer is OrderState.CANCELLED and state is answer and is_quiet:
            assert self.world.read_ledger()[order_id][0] is OrderState.CANCELLED
            self.processes[who].checked.pop(goods_id, None)

    def restock(self, who: int, number: int, change: int, how: dict[str, Any]) -> None:
        goods_id = GOODS_IDS[number % 2]
        answer = self.run(who, lambda p: p.sale.restock(goods_id, change), **how)
        self.adopt()
        if isinstance(answer, int) and not (how or self.world.away):
            (goods, _), units = self.world.read_rows(), self.world.units[goods_id]
            assert answer == units.allotted == goods[goods_id].granted
            assert answer == goods[goods_id].total or (answer > goods[goods_id].total and not units.free)
            self.processes[who].checked.pop(goods_id, None)

    def sync(self, who: int, number: int, change: int, how: dict[str, Any]) -> None:
        if self.under_way:
            self.world.end("leases")  # also of a syncer that sleeps
        answer = self.run(who, lambda p: p.syncer.run_once(), **how)
        self.adopt()
        if not (how or self.world.away or self.under_way):
            assert answer.leading
            assert not (answer.lost or answer.missing or answer.corrupt)
            for units in self.world.units.values():
                assert not any(sent for part in units.parts for _, sent in part.sent.values()), "a move is still open"

    def work(self, who: int, number: int, change: int, how: dict[str, Any]) -> None:
        self.run(who, lambda p: p.worker.run_once(), **how)
        self.adopt()

    def spread(self, who: int, number: int, change: int, how: dict[str, Any]) -> None:
        if self.world.partitions > 1:
            self.run(who, lambda p: p.transfers.spread(GOODS_IDS[number % 2]), **how)

    def move(self, who: int, number: int, change: int, how: dict[str, Any]) -> None:
        """One move of a few units, which may stop at each step."""
        partitions, goods_id = self.world.partitions, GOODS_IDS[change % 2]
        if partitions == 1:
            return
        place = number % partitions
        to = (place + 1 + number // 2 % (partitions - 1)) % partitions
        try:
            look = self.processes[who].transfers.look(goods_id)
        except NotExecuted:
            assert self.world.away or self.processes[who].is_deaf
            return
        self.run(who, lambda p: p.transfers._move(goods_id, place, to, abs(change) + 1, look), **how)

    # -- the rules ----------------------------------------------------------------------------------------------------

    @rule(steps=st.lists(st.tuples(st.integers(0, 1), acts, faults), min_size=1, max_size=6))
    def some_steps(self, steps: list[tuple[int, tuple[str, int, int], dict[str, Any]]]) -> None:
        for who, act, how in steps:
            self.act(who, act, **how)

    @precondition(lambda self: self.world.partitions > 1)
    @rule(
        who=st.integers(0, 1),
        number=st.integers(0, 20),
        change=st.integers(-3, 3),
        step=st.integers(0, 2),
        after=st.booleans(),
        dies=st.booleans(),
    )
    def a_move_stops(self, who: int, number: int, change: int, step: int, after: bool, dies: bool) -> None:
        """Before or after debit, credit or landed."""
        self.act(who, ("move", number, change), **{"crash" if dies else "lost": (step, after)})

    @rule(who=st.integers(0, 1), act=acts, other=acts, boundary=boundaries)
    def two_at_once(self, who: int, act: Any, other: Any, boundary: tuple[int, bool]) -> None:
        """One sleeps at a boundary while the other one acts."""
        self._meanwhile(who, act, boundary[0], lambda: self.act(1 - who, other))

    def _meanwhile(self, who: int, act: tuple[str, int, int], boundary: int, others: Callable[[], None]) -> None:
        failures: list[BaseException] = []

        def tried() -> None:
            try:
                others()
            except BaseException as error:  # the library may hide it
                failures.append(error)

        self.act(who, act, meanwhile=(boundary, tried))
        if failures:
            self.failed = True
            raise failures[0]

    @precondition(lambda self: self.world.late)
    @rule(picked=st.lists(st.integers(0, 40), min_size=1, max_size=3))
    def a_late_mover(self, picked: list[int]) -> None:
        """It sends what was sent long ago, or never, perhaps in another epoch."""
        for number in picked:
            type(self).resent += 1
            self.world.resend(self.world.late[-1 - number % len(self.world.late)])
        self.check()

    @rule(who=st.integers(0, 1), act=acts, picked=st.integers(0, 9), boundary=boundaries)
    def a_late_mover_between(self, who: int, act: Any, picked: int, boundary: tuple[int, bool]) -> None:
        if self.world.late:
            call = self.world.late[-1 - picked % len(self.world.late)]
            self._meanwhile(who, act, boundary[0], lambda: self.world.resend(call))

    @rule(place=st.integers(0, 15), hangs=st.booleans(), steps=st.lists(st.tuples(st.integers(0, 1), acts), max_size=6))
    def a_partition_is_away(self, place: int, hangs: bool, steps: list[tuple[int, Any]]) -> None:
        world = self.world
        world.away_with = OutcomeUnknown("no reply") if hangs else NotExecuted("connection refused")
        world.away = {place % world.partitions}
        for who, act in steps:
            self.act(who, act)
        world.away = set()
        for process in self.processes:
            process.grow_old()
        world.end("leases")

    @rule(who=st.integers(0, 2))
    def time_passes(self, who: int) -> None:
        """A process has forgotten; or all payment deadlines pass."""
        if who < 2:
            self.processes[who].grow_old()
        else:
            self.world.end("holds")

    @rule(
        place=st.integers(-32, 15),
        buyers=st.lists(st.integers(0, 20), max_size=3),
        where=boundaries,
        dies=st.booleans(),
    )
    def a_partition_is_emptied(self, place: int, buyers: list[int], where: tuple[int, bool], dies: bool) -> None:
        """The others go on with what they have; none says SOLD_OUT; the syncer tells; a rebuild brings all back.

        Args:
            place: which; below 0, none is: it takes long.
        """
        if place < 0:
            return
        world, who = self.world, place % 2
        for process in self.processes:
            process.grow_old()
        before = world.read_ledger()
        left = {number: self._left(BUYERS[number % 7], GOODS_IDS[number % 2]) for number in buyers}
        allotted = {goods_id: world.units[goods_id].allotted for goods_id in GOODS_IDS}
        world.lose(place % world.partitions)
        world.units, self.failed = None, True
        for number in buyers:
            self._buy_at_a_loss(1 - who, number, left, place % world.partitions)
        with contextlib.suppress(FlashSaleError):
            report = self.processes[who].syncer.run_once()
            assert report.lost or report.missing or report.closed, f"the syncer missed it: {report}"
        gone = {
            name for name in before if crc32(before[name][2].encode()) % world.partitions == place % world.partitions
        }
        self._rebuild(who, where, dies, allotted)
        self._after_the_loss(before, gone)

    def _buy_at_a_loss(self, who: int, number: int, left: dict[int, float], lost: int) -> None:
        buyer, goods_id, quantity = BUYERS[number % 7], GOODS_IDS[number % 2], number % 3 + 1
        order_id = self.order_id(buyer, f"o{number}")
        try:
            receipt = self.processes[who].sale.buy(goods_id, buyer, quantity, order_id=order_id)
        except FlashSaleError:
            return
        assert receipt.outcome is not Outcome.SOLD_OUT, "SOLD_OUT, and a rebuild may bring units"
        if receipt.accepted:
            assert crc32(buyer.encode()) % self.world.partitions != lost, "sold by a partition that has lost all"
            self.accepted.add(receipt.order_id)

    def _rebuild(self, who: int, where: tuple[int, bool], dies: bool, allotted: dict[str, int]) -> None:
        """It may die, and is begun again; or a mover of the old epoch goes on in the midst of it."""
        world, process = self.world, self.processes[who]
        if dies:
            process.faults.crash = where
        elif world.late:
            process.faults.meanwhile = (where[0], lambda: world.resend(world.late[-1]))
        try:
            self._set_totals_back(process, allotted)
        except Crash:
            type(self).crashed += 1
            process.close()
            self.processes[who] = process = Process(world, process.cache_for)
            world.end("leases")
            self._set_totals_back(process, allotted)
        finally:
            process.faults.clear()

    def _set_totals_back(self, process: Process, allotted: dict[str, int]) -> None:
        """Rebuilds; a host that has lowered a total below what is sold is told to raise it."""
        try:
            process.syncer.rebuild()
        except InvalidRequest:
            for goods_id, row in self.world.read_rows()[0].items():
                self.world.store.restock(goods_id, max(0, allotted[goods_id] - row.total))
            process.syncer.rebuild()

    def _after_the_loss(self, before: dict[str, Any], gone: set[str]) -> None:
        world = self.world
        for process in self.processes:
            process.grow_old()  # within `cache_for`
        for goods_id in GOODS_IDS:
            self.processes[0].sale.start(goods_id)
        world.units = world.read_units()
        ledger, (_, rows) = world.read_ledger(), world.read_rows()
        for name, record in before.items():
            assert name in ledger or name in gone, f"{name} is gone with a partition that was another one's"
            assert name in ledger or name not in rows, f"{name} has a row, and the rebuild forgot it"
            assert name not in ledger or ledger[name][1:] == record[1:]
            assert name not in ledger or ledger[name][0] is not OrderState.REJECTED, f"{name} was rejected"
        self.accepted &= ledger.keys()
        self.known, self.lossy, self.failed = ledger, True, False
        self.check()

    # -- what must be true --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Invariants 1 to 4, and that Redis has what the model has."""
        before, self.failed = self.failed, True
        self.adopt()
        found, ledger, (goods, rows) = self.world.read_units(), self.world.read_ledger(), self.world.read_rows()
        booked = Counter[tuple[int, str]]()
        held = Counter[str]()
        for name, (state, goods_id, buyer, quantity) in ledger.items():
            if state not in RELEASED:
                booked[crc32(buyer.encode()) % self.world.partitions, goods_id] += quantity
                held[buyer] += quantity if goods_id == "b" else 0
            if name in self.known and self.known[name] != ledger[name]:
                old = self.known[name]
                assert old[1:] == ledger[name][1:], f"{name} was {old}, and is {ledger[name]}"
                assert state in AHEAD.get(old[0], ()), f"{name} went from {old[0]} to {state}"
        assert self.known.keys() <= ledger.keys(), "an order is gone"
        assert self.accepted <= ledger.keys(), "accepted, and gone"
        assert not held or max(held.values()) <= CAP
        self.known = ledger
        for goods_id, units in found.items():
            wanted = self.world.units[goods_id]
            assert (units.epoch, units.allotted) == (wanted.epoch, wanted.allotted)
            assert units.parts == wanted.parts, f"{goods_id}: wanted\n{wanted.parts}, found\n{units.parts}"
            assert sum(part.total for part in units.parts) + units.under_way == units.allotted, "units are gone"
            for place, part in enumerate(units.parts):
                assert part.booked == booked[place, goods_id], "stock and ledger disagree"
                assert part.booked <= part.total, "oversold"
                assert part.access <= part.count, "more have passed than may"
        for goods_id, row in goods.items():
            active = sum(each.quantity for each in rows.values() if each.goods_id == goods_id and _is_active(each))
            assert row.booked == active <= row.granted, "oversold in the database"
        for name, row in rows.items():
            home = crc32(row.buyer_id.encode()) % self.world.partitions
            assert self.world.partitions == 1 or name[:2] == f"{home:02x}"
        self.failed = before

    # -- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.processes and not self.failed:
                self.end()
        finally:
            self.patches.close()
            for process in self.processes:
                process.close()
            if self.processes:
                self.world.close()

    def end(self) -> None:
        """With demand everything sells, what is cancelled or restocked at the very end too; then all agree."""
        for process in self.processes:
            process.grow_old()
        self._settle_down()
        for goods_id in GOODS_IDS:
            self._restock_to(goods_id, 0)  # else a pass would take what returns: the host wants to sell fewer
            fans = (f"fan-{number}" for number in itertools.count())
            self._sell_out(goods_id, fans, self.world.units[goods_id].free)
            for at_the_end in (self._one_returns, self._one_more):
                at_the_end(goods_id)
                for _ in range(2 * self.lossy):  # the slot of an order that a rebuild took from the queue
                    self.processes[0].syncer.run_once()
                self.adopt()
                self._sell_out(goods_id, fans, 1)
        self._settle_down()
        self._agree()

    def _sell_out(self, goods_id: str, fans: Any, units: int) -> None:
        """Of two processes, of which the second one may not know before it has forgotten."""
        for number in range(units):
            process = self.processes[number % 2]
            if number % 2:
                process.grow_old()
            receipt = process.sale.buy(goods_id, next(fans))
            assert receipt.accepted, f"{receipt.outcome} to a buyer of one, of {self.world.units[goods_id].parts}"
            self.accepted.add(receipt.order_id)
        assert self.processes[0].sale.buy(goods_id, next(fans)).outcome is Outcome.SOLD_OUT
        self.check()

    def _one_returns(self, goods_id: str) -> None:
        ledger = self.world.read_ledger()
        active = [name for name, record in ledger.items() if record[1] == goods_id and record[0] not in RELEASED]
        ones = [name for name in active if ledger[name][3] == 1]
        if ones:
            self.processes[0].sale.cancel(min(ones))
        else:
            self._one_more(goods_id)

    def _one_more(self, goods_id: str) -> None:
        self._restock_to(goods_id, 1)

    def _restock_to(self, goods_id: str, more: int) -> None:
        """Makes the row say what the sale has, and so many more."""
        (goods, _), units = self.world.read_rows(), self.world.units[goods_id]
        self.processes[0].sale.restock(goods_id, units.allotted - goods[goods_id].total + more)
        self.adopt()

    def _settle_down(self) -> None:
        for _ in range(40):
            if not self._waiting():
                break
            self.world.end("leases")
            self.processes[0].worker.run_once()
        else:
            raise AssertionError("the queue does not run empty")
        for _ in range(2):
            self.processes[0].syncer.run_once()
        self.check()

    def _waiting(self) -> int:
        lists = self.world.ask_all(lambda pipe, keys: pipe.llen(keys.order_list).zcard(keys.leases))
        return sum(map(sum, lists))

    def _agree(self) -> None:
        ledger, (goods, rows) = self.world.read_ledger(), self.world.read_rows()
        assert {name: record[0] for name, record in ledger.items()} == {
            name: OrderState(row.state) for name, row in rows.items()
        }
        for goods_id, units in self.world.units.items():
            assert goods[goods_id].granted == units.allotted
            assert goods[goods_id].booked == sum(part.booked for part in units.parts) == units.allotted
        audit = self.processes[0].syncer.audit(self.accepted)
        assert not (audit.adrift or audit.lost or audit.unreadable or audit.corrupt)
        assert all(each.agree for each in audit.goods.values())


def _is_active(row: Any) -> bool:
    return OrderState(row.state) not in RELEASED


def machine(backend: Backend, engine: Any) -> type[PartitionMachine]:
    """The machine on one backend; the class counts what it did."""
    body = {"backend": backend, "engine": engine, "steps": 0, "crashed": 0, "sold_out": 0, "resent": 0}
    return type("PartitionMachine", (PartitionMachine,), body)
