"""The way back after Redis lost a sale: a new epoch, closed until its sums are verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.errors import CorruptState, StoreRequired
from flashsale.lua import Code
from flashsale.model import RELEASED, Goods, StoredOrder
from flashsale.reports import Rebuild

PAGE = 500  # rows of one script call


class Rebuilder:
    """Restores stock and ledger of one sale from the database.

    Args:
        sale: a FlashSale with a store.
    """

    def __init__(self, sale: FlashSale) -> None:
        if sale.store is None:
            raise StoreRequired("a rebuild")
        self._sale = sale
        self._store: AsyncOrderStore = sale.store

    async def rebuild(self) -> Rebuild:
        """Raises the epoch in the database first, so that whoever acts for an older one is refused; see `Syncer`."""
        control = self._sale.control
        epoch = await self._store.advance_epoch()
        await control.close(epoch)
        await control.forget_orders(epoch)
        goods = {entry.goods_id: entry for entry in await self._store.goods()}
        for entry in goods.values():
            await self._store.grant(entry.goods_id, entry.total, loaded=True)
            await control.wipe(entry, epoch)
        rows, booked = await self._restore(epoch)
        await self._verify(booked, goods)
        for entry in goods.values():
            await self._sale.gate.ensure(
                entry.goods_id, entry.total, opens_at=entry.opens_at, closes_at=entry.closes_at
            )
            await self._sale.gate.mirror(entry.goods_id, entry.total, booked[entry.goods_id])
        await control.open(epoch)
        self._sale.gate.refusals.forget()
        return Rebuild(epoch=epoch, orders=rows, goods={goods_id: booked[goods_id] for goods_id in goods})

    async def _restore(self, epoch: int) -> tuple[int, Counter[str]]:
        """Brings every row into the ledger; also the released ones, whose ids never buy again."""
        count = 0
        booked: Counter[str] = Counter()
        after = None
        while rows := await self._store.orders(after=after, limit=PAGE):
            after = rows[-1].order.order_id
            self._accept(rows, await self._sale.ledger.restore(rows, epoch))
            count += len(rows)
            for row in rows:
                booked[row.order.goods_id] += 0 if row.state in RELEASED else row.order.quantity
        return count, booked

    def _accept(self, rows: Sequence[StoredOrder], codes: Sequence[int]) -> None:
        for row, code in zip(rows, codes, strict=True):
            if code not in {Code.DONE, Code.REFUSED}:
                raise CorruptState(
                    f"a row cannot be restored: {Code(code).name}", sale=self._sale.name, goods_id=row.order.goods_id
                )

    async def _verify(self, booked: Counter[str], goods: dict[str, Goods]) -> None:
        """Compares the sums; an order that a worker saved meanwhile is in both, or in neither."""
        for goods_id in goods:
            stock = await self._sale.inventory.stock(goods_id)
            if stock.booked < booked[goods_id]:
                raise CorruptState(
                    "the sums do not agree; the sale stays closed", sale=self._sale.name, goods_id=goods_id
                )
