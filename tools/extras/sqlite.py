"""A store of each API over one file: the asyncio one needs aiosqlite."""

import asyncio

from flashsale import Goods
from flashsale.aio.stores import SQLAlchemyStore as AsyncSQLAlchemyStore
from flashsale.stores import SQLAlchemyStore

with SQLAlchemyStore("sqlite:///shop.db", "nov11") as store:
    store.create_all()
    store.put_goods(Goods("phone", 3))


async def look() -> None:
    async with AsyncSQLAlchemyStore("sqlite:///shop.db", "nov11") as store:
        assert [each.total for each in await store.goods()] == [3]


asyncio.run(look())
