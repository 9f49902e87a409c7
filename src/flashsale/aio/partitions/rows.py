"""The host's database as one partition sees it: its orders are one range of ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flashsale.aio.store import AsyncOrderStore, Settled, SettledPage, settled_since
from flashsale.model import StoredOrder


class PartitionRows:
    """A store of which one partition reads its own rows; whatever else it is asked, the host's store answers.

    Args:
        store: the host's.
        prefix: of the order ids of the partition.
    """

    def __init__(self, store: AsyncOrderStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def orders(self, *, after: str | None = None, limit: int = 1000) -> Sequence[StoredOrder]:
        """Returns the next page of rows of the partition, after the order id `after`."""
        rows = await self._store.orders(after=after or self._prefix, limit=limit)
        return [row for row in rows if self._has(row)]

    @property
    def settled(self) -> Settled | None:
        """What reads the orders of the partition that have moved, where the host's store can tell."""
        return None if settled_since(self._store) is None else self._settled

    async def _settled(self, moment: float, order_id: str) -> SettledPage:
        settled = settled_since(self._store)
        assert settled is not None
        while page := await settled(moment, order_id):
            own = [(row, at) for row, at in page if self._has(row)]
            if own:
                return own
            moment, order_id = page[-1][1], page[-1][0].order.order_id
        return []

    def _has(self, row: StoredOrder) -> bool:
        return row.order.order_id.startswith(self._prefix)
