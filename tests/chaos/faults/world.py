"""Where a row plays: real servers, proxies and processes, a sale on them, and the four promises as assertions."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy

from flashsale import FlashSaleError, Goods, OrderState
from flashsale._sql import engines
from flashsale.lua import SCRIPTS, source
from flashsale.model import RELEASED
from flashsale.testing.proxy import FaultProxy
from tests.support import django_shop, servers
from tests.support.database_proxy import DatabaseProxy
from tests.support.helpers import Awaited, eventually
from tests.support.hosts import Host
from tests.support.mutants import DJANGO, SYNC

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

ROOT = Path(__file__).parent.parent.parent.parent
SHORT = 0.5  # seconds of socket timeout, where a reply never comes
PATIENCE = 5.0  # seconds after which a caller hangs
SERVERS = ("postgres", "mysql")  # of databases, by their fixtures
DATABASES = ("sqlite", *SERVERS)


class World(Host):
    """A `Host` with servers of its own and one of the run; what it starts it ends.

    With Django's store it is one of the sync API, all of whose calls are made in one thread: Django refuses an event
    loop, and gives each thread a connection of its own.

    Attributes:
        case: the API, or `DJANGO`.
        redis_server: the real Redis of this run, emptied.
        raw: a client of the Redis that the sale is on.
        child: what a mutation tells the test's processes.
        rewrite: what a mutation does to an append-only file.
    """

    def __init__(
        self,
        case: str,
        backend: Any,
        redis_server: servers.RedisServer,
        folder: Path,
        fixture: Callable[[str], Any],
    ) -> None:
        super().__init__(SYNC if case == DJANGO else case, folder)
        self.case = case
        self._fixture = fixture
        self._numbers = itertools.count(1)
        self._django = contextlib.ExitStack()
        if case == DJANGO:
            self._threads = ThreadPoolExecutor(1)
        self.backend = backend
        self.redis_server = redis_server
        self.raw = backend.raw()
        self.child: dict[str, Any] = {}
        self.rewrite: Callable[[bytes], bytes] = bytes
        self.folder = folder
        self._stack = contextlib.ExitStack()

    async def close(self) -> None:
        await self.in_thread(self._django.close)
        await asyncio.to_thread(self._stack.close)  # first: whoever still waits for a server hears that it is gone
        await super().close()

    # -- servers and processes --------------------------------------------------------------------------------------

    def enter(self, manager: Any) -> Any:
        """Enters a context that ends with the test."""
        return self._stack.enter_context(manager)

    def at_end(self, call: Callable[[], Any]) -> None:
        """Calls this when the test ends."""
        self._stack.callback(call)

    def server(self, **config: Any) -> servers.RedisServer:
        """Starts a Redis that the test may torment; `raw` is a client of it."""
        server: servers.RedisServer = self.enter(servers.redis_server(**config))
        self.raw = server.client()
        return server

    def proxy(self, server: servers.RedisServer | None = None) -> FaultProxy:
        """Puts a proxy in front of a server, of the run's unless told."""
        proxy: FaultProxy = self.enter(FaultProxy((server or self.redis_server).port))
        return proxy

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """Makes a call in one of the threads of the sync API: in Django's, if it is Django's store."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def process(self, role: str, port: int, *, environment: dict[str, str] | None = None, **settings: Any) -> Process:
        """Starts a process of `tests.chaos.faults.processes`, with the scripts as they are in this one."""
        changed = {name: script.text for name, script in SCRIPTS.items() if script.text != source(name)}
        told = {"api": self.api.__name__, "port": port, "folder": str(self.folder), "scripts": changed}
        process = Process(role, told | self.child | settings, self.folder, environment or {})
        self._stack.callback(process.kill)
        return process

    # -- databases --------------------------------------------------------------------------------------------------

    def url(self, kind: str) -> str:
        """Returns the URL of the test's SQLite file, or of an empty database of the server of the run."""
        if kind == "sqlite":
            self.database.unlink(missing_ok=True)
            return f"sqlite:///{self.database}"
        url: str = self.enter(self._fixture(kind).database())
        return url

    def databases(self, *kinds: str) -> Iterator[str]:
        """Yields the URL of an empty database of each of these kinds, and empties Redis before."""
        for kind in kinds:
            self.raw.flushall()
            yield self.url(kind)

    def lossy(self, url: str) -> DatabaseProxy:
        """Puts a proxy in front of a database."""
        proxy: DatabaseProxy = self.enter(DatabaseProxy(url))
        return proxy

    @staticmethod
    def run(url: str, *statements: str) -> None:
        """Runs statements as the host's own program would."""
        engine = sqlalchemy.create_engine(engines.database_url(url, engines.DRIVERS), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))
        engine.dispose()

    # -- sales ------------------------------------------------------------------------------------------------------

    async def store_of(self, name: str, *goods: Goods, url: str | None = None, **settings: Any) -> Awaited:
        """Returns the store of this sale, on the test's SQLite file unless told."""
        url = url or f"sqlite:///{self.database}"
        if self.case == DJANGO:
            alias = f"world-{next(self._numbers)}"
            await self.in_thread(lambda: self._django.enter_context(django_shop.database(alias, url)))
            store = importlib.import_module("flashsale.contrib.django.store").DjangoStore(name, using=alias)
        else:
            store = self.keep(self.stores.SQLAlchemyStore(url, name, **settings))
            await self.awaited(store).create_all()
        for each in goods:
            await self.awaited(store).put_goods(each)
        return self.awaited(store)

    def awaited(self, store: Any) -> Awaited:
        """Returns a store whose methods can be awaited."""
        return Awaited(store, self._threads)

    async def sell(
        self, client: Any, total: int = 10, *, name: str = "spring", url: str | None = None, **settings: Any
    ) -> Awaited:
        """Returns a started sale of so many phones that its syncer has loaded; `client` may be a port."""
        policy = {key: settings.pop(key) for key in ("per_buyer", "hold") if key in settings}
        store = await self.store_of(name, Goods("phone", total, **policy), url=url)
        sale = self.beside(client, store, name=name, **settings)
        await self.syncer(sale).run_once()
        await sale.start("phone")
        await sale.inventory.load_scripts()
        return sale

    def beside(self, client: Any, store: Awaited, *, name: str = "spring", **settings: Any) -> Awaited:
        """Returns one more process' worth of a sale."""
        client = self.connect(client) if isinstance(client, int) else client
        return self.on(client, name, store=store, **({"cache_for": 0} | settings))

    async def orders(self, sale: Awaited) -> dict[str, OrderState]:
        """Returns the states that the database has, by order id."""
        return {row.order.order_id: row.state for row in await self.awaited(sale.real.store).orders()}

    async def active_units(self, sale: Awaited) -> int:
        """Returns the units that rows of the database hold."""
        found = await self.awaited(sale.real.store).orders()
        return sum(row.order.quantity for row in found if row.state not in RELEASED)

    async def counted_units(self, sale: Awaited) -> int:
        """Returns the units that the guard in the database has counted."""
        store = sale.real.store
        query = ("goods", ("booked",), {"sale": store.sale, "goods_id": "phone"})

        def booked() -> Any:
            with store.transaction() as connection:
                return store.select(connection, *query)

        async def abooked() -> Any:
            async with store.transaction() as connection:
                return await store.select(connection, *query)

        (row,) = await (abooked() if self.is_async else self.in_thread(booked))
        return int(row["booked"])

    # -- promises ---------------------------------------------------------------------------------------------------

    async def answer(self, call: Awaitable[Any], *, within: float = PATIENCE) -> Any:
        """Returns the value or the typed error of a call: T."""
        try:
            async with asyncio.timeout(within):
                return await call
        except FlashSaleError as error:
            return error
        except TimeoutError as silence:
            raise AssertionError("T: nothing was heard") from silence
        except Exception as error:
            raise AssertionError(f"T: {error!r} is not ours") from error

    async def answered(self, kind: type[FlashSaleError], call: Awaitable[Any], *, within: float = PATIENCE) -> Any:
        """Returns the typed error of a call that must fail so: T."""
        answer = await self.answer(call, within=within)
        assert isinstance(answer, kind), f"T: {answer!r}"
        return answer

    async def work(self, sale: Awaited, worker: Awaited | None = None, *, rounds: int = 8) -> list[FlashSaleError]:
        """Lets a worker try again and again, more often than an order has attempts; delays end at once.

        Returns:
            What it raised.
        """
        worker, raised = worker or self.worker(sale), []
        for _ in range(rounds):
            self.end_leases()
            if isinstance(answer := await self.answer(worker.run_once()), FlashSaleError):
                raised.append(answer)
        return raised

    async def drain(self, sale: Awaited) -> None:
        """Runs a worker until nothing is left to claim; leases and delays end at once."""
        worker = self.worker(sale)
        for _ in range(40):
            if not self.raw.exists(self.keys.order_list, self.keys.claimed):
                return
            self.end_leases()
            await self.answer(worker.run_once())
        raise AssertionError("E: the queue does not drain")

    async def holds(self, sale: Awaited, accepted: Iterable[str], *, total: int) -> None:
        """Drains the queue, and asserts O, E and L of a sale at rest."""
        accepted = set(accepted)
        await self.drain(sale)
        lost = accepted - (await self.orders(sale)).keys()
        assert not lost, f"E: {lost} never reached the database"
        units = await self.active_units(sale)
        assert units <= total, f"O: {units} of {total} units are sold"
        counted = await self.counted_units(sale)
        assert counted == units, f"E: {counted} units are counted, rows hold {units}"
        audit = await self.syncer(sale).audit(accepted)
        assert audit.ok, f"L: {audit}"


