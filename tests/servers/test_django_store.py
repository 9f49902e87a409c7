"""`DjangoStore` passes the suite that every store passes, and joins the host's transactions."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from flashsale.testing import OrderStoreSuite
from tests.support import django_shop, servers
from tests.support.database_proxy import frozen
from tests.support.mutants import kills

django_shop.set_up()

from django.contrib import admin  # noqa: E402 - settings come first
from django.core.management import call_command  # noqa: E402
from django.db import connections, transaction  # noqa: E402
from django.db.migrations.executor import MigrationExecutor  # noqa: E402
from django.http import HttpRequest  # noqa: E402
from django.test import override_settings  # noqa: E402

from flashsale import Goods, InvalidRequest, Order, OrderState, StoreError  # noqa: E402
from flashsale.contrib.django import checks, set_sale  # noqa: E402
from flashsale.contrib.django.models import SaleGoods, SaleOrder  # noqa: E402
from flashsale.contrib.django.signals import order_settled  # noqa: E402
from flashsale.contrib.django.store import _MODELS, DjangoStore  # noqa: E402
from flashsale.stores import RowStore, SQLAlchemyStore  # noqa: E402


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
    with postgres.database() as url, django_shop.database("postgresql", url) as alias:
        yield alias


class TestPostgreSQL(Suite):
    @pytest.fixture(autouse=True)
    def alias_of(self, postgresql_alias):
        self.alias = postgresql_alias


@pytest.fixture(scope="module")
def mariadb_alias(mysql):
    with mysql.database() as url, django_shop.database("mysql", url) as alias:
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


def test_the_form_of_an_item_says_that_its_sale_was_purged() -> None:
    store = DjangoStore("over")
    store.put_goods(Goods("phone", 9))
    assert store.purge() == 2
    with pytest.raises(InvalidRequest, match="was purged"):
        store.put_goods(Goods("case", 1))
    form = admin.site.get_model_admin(SaleGoods).get_form(HttpRequest())
    said = {name: form({"sale": name, "goods_id": "case", "total": 1}).errors for name in ("over", "next", "a b")}
    assert "was purged" in str(said["over"])
    assert not said["next"]
    assert "was purged" not in str(said["a b"])


def test_the_migrations_are_complete() -> None:
    call_command("makemigrations", "flashsale", "--check", "--dry-run", verbosity=0)


def test_a_system_check_says_what_atomic_requests_change(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_transactions() == []
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    for durability, message in (("accepted", "flashsale.I001"), ("persisted", "flashsale.W003")):
        set_sale(None)
        with override_settings(FLASHSALE_DURABILITY=durability):
            assert [found.id for found in checks.check_transactions()] == [message]
    set_sale(None)


@contextlib.contextmanager
def release_before(alias: str) -> Iterator[None]:
    """The models of the first migration: they do not know when an order moved or why, nor which restocks were done."""
    state = MigrationExecutor(connections[alias]).loader.project_state(("flashsale", "0001_initial"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(_MODELS, "orders", state.apps.get_model("flashsale", "SaleOrder"))
        monkeypatch.setattr(DjangoStore, "_state_values", RowStore._state_values)
        yield


@pytest.mark.parametrize("alias", ["default", "postgresql_alias", "mariadb_alias"])
def test_the_release_before_works_on_migrated_tables(alias: str, request: pytest.FixtureRequest) -> None:
    alias = alias if alias == "default" else request.getfixturevalue(alias)
    store = DjangoStore("two-releases", using=alias)
    with release_before(alias):
        store.put_goods(Goods("phone", 9))
        assert store.save([order("o-1"), order("o-2"), order("o-3")]).inserted == {"o-1", "o-2", "o-3"}
        assert store.settle(order("o-1"), OrderState.CANCELLED) is OrderState.CANCELLED
        assert store.settle(order("o-4"), OrderState.EXPIRED) is OrderState.EXPIRED  # a tombstone
    assert store.settled(0.0) == []
    assert store.settle(order("o-2"), OrderState.CONFIRMED) is OrderState.CONFIRMED
    assert store.restock_once("phone", 1, "r-1")[1] == 10
    with release_before(alias):
        assert store.settle(order("o-2"), OrderState.CANCELLED) is OrderState.CANCELLED
        assert store.save([order("o-3"), order("o-5")]).inserted == {"o-5"}
        assert store.restock("phone", 1).total == 11
    states = {row.order.order_id: row.state for row in store.orders()}
    assert [states[f"o-{number}"].value for number in range(1, 6)] == [
        "CANCELLED", "CANCELLED", "PERSISTED", "EXPIRED", "PERSISTED"
    ]  # fmt: skip
    assert [row.order.order_id for row, _ in store.settled(0.0)] == ["o-2"]


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


def call_ends(postgres: servers.Postgres, alias: str, age: int | None, *, within: float = 8.0) -> None:
    """A call at a database that is frozen ends."""
    store = DjangoStore("silent", using=alias, timeout=1.0)
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
        caller.join(within)
        ended = not caller.is_alive()
    caller.join(10)
    assert ended
    assert [type(answer) for answer in answers] == [StoreError]


@pytest.mark.parametrize("age", [0, None], ids=["while it connects", "on a connection that stands"])
def test_a_silent_database_is_given_up(postgres: servers.Postgres, postgresql_alias: str, age: int | None) -> None:
    call_ends(postgres, postgresql_alias, age)


@kills("the deadline of a transaction")
def test_a_silent_database_is_given_up_by_our_own_deadline(postgres: servers.Postgres, postgresql_alias: str) -> None:
    call_ends(postgres, postgresql_alias, None, within=4.0)


def test_a_slow_receiver_of_a_signal_costs_no_connection(
    postgresql_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of the store's transaction ends with its commit."""
    connections[postgresql_alias].close()
    monkeypatch.setitem(connections[postgresql_alias].settings_dict, "CONN_MAX_AGE", None)
    store = DjangoStore("slow", using=postgresql_alias, timeout=1.0)

    def slow(**_: object) -> None:
        time.sleep(1.6)

    order_settled.connect(slow)
    try:
        assert store.settle(order("o-1"), OrderState.CANCELLED) is OrderState.CANCELLED
        assert store.states(["o-1"]) == {"o-1": OrderState.CANCELLED}
    finally:
        order_settled.disconnect(slow)
