"""Plays a sale in the Flask shop and takes the pictures of docs/images, of the console too: `make screenshots`."""

from __future__ import annotations

import contextlib
import io
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from tests.support.consoles import console
from tests.support.shops import OpenShop, chromium, open_shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).parent.parent.parent / "docs" / "images"
DEVICES = {"desktop": {"width": 1280, "height": 500}, "phone": {"width": 390, "height": 680}}
PATIENCE = 30_000  # milliseconds
NAME_HOST = "name => { document.body.innerHTML = document.body.innerHTML.replaceAll(`${name}:`, 'shop-1:') }"


def take(page: Page, name: str, *devices: str) -> None:
    """Takes pictures of what the page shows now."""
    for device in devices:
        page.set_viewport_size(DEVICES[device])
        file = FOLDER / f"{name}-{device}.png"
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
        picture.quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
        print(f"{file.stat().st_size:7,}  {file.name}")


def wait(page: Page, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for(timeout=PATIENCE)


def look_at_console(browser: Browser, shop: OpenShop) -> None:
    """Sells for some seconds, and takes pictures of what the operator sees."""
    shop.offer(200)
    for number in range(120):
        shop.sale.buy("phone", f"buyer-{number}")
        time.sleep(0.05)
    with console(shop.sale) as url, contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        for path, devices in (("status", list(DEVICES)), ("curves", ["desktop"])):
            page.goto(f"{url}{path}")
            page.evaluate(NAME_HOST, socket.gethostname())
            take(page, f"console-{path}", *devices)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with chromium() as browser, open_shop("flask") as shop, contextlib.ExitStack() as stack:

        def visit() -> Page:
            context = stack.enter_context(contextlib.closing(browser.new_context(reduced_motion="reduce")))
            page = context.new_page()
            page.goto(shop.url)
            return page

        shop.offer(3, opens_in=83)
        bert = visit()
        wait(bert, "The sale starts in")
        take(bert, "shop-before", *DEVICES)
        shop.offer(3)
        bert.reload()
        wait(bert, "On sale")
        take(bert, "shop-selling", *DEVICES)
        shop.offer(1)
        anna = visit()
        wait(anna, "On sale")
        anna.get_by_role("button", name="Buy now").click()
        wait(anna, "please pay")
        take(anna, "shop-order", *DEVICES)
        wait(bert, "one may return")
        take(bert, "shop-sold-out", *DEVICES)
        anna.get_by_role("button", name="Pay").click()
        wait(anna, "Paid")
        take(anna, "shop-paid", "phone")
        shop.end()
        wait(bert, "ended")
        take(bert, "shop-ended", "phone")
        look_at_console(browser, shop)


if __name__ == "__main__":
    main()
