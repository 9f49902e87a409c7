"""`confirm` and `cancel` in a transaction of the host's: all over its connection, and Redis follows its commit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from flashsale import Goods, InvalidRequest, NotPersisted, OrderState, StoreError, StoreRequired
from flashsale._sql import joining
from flashsale.testing import async_crash_points, crash_points
from tests.support.helpers import Awaited, settled, until
from tests.support.sales import booked, rows, work
from tests.support.transactions import HostDatabase, Undone, follows, stays

if TYPE_CHECKING:
    from tests.support.helpers import Shop

CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED

each_database = pytest.mark.parametrize("database", ["sqlite", "postgres", "mysql"])
on_a_server = pytest.mark.parametrize("database", ["postgres", "mysql"])


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str, real_shop: Shop) -> str:
    if database == "sqlite":
        return f"sqlite:///{real_shop.database}"
    found: str = request.getfixturevalue(f"fresh_{database}_url")
    return found


@pytest.fixture
def database() -> str:
    return "sqlite"


async def selling(shop: Shop, url: str, *names: str, store: Any = None) -> Awaited:
    store = store or await shop.store(Goods("phone", 100), url=url)
    sale = await shop.open(100, sale=shop.sale(store=store, cache_for=0))
    for name in names:
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await work(shop, sale)
    return sale


@each_database
async def test_redis_follows_the_hosts_commit_and_no_rollback(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url, "o-1", "o-2", "o-3")
    host = HostDatabase(real_shop, url)
    for unit in (host.begin, host.session):
        with contextlib.suppress(Undone):
            async with unit() as connection:
                assert await sale.cancel("o-1", connection=connection) is CANCELLED
                assert await sale.confirm("o-2", connection=connection) is CONFIRMED
                raise Undone
        await stays(sale, "o-1", PERSISTED)
        assert await rows(sale) == dict.fromkeys(("o-1", "o-2", "o-3"), PERSISTED)
        assert await settled(sale.store.events(now=1e12)) == []
    async with host.begin() as connection:
        assert await sale.cancel("o-1", connection=connection) is CANCELLED
        assert await sale.status("o-1") is PERSISTED
    await follows(sale, "o-1", CANCELLED)
    async with host.session() as session:
        assert await sale.confirm("o-2", connection=session) is CONFIRMED
        with contextlib.suppress(Undone):
            async with host.savepoint(session):
                assert await sale.cancel("o-2", connection=session) is CANCELLED
                assert await sale.cancel("o-3", connection=session) is CANCELLED
                raise Undone
        assert await sale.cancel("o-2", connection=session) is CANCELLED
        with contextlib.suppress(Undone):
            async with host.savepoint(session):
                assert await sale.confirm("o-3", connection=session) is CONFIRMED
                raise Undone
    await follows(sale, "o-2", CANCELLED)
    await stays(sale, "o-3", PERSISTED)
    assert await rows(sale) == {"o-1": CANCELLED, "o-2": CANCELLED, "o-3": PERSISTED}
    assert await booked(sale) == 1
    assert (await real_shop.syncer(sale).audit()).ok


@on_a_server
async def test_all_statements_go_over_the_hosts_only_connection(real_shop: Shop, url: str) -> None:
    host = HostDatabase(real_shop, url, pool_size=1, max_overflow=0, pool_timeout=5)
    first = await real_shop.store(Goods("phone", 100), url=url)
    store = Awaited(type(first.real)(host.engine, "spring"), real_shop._threads)
    sale = await selling(real_shop, url, "o-1", "o-2", store=store)
    assert (await sale.buy("phone", "ann", order_id="queued")).accepted
    assert (await sale.buy_basket("ann", [("phone", 1)], basket_id="b")).accepted
    sent = host.statements()
    async with host.begin() as connection:
        for call in (sale.confirm("o-1", connection=connection), sale.cancel("o-2", connection=connection)):
            assert await call in {CONFIRMED, CANCELLED}
        assert await sale.cancel("queued", connection=connection) is CANCELLED
        assert await sale.cancel("ghost", connection=connection) is None
        assert await sale.cancel_basket("b", connection=connection) == {"b#1": CANCELLED}
        assert await sale.confirm_basket("none", connection=connection) == {}
        with pytest.raises(NotPersisted):
            assert (await sale.buy("phone", "ann", order_id="later")).accepted
            await sale.confirm("later", connection=connection)
        assert len({number for number, _ in sent}) == 1
        assert len(sent) > 10
    for name, state in (("o-1", CONFIRMED), ("o-2", CANCELLED), ("queued", CANCELLED), ("b#1", CANCELLED)):
        await follows(sale, name, state)


async def test_what_one_transaction_decides_redis_follows_together(real_shop: Shop, url: str) -> None:
    names = [f"o-{n}" for n in range(20)]
    sale = await selling(real_shop, url, *names)
    host = HostDatabase(real_shop, url)
    real_shop.raw.config_resetstat()
    async with host.begin() as connection:
        for name in names:
            await sale.confirm(name, connection=connection)
        calls = real_shop.raw.info("commandstats")["cmdstat_evalsha"]["calls"]
    for name in names:
        await follows(sale, name, CONFIRMED)
    assert real_shop.raw.info("commandstats")["cmdstat_evalsha"]["calls"] == calls + 1


async def test_a_connection_that_stays_open_is_seen_to(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url, "o-1", "o-2", "o-3")
    host = HostDatabase(real_shop, url)

    async def stands(name: str) -> bool:
        return await sale.status(name) is CONFIRMED

    async with host.connect() as connection:
        assert await sale.confirm("o-1", connection=connection) is CONFIRMED  # it begins the transaction
        await settled(connection.commit())
        assert await sale.confirm("o-2", connection=connection) is CONFIRMED
        await until(lambda: stands("o-1"), "the first transaction is followed in the second")
        await settled(connection.rollback())
        async with host.savepoint(connection):
            assert await sale.confirm("o-3", connection=connection) is CONFIRMED
        await settled(connection.commit())
        await until(lambda: stands("o-3"), "the commit is followed")
        assert await sale.status("o-2") is PERSISTED


@on_a_server
async def test_a_session_inside_a_transaction_of_its_connection(real_shop: Shop, url: str) -> None:
    """As in a host's own tests: its commit ends a savepoint, and nothing is to be followed."""
    sale = await selling(real_shop, url, "o-1", "o-2")
    host = HostDatabase(real_shop, url)
    kind: Any = AsyncSession if real_shop.is_async else Session
    for name, undone in (("o-1", True), ("o-2", False)):
        with contextlib.suppress(Undone):
            async with host.begin() as connection:
                session = kind(connection, join_transaction_mode="create_savepoint")
                assert await sale.confirm(name, connection=session) is CONFIRMED
                await settled(session.commit())
                await settled(session.close())
                await stays(sale, name, PERSISTED)
                if undone:
                    raise Undone
    await follows(sale, "o-2", CONFIRMED)
    assert await rows(sale) == {"o-1": PERSISTED, "o-2": CONFIRMED} == {n: await sale.status(n) for n in ("o-1", "o-2")}


