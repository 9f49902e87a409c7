"""The operator's commands on the databases' servers: what is compared and written there is one transaction."""

from __future__ import annotations

import json

import pytest

from flashsale import FlashSale, Goods, OrderState, Syncer, Worker
from flashsale.cli import main
from flashsale.clients import from_url
from flashsale.stores import SQLAlchemyStore

WHY = ("--reason", "why", "--yes")


@pytest.fixture(params=["fresh_postgres_url", "fresh_mysql_url"], ids=["postgresql", "mysql"])
def database(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def test_what_is_expected_is_compared_on_a_server(
    database: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--redis", redis_url, "--database", database, "--sale", "spring"]

    def operator(*words: str) -> int:
        return main([*words, *where])

    assert operator("init") == 0
    assert operator("goods", "set", "phone", "--total", "10", "--new") == 0
    with (
        SQLAlchemyStore(database, "spring") as store,
        FlashSale(from_url(redis_url), "spring", store=store, cache_for=0) as sale,
    ):
        Syncer(sale).run_once()
        assert operator("open", "phone") == 0
        sale.buy("phone", "ann", order_id="o-1")
        Worker(sale).run_once()
        assert operator("goods", "set", "phone", "--hold", "60", "--expect", "total=9") == 1
        assert operator("goods", "set", "phone", "--hold", "60", "--expect", "total=10") == 0
        assert operator("restock", "phone", "+1", *WHY, "--expect", "booked=0") == 1
        assert operator("restock", "phone", "+1", *WHY, "--expect", "booked=1", "--request-id", "r-1") == 0
        assert operator("restock", "phone", "+1", *WHY, "--request-id", "r-1") == 0
        assert list(store.goods()) == [Goods("phone", 11, version=2, hold=60.0, loaded=True)]
        assert operator("orders", "cancel", "o-1", *WHY, "--expect", "state=CONFIRMED") == 1
        assert operator("orders", "cancel", "o-1", *WHY, "--expect", "state=PERSISTED") == 0
        assert sale.status("o-1") is OrderState.CANCELLED
        with store.transaction() as connection:
            connection.exec_driver_sql(_trigger(connection.dialect.name))
        capsys.readouterr()
        assert operator("doctor") == 1  # this Redis keeps no append-only file
        assert "trigger 'guard' on flashsale_orders" in capsys.readouterr().out


def _trigger(dialect: str) -> str:
    if dialect == "postgresql":
        does = "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    else:
        does = "FOR EACH ROW SET @a = 1"
    return f"CREATE TRIGGER guard BEFORE UPDATE ON flashsale_orders {does}"


def test_a_refusal_has_one_name_in_status_and_among_the_dead_letters(
    fresh_postgres_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--redis", redis_url, "--database", fresh_postgres_url, "--sale", "spring", "--json"]
    with (
        SQLAlchemyStore(fresh_postgres_url, "spring") as store,
        FlashSale(from_url(redis_url), "spring", store=store, cache_for=0) as sale,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 10))
        Syncer(sale).run_once()
        sale.start("phone")
        with store.transaction() as connection:
            connection.exec_driver_sql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER guard BEFORE INSERT ON flashsale_orders FOR EACH ROW "
                "WHEN (NEW.buyer_id = 'ann') EXECUTE FUNCTION refuse()"
            )
        sale.buy("phone", "ann", order_id="o-1")
        worker = Worker(sale)
        worker.run_once()
        sale._recorder._flush(worker._activity)
        capsys.readouterr()
        main(["status", *where])
        (process,) = json.loads(capsys.readouterr().out)["look"]["processes"]
        assert process["last_error"] == "RowRefused (RaiseException)"
        main(["orders", "show", "o-1", *where])
        assert json.loads(capsys.readouterr().out)["reason"] == "the database refused a row: RaiseException"
