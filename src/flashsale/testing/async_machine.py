"""The same state machine for an asyncio view, which runs with its sale on an event loop of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from flashsale import aio
from flashsale._sync.sale import FlashSale
from flashsale.aio.clients import Client as AsyncClient
from flashsale.clients import Client
from flashsale.errors import OutcomeUnknown
from flashsale.model import Outcome
from flashsale.testing._blocking import BlockingStore, LoopThread
from flashsale.testing.machine import BadLine, SaleMachine
from flashsale.testing.sales import memory_async_store, temporary_sale


class AsyncBadLine(BadLine):
    """A bad line of an asyncio sale."""

    async def __call__(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Makes the call, or loses it."""
        if not self._loses(name):
            return await call()
        self._check_sent()
        await call()
        raise OutcomeUnknown("the reply was lost")


class AsyncSaleMachine(SaleMachine):
    """`SaleMachine` for an asyncio view: `place`, `cancel`, `pay` and `set_up` are `async def`, `sale` an asyncio sale.

        class ShopMachine(AsyncSaleMachine):
            async def set_up(self):
                sales.sale = self.sale
                self.web = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")

            async def place(self, goods_id, buyer_id, quantity, order_id): ...

        TestShop = ShopMachine.TestCase

    All of them run on one event loop, which lives as long as the sale. Give `make_client` and `make_async_client`
    together: both lead to the same Redis.
    """

    sale: aio.FlashSale  # type: ignore[assignment]

    async def place(  # type: ignore[override]
        self, goods_id: str, buyer_id: str, quantity: int, order_id: str
    ) -> Outcome | None:
        """As `SaleMachine.place`."""
        raise NotImplementedError

    async def cancel(self, order_id: str) -> None:  # type: ignore[override]
        """As `SaleMachine.cancel`."""
        raise NotImplementedError

    async def pay(self, order_id: str) -> None:  # type: ignore[override]
        """As `SaleMachine.pay`."""
        raise NotImplementedError

    async def set_up(self) -> None:  # type: ignore[override]
        """Called when `sale` is open: build your app around it."""

    async def tear_down(self) -> None:
        """Called before `sale` is closed: close your test client."""

    def make_client(self) -> Client:
        """Returns a client of the Redis to play on; of the fake one unless you say otherwise."""
        import fakeredis  # noqa: PLC0415 - needs an extra

        client = fakeredis.FakeRedis(server=self._fake())
        self._stack.callback(client.close)
        return client

    def make_async_client(self) -> AsyncClient:
        """Returns an asyncio client of the same Redis."""
        import fakeredis  # noqa: PLC0415 - needs an extra

        return fakeredis.FakeAsyncRedis(server=self._fake())

    async def make_store(self, sale: str) -> Any:  # type: ignore[override]
        """Returns the `AsyncOrderStore` of the sale of this name; SQLite in memory unless you say otherwise."""
        return await memory_async_store(sale)

    # -- inside -----------------------------------------------------------------------------------------------------

    _bad_line: ClassVar[type[BadLine]] = AsyncBadLine

    def _open(self) -> FlashSale:
        self._loop = self._stack.enter_context(LoopThread())
        settings: dict[str, Any] = {"cache_for": 0, "partitions": self.partitions}
        opened = temporary_sale(self.make_client(), self.goods, store=self._blocking_store, **settings)
        blocking = self._stack.enter_context(opened)
        self.sale = self._loop.run(self._open_async(blocking.name))
        self._stack.callback(lambda: self._loop.run(self.sale.aclose()))
        self._stack.callback(lambda: self._loop.run(self.tear_down()))
        return blocking

    async def _open_async(self, name: str) -> aio.FlashSale:
        settings: dict[str, Any] = {"cache_for": 0, "partitions": self.partitions}
        return aio.FlashSale(self.make_async_client(), name, store=self._store.store, **settings)

    def _blocking_store(self, sale: str) -> BlockingStore:
        self._store = BlockingStore(self._loop.run(self.make_store(sale)), self._loop)
        return self._store

    def _begin(self) -> None:
        self._loop.run(self.set_up())

    def _finish(self, given: Any) -> Any:
        return self._loop.run(given)

    def _fake(self) -> Any:
        import fakeredis  # noqa: PLC0415 - needs an extra

        if not hasattr(self, "_server"):
            self._server = fakeredis.FakeServer()
        return self._server
