"""The shop's own tests: its views on a sale of the testing kit."""

from __future__ import annotations

import importlib
import os
import time
from types import ModuleType
from unittest import mock

import pytest
from httpx import ASGITransport, AsyncClient, Response
from hypothesis import settings

from examples.shop import GOODS_ID
from flashsale import Goods, Outcome
from flashsale.aio import Worker
from flashsale.testing import AsyncSaleMachine, memory_async_store

KEY = "1" * 32
JSON = {"Accept": "application/json"}


def load_shop() -> ModuleType:
    """Returns the module, which reads its settings when it is imported."""
    with mock.patch.dict(os.environ, SHOP_SECRET="test", FLASHSALE_SALE="test"):
        return importlib.import_module("examples.fastapi_shop.app")


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    shop = load_shop()
    monkeypatch.setattr(shop.sales, "sale", None)
    return shop


def browser(shop: ModuleType) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(shop.app), base_url="http://shop")


async def test_buy_pay_and_cancel(shop: ModuleType, make_async_flashsale) -> None:
    async with make_async_flashsale({GOODS_ID: 1}, store=memory_async_store) as sale, browser(shop) as web:
        shop.sales.sale = sale
        assert (await web.get("/")).status_code == 200
        first, again = [await web.post(f"/buy/{GOODS_ID}", data={"key": KEY}, headers=JSON) for _ in range(2)]
        assert (first.status_code, first.json()["replayed"], again.json()["replayed"]) == (202, False, True)
        await Worker(sale).run_once()
        order = first.headers["Location"]
        assert (await web.get(order, headers=JSON)).json()["may_pay"]
        assert (await web.post(f"{order}/pay", headers=JSON)).json()["state"] == "CONFIRMED"
        assert (await web.post(f"{order}/cancel")).headers["Location"] == order
        assert "on sale again" in (await web.get(order)).text
        assert (await sale.inventory.stock(GOODS_ID)).remaining == 1


async def test_an_order_is_shown_to_its_buyer_only(shop: ModuleType, make_async_flashsale) -> None:
    async with make_async_flashsale({GOODS_ID: 1}) as sale, browser(shop) as buyer, browser(shop) as other:
        shop.sales.sale = sale
        order = (await buyer.post(f"/buy/{GOODS_ID}", headers=JSON)).headers["Location"]
        assert (await other.get(order)).status_code == 404


async def test_no_cookie_where_a_shared_cache_may_keep_the_answer(shop: ModuleType, make_async_flashsale) -> None:
    async with make_async_flashsale({GOODS_ID: 1}) as sale, browser(shop) as web:
        shop.sales.sale = sale
        bought = await web.post(f"/buy/{GOODS_ID}", headers=JSON)
        assert "Set-Cookie" in bought.headers  # this visitor has a session
        page = await web.get("/")
        again = await web.get("/", headers={"If-None-Match": page.headers["ETag"]})
        assert again.status_code == 304
        for public in (page, again, await web.get(f"/sale/{GOODS_ID}"), await web.get("/static/shop.css")):
            assert public.headers["Cache-Control"].startswith("public")
            assert "Set-Cookie" not in public.headers
            assert "Cookie" not in public.headers.get("Vary", "")  # else the CDN keeps a copy for each visitor


async def test_who_is_early_hears_when_to_come_back(shop: ModuleType, make_async_flashsale) -> None:
    goods = Goods(GOODS_ID, 1, opens_at=time.time() + 100)
    async with make_async_flashsale([goods]) as sale, browser(shop) as web:
        shop.sales.sale = sale
        early = await web.post(f"/buy/{GOODS_ID}", headers=JSON)
        assert early.status_code == 403
        assert 90 < int(early.headers["Retry-After"]) <= 101


async def test_who_has_no_script_reads_why_on_a_page(shop: ModuleType, make_async_flashsale) -> None:
    async with make_async_flashsale({GOODS_ID: 0}) as sale, browser(shop) as web:
        shop.sales.sale = sale
        refused = await web.post(f"/buy/{GOODS_ID}")
        assert refused.status_code == 409
        assert "<h1>Sold out.</h1>" in refused.text
        wrong = await web.post(f"/buy/{GOODS_ID}", data={"key": "short"})
        assert wrong.status_code == 400
        assert "32 hexadecimal digits" in wrong.text


class ShopMachine(AsyncSaleMachine):
    """A whole sale through the views."""

    goods = (Goods(GOODS_ID, 2, per_buyer=1),)
    quantities = (1,)

    async def set_up(self) -> None:
        self.shop = load_shop()
        self.shop.sales.sale = self.sale
        self.shop.app.dependency_overrides[self.shop.the_buyer] = lambda: self.buyer
        self.web = browser(self.shop)

    async def tear_down(self) -> None:
        await self.web.aclose()
        self.shop.app.dependency_overrides.clear()
        self.shop.sales.sale = None

    def name(self, buyer_id: str, order_id: str) -> str:
        return f"{buyer_id}.{order_id}"

    async def place(self, goods_id: str, buyer_id: str, quantity: int, order_id: str) -> Outcome | None:
        answer = await self.post(buyer_id, f"/buy/{goods_id}", key=order_id)
        if answer.status_code == 202:
            return Outcome(answer.json()["outcome"])
        word = answer.json()["type"].rpartition("/")[2].upper().replace("-", "_")
        return Outcome(word) if word in set(Outcome) else None

    async def cancel(self, order_id: str) -> None:
        await self.post(order_id.partition(".")[0], f"/orders/{order_id}/cancel")

    async def pay(self, order_id: str) -> None:
        await self.post(order_id.partition(".")[0], f"/orders/{order_id}/pay")

    async def post(self, buyer_id: str, path: str, **form: str) -> Response:
        self.buyer = buyer_id
        return await self.web.post(path, data=form, headers=JSON)


TestWholeSale = ShopMachine.TestCase
TestWholeSale.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
