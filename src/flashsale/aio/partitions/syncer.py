"""The syncer of a sale over several partitions: the orders of each by themselves, the units of all together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from typing_extensions import override

from flashsale._rules.hooks import HookFailed
from flashsale.aio.auditor import Auditor
from flashsale.aio.partitions.partition import Partition
from flashsale.aio.partitions.rebuilder import PartitionedRebuilder
from flashsale.aio.partitions.sale import PartitionedSale
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import is_purged
from flashsale.aio.syncer import Syncer
from flashsale.aio.transport.runtime import StopEvent
from flashsale.errors import (
    AlreadyLoaded,
    CorruptState,
    FlashSaleError,
    InvalidRequest,
    NotExecuted,
    RowRefused,
    UnknownGoods,
)
from flashsale.model import Goods, Stock
from flashsale.model.reports import Audit, Disagreement, Rebuild, Repair, Settlement, SyncReport, Units


class PartitionSyncer(Syncer):
    """Makes the passes over one partition: its orders, deadlines, tickets and gate; its units are the whole sale's."""

    def __init__(self, part: Partition) -> None:
        super().__init__(part)
        self._part = part
        self._store = part.rows()
        self._auditor = Auditor(part, self._store)

    @override
    async def _sync(self, goods: Goods, report: SyncReport) -> SyncReport:
        stock = await self._stock(goods.goods_id)
        if stock is None and goods.loaded:
            return replace(report, missing=(*report.missing, goods.goods_id))
        if stock is None:
            stock = await self._load(goods)
            if stock is None:
                return report
            report = replace(report, loaded=(*report.loaded, goods.goods_id))
        await self._part.inventory._configure(goods, keep_total=True)
        returned = await self._mirror(goods, stock.total)
        await self._sweep(goods.goods_id)
        return replace(report, returned=report.returned + returned)

    @override
    async def _load(self, goods: Goods) -> Stock | None:
        if not await self._store.grant(goods.goods_id, goods.total, version=goods.version):
            return None
        try:
            await self._part.load(goods)
        except AlreadyLoaded:
            return None
        return await self._part.inventory.stock(goods.goods_id)


class PartitionedSyncer(Syncer):
    """Makes the passes over each partition, under its lease, and over the units of all, under the first one's."""

    def __init__(self, sale: FlashSale, *, interval: float = 1.0) -> None:
        super().__init__(sale, interval=interval)
        assert isinstance(sale, PartitionedSale)
        self._sale: PartitionedSale = sale
        self._each = [PartitionSyncer(part) for part in sale._parts]
        for syncer in self._each:
            syncer._activity = self._activity  # they tell as one

    @override
    async def _pass(self, stop: StopEvent | None) -> SyncReport:
        reports: list[SyncReport] = []
        errors: list[FlashSaleError] = []
        if list(await self._store.goods()) and not await is_purged(self._store):  # else no key comes, or comes back
            errors = await self._sale._try_to_begin()
        await self._sale._meet_all()
        for syncer in reversed(self._each):
            try:
                reports.append(await syncer._pass(stop))
            except FlashSaleError as error:
                errors.append(error)
        if errors:  # the others have had theirs
            raise errors[0]
        report = _merged(reports)
        if reports[-1].leading and not (report.closed or report.purged or (stop and stop.is_set())):
            for goods in await self._store.goods():
                try:
                    report = await self._allot(goods, report)
                except UnknownGoods:  # of a partition, which its own pass has told of
                    continue
                except (CorruptState, HookFailed, RowRefused) as error:  # it stops this item, not the others
                    report = self._stopped(goods.goods_id, error, report)
        return report

    async def _allot(self, goods: Goods, report: SyncReport) -> SyncReport:
        """Makes the units of all partitions follow the row."""
        before, total = await self._sale._transitions.allot(goods, loaded=not goods.loaded)
        await self._tighten(goods, total)
        await self._sale._transfers.spread(goods.goods_id)
        return report if total == before else replace(report, resized=(*report.resized, (goods.goods_id, total)))

    @override
    async def audit(self, expected: Iterable[str] = ()) -> Audit:
        await self._sale._meet_all()
        names: dict[int | None, list[str]] = {}
        for order_id in expected:
            names.setdefault(self._place(order_id), []).append(order_id)
        audits = [await each.audit(names.get(place, [])) for place, each in enumerate(self._each)]
        strange, audit = names.get(None, []), _audit(audits)
        adrift, moving = await self._adrift(audit.goods)
        return replace(audit, lost=(*audit.lost, *strange), adrift=adrift, moving=audit.moving or moving)

    @override
    async def repair(self, *, dry_run: bool = True, trust_ledger: bool = False) -> Repair:
        audit = await self.audit()
        mended: list[Disagreement] = []
        for syncer in self._each:
            repair = await syncer.repair(dry_run=dry_run, trust_ledger=trust_ledger)
            mended += repair.mended
        if not dry_run:
            for goods_id in audit.adrift:
                await self._sale._transfers.mend(goods_id)
        return Repair(audit=audit, mended=tuple(mended), dry_run=dry_run)

    @override
    async def purge(self) -> Settlement:
        if not await is_purged(self._store):
            return await super().purge()
        settlement = await self.settlement()  # one that was cut off had its proof: some keys may be gone since
        await self._sale._forget()
        return settlement

    @override
    async def rebuild(self) -> Rebuild:
        await self._sale._meet_all()
        return await PartitionedRebuilder(self._sale).rebuild()

    def _place(self, order_id: str) -> int | None:
        try:
            return self._sale._routes.of_order(order_id)
        except InvalidRequest:
            return None

    async def _adrift(self, goods: Iterable[str]) -> tuple[dict[str, int], bool]:
        """Returns the units of each item that moves have lost, below 0 those left over; True: they move too fast."""
        adrift, moving = {}, False
        for goods_id in goods:
            try:
                look = await self._sale._transfers.look_twice(goods_id)
            except (UnknownGoods, NotExecuted):
                continue
            moving = moving or look is None
            if look is not None and (off := (look.surveys[0].allotted or 0) - look.units):
                adrift[goods_id] = off
        return adrift, moving


Syncer._PARTITIONED = PartitionedSyncer


def _merged(reports: list[SyncReport]) -> SyncReport:
    """Returns what the passes over all partitions did, of which the first partition's is the last."""
    return SyncReport(
        leading=any(each.leading for each in reports),
        closed=any(each.closed for each in reports),
        purged=any(each.purged for each in reports),
        lost=next((each.lost for each in reports if each.lost), None),
        loaded=tuple(sorted({name for each in reports for name in each.loaded})),
        missing=tuple(sorted({name for each in reports for name in each.missing})),
        corrupt=tuple(sorted({name for each in reports for name in each.corrupt})),
        returned=sum(each.returned for each in reports),
        expired=sum(each.expired for each in reports),
        settled=sum(each.settled for each in reports),
        recovered=sum(each.recovered for each in reports),
    )


def _audit(audits: list[Audit]) -> Audit:
    """Returns the audits of all partitions as one."""
    goods: dict[str, Units] = {}
    for audit in audits:
        for goods_id, units in audit.goods.items():
            goods[goods_id] = goods.get(goods_id, Units()) + units
    return Audit(
        goods=goods,
        orders=tuple(each for audit in audits for each in audit.orders),
        lost=tuple(name for audit in audits for name in audit.lost),
        pending=sum(audit.pending for audit in audits),
        unreadable=sum(audit.unreadable for audit in audits),
        corrupt=tuple(f"{name} of partition {place}" for place, audit in enumerate(audits) for name in audit.corrupt),
        moving=any(audit.moving for audit in audits),
    )
