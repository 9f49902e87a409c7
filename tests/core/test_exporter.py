"""The exporter: it answers until it is told to stop, whatever Redis does."""

from __future__ import annotations

import socket
import sys
import threading
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import fakeredis
import pytest

from flashsale import FlashSale
from flashsale.ops.exporter import serve
from flashsale.ops.metrics import Reading
from flashsale.ops.reading import scrape
from tests.support import servers
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def exporter(collect: Callable[[], Reading]) -> Iterator[str]:
    """Runs an exporter and gives the URL of its page."""
    port, stop = servers.free_port(), threading.Event()
    thread = threading.Thread(target=serve, args=(collect, port), kwargs={"stop": stop})
    thread.start()
    try:
        eventually(lambda: is_open(port), "the exporter listens")
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert not is_open(port)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.read().decode()


def test_the_exporter_answers_until_it_is_told_to_stop() -> None:
    with exporter(lambda: Reading("nov11", "0.1.0")) as url:
        assert 'flashsale_up{sale="nov11"} 0.0' in page(url)


@pytest.mark.skipif(sys.platform != "linux", reason="one loopback address elsewhere")
def test_it_listens_on_the_loopback_interface_only() -> None:
    with exporter(lambda: Reading("nov11", "0.1.0")) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # 0.0.0.0 would have taken this one, too


@pytest.fixture
def sale(redis_url: str) -> Iterator[FlashSale]:
    import redis

    with redis.Redis.from_url(redis_url) as client, FlashSale(client, "nov11") as sale:
        if not hasattr(sale, "_recorder"):
            pytest.skip("this release has no recorder")
        sale.preload("phone", 10)
        sale.start("phone")
        yield sale


def test_a_sale_is_read_by_its_recorder(sale: FlashSale) -> None:
    sale.buy("phone", "ann")
    with exporter(lambda: scrape(sale)) as url:
        text = page(url)
    assert 'flashsale_up{sale="nov11"} 1.0' in text
    assert 'flashsale_booked_units{goods="phone",sale="nov11"} 1.0' in text
    assert 'flashsale_queued_orders{sale="nov11"} 1.0' in text
    assert "flashsale_redis_memory_used_bytes" in text


def test_a_redis_that_is_gone_is_told() -> None:
    server = fakeredis.FakeServer()
    with fakeredis.FakeRedis(server=server) as client, FlashSale(client, "nov11") as sale:
        if not hasattr(sale, "_recorder"):
            pytest.skip("this release has no recorder")
        server.connected = False
        assert scrape(sale).snapshot is None