class Heard(logging.Handler):
    """The lines of the log, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._log = logging.getLogger("flashsale")

    def __enter__(self) -> Self:
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def says(self, *words: str) -> int:
        """In how many lines all these words are."""
        return sum(all(word in record.getMessage() for word in words) for record in self.records)


class Process:
    """A process of a test. Made by `World.process`.

    Args:
        role: what it does; see `tests.chaos.faults.processes`.
        told: what it is told.
        folder: where it says what it has come to.
        environment: variables of its own.
    """

    def __init__(self, role: str, told: dict[str, Any], folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._role = role
        command = [sys.executable, "-m", "tests.chaos.faults.processes", role, json.dumps(told)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    async def has_come_to(self, place: str) -> None:
        """Returns when the process is there; it waits there for `go`, unless it is stuck there for ever."""
        marker = self._folder / f"{self._role}.{place}"

        def is_there() -> bool:
            assert self._process.poll() is None or marker.exists(), "the process has ended"
            return marker.exists()

        await asyncio.to_thread(eventually, is_there, f"{self._role} at {place}")

    def go(self) -> None:
        """Lets it go on."""
        (self._folder / f"{self._role}.go").touch()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def result(self) -> Any:
        """Returns what it has to say at its end."""
        out, _ = await asyncio.to_thread(self._process.communicate, timeout=20)
        assert self._process.returncode == 0
        return json.loads(out)

    def kill(self) -> None:
        """Kills it, stopped or not."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def append_only_file(server: servers.RedisServer) -> Path:
    """Returns the file that the server appends to; from Redis 7.0 on one of several, in a folder of their own."""
    increments = sorted((server.folder / "appendonlydir").glob("*.incr.aof"))
    return increments[-1] if increments else server.folder / "appendonly.aof"
