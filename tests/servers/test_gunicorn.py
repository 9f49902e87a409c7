"""Under gunicorn's threads: two processes, many threads each, with and without an application made before the fork."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import FlashSale
from tests.support.helpers import eventually
from tests.support.servers import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import servers

WORKERS, THREADS, UNITS, BUYERS = 2, 8, 100, 300

SHOP = """
import os
import redis
from flask import Flask
from flashsale import FlashSale

sale = FlashSale(redis.Redis.from_url(os.environ["SHOP_REDIS"]), "web")
sale.preload("phone", {units})
sale.start("phone")
for number in range(1, 9):
    sale.inventory.preload(f"goods-{{number}}", number)  # whoever reads another one's reply sees another number
app = Flask("shop")

@app.post("/buy/<buyer_id>/<order_id>")
def buy(buyer_id, order_id):
    receipt = sale.buy("phone", buyer_id, order_id=order_id)
    return {{"order_id": receipt.order_id, "outcome": receipt.outcome, "replayed": receipt.replayed, "by": os.getpid()}}

@app.post("/stock/<goods_id>")
def stock(goods_id):
    return {{"total": sale.inventory.stock(goods_id).total, "by": os.getpid()}}

@app.post("/deduct/<goods_id>")
def deduct(goods_id):
    return {{"taken": sale.inventory.deduct(goods_id)}}
"""


@pytest.fixture(params=[False, True], ids=["apps made after the fork", "preload"])
def shop(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[int]:
    """The port of the shop."""
    (tmp_path / "shop.py").write_text(SHOP.format(units=UNITS))
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--workers", str(WORKERS)]
    command += ["--threads", str(THREADS), "--bind", f"{HOST}:{port}", "--chdir", str(tmp_path), "--log-level", "error"]
    command += ["--worker-tmp-dir", str(tmp_path), "--graceful-timeout", "2", *(["--preload"] if request.param else [])]
    process = subprocess.Popen([*command, "shop:app"], env=os.environ | {"SHOP_REDIS": redis_url})

    def answer() -> bool:
        assert process.poll() is None, "gunicorn has ended"
        with contextlib.suppress(OSError), ThreadPoolExecutor(16) as several:
            answers = several.map(lambda _: ask(port, "stock/goods-1"), range(64))
            return len({each["by"] for each in answers}) == WORKERS
        return False

    try:
        eventually(answer, "answers of all of gunicorn's workers")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(port: int, path: str) -> Any:
    request = urllib.request.Request(f"http://{HOST}:{port}/{path}", method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_a_crowd_gets_what_there_is_and_everybody_hears_his_own(shop: int, redis_server: servers.RedisServer) -> None:
    buyers = [f"buy/b-{n}/o-{n}" for n in range(BUYERS)]
    paths = [*buyers, *buyers, *(f"stock/goods-{n % 8 + 1}" for n in range(200)), *["deduct/goods-8"] * 20]
    paths = paths[::2] + paths[1::2]  # everything at once
    with ThreadPoolExecutor(32) as crowd:
        answers = list(crowd.map(lambda path: ask(shop, path), paths))
    sold = set()
    for path, answer in zip(paths, answers, strict=True):
        what, name, *rest = path.split("/")
        if what == "buy":
            assert answer["order_id"] == rest[0]
            if answer["outcome"] == "ACCEPTED":
                sold.add(rest[0])
        elif what == "stock":
            assert answer["total"] == int(name.removeprefix("goods-"))
    assert sum(answer.get("taken", 0) for answer in answers) == 8
    assert len({answer["by"] for answer in answers if "by" in answer}) == WORKERS
    with redis_server.client() as client, FlashSale(client, "web") as sale:
        assert len(sold) == sale.inventory.stock("phone").booked == sale.queue.size() == UNITS
        assert {order_id for order_id in sold if sale.status(order_id) is None} == set()
