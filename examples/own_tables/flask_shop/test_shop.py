"""The shop's own tests: what the sale does stands in the shop's tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, select

from examples.own_tables.flask_shop import slow
from examples.own_tables.flask_shop.app import create_app, price_of, sales
from examples.own_tables.flask_shop.flash import Hooks
from examples.own_tables.flask_shop.models import Customer, Note, Order, Payment, Price, Stock, db
from flashsale import FlashSale, Outbox, StoreError, Syncer, Worker
from flashsale.stores import SQLAlchemyStore

ANN = {"X-Customer": "1"}
MIGRATIONS = Config(Path(__file__).with_name("alembic.ini"))


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Another test of ours plays this module on PostgreSQL."""
    return f"sqlite:///{tmp_path / 'shop.db'}"


@pytest.fixture
def shop_before(database_url: str) -> Iterator[None]:
    """A shop with a customer and ten phones, before its first flash sale."""
    environment = mock.patch.dict(os.environ, FLASHSALE_DATABASE_URL=database_url, FLASHSALE_SALE="launch")
    engine = create_engine(database_url)
    db.configure(bind=engine)
    with environment:
        command.upgrade(MIGRATIONS, "0001")
        with db.begin() as session:
            session.add_all([Customer(id=1, name="Ann"), Price(sku="phone", cents=39900)])
            session.flush()
            session.add(Stock(sku="phone", units=10))
        command.upgrade(MIGRATIONS, "head")
        yield
    engine.dispose()


@pytest.fixture
def shop(shop_before: None, database_url: str, make_flashsale: Any) -> Iterator[Any]:
    """The shop on the evening of the sale: four of the ten phones are for it."""
    sale = make_flashsale({"phone": 4}, store=lambda name: SQLAlchemyStore(database_url, name, hooks=Hooks()))
    app = create_app()
    with app.app_context():
        sales.sale = sale
        price_of.cache_clear()
        yield SimpleNamespace(app=app, web=app.test_client(), sale=sale, worker=Worker(sale))
    db.kw["bind"].dispose()


def buy(shop: Any, key: str = "1") -> str:
    answer = shop.web.post("/flash/phone", data={"key": key}, headers=ANN)
    assert answer.status_code == 202, answer.text
    return answer.json["order_id"]


def pay(shop: Any, number: str, money: str = "m-1") -> Any:
    return shop.web.post("/payments", json={"id": money, "number": number, "cents": 39900})


def cancel(shop: Any, number: str) -> Any:
    return shop.web.post(f"/office/{number}/cancel", data={"why": "asked to"})


def status(number: str) -> str | None:
    with db() as session:
        return session.scalar(select(Order.status).where(Order.number == number))


def refunds() -> list[bool]:
    with db() as session:
        return list(session.scalars(select(Payment.refund).order_by(Payment.id)))


def in_stock() -> int:
    with db() as session:
        return session.scalar(select(Stock.units))


def test_an_accepted_order_becomes_the_shops(shop: Any) -> None:
    number = buy(shop)
    assert buy(shop) == number  # a double click
    with db.begin() as session:
        session.get(Price, "phone").cents = 49900  # too late for this customer
    assert status(number) is None
    shop.worker.run_once()
    with db() as session:
        [order] = session.scalars(select(Order))
        [item] = order.items
        assert (order.number, order.customer_id, order.status) == (number, 1, "open")
        assert (item.sku, item.quantity, item.cents) == ("phone", 1, 39900)
    assert shop.web.get(f"/orders/{number}", headers=ANN).json == {"state": "PERSISTED"}
    assert shop.web.get(f"/orders/{number}", headers={"X-Customer": "2"}).status_code == 404


