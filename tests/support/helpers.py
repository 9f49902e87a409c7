"""Small things that many tests need."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

from flashsale import Goods, Keys, Order
from flashsale._sql.tables import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from types import ModuleType

    import redis

_READERS: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda raw, key: raw.get(key),
    b"hash": lambda raw, key: raw.hgetall(key),
    b"list": lambda raw, key: raw.lrange(key, 0, -1),
    b"set": lambda raw, key: raw.smembers(key),
    b"zset": lambda raw, key: raw.zrange(key, 0, -1, withscores=True),
}


def snapshot(raw: redis.Redis) -> dict[bytes, tuple[bytes, Any]]:
    """Returns every key with its type and whole value: two equal ones mean that nothing was changed.

    What the recorder writes is left out: it grows while nothing happens.

    Args:
        raw: a client with bytes replies (fixture `raw`).
    """
    keys = sorted(key for key in raw.keys("*") if not key.endswith((b":samples", b":processes")))
    with raw.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
        kinds = pipe.execute()
        for key, kind in zip(keys, kinds, strict=True):
            _READERS[kind](pipe, key)
        values = [sorted(value) if kind == b"set" else value for kind, value in zip(kinds, pipe.execute(), strict=True)]
    return dict(zip(keys, zip(kinds, values, strict=True), strict=True))


def eventually(check: Callable[[], Any], what: str, *, within: float = 20.0) -> Any:
    """Returns the first true answer of `check`, asked again and again; fails after `within` seconds.

    The deadline is for what would hang for ever, not a promise of speed.
    """
    deadline = time.monotonic() + within
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        time.sleep(0.01)
    return answer


PATIENCE = 60.0  # seconds


async def until(check: Callable[[], Any], what: str, *, within: float | None = None, every: float = 0.01) -> Any:
    """Like `eventually`, in an event loop; `check` may be awaitable, and is asked `every` so many seconds."""
    within = within or PATIENCE
    deadline = time.monotonic() + within
    while not (answer := await settled(check())):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        await asyncio.sleep(every)
    return answer


async def settled(value: Any) -> Any:
    """Returns the value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


def clock(raw: redis.Redis) -> float:
    """Returns the server's time, epoch seconds."""
    seconds, microseconds = raw.time()
    return seconds + microseconds / 1e6


def order(
    order_id: object = "o-1", goods_id: str = "phone", buyer_id: str = "ann", quantity: int = 1, **more: Any
) -> Order:
    """Returns an order, one phone for Ann unless told."""
    return Order(str(order_id), goods_id, buyer_id, quantity, **more)


