"""The shop's own tests: its views on a sale of the testing kit, with its orders in Django's database."""

from __future__ import annotations

from collections.abc import Iterator

import django
import pytest
from django.core.management import call_command
from django.test import Client
from django.test.utils import override_settings, setup_test_environment, teardown_test_environment

from examples.shop import GOODS_ID
from flashsale import FlashSale, Worker

KEY = "1" * 32
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module", autouse=True)
def _django() -> Iterator[None]:
    django.setup()
    setup_test_environment()
    call_command("migrate", verbosity=0)
    yield
    teardown_test_environment()


@pytest.fixture
def sale(make_flashsale) -> Iterator[FlashSale]:
    from flashsale.contrib.django import set_sale
    from flashsale.contrib.django.store import DjangoStore

    sale = make_flashsale({GOODS_ID: 1}, store=DjangoStore)
    set_sale(sale)
    yield sale
    set_sale(None)


def test_buy_pay_and_cancel(sale: FlashSale) -> None:
    web = Client()
    assert web.get("/").status_code == 200
    first, again = (web.post(f"/buy/{GOODS_ID}", {"key": KEY}, headers=JSON) for _ in range(2))
    assert (first.status_code, first.json()["replayed"], again.json()["replayed"]) == (202, False, True)
    Worker(sale).run_once()
    order = first.headers["Location"]
    assert web.get(order, headers=JSON).json()["may_pay"]
    assert web.post(f"{order}/pay", headers=JSON).json()["state"] == "CONFIRMED"
    assert web.post(f"{order}/cancel").headers["Location"] == order
    assert "on sale again" in web.get(order).text
    assert sale.inventory.stock(GOODS_ID).remaining == 1


def test_no_cookie_where_a_shared_cache_may_keep_the_answer(sale: FlashSale) -> None:
    web = Client()
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):  # Django's cookie is then set anew on every answer
        order = web.post(f"/buy/{GOODS_ID}", headers=JSON)
        assert order.cookies  # this visitor has a session
        page = web.get("/")
        again = web.get("/", headers={"If-None-Match": page.headers["ETag"]})
        assert again.status_code == 304
        for public in (page, again, web.get(f"/sale/{GOODS_ID}"), web.get("/static/shop.css")):
            assert public.headers["Cache-Control"].startswith("public")
            assert not public.cookies
            public.close()
        assert web.get(order.headers["Location"]).cookies


def test_an_order_is_shown_to_its_buyer_only(sale: FlashSale) -> None:
    order = Client().post(f"/buy/{GOODS_ID}", headers=JSON).headers["Location"]
    assert Client().get(order).status_code == 404


def test_the_second_buyer_is_too_late(sale: FlashSale) -> None:
    answers = [Client().post(f"/buy/{GOODS_ID}", headers=JSON).status_code for _ in range(2)]
    assert answers == [202, 409]
    assert Client().get(f"/sale/{GOODS_ID}").json()["state"] == "SOLD_OUT"
    refused = Client().post(f"/buy/{GOODS_ID}")  # by a form without a script
    assert refused.status_code == 409
    assert "<h1>Sold out.</h1>" in refused.text
