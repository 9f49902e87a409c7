"""A shop in Flask, Starlette or Django sells over several partitions by one setting, `FLASHSALE_PARTITIONS`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from flashsale import FlashSale, Goods, InvalidRequest, OrderState, PartitionMismatch, Syncer, Worker
from flashsale.contrib.fastapi import FastAPISale
from flashsale.contrib.flask import FlaskSale
from flashsale.stores import SQLAlchemyStore
from tests.support import django_shop

django_shop.set_up()

from django.core.management import call_command  # noqa: E402 - settings come first
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from flashsale.contrib import django as django_api  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTITIONS = 3
UNITS = 4  # all of them may be fetched from two of the partitions


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> dict[str, object]:
    """The settings of a shop, whose database has its item."""
    database = f"sqlite:///{tmp_path / 'shop.db'}"
    with SQLAlchemyStore(database, "nov11") as store:
        store.create_all()
        store.put_goods(Goods("phone", UNITS))
    return {
        "FLASHSALE_SALE": "nov11",
        "FLASHSALE_REDIS_URL": redis_url,
        "FLASHSALE_DATABASE_URL": database,
        "FLASHSALE_CACHE_FOR": "0",
        "FLASHSALE_PARTITIONS": str(PARTITIONS),
    }


def test_several_servers_want_a_number_of_partitions(config: dict[str, object]) -> None:
    app = Flask("shop")
    app.config.update(config | {"FLASHSALE_REDIS_URL": "redis://a redis://b", "FLASHSALE_PARTITIONS": 1})
    with pytest.raises(InvalidRequest, match=r"FLASHSALE_REDIS_URL: several .+_PARTITIONS says how many"):
        FlaskSale(app)


def test_flask(config: dict[str, object]) -> None:
    app, sales = Flask("shop"), FlaskSale()
    app.config.update(config)
    sales.init_app(app)

    @app.post("/buy/<buyer_id>")
    def buy(buyer_id: str) -> Any:
        receipt = sales.sale.buy("phone", buyer_id)
        return sales.answer(receipt, location=f"/orders/{receipt.order_id}")

    web, command = app.test_client(), app.test_cli_runner()
    with app.app_context():
        assert sales.sale.partitions == PARTITIONS
        Syncer(sales.sale).run_once()
    assert command.invoke(args=["flashsale", "open", "phone", "--yes"]).exit_code == 0
    answers = [web.post(f"/buy/b{number}") for number in range(UNITS + 1)]
    assert [answer.status_code for answer in answers] == [202] * UNITS + [409]
    with app.app_context():
        assert Worker(sales.sale).run_once() == UNITS
    shown = command.invoke(args=["flashsale", "orders", "show", answers[0].headers["Location"].rpartition("/")[2]])
    assert "PERSISTED" in shown.output
    assert command.invoke(args=["flashsale", "audit"]).output.endswith("clean\n")


def test_flask_with_another_number_is_refused(config: dict[str, object]) -> None:
    for number in ("3", "2"):
        app = Flask("shop")
        app.config.update(config | {"FLASHSALE_PARTITIONS": number})
        sales = FlaskSale(app)
        with app.app_context():
            if number == "3":
                Syncer(sales.sale).run_once()
            else:
                with pytest.raises(PartitionMismatch):
                    sales.sale.buy("phone", "ann")


async def test_starlette(config: dict[str, object]) -> None:
    sales = FastAPISale(config)

    async def buy(request: Request) -> Any:
        sale = await sales(request)
        receipt = await sale.buy("phone", request.path_params["buyer_id"])
        return await sales.answer(receipt, location=f"/orders/{receipt.order_id}")

    app = Starlette(routes=[Route("/buy/{buyer_id}", buy, methods=["POST"])], lifespan=sales.lifespan)
    sales.install(app)
    async with sales.lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://shop") as web:
        sale = await sales(Request({"type": "http"}))
        assert sale.partitions == PARTITIONS
        await sale.preload("phone", UNITS)
        await sale.start("phone")
        answers = [await web.post(f"/buy/b{number}") for number in range(UNITS + 1)]
        assert [answer.status_code for answer in answers] == [202] * UNITS + [409]
        order_id = answers[0].headers["Location"].rpartition("/")[2]
        assert await sale.status(order_id) is OrderState.QUEUED


def buy(_request: Any, buyer_id: str) -> Any:
    receipt = django_api.get_sale().buy("phone", buyer_id)
    return django_api.answer(receipt, location=f"/orders/{receipt.order_id}")


urlpatterns = [path("buy/<str:buyer_id>", buy)]


@pytest.fixture
def django_sale(redis_url: str) -> Iterator[FlashSale]:
    """The sale of a Django project."""
    with override_settings(
        FLASHSALE_SALE=f"sale-{os.urandom(4).hex()}",
        FLASHSALE_REDIS_URL=redis_url,
        FLASHSALE_CACHE_FOR=0,
        FLASHSALE_PARTITIONS=PARTITIONS,
        ROOT_URLCONF=__name__,
    ):
        django_api.set_sale(None)
        with django_api.get_sale() as sale:
            yield sale
        django_api.set_sale(None)


def test_django(django_sale: FlashSale, capsys: pytest.CaptureFixture[str]) -> None:
    assert django_sale.partitions == PARTITIONS
    store, web = DjangoStore(django_sale.name), Client()
    store.put_goods(Goods("phone", UNITS))
    call_command("flashsale_sync", "--once", verbosity=0)
    call_command("flashsale", "open", "phone", "--yes")
    answers = [web.post(f"/buy/b{number}") for number in range(UNITS + 1)]
    assert [answer.status_code for answer in answers] == [202] * UNITS + [409]
    assert Worker(django_sale).run_once() == UNITS
    assert {row.state for row in store.orders()} == {OrderState.PERSISTED}
    capsys.readouterr()
    call_command("flashsale", "audit")
    assert capsys.readouterr().out.endswith("clean\n")
