"""Hooks: the shop's tables change with the sale's, in one transaction, on each database and in both APIs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from flashsale import Goods, RowRefused, StoreError
from flashsale._sql.engines import ASYNC_DRIVERS, DRIVERS, database_url
from flashsale.aio.stores import SQLAlchemyStore as AsyncSQLAlchemyStore
from flashsale.stores import SQLAlchemyStore
from flashsale.testing import AsyncOrderHooksSuite, OrderHooksSuite
from tests.support import django_shop, hooked_shop
from tests.support.helpers import order
from tests.support.hooked_shop import DATA, AsyncShopHooks, DjangoHooks, ShopHooks
from tests.support.mutants import kills

django_shop.set_up()

from django.db import connections  # noqa: E402

from tests.servers.test_django_store import ClosingStore  # noqa: E402
from tests.servers.test_stores import MADE, OnMySQL, OnPostgreSQL, OnSQLite  # noqa: E402


class Suite(OrderHooksSuite):
    valid_data = DATA

    @pytest.fixture(autouse=True)
    def engine(self, database):
        self.engine = sqlalchemy.create_engine(database_url(self.url, DRIVERS))
        with self.engine.begin() as connection:
            hooked_shop.create(connection)
        yield
        self.engine.dispose()

    def make_store(self, sale):
        store = SQLAlchemyStore(self.url, sale, hooks=ShopHooks(sale))
        if self.url not in MADE:
            store.create_all()
            MADE.add(self.url)
        return store

    def close_store(self, store):
        store.close()

    def put_buyer(self, store, buyer_id):
        with self.engine.begin() as connection:
            hooked_shop.put_customer(connection, buyer_id)

    def active_orders(self, store):
        with self.engine.begin() as connection:
            return set(connection.execute(hooked_shop.active(store.sale)).scalars())

    def stock(self, store, goods_id):
        with self.engine.begin() as connection:
            return connection.execute(hooked_shop.units(goods_id)).scalar()

    def refused_order(self, order):
        return hooked_shop.unwanted(order)


class NotKilled:
    """What goes into one transaction is the same everywhere: each API, and each database, is killed in one class."""

    test_killed_anywhere_in_a_save_nothing_is_half_done = None
    test_killed_anywhere_in_a_move_nothing_is_half_done = None
    test_killed_anywhere_in_a_raise_nothing_is_half_done = None


class TestSQLite(OnSQLite, Suite):
    pass


class TestPostgreSQL(NotKilled, OnPostgreSQL, Suite):
    pass


class TestMySQL(OnMySQL, Suite):
    pass


class AsyncSuite(AsyncOrderHooksSuite):
    valid_data = DATA

    async def make_store(self, sale):
        self.engine = create_async_engine(database_url(self.url, ASYNC_DRIVERS))
        async with self.engine.begin() as connection:
            await connection.run_sync(hooked_shop.create)
        store = AsyncSQLAlchemyStore(self.url, sale, hooks=AsyncShopHooks(sale))
        if self.url not in MADE:
            await store.create_all()
            MADE.add(self.url)
        return store

    async def close_store(self, store):
        await store.aclose()
        await self.engine.dispose()

    async def put_buyer(self, store, buyer_id):
        async with self.engine.begin() as connection:
            await connection.run_sync(hooked_shop.put_customer, buyer_id)

    async def active_orders(self, store):
        async with self.engine.begin() as connection:
            return set((await connection.execute(hooked_shop.active(store.sale))).scalars())

    async def stock(self, store, goods_id):
        async with self.engine.begin() as connection:
            return (await connection.execute(hooked_shop.units(goods_id))).scalar()

    def refused_order(self, order):
        return hooked_shop.unwanted(order)


class TestSQLiteAsync(NotKilled, OnSQLite, AsyncSuite):
    pass


class TestPostgreSQLAsync(OnPostgreSQL, AsyncSuite):
    pass


class TestMySQLAsync(NotKilled, OnMySQL, AsyncSuite):
    pass


class DjangoSuite(OrderHooksSuite):
    valid_data = DATA

    @pytest.fixture(autouse=True)
    def tables(self, alias_of):
        self.execute(
            "CREATE TABLE IF NOT EXISTS customers (id VARCHAR(128) PRIMARY KEY)",
            "CREATE TABLE IF NOT EXISTS shop_stock (sku VARCHAR(64) PRIMARY KEY, units INTEGER)",
            "CREATE TABLE IF NOT EXISTS shop_orders (sale VARCHAR(64), order_id VARCHAR(128), customer VARCHAR(128)"
            " NOT NULL REFERENCES customers (id), size VARCHAR(8), status VARCHAR(16), PRIMARY KEY (sale, order_id))",
            "DELETE FROM shop_stock",
            "INSERT INTO shop_stock VALUES ('phone', 1000000), ('case', 1000000)",
        )

    def execute(self, *statements: str, values: Any = ()) -> list[Any]:
        with connections[self.alias].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def make_store(self, sale):
        return ClosingStore(sale, using=self.alias, hooks=DjangoHooks(sale))

    def put_buyer(self, store, buyer_id):
        if not self.execute("SELECT 1 FROM customers WHERE id = %s", values=[buyer_id]):
            self.execute("INSERT INTO customers VALUES (%s)", values=[buyer_id])

    def active_orders(self, store):
        found = "SELECT order_id FROM shop_orders WHERE sale = %s AND status NOT IN ('CANCELLED', 'EXPIRED')"
        return {order_id for (order_id,) in self.execute(found, values=[store.sale])}

    def stock(self, store, goods_id):
        return self.execute("SELECT units FROM shop_stock WHERE sku = %s", values=[goods_id])[0][0]

    def refused_order(self, order):
        return hooked_shop.unwanted(order)


class TestDjangoSQLite(NotKilled, DjangoSuite):
    @pytest.fixture(autouse=True)
    def alias_of(self):
        self.alias = "default"


@pytest.fixture(scope="module")
def postgresql_alias(postgres):
    with postgres.database() as url, django_shop.database("hooks-pg", url, CONN_MAX_AGE=None) as alias:
        yield alias


@pytest.fixture(scope="module")
def mariadb_alias(mysql):
    with mysql.database() as url, django_shop.database("hooks-mysql", url, CONN_MAX_AGE=None) as alias:
        yield alias


class TestDjangoPostgreSQL(NotKilled, DjangoSuite):
    @pytest.fixture(autouse=True)
    def alias_of(self, postgresql_alias):
        self.alias = postgresql_alias


class TestDjangoMariaDB(DjangoSuite):
    """Or MySQL."""

    @pytest.fixture(autouse=True)
    def alias_of(self, mariadb_alias):
        self.alias = mariadb_alias


class Swallows:
    def saved(self, connection, orders):
        for one in orders:
            if one.data:
                with suppress(SQLAlchemyError):
                    connection.execute(sqlalchemy.text("SELECT * FROM nowhere"))


@kills("what a hook has swallowed")
def test_an_error_that_a_hook_swallows_blames_its_order(fresh_postgres_url):
    """PostgreSQL takes nothing more in that transaction: the worker finds the order as it finds others."""
    with SQLAlchemyStore(fresh_postgres_url, "spring", hooks=Swallows()) as store:
        store.create_all()
        store.put_goods(Goods("phone", 5))
        with pytest.raises(StoreError) as caught:
            store.save([order("a"), order("b", data="bad")])
        assert isinstance(caught.value, RowRefused)
        assert store.save([order("a")]).inserted == {"a"}
