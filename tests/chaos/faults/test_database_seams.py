"""Rows 38 to 41, 43, 57 and 60: what a host's database, its errors and its programs do to a sale."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url

from flashsale import Goods, InvalidRequest, OrderState, Outcome, OutcomeUnknown, StoreError
from tests.chaos.faults.catalogue import EVERYWHERE, fault
from tests.chaos.faults.world import DATABASES, ROOT, SERVERS, Heard
from tests.support.database_proxy import frozen
from tests.support.helpers import order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flashsale import FlashSaleError
    from tests.chaos.faults.world import World
    from tests.support.helpers import Awaited

CANCELLED, PERSISTED = OrderState.CANCELLED, OrderState.PERSISTED


async def _queued(world: World, url: str, *names: str) -> Awaited:
    """Returns a sale on this database, whose queue holds these orders."""
    sale = await world.sell(world.redis_server.port, 100, url=url)
    await sale.inventory.reserve([order(name, buyer_id="secret") for name in names])
    return sale


async def _nobody_is_to_blame(world: World, sale: Awaited, *names: str) -> None:
    """The worker tries more often than an order has attempts: no order is refused, and it is said once."""
    with Heard() as heard:
        raised = await world.work(sale)
    assert await sale.queue.dead() == [], "E: good orders are dead"
    assert [type(error) for error in raised] == [StoreError] * 8, "E: orders are to blame"
    assert heard.says("StoreError (")
    said = {record.getMessage() for record in heard.records}  # of a connection that ended, and of the refusal
    assert heard.says("the database failed", "no attempt counts") == len(heard.records) == len(said) <= 2, "T"
    world.end_leases()
    claims = await sale.queue.claim(timeout=0)
    assert {claim.order.order_id: claim.attempts for claim in claims} == dict.fromkeys(names, 1), "E: attempts count"
    await sale.queue.nack(claims, count_attempt=False)


# -- COMMIT ---------------------------------------------------------------------------------------------------------

WRITES: tuple[Callable[[Any], Any], ...] = (
    lambda store: store.put_goods(Goods("case", 5)),
    lambda store: store.grant("phone", 20),
    lambda store: store.save([order("s-1")]),
    lambda store: store.settle(order("s-2"), CANCELLED),
    lambda store: store.settle_many([order("s-3")], CANCELLED),
    lambda store: store.requeue_events(),
    lambda store: store.delivered([1]),
    lambda store: store.postpone(1, None),
    lambda store: store.advance_epoch(),
)
READS: tuple[Callable[[Any], Any], ...] = (
    lambda store: store.goods(),
    lambda store: store.epoch(),
    lambda store: store.orders(),
    lambda store: store.states(["o-1"]),
    lambda store: store.dead_events(),
)


async def _a_commit_of_each_call_is_lost(world: World, url: str) -> None:
    proxy = world.lossy(url)
    sale = await world.sell(world.redis_server.port, url=proxy.url.render_as_string(hide_password=False))
    store = world.awaited(sale.real.store)
    await sale.inventory.reserve([order("o-1"), order("o-2")])

    async def lost(call: Callable[[], Any], kind: type[FlashSaleError] = OutcomeUnknown) -> None:
        await store.epoch()  # it is connected
        before = proxy.lost
        proxy.lose_commits()
        await world.answered(kind, call())
        assert proxy.lost == before + 1

    await lost(world.worker(sale).run_once)
    world.end_leases()
    assert await world.answer(world.worker(sale).run_once()) == 2, "E: the batch is not saved again"
    await lost(lambda: sale.cancel("o-1"))
    assert await world.answer(sale.cancel("o-1")) is CANCELLED
    await lost(lambda: sale.restock("phone", 5, "r-1"))
    assert await world.answer(sale.restock("phone", 5, "r-1")) == 15
    await world.holds(sale, ["o-1", "o-2"], total=15)

    for call in READS:
        await lost(partial(call, store), StoreError)
    for call in WRITES:
        await lost(partial(call, store))
        await call(store)
    states = {"o-1": CANCELLED, "o-2": PERSISTED, "s-1": PERSISTED, "s-2": CANCELLED, "s-3": CANCELLED}
    assert await world.orders(sale) == states, "E: a call made again writes twice"


@fault(
    38,
    "the answer to COMMIT is lost",
    "a proxy in front of PostgreSQL and MariaDB ends the connection instead",
    holds="E L T",
    mechanism="`OutcomeUnknown`, unless the error says that nothing was written; the same call may be made again",
    without=("the doubt about a COMMIT", "the doubt about a COMMIT of Django's"),
    on=EVERYWHERE,
)
async def test_row_38_the_answer_to_commit_is_lost(world: World) -> None:
    for url in world.databases(*SERVERS):
        await _a_commit_of_each_call_is_lost(world, url)


# -- who is to blame ------------------------------------------------------------------------------------------------

TRIGGERS = {
    "sqlite": """CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders WHEN {when}
        BEGIN SELECT RAISE(ABORT, 'no'); END""",
    "postgresql": """CREATE FUNCTION poison() RETURNS trigger AS
        'BEGIN IF {when} THEN RAISE EXCEPTION $$no$$; END IF; RETURN NEW; END' LANGUAGE plpgsql;
        CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders FOR EACH ROW EXECUTE FUNCTION poison()""",
    "mariadb": """CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders FOR EACH ROW
        BEGIN IF {when} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; END""",
}
TRIGGERS["mysql"] = TRIGGERS["mariadb"]


def _kind(url: str) -> str:
    return make_url(url).get_backend_name()


def _poison(world: World, url: str, when: str) -> None:
    """A trigger of the host's refuses rows."""
    world.run(url, TRIGGERS[_kind(url)].format(when=when))


