"""The suite of tests for a store of your own: inherit it, and it checks all that flashsale relies on.

`AsyncOrderStoreSuite` is the one for an asyncio store.

    class TestMyStore(OrderStoreSuite):
        def make_store(self, sale):
            return MyStore(DSN, sale)

        def put_goods(self, store, goods):
            store.write_goods(goods)

Where your rows refer to buyers, or your orders obey rules of your own, say `put_buyer` and `valid_data`.

Each test has sales of its own, so that one database serves them all and nothing needs to be cleaned. Calls that race
may raise `StoreError`, having done nothing: the suite then asks again, as the worker does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flashsale._sync.store import OrderStore
from flashsale.aio.store import AsyncOrderStore
from flashsale.model import Goods
from flashsale.testing._blocking import BlockingStore, LoopThread

for _name in ("_contract", "_order_contract", "_event_contract"):
    pytest.register_assert_rewrite(f"flashsale.testing.{_name}")

from flashsale.testing._event_contract import EventContract  # noqa: E402  rewritten from here on
from flashsale.testing._order_contract import OrderContract  # noqa: E402


class OrderStoreSuite(OrderContract, EventContract):
    """Inherit it as `Test...`, say how a store is made, and pytest runs the contract of `OrderStore` on it."""

    def make_store(self, sale: str) -> OrderStore:
        """Returns a store of this sale on your database; called more than once for one database."""
        raise NotImplementedError

    def put_goods(self, store: Any, goods: Goods) -> None:
        """Writes an item as your back office does: the first time all of `total` is granted, and none booked."""
        raise NotImplementedError

    def put_buyer(self, store: Any, buyer_id: str) -> str | None:
        """Writes the row of a buyer, where your orders refer to one, and returns its id if that is another.

        Called once for each.
        """

    def close_store(self, store: Any) -> None:
        """Called after the test for every store that was made."""

    def _open(self, sale: str) -> OrderStore:
        return self.make_store(sale)

    def _put(self, store: OrderStore, goods: Goods) -> None:
        self.put_goods(store, goods)

    def _put_buyer(self, store: OrderStore, buyer_id: str) -> str | None:
        return self.put_buyer(store, buyer_id)

    def _close(self, store: OrderStore) -> None:
        self.close_store(store)


class AsyncOrderStoreSuite(OrderContract, EventContract):
    """The same tests for an `AsyncOrderStore`; they bring an event loop of their own."""

    async def make_store(self, sale: str) -> AsyncOrderStore:
        """Returns a store of this sale on your database; called more than once for one database."""
        raise NotImplementedError

    async def put_goods(self, store: Any, goods: Goods) -> None:
        """Writes an item as your back office does: the first time all of `total` is granted, and none booked."""
        raise NotImplementedError

    async def put_buyer(self, store: Any, buyer_id: str) -> str | None:
        """Writes the row of a buyer, where your orders refer to one, and returns its id if that is another.

        Called once for each.
        """

    async def close_store(self, store: Any) -> None:
        """Called after the test for every store that was made."""

    @pytest.fixture(autouse=True)
    def _loop_thread(self) -> Iterator[None]:
        with LoopThread() as self._loop:
            yield

    def _open(self, sale: str) -> OrderStore:
        return BlockingStore(self._loop.run(self.make_store(sale)), self._loop)

    def _put(self, store: OrderStore, goods: Goods) -> None:
        assert isinstance(store, BlockingStore)
        self._loop.run(self.put_goods(store.store, goods))

    def _put_buyer(self, store: OrderStore, buyer_id: str) -> str | None:
        assert isinstance(store, BlockingStore)
        return self._loop.run(self.put_buyer(store.store, buyer_id))

    def _close(self, store: OrderStore) -> None:
        assert isinstance(store, BlockingStore)
        self._loop.run(self.close_store(store.store))
