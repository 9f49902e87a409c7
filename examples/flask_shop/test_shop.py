"""The shop's own tests: its views on a sale of the testing kit, and a whole sale played through them."""

from __future__ import annotations

import os
from unittest import mock

from flask import Flask
from hypothesis import settings
from werkzeug.test import TestResponse

from examples.flask_shop.app import create_app, sales
from examples.shop import GOODS_ID
from flashsale import FlashSale, Goods, Outcome, Worker
from flashsale.testing import SaleMachine, memory_store

KEY = "1" * 32
JSON = {"Accept": "application/json"}


def open_shop(sale: FlashSale) -> Flask:
    with mock.patch.dict(os.environ, SHOP_SECRET="test", FLASHSALE_SALE=sale.name):
        app = create_app()
    with app.app_context():
        sales.sale = sale
    return app


def test_buy_pay_and_cancel(make_flashsale) -> None:
    sale = make_flashsale({GOODS_ID: 1}, store=memory_store)
    web = open_shop(sale).test_client()
    assert web.get("/").status_code == 200
    first, again = (web.post(f"/buy/{GOODS_ID}", data={"key": KEY}, headers=JSON) for _ in range(2))
    assert (first.status_code, first.json["replayed"], again.json["replayed"]) == (202, False, True)
    Worker(sale).run_once()
    order = first.headers["Location"]
    assert web.get(order, headers=JSON).json["may_pay"]
    assert web.post(f"{order}/pay", headers=JSON).json["state"] == "CONFIRMED"
    assert web.post(f"{order}/cancel").headers["Location"] == order
    assert "on sale again" in web.get(order).text
    assert sale.inventory.stock(GOODS_ID).remaining == 1


def test_an_order_is_shown_to_its_buyer_only(make_flashsale) -> None:
    app = open_shop(make_flashsale({GOODS_ID: 1}))
    order = app.test_client().post(f"/buy/{GOODS_ID}", headers=JSON).headers["Location"]
    assert app.test_client().get(order).status_code == 404


def test_no_cookie_where_a_shared_cache_may_keep_the_answer(make_flashsale) -> None:
    app = open_shop(make_flashsale({GOODS_ID: 1}))
    web = app.test_client()
    assert "Set-Cookie" in web.post(f"/buy/{GOODS_ID}", headers=JSON).headers  # this visitor has a session
    with web.session_transaction() as session:
        session.permanent = True  # whose cookie Flask sets anew on every answer
    page = web.get("/")
    again = web.get("/", headers={"If-None-Match": page.headers["ETag"]})
    assert again.status_code == 304
    for public in (page, again, web.get(f"/sale/{GOODS_ID}"), web.get("/static/shop.css", buffered=True)):
        assert "public" in public.headers["Cache-Control"]
        assert "Set-Cookie" not in public.headers
    assert "Set-Cookie" in web.get("/orders/none", headers=JSON).headers  # nobody keeps this one


def test_every_refusal_has_its_answer(make_flashsale) -> None:
    sale = make_flashsale({GOODS_ID: 1}, started=False, cache_for=0)  # looks anew at each call
    web = open_shop(sale).test_client()

    def status() -> int:
        return web.post(f"/buy/{GOODS_ID}", headers=JSON).status_code

    assert status() == 403
    sale.start(GOODS_ID)
    sale.pause()
    assert status() == 503
    sale.resume()
    assert [status(), status()] == [202, 409]
    assert web.get(f"/sale/{GOODS_ID}").json["state"] == "SOLD_OUT"
    refused = web.post(f"/buy/{GOODS_ID}")  # by a form without a script
    assert refused.status_code == 409
    assert "<h1>Sold out.</h1>" in refused.text


class ShopMachine(SaleMachine):
    """A whole sale through the views."""

    goods = (Goods(GOODS_ID, 2, per_buyer=1),)
    quantities = (1,)

    def set_up(self) -> None:
        self.web = open_shop(self.sale).test_client()

    def name(self, buyer_id: str, order_id: str) -> str:
        return f"{buyer_id}.{order_id}"

    def place(self, goods_id: str, buyer_id: str, quantity: int, order_id: str) -> Outcome | None:
        answer = self.post(buyer_id, f"/buy/{goods_id}", key=order_id)
        if answer.status_code == 202:
            return Outcome(answer.json["outcome"])
        word = answer.json["type"].rpartition("/")[2].upper().replace("-", "_")
        return Outcome(word) if word in set(Outcome) else None

    def cancel(self, order_id: str) -> None:
        self.post(order_id.partition(".")[0], f"/orders/{order_id}/cancel")

    def pay(self, order_id: str) -> None:
        self.post(order_id.partition(".")[0], f"/orders/{order_id}/pay")

    def post(self, buyer_id: str, path: str, **form: str) -> TestResponse:
        with self.web.session_transaction() as session:
            session["buyer"] = buyer_id
        return self.web.post(path, data=form, headers=JSON)


TestWholeSale = ShopMachine.TestCase
TestWholeSale.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