def _heal(world: World, url: str) -> None:
    world.run(url, "DROP TRIGGER poison" + (" ON flashsale_orders" if _kind(url) == "postgresql" else ""))


@contextlib.contextmanager
def _read_only(world: World, url: str) -> Iterator[None]:
    """The database takes no writes, as after a failover: its connections end, and the next ones can only read."""
    name = make_url(url).database
    if _kind(url) == "postgresql":
        ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> {{}}()"
        switch = f"ALTER DATABASE {name} SET default_transaction_read_only = "
        others = make_url(url).set(database="postgres").render_as_string(hide_password=False)
        on, off = (switch + "on", ends.format("pg_backend_pid")), (switch + "off", ends.format("pg_backend_pid"))
    else:
        others, on, off = url, ("SET GLOBAL read_only = 1",), ("SET GLOBAL read_only = 0",)
    world.run(others, *on)
    try:
        yield
    finally:
        world.run(others, *off)


def _ordinary_user(world: World, url: str) -> str:
    """Returns the URL of a user whom `read_only` stops: the one of the tests may write always."""
    if _kind(url) == "postgresql":
        return url
    grant = f"GRANT ALL ON {make_url(url).database}.* TO shop@localhost"
    world.run(url, "CREATE USER IF NOT EXISTS shop@localhost", grant)
    return make_url(url).set(username="shop").render_as_string(hide_password=False)


@fault(
    39,
    "the database takes no rows at all",
    "PostgreSQL and MariaDB turn read-only; a trigger that refuses every row",
    holds="E",
    mechanism="only a row's own fault blames it; a batch refused alike is the database's fault; said once a minute",
    without=("the blame of rows alone", "the look at the whole batch", "the count of repeats"),
    on=EVERYWHERE,
)
async def test_row_39_the_database_takes_no_rows(world: World) -> None:
    for url in world.databases(*SERVERS):
        sale = await _queued(world, _ordinary_user(world, url), "alone")
        with _read_only(world, url):
            await _nobody_is_to_blame(world, sale, "alone")
        await world.holds(sale, ["alone"], total=100)
        assert await world.orders(sale) == {"alone": PERSISTED}
    for url in world.databases(*DATABASES):
        sale = await _queued(world, url, "o-1", "o-2", "o-3")
        _poison(world, url, "1 = 1")
        await _nobody_is_to_blame(world, sale, "o-1", "o-2", "o-3")
        _heal(world, url)
        await world.holds(sale, ["o-1", "o-2", "o-3"], total=100)
        assert set((await world.orders(sale)).values()) == {PERSISTED}


GOOD = [f"o-{number}" for number in range(9)]


async def _bad_orders_alone(world: World, sale: Awaited) -> None:
    """Two bad orders wait, for no other is in their batch; when the database takes another one, they are to blame."""
    names = {"poison-1", "poison-2"}
    await sale.inventory.reserve([order(name, buyer_id="secret") for name in names])
    worker = world.worker(sale)
    assert {type(error) for error in await world.work(sale, worker)} == {StoreError}
    assert len(await sale.queue.dead()) == 1
    waiting = world.raw.zrange(world.keys.leases, 0, -1)
    world.raw.zadd(world.keys.leases, dict.fromkeys(waiting, 4e9), xx=True)
    await sale.inventory.reserve([order("late")])
    assert await world.answer(worker.run_once()) == 1  # without them
    await world.work(sale, worker)
    assert names < {claim.order.order_id for claim in await sale.queue.dead()}, "L: their units wait for ever"


