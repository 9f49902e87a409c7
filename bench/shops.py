"""The three example shops under load: each is opened by its one command, and visited by wrk on the same machine.

A visitor without a cookie is a new buyer. At the end every order that was answered "accepted" must be in the database.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import redis

from bench.harness import Case
from bench.servers import GOODS, free_port, stop
from flashsale import FlashSale, Syncer
from flashsale.stores import SQLAlchemyStore

SHOPS = {
    "flask": "gunicorn gthread, 2 processes with 32 threads each",
    "fastapi": "uvicorn, 2 processes",
    "django": "gunicorn gthread, 2 processes with 32 threads each",
}
UNITS = 1_000_000  # more than any run sells
CONNECTIONS = 64
LOAD = {
    "product page": ("GET", "/", 200),
    "status": ("GET", f"/sale/{GOODS}", 200),
    "buy": ("POST", f"/buy/{GOODS}", 202),
}
AFTER = {"buy, sold out": ("POST", f"/buy/{GOODS}", 409)}
DRAINED = 120.0  # seconds for the worker to save what was sold


class Shop:
    """An example shop that is open.

    Attributes:
        name: its framework.
        accepted: ids of the orders that a visitor was told of.
        cut_off: requests to buy that were on the way when wrk hung up, at most.
    """

    def __init__(self, name, port, sale, folder):
        self.name, self._port, self._sale, self._folder = name, port, sale, folder
        self._syncer = Syncer(sale)
        self._runs = itertools.count()
        self.accepted, self.cut_off = [], 0

    def visit(self, method, path, status, seconds):
        """Sends as many requests as the shop answers, and returns the figures."""
        orders = self._folder / f"{self.name}-{next(self._runs)}"
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{math.ceil(seconds)}s", "--timeout=10s"]
        command += ["-s", str(Path(__file__).with_name("shops.lua")), f"http://127.0.0.1:{self._port}", "--"]
        command += [method, path, str(status), *([str(orders)] if status == 202 else [])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
        if status == 202:
            self.accepted += [line.rpartition("/")[2] for line in orders.read_text().splitlines()]
            self.cut_off += CONNECTIONS
        figures = json.loads(done.stdout.splitlines()[-1])
        if failed := figures.pop("failed"):
            raise AssertionError(f"{failed:.0f} requests failed")
        return figures

    def sell_out(self):
        """Takes what is not sold yet from the sale, as a back office does, and waits until all orders are saved."""
        [goods] = self._sale.store.goods()
        self._sale.store.put_goods(replace(goods, total=0))  # Redis stops at what is booked
        until = time.monotonic() + DRAINED
        while not self._syncer.run_once().leading or self._syncer.audit().pending:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name}: the orders are not in the database after {DRAINED:g} s")
            time.sleep(0.2)

    def books(self):
        """Compares what visitors were told with the database.

        Raises:
            AssertionError: an accepted order is missing, or an order that nobody asked for is there.
        """
        audit = self._syncer.audit(expected=self.accepted)
        states = Counter()
        after = None
        while page := self._sale.store.orders(after=after):
            after = page[-1].order.order_id
            states.update(row.state for row in page)
        saved = sum(states.values())
        unheard = saved - len(self.accepted)
        assert audit.ok, f"{self.name}: {audit}"
        assert not audit.lost, f"{self.name}: {len(audit.lost)} accepted orders are nowhere"
        assert set(states) <= {"PERSISTED"}, f"{self.name}: {states}"
        assert 0 <= unheard <= self.cut_off, f"{self.name}: {saved} orders, {len(self.accepted)} accepted"
        assert audit.units.total == audit.units.held == saved, f"{self.name}: {audit.units}"
        return {"shop": self.name, "accepted": len(self.accepted), "saved": saved, "unheard": unheard}


@contextlib.contextmanager
def _open_shop(name, folder):
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "examples",
        name,
        f"--port={port}",
        f"--units={UNITS}",
        "--opens-in=0",
        "--hold=3600",
    ]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        said = list(itertools.takewhile(lambda line: not line.startswith("Ctrl-C"), process.stdout))
        settings = dict(line.strip().split("=", 1) for line in said[1:])
        client = redis.Redis.from_url(settings["FLASHSALE_REDIS_URL"])
        store = SQLAlchemyStore(settings["FLASHSALE_DATABASE_URL"], settings["FLASHSALE_SALE"])
        with client, store, FlashSale(client, store.sale, store=store) as sale:
            shop = Shop(name, port, sale, folder)
            while not _on_sale(sale):
                time.sleep(0.1)
            shop.visit(*LOAD["status"], 1)  # each process opens its sale
            yield shop
    finally:
        stop(process)


def _on_sale(sale):
    try:
        return sale.view(GOODS).remaining == UNITS
    except LookupError:  # the shop's syncer has not brought the item yet
        return False


def run(bench):
    if shutil.which("wrk") is None:
        return None
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashsale-bench-")))
        shops = [stack.enter_context(_open_shop(name, folder)) for name in SHOPS]

        def cases(asked):
            seconds = max(1.0, 3 * bench.seconds)
            return [
                Case("shops", shop.name, what, partial(shop.visit, *request, seconds), pinned=False)
                for what, request in asked.items()
                for shop in shops
            ]

        records = bench.run("shops", cases(LOAD))
        for shop in shops:
            shop.sell_out()
        records += bench.run("shops", cases(AFTER))
        books = [shop.books() for shop in shops]
        return {"records": records, "books": books, "ways": SHOPS, "connections": CONNECTIONS}
