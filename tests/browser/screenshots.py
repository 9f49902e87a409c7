"""Plays a sale in the Flask shop, and an operator's with the command, and takes the pictures of docs/images."""

from __future__ import annotations

import contextlib
import io
import random
import re
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from rich.console import Console

from flashsale import FlashSale
from flashsale.cli import main as flashsale
from flashsale.clients import from_url
from flashsale.model import OrderState
from flashsale.ops.frame import Context
from flashsale.ops.status import see
from flashsale.ops.top import screen
from flashsale.stores import SQLAlchemyStore
from tests.browser import board
from tests.support import servers
from tests.support.consoles import VERB, Program, console
from tests.support.helpers import eventually
from tests.support.shops import chromium, open_shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).parent.parent.parent / "docs" / "images"
DEVICES = {"desktop": {"width": 1280, "height": 500}, "phone": {"width": 390, "height": 680}}
PATIENCE = 30_000  # milliseconds
NAME_HOST = "name => { document.body.innerHTML = document.body.innerHTML.replaceAll(`${name}:`, 'shop-1:') }"


def take(page: Page, name: str, *devices: str, taller: int = 0) -> None:
    """Takes pictures of what the page shows now; `taller` by so many pixels than the device is."""
    for device in devices:
        size = DEVICES[device]
        page.set_viewport_size({**size, "height": size["height"] + taller})
        keep(page.screenshot(animations="disabled"), f"{name}-{device}")


def take_element(page: Page, selector: str, name: str) -> None:
    """Takes a picture of one element."""
    keep(page.locator(selector).screenshot(animations="disabled"), name)


def keep(picture: bytes, name: str) -> None:
    file = FOLDER / f"{name}.png"
    Image.open(io.BytesIO(picture)).quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.stat().st_size:7,}  {file.name}")


def wait(page: Page, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for(timeout=PATIENCE)


# -- the operator ---------------------------------------------------------------------------------------------------


def look_at_the_night(browser: Browser) -> None:
    """Sells for a minute as an operator does, with the command, and takes pictures of what he sees."""
    with servers.temporary_folder() as folder, operated(folder) as (sale, operator):
        operator("goods", "set", "phone", "--total", "600", "--per-buyer", "2", "--hold", "25", "--new")
        with processes(operator.where), board.watched(folder, operator.where) as prometheus:
            eventually(lambda: "phone" in sale._meta.goods(), "the syncer loads the item")
            operator("open", "phone", "--reason", "the sale begins")
            buyers = threading.Thread(target=crowd, args=(sale, 60.0))
            buyers.start()
            eventually(lambda: sale.inventory.stock("phone").booked > 450, "most of it is sold", within=60)
            look_at_top(browser, sale)
            operator("restock", "phone", "+100", "--reason", "second delivery")
            buyers.join()
            look_at_board(browser, prometheus)
            look_at_console(browser, sale)
            operator("stop", "phone", "--yes", "--reason", "the article is gone")
            eventually(lambda: not sale._recorder.look().unpaid, "unpaid orders expire", within=90)
            report = folder / "report.html"
            operator("settle", "--report", str(report))
        look_at_report(browser, report)


class Typed:
    """Types commands of one sale."""

    def __init__(self, redis_url: str, database: str) -> None:
        self.where = ["--redis", redis_url, "--database", database, "--sale", "nov11"]

    def __call__(self, *words: str) -> None:
        assert flashsale([*words, *self.where, "--as", "anna"]) == 0, words


@contextlib.contextmanager
def operated(folder: Path) -> Iterator[tuple[FlashSale, Typed]]:
    """A sale on servers of its own, and its operator."""
    database = f"sqlite:///{folder}/shop.db"
    with (
        servers.redis_server(aof=True, maxmemory="64mb") as server,
        SQLAlchemyStore(database, "nov11") as store,
        FlashSale(from_url(server.url), "nov11", store=store) as sale,
    ):
        store.create_all()
        yield sale, Typed(server.url, database)


@contextlib.contextmanager
def processes(where: list[str]) -> Iterator[None]:
    """Two workers and two syncers."""
    command = [sys.executable, "-m", "flashsale"]
    running = [subprocess.Popen([*command, kind, *where]) for kind in ("worker", "worker", "syncer", "syncer")]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def crowd(sale: FlashSale, seconds: float) -> None:
    """Buys for so long, at a pace that falls; of the orders that are saved it pays most, cancels some, forgets some."""
    chance, began = random.Random(11), time.monotonic()
    waiting: list[str] = []
    while (gone := time.monotonic() - began) < seconds:
        receipt = sale.buy("phone", f"buyer-{chance.randrange(4000)}")
        if receipt.accepted and chance.random() < 0.8:
            waiting.append(receipt.order_id)
        if len(waiting) > 20 and sale.status(order_id := waiting.pop(0)) is OrderState.PERSISTED:
            (sale.cancel if chance.random() < 0.1 else sale.confirm)(order_id)
        time.sleep(chance.uniform(0.01, 0.03 + 0.04 * gone / seconds))


def look_at_top(browser: Browser, sale: FlashSale) -> None:
    with Context(VERB, Namespace(), Program(sale), sys.stdout, sys.stderr) as context:
        lines = screen(see(context))
    terminal = Console(record=True, width=100, file=io.StringIO())
    terminal.print(unnamed("\n".join(lines)), markup=False, highlight=False, soft_wrap=True)
    picture = re.sub(r"@font-face \{.*?\}", "", terminal.export_svg(title="flashsale top"), flags=re.DOTALL)
    with contextlib.closing(browser.new_context()) as context_of_page:
        page = context_of_page.new_page()
        page.set_content(f"<body style='margin: 0; width: 1000px'>{picture}</body>")
        take_element(page, "svg", "top")


def look_at_board(browser: Browser, prometheus: str) -> None:
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.set_content(unnamed(board.page(prometheus, "nov11")))
        page.set_viewport_size({"width": 1280, "height": 720})
        keep(page.screenshot(full_page=True, animations="disabled"), "board")


def look_at_console(browser: Browser, sale: FlashSale) -> None:
    with console(sale) as url, contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        for path, devices in (("status", list(DEVICES)), ("curves", ["desktop"])):
            page.goto(f"{url}{path}")
            page.evaluate(NAME_HOST, socket.gethostname())
            take(page, f"console-{path}", *devices)


def look_at_report(browser: Browser, report: Path) -> None:
    report.write_text(unnamed(report.read_text()))
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(report.as_uri())
        take(page, "report", *DEVICES, taller=400)


def unnamed(text: str) -> str:
    """Returns a text without the name of this machine."""
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "shop-1", text)


# -- the shop -------------------------------------------------------------------------------------------------------


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
        look_at_the_night(browser)


if __name__ == "__main__":
    main()
