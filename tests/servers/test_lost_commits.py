"""The answer to a COMMIT is lost: nobody says that nothing was written, and the same call may be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import flashsale.stores
from flashsale import FlashSaleError, Goods, Order, OrderState, OutcomeUnknown, StoreError
from flashsale._sql import engines
from tests.support import django_shop
from tests.support.database_proxy import DatabaseProxy
from tests.support.helpers import inside, order, settled

django_shop.set_up()

from django.db import DatabaseError  # noqa: E402 - settings come first

from flashsale.contrib.django.store import DjangoStore, _store_error  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.helpers import Shop

NAME = "spring"


@pytest.fixture(params=["fresh_postgres_url", "fresh_mysql_url"])
def proxy(request: pytest.FixtureRequest) -> Iterator[DatabaseProxy]:
    url = request.getfixturevalue(request.param)
    with DatabaseProxy(url) as proxy, flashsale.stores.SQLAlchemyStore(url, NAME) as store:
        store.create_all()
        store.put_goods(Goods("phone", 10))
        yield proxy


def through(shop: Shop, proxy: DatabaseProxy) -> Any:
    """Returns a store of this API whose connection goes through the proxy."""
    return shop.keep(inside(shop.api, "stores.sqlalchemy").SQLAlchemyStore(proxy.url, NAME))


async def raised(call: Any) -> type[BaseException] | None:
    try:
        await settled(call())
    except FlashSaleError as error:
        return type(error)
    return None


CALLS = {
    "put_goods": lambda store: store.put_goods(Goods("case", 5)),
    "grant": lambda store: store.grant("phone", 9),
    "save": lambda store: store.save([order("o-1")]),
    "settle": lambda store: store.settle(order("o-2"), OrderState.CANCELLED),
    "settle_many": lambda store: store.settle_many([order("o-3")], OrderState.CANCELLED),
    "advance_epoch": lambda store: store.advance_epoch(),
    "requeue_events": lambda store: store.requeue_events(),
    "delivered": lambda store: store.delivered([1]),
    "postpone": lambda store: store.postpone(1, None),
}


async def a_lost_answer_is_not_known(shop: Shop, proxy: DatabaseProxy) -> None:
    store = through(shop, proxy)
    for name, call in CALLS.items():
        await settled(store.epoch())  # connected
        lost = proxy.lost
        proxy.lose_commits()
        assert await raised(lambda call=call: call(store)) is OutcomeUnknown, name
        assert proxy.lost == lost + 1
        await settled(call(store))  # the same call again
    rows = {row.order.order_id: row.state for row in await settled(store.orders())}
    assert rows == {"o-1": OrderState.PERSISTED, "o-2": OrderState.CANCELLED, "o-3": OrderState.CANCELLED}


async def test_a_lost_answer_to_commit_is_not_known_and_the_call_may_be_repeated(
    real_shop: Shop, proxy: DatabaseProxy
) -> None:
    await a_lost_answer_is_not_known(real_shop, proxy)


async def test_by_the_error_alone_nothing_would_have_been_written(
    real_shop: Shop, proxy: DatabaseProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "is_rolled_back", lambda _: True)
    with pytest.raises(AssertionError, match="put_goods"):
        await a_lost_answer_is_not_known(real_shop, proxy)


async def test_of_a_call_that_only_reads_nothing_was_written(real_shop: Shop, proxy: DatabaseProxy) -> None:
    store = through(real_shop, proxy)
    for call in (store.goods, store.epoch, store.orders, store.dead_events, lambda: store.states(["o-1"])):
        await settled(store.put_goods(Goods("phone", 10)))
        proxy.lose_commits()
        assert await raised(call) is StoreError


async def test_a_worker_whose_commit_is_not_answered_saves_the_batch_once(
    real_shop: Shop, proxy: DatabaseProxy
) -> None:
    store = through(real_shop, proxy)
    sale = await real_shop.open(10, sale=real_shop.sale(store=store))
    await sale.inventory.reserve([order("o-1"), order("o-2")])
    await settled(store.epoch())
    worker = real_shop.worker(sale)
    proxy.lose_commits()
    with pytest.raises(OutcomeUnknown):
        await worker.run_once()
    real_shop.end_leases()
    (first, second) = await sale.queue.claim(timeout=0)
    assert (first.attempts, second.attempts) == (1, 1), "no attempt counts"
    await sale.queue.nack([first, second], count_attempt=False)
    real_shop.end_leases()
    assert await worker.run_once() == 2
    assert await settled(store.states(["o-1", "o-2"])) == dict.fromkeys(["o-1", "o-2"], OrderState.PERSISTED)
    assert {await sale.status("o-1"), await sale.status("o-2")} == {OrderState.PERSISTED}


# -- what says that nothing was written -------------------------------------------------------------------------------


def test_a_constraint_that_commit_finds_broken_is_known(fresh_postgres_url: str) -> None:
    with flashsale.stores.SQLAlchemyStore(fresh_postgres_url, NAME) as store:
        store.create_all()
        store.put_goods(Goods("phone", 10))
        with store._engine.begin() as connection:
            connection.exec_driver_sql(
                "ALTER TABLE flashsale_orders ADD UNIQUE (sale, buyer_id) DEFERRABLE INITIALLY DEFERRED"
            )
        with pytest.raises(flashsale.RowRefused):
            store.save([Order("o-1", "phone", "ann", 1), Order("o-2", "phone", "ann", 1)])
        assert store.states(["o-1", "o-2"]) == {}


@pytest.mark.parametrize("state", ["40001", "40P01", "25006"])
def test_a_transaction_that_the_server_rolled_back_is_known(state: str) -> None:
    error = DatabaseError()
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": state})()
    assert type(_store_error(error, committing=True)) is StoreError


@pytest.mark.parametrize("state", ["40003", "57P01", "08006", ""])
def test_a_transaction_of_which_nobody_knows_is_not(state: str) -> None:
    error = DatabaseError()
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": state})()
    assert type(_store_error(error, committing=True)) is OutcomeUnknown
    assert type(_store_error(error, committing=False)) is StoreError


@pytest.mark.parametrize("database", ["fresh_postgres_url", "fresh_mysql_url"])
async def test_a_connection_of_a_hosts_engine_that_has_ended_is_a_store_error(
    real_shop: Shop, request: pytest.FixtureRequest, database: str
) -> None:
    """Setting its isolation, SQLAlchemy lets what the driver raises pass as it is."""
    module = inside(real_shop.api, "stores.sqlalchemy")
    make, drivers = (
        (module.create_async_engine, module.ASYNC_DRIVERS)
        if real_shop.is_async
        else (module.create_engine, module.DRIVERS)
    )
    with DatabaseProxy(request.getfixturevalue(database)) as proxy:
        engine = make(engines.database_url(proxy.url, drivers))
        store = module.SQLAlchemyStore(engine, NAME)
        await settled(store.create_all())
        proxy.end_all()
        assert await raised(store.epoch) is StoreError
        assert await settled(store.epoch()) == 1
        await settled(engine.dispose())


# -- Django -----------------------------------------------------------------------------------------------------------


def in_django(alias: str, proxy: DatabaseProxy) -> None:
    store = DjangoStore(NAME, using=alias)
    store.put_goods(Goods("phone", 10))
    proxy.lose_commits()
    with pytest.raises(OutcomeUnknown):
        store.save([order("o-1")])
    assert proxy.lost == 1
    assert store.save([order("o-1")]).existing == {"o-1": OrderState.PERSISTED}
    proxy.lose_commits()
    with pytest.raises(StoreError):
        list(store.goods())


def test_a_lost_answer_is_not_known_in_django(postgres: Any) -> None:
    with postgres.database() as text, DatabaseProxy(text) as proxy:
        url = proxy.url
        options = {"NAME": url.database, "USER": url.username or "", "HOST": url.host, "PORT": url.port}
        with django_shop.database("lossy", ENGINE="django.db.backends.postgresql", **options) as alias:
            in_django(alias, proxy)
