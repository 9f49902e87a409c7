"""A database that says nothing: each call ends in its stated time, and so does a worker that is told to stop."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from flashsale import FlashSaleError, Goods, InvalidRequest, OrderState, OutcomeUnknown, StoreError
from tests.support.database_proxy import DatabaseProxy, frozen
from tests.support.helpers import Awaited, inside, order, settled
from tests.support.mutants import without

if TYPE_CHECKING:
    from tests.support.helpers import Shop

TIMEOUT = 2.0
PATIENCE = 2 * TIMEOUT + 4.0  # a busy machine among it

databases = pytest.mark.parametrize("database", ["fresh_postgres_url", "fresh_mysql_url"])


async def store_of(shop: Shop, url: Any) -> Awaited:
    module = inside(shop.api, "stores.sqlalchemy")
    store = Awaited(module.SQLAlchemyStore(url, "spring", timeout=TIMEOUT), shop._threads)
    await shop.keep(store).create_all()
    await store.put_goods(Goods("phone", 10))
    return store


async def raised(call: Any) -> type[BaseException] | None:
    """Returns the kind of error of a call, which must end in time."""
    try:
        await asyncio.wait_for(settled(call), PATIENCE)
    except FlashSaleError as error:
        return type(error)
    return None


async def calls_end(shop: Shop, url: str) -> None:
    store = await store_of(shop, url)
    with frozen(url):
        assert await raised(store.settle(order("o-1"), OrderState.CANCELLED)) is StoreError  # on a pooled connection
        assert await raised(store.states(["o-1"])) is StoreError  # on one that is to be made
    assert await store.states(["o-1"]) == {}
    assert await store.settle(order("o-1"), OrderState.CANCELLED) is OrderState.CANCELLED


@databases
async def test_a_call_at_a_frozen_host_ends(real_shop: Shop, request: pytest.FixtureRequest, database: str) -> None:
    await calls_end(real_shop, request.getfixturevalue(database))


@without("the database's deadline")
async def test_without_a_deadline_of_our_own_it_would_hang(real_shop: Shop, fresh_postgres_url: str) -> None:
    with pytest.raises(TimeoutError):
        await calls_end(real_shop, fresh_postgres_url)


@databases
async def test_a_commit_that_is_never_answered_is_not_known(
    real_shop: Shop, request: pytest.FixtureRequest, database: str
) -> None:
    with DatabaseProxy(request.getfixturevalue(database)) as proxy:
        store = await store_of(real_shop, proxy.url)
        proxy.fall_silent_at_commit()
        assert await raised(store.save([order("o-1")])) is OutcomeUnknown
        proxy.speak()
        assert (await store.save([order("o-1")])).existing == {"o-1": OrderState.PERSISTED}


@databases
async def test_a_worker_stops_in_time(real_shop: Shop, request: pytest.FixtureRequest, database: str) -> None:
    url = request.getfixturevalue(database)
    store = await store_of(real_shop, url)
    sale = await real_shop.open(10, sale=real_shop.sale(store=store))
    await sale.inventory.reserve([order("o-1"), order("o-2")])
    stop = asyncio.Event() if real_shop.is_async else threading.Event()
    with frozen(url):
        running = asyncio.create_task(real_shop.worker(sale).run(stop))
        await asyncio.sleep(0.5)
        stop.set()
        begun = time.monotonic()
        await asyncio.wait_for(running, PATIENCE)
        assert time.monotonic() - begun < PATIENCE
    real_shop.end_leases()
    assert await real_shop.worker(sale).run_once() == 2


async def test_a_lock_that_another_holds_is_waited_for_half_as_long(real_shop: Shop, fresh_postgres_url: str) -> None:
    store = await store_of(real_shop, fresh_postgres_url)
    engine = sqlalchemy.create_engine(fresh_postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM flashsale_goods FOR UPDATE")
        begun = time.monotonic()
        assert await raised(store.restock("phone", 1)) is StoreError
        assert time.monotonic() - begun < PATIENCE
    engine.dispose()
    assert (await store.restock("phone", 1)).total == 11


@pytest.mark.parametrize("timeout", [0, 0.5, "7", None])
async def test_a_timeout_is_seconds_of_at_least_one(real_shop: Shop, timeout: Any) -> None:
    with pytest.raises(InvalidRequest):
        inside(real_shop.api, "stores.sqlalchemy").SQLAlchemyStore("sqlite://", "spring", timeout=timeout)
