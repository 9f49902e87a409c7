"""What a PostgreSQL does to those who use it: each fault strikes, lasts a while, and is over on return."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.database_proxy import DatabaseProxy
    from tests.support.servers import Postgres


class DatabaseFaults:
    """The faults of one server, by name.

    Args:
        server: the PostgreSQL.
        database_url: SQLAlchemy URL of the sale's database, not through the proxy.
        proxy: that everybody goes through.
    """

    def __init__(self, server: Postgres, database_url: str, proxy: DatabaseProxy) -> None:
        self._server = server
        self._url = database_url.replace("+psycopg", "")
        self._proxy = proxy
        self.kinds: dict[str, Callable[[float], Awaitable[None]]] = {
            "killed": self._kill,
            "read-only": self._read_only,
            "silent": self._silence,
            "locked": self._lock,
            "out of connections": self._use_up,
            "lost COMMIT replies": self._lose_commits,
        }

    async def _kill(self, seconds: float) -> None:
        await asyncio.to_thread(self._server.stop)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._server.start)

    async def _read_only(self, seconds: float) -> None:
        await self._configure("SET default_transaction_read_only = on")
        await asyncio.sleep(seconds)
        await self._configure("RESET default_transaction_read_only")

    async def _configure(self, change: str) -> None:
        async with await self._connect() as connection:
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(f"ALTER SYSTEM {change}".encode())
            await connection.execute("SELECT pg_reload_conf()")

    async def _silence(self, seconds: float) -> None:
        self._proxy.fall_silent()
        await asyncio.sleep(seconds)
        self._proxy.speak()
        self._proxy.end_all()

    async def _lock(self, seconds: float) -> None:
        async with await self._connect() as connection, connection.transaction():
            await connection.execute("LOCK TABLE flashsale_orders IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(seconds)

    async def _use_up(self, seconds: float) -> None:
        """Ends all other connections and takes their places, until the server refuses more."""
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(await self._connect())
            ours = [first.info.backend_pid]
            with contextlib.suppress(psycopg.OperationalError):
                for _ in range(200):
                    more = await stack.enter_async_context(await self._connect())
                    ours.append(more.info.backend_pid)
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            await first.execute(f"{query} AND NOT pid = ANY(%s)".encode(), [ours])
            with contextlib.suppress(psycopg.OperationalError):
                for _ in range(200):
                    await stack.enter_async_context(await self._connect())
            await asyncio.sleep(seconds)

    async def _lose_commits(self, seconds: float) -> None:
        lost = self._proxy.lost
        self._proxy.lose_commits(3)
        async with asyncio.timeout(60):
            while self._proxy.lost < lost + 3:
                await asyncio.sleep(0.02)

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True)