@each_database
async def test_a_call_that_raises_has_done_nothing(real_shop: Shop, url: str) -> None:
    """The host may go on, and commit."""
    sale = await selling(real_shop, url, "o-1", "o-2")
    host = HostDatabase(real_shop, url)
    async with host.begin() as connection:
        await settled(connection.execute(text("UPDATE flashsale_goods SET booked = 0")))
        with pytest.raises(StoreError):
            await sale.cancel("o-1", connection=connection)
        await settled(connection.execute(text("UPDATE flashsale_goods SET booked = 2")))
        assert await sale.confirm("o-2", connection=connection) is CONFIRMED
    await follows(sale, "o-2", CONFIRMED)
    assert await rows(sale) == {"o-1": PERSISTED, "o-2": CONFIRMED}
    assert [event.order.order_id for event in await settled(sale.store.events(now=1e12))] == ["o-2"]


@pytest.mark.parametrize("database", ["mysql"])
async def test_an_old_snapshot_decides_nothing(real_shop: Shop, url: str) -> None:
    """At REPEATABLE READ, MariaDB's and MySQL's own, what the host has read may be long over."""
    sale = await selling(real_shop, url, "o-1", "o-2", "o-3")
    assert (await sale.buy("phone", "ann", order_id="late")).accepted
    host = HostDatabase(real_shop, url)
    async with host.begin() as connection:
        found = (await settled(connection.execute(text("SELECT @@tx_isolation, COUNT(*) FROM flashsale_orders")))).one()
        assert found == ("REPEATABLE-READ", 3)
        await sale.cancel("o-1")
        await sale.confirm("o-2")
        await work(real_shop, sale)
        assert await sale.confirm("o-1", connection=connection) is CANCELLED
        assert await sale.cancel("o-2", connection=connection) is CANCELLED
        assert await sale.confirm("o-3", connection=connection) is CONFIRMED
        assert await sale.cancel("late", connection=connection) is CANCELLED
    await follows(sale, "late", CANCELLED)
    assert await rows(sale) == {"o-1": CANCELLED, "o-2": CANCELLED, "o-3": CONFIRMED, "late": CANCELLED}
    assert await booked(sale) == 1
    assert (await real_shop.syncer(sale).audit()).ok


