"""Stores of both APIs load their drivers; a port where nobody listens is a typed error of theirs."""

import asyncio

from flashsale import StoreError
from flashsale.aio.stores import SQLAlchemyStore as AsyncSQLAlchemyStore
from flashsale.stores import SQLAlchemyStore

NOBODY = "postgresql://shop:secret@127.0.0.1:1/shop"

try:
    with SQLAlchemyStore(NOBODY, "nov11") as store:
        list(store.goods())
except StoreError as error:
    assert "secret" not in str(error)
else:
    raise AssertionError("somebody answered")


async def look() -> None:
    async with AsyncSQLAlchemyStore(NOBODY, "nov11") as store:
        await store.goods()


try:
    asyncio.run(look())
except StoreError as error:
    assert "secret" not in str(error)
else:
    raise AssertionError("somebody answered")
