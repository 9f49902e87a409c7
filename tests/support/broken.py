"""Parts of the library with one mechanism taken out, for the registry of mutants: stores, and functions that patch."""

from __future__ import annotations

import os
from collections import Counter, deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError
from sqlalchemy import insert, update

import flashsale.aio.ledger
import flashsale.aio.stores
import flashsale.aio.transport.topology
from flashsale import (
    Goods,
    InvalidRequest,
    Inventory,
    NotExecuted,
    OrderQueue,
    OrderState,
    OutcomeUnknown,
    StoreError,
    Syncer,
    Tickets,
    Worker,
)
from flashsale._rules.deadline import TOO_LATE
from flashsale._rules.durability import Guarantee
from flashsale._rules.refusal_cache import Refusal
from flashsale._sql.tables import GOODS, ORDERS
from flashsale._sync.auditor import Auditor
from flashsale._sync.ledger import Ledger
from flashsale._sync.partitions.purchases import PartitionPurchases
from flashsale._sync.partitions.transfers import Transfers
from flashsale._sync.rebuilder import Rebuilder
from flashsale._sync.stores.hooked import HookedRowStore
from flashsale._sync.transport import runtime
from flashsale._sync.transport.link import Link
from flashsale._sync.transport.runtime import Later
from flashsale._sync.transport.topology import Topology
from flashsale.lua import SCRIPTS
from flashsale.model import RELEASED, Receipt
from flashsale.model.checks import check_id
from flashsale.stores import RowStore, SQLAlchemyStore
from tests.support import acl, servers

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

    import pytest

    from flashsale._rules.tally import Tally
    from flashsale._sync.recorder import Recorder
    from tests.chaos.faults.world import World


