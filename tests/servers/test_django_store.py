"""`DjangoStore` passes the suite that every store passes, and joins the host's transactions."""

from __future__ import annotations

import contextlib
import threading

import pymysql
import pytest
from sqlalchemy import make_url

from flashsale.testing import OrderStoreSuite
from tests.support import django_shop, servers
from tests.support.database_proxy import frozen
from tests.support.mutants import kills

django_shop.set_up()

from django.core.management import call_command  # noqa: E402 - settings come first
from django.db import connections, transaction  # noqa: E402

from flashsale import Goods, Order, OrderState, StoreError  # noqa: E402
from flashsale.contrib.django.models import SaleOrder  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402
from flashsale.stores import SQLAlchemyStore  # noqa: E402


class Suite(OrderStoreSuite):
    def make_store(self, sale):
        return ClosingStore(sale, using=self.alias)

    def put_goods(self, store, goods):
        store.put_goods(goods)


class ClosingStore(DjangoStore):
    """Threads of a test end without a request that would close their connections."""

    @contextlib.contextmanager
    def transaction(self):
        try:
            with super().transaction() as connection:
                yield connection
        finally:
            connection = connections[self._using]
            if threading.current_thread() is not threading.main_thread() and not connection.in_atomic_block:
                connection.close()


class TestSQLite(Suite):
    @pytest.fixture(autouse=True)
    def alias_of(self):
        self.alias = "default"


@pytest.fixture(scope="module")
def postgresql_alias(postgres):
    with postgres.database() as text:
        url = make_url(text)
        options = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.database,
            "USER": url.username or "",
            "PASSWORD": url.password or "",
            "HOST": url.host or url.query.get("host", ""),
            "PORT": url.port or "",
        }
        with django_shop.database("postgresql", **options) as alias:
            yield alias


class TestPostgreSQL(Suite):
    @pytest.fixture(autouse=True)
    def alias_of(self, postgresql_alias):
        self.alias = postgresql_alias


@pytest.fixture(scope="module")
def mariadb_alias(mysql):
    pymysql.install_as_MySQLdb()  # mysqlclient wants a compiler
    with mysql.database() as text:
        url = make_url(text)
        options = {
            "ENGINE": "django.db.backends.mysql",
            "NAME": url.database,
            "USER": url.username,
            "OPTIONS": {"unix_socket": url.query["unix_socket"]},
        }
        with django_shop.database("mysql", **options) as alias:
            yield alias


class TestMariaDB(Suite):
    """Or MySQL."""

    @pytest.fixture(autouse=True)
    def alias_of(self, mariadb_alias):
        self.alias = mariadb_alias


def order(name: str, quantity: int = 1) -> Order:
    return Order(name, "phone", "alice", quantity)


def test_what_the_host_rolls_back_was_never_saved() -> None:
    store = DjangoStore("rolled-back")
    store.put_goods(Goods("phone", 2))
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert store.save([order("o-1")]).inserted == {"o-1"}
        raise ZeroDivisionError
    assert store.states(["o-1"]) == {}
    assert store.save([order("o-1", 2)]).inserted == {"o-1"}  # the units came back too


def test_the_hosts_own_rows_commit_with_ours() -> None:
    store = DjangoStore("together")
    store.put_goods(Goods("phone", 1))
    with transaction.atomic():
        store.save([order("o-1")])
        store.settle(order("o-1"), OrderState.CONFIRMED)
        SaleOrder.objects.filter(sale="together", order_id="o-1").update(data='"the host was here"')
    assert [row.order.data for row in store.orders()] == ["the host was here"]
    assert store.states(["o-1"]) == {"o-1": OrderState.CONFIRMED}


def test_a_row_refused_leaves_the_hosts_transaction_usable() -> None:
    store = DjangoStore("half")
    store.put_goods(Goods("phone", 9))
    with transaction.atomic():
        store.save([order("o-1")])
        assert store.save([order("o-1"), order("o-2")]).inserted == {"o-2"}
    assert set(store.states(["o-1", "o-2"])) == {"o-1", "o-2"}


def test_the_host_deletes_an_order_with_an_event() -> None:
    store = DjangoStore("archived")
    store.put_goods(Goods("phone", 9))
    store.save([order("o-1"), order("o-2")])
    for each in ("o-1", "o-2"):
        store.settle(order(each), OrderState.CANCELLED)
    SaleOrder.objects.filter(sale="archived", order_id="o-1").delete()
    assert [event.order for event in store.events(now=0, limit=1)] == [order("o-2")]


def test_the_migrations_are_complete() -> None:
    call_command("makemigrations", "flashsale", "--check", "--dry-run", verbosity=0)


@pytest.fixture
def sqlite_tables() -> tuple[str, str]:
    return f"sqlite:///{connections['default'].settings_dict['NAME']}", "default"


@pytest.fixture
def mariadb_tables(mariadb_alias: str) -> tuple[str, str]:
    settings = connections[mariadb_alias].settings_dict
    return f"mysql://root@localhost/{settings['NAME']}?unix_socket={settings['OPTIONS']['unix_socket']}", mariadb_alias


@pytest.mark.parametrize("tables", ["sqlite_tables", "mariadb_tables"])
def test_both_stores_work_on_the_same_tables(tables: str, request: pytest.FixtureRequest) -> None:
    url, alias = request.getfixturevalue(tables)
    with SQLAlchemyStore(url, "shared") as other:
        store = DjangoStore("shared", using=alias)
        store.put_goods(Goods("phone", 3, per_buyer=2, opens_at=1.5, hold=9.0))
        assert list(other.goods()) == list(store.goods())
        other.save([order("o-1"), order("o-2")])
        assert store.save([order("o-1"), order("o-3")]).inserted == {"o-3"}
        store.settle(order("o-2"), OrderState.CANCELLED)
        assert list(other.orders()) == list(store.orders())
        assert [event.order for event in other.events(now=0)] == [event.order for event in store.events(now=0)]


def call_ends(postgres: servers.Postgres, alias: str, age: int | None) -> None:
    """A call at a database that is frozen ends."""
    store = DjangoStore("silent", using=alias, timeout=2.0)
    answers: list[object] = []

    def call() -> None:
        connections[alias].settings_dict = connections[alias].settings_dict | {"CONN_MAX_AGE": age}
        store.put_goods(Goods("phone", 3))
        connected.set()
        is_frozen.wait(10)
        try:
            answers.append(store.save([order("o-1")]))
        except StoreError as error:
            answers.append(error)
        connections[alias].close()

    connected, is_frozen = threading.Event(), threading.Event()
    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    assert connected.wait(10)
    with frozen(postgres.uri):
        is_frozen.set()
        caller.join(8)
        ended = not caller.is_alive()
    caller.join(10)
    assert ended
    assert [type(answer) for answer in answers] == [StoreError]


@pytest.mark.parametrize("age", [0, None], ids=["while it connects", "on a connection that stands"])
def test_a_silent_database_is_given_up(postgres: servers.Postgres, postgresql_alias: str, age: int | None) -> None:
    call_ends(postgres, postgresql_alias, age)


@kills("the database's deadline")
def test_a_silent_database_is_given_up_by_our_own_deadline(postgres: servers.Postgres, postgresql_alias: str) -> None:
    call_ends(postgres, postgresql_alias, None)
