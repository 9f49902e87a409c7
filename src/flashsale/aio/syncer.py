"""The syncer: brings Redis in line with the database (stock, then gate), periodically; audit, repair and purge too."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Final, Self

from flashsale._rules.activity import Activity, instance
from flashsale._rules.batches import batches
from flashsale._rules.hooks import HookFailed
from flashsale._rules.observer import log
from flashsale._rules.rate_limited_log import RateLimitedLog, named
from flashsale._rules.signatures import signed_as
from flashsale.aio.auditor import Auditor
from flashsale.aio.known import wait_until_known
from flashsale.aio.rebuilder import Rebuilder
from flashsale.aio.recorder import FOREVER
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore, fix_partitions, is_purged, record_purge, settled_since
from flashsale.aio.transport.runtime import StopEvent, pause, repeating, stop_on_signals
from flashsale.errors import (
    AlreadyLoaded,
    CorruptState,
    FlashSaleError,
    InvalidRequest,
    NotSettled,
    RowRefused,
    StoreError,
    StoreRequired,
    UnknownGoods,
)
from flashsale.model import Goods, OrderState, Stock
from flashsale.model.checks import check_seconds
from flashsale.model.reports import Audit, Rebuild, Repair, Settlement, SyncReport

PAGE: Final = 100  # overdue orders of one transaction
PAGES: Final = 50  # of orders that have moved, in one pass
SWEEPS: Final = 20  # pages of tickets of one item, in one pass
OVERLAP: Final = 10.0  # seconds that are read again: a commit may come late, and clocks differ
LOOK_BACK: Final = 600.0  # seconds of moves that a new syncer reads; older ones it meets on its way through the table


class Syncer:
    """Preloads items from the database, moves totals on a restock, keeps the gate in step, expires unpaid orders.

    It never sets or lowers `Booked`. Run several for safety: one acts at a time.

    Args:
        sale: a FlashSale with a store.
        interval: seconds between passes.
    """

    _LEASE = 30.0  # seconds for which one syncer leads, at most
    _PARTITIONED: ClassVar[type[Syncer]]  # of a sale over several partitions; aio/partitions/syncer.py names it

    def __init__(self, sale: FlashSale, *, interval: float = 1.0) -> None:
        if sale.store is None:
            raise StoreRequired("a syncer")
        self._sale = sale
        self._store: AsyncOrderStore = sale.store
        self._interval = check_seconds("interval", interval, low=0.001)
        self._activity = Activity("syncer")
        self._token = f"{instance()}:{secrets.token_hex(8)}"
        self._log = RateLimitedLog()
        self._auditor = Auditor(sale)
        self._cursor: str | None = None
        self._moved = time.time() - LOOK_BACK, ""  # the last move that this syncer has read, and its order id
        self._last: dict[str, tuple[int, int]] = {}  # item -> booked and access at the last look
        self._granted: dict[str, tuple[int, int]] = {}  # item -> units that this process last granted, and the version
        self._swept: dict[str, str] = {}  # item -> where the next page of its tickets begins
        self._is_begun = False  # True once the database knows that the sale is on one Redis

    @signed_as(__init__)
    def __new__(cls, sale: FlashSale, **_: Any) -> Self:
        """Makes the syncer that the sale needs."""
        if sale.partitions == 1 or issubclass(cls, cls._PARTITIONED):
            return object.__new__(cls)
        if cls is not Syncer:
            raise InvalidRequest("sale", "a syncer class of your own takes a sale with one partition")
        return object.__new__(cls._PARTITIONED)  # type: ignore[return-value]

    async def run(self, stop: StopEvent | None = None) -> None:
        """Passes every `interval` seconds until `stop` is set; without one, until SIGTERM or SIGINT.

        It waits for a Redis or a database that cannot be reached; told to stop, it waits 20 seconds at most.
        """
        async with stop_on_signals(stop) as event:
            await wait_until_known(self._sale, self._activity, event)
            recorder = self._sale._recorder
            sampling = repeating(recorder.sample, self._interval, FOREVER)  # also while the database hangs
            async with recorder.beating(self._activity), sampling:
                while not event.is_set():
                    await self._pass_or_log(event)
                    await pause(event, self._interval)

    async def _pass_or_log(self, stop: StopEvent) -> None:
        try:
            with self._activity.doing("pass"):
                self._tell(await self._pass(stop))
        except FlashSaleError as error:
            self._log.tell(named(error), "the syncer's pass failed, the next one comes: %s", named(error))

    def _tell(self, report: SyncReport) -> None:
        if report.purged:
            self._log.tell("purged", "the sale was purged: there is nothing to do for a syncer")
        elif report.missing:
            message, names = "goods lost from Redis, closed until rebuild: %s", ", ".join(report.missing)
            self._log.tell(report.missing, message, names, level=logging.ERROR)
        if report.recovered:
            log.warning("orders lost from a key in Redis, and brought back: %d", report.recovered)
        if report.lost:
            log.error("the sale has lost its key %r", report.lost)
        if report.closed:
            self._log.tell("closed", "the sale is closed; only a rebuild opens it", level=logging.ERROR)

    async def run_once(self) -> SyncReport:
        """Makes one pass over all items: inventory first, then gate.

        Returns:
            What it did.

        Raises:
            StoreError: the database does not answer.
            NotExecuted, OutcomeUnknown: Redis does not answer.
        """
        try:
            return await self._pass(None)
        finally:
            await self._sale._recorder.sample()

    async def _pass(self, stop: StopEvent | None) -> SyncReport:
        """Makes a pass; `stop` ends it between two items, and the next pass takes up the rest."""
        if await is_purged(self._store):  # first: no key comes back
            gone = tuple(goods.goods_id for goods in await self._store.goods() if goods.loaded)
            return SyncReport(leading=False, purged=True, missing=gone)
        if not await self._sale._meta.lead(self._token, self._LEASE):
            return SyncReport(leading=False)
        try:
            all_goods = await self._store.goods()  # first: when the database is away, that ends the pass at once
            loss = await self._sale._meta.notice([goods.goods_id for goods in all_goods if goods.loaded])
            if loss.closed:  # before a page is restored: a ledger that is half filled again looks alive
                return SyncReport(leading=True, closed=True, lost=loss.key)
            report = SyncReport(leading=True, missing=loss.goods, expired=await self._expire())
            for goods in all_goods:
                if stop and stop.is_set():
                    return report
                self._activity.go_on()
                try:
                    report = await self._sync(goods, report)
                except (CorruptState, HookFailed, RowRefused) as error:  # it stops this item, not the others
                    report = self._stopped(goods.goods_id, error, report)
            settled = await self._follow_moves(stop) + await self._reconcile_page()
            recovered = await self._auditor.recover()
            await self._sale._recorder.write_kept(self._store)
            return replace(report, settled=settled, recovered=recovered)
        finally:
            await self._sale._meta.lead(self._token, 0.0)

    async def audit(self, expected: Iterable[str] = ()) -> Audit:
        """Compares ledger, queue, leases, deadlines and database, while the sale runs. Changes nothing.

        Args:
            expected: order ids that were acknowledged to buyers; those that no system holds any more are named.

        Returns:
            Where every unit is, and every order that disagrees.
        """
        return await self._auditor.audit(expected)

    async def repair(self, *, dry_run: bool = True, trust_ledger: bool = False) -> Repair:
        """Mends exactly what an audit finds, order by order; never sets `Booked`.

        An order that is paid in Redis and not in the database is listed, and left: the ledger is no proof of a payment.

        Args:
            dry_run: True: only say what would be mended.
            trust_ledger: True: confirms these orders too. Ask your payment provider first.
        """
        return await self._auditor.repair(dry_run=dry_run, trust_ledger=trust_ledger)

    async def rebuild(self) -> Rebuild:
        """Restores Redis from the database after a loss, under a new epoch; closed until the sums are verified.

        Orders that had not reached the database are lost, unless they wait in the queue; name the acknowledged ones
        with `audit(expected=...)`. Goods without an opening time stay shut until `start`.

        Raises:
            InvalidRequest: the sale was purged, or a total was lowered below what is sold while orders wait for the
                database: these would be rejected. Nothing was changed, or the sale is closed.
            CorruptState: the sums do not agree, or another rebuild has begun; the sale stays closed.
        """
        return await Rebuilder(self._sale).rebuild()

    async def settlement(self) -> Settlement:
        """Returns the proof at the end of a sale: every unit accounted for, and the orders by state."""
        audit = await self.audit()
        counts: Counter[OrderState] = Counter()
        after = None
        while rows := await self._store.orders(after=after):
            after = rows[-1].order.order_id
            counts.update(row.state for row in rows)
        gate = {}
        for goods_id in await self._sale._meta.goods():
            with suppress(UnknownGoods):  # a purge was begun
                gate[goods_id] = await self._sale._gate_state(goods_id)
        refused = await self._sale._recorder.refused()
        return Settlement(audit=audit, orders=counts, gate=gate, refused=refused)

    async def purge(self) -> Settlement:
        """Ends the sale: removes its keys from Redis, when it is settled. The database keeps all rows, and records it.

        Nothing brings a purged sale back: no syncer, no rebuild, no `preload` and no `put_goods`. The name is used up.

        Raises:
            NotSettled: units are queued, unpaid or dead, or something disagrees; nothing was removed.
            StoreError: the database does not answer, or a hook raised; nothing was removed.
        """
        settlement = await self.settlement()
        if not settlement.ok:
            raise NotSettled(settlement)
        was_open = (await self._sale._meta.state()).state == "open"
        if was_open:  # who buys between the proof and the removal would be told "accepted"
            await self._sale.pause()
            try:
                settlement = await self.settlement()
                if not settlement.ok:
                    raise NotSettled(settlement)
            except FlashSaleError:
                await self._sale.resume()
                raise
        try:
            epoch = await record_purge(self._store)
        except StoreError:  # nothing was recorded: a hook of the shop's raised, or the database is away
            if was_open:
                await self._sale.resume()
            raise
        if epoch is not None:  # neither `resume` nor a rebuild that has begun opens it from now
            await self._sale._close(epoch)
        await self._sale._forget()
        return settlement

    async def _sync(self, goods: Goods, report: SyncReport) -> SyncReport:
        goods_id = goods.goods_id
        stock = await self._stock(goods_id)
        if stock is None and goods.loaded:
            return replace(report, missing=(*report.missing, goods_id))
        if stock is None:
            stock = await self._load(goods)
            if stock is None:
                return report
            report = replace(report, loaded=(*report.loaded, goods_id))
        elif not goods.loaded:
            await self._store.grant(goods_id, max(goods.total, stock.total), loaded=True, version=goods.version)
        total = await self._sale._transitions.adjust(goods, stock)
        await self._tighten(goods, total)
        if total != stock.total:
            report = replace(report, resized=(*report.resized, (goods_id, total)))
        returned = await self._mirror(goods, total)
        await self._sweep(goods_id)
        return replace(report, returned=report.returned + returned)

    def _stopped(self, goods_id: str, error: FlashSaleError, report: SyncReport) -> SyncReport:
        message = "goods %s cannot be synced, the next pass tries again: %s"
        self._log.tell((message, goods_id), message, goods_id, named(error))
        corrupt = {*report.corrupt, goods_id} if isinstance(error, CorruptState) else report.corrupt
        return replace(report, corrupt=tuple(sorted(corrupt)))

    async def _tighten(self, goods: Goods, total: int) -> None:
        """Sets the guard to what Redis has, once in each process and for each row.

        A crash between stock and guard leaves it too loose; so does a raise that was taken back before Redis had it.
        """
        granted = total, goods.version
        loose = self._granted.get(goods.goods_id) != granted
        if loose and await self._store.grant(goods.goods_id, total, version=goods.version):
            self._granted[goods.goods_id] = granted

    async def _load(self, goods: Goods) -> Stock | None:
        """Preloads, and only then records it; the guard's grant stands before the first unit can be sold.

        None when the row was changed meanwhile: the next pass sees to it.
        """
        if not self._is_begun:
            await fix_partitions(self._store, 1)
            self._is_begun = True
        if not await self._store.grant(goods.goods_id, goods.total, version=goods.version):
            return None
        try:
            await self._sale.inventory.preload(
                goods.goods_id,
                goods.total,
                per_buyer=goods.per_buyer,
                opens_at=goods.opens_at,
                closes_at=goods.closes_at,
                hold=goods.hold,
                version=goods.version,
            )
        except AlreadyLoaded:
            log.info("goods %s were loaded by somebody else meanwhile", goods.goods_id)
        else:
            log.info("goods %s are in Redis: %d units", goods.goods_id, goods.total)
        await self._store.grant(goods.goods_id, goods.total, loaded=True, version=goods.version)
        return await self._sale.inventory.stock(goods.goods_id)

    async def _mirror(self, goods: Goods, total: int) -> int:
        """Makes the gate follow; slots that nobody uses any more let more traffic in."""
        sale, goods_id = self._sale, goods.goods_id
        booked = (await sale.inventory.stock(goods_id)).booked
        cap = goods.per_buyer
        await sale.gate._ensure(goods_id, total, opens_at=goods.opens_at, closes_at=goods.closes_at, per_buyer=cap)
        before = self._last.get(goods_id)
        unmoved = before[1] if before and before[0] == booked else None
        paused = (await sale._meta.state()).state != "open"
        access, returned = await sale.gate._mirror(
            goods_id, total, booked, access=unmoved, paused=paused, per_buyer=cap, stock_here=sale._one_redis
        )
        self._last[goods_id] = (booked, access)
        return returned

    async def _sweep(self, goods_id: str) -> None:
        """Removes dead tickets, a bounded number of pages in a pass; the next pass goes on from there."""
        cursor = self._swept.get(goods_id, "0")
        for _ in range(SWEEPS):
            cursor = await self._sale.gate._sweep(goods_id, cursor, orders_here=self._sale._one_redis)
            if cursor == "0":
                break
        self._swept[goods_id] = cursor

    async def _expire(self) -> int:
        """Expires orders whose payment deadline has passed by the Redis clock; paying has won or loses here."""
        overdue = await self._sale._ledger.overdue()
        pages = [dict(page) for page in batches(overdue.items(), PAGE)]
        return sum([await self._sale._transitions.expire(page) for page in pages])

    async def _follow_moves(self, stop: StopEvent | None) -> int:
        """Makes the ledger follow the orders that have moved of late, at any size of the table."""
        settled = settled_since(self._store)
        if settled is None:
            return 0
        began, moved = time.time(), 0
        for _ in range(PAGES):
            if stop and stop.is_set():
                break
            page = await settled(*self._moved)
            if not page:
                self._moved = began - OVERLAP, ""
                break
            moved += await self._auditor.reconcile([row for row, _ in page])
            self._moved = page[-1][1], page[-1][0].order.order_id
        return moved

    async def _reconcile_page(self) -> int:
        """Makes the ledger follow the next page of rows; pass by pass this goes round and round."""
        rows = await self._store.orders(after=self._cursor)
        self._cursor = rows[-1].order.order_id if rows else None
        return await self._auditor.reconcile(rows)

    async def _stock(self, goods_id: str) -> Stock | None:
        try:
            return await self._sale.inventory.stock(goods_id)
        except UnknownGoods:
            return None
