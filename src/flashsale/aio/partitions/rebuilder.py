"""The rebuild of a sale over several partitions: each from its own rows, then the units of all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain

from typing_extensions import override

from flashsale.aio.partitions.partition import Partition
from flashsale.aio.partitions.sale import PartitionedSale
from flashsale.aio.rebuilder import Found, Rebuilder
from flashsale.aio.store import refuse_purged
from flashsale.model import Goods, Order, OrderState
from flashsale.model.reports import Rebuild


class PartitionRebuilder(Rebuilder):
    """Restores the orders of one partition."""

    def __init__(self, part: Partition) -> None:
        super().__init__(part)
        self._part = part
        self._store = part.rows()

    @override
    async def _waiting(self) -> dict[OrderState, list[Order]]:
        """Leaves out what a worker would bury."""
        waiting = await super()._waiting()
        return {state: [order for order in orders if self._part.has(order)] for state, orders in waiting.items()}

    async def give(self, goods: Goods, units: int) -> None:
        """Puts so many units up for sale, beside those that are booked, and gives the item its gate."""
        goods_id, part = goods.goods_id, self._part
        booked = (await part.inventory.stock(goods_id)).booked
        total = await part.inventory._configure(replace(goods, total=booked + units))
        await part.ensure_gate(goods, total)
        await part.gate._mirror(goods_id, total, booked, per_buyer=goods.per_buyer)


class PartitionedRebuilder(Rebuilder):
    """Restores all partitions of a sale under a new epoch; all are closed until the units of all are counted.

    Args:
        sale: with a store.
    """

    def __init__(self, sale: PartitionedSale) -> None:
        super().__init__(sale)
        self._sale: PartitionedSale = sale
        self._parts = sale._parts
        self._each = [PartitionRebuilder(part) for part in sale._parts]

    @override
    async def rebuild(self) -> Rebuild:
        await self._sale._check_known()
        await refuse_purged(self._store, self._sale.name)
        await self._sale._begin()
        for part in self._parts:
            await part._ledger.meet()
        epoch = await self._begin()
        goods = await self._grant()
        found = [await self._restore_part(place, goods, epoch) for place in range(len(self._parts))]
        for entry in goods:
            await self._reopen_all(entry, found)
        for each, of_part in zip(self._each, found, strict=True):
            await each._take_up(of_part.waiting, of_part.ours, epoch)
        for part in self._parts:
            await part._meta.open(goods, epoch)
        for entry in goods:
            await self._parts[0]._transfers.spread(entry.goods_id)
        self._parts[0].gate._refusals.forget()
        booked = sum((of_part.booked for of_part in found), Counter[str]())
        return Rebuild(
            epoch, sum(each.rows for each in found), {each.goods_id: booked[each.goods_id] for each in goods}
        )

    @override
    async def _sold(self, goods_id: str) -> int:
        return sum([await each._sold(goods_id) for each in self._each])

    @override
    async def _waiting(self) -> dict[OrderState, list[Order]]:
        waiting: dict[OrderState, list[Order]] = {}
        for each in self._each:
            for state, orders in (await each._waiting()).items():
                waiting.setdefault(state, []).extend(orders)
        return waiting

    async def _restore_part(self, place: int, goods: list[Goods], epoch: int) -> Found:
        """Restores one partition; moves of the old epoch are refused from now on, and forgotten."""
        part = self._parts[place]
        for entry in goods:
            await part._link.command("UNLINK", part.keys.transfers(entry.goods_id))
        return await self._each[place]._restore_all(goods, epoch)

    async def _reopen_all(self, goods: Goods, found: list[Found]) -> None:
        """Gives each partition what its rows and its waiting orders hold, and the first one all that is left."""
        goods_id = goods.goods_id
        free = max(0, goods.total - sum(of_part.booked[goods_id] for of_part in found))
        total = 0
        for each, of_part in reversed(list(zip(self._each, found, strict=True))):
            orders = chain.from_iterable(of_part.waiting.values())
            waiting = sum(order.quantity for order in orders if order.goods_id == goods_id)
            units = min(free, waiting) if each._part.place else free
            free -= units
            await each.give(goods, units)
            total += (await each._part.inventory.stock(goods_id)).total
        first = self._parts[0]
        await first._link.command("HSET", first.keys.stock(goods_id), "Allotted", total)
        if total != goods.total:  # more is booked than the host wants to sell
            await self._store.grant(goods_id, total, version=goods.version)
