"""The example shops, opened by their one command, and the Chromium of this machine that visits them."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from flashsale import FlashSale, Goods, OrderState, Syncer
from flashsale.model import RELEASED
from flashsale.stores import SQLAlchemyStore
from tests.support import servers
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

SHOPS = ("flask", "fastapi", "django")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-software-rasterizer",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Runs the Chromium of this machine; skips the test without one."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        servers.missing("Chromium", in_ci=False)
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with (
        sync_api.sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=path, args=SWITCHES)) as browser,
    ):
        yield browser


class OpenShop:
    """A shop that is open, and its back office.

    Attributes:
        url: of the product page.
        redis: its server, which can be killed and started again.
        sale: the shop's sale, as the back office sees it.
    """

    def __init__(self, url: str, redis: servers.RedisServer, sale: FlashSale) -> None:
        self.url = url
        self.redis = redis
        self.sale = sale
        self._syncer = Syncer(sale)

    def orders(self) -> dict[str, OrderState]:
        """Returns the state of each order in the ledger, by its id."""
        return {order_id: record.state for page in self.sale._ledger.pages() for order_id, record in page.items()}

    def offer(self, units: int, *, opens_in: float = 0.0, hold: float = 600.0) -> None:
        """Begins the sale anew: cancels all orders, and offers as many units; returns when Redis knows."""
        for order_id, state in self.orders().items():
            if state not in RELEASED:
                self.sale.cancel(order_id)
        self._put(Goods("phone", units, per_buyer=1, opens_at=time.time() + opens_in, hold=hold))

    def end(self) -> None:
        """Lets the sale end now."""
        now = time.time()
        self._put(Goods("phone", 1, opens_at=now - 2, closes_at=now - 1))

    def _put(self, goods: Goods) -> None:
        self.sale.store.put_goods(goods, replace=True)
        eventually(lambda: self._syncer.run_once().leading, "a pass of the syncer")


@contextlib.contextmanager
def open_shop(shop: str) -> Iterator[OpenShop]:
    """Opens one by its command, on a Redis that survives a crash."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.redis_server(aof=True))
        command = [sys.executable, "-m", "examples", shop, f"--port={servers.free_port()}", f"--redis={server.url}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        stack.callback(_close, process)
        said = list(itertools.takewhile(lambda line: not line.startswith("Ctrl-C"), process.stdout))
        assert said, process.communicate(timeout=30)
        settings = dict(line.strip().split("=", 1) for line in said[1:])
        name = settings["FLASHSALE_SALE"]
        store = stack.enter_context(SQLAlchemyStore(settings["FLASHSALE_DATABASE_URL"], name))
        sale = stack.enter_context(FlashSale(server.client(), name, store=store))
        yield OpenShop(said[0].split()[0], server, sale)


def _close(process: subprocess.Popen[str]) -> None:
    process.terminate()
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 0, errors
