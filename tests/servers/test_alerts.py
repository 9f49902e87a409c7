"""Alerts for real: a sale that sells and saves, a fault of a process or a server, and what Prometheus fires first.

The sales run side by side: Prometheus waits half a minute before it says that nothing moves.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flashsale import FlashSale, FlashSaleError, Goods
from flashsale.ops.exporter import Collector
from flashsale.ops.reading import scrape
from flashsale.stores import SQLAlchemyStore
from tests.support import servers
from tests.support.chaos_steps import SALE, Crew
from tests.support.helpers import eventually
from tests.support.scrapes import firing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EVERY = 5  # seconds between two scrapes
WELL = 5  # scrapes of a sale that is well
MOST = 20  # scrapes in all
JUDGED = 3  # scrapes at a time: promtool takes half a second


class Night:
    """A sale with a worker, a syncer and a crowd.

    Attributes:
        server: its Redis.
        database_url: of its PostgreSQL.
        worker, syncer: its processes.
        stack: ends what a fault began.
    """

    def __init__(self, folder: Path, server: servers.RedisServer, database_url: str) -> None:
        folder.mkdir()
        self.server = server
        self.database_url = database_url
        self.stack = contextlib.ExitStack()
        self._over = threading.Event()
        with SQLAlchemyStore(database_url, SALE) as store:
            store.create_all()
            store.put_goods(Goods("phone", 1_000_000, opens_at=1.0))
        self._crew = Crew(folder, server.url, database_url)
        self.stack.callback(self._crew.close)
        self.worker = self._crew.start("worker")
        self.syncer = self._crew.start("syncer")

    def first_alerts(self, fault: Callable[[Night], object]) -> set[str]:
        """Lets the sale be well for a while, then lets the fault strike; returns what fires first."""
        pages: list[str] = []
        struck, judged = False, WELL
        with self._open() as sale:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(Collector(lambda: scrape(sale)))
            for place in scrapes():
                page = generate_latest(registry).decode()
                pages += [page] * (place + 1 - len(pages))  # where the machine was slow, one stands for several
                if place < min(judged, MOST):
                    continue  # what fires by now, still fires then
                judged = place + JUDGED
                if firing(pages, EVERY):
                    looks = (firing(pages[: len(pages) - back], EVERY) for back in reversed(range(JUDGED)))
                    found = next(filter(None, looks))
                    return found if struck else {"before the fault", *found}
                if not struck:
                    fault(self)
                    struck = True
        return set()

    @contextlib.contextmanager
    def _open(self) -> Iterator[FlashSale]:
        """Sells while the block runs."""
        with self.stack, self.server.client() as client, FlashSale(client, SALE) as sale:
            eventually(lambda: is_open(sale), "the syncer opens the sale", within=60.0)
            crowd = threading.Thread(target=self._sell, args=(sale,))
            crowd.start()
            try:
                yield sale
            finally:
                self._over.set()
                crowd.join()

    def _sell(self, sale: FlashSale) -> None:
        number = 0
        while not self._over.wait(0.2):
            number += 1
            with contextlib.suppress(FlashSaleError):
                sale.buy("phone", f"buyer-{number}")


def is_open(sale: FlashSale) -> bool:
    with contextlib.suppress(FlashSaleError):
        return sale.gate.state("phone").started
    return False


def scrapes() -> Iterator[int]:
    """Waits for the time of each scrape, and gives its place; one whose time has passed is left out."""
    began, place = time.monotonic(), -1
    while place < MOST:
        place = max(place + 1, int((time.monotonic() - began) // EVERY))
        time.sleep(max(0.0, began + place * EVERY - time.monotonic()))
        yield place


def frozen_worker(night: Night) -> None:
    night.worker.send_signal(signal.SIGSTOP)
    night.stack.callback(night.worker.send_signal, signal.SIGCONT)


def locked_table(night: Night) -> None:
    connection = psycopg.connect(night.database_url.replace("postgresql+psycopg", "postgresql"))
    night.stack.callback(connection.close)
    connection.execute("LOCK TABLE flashsale_orders IN EXCLUSIVE MODE")


def dead_leader(night: Night) -> None:
    night._crew.kill(night.syncer)


def full_memory(night: Night) -> None:
    client = night.server.client()
    client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)


def lost_stock(night: Night) -> None:
    night.server.client().delete(f"flashsale:{{{SALE}}}:phone:stock")


FAULTS: dict[Callable[[Night], object], set[str]] = {
    frozen_worker: {"FlashsaleNotDraining"},
    locked_table: {"FlashsaleNotDraining"},
    dead_leader: {"FlashsaleNoLeader"},
    full_memory: {"FlashsaleNoLeader"},
    lost_stock: {"FlashsaleGoodsMissing"},
}


@pytest.mark.timeout(300)
def test_a_fault_fires_the_right_alert_first(tmp_path: Path, postgres: servers.Postgres) -> None:
    def play(fault: Callable[[Night], object]) -> Any:
        with servers.redis_server() as server, postgres.database() as database_url:
            return Night(tmp_path / fault.__name__, server, database_url).first_alerts(fault)

    with ThreadPoolExecutor(len(FAULTS)) as pool:
        found = dict(zip(FAULTS, pool.map(play, FAULTS), strict=True))
    assert {fault.__name__: each for fault, each in found.items()} == {
        fault.__name__: each for fault, each in FAULTS.items()
    }
