"""The totals of a sale over several partitions: units come in at the first one, and go out there."""

from __future__ import annotations

from typing_extensions import override

from flashsale.aio.partitions.partition import Partition
from flashsale.aio.partitions.transfers import Transfers
from flashsale.aio.transitions import Transitions
from flashsale.model import Goods


class PartitionedTransitions(Transitions):
    """Moves the totals of items, in the order that keeps the guard right; orders are moved by their partitions.

    Args:
        first: the partition 0.
        transfers: of the sale.
    """

    def __init__(self, first: Partition, transfers: Transfers) -> None:
        super().__init__(first.gate, first.inventory, first._ledger, first.store)
        self._transfers = transfers

    @override
    async def _bring(self, goods: Goods) -> int:
        _, total = await self.allot(goods)
        await self._transfers.spread(goods.goods_id)
        self._gate._refusals.forget(goods.goods_id)
        return total

    async def allot(self, goods: Goods, *, loaded: bool = False) -> tuple[int, int]:
        """Makes all partitions together follow the database's row: raising goes database first, lowering Redis first.

        Args:
            goods: the row.
            loaded: True: all partitions hold the item from now on.

        Returns:
            The total before, and the current one, in units.
        """
        assert self._store is not None
        goods_id, look = goods.goods_id, await self._transfers.look(goods.goods_id)
        before = look.surveys[0].allotted or 0
        granted = max(goods.total, before)
        if (loaded or goods.total != before) and not await self._store.grant(
            goods_id, granted, loaded=loaded, version=goods.version
        ):
            return before, before
        total = await self._transfers.allot(goods_id, goods.version, goods.total, look)
        if total != granted:
            await self._store.grant(goods_id, total, version=goods.version)
        return before, total