def late_events(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """The event of a saved order is written after the order, in a transaction of its own."""
    moved, save = RowStore._moved, RowStore.save

    def only_others(store, connection, orders, state, previous):
        if state is not OrderState.PERSISTED:
            moved(store, connection, orders, state, previous)

    def saving(store, orders):
        saved = save(store, orders)
        new = [order for order in orders if order.order_id in saved.inserted]
        with store.transaction() as connection:
            moved(store, connection, new, OrderState.PERSISTED, OrderState.QUEUED)
        return saved

    monkeypatch.setattr(RowStore, "_moved", only_others)
    monkeypatch.setattr(RowStore, "save", saving)


# -- stores ---------------------------------------------------------------------------------------------------------


def unguarded(store: Any, goods_id: str, units: int) -> Any:
    """UPDATE goods SET booked = booked + n, whatever was granted."""
    return (
        update(GOODS)
        .where(GOODS.c.sale == store.sale, GOODS.c.goods_id == goods_id)
        .values(booked=GOODS.c.booked + units)
    )


class NoGuard(SQLAlchemyStore):
    """It books whatever was granted."""

    def book(self, connection, goods_id, units):
        return connection.execute(unguarded(self, goods_id, units)).rowcount > 0


class NoTombstone(SQLAlchemyStore):
    """An order without a row is released without a trace."""

    def settle(self, order, state):
        if state in RELEASED and not self.states([order.order_id]):
            return state
        return super().settle(order, state)


class NoWinner(SQLAlchemyStore):
    """Whoever comes last decides."""

    def settle(self, order, state):
        standing = super().settle(order, state)
        if standing is state:
            return standing
        with self._engine.begin() as connection:
            this = update(ORDERS).where(ORDERS.c.sale == self.sale, ORDERS.c.order_id == order.order_id)
            connection.execute(this.values(state=state.value))
        return state


class BookedTwice(SQLAlchemyStore):
    """Units are booked for every order of the batch, not only for the rows inserted."""

    def save(self, orders):
        saved = super().save(orders)
        with self._engine.begin() as connection:
            for order in orders:
                if saved.existing.get(order.order_id) is OrderState.PERSISTED:
                    self.book(connection, order.goods_id, order.quantity)
        return saved


class NoKey(SQLAlchemyStore):
    """Rows of orders have no key, and each order is inserted whenever it comes."""

    def create_all(self):
        super().create_all()
        with self._engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE bare AS SELECT * FROM flashsale_orders")
            connection.exec_driver_sql("DROP TABLE flashsale_orders")
            connection.exec_driver_sql("ALTER TABLE bare RENAME TO flashsale_orders")

    def insert_new(self, connection, table, common, rows):
        if table != "orders":
            return super().insert_new(connection, table, common, rows)
        connection.execute(insert(ORDERS), [{**common, **row} for row in rows])
        return {row["order_id"] for row in rows}


class AnyVersion(SQLAlchemyStore):
    """A grant whatever the version of the row."""

    def grant(self, goods_id, units, *, loaded=False, version=None):
        return super().grant(goods_id, units, loaded=loaded)


class NeverLoaded(SQLAlchemyStore):
    """It forgets that Redis was given the item."""

    def goods(self):
        return [replace(goods, loaded=False) for goods in super().goods()]


# -- functions: each takes `monkeypatch` and the `World` of a fault, if there is one --------------------------------


def no_guard(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Neither API of the store asks what was granted; nor does a store that is made already."""

    async def book(self: Any, connection: Any, goods_id: str, units: int) -> bool:
        return (await connection.execute(unguarded(self, goods_id, units))).rowcount > 0

    monkeypatch.setattr(SQLAlchemyStore, "book", NoGuard.book)
    monkeypatch.setattr(flashsale.aio.stores.SQLAlchemyStore, "book", book)


def no_lock(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """What decides is read as the transaction sees it."""
    current = RowStore._current
    monkeypatch.setattr(RowStore, "_current", lambda store, connection, ids, **_: current(store, connection, ids))


def every_attempt_counts(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    nack = OrderQueue.nack
    monkeypatch.setattr(
        OrderQueue, "nack", lambda queue, claims, *, delay=0.0, count_attempt=True: nack(queue, claims, delay=delay)
    )


def one_more_look(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Both APIs ask Redis for its time before they move an order."""
    amove, move = flashsale.aio.ledger.Ledger.move, Ledger.move

    async def alooks(self: Any, rows: Any) -> Any:
        await self.time()
        return await amove(self, rows)

    def looks(self: Ledger, rows: Any) -> Any:
        self.time()
        return move(self, rows)

    monkeypatch.setattr(flashsale.aio.ledger.Ledger, "move", alooks)
    monkeypatch.setattr(Ledger, "move", looks)


def ack_before_commit(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    process = Worker._process

    def eager(self: Worker, claims: Any) -> Any:
        self._queue.ack([claim for claim in claims if claim.order])
        return process(self, claims)

    monkeypatch.setattr(Worker, "_process", eager)


def no_split(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    def all_or_nothing(self: Worker, orders: Any, *_: object) -> Any:
        try:
            return self._store.save(orders).states if orders else {}
        except StoreError:
            return {}

    monkeypatch.setattr(Worker, "_save", all_or_nothing)


def every_refusal_blames(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """What the database refuses is to blame, also when it refuses all."""

    def save(self: Worker, orders: Any, _: object) -> Any:
        refusals: dict[str, Exception] = {}
        states = self._split(orders, refusals)
        for refusal in refusals.items():
            self._tell_refusal(*refusal)
        return states

    monkeypatch.setattr(Worker, "_save", save)


def no_timeout(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """The connection waits for ever."""
    made = Topology.__init__

    def patient(self: Topology, settings: Any, _: float) -> None:
        made(self, settings._replace(arguments=settings.arguments | {"socket_timeout": None}), 3600.0)

    monkeypatch.setattr(Topology, "__init__", patient)
    monkeypatch.setattr("flashsale._sync.transport._redispy.monotonic", lambda: 0.0)
    monkeypatch.setattr("flashsale._sync.transport.topology.hurried", lambda settings, _: settings)


def a_time_for_each_step(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Whoever waits in line waits as long as it takes, and then for each try as long as ever."""

    def spend(_until: float, function: Any, *args: Any, has_place: bool = False) -> Any:
        return runtime.spend(inf, function, *args, has_place=has_place)

    monkeypatch.setattr("flashsale._sync.transport.coalescer.spend", spend)
    monkeypatch.setattr("flashsale._sync.transport.coalescer.monotonic", lambda: 0.0)


def no_eval(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """NOSCRIPT is the end of a purchase."""
    send, text = Link._send, SCRIPTS["reserve"].text

    def refuse(self: Link, key: str, *command: Any, **more: Any) -> Any:
        if command[:2] == ("EVAL", text):
            raise NoScriptError
        return send(self, key, *command, **more)

    monkeypatch.setattr(Link, "_send", refuse)


def decoded_claims(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Claims come as str, as from a client with `decode_responses`."""
    run = Link.run

    def decoding(self: Link, name: str, keys: Any, args: Any = ()) -> Any:
        reply = run(self, name, keys, args)
        return _decoded(reply) if name == "claim" else reply

    monkeypatch.setattr(Link, "run", decoding)


def _decoded(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_decoded(value) for value in reply]
    return reply.decode() if isinstance(reply, bytes) else reply


def push_by_itself(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """The order, which the script puts aside, is pushed by a command of its own."""
    run_behind = Link.run_behind

    def push_later(self: Link, barrier: Any, name: str, keys: Any, args: Any) -> Any:
        answer = run_behind(self, barrier, name, keys, args)
        if name == "reserve":
            self.command("LMOVE", f"{keys[2]}:aside", keys[2], "RIGHT", "LEFT")
        return answer

    monkeypatch.setattr(Link, "run_behind", push_later)


def kept_in_midst(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """A connection whose reply nobody has read serves the next caller."""
    topology = flashsale.aio.transport.topology
    read = AbstractConnection.read_response

    async def drop(self: Any, connection: Any, **_: Any) -> None:
        await self.give_back(topology.ANYWHERE, connection)

    async def read_on(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await read(self, *args, **(kwargs | {"disconnect_on_error": False}))

    monkeypatch.setattr(topology.Topology, "drop", drop)
    monkeypatch.setattr("flashsale.aio.transport.link.is_stale_connection", lambda _: False)
    monkeypatch.setattr(AbstractConnection, "read_response", read_on)


def no_wait(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Nobody waits for a replica, and nobody notices."""
    monkeypatch.setattr(Guarantee, "barrier", lambda *_: [])
    monkeypatch.setattr(Guarantee, "is_met", lambda *_: True)


def no_write_before_wait(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    barrier = Guarantee.barrier
    monkeypatch.setattr(Guarantee, "barrier", lambda self, meta: barrier(self, meta)[1:])


def restores_nothing(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    monkeypatch.setattr(Rebuilder, "_restore", lambda *_: (0, Counter(phone=0)))


def no_append_only_file(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """The server keeps no file."""
    run = servers.redis_server

    def without(*, aof: bool = False, **config: Any) -> Any:
        return run(**config)

    monkeypatch.setattr(servers, "redis_server", without)


def no_transactions(_: pytest.MonkeyPatch, world: World | None) -> None:
    """What a script wrote stands in the file command by command."""

    def bare(written: bytes) -> bytes:
        return written.replace(b"*1\r\n$5\r\nMULTI\r\n", b"").replace(b"*1\r\n$4\r\nEXEC\r\n", b"")

    world.rewrite = bare


def prefix(name: str, value: object, pattern: re.Pattern[str], rule: str) -> object:
    """It suffices that an id begins well."""
    if type(value) is not str or pattern.match(value) is None:
        raise InvalidRequest(name, rule)
    return value


def all_keys(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """The shop's user reaches every key of the sale."""
    flashsale, shop = acl.users()
    shop = [word for word in shop if not word.startswith("~")]
    monkeypatch.setattr(acl, "users", lambda: [flashsale, [*shop, "~flashsale:{*}:*"]])


def may_set(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """The shop's user may call SET."""
    flashsale, shop = acl.users()
    monkeypatch.setattr(acl, "users", lambda: [flashsale, [*shop, "+set"]])


_REPAIR = Auditor.repair


def trusting_repair(auditor, *, dry_run, **_):
    """What the ledger says is paid is paid."""
    return _REPAIR(auditor, dry_run=dry_run, trust_ledger=True)


def restock_again(store, goods_id, units, _request_id):
    """A request is made as often as it is asked."""
    goods = store.restock(goods_id, units)
    return goods, goods.total


def always_remembered(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """What a process remembers answers a buyer who has a ticket, too."""
    monkeypatch.setattr(Refusal, "for_buyers", property(lambda _: True, lambda *_: None))


def never_required(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Nobody needs a ticket."""
    monkeypatch.setattr(Tickets, "required", property(lambda _: False, lambda *_: None), raising=False)


def cut(orders: Any) -> tuple[Any, Any]:
    """Splits a batch in the middle, through a basket."""
    return orders[: len(orders) // 2 or 1], orders[len(orders) // 2 or 1 :]


# -- hooks ------------------------------------------------------------------------------------------------------------


def no_savepoint(_: Any, __: Any) -> Any:
    """What a refused call of `saved` wrote stays."""
    return nullcontext()


def keep_units(store: Any, connection: Any, orders: Any, reasons: Any) -> None:
    """Orders become REJECTED, and their units stay booked."""
    give_back = store._give_back
    store._give_back = lambda *_: None
    try:
        _refuse(store, connection, orders, reasons)
    finally:
        store._give_back = give_back


def ask_once(store: Any, connection: Any, orders: Any) -> Any:
    """Who is left after `Refuse` is not saved by the hook."""
    return _ask(store, connection, orders)[0], False


def grant_later(store: Any, connection: Any, row: Any, values: Any) -> None:
    """A raise is granted when Redis gets it."""
    RowStore._write_goods(store, connection, row, values)
    store._tell_stock(connection, row["goods_id"], values.get("granted", row["granted"]) - row["granted"])


class _Totals(dict[str, Any]):
    """What was granted, without the version."""

    def get(self, key: str, default: Any = None) -> Any:
        return _Total(super().get(key, default))


class _Total(NamedTuple):
    known: Any

    def __ne__(self, other: object) -> bool:
        return self.known is None or self.known[0] != other[0]  # type: ignore[index]

    __hash__ = None  # type: ignore[assignment]


def sync_by_total(syncer: Any, goods: Any, report: Any) -> Any:
    """The grant is looked at only when the total has changed."""
    syncer._granted = _Totals(syncer._granted)
    return _sync(syncer, goods, report)


_refuse, _ask, _sync = HookedRowStore._refuse, HookedRowStore._ask, Syncer._sync


# -- the trail ------------------------------------------------------------------------------------------------------


def note_apart(store: Any, note: Any) -> Any:
    """The row is committed by itself, before the transaction of the command."""
    note.row_id, note.is_carried = store.note(note.entry), True
    return store.transaction()


def note_again(store: Any, note: Any) -> None:
    """The outcome gets a row of its own."""
    store.note(note.entry)


class OfAllThreads:
    """One variable for all threads."""

    value: Any = None

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        self.value = value

    def reset(self, _: Any) -> None:
        self.value = None


def count_replays(tally: Tally, answers: Iterable[object], _seconds: float) -> None:
    """A purchase is counted each time that it is asked for."""
    for answer in answers:
        if isinstance(answer, Receipt) and answer.state is not None:
            tally.add((answer.goods_id, answer.outcome))


def keep_counts(recorder: Recorder) -> None:
    """A process goes on with the counts that it finds."""
    recorder._process = os.getpid()
    if not hasattr(recorder, "_told"):
        recorder._told, recorder._untold, recorder._lock, recorder._parts = Counter(), deque(), Lock(), 0
        recorder._later = Later(lambda: None)
    recorder._tally.clear = lambda: None


def never(*_: object) -> AbstractContextManager[None]:
    """What is to be repeated beside something else is not."""
    return nullcontext()


# -- partitions -----------------------------------------------------------------------------------------------------


def configure_the_total(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """The policy of a partition is set with the total that was read before."""
    configure = Inventory._configure

    def with_the_total(inventory: Inventory, goods: Goods, *, keep_total: bool = False) -> int:
        if keep_total:
            goods = replace(goods, total=inventory.stock(goods.goods_id).total)
        return configure(inventory, goods)

    monkeypatch.setattr(Inventory, "_configure", with_the_total)


def verdict_at_the_deadline(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Who runs out of time says that nothing is left."""
    fetch = Transfers._fetch

    def hasty(*args: Any) -> int | None:
        try:
            return fetch(*args)
        except NotExecuted as error:
            if error.reason == TOO_LATE:
                return 0
            raise

    monkeypatch.setattr(Transfers, "_fetch", hasty)


def one_error_for_all(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """What goes wrong with the orders that are asked again is the answer to the whole batch."""
    fetched = PartitionPurchases._fetched

    def for_all(*args: Any) -> Any:
        answers = fetched(*args)
        for answer in answers:
            if isinstance(answer, NotExecuted | OutcomeUnknown):
                raise answer
        return answers

    monkeypatch.setattr(PartitionPurchases, "_fetched", for_all)


def no_breaker(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """Nobody remembers that a partition did not answer."""
    monkeypatch.setattr(Transfers, "_deaf_until", property(lambda _: -inf, lambda *_: None), raising=False)


def one_look(monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
    """One look that finds nothing is enough."""
    fetch = Transfers._fetch

    def hasty(transfers: Transfers, to: int, goods_id: str, need: int, least: int, until: float) -> int | None:
        look = transfers.look(goods_id)
        if look.left < least and not list(look.open()):
            return look.left
        return fetch(transfers, to, goods_id, need, least, until)

    monkeypatch.setattr(Transfers, "_fetch", hasty)


def any_partition(routes: Any, order_id: str, name: str = "order_id") -> int:
    """Returns a partition for whatever begins an id."""
    check_id(name, order_id)
    return int(order_id[:2].encode().hex(), 16) % int(routes.partitions)


def purge_anew(syncer: Any) -> Any:
    """Purges as if nobody had begun to."""
    return Syncer.purge(syncer)


def move_at_once(transfers: Any, name: str, goods_id: str, place: int, arguments: Any) -> tuple[Any, bool]:
    """A step of a move waits for no replica."""
    return transfers._run(name, goods_id, place, arguments), True
