"""The shipped stores keep the contract, on live databases, and say nothing about buyers when one fails."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import sqlalchemy
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

import flashsale.aio.stores
import flashsale.stores
from flashsale._sql import engines
from flashsale._sync.store import OrderStore
from flashsale.aio.store import AsyncOrderStore
from flashsale.errors import InvalidRequest, RowRefused, StoreError
from flashsale.model import Goods, Order, OrderState
from flashsale.testing import AsyncOrderStoreSuite, OrderStoreSuite
from tests.support.helpers import Shop, put_tables

# -- the suite ------------------------------------------------------------------------------------------------------

MADE: set[str] = set()
"""URLs of the databases that have our tables: to look for each of them takes longer than most tests."""


class SyncSuite(OrderStoreSuite):
    def make_store(self, sale):
        store = flashsale.stores.SQLAlchemyStore(self.url, sale)
        if self.url not in MADE:
            store.create_all()
            MADE.add(self.url)
        return store

    def put_goods(self, store, goods):
        store.put_goods(goods)

    def close_store(self, store):
        store.close()


class AsyncSuite(AsyncOrderStoreSuite):
    async def make_store(self, sale):
        store = flashsale.aio.stores.SQLAlchemyStore(self.url, sale)
        if self.url not in MADE:
            await store.create_all()
            MADE.add(self.url)
        return store

    async def put_goods(self, store, goods):
        await store.put_goods(goods)

    async def close_store(self, store):
        await store.aclose()


class OnSQLite:
    @pytest.fixture(autouse=True)
    def database(self, tmp_path):
        self.url = f"sqlite:///{tmp_path / 'shop.db'}"
        put_tables(tmp_path / "shop.db")
        MADE.add(self.url)


class OnPostgreSQL:
    @pytest.fixture(autouse=True)
    def database(self, postgres_url):
        self.url = postgres_url


class OnMySQL:
    """MariaDB where there is one, else MySQL."""

    @pytest.fixture(autouse=True)
    def database(self, mysql_url):
        self.url = mysql_url


class TestSQLite(OnSQLite, SyncSuite):
    pass


class TestSQLiteAsync(OnSQLite, AsyncSuite):
    pass


BUYERS = "CREATE TABLE IF NOT EXISTS buyers (id TEXT PRIMARY KEY)"
RULES = """
    CREATE TRIGGER IF NOT EXISTS rules BEFORE INSERT ON flashsale_orders
    WHEN NEW.data NOT LIKE '%size%' OR NOT EXISTS (SELECT 1 FROM buyers WHERE id = NEW.buyer_id)
    BEGIN SELECT RAISE(ABORT, 'against the rules'); END
