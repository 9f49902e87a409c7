"""The console in Chromium, on a phone and at a desk: by eye, by keyboard, and by what a screen reader reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fakeredis
import pytest

from flashsale import FlashSale, Goods, Syncer, Worker
from flashsale._rules.activity import Activity
from flashsale.model.trail import TrailEntry
from flashsale.ops.pages import PAGES
from flashsale.stores import SQLAlchemyStore
from tests.support.consoles import console
from tests.support.evidence import OPENING
from tests.support.shops import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

DESK, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 780}
LONG = "x" * 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The console of a sale with long names, a dead letter, a trail and curves."""
    folder: Path = tmp_path_factory.mktemp("console")
    with (
        fakeredis.FakeRedis() as client,
        SQLAlchemyStore(f"sqlite:///{folder}/shop.db", "n" * 64) as store,
        FlashSale(client, "n" * 64, store=store, cache_for=0) as sale,
    ):
        fill(sale, store)
        with console(sale) as address:
            yield address


def fill(sale: FlashSale, store: SQLAlchemyStore) -> None:
    store.create_all()
    for goods in (Goods("phone", 10, hold=900.0), Goods(f"item-{LONG[:50]}", 20_000)):
        store.put_goods(goods)
    syncer = Syncer(sale)
    syncer.run_once()
    sale.start("phone")
    for number in range(3):
        assert sale.buy("phone", f"buyer-{LONG}", order_id=f"order-{number}-{LONG}").accepted
        sale._recorder._sampled = 0.0
        syncer.run_once()
    Worker(sale).run_once()
    for kind in ("worker", "syncer"):
        sale._recorder._flush(Activity(kind))
    assert sale.buy("phone", "bob", order_id=f"dead-{LONG}").accepted
    sale.queue._bury(sale.queue.claim(1))
    store.note(TrailEntry("restock", "a" * 60, "h" * 60, OPENING, {"to": "/srv/" + LONG}, {}, {}, "because " * 30))


def visit(browser: Browser, size: dict[str, int], address: str, **options: object) -> Page:
    page = browser.new_context(viewport=size, **options).new_page()
    page.goto(address)
    return page


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("path", [*PAGES, "orders?q=bob"])
def test_a_page_is_readable(browser: Browser, url: str, path: str, size: dict[str, int]) -> None:
    said: list[str] = []
    page = browser.new_context(viewport=size).new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not ours(request.url, url) else None)
    page.goto(f"{url}{path}")
    assert not said, "a message, or something was loaded from elsewhere"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    assert page.evaluate("document.scripts.length") == 0
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("heading", level=2).count() == 1
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1
    assert page.locator("[aria-current=page]").inner_text() == PAGES[path.partition("?")[0]].title
    page.context.close()


@pytest.mark.parametrize("path", [*PAGES, "orders?q=bob"])
def test_axe_finds_nothing(browser: Browser, url: str, path: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(browser, PHONE, f"{url}{path}", bypass_csp=True)  # axe is a script, which the page forbids
    found = Axe().run(page)
    page.context.close()
    assert not found.violations_count, found.generate_report()


def ours(loaded: str, url: str) -> bool:
    return loaded.startswith((url, "data:"))


def test_a_keyboard_finds_an_order(browser: Browser, url: str) -> None:
    page = visit(browser, DESK, f"{url}status")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    assert page.locator(".skip").bounding_box()["x"] >= 0, "what has the focus is seen"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/orders")
    page.get_by_label("Order id, or buyer id").focus()
    page.keyboard.type("bob")
    page.keyboard.press("Enter")
    page.wait_for_url("**/orders?q=bob")
    assert page.get_by_role("heading", level=3).inner_text() == f"dead-{LONG}"
    assert page.get_by_text("a dead letter: dead requeue, or dead cancel").is_visible()
    page.context.close()


def test_another_page_cannot_frame_it(browser: Browser, url: str) -> None:
    page = browser.new_page()
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.set_content(f'<iframe src="{url}status"></iframe>')
    page.close()


def test_a_tables_rows_and_columns_have_names(browser: Browser, url: str) -> None:
    page = visit(browser, PHONE, f"{url}status")
    items = page.get_by_role("table", name="Items")
    assert items.get_by_role("columnheader").all_inner_texts()[:4] == ["goods", "total", "booked", "free"]
    assert items.get_by_role("rowheader").all_inner_texts()[-1] == "phone"
    page.context.close()
