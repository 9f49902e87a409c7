"""The suite of tests for hooks of your own: inherit it, and it checks that your tables never disagree with the sale's.

    class TestMyHooks(OrderHooksSuite):
        valid_data = {"size": "M"}

        def make_store(self, sale):
            return SQLAlchemyStore(DSN, sale, hooks=MyHooks())

        def active_orders(self, store):
            return read_my_orders(store.sale)

The store is one of ours, `SQLAlchemyStore` or `DjangoStore`. Your database has what your hooks ask for: items `phone`
and `case`, with some thousand units where they have a stock of their own. Each test has sales of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest

from flashsale._sync.store import OrderStore
from flashsale.aio.store import AsyncOrderStore
from flashsale.model import Goods, Order
from flashsale.testing._blocking import BlockingStore, LoopThread

pytest.register_assert_rewrite("flashsale.testing._contract", "flashsale.testing._hooks_contract")

from flashsale.testing._hooks_contract import HooksContract  # noqa: E402  rewritten from here on


class OrderHooksSuite(HooksContract):
    """Inherit it as `Test...`, say how a store with your hooks is made, and pytest tries the hooks."""

    def make_store(self, sale: str) -> OrderStore:
        """Returns a store of this sale with your hooks."""
        raise NotImplementedError

    def active_orders(self, store: Any) -> Collection[str]:
        """Returns the order ids of this sale that your own tables have, but for cancelled ones."""
        raise NotImplementedError

    def refused_order(self, order: Order) -> Order | None:  # noqa: ARG002
        """Returns this order, changed so that your hooks refuse it (other data, say); None: they refuse nobody."""
        return None

    def stock(self, store: Any, goods_id: str) -> int | None:  # noqa: ARG002
        """Returns the units of an item in your own stock; None: you keep none that the sale takes from."""
        return None

    def put_buyer(self, store: Any, buyer_id: str) -> str | None:
        """Writes the row of a buyer, where your tables or hooks ask for one, and returns its id if that is another.

        Called once for each.
        """

    def put_goods(self, store: Any, goods: Goods) -> None:
        """Writes an item as your back office does."""
        store.put_goods(goods)

    def close_store(self, store: Any) -> None:
        """Called after the test for every store that was made."""

    def _open(self, sale: str) -> OrderStore:
        return self.make_store(sale)

    def _active(self, store: OrderStore) -> Collection[str]:
        return self.active_orders(store)

    def _refusable(self, one: Order) -> Order | None:
        return self.refused_order(one)

    def _stock(self, store: OrderStore, goods_id: str) -> int | None:
        return self.stock(store, goods_id)

    def _put_buyer(self, store: OrderStore, buyer_id: str) -> str | None:
        return self.put_buyer(store, buyer_id)

    def _put(self, store: OrderStore, goods: Goods) -> None:
        self.put_goods(store, goods)

    def _close(self, store: OrderStore) -> None:
        self.close_store(store)


class AsyncOrderHooksSuite(HooksContract):
    """The same tests for `AsyncOrderHooks`; they bring an event loop of their own."""

    async def make_store(self, sale: str) -> AsyncOrderStore:
        """Returns a store of this sale with your hooks."""
        raise NotImplementedError

    async def active_orders(self, store: Any) -> Collection[str]:
        """Returns the order ids of this sale that your own tables have, but for cancelled ones."""
        raise NotImplementedError

    def refused_order(self, order: Order) -> Order | None:  # noqa: ARG002
        """Returns this order, changed so that your hooks refuse it (other data, say); None: they refuse nobody."""
        return None

    async def stock(self, store: Any, goods_id: str) -> int | None:  # noqa: ARG002
        """Returns the units of an item in your own stock; None: you keep none that the sale takes from."""
        return None

    async def put_buyer(self, store: Any, buyer_id: str) -> str | None:
        """Writes the row of a buyer, where your tables or hooks ask for one, and returns its id if that is another.

        Called once for each.
        """

    async def put_goods(self, store: Any, goods: Goods) -> None:
        """Writes an item as your back office does."""
        await store.put_goods(goods)

    async def close_store(self, store: Any) -> None:
        """Called after the test for every store that was made."""

    @pytest.fixture(autouse=True)
    def _loop_thread(self) -> Iterator[None]:
        with LoopThread() as self._loop:
            yield

    def _open(self, sale: str) -> OrderStore:
        return BlockingStore(self._loop.run(self.make_store(sale)), self._loop)

    def _active(self, store: OrderStore) -> Collection[str]:
        return self._loop.run(self.active_orders(self._raw(store)))

    def _refusable(self, one: Order) -> Order | None:
        return self.refused_order(one)

    def _stock(self, store: OrderStore, goods_id: str) -> int | None:
        return self._loop.run(self.stock(self._raw(store), goods_id))

    def _put_buyer(self, store: OrderStore, buyer_id: str) -> str | None:
        return self._loop.run(self.put_buyer(self._raw(store), buyer_id))

    def _put(self, store: OrderStore, goods: Goods) -> None:
        self._loop.run(self.put_goods(self._raw(store), goods))

    def _close(self, store: OrderStore) -> None:
        self._loop.run(self.close_store(self._raw(store)))

    def _raw(self, store: OrderStore) -> Any:
        assert isinstance(store, BlockingStore)
        return store.store

    def _call(self, answer: Any) -> Any:
        return self._loop.run(answer)