def test_a_batch_is_one_insert_into_orders_and_one_into_items(shop: Any) -> None:
    for key in "123":
        buy(shop, key)
    said: list[str] = []

    def listen(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        assert shop.worker.run_once() == 3
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    inserts = [statement.split()[2] for statement in said if statement.startswith("INSERT")]
    times = 3 if db.kw["bind"].dialect.name == "sqlite" else 1  # SQLAlchemy asks SQLite for each id
    assert (inserts.count("orders"), inserts.count("items")) == (times, times)


def test_money_that_comes_early_twice_and_late(shop: Any) -> None:
    number = buy(shop)
    early = pay(shop, number)
    assert (early.status_code, early.headers["Retry-After"], refunds()) == (503, "1", [])
    shop.worker.run_once()
    for _ in range(2):
        assert pay(shop, number).json == {"state": "CONFIRMED", "refund": False}
    assert (status(number), shop.sale.status(number), refunds()) == ("paid", "CONFIRMED", [False])
    assert cancel(shop, number).json == {"state": "CANCELLED"}
    assert (status(number), shop.sale.status(number), refunds()) == ("cancelled", "CANCELLED", [True])
    for money in ("m-1", "m-2"):  # the bank repeats itself, and the customer pays a cancelled order
        assert pay(shop, number, money).json == {"state": "CANCELLED", "refund": True}
    assert refunds() == [True, True]
    assert shop.sale.view("phone").remaining == 4


def test_staff_cancels_in_the_shops_own_transaction(shop: Any) -> None:
    number = buy(shop)
    shop.worker.run_once()
    assert number in shop.web.get("/office").text
    assert cancel(shop, "F1.unknown").status_code == 404
    with db() as session:
        assert session.scalars(select(Note)).all() == []  # rolled back
    assert cancel(shop, number).json == {"state": "CANCELLED"}
    with db() as session:
        assert [note.number for note in session.scalars(select(Note))] == [number]
    assert number not in shop.web.get("/office").text


def test_one_stock_and_two_channels(shop: Any) -> None:
    assert in_stock() == 6
    regular = [shop.web.post("/regular/phone", headers=ANN) for _ in range(7)]
    assert [answer.status_code for answer in regular] == [201] * 6 + [409]
    with pytest.raises(StoreError):
        shop.sale.restock("phone", 1)  # there is none left to move
    assert cancel(shop, regular[0].json["number"]).json == cancel(shop, regular[0].json["number"]).json
    assert in_stock() == 1
    shop.sale.restock("phone", 1)
    assert in_stock() == 0
    shop.sale.restock("phone", -3)
    Syncer(shop.sale).run_once()
    assert in_stock() == 3
    assert shop.sale.view("phone").remaining == 2


def test_orders_from_before_the_hooks(shop: Any, database_url: str, flashsale_client: Any) -> None:
    first, second, third, fourth = (buy(shop, key) for key in "1234")
    with (
        SQLAlchemyStore(database_url, shop.sale.name) as without,
        FlashSale(flashsale_client, shop.sale.name, store=without) as old,
    ):
        Worker(old).run_once()
        old.confirm(second)
        old.cancel(third)
    assert pay(shop, fourth).json["state"] == "CONFIRMED"  # its order is made where it moves
    backfill = shop.app.test_cli_runner().invoke(args=["backfill"])
    assert backfill.output == "2 orders\n"
    assert [status(number) for number in (first, second, third, fourth)] == ["open", "paid", None, "paid"]
    assert shop.app.test_cli_runner().invoke(args=["backfill"]).output == "0 orders\n"
    assert cancel(shop, first).json == {"state": "CANCELLED"}
    assert status(first) == "cancelled"


def test_the_slow_way(shop_before: None, database_url: str, make_flashsale: Any) -> None:
    states = "PERSISTED,CONFIRMED,CANCELLED,EXPIRED,REJECTED"
    sale = make_flashsale(
        {"phone": 4}, store=lambda name: SQLAlchemyStore(database_url, name, hooks=slow.Hooks(), events=states)
    )
    assert in_stock() == 6
    outbox = Outbox(sale, slow.handle)
    numbers = [sale.buy("phone", "1", order_id=f"F1.{key}", data={"cents": 39900}).order_id for key in "123"]
    sale.cancel(numbers[2])  # before it was saved
    Worker(sale).run_once()
    with db.begin() as session:
        session.add(Payment(id="m-1", number=numbers[0], cents=39900, refund=False))
    sale.confirm(numbers[0])
    for each in sale.store.events(now=1e12):
        slow.handle(each)  # and then the process was killed: they come again
    while outbox.run_once():
        pass
    assert [status(number) for number in numbers] == ["paid", "open", None]
    sale.cancel(numbers[0])
    while outbox.run_once():
        pass
    assert (status(numbers[0]), refunds()) == ("cancelled", [True])


def test_the_migrations_make_what_the_models_say(shop_before: None) -> None:
    command.check(MIGRATIONS)
