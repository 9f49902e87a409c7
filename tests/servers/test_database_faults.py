"""What a database does to a batch: one row is refused, every row is, or nothing is written at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from flashsale import FlashSaleError, Goods, NotExecuted, OrderState, StoreError
from flashsale._rules import sqlstates
from flashsale._sql import engines
from tests.support.helpers import inside, order, settled

if TYPE_CHECKING:
    from tests.support.helpers import Shop

TRIGGERS = {
    "sqlite": [
        """CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders WHEN {when}
        BEGIN SELECT RAISE(ABORT, 'no'); END"""
    ],
    "fresh_postgres_url": [
        """CREATE FUNCTION poison() RETURNS trigger AS
        'BEGIN IF {when} THEN RAISE EXCEPTION $$no$$; END IF; RETURN NEW; END' LANGUAGE plpgsql""",
        "CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders FOR EACH ROW EXECUTE FUNCTION poison()",
    ],
    "fresh_mysql_url": [
        """CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders FOR EACH ROW
        BEGIN IF {when} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; END"""
    ],
}
ONE = {
    "sqlite": "NEW.order_id = 'poison'",
    "fresh_postgres_url": "NEW.order_id = $$poison$$",
    "fresh_mysql_url": "NEW.order_id = 'poison'",
}
RAISED = {"sqlite": "IntegrityError", "fresh_postgres_url": "RaiseException", "fresh_mysql_url": "OperationalError"}
databases = pytest.mark.parametrize("database", list(TRIGGERS))


def url_of(shop: Shop, request: pytest.FixtureRequest, database: str) -> str:
    return f"sqlite:///{shop.database}" if database == "sqlite" else request.getfixturevalue(database)


def run(url: str, *statements: str) -> None:
    """Runs statements as the host's own program would."""
    engine = sqlalchemy.create_engine(engines.database_url(url, engines.DRIVERS))
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


async def sold(shop: Shop, url: str, *names: str) -> Any:
    """Returns a sale on a new database, whose queue holds these orders."""
    store = await shop.store(Goods("phone", 100), url=url)
    sale = await shop.open(100, sale=shop.sale(store=store))
    await sale.inventory.reserve([order(name) for name in names])
    return sale


async def work(shop: Shop, worker: Any, rounds: int = 8) -> list[FlashSaleError]:
    """Lets the worker try again and again; delays end at once. Returns what it raised."""
    raised = []
    for _ in range(rounds):
        shop.end_leases()
        try:
            await worker.run_once()
        except FlashSaleError as error:
            raised.append(error)
    return raised


async def the_row_is_dead_and_the_others_are_saved(shop: Shop, sale: Any, good: list[str], reason: str) -> None:
    await work(shop, shop.worker(sale))
    assert [(claim.order.order_id, claim.reason) for claim in await sale.queue.dead()] == [("poison", reason)]
    assert await settled(sale.store.states(["poison", *good])) == dict.fromkeys(good, OrderState.PERSISTED)


# -- one row ----------------------------------------------------------------------------------------------------------


async def a_row_that_a_trigger_refuses(shop: Shop, request: pytest.FixtureRequest, database: str) -> None:
    url, good = url_of(shop, request, database), [f"o-{n}" for n in range(9)]
    sale = await sold(shop, url, *good[:5], "poison", *good[5:])
    run(url, *(statement.format(when=ONE[database]) for statement in TRIGGERS[database]))
    await the_row_is_dead_and_the_others_are_saved(shop, sale, good, f"the database refused a row: {RAISED[database]}")


