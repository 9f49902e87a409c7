"""One partition of a sale: a whole sale under its own hash tag, that gets units from the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from typing_extensions import override

from flashsale._rules.codes import policy
from flashsale._rules.partitions import Routes
from flashsale._rules.refusal_cache import OPEN, Refusal, RefusalCache
from flashsale._rules.tally import Tally
from flashsale.aio.gate import ONE
from flashsale.aio.partitions.purchases import PartitionPurchases
from flashsale.aio.partitions.recorder import PartitionedRecorder
from flashsale.aio.partitions.rows import PartitionRows
from flashsale.aio.partitions.transfers import Transfers
from flashsale.aio.recorder import Recorder
from flashsale.aio.sale import FlashSale
from flashsale.aio.transport.link import Link
from flashsale.aio.transport.runtime import in_time
from flashsale.keys import PartitionKeys
from flashsale.model import Admission, Goods, Order, Outcome
from flashsale.model.checks import new_order_id


class SharedRefusals(RefusalCache):
    """The refusal cache of all partitions: "sold out" is remembered only when a check found no unit anywhere.

    Args:
        keep: seconds; 0 remembers nothing.
        tally: counts the refusals.
        transfers: makes the checks.
    """

    def __init__(self, keep: float, tally: Tally, transfers: Transfers) -> None:
        super().__init__(keep, tally)
        self._transfers = transfers

    @override
    def give(self, refusal: Refusal) -> Admission | None:
        if refusal.admission.outcome is not Outcome.SOLD_OUT:
            return super().give(refusal)
        return None  # it has aged, and nobody goes on with it meanwhile: another partition may have units by now

    @override
    def _fresh_until(self, goods_id: str, admission: Admission, now: float) -> float:
        if admission.outcome is not Outcome.SOLD_OUT:
            return super()._fresh_until(goods_id, admission, now)
        checked = self._transfers.checked(goods_id)
        return now if checked is None else checked + self.keep

    @override
    def forget(self, goods_id: str | None = None) -> None:
        self._transfers.forget(goods_id)
        super().forget(goods_id)


class Partition(FlashSale):
    """Sells to the buyers of one partition.

    Args:
        link: to its server.
        keys: its own.
        place: which one it is, from 0.
        routes: of the sale.
        transfers: of the sale.
        first: the partition 0, whose recorder all share; None: this is the first.
        refusals: what all remember.
        meet: refuses a sale that was begun with other partitions.
        settings: of the sale, as `FlashSale` takes them.
    """

    _PURCHASES = PartitionPurchases
    keys: PartitionKeys

    def __init__(
        self,
        link: Link,
        keys: PartitionKeys,
        place: int,
        routes: Routes,
        transfers: Transfers,
        first: Partition | None,
        refusals: RefusalCache,
        meet: Callable[[], Awaitable[None]],
        **settings: Any,
    ) -> None:
        self.place = place
        self.prefix = routes.prefixes[place]
        self.meet = meet
        self._routes = routes
        self._transfers = transfers
        self._first = first
        self._shared = refusals
        super().__init__(link, keys.sale, keys=keys, **settings)
        purchases = self._purchases
        assert isinstance(purchases, PartitionPurchases)
        purchases.transfers, purchases.place = transfers, place

    def has(self, order: Order) -> bool:
        """Returns whether an order is one of a buyer of this partition."""
        return order.order_id.startswith(self.prefix) and self._routes.belongs(order)

    def rows(self) -> PartitionRows:
        """Returns the host's database as this partition sees it."""
        assert self.store is not None
        return PartitionRows(self.store, self.prefix)

    async def load(self, goods: Goods) -> None:
        """Creates stock and gate of one item here; all its units arrive in the first partition.

        Raises:
            AlreadyLoaded: it exists with other values.
        """
        fields = policy(goods.per_buyer, goods.opens_at, goods.closes_at, goods.hold)
        total, allotted = (0, None) if self.place else (goods.total, goods.total)
        await self.inventory._load(goods.goods_id, total, fields, version=goods.version, allotted=allotted)
        await self.ensure_gate(goods, total)

    async def ensure_gate(self, goods: Goods, total: int) -> None:
        """Creates the gate of one item here, unless it is there, and sets its window."""
        await self.gate._ensure(
            goods.goods_id, total, opens_at=goods.opens_at, closes_at=goods.closes_at, per_buyer=goods.per_buyer
        )

    @override
    @in_time
    async def enter(
        self, goods_id: str, buyer_id: str, quantity: int = ONE, *, order_id: str | None = None
    ) -> Admission:
        admission = await super().enter(goods_id, buyer_id, quantity, order_id=order_id)
        while admission.outcome is Outcome.SOLD_OUT and self._refusals.of(goods_id) is OPEN:
            free = await self._transfers.fetch(self.place, goods_id, quantity, quantity)
            if free is not None:
                return admission._replace(remaining=free)
            admission = await super().enter(goods_id, buyer_id, quantity, order_id=order_id)
        return admission

    def _new_order_id(self) -> str:
        return f"{self.prefix}{new_order_id()[2:]}"

    @override
    def _remember_together(self) -> None:
        self.gate._remember(self._shared)

    @override
    def _make_recorder(self) -> Recorder:
        if self._first is not None:
            return self._first._recorder
        gate, transfers = self.gate, self._transfers
        recorder = PartitionedRecorder(self._link, self._link, self.keys, self._meta, gate._tally, gate._refusals)
        recorder.links, recorder.names = transfers._links, transfers._keys
        return recorder
