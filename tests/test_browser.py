"""The three shops in a real browser: what a visitor sees and clicks, before, during and after the sale."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import redis

from tests import servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SHOPS = ("flask", "fastapi", "django")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium was found")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


class Shop:
    """A shop that is open, with its own Redis."""

    def __init__(self, port: int, client: redis.Redis) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._client = client

    def orders(self) -> dict[str, str]:
        """Returns the state of each order in the ledger, by its id."""
        ledger = self._client.hgetall("flashsale:{launch}:orders")
        return {name.decode(): record.decode().partition("|")[0] for name, record in ledger.items()}


@contextlib.contextmanager
def open_shop(shop: str, **options: float) -> Iterator[Shop]:
    with servers.redis_server() as server:
        port = servers.free_port()
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "examples", shop, f"--port={port}", f"--redis={server.url}", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            said = process.stdout.readline()  # it speaks once the shop is open
            assert said.startswith("http://"), process.communicate(timeout=30)
            yield Shop(port, server.client())
        finally:
            process.terminate()
            errors = process.communicate(timeout=30)[1]
        assert process.returncode == 0, errors


@pytest.fixture
def visitor(browser: Browser) -> Iterator[callable]:
    """Makes visitors: each has a browser of their own, and no script of theirs may fail."""
    contexts, errors = [], []

    def visit(url: str, **options: object) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors


def buy(page: Page) -> None:
    page.get_by_role("button", name="Buy now").click()


def says(page: Page, text: str) -> None:
    """Waits until the status, which a screen reader reads out, contains a text."""
    page.get_by_role("status").filter(has_text=re.compile(text)).wait_for(timeout=40_000)


@pytest.mark.parametrize("shop", SHOPS)
def test_two_visitors_race_for_the_last_unit(shop: str, visitor, tmp_path) -> None:
    with open_shop(shop, units=1, opens_in=12, hold=60) as opened:
        anna, bert = visitor(opened.url), visitor(opened.url, viewport={"width": 390, "height": 800})
        says(anna, "The sale starts in")
        assert anna.get_by_role("button", name="Buy now").is_disabled()
        refused = anna.request.post(
            f"{opened.url}/buy/phone", form={"key": "0" * 32}, headers={"Accept": "application/json"}
        )
        assert refused.status == 403
        assert int(refused.headers["retry-after"]) >= 1
        assert opened.orders() == {}

        for page in (anna, bert):
            says(page, "On sale: 1 left")
        anna.get_by_role("button", name="Buy now").dblclick()
        anna.wait_for_url("**/orders/**")
        assert len(opened.orders()) == 1  # a double click is one order
        says(bert, "Sold out. Some orders are not paid yet")
        buy(bert)
        bert.get_by_role("alert").filter(has_text="Sold out").wait_for()

        says(anna, "please pay")
        anna.reload()
        says(anna, "please pay")
        anna.get_by_role("link", name="Back to the phone").click()
        anna.get_by_role("button", name="see your order").click()  # asking again finds the order
        anna.wait_for_url("**/orders/**")
        assert len(opened.orders()) == 1

        anna.get_by_role("button", name="Cancel the order").click()
        says(anna, "cancelled")
        says(bert, "On sale: 1 left")  # the unit has come back
        buy(bert)
        bert.wait_for_url("**/orders/**")
        says(bert, "please pay")
        bert.get_by_role("button", name="Pay").click()
        says(bert, "Paid")
        assert sorted(opened.orders().values()) == ["CANCELLED", "CONFIRMED"]
        late = visitor(opened.url)
        says(late, "^Sold out.$")
        assert late.get_by_role("button", name="Buy now").is_disabled()


@pytest.mark.parametrize("shop", SHOPS)
def test_a_lost_connection_is_one_order_in_the_end(shop: str, visitor) -> None:
    with open_shop(shop, units=5, opens_in=0, closes_in=30, hold=60) as opened:
        page = visitor(opened.url)
        says(page, "On sale: 5 left")
        lost = []

        def lose_the_answer(route) -> None:
            if lost:
                route.continue_()
            else:
                lost.append(route.fetch())  # the shop has the order; the visitor hears nothing
                route.abort("connectionreset")

        page.route("**/buy/phone", lose_the_answer)
        buy(page)
        page.get_by_role("alert").filter(has_text="The connection is lost").wait_for()
        page.wait_for_url("**/orders/**")
        assert [answer.status for answer in lost] == [202]
        assert len(opened.orders()) == 1

        stranger = visitor(page.url)
        assert "Your order" not in stranger.content()  # it is not theirs
        says(visitor(opened.url), "On sale: 4 left")
        late = visitor(opened.url)
        says(late, "The sale has ended")
        assert late.get_by_role("button", name="Buy now").is_disabled()


@pytest.mark.parametrize("shop", SHOPS)
def test_the_shop_works_without_javascript_and_by_keyboard(shop: str, visitor) -> None:
    with open_shop(shop, units=5, opens_in=0, hold=60) as opened:
        says(visitor(opened.url), "On sale")
        plain = visitor(opened.url, java_script_enabled=False)
        buy(plain)
        plain.wait_for_url("**/orders/**")
        assert "Your order" in plain.content()

        page = visitor(opened.url)
        says(page, "On sale: 4 left")
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == "Buy now":
                break
        page.keyboard.press("Enter")
        page.wait_for_url("**/orders/**")
        assert len(opened.orders()) == 2