@pytest.mark.parametrize("database", ["postgres"])
@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_postgresql_refuses_an_old_snapshot_and_the_host_does_it_again(
    real_shop: Shop, url: str, isolation: str
) -> None:
    sale = await selling(real_shop, url, "o-1")
    host = HostDatabase(real_shop, url, isolation_level=isolation)
    for attempt in range(2):
        with contextlib.suppress(StoreError):
            async with host.begin() as connection:
                await settled(connection.execute(text("SELECT COUNT(*) FROM flashsale_orders")))
                if not attempt:
                    await sale.cancel("o-1")
                assert await sale.confirm("o-1", connection=connection) is CANCELLED
                assert attempt
    assert await rows(sale) == {"o-1": CANCELLED}


@each_database
async def test_a_tombstone_and_the_worker_that_saves_meanwhile(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url)
    host = HostDatabase(real_shop, url)
    for name, undone in (("undone", True), ("done", False)):
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
        with contextlib.suppress(Undone):
            async with host.begin() as connection:
                assert await sale.cancel(name, connection=connection) is CANCELLED
                saving = asyncio.create_task(real_shop.worker(sale).run_once())
                await asyncio.sleep(0.1)
                assert not saving.done()
                if undone:
                    raise Undone
        await asyncio.wait([saving])
        await work(real_shop, sale)
    await follows(sale, "done", CANCELLED)
    assert await rows(sale) == {"undone": PERSISTED, "done": CANCELLED}
    assert await booked(sale) == 1
    assert (await real_shop.syncer(sale).audit()).ok


# -- what cannot be joined --------------------------------------------------------------------------------------------


