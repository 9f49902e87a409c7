"""The base class of gate, inventory and queue: the keys of one sale, a link to a Redis, and closing it."""

from __future__ import annotations

from typing import Self

from flashsale.aio.clients import Client
from flashsale.aio.transport.link import Link
from flashsale.keys import Keys


class Component:
    """A component of a sale, usable on its own; a context manager.

    Args:
        client: a redis-py asyncio client, whose settings we copy; or the link of a whole sale, which the sale closes.
        sale: name of the sale.
        keys: the key layout.
    """

    def __init__(self, client: Client | Link, sale: str, keys: Keys | None) -> None:
        self.keys = (keys or Keys()).of(sale)
        self.sale = sale
        self._owns_link = not isinstance(client, Link)
        self._link = client if isinstance(client, Link) else Link(client)

    async def aclose(self) -> None:
        """Closes our connections; the host's stay."""
        if self._owns_link:
            await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
