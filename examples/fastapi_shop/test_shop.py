"""The shop's own tests: its views on a sale of the testing kit."""

from __future__ import annotations

import importlib
import time
from types import ModuleType

import pytest
from httpx import ASGITransport, AsyncClient

from examples.shop import GOODS_ID
from flashsale import Goods
from flashsale.aio import Worker
from flashsale.testing import memory_async_store

KEY = "1" * 32
JSON = {"Accept": "application/json"}


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, which reads its settings when it is imported."""
    monkeypatch.setenv("SHOP_SECRET", "test")
    monkeypatch.setenv("FLASHSALE_SALE", "test")
    shop = importlib.import_module("examples.fastapi_shop.app")
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
