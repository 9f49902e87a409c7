"""The three shops in a real browser: what a visitor sees and clicks, before, during and after the sale.

The shops share pages, styles and script. So what the script alone does is looked at in one shop, and every state that
is waited for is checked with axe-core once: light on a desktop, dark on a phone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from flashsale import InvalidTicket, web
from tests.support.shops import SHOPS, OpenShop, chromium, open_shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator, Page

    Visit = Callable[..., Page]

CHECKED: set[str] = set()  # states
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def only_in(shop: str) -> pytest.MarkDecorator:
    """For what the shops share: it is looked at in one of them."""
    return pytest.mark.parametrize("shop", [shop], indirect=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=SHOPS)
def shop(request: pytest.FixtureRequest, browser: Browser) -> Iterator[OpenShop]:
    """A shop that is open; each test begins its sale anew."""
    with open_shop(request.param) as opened:
        yield opened


@pytest.fixture
def visit(shop: OpenShop, browser: Browser) -> Iterator[Visit]:
    """Makes visitors: each has a browser of their own, and no script of theirs may fail."""
    contexts, errors = [], []

    def visit(path: str = "/", **options: object) -> Page:
        context = browser.new_context(viewport=DESKTOP, **options)
        context.set_default_timeout(40_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(shop.url.rstrip("/") + path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors


def the_button(page: Page, name: str = "Buy now") -> Locator:
    return page.get_by_role("button", name=name)


def buy(page: Page) -> None:
    the_button(page).click()


def place_order(page: Page) -> None:
    """Buys, and waits until the order is in the database."""
    buy(page)
    page.wait_for_url("**/orders/**")
    says(page, "please pay")


def says(page: Page, text: str) -> None:
    """Waits until the status, which a screen reader reads out, contains a text."""
    page.get_by_role("status").filter(has_text=re.compile(text)).wait_for()
    assert_accessible(page, text)


def is_on_sale(page: Page, left: str) -> None:
    page.locator("#figure", has_text=left).wait_for()
    says(page, "On sale")


def warns(page: Page, text: str) -> None:
    """The same for what is said at once."""
    page.get_by_role("alert").filter(has_text=text).wait_for()
    assert_accessible(page, text)


def assert_accessible(page: Page, state: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    if state in CHECKED:
        return
    CHECKED.add(state)
    for size, scheme in ((PHONE, "dark"), (DESKTOP, "light")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page)
        assert not found.violations_count, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


def test_two_visitors_race_for_the_last_unit(shop: OpenShop, visit: Visit) -> None:
    shop.offer(1, opens_in=600)
    anna, bert = visit(), visit()
    says(anna, "The sale starts in")
    assert re.fullmatch(r"09:\d\d|10:00", anna.locator("#figure").inner_text())
    assert the_button(anna).is_disabled()
    refused = anna.request.post(f"{shop.url}buy/phone", form={"key": "0" * 32}, headers={"Accept": "application/json"})
    assert refused.status == 403
    assert int(refused.headers["retry-after"]) >= 1

    shop.offer(1, opens_in=3)
    for page in (anna, bert):
        page.reload()
        is_on_sale(page, "1 left")
    the_button(anna).dblclick()
    anna.wait_for_url("**/orders/**")
    says(anna, "please pay")
    assert active(shop) == ["PERSISTED"]  # a double click is one order
    says(bert, "Sold out. Some orders are not paid yet")
    buy(bert)
    warns(bert, "Sold out")

    anna.reload()
    says(anna, "please pay")
    anna.get_by_role("link", name="Back to the phone").click()
    buy(anna)  # asking again finds the order
    anna.wait_for_url("**/orders/**")
    assert active(shop) == ["PERSISTED"]

    the_button(anna, "Cancel the order").click()
    says(anna, "cancelled")
    is_on_sale(bert, "1 left")  # the unit has come back
    place_order(bert)
    the_button(bert, "Pay").click()
    says(bert, "Paid")
    assert active(shop) == ["CONFIRMED"]
    late = visit()
    says(late, "^Sold out.$")
    assert the_button(late).is_disabled()


def active(shop: OpenShop) -> list[str]:
    """Returns the states of the orders that book units."""
    return sorted(state for state in shop.orders().values() if state in {"QUEUED", "PERSISTED", "CONFIRMED"})


@only_in("flask")
def test_a_lost_connection_is_one_order_in_the_end(shop: OpenShop, visit: Visit) -> None:
    shop.offer(5)
    page = visit()
    is_on_sale(page, "5 left")
    lost, found = [], []

    def lose_the_answer(route) -> None:
        if found:
            route.continue_()
        else:
            lost.append(route.fetch().status)  # the shop has the order; the visitor hears nothing
            route.abort("connectionreset")

    page.route("**/buy/phone", lose_the_answer)
    buy(page)
    warns(page, "The connection is lost. Trying again")
    found.append(True)
    page.wait_for_url("**/orders/**")
    assert set(lost) == {202}
    assert len(active(shop)) == 1

    stranger = visit(page.url.removeprefix(shop.url.rstrip("/")))
    assert "Your order" not in stranger.content()  # it is not theirs


@only_in("fastapi")
def test_the_shop_works_without_javascript_and_by_keyboard(shop: OpenShop, visit: Visit) -> None:
    shop.offer(5)
    plain = visit(java_script_enabled=False)
    buy(plain)
    plain.wait_for_url("**/orders/**")
    assert "Your order" in plain.content()

    page = visit()
    is_on_sale(page, "4 left")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == "Buy now":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/orders/**")
    assert len(active(shop)) == 2


@only_in("flask")
def test_an_order_that_is_not_paid_in_time_goes_to_another_visitor(shop: OpenShop, visit: Visit) -> None:
    shop.offer(1, hold=1)
    anna, bert = visit(), visit()
    buy(anna)
    says(anna, "not paid in time")
    assert the_button(anna, "Pay").is_disabled()
    is_on_sale(bert, "1 left")
    shop.offer(1, hold=600)
    place_order(bert)
    assert active(shop) == ["PERSISTED"]


@only_in("flask")
def test_a_pause_and_the_end(shop: OpenShop, visit: Visit) -> None:
    shop.offer(2)
    page = visit()
    is_on_sale(page, "2 left")
    shop.sale.pause()
    says(page, "The sale is paused")
    assert the_button(page).is_disabled()
    shop.sale.resume()
    is_on_sale(page, "2 left")
    assert the_button(page).is_enabled()
    shop.end()
    says(page, "The sale has ended")
    assert the_button(page).is_disabled()


@only_in("flask")
def test_one_per_person(shop: OpenShop, visit: Visit) -> None:
    shop.offer(2)
    page = visit()
    place_order(page)
    page.evaluate("localStorage.clear()")  # the same person on another device: another request
    page.get_by_role("link", name="Back to the phone").click()
    is_on_sale(page, "1 left")
    buy(page)
    warns(page, "You have one already")
    assert len(active(shop)) == 1


@only_in("flask")
def test_a_ticket_that_is_refused_is_told_and_not_tried_again(shop: OpenShop, visit: Visit) -> None:
    shop.offer(1)
    page = visit()
    is_on_sale(page, "1 left")
    refused = web.refuse(InvalidTicket("has expired"))  # as a shop with tickets answers
    asked = []

    def refuse(route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=refused.status, headers=refused.headers, body=refused.body)

    page.route("**/buy/phone", refuse)
    buy(page)
    warns(page, "The ticket is not valid for this purchase")
    assert the_button(page).is_enabled()
    assert len(asked) == 1
    assert active(shop) == []


@only_in("django")
def test_redis_away_is_a_closed_shop_that_loses_nothing(shop: OpenShop, visit: Visit) -> None:
    shop.offer(2)
    anna, bert = visit(), visit()
    for page in (anna, bert):
        is_on_sale(page, "2 left")
    bert.route("**/sale/phone", lambda route: route.abort())  # he clicks before his page has noticed
    try:
        shop.redis.kill()
        says(anna, "The shop cannot be reached")
        assert the_button(anna).is_disabled()
        plain = visit(java_script_enabled=False)
        buy(plain)
        plain.get_by_role("heading", name="The sale cannot be reached; nothing has happened.").wait_for()
        buy(bert)
        warns(bert, "The shop cannot be reached just now. Trying again")
    finally:
        shop.redis.restart()
    bert.wait_for_url("**/orders/**")
    says(bert, "please pay")
    is_on_sale(anna, "1 left")
    assert active(shop) == ["PERSISTED"]
    try:
        shop.redis.kill()
        the_button(bert, "Pay").click()
        warns(bert, "The shop cannot be reached just now. Trying again")
    finally:
        shop.redis.restart()
    says(bert, "Paid")
    assert active(shop) == ["CONFIRMED"]