"""


class TestWithRulesOfItsOwn(OnSQLite, SyncSuite):
    """Each order has a buyer that the host knows, and data that its rules ask for."""

    valid_data = ["size", "M"]  # noqa: RUF012

    def make_store(self, sale):
        store = super().make_store(sale)
        with store.transaction() as connection:
            for rule in (BUYERS, RULES):
                connection.execute(text(rule))
        return store

    def put_buyer(self, store, buyer_id):
        with store.transaction() as connection:
            connection.execute(text("INSERT OR IGNORE INTO buyers VALUES (:id)"), {"id": buyer_id})


class TestPostgreSQL(OnPostgreSQL, SyncSuite):
    pass


class TestPostgreSQLAsync(OnPostgreSQL, AsyncSuite):
    pass


class TestMySQL(OnMySQL, SyncSuite):
    pass


class TestMySQLAsync(OnMySQL, AsyncSuite):
    pass


class TestWithoutConflictClause(OnPostgreSQL, SyncSuite):
    """The way of MySQL and MariaDB: insert, and look closer when a key was taken."""

    def make_store(self, sale):
        store = super().make_store(sale)
        store._dialect = "any other"
        return store


async def test_workers_drain_a_sale_into_mysql(real_shop: Shop, fresh_mysql_url: str) -> None:
    store = await real_shop.store(Goods("phone", 100, hold=900), url=fresh_mysql_url)
    sale = await real_shop.open(100, sale=real_shop.sale(store=store), hold=900)
    receipts = await asyncio.gather(*(sale.buy("phone", f"b-{n}", order_id=f"o-{n}") for n in range(150)))
    accepted = {receipt.order_id for receipt in receipts if receipt.accepted}
    assert len(accepted) == 100
    workers = [real_shop.worker(sale, batch=10) for _ in range(2)]
    while any(await asyncio.gather(*(worker.run_once() for worker in workers))):
        pass
    assert await store.states(accepted) == dict.fromkeys(accepted, OrderState.PERSISTED)
    paid, returned, *_ = sorted(accepted)
    assert await sale.confirm(paid) is OrderState.CONFIRMED
    assert await sale.cancel(returned) is OrderState.CANCELLED
    syncer = real_shop.syncer(sale)
    await syncer.run_once()
    audit = await syncer.audit(expected=accepted)
    assert audit.ok, audit
    assert (await sale.inventory.stock("phone")).booked == 99


# -- engines and URLs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sync", "asynchronous"),
    [
        ("sqlite:///shop.db", "sqlite", "sqlite+aiosqlite"),
        ("postgres://shop@db/shop", "postgresql+psycopg", "postgresql+psycopg"),
        ("postgresql://shop@db/shop", "postgresql+psycopg", "postgresql+psycopg"),
        ("postgresql+asyncpg://shop@db/shop", "postgresql+asyncpg", "postgresql+asyncpg"),
        ("mysql://shop@db/shop", "mysql+pymysql", "mysql+aiomysql"),
        ("mariadb://shop@db/shop", "mariadb+pymysql", "mariadb+aiomysql"),
        ("mysql+mysqldb://shop@db/shop", "mysql+mysqldb", "mysql+mysqldb"),
    ],
)
def test_a_url_without_a_driver_gets_one(url: str, sync: str, asynchronous: str) -> None:
    assert engines.database_url(url, engines.DRIVERS).drivername == sync
    assert engines.database_url(url, engines.ASYNC_DRIVERS).drivername == asynchronous


@pytest.mark.parametrize("kind", [flashsale.stores.SQLAlchemyStore, flashsale.aio.stores.SQLAlchemyStore])
@pytest.mark.parametrize("wrong", ["hunter2", "", None, 7, object()])
def test_what_is_no_database_is_refused_without_quoting_it(kind, wrong) -> None:
    with pytest.raises(InvalidRequest) as caught:
        kind(wrong, "spring")
    assert caught.value.field == "url_or_engine"
    assert "hunter2" not in str(caught.value)


def test_the_other_kind_of_engine_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        flashsale.aio.stores.SQLAlchemyStore(sqlalchemy.create_engine("sqlite://"), "spring")
    with pytest.raises(InvalidRequest):
        flashsale.stores.SQLAlchemyStore(create_async_engine("sqlite+aiosqlite://"), "spring")


def test_a_bad_name_of_a_sale_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        flashsale.stores.SQLAlchemyStore("sqlite://", "spring sale")


def test_the_stores_follow_the_protocols() -> None:
    assert isinstance(flashsale.stores.SQLAlchemyStore("sqlite://", "spring"), OrderStore)
    assert isinstance(flashsale.aio.stores.SQLAlchemyStore("sqlite://", "spring"), AsyncOrderStore)


async def test_a_database_in_memory_is_one_database_for_all_threads() -> None:
    with flashsale.stores.SQLAlchemyStore("sqlite://", "spring") as store:
        store.create_all()
        store.put_goods(Goods("phone", 10))
        batches = [[Order(f"{n}-{m}", "phone", "alice", 1) for m in range(5)] for n in range(8)]
        answers = await asyncio.gather(*(asyncio.to_thread(store.save, batch) for batch in batches))
        assert sum(len(saved.inserted) for saved in answers) == 10


async def test_a_database_in_memory_is_one_database_for_all_tasks() -> None:
    async with flashsale.aio.stores.SQLAlchemyStore("sqlite://", "spring") as store:
        await store.create_all()
        await store.put_goods(Goods("phone", 10))
        batches = [[Order(f"{n}-{m}", "phone", "alice", 1) for m in range(5)] for n in range(8)]
        answers = await asyncio.gather(*map(store.save, batches))
        assert sum(len(saved.inserted) for saved in answers) == 10


@pytest.mark.parametrize("database", ["postgres_url", "mysql_url"])
@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}, {"isolation_level": "SERIALIZABLE"}])
def test_a_hosts_engine_works_whatever_its_isolation_and_stays_open(request, database: str, options) -> None:
    engine = sqlalchemy.create_engine(
        engines.database_url(request.getfixturevalue(database), engines.DRIVERS), **options
    )
    sale = f"host-{uuid.uuid4().hex}"
    with flashsale.stores.SQLAlchemyStore(engine, sale) as store:
        store.create_all()
        store.put_goods(Goods("phone", 1))
        with pytest.raises(StoreError):
            store.save([Order("o-1", "phone", "alice", 1), Order("o-2", "case", "alice", 1)])
        assert store.states(["o-1", "o-2"]) == {}
        assert store.save([Order("o-1", "phone", "alice", 1)]).inserted == {"o-1"}
    assert engine.pool.checkedin() > 0
    engine.dispose()


def test_a_hosts_sqlite_engine_works(tmp_path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db")
    store = flashsale.stores.SQLAlchemyStore(engine, "spring")
    store.create_all()
    store.put_goods(Goods("phone", 1))
    assert store.save([Order("o-1", "phone", "alice", 1), Order("o-2", "phone", "bob", 1)]).refused == {"o-2"}
    engine.dispose()


def test_the_version_follows_the_hosts_when_that_is_ahead() -> None:
    with flashsale.stores.SQLAlchemyStore("sqlite://", "spring") as store:
        store.create_all()
        versions = []
        for version in (3, 0, 9, 9):
            store.put_goods(Goods("phone", 10, version))
            versions += [goods.version for goods in store.goods()]
        assert versions == [3, 4, 9, 10]


def test_an_order_id_twice_in_a_batch_and_a_state_that_nobody_settles_are_refused() -> None:
    with flashsale.stores.SQLAlchemyStore("sqlite://", "spring") as store:
        order = Order("o-1", "phone", "alice", 1)
        with pytest.raises(InvalidRequest):
            store.save([order, order])
        with pytest.raises(InvalidRequest):
            store.settle(order, OrderState.PERSISTED)
        with pytest.raises(InvalidRequest):
            store.settle_many([order, order], OrderState.EXPIRED)
        with pytest.raises(InvalidRequest):
            store.settle_many([order], OrderState.PERSISTED)


@pytest.mark.parametrize("package", ["flashsale.stores", "flashsale.aio.stores"])
def test_without_sqlalchemy_the_import_says_what_to_install(package: str) -> None:
    code = f"import sys; sys.modules['sqlalchemy'] = None; from {package} import SQLAlchemyStore"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'flashsale[sqlalchemy]'" in ended.stderr.splitlines()[-1]


# -- failures -------------------------------------------------------------------------------------------------------


def test_an_unreachable_database_is_a_store_error() -> None:
    store = flashsale.stores.SQLAlchemyStore("postgresql://shop:hunter2@127.0.0.1:1/shop", "spring")
    with store, pytest.raises(StoreError) as caught:
        store.save([Order("o-1", "phone", "alice", 1)])
    assert str(caught.value) == "the database failed: OperationalError"
    assert caught.value.__cause__ is not None


async def test_an_unreachable_database_is_a_store_error_in_asyncio() -> None:
    async with flashsale.aio.stores.SQLAlchemyStore("postgresql://shop:hunter2@127.0.0.1:1/shop", "spring") as store:
        with pytest.raises(StoreError) as caught:
            await store.states(["o-1"])
    assert not isinstance(caught.value, RowRefused)


def test_a_missing_table_is_a_store_error_and_blames_no_row(postgres_url: str, tmp_path) -> None:
    for url in (
        f"sqlite:///{tmp_path}/empty.db",
        make_url(postgres_url).update_query_dict({"options": "-csearch_path=x"}),
    ):
        with flashsale.stores.SQLAlchemyStore(url, "spring") as store:
            with pytest.raises(StoreError) as caught:
                store.save([Order("o-1", "phone", "alice", 1)])
            assert not isinstance(caught.value, RowRefused)


def test_a_locked_database_is_a_store_error_and_the_same_call_works_later(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(engines, "SQLITE_WAIT", 0.05)
    path = tmp_path / "shop.db"
    with flashsale.stores.SQLAlchemyStore(f"sqlite:///{path}", "spring") as store:
        store.create_all()
        store.put_goods(Goods("phone", 10))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        order = Order("o-1", "phone", "alice", 1)
        with pytest.raises(StoreError) as caught:
            store.save([order])
        assert not isinstance(caught.value, RowRefused)
        assert store.states(["o-1"]) == {}, "readers do not wait for a writer"
        other.close()
        assert store.save([order]).inserted == {"o-1"}


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("database", ["sqlite", "fresh_postgres_url", "fresh_mysql_url"])
def test_a_refused_row_is_told_apart_and_says_nothing_about_the_buyer(request, tmp_path, database, portable) -> None:
    url = f"sqlite:///{tmp_path}/shop.db" if database == "sqlite" else request.getfixturevalue(database)
    engine = sqlalchemy.create_engine(engines.database_url(url, engines.DRIVERS))  # it shows parameters
    store = flashsale.stores.SQLAlchemyStore(engine, "spring")
    store.create_all()
    store.put_goods(Goods("phone", 10))
    with engine.begin() as connection:
        connection.execute(text("CREATE UNIQUE INDEX one_each ON flashsale_orders (sale, buyer_id)"))
    if portable:
        store._dialect = "any other"
    buyer = uuid.uuid4().hex
    with pytest.raises(RowRefused) as caught:
        store.save([Order(order_id, "phone", buyer, 1, data=buyer) for order_id in ("o-1", "o-2")])
    assert store.states(["o-1", "o-2"]) == {}
    assert isinstance(caught.value.__cause__, sqlalchemy.exc.IntegrityError)
    assert buyer not in "".join(traceback.format_exception(caught.value))
    engine.dispose()


def test_a_deadlock_blames_no_row() -> None:
    class Deadlock(Exception):
        sqlstate = "40P01"

    for kind in (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.OperationalError):
        error = engines.store_error(kind("UPDATE", {}, Deadlock()))
        assert (type(error), str(error)) == (StoreError, "the database failed: Deadlock")


def nobody_pays_between_look_and_move(url: str) -> None:
    """Rows that are settled together stay locked, from the look at them to the commit."""
    sale, order = f"s-{uuid.uuid4().hex}", Order("o-1", "phone", "alice", 1)
    with (
        flashsale.stores.SQLAlchemyStore(url, sale) as store,
        flashsale.stores.SQLAlchemyStore(url, sale) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 1))
        store.save([order])
        current, payments = store._current, []

        def then_the_buyer_pays(*args, **lock):
            rows = current(*args, **lock)
            payments.append(pool.submit(other.settle, order, OrderState.CONFIRMED))
            wait(payments, timeout=0.5)
            return rows

        store._current = then_the_buyer_pays
        assert store.settle_many([order], OrderState.EXPIRED) == {"o-1": OrderState.EXPIRED}
        assert payments[0].result() is OrderState.EXPIRED
        assert store.states(["o-1"]) == {"o-1": OrderState.EXPIRED}


def test_nobody_pays_between_look_and_move(postgres_url: str) -> None:
    nobody_pays_between_look_and_move(postgres_url)


def test_without_the_lock_somebody_would_pay_for_an_expired_order(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = flashsale.stores.SQLAlchemyStore._current

    def unlocked(*args, lock=False):
        return current(*args)

    monkeypatch.setattr(flashsale.stores.SQLAlchemyStore, "_current", unlocked)
    with pytest.raises(AssertionError):
        nobody_pays_between_look_and_move(postgres_url)