async def _only_poison_is_dead(world: World, sale: Awaited, reason: str) -> None:
    """The others are saved at once, and the reason is said once and kept; no buyer is named."""
    with Heard() as heard:
        assert await world.work(sale) == [], "E: the batch is tried again for ever"
    dead = [(claim.order.order_id, claim.reason) for claim in await sale.queue.dead()]
    assert [name for name, _ in dead] == ["poison"], "E: who is dead"
    assert reason in str(dead[0][1]), "T: nobody knows why it is dead"
    assert await world.orders(sale) == dict.fromkeys(GOOD, PERSISTED), "E: the others are not saved"
    assert heard.says("order poison was refused by the database", reason) == 1, "T: one line for one cause"
    assert not heard.says("secret"), "T: a buyer is named"


@fault(
    40,
    "a row that a trigger of the host's refuses",
    "RAISE EXCEPTION in PostgreSQL, SIGNAL in MariaDB, RAISE in SQLite",
    holds="E",
    mechanism="the SQLSTATE blames the row: it is split off, and dead with its reason; several wait until others pass",
    without=("the SQLSTATE", "the rows taken since", "the reason of a dead letter", "the count of repeats"),
    on=EVERYWHERE,
)
async def test_row_40_a_row_that_a_trigger_refuses(world: World) -> None:
    for url in world.databases(*DATABASES):
        sale = await _queued(world, url, *GOOD[:5], "poison", *GOOD[5:])
        _poison(world, url, "NEW.order_id LIKE " + ("$$poison%$$" if _kind(url) == "postgresql" else "'poison%'"))
        await _only_poison_is_dead(world, sale, "the database refused a row: ")
        await _bad_orders_alone(world, sale)
        _heal(world, url)
        assert await sale.queue.requeue_dead() == 3
        await world.holds(sale, [*GOOD, "poison", "poison-1", "poison-2", "late"], total=100)


class Surprise(Exception):
    """What nobody expects of a store, with the buyer's name in it."""


def _raising(world: World, sale: Awaited, *bad: str) -> None:
    """A host's subclass raises in the midst of the transaction, with one of these orders; with any, if there is none.

    Its rows are inserted by then.
    """
    kind = type(sale.real.store)

    def check(table: str, rows: Any) -> None:
        if table == "orders" and (not bad or any(row["order_id"] in bad for row in rows)):
            raise Surprise("secret")

    class Sync(kind):
        def insert_new(self, connection, table, common, rows):
            inserted = super().insert_new(connection, table, common, rows)
            check(table, rows)
            return inserted

    class Async(kind):
        async def insert_new(self, connection, table, common, rows):
            inserted = await super().insert_new(connection, table, common, rows)
            check(table, rows)
            return inserted

    sale.real.store.__class__ = Async if world.is_async else Sync


@fault(
    43,
    "the host's own code raises anything at all",
    "a subclass of the store raises in the midst of its transaction, for one order; then for each",
    holds="E",
    mechanism="any exception of one order splits it off, and its type is the reason; one of all orders blames no order",
    without=("the blame for any exception", "the look at the whole batch"),
    on=EVERYWHERE,
)
async def test_row_43_the_hosts_code_raises_anything(world: World) -> None:
    for url in world.databases(*DATABASES):
        sale = await _queued(world, url, *GOOD, "poison")
        _raising(world, sale, "poison")
        await _only_poison_is_dead(world, sale, "Surprise")
        await sale.inventory.reserve([order("late-1"), order("late-2")])
        _raising(world, sale)
        assert {type(error) for error in await world.work(sale)} == {StoreError}
        assert len(await sale.queue.dead()) == 1, "E: good orders are dead"
        sale.real.store.__class__ = type(sale.real.store).__mro__[2]
        assert await sale.queue.requeue_dead() == 1
        await world.holds(sale, [*GOOD, "poison", "late-1", "late-2"], total=100)


# -- silence --------------------------------------------------------------------------------------------------------

TIMEOUT = 1.0  # seconds; the least
WITHIN = 2 * TIMEOUT + 4.0  # a wait for a connection, and a transaction on it; a busy machine among it


