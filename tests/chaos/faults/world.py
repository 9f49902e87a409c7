"""Where a row plays: real servers, proxies and processes, a sale on them, and the four promises as assertions."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsale import FlashSaleError, Goods, OrderState
from flashsale.lua import SCRIPTS, source
from flashsale.model import RELEASED
from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.helpers import Awaited, eventually, settled
from tests.support.hosts import Host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

ROOT = Path(__file__).parent.parent.parent.parent
SHORT = 0.5  # seconds of socket timeout, where a reply never comes
PATIENCE = 5.0  # seconds after which a caller hangs


class World(Host):
    """A `Host` with servers of its own and one of the run; what it starts it ends.

    Attributes:
        redis_server: the real Redis of this run, emptied.
        raw: a client of the Redis that the sale is on.
        child: what a mutation tells the test's processes.
        rewrite: what a mutation does to an append-only file.
    """

    def __init__(self, api: str, backend: Any, redis_server: servers.RedisServer, folder: Path) -> None:
        super().__init__(api, folder)
        self.backend = backend
        self.redis_server = redis_server
        self.raw = backend.raw()
        self.child: dict[str, Any] = {}
        self.rewrite: Callable[[bytes], bytes] = bytes
        self.folder = folder
        self._stack = contextlib.ExitStack()

    async def close(self) -> None:
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

    def process(self, role: str, port: int, *, environment: dict[str, str] | None = None, **settings: Any) -> Process:
        """Starts a process of `tests.chaos.faults.processes`, with the scripts as they are in this one."""
        changed = {name: script.text for name, script in SCRIPTS.items() if script.text != source(name)}
        told = {"api": self.api.__name__, "port": port, "folder": str(self.folder), "scripts": changed}
        process = Process(role, told | self.child | settings, self.folder, environment or {})
        self._stack.callback(process.kill)
        return process

    # -- sales ------------------------------------------------------------------------------------------------------

    async def store_of(self, name: str, *goods: Goods, url: str | None = None) -> Awaited:
        """Returns the store of this sale, on the test's SQLite file unless told."""
        stores = importlib.import_module(f"{self.api.__name__}.stores")
        store = Awaited(self.keep(stores.SQLAlchemyStore(url or f"sqlite:///{self.database}", name)), self._threads)
        await store.create_all()
        for each in goods:
            await store.put_goods(each)
        return store

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
        return {row.order.order_id: row.state for row in await settled(sale.real.store.orders())}

    async def active_units(self, sale: Awaited) -> int:
        """Returns the units that rows of the database hold."""
        found = await settled(sale.real.store.orders())
        return sum(row.order.quantity for row in found if row.state not in RELEASED)

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

    async def answered(self, kind: type[FlashSaleError], call: Awaitable[Any]) -> Any:
        """Returns the typed error of a call that must fail so: T."""
        answer = await self.answer(call)
        assert isinstance(answer, kind), f"T: {answer!r}"
        return answer

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
        if sale.real.store._engine.dialect.name == "sqlite":
            counted = self.sql("SELECT booked FROM flashsale_goods WHERE goods_id = 'phone'")[0][0]
            assert counted == units, f"E: {counted} units are counted, rows hold {units}"
        audit = await self.syncer(sale).audit(accepted)
        assert audit.ok, f"L: {audit}"


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