@databases
async def test_a_row_that_a_trigger_refuses_is_dead_and_the_others_are_saved(
    real_shop: Shop, request: pytest.FixtureRequest, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    await a_row_that_a_trigger_refuses(real_shop, request, database)
    assert any("order poison was refused by the database" in message for message in caplog.messages)
    assert not re.search(r"\bann\b", caplog.text)


@pytest.mark.parametrize("database", ["fresh_postgres_url", "fresh_mysql_url"])
async def test_by_the_classes_of_drivers_alone_the_batch_would_wait_for_ever(
    real_shop: Shop, request: pytest.FixtureRequest, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlstates, "_sqlstate", lambda _: "")
    monkeypatch.setattr(sqlstates, "_number", lambda _: 0)
    with pytest.raises(AssertionError):
        await a_row_that_a_trigger_refuses(real_shop, request, database)


class Surprise(Exception):
    """What nobody expects of a store, with the buyer's name in it."""


def let_save_raise(shop: Shop, sale: Any, error: BaseException, *bad: str) -> None:
    """Makes the `save` of a host's subclass raise when one of these orders is in the batch; of any without names."""
    kind = type(sale.store)

    def check(orders: Any) -> None:
        if not bad or any(each.order_id in bad for each in orders):
            raise error

    class Sync(kind):
        def save(self, orders):
            check(orders)
            return super().save(orders)

    class Async(kind):
        async def save(self, orders):
            check(orders)
            return await super().save(orders)

    sale.store.__class__ = Async if shop.is_async else Sync


async def test_whatever_a_hosts_save_raises_stops_only_its_own_order(
    real_shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    good = [f"o-{n}" for n in range(9)]
    sale = await sold(real_shop, f"sqlite:///{real_shop.database}", *good, "poison")
    let_save_raise(real_shop, sale, Surprise("ann"), "poison")
    await the_row_is_dead_and_the_others_are_saved(real_shop, sale, good, "Surprise")
    assert "order poison was refused by the database: Surprise" in caplog.messages
    assert not re.search(r"\bann\b", caplog.text)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_process_passes_through(real_shop: Shop, error: type[BaseException]) -> None:
    sale = await sold(real_shop, f"sqlite:///{real_shop.database}", "o-1")
    let_save_raise(real_shop, sale, error(), "o-1")
    worker = inside(real_shop.api, "worker")
    assert not issubclass(error, Exception)  # the worker catches nothing else
    assert not worker._blames_row(StoreError("away"))
    assert not worker._blames_row(NotExecuted("away"))


async def test_a_reason_is_forgotten_when_the_order_is_saved(real_shop: Shop) -> None:
    sale = await sold(real_shop, f"sqlite:///{real_shop.database}", "o-1", "poison")
    run(f"sqlite:///{real_shop.database}", TRIGGERS["sqlite"][0].format(when=ONE["sqlite"]))
    await work(real_shop, real_shop.worker(sale), 2)
    assert real_shop.raw.hexists(real_shop.keys.meta, "reason:poison")
    run(f"sqlite:///{real_shop.database}", "DROP TRIGGER poison")
    await work(real_shop, real_shop.worker(sale), 1)
    assert not real_shop.raw.hexists(real_shop.keys.meta, "reason:poison")
    assert await sale.queue.dead() == []


# -- every row --------------------------------------------------------------------------------------------------------


async def nobody_is_to_blame(shop: Shop, sale: Any, names: list[str]) -> None:
    raised = await work(shop, shop.worker(sale))
    assert [type(error) for error in raised] == [StoreError] * 8
    assert await sale.queue.dead() == []
    shop.end_leases()
    claims = await sale.queue.claim(timeout=0)
    assert sorted((claim.order.order_id, claim.attempts) for claim in claims) == [(name, 1) for name in names]
    await sale.queue.nack(claims, count_attempt=False)


@databases
async def test_a_database_that_refuses_every_row_kills_no_order(
    real_shop: Shop, request: pytest.FixtureRequest, database: str
) -> None:
    url, names = url_of(real_shop, request, database), ["o-1", "o-2", "o-3"]
    sale = await sold(real_shop, url, *names)
    run(url, *(statement.format(when="1 = 1") for statement in TRIGGERS[database]))
    await nobody_is_to_blame(real_shop, sale, names)


async def test_a_save_that_always_raises_kills_no_order(real_shop: Shop) -> None:
    sale = await sold(real_shop, f"sqlite:///{real_shop.database}", "o-1", "o-2", "o-3")
    let_save_raise(real_shop, sale, Surprise("ann"))
    await nobody_is_to_blame(real_shop, sale, ["o-1", "o-2", "o-3"])


async def a_database_that_turned_read_only(shop: Shop, url: str) -> None:
    sale = await sold(shop, url, "o-1", "o-2", "o-3")
    read_only = sqlalchemy.make_url(url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    stores = inside(shop.api, "stores.sqlalchemy")
    store = shop.keep(stores.SQLAlchemyStore(read_only, "spring"))
    await nobody_is_to_blame(shop, shop.sale(store=store), ["o-1", "o-2", "o-3"])
    await work(shop, shop.worker(sale), 1)
    assert set((await settled(sale.store.states(["o-1", "o-2", "o-3"]))).values()) == {OrderState.PERSISTED}


async def test_a_database_that_turned_read_only_kills_no_order(real_shop: Shop, fresh_postgres_url: str) -> None:
    await a_database_that_turned_read_only(real_shop, fresh_postgres_url)


async def test_without_its_sqlstate_every_order_would_be_dead(
    real_shop: Shop, fresh_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlstates, "_ROW_CLASSES", frozenset({"22", "23", "25", "44", "P0"}))
    worker = inside(real_shop.api, "worker").Worker

    async def aio(self, orders, _):
        return await self._split(orders, {})

    def sync(self, orders, _):
        return self._split(orders, {})

    monkeypatch.setattr(worker, "_save", aio if real_shop.is_async else sync)
    with pytest.raises(AssertionError):
        await a_database_that_turned_read_only(real_shop, fresh_postgres_url)