async def refusal(sale: Awaited, connection: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await sale.cancel("o-1", connection=connection)
    assert caught.value.field == "connection"
    return caught.value.reason


@each_database
async def test_a_connection_that_commits_by_itself_is_refused(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url, "o-1")
    for host in (
        HostDatabase(real_shop, url, isolation_level="AUTOCOMMIT"),
        HostDatabase(real_shop, url, execution_options={"isolation_level": "AUTOCOMMIT"}),
    ):
        async with host.connect() as connection:
            assert "autocommit" in await refusal(sale, connection)
        async with host.session() as session:
            assert "autocommit" in await refusal(sale, session)
    assert await rows(sale) == {"o-1": PERSISTED}


@on_a_server
async def test_what_is_not_the_stores_database_is_refused(
    real_shop: Shop, url: str, postgres: Any, mysql: Any, database: str
) -> None:
    sale = await selling(real_shop, url, "o-1")
    server = postgres if database == "postgres" else mysql
    with server.database() as other:
        host = HostDatabase(real_shop, other)
        async with host.begin() as connection:
            assert await refusal(sale, connection) == "is of another database than the store"
        await host.close()
    lite = HostDatabase(real_shop, f"sqlite:///{real_shop.database}")
    async with lite.begin() as connection:
        assert "is one of sqlite, the store is on" in await refusal(sale, connection)
    host = HostDatabase(real_shop, url)
    async with host.connect() as connection:
        pass
    assert await refusal(sale, connection) == "is not open"
    other_api = Session(host.plain) if real_shop.is_async else AsyncSession()
    for wrong in (url, object(), host.engine, 7, other_api):
        assert "of SQLAlchemy" in await refusal(sale, wrong)


async def test_a_store_that_cannot_join_says_so(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url, "o-1")
    host = HostDatabase(real_shop, url)
    async with host.begin() as connection:
        with pytest.raises(StoreRequired):
            await real_shop.sale().cancel("o-1", connection=connection)
        sale.real.store.joined = None
        assert "has no joined" in await refusal(sale, connection)


async def test_scoped_sessions_are_sessions(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url, "o-1")
    host = HostDatabase(real_shop, url)
    if real_shop.is_async:
        scoped: Any = async_scoped_session(async_sessionmaker(host.engine, class_=AsyncSession), asyncio.current_task)
        session = scoped()
        assert await sale.confirm("o-1", connection=session) is CONFIRMED
    else:
        scoped = scoped_session(sessionmaker(host.engine, class_=Session), scopefunc=lambda: 1)
        session = scoped()
        assert await sale.confirm("o-1", connection=scoped) is CONFIRMED
    await settled(session.commit())
    await follows(sale, "o-1", CONFIRMED)


# -- what goes wrong afterwards ---------------------------------------------------------------------------------------


async def test_a_frozen_redis_holds_up_no_commit_and_the_syncer_follows(real_shop: Shop, url: str) -> None:
    names = [f"o-{n}" for n in range(20)]
    sale = await selling(real_shop, url, *names)
    host = HostDatabase(real_shop, url)
    async with host.begin() as connection:
        for name in names:
            await sale.confirm(name, connection=connection)
        real_shop.raw.client_pause(60_000, all=False)
        began = time.monotonic()
    took = time.monotonic() - began
    real_shop.raw.client_unpause()
    assert took < 3  # one second is given
    assert await rows(sale) == dict.fromkeys(names, CONFIRMED)
    await asyncio.sleep(1.0 if real_shop.is_async else 0)
    await real_shop.syncer(sale).run_once()
    assert [await sale.status(name) for name in names] == [CONFIRMED] * 20


@on_a_server
async def test_the_hosts_connection_is_not_ended_when_our_time_is_over(real_shop: Shop, url: str) -> None:
    first = await real_shop.store(Goods("phone", 100), url=url)
    store = real_shop.keep(type(first.real)(url, "spring", timeout=1.0))
    sale = await selling(real_shop, url, "o-1", store=Awaited(store, real_shop._threads))
    host = HostDatabase(real_shop, url)
    async with host.begin() as connection:
        assert await sale.confirm("o-1", connection=connection) is CONFIRMED
        await asyncio.sleep(1.6)
        assert (await settled(connection.execute(text("SELECT 7")))).scalar() == 7
    await follows(sale, "o-1", CONFIRMED)


async def test_a_sale_that_is_closed_ends_what_follows(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url, "o-1", "o-2")
    other = real_shop.sale(store=Awaited(sale.real.store, real_shop._threads))
    host = HostDatabase(real_shop, url)
    async with host.begin() as connection:
        await sale.confirm("o-1", connection=connection)
    await sale.close()  # waits for what was to follow
    assert await other.status("o-1") is CONFIRMED
    async with host.begin() as connection:
        await sale.confirm("o-2", connection=connection)
        await sale.close()
    await stays(other, "o-2", PERSISTED)


async def test_nothing_is_left_behind(real_shop: Shop, url: str) -> None:
    sale = await selling(real_shop, url, "o-1")
    await sale.confirm("o-1")
    host = HostDatabase(real_shop, url)
    seen: list[weakref.ref[Any]] = []
    async with host.connect() as connection:
        for _ in range(200):
            assert await sale.confirm("o-1", connection=connection) is CONFIRMED
            seen.append(weakref.ref(joining.plain(connection).get_transaction()))
            await settled(connection.rollback())
    for _ in range(200):
        async with host.connect() as connection:
            await sale.confirm("o-1", connection=connection)
            seen.append(weakref.ref(joining.plain(connection)))
    del connection
    await until(lambda: not joining._open, "all have ended")

    def is_gone() -> bool:
        gc.collect()
        return all(one() is None for one in seen)

    await until(is_gone, "nothing is kept")
    await until(lambda: not sale.real._transitions._following._decisions, "all have followed")
    await until(lambda: joining._thread is None, "the thread has ended")


async def test_whoever_lets_go_of_a_connection_rolls_back(sync_shop: Shop) -> None:
    """Then the garbage collector ends the transaction, and nobody follows from inside it."""
    url = f"sqlite:///{sync_shop.database}"
    sale = await selling(sync_shop, url, "o-1")
    host = HostDatabase(sync_shop, url)
    connection = host.engine.connect()
    assert await sale.confirm("o-1", connection=connection) is CONFIRMED
    del connection

    def has_ended() -> bool:
        gc.collect()  # again: the thread that made the call may still refer to it
        return not joining._open

    await until(has_ended, "it has ended")
    await stays(sale, "o-1", PERSISTED)


# -- killed at every request ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread that follows dies too
@each_database
async def test_killed_anywhere_the_same_call_ends_it(real_shop: Shop, url: str) -> None:
    """Before the decision, before the commit, and after it before Redis has followed."""
    sale = await selling(real_shop, url)
    syncer, host = real_shop.syncer(sale), HostDatabase(real_shop, url)
    points = async_crash_points(sale.real) if real_shop.is_async else crash_points(sale.real)
    dead: set[str] = set()

    async def unit(number: int) -> None:
        async with host.begin() as connection:
            assert await sale.cancel(f"{number}-cancelled", connection=connection) is CANCELLED
            assert await sale.confirm(f"{number}-paid", connection=connection) is CONFIRMED

    number = 0
    while True:
        try:
            point = await anext(points) if real_shop.is_async else next(points)  # type: ignore[call-overload]
        except (StopAsyncIteration, StopIteration):
            break
        for name in ("cancelled", "paid"):
            assert (await sale.buy("phone", "ann", order_id=f"{number}-{name}")).accepted
        await work(real_shop, sale)
        if real_shop.is_async:
            async with point:
                await unit(number)
                await until(lambda: not sale.real._transitions._following._background._tasks, "it is followed")
        else:
            with point:
                await unit(number)
        dead.add(repr(point).partition("(")[2].rstrip(")>"))
        if number % 2:
            await unit(number)  # the host asks again
        await syncer.run_once()
        states = [await sale.status(f"{number}-{name}") for name in ("cancelled", "paid")]
        stand = await rows(sale)
        assert states == [stand[f"{number}-{name}"] for name in ("cancelled", "paid")]
        assert states in ([CANCELLED, CONFIRMED], [PERSISTED, PERSISTED])
        number += 1
    assert {"records", "store.settle", "store.states", "settle"} <= dead
    assert (await syncer.audit()).ok
