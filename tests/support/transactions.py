"""A host's own transactions on the database of a sale, of either API."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from flashsale._sql import engines
from tests.support.helpers import settled, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flashsale import OrderState
    from tests.support.helpers import Awaited, Shop


class HostDatabase:
    """The engine of a host, and its transactions.

    Args:
        shop: says of which API it is; it closes the engine.
        url: of the database.
        options: of the engine.
    """

    def __init__(self, shop: Shop, url: str, **options: Any) -> None:
        self.is_async = shop.is_async
        make: Any = create_async_engine if self.is_async else create_engine
        drivers = engines.ASYNC_DRIVERS if self.is_async else engines.DRIVERS
        self.engine = make(engines.database_url(url, drivers), **options)
        self.plain = getattr(self.engine, "sync_engine", self.engine)
        shop.keep(self)

    async def close(self) -> None:
        await settled(self.engine.dispose())

    async def aclose(self) -> None:
        await self.close()

    def statements(self) -> list[tuple[int, str]]:
        """Returns the list of what is sent from now on, and of the number of the connection that it goes over."""
        sent: list[tuple[int, str]] = []

        def note(connection: Any, _: Any, statement: str, *__: Any) -> None:
            sent.append((id(connection.connection.dbapi_connection), statement))

        event.listen(self.plain, "before_cursor_execute", note)
        return sent

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        """Gives a connection with a transaction; commits at the end."""
        async with contextlib.AsyncExitStack() as stack:
            yield await self._enter(stack, self.engine.begin())

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        """Gives a connection without a transaction."""
        async with contextlib.AsyncExitStack() as stack:
            yield await self._enter(stack, self.engine.connect())

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """Gives a Session; commits at the end."""
        kind: Any = AsyncSession if self.is_async else Session
        async with contextlib.AsyncExitStack() as stack:
            session = await self._enter(stack, kind(self.engine))
            yield session
            await settled(session.commit())

    @contextlib.asynccontextmanager
    async def savepoint(self, within: Any) -> AsyncIterator[None]:
        """Opens a savepoint in a transaction or Session."""
        async with contextlib.AsyncExitStack() as stack:
            await self._enter(stack, within.begin_nested())
            yield

    @staticmethod
    async def run(connection: Any, statement: str) -> Any:
        """Runs a statement of the host's."""
        return await settled(connection.execute(text(statement)))

    async def _enter(self, stack: contextlib.AsyncExitStack, context: Any) -> Any:
        return await stack.enter_async_context(context) if self.is_async else stack.enter_context(context)


async def follows(sale: Awaited, order_id: str, state: OrderState) -> None:
    """The ledger is there as soon as the transaction has ended, or, in an event loop, as soon as its task was."""
    if hasattr(sale.real, "aclose"):
        await until(lambda: _is(sale, order_id, state), f"{order_id} is {state}")
    else:
        assert await sale.status(order_id) is state


async def _is(sale: Awaited, order_id: str, state: OrderState) -> bool:
    return await sale.status(order_id) is state


async def stays(sale: Awaited, order_id: str, state: OrderState) -> None:
    """Nothing follows what was rolled back."""
    await asyncio.sleep(0.15)  # longer than it takes to see an end
    assert await sale.status(order_id) is state


class Undone(Exception):
    """The host changes its mind."""
