"""A blocking wrapper of an async store, so that one suite of tests serves both kinds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from flashsale.aio.store import AsyncOrderStore, bulk_settle
from flashsale.model import Event, Goods, Order, OrderState, Saved, StoredOrder

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own; calls from several threads overlap on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Returns what the coroutine returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class BlockingStore:
    """An `OrderStore` that wraps an `AsyncOrderStore` on a `LoopThread`."""

    def __init__(self, store: AsyncOrderStore, loop: LoopThread) -> None:
        self.store = store
        self._run = loop.run

    def put_goods(self, goods: Goods, **how: bool) -> None:
        store: Any = self.store  # how a host writes its items is no part of the protocol
        self._run(store.put_goods(goods, **how))

    def goods(self) -> Iterable[Goods]:
        return self._run(self.store.goods())

    def grant(self, goods_id: str, units: int, *, loaded: bool = False, version: int | None = None) -> bool:
        return self._run(self.store.grant(goods_id, units, loaded=loaded, version=version))

    def restock(self, goods_id: str, units: int) -> Goods:
        return self._run(self.store.restock(goods_id, units))

    def save(self, orders: Sequence[Order]) -> Saved:
        return self._run(self.store.save(orders))

    def states(self, order_ids: Collection[str]) -> Mapping[str, OrderState]:
        return self._run(self.store.states(order_ids))

    def settle(self, order: Order, state: OrderState) -> OrderState:
        return self._run(self.store.settle(order, state))

    @property
    def settle_many(self) -> Callable[[Sequence[Order], OrderState], Mapping[str, OrderState]] | None:
        together = bulk_settle(self.store)
        return None if together is None else lambda orders, state: self._run(_begin(together(orders, state)))

    def orders(self, *, after: str | None = None, limit: int = 1000) -> Sequence[StoredOrder]:
        return self._run(self.store.orders(after=after, limit=limit))

    def events(self, *, now: float, limit: int = 100) -> Sequence[Event]:
        return self._run(self.store.events(now=now, limit=limit))

    def delivered(self, event_ids: Collection[int]) -> None:
        self._run(self.store.delivered(event_ids))

    def postpone(self, event_id: int, due_at: float | None) -> None:
        self._run(self.store.postpone(event_id, due_at))

    def dead_events(self, limit: int = 100) -> Sequence[Event]:
        return self._run(self.store.dead_events(limit))

    def requeue_events(self) -> int:
        return self._run(self.store.requeue_events())

    def epoch(self) -> int:
        return self._run(self.store.epoch())

    def advance_epoch(self) -> int:
        return self._run(self.store.advance_epoch())

    def close(self) -> None:
        close = getattr(self.store, "aclose", None)
        if close is not None:
            self._run(close())


async def _begin(answer: Awaitable[T]) -> T:
    return await answer
