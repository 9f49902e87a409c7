"""The base class of gate, inventory and queue: the keys of one sale, a link to a Redis, and closing it."""

from __future__ import annotations

from typing import Final, Self

from flashsale.aio.clients import Client
from flashsale.aio.transport.link import Link
from flashsale.aio.transport.waiting import Callers
from flashsale.keys import Keys
from flashsale.model.checks import check_int

MAX_WAITING: Final = 10_000


class Component:
    """A component of a sale, usable on its own; a context manager.

    Args:
        client: a redis-py asyncio client, whose settings we copy; or the link of a whole sale, which the sale closes.
        sale: name of the sale.
        keys: the key layout.
        max_waiting: callers that may wait, where the link is not a sale's.
    """

    def __init__(self, client: Client | Link, sale: str, keys: Keys | None, max_waiting: int = MAX_WAITING) -> None:
        self.keys = (keys or Keys()).of(sale)
        self.sale = sale
        self._owns_link = not isinstance(client, Link)
        check_int("max_waiting", max_waiting, 1)
        self._link = client if isinstance(client, Link) else Link(client, Callers(max_waiting))

    async def aclose(self) -> None:
        """Closes our connections; the host's stay."""
        if self._owns_link:
            await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
