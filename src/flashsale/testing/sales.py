"""Temporary sales for tests: open when you get them, and removed afterwards. A shared Redis is never flushed."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from flashsale import FlashSale, Goods, OrderStore, Syncer, aio
from flashsale.aio.clients import Client as AsyncClient
from flashsale.clients import Client

if TYPE_CHECKING:
    from flashsale.aio.stores import SQLAlchemyStore as AsyncSQLAlchemyStore
    from flashsale.stores import SQLAlchemyStore

SaleGoods: TypeAlias = Mapping[str, int] | Iterable[Goods]
StoreMaker: TypeAlias = Callable[[str], OrderStore]
AsyncStoreMaker: TypeAlias = Callable[[str], Awaitable[aio.AsyncOrderStore]]


@contextmanager
def temporary_sale(
    client: Client, goods: SaleGoods, *, store: StoreMaker | None = None, started: bool = True, **settings: Any
) -> Iterator[FlashSale]:
    """Opens a sale under a name that nobody else has; its keys are removed at the end.

    Args:
        client: a redis-py client, such as `fakeredis.FakeRedis()`.
        goods: units by `goods_id`, or `Goods`.
        store: makes the store of the sale of this name, such as `memory_store`. The items are written with its
            `put_goods` and brought to Redis by a `Syncer`; it is closed at the end if it has a `close`.
        started: False leaves items without an opening time shut.
        settings: for `FlashSale`, such as `partitions=3`; then make order ids with `sale.order_id(buyer_id, name)`.
    """
    name, goods = _new_name(), _listed(goods)
    with ExitStack() as stack:
        made: Any = None if store is None else store(name)
        stack.callback(getattr(made, "close", _nothing))
        sale = stack.enter_context(FlashSale(client, name, store=made, **settings))
        stack.callback(sale._forget, name=True)
        for each in goods:
            if made is None:
                sale.preload(each.goods_id, each.total, **_policy(each))
            else:
                made.put_goods(each)
        if made is not None:
            Syncer(sale).run_once()
        for each in goods:
            if started and each.opens_at is None:
                sale.start(each.goods_id)
        yield sale


@asynccontextmanager
async def temporary_async_sale(
    client: AsyncClient,
    goods: SaleGoods,
    *,
    store: AsyncStoreMaker | None = None,
    started: bool = True,
    **settings: Any,
) -> AsyncIterator[aio.FlashSale]:
    """Opens an asyncio sale; see `temporary_sale`. `store` is an `async def`, such as `memory_async_store`."""
    name, goods = _new_name(), _listed(goods)
    async with AsyncExitStack() as stack:
        made: Any = None if store is None else await store(name)
        stack.push_async_callback(getattr(made, "aclose", _async_nothing))
        sale = await stack.enter_async_context(aio.FlashSale(client, name, store=made, **settings))
        stack.push_async_callback(sale._forget, name=True)
        for each in goods:
            if made is None:
                await sale.preload(each.goods_id, each.total, **_policy(each))
            else:
                await made.put_goods(each)
        if made is not None:
            await aio.Syncer(sale).run_once()
        for each in goods:
            if started and each.opens_at is None:
                await sale.start(each.goods_id)
        yield sale


def memory_store(sale: str) -> SQLAlchemyStore:
    """Returns a store on an SQLite database in memory, of its own."""
    from flashsale.stores import SQLAlchemyStore  # noqa: PLC0415 - needs an extra

    store = SQLAlchemyStore("sqlite://", sale)
    store.create_all()
    return store


async def memory_async_store(sale: str) -> AsyncSQLAlchemyStore:
    """Returns an asyncio store on an SQLite database in memory, of its own."""
    from flashsale.aio.stores import SQLAlchemyStore  # noqa: PLC0415 - needs an extra

    store = SQLAlchemyStore("sqlite://", sale)
    await store.create_all()
    return store


def _new_name() -> str:
    return f"test-{uuid.uuid4().hex}"


def _listed(goods: SaleGoods) -> list[Goods]:
    if isinstance(goods, Mapping):
        return [Goods(goods_id, total) for goods_id, total in goods.items()]
    return list(goods)


def _policy(goods: Goods) -> dict[str, Any]:
    return {name: getattr(goods, name) for name in ("per_buyer", "opens_at", "closes_at", "hold")}


def _nothing() -> None:
    """Closes a store that has nothing to close."""


async def _async_nothing() -> None:
    """Likewise."""