@functools.cache
def _file_of_tables() -> bytes:
    """Our tables without rows, as a file of SQLite. To make them takes longer than what most tests do with them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tables.db"
        engine = sqlalchemy.create_engine(f"sqlite:///{file}")
        METADATA.create_all(engine)
        engine.dispose()
        return file.read_bytes()


def put_tables(file: Path) -> bool:
    """Puts our tables, without rows, where there is no file yet; returns whether it did."""
    if file.exists():
        return False
    file.write_bytes(_file_of_tables())
    return True


# -- one test for both APIs ----------------------------------------------------------------------------------------


def inside(api: ModuleType, name: str) -> ModuleType:
    """A module behind a API: of `flashsale.aio` itself, or of the generated `flashsale._sync`."""
    return importlib.import_module(
        f"{api.__name__}.{name}" if api.__name__ == "flashsale.aio" else f"flashsale._sync.{name}"
    )


class Awaited:
    """A `FlashSale`, `Gate`, ... or store of either API; each of its methods can be awaited.

    Sync methods run in threads, so `asyncio.gather` over them means threads on one API and tasks on the other.
    """

    def __init__(self, real: Any, threads: Executor) -> None:
        self.real = real
        self._threads = threads

    def __getattr__(self, name: str) -> Any:
        if name == "close" and hasattr(self.real, "aclose"):
            name = "aclose"
        value = getattr(self.real, name)
        if callable(value):
            return functools.partial(self._call, value)
        return Awaited(value, self._threads) if name in {"gate", "inventory", "_ledger", "queue"} else value

    async def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            return await method(*args, **kwargs)
        call = functools.partial(method, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class Shop:
    """Makes clients and parts of one API on one backend (fixture `shop`), and closes them after the test.

    Attributes:
        API: the package, `flashsale` or `flashsale.aio`.
        raw: a client with bytes replies, to look at the keys.
        keys: the names of the keys of sale "spring".
    """

    def __init__(self, api: str, backend: Any, folder: Path) -> None:
        self.api = importlib.import_module(api)
        self.is_async = api == "flashsale.aio"
        self.backend = backend
        self.raw: redis.Redis = backend.raw()
        self.keys = Keys("spring")
        self.database = folder / "shop.db"
        self._threads = ThreadPoolExecutor(1000, thread_name_prefix="buyer")
        self._opened: list[Any] = []

    def client(self, **kwargs: Any) -> Any:
        """Returns a host's client; `db=1` makes it one of another Redis as far as keys go."""
        return self.keep(self.backend.aclient(**kwargs)) if self.is_async else self.backend.client(**kwargs)

    def keep(self, client: Any) -> Any:
        """Returns the client, to be closed after the test."""
        self._opened.append(client)
        return client

    def make(self, name: str, *args: Any, **kwargs: Any) -> Awaited:
        """Returns `name` of this API, made with these arguments."""
        plain = [arg.real if isinstance(arg, Awaited) else arg for arg in args]
        kwargs = {key: arg.real if isinstance(arg, Awaited) else arg for key, arg in kwargs.items()}
        made = Awaited(getattr(self.api, name)(*plain, **kwargs), self._threads)
        if name not in {"Worker", "Syncer", "Outbox"}:
            self._opened.append(made)
        return made

    def gate(self, **kwargs: Any) -> Awaited:
        return self.make("Gate", self.client(), "spring", **kwargs)

    def inventory(self, *, patient: bool = False, **kwargs: Any) -> Awaited:
        if patient:
            return self.sale(timeout=120.0, **kwargs).inventory
        return self.make("Inventory", self.client(), "spring", **kwargs)

    def queue(self, **kwargs: Any) -> Awaited:
        return self.make("OrderQueue", self.client(), "spring", **kwargs)

    def sale(self, **kwargs: Any) -> Awaited:
        return self.make("FlashSale", kwargs.pop("client", None) or self.client(), "spring", **kwargs)

    def worker(self, sale: Awaited, **kwargs: Any) -> Awaited:
        return self.make("Worker", sale, **kwargs)

    def syncer(self, sale: Awaited, **kwargs: Any) -> Awaited:
        return self.make("Syncer", sale, **kwargs)

    async def open(
        self,
        total: int = 10,
        *,
        goods_id: str = "phone",
        sale: Awaited | None = None,
        store: bool = False,
        **policy: Any,
    ) -> Awaited:
        """Returns a sale whose items are preloaded and started; `store=True` gives it a database that has them too."""
        if store:
            sale = self.sale(store=await self.store(Goods(goods_id, total, **policy)))
        sale = sale or self.sale()
        await sale.preload(goods_id, total, **policy)
        await sale.start(goods_id)
        return sale

    async def store(self, *goods: Goods, url: str | None = None) -> Awaited:
        """Returns a store on the test's own SQLite file, or at `url`, with this item."""
        stores = importlib.import_module(f"{self.api.__name__}.stores")
        store = Awaited(stores.SQLAlchemyStore(url or f"sqlite:///{self.database}", "spring"), self._threads)
        await self.create_tables(self.keep(store), url)
        for each in goods:
            await store.put_goods(each)
        return store

    async def create_tables(self, store: Awaited, url: str | None = None) -> None:
        """Creates this store's tables; on the test's own SQLite file, which None means too, by copying it."""
        if url not in {None, f"sqlite:///{self.database}"} or not put_tables(self.database):
            await store.create_all()

    def sql(self, statement: str) -> list[Any]:
        """Runs a statement on that file, as the host's own program would."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    def end_leases(self) -> None:
        """Lets all leases and delays of claims end at once, as time would."""
        ends = self.raw.zrange(self.keys.leases, 0, -1, withscores=True)
        if ends:  # what was claimed together ends together
            self.raw.zadd(self.keys.leases, {delivery: end - 1e9 for delivery, end in ends}, xx=True)

    async def comes(self, moment: str, *goods: str) -> None:
        """Brings the opening or the end of this item near, and waits for it; from there the clock of Redis goes on.

        What must be true before it needs no haste, on a machine however slow.

        Args:
            moment: `opens_at` or `closes_at`, which is far away so far.
            goods: phones unless told.
        """
        at = clock(self.raw) + 0.02
        for goods_id in goods or ["phone"]:
            windows = [
                key for key in (self.keys.stock(goods_id), self.keys.window(goods_id)) if self.raw.hexists(key, moment)
            ]
            assert windows, f"{goods_id} has no {moment}"
            for key in windows:
                self.raw.hset(key, moment, f"{at:.6f}")
        await until(lambda: clock(self.raw) > at, moment)

    async def close(self) -> None:
        for each in reversed(self._opened):
            await settled(each.aclose() if hasattr(each, "aclose") else each.close())
        self._threads.shutdown()


async def together(shop: Shop, coalescer: Any, *calls: Callable[[], Any]) -> list[Any]:
    """Makes these calls wait for each other in their order, and returns what each got, be it an error.

    Args:
        shop: on a real Redis, which is held back meanwhile.
        coalescer: of the calls, whose client is `patient`: many callers take seconds to line up.
        calls: the first ones leave at once, each alone, as many as may be in flight; the others gather behind them.
    """
    in_flight = inside(shop.api, "transport.coalescer").IN_FLIGHT
    shop.raw.client_pause(60_000, all=False)
    tasks = []
    try:
        for place, call in enumerate(calls, start=1):
            tasks.append(asyncio.create_task(call()))
            line = min(place, in_flight), max(0, place - in_flight)
            await asyncio.sleep(0)
            await until(
                lambda: (coalescer._in_flight, len(coalescer._waiting)) == line,  # noqa: B023
                "the caller in line",
                every=0.001,
            )
    finally:
        shop.raw.client_unpause()
    return await asyncio.gather(*tasks, return_exceptions=True)
