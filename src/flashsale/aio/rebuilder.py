"""The rebuild of a sale that Redis lost: a new epoch, closed until the sums agree with the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from flashsale._rules.batches import batches
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore, fix_partitions, refuse_purged
from flashsale.errors import CorruptState, InvalidRequest, StoreError, StoreRequired, UnknownGoods
from flashsale.lua import Code
from flashsale.model import RELEASED, Goods, Order, OrderState, Stock, StoredOrder
from flashsale.model.checks import MAX_UNITS
from flashsale.model.reports import Rebuild

PAGE = 500  # rows of one script call
ATTEMPTS = 3  # reads of rows that change meanwhile
_CONTENT = attrgetter("order_id", "content")


class Found(NamedTuple):
    """What a rebuild has found.

    Args:
        rows: orders restored from the database.
        booked: units of each item that these hold.
        waiting: orders without a row that wait in the queue or lie among the dead letters, by state.
        ours: units of each item that were the ledger's and are in no row.
    """

    rows: int
    booked: Counter[str]
    waiting: dict[OrderState, list[Order]]
    ours: Counter[str]


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
        """Raises the epoch in the database first, so that work for an older one is refused; see `Syncer.rebuild`."""
        await self._sale._check_known()
        await refuse_purged(self._store, self._sale.name)
        await self._sale._ledger.meet()
        await fix_partitions(self._store, 1)
        epoch = await self._begin()
        goods = await self._grant()
        found = await self._restore_all(goods, epoch)
        for entry in goods:
            await self._reopen(entry)
        await self._take_up(found.waiting, found.ours, epoch)
        await self._sale._meta.open(goods, epoch)
        self._sale.gate._refusals.forget()
        return Rebuild(epoch, found.rows, {entry.goods_id: found.booked[entry.goods_id] for entry in goods})

    async def _begin(self) -> int:
        """Closes the sale under a new epoch, unless it can be seen already that orders would be rejected."""
        await self._refuse_lowered(list(await self._store.goods()))
        epoch = await self._store.advance_epoch()
        await self._sale._close(epoch)
        return epoch

    async def _refuse_lowered(self, goods: Sequence[Goods]) -> None:
        """Raises InvalidRequest if orders wait for the database whose units the host no longer wants to sell."""
        sold = {entry.goods_id: await self._sold(entry.goods_id) for entry in goods}
        lowered = {entry.goods_id: entry.total for entry in goods if entry.total < sold[entry.goods_id]}
        waiting = await self._waiting() if lowered else {}
        orders = [order for order in chain.from_iterable(waiting.values()) if order.goods_id in lowered]
        affected = set[str]()
        for page in batches(orders, PAGE):
            saved = await self._store.states([order.order_id for order in page])
            affected.update(order.goods_id for order in page if order.order_id not in saved)
        if affected:
            named = "; ".join(f"{name!r} has {lowered[name]}, {sold[name]} are sold" for name in sorted(affected))
            raise InvalidRequest(
                "total",
                f"it is below what is sold, and orders that wait for the database would be rejected: {named}. Raise it "
                "to what is sold, rebuild, and lower it again once the queue and the dead letters are empty",
            )

    async def _sold(self, goods_id: str) -> int:
        """Returns the units that are sold; 0 where Redis does not know it, as after an earlier rebuild that died."""
        stock = await self._stock(goods_id)
        return min(stock.total, stock.booked)

    async def _grant(self) -> list[Goods]:
        """Sets the guard of each item to what Redis will be given, and returns the items as they were then."""
        for _ in range(ATTEMPTS):
            goods = list(await self._store.goods())
            await self._refuse_lowered(goods)  # purchases were accepted until the sale was closed
            granted = [
                await self._store.grant(entry.goods_id, entry.total, loaded=True, version=entry.version)
                for entry in goods
            ]
            if all(granted):
                return goods
        raise StoreError("the items change faster than they can be granted; the sale stays closed")

    async def _restore_all(self, goods: Sequence[Goods], epoch: int) -> Found:
        """Empties ledger and stock, and restores every row; nothing is for sale yet."""
        waiting = await self._waiting()  # before the rows: who leaves the queue from now on has one
        known = await self._known(waiting)
        tracked = await self._sale._meta.wipe(goods, epoch)
        rows, booked = await self._restore_rows(goods, epoch)
        for state, orders in waiting.items():
            left = await self._without_row(orders)
            waiting[state] = sorted(left, key=lambda order: order.order_id not in known)  # the others may have no units
        own: Counter[str] = Counter()
        for order in chain.from_iterable(waiting.values()):
            own[order.goods_id] += order.quantity if order.order_id in known else 0
        return Found(rows, booked, waiting, (tracked - booked) | own)

    async def _known(self, waiting: Mapping[OrderState, list[Order]]) -> set[str]:
        """Returns the ids of those orders that have their units in the ledger, as far as that is left."""
        orders = list(chain.from_iterable(waiting.values()))
        try:
            records = await self._sale._ledger.get_many([order.order_id for order in orders])
        except CorruptState:  # it is no ledger
            return set()
        return {
            order.order_id
            for order in orders
            if (record := records.get(order.order_id)) is not None
            and record.state not in RELEASED
            and record.order(order.order_id).content == order.content
        }

    async def _without_row(self, orders: Sequence[Order]) -> list[Order]:
        known = await self._sale._ledger.get_many([order.order_id for order in orders])
        return [order for order in orders if order.order_id not in known]

    async def _restore_rows(self, goods: Sequence[Goods], epoch: int) -> tuple[int, Counter[str]]:
        """Restores every row and compares the sums; repeats it if rows came or went meanwhile."""
        for _ in range(ATTEMPTS):
            rows, booked = await self._restore(epoch)
            ledger = {entry.goods_id: await self._in_ledger(entry.goods_id) for entry in goods}
            short = [goods_id for goods_id, units in ledger.items() if units < booked[goods_id]]
            if not short:
                return rows, booked
        raise CorruptState("the sums do not agree; the sale stays closed", sale=self._sale.name, goods_id=short[0])

    async def _waiting(self) -> dict[OrderState, list[Order]]:
        """Returns the orders that wait in the queue, or lie among the dead letters, by state; each id once."""
        queue = self._sale.queue
        listed: list[Order] = []
        async for bodies in queue._pending():
            for body in bodies:
                with suppress(InvalidRequest):  # a worker buries it
                    listed.append(Order.from_json(body))
        letters = [letter.order for letter in await queue.dead(MAX_UNITS) if letter.order is not None]
        buried = await queue._buried([order.order_id for order in letters])
        dead = [order for order in letters if order.order_id in buried]  # a dead order is surely ours
        listed = [order for order in listed if order.order_id not in buried]
        return {OrderState.DEAD: _by_id(dead), OrderState.QUEUED: _by_id(listed)}

    async def _take_up(self, waiting: Mapping[OrderState, list[Order]], ours: Counter[str], epoch: int) -> None:
        """Books what waits, before anybody can buy in its place.

        Args:
            waiting: the orders, none of which has a row; first those that the ledger had.
            ours: units of each item that were the ledger's and are in no row. Those of all other orders, which external
                programs pushed, lie among the untracked ones.
            epoch: of this rebuild.
        """
        for state, orders in waiting.items():
            for page in batches(orders, PAGE):
                untracked = {}
                for order in page:
                    own = min(order.quantity, ours[order.goods_id])
                    ours[order.goods_id] -= own
                    untracked[order.order_id] = order.quantity - own
                await self._sale._ledger.adopt(page, state, untracked=untracked, epoch=epoch)

    async def _in_ledger(self, goods_id: str) -> int:
        """Returns the units of the ledger's orders."""
        stock = await self._stock(goods_id)
        return stock.booked - stock.direct

    async def _stock(self, goods_id: str) -> Stock:
        """Returns the stock of an item; nothing where the item is lost, or not what flashsale writes."""
        try:
            return await self._sale.inventory.stock(goods_id)
        except (UnknownGoods, CorruptState):
            return Stock(total=0, booked=0, remaining=0, direct=0)

    async def _reopen(self, goods: Goods) -> None:
        """Puts an item up for sale again, in the stock and then at the gate."""
        goods_id, gate = goods.goods_id, self._sale.gate
        total = await self._sale.inventory._configure(goods)
        if total != goods.total:  # more is booked than the host wants to sell
            await self._store.grant(goods_id, total, version=goods.version)
        stock = await self._sale.inventory.stock(goods_id)
        cap = goods.per_buyer
        await gate._ensure(goods_id, total, opens_at=goods.opens_at, closes_at=goods.closes_at, per_buyer=cap)
        await gate._mirror(goods_id, total, stock.booked, per_buyer=cap)

    async def _restore(self, epoch: int) -> tuple[int, Counter[str]]:
        """Brings every row into the ledger, the released ones too: their ids never buy again."""
        count = 0
        booked: Counter[str] = Counter()
        after = None
        while rows := await self._store.orders(after=after, limit=PAGE):
            after = rows[-1].order.order_id
            self._accept(rows, await self._sale._ledger.restore(rows, epoch))
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


def _by_id(orders: Sequence[Order]) -> list[Order]:
    """Returns the orders sorted by id; of those that share one, the first."""
    return list({order.order_id: order for order in sorted(orders, key=_CONTENT, reverse=True)}.values())[::-1]
