"""A host's program: redis-py clients of any kind, and our parts on them, of either API."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.helpers import Awaited, Shop
from tests.support.servers import HOST, SPOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from flashsale import Goods


ON_SYNC = pytest.mark.parametrize("host", ["flashsale"], ids=["sync"], indirect=True)
ON_AIO = pytest.mark.parametrize("host", ["flashsale.aio"], ids=["aio"], indirect=True)
"""For a story that takes seconds and is not about what the two APIs do differently: one is generated from the other."""


class Host(Shop):
    """A `Shop` whose clients go wherever a test wants (fixture `host`).

    Attributes:
        redis: redis-py of this API, `redis` or `redis.asyncio`.
        raw: to be set by a test that looks at keys by `booked`.
    """

    def __init__(self, api: str, folder: Path) -> None:
        super().__init__(api, SimpleNamespace(raw=lambda: None), folder)
        self.redis: Any = self.module("")

    def module(self, name: str) -> Any:
        """Returns a module of redis-py of this API, such as ".sentinel"."""
        return importlib.import_module(("redis.asyncio" if self.is_async else "redis") + name)

    def keep(self, client: Any) -> Any:
        """Returns `client`; it is closed after the test."""
        self._opened.append(Awaited(client, self._threads))
        return client

    @property
    def stores(self) -> Any:
        """The module `stores` of this API."""
        return importlib.import_module(f"{self.api.__name__}.stores")

    def connect(self, port: int, **settings: Any) -> Any:
        """Returns a plain client."""
        return self.keep(self.redis.Redis(host=HOST, port=port, **(SPOKEN | settings)))

    async def call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of a host's client, of either API."""
        answer = method(*args, **kwargs)
        return await answer if self.is_async else answer

    def on(self, client: Any, name: str = "spring", **kwargs: Any) -> Awaited:
        """Returns a sale on this client."""
        return self.make("FlashSale", client, name, **kwargs)

    async def opened(self, client: Any, total: int = 10, *, name: str = "spring", **kwargs: Any) -> Awaited:
        """Returns a sale on this client, with so many phones, started."""
        sale = self.on(client, name, **kwargs)
        await sale.preload("phone", total)
        await sale.start("phone")
        return sale

    async def store_of(self, name: str, *goods: Goods, **settings: Any) -> Awaited:
        """Returns the store of this sale, in one file with the others."""
        store = self.keep(self.stores.SQLAlchemyStore(f"sqlite:///{self.database}", name, **settings))
        store = Awaited(store, self._threads)
        await self.create_tables(store)
        for each in goods:
            await store.put_goods(each)
        return store

    def booked(self, sale: str = "spring") -> int:
        """Returns how many phones are booked, by the stock hash itself."""
        return int(self.raw.hget(f"flashsale:{{{sale}}}:phone:stock", "Booked"))
