"""What the errors of a database mean, beside the rows of the catalogue in `test_database_seams.py`."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

import flashsale.stores
from flashsale import Goods, InvalidRequest, Order, OutcomeUnknown, StoreError
from flashsale._sql import engines
from tests.support import django_shop
from tests.support.database_proxy import DatabaseProxy
from tests.support.helpers import eventually, inside, order, settled

django_shop.set_up()

from django.db import DatabaseError  # noqa: E402 - settings come first

from flashsale.contrib.django.store import _store_error  # noqa: E402

if TYPE_CHECKING:
    from tests.support.helpers import Shop

NAME = "spring"


# -- COMMIT -----------------------------------------------------------------------------------------------------------


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


# -- connections ------------------------------------------------------------------------------------------------------


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
        with pytest.raises(StoreError):
            await settled(store.epoch())
        assert await settled(store.epoch()) == 1
        await settled(engine.dispose())


async def test_a_lock_that_another_holds_is_waited_for_half_as_long(real_shop: Shop, fresh_postgres_url: str) -> None:
    await real_shop.store(Goods("phone", 10), url=fresh_postgres_url)
    module = inside(real_shop.api, "stores.sqlalchemy")
    store = real_shop.keep(module.SQLAlchemyStore(fresh_postgres_url, NAME, timeout=2))
    engine = sqlalchemy.create_engine(fresh_postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM flashsale_goods FOR UPDATE")
        begun = time.monotonic()
        with pytest.raises(StoreError):
            await settled(store.restock("phone", 1))
        assert time.monotonic() - begun < 8
    engine.dispose()
    assert (await settled(store.restock("phone", 1))).total == 11


FREEZE = """
import os, signal, sys
from flashsale.stores import SQLAlchemyStore

store = SQLAlchemyStore(sys.argv[1], "spring", timeout=2)
with store.transaction() as connection:
    connection.exec_driver_sql("SELECT * FROM flashsale_goods FOR UPDATE").all()
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize("database", ["fresh_postgres_url", "fresh_mysql_url"])
def test_a_process_that_hangs_within_a_transaction_holds_up_nobody_for_long(
    request: pytest.FixtureRequest, database: str
) -> None:
    url = request.getfixturevalue(database)
    with flashsale.stores.SQLAlchemyStore(url, NAME, timeout=2) as store:
        store.create_all()
        store.put_goods(Goods("phone", 10))
        if database == "fresh_mysql_url" and not is_mariadb(store):
            pytest.skip("MySQL ends no transaction that is idle")
        hanging = subprocess.Popen([sys.executable, "-c", FREEZE, url], stdout=subprocess.PIPE, text=True)
        try:
            assert hanging.stdout is not None
            assert hanging.stdout.readline() == "locked\n"
            eventually(lambda: can_restock(store), "the lock of a process that hangs is gone")
        finally:
            hanging.kill()
            hanging.communicate()


def is_mariadb(store: flashsale.stores.SQLAlchemyStore) -> bool:
    with store.transaction() as connection:
        return bool(connection.dialect.is_mariadb)


def can_restock(store: flashsale.stores.SQLAlchemyStore) -> bool:
    try:
        store.restock("phone", 1)
    except StoreError:
        return False
    return True


@pytest.mark.parametrize("timeout", [0, 0.5, "7", None])
async def test_a_timeout_is_seconds_of_at_least_one(real_shop: Shop, timeout: Any) -> None:
    with pytest.raises(InvalidRequest):
        inside(real_shop.api, "stores.sqlalchemy").SQLAlchemyStore("sqlite://", NAME, timeout=timeout)


def test_a_database_in_memory_is_not_copied_in_silence() -> None:
    code = """
import os, flashsale.stores
store = flashsale.stores.SQLAlchemyStore("sqlite://", "spring")
store.create_all()
if (child := os.fork()) == 0:
    try:
        store.epoch()
    except flashsale.StoreError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(store.epoch())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "a database in memory belongs to the process that opened it: this one was forked\n1\n"


# -- a refused order --------------------------------------------------------------------------------------------------


async def test_a_reason_is_forgotten_when_the_order_is_saved(real_shop: Shop) -> None:
    sale = await real_shop.open(10, store=True)
    await sale.inventory.reserve([order("o-1"), order("poison")])
    real_shop.sql(
        "CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders WHEN NEW.order_id = 'poison' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    worker = real_shop.worker(sale)
    await worker.run_once()
    assert real_shop.raw.hexists(real_shop.keys.meta, "reason:poison")
    real_shop.sql("DROP TRIGGER poison")
    real_shop.end_leases()
    await worker.run_once()
    assert not real_shop.raw.hexists(real_shop.keys.meta, "reason:poison")
    assert await sale.queue.dead() == []