@fault(
    41,
    "the database is silent",
    "SIGSTOP of PostgreSQL and of MariaDB; a proxy that keeps what follows a COMMIT; a worker that is told to stop",
    holds="E T",
    mechanism="a deadline at our side of the socket: a frozen host still acknowledges packets",
    without=("the deadline of a transaction",),
)
async def test_row_41_the_database_is_silent(world: World) -> None:
    for url in world.databases(*SERVERS):
        proxy = world.lossy(url)
        through = proxy.url.render_as_string(hide_password=False)
        store = await world.store_of("spring", Goods("phone", 10), url=through, timeout=TIMEOUT)
        sale = world.beside(world.redis_server.port, store)
        await world.syncer(sale).run_once()
        await sale.start("phone")
        for name in ("o-1", "o-2", "o-3"):
            assert (await sale.buy("phone", "ann", order_id=name)).accepted
        proxy.fall_silent_at_commit()
        await world.answered(OutcomeUnknown, world.worker(sale).run_once(), within=WITHIN)
        proxy.speak()
        await world.drain(sale)
        assert (await sale.buy("phone", "ann", order_id="o-4")).accepted
        with frozen(url):
            stop = asyncio.Event() if world.is_async else threading.Event()
            running = asyncio.create_task(world.worker(sale).run(stop))
            calls = sale.cancel("o-1"), sale.confirm("o-2"), sale.restock("phone", 5, "r-1")  # more than the pool has
            await asyncio.gather(*(world.answered(StoreError, call, within=WITHIN) for call in calls))
            stop.set()
            began = time.monotonic()
            await asyncio.wait_for(running, WITHIN)
            assert time.monotonic() - began < WITHIN, "T: a worker does not stop"
        assert await world.answer(sale.cancel("o-1")) is CANCELLED
        assert await world.answer(sale.restock("phone", 5, "r-1")) == 15
        await world.holds(sale, ["o-1", "o-2", "o-3", "o-4"], total=15)


# -- processes ------------------------------------------------------------------------------------------------------


@fault(
    57,
    "a store that was made and used before the process forked",
    "gunicorn's `--preload`: three children and their parent at once, on PostgreSQL and on MariaDB",
    holds="E T",
    mechanism="another process id: the parent's connections are left to the parent",
    without=("a store's connections of a process' own", "Django's connections of a process' own"),
    on=EVERYWHERE,
)
async def test_row_57_a_store_that_was_made_before_the_fork(world: World) -> None:
    words = (world.case, "shares" if world.child.get("shares") else "", *world.databases(*SERVERS))
    program = (sys.executable, "-W", "ignore", "-m", "tests.chaos.faults.forked", *words)
    shop = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=-1, stderr=-1)
    said, errors = await asyncio.wait_for(shop.communicate(), 100)
    assert said == b"each by itself\n" * len(SERVERS), f"T: {errors.decode()}"


# -- the host's own program -----------------------------------------------------------------------------------------


@fault(
    60,
    "`put_goods` on a running sale",
    '`put_goods(Goods("phone", 12))` for an item with a cap, a window and a hold',
    holds="O",
    mechanism="what is None stays as the row has it; `replace=True` sets all",
    without=("the row under a change",),
    on=EVERYWHERE,
)
async def test_row_60_put_goods_on_a_running_sale(world: World) -> None:
    for url in world.databases(*DATABASES):
        sale = await world.sell(world.redis_server.port, url=url, per_buyer=1, hold=900.0)
        store, syncer = world.awaited(sale.real.store), world.syncer(sale)
        assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
        await store.put_goods(Goods("phone", 12, closes_at=4e9))
        await store.put_goods(Goods("phone", 13))
        await syncer.run_once()
        assert (await sale.buy("phone", "ann")).outcome is Outcome.LIMIT_REACHED, "O: the cap is gone"
        (goods,) = await store.goods()
        assert goods == Goods("phone", 13, goods.version, 1, None, 4e9, 900.0, loaded=True), "O: the policy is gone"
        assert (await sale.inventory.stock("phone")).total == 13
        await world.answered(InvalidRequest, store.put_goods(Goods("phone", 14, opens_at=5e9)))  # after its end

        await store.put_goods(Goods("phone", 14), replace=True)
        await syncer.run_once()
        (goods,) = await store.goods()
        assert goods == Goods("phone", 14, goods.version, loaded=True)
        assert (await sale.buy("phone", "ann", order_id="o-2")).accepted
        await world.holds(sale, ["o-1", "o-2"], total=14)
