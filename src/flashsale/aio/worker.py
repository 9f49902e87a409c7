"""The worker: moves orders from the queue to the database, in batches, at least once in and exactly once out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flashsale._rules.backoff import Backoff
from flashsale._rules.observer import log
from flashsale.aio.ledger import Adoption
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.transport.runtime import BackgroundTask, StopEvent, pause, stop_on_signals
from flashsale.errors import CorruptState, FlashSaleError, OrderConflict, RowRefused, StoreError, StoreRequired
from flashsale.lua import Code
from flashsale.model import Claim, Order, OrderState
from flashsale.model.checks import check_int, check_seconds


class Worker:
    """Claims a batch, saves it in one transaction, commits, acks with the states that stand.

    `run` claims the next batch while a full one is saved.

    Killed anywhere, another worker takes over when the lease ends: the row's primary key makes the second save
    harmless, and the ack comes only after the commit. Run as many as you like.

    Args:
        sale: a FlashSale with a store.
        batch: most orders of one transaction, 1..1,000.
        lease: seconds of Redis TIME after which another worker takes over.
    """

    def __init__(self, sale: FlashSale, *, batch: int = 500, lease: float = 30.0) -> None:
        if sale.store is None:
            raise StoreRequired("a worker")
        self._sale = sale
        self._queue = sale.queue
        self._store: AsyncOrderStore = sale.store
        self._batch = check_int("batch", batch, 1, 1000)
        self._lease = check_seconds("lease", lease, low=0.001)

    async def run(self, stop: StopEvent | None = None) -> None:
        """Works until `stop` is set; without one, until SIGTERM or SIGINT. A batch begun is finished.

        An unreachable Redis or database is waited for.
        """
        backoff = Backoff()
        async with stop_on_signals(stop) as event, BackgroundTask() as aside:
            claims: Sequence[Claim] = ()
            while claims or not event.is_set():
                try:
                    if event.is_set():
                        await self._let_go(claims)
                        break
                    claims = await self._turn(claims or await self._claim(0.5), aside)
                except FlashSaleError as error:
                    claims = ()
                    delay = backoff.next()
                    if backoff.is_news:
                        log.warning("the worker waits: %s", type(error).__name__)
                    await pause(event, delay)
                else:
                    backoff.reset()

    async def run_once(self) -> int:
        """Settles one batch.

        Returns:
            The orders settled; 0 within a second when there are none.

        Raises:
            StoreError: the database does not answer, or has no row of the goods. The orders went back to the queue,
                and this attempt does not count.
            NotExecuted, OutcomeUnknown: Redis does not answer; the leases end by themselves.
        """
        claims = await self._claim(0.5)
        return await self._settle(claims) if claims else 0

    async def _claim(self, timeout: float) -> Sequence[Claim]:
        return await self._queue.claim(self._batch, lease=self._lease, timeout=timeout)

    async def _turn(self, claims: Sequence[Claim], aside: BackgroundTask) -> Sequence[Claim]:
        """Settles a batch, and claims the next one meanwhile, if this one was full: then more are waiting.

        Returns:
            The next batch, its lease still fresh.
        """
        if len(claims) < self._batch:
            await self._settle(claims)
            return ()
        begun = time.monotonic()
        next_claims = aside.begin(partial(self._claim, 0))
        try:
            await self._settle(claims)
        except FlashSaleError:
            await self._let_go(await next_claims())
            raise
        ahead = await next_claims()
        if time.monotonic() - begun > self._lease / 4:
            await self._queue.extend(ahead, lease=self._lease)
        return ahead

    async def _let_go(self, claims: Sequence[Claim]) -> None:
        """Lets go of claims that were not begun: the next worker has them at once, and no attempt counts."""
        await self._queue.nack(claims, count_attempt=False)

    async def _settle(self, claims: Sequence[Claim]) -> int:
        unreadable = [claim for claim in claims if claim.order is None]
        if unreadable:
            log.error("%d elements of the queue are not orders; they are among the dead", len(unreadable))
            await self._queue._bury(unreadable)
        readable = [claim for claim in claims if claim.order is not None]
        try:
            claims, rejected = await self._adopted(readable)
            by_id: dict[str, list[Claim]] = {}
            for claim in claims:
                by_id.setdefault(_order(claim).order_id, []).append(claim)
            standing = await self._save([_order(same[0]) for same in by_id.values()])
        except StoreError:
            await self._queue.nack(readable, delay=1.0, count_attempt=False)
            raise
        settled = {order_id for order_id, state in standing.items() if await self._follow(order_id, state)}
        done = [claim for order_id in settled for claim in by_id[order_id]]
        _, now = await self._queue._drop(done)
        await self._give_up_or_wait([claim for claim in claims if _order(claim).order_id not in settled])
        self._tell_lag(done, now)
        return len(settled) + rejected

    async def _follow(self, order_id: str, state: OrderState) -> bool:
        """Makes the ledger follow a release; False when the goods cannot be trusted: that stops only this order."""
        if state is not OrderState.PERSISTED:
            try:
                await self._sale._transitions.follow(order_id, state)
            except CorruptState:
                return False
        return True

    async def _adopted(self, claims: Sequence[Claim]) -> tuple[Sequence[Claim], int]:
        """Brings foreign orders into the ledger.

        Returns:
            The claims that the database may save, and how many orders were settled as REJECTED.
        """
        adoptions = await self._sale._ledger.adopt([_order(claim) for claim in claims])
        pairs = list(zip(claims, adoptions, strict=True))
        await self._bury_conflicts([claim for claim, adoption in pairs if adoption.code == Code.CONFLICT])
        await self._give_up_or_wait(
            [claim for claim, adoption in pairs if adoption.code in {Code.UNKNOWN, Code.CORRUPT}]
        )
        early = [claim for claim, adoption in pairs if adoption.code == Code.PAUSED]
        if early:  # a rebuild is under way
            await self._queue.nack(early, delay=1.0, count_attempt=False)
        sold_out = [claim for claim, adoption in pairs if adoption.state is OrderState.REJECTED]
        rejected = [claim for claim in sold_out if await self._reject(claim)]
        await self._queue.ack(rejected)
        return [claim for claim, adoption in pairs if _may_be_saved(adoption)], len(rejected)

    async def _reject(self, claim: Claim) -> bool:
        """Tells the database of an order that was sold out; False when it takes no such row."""
        try:
            await self._store.settle(_order(claim), OrderState.REJECTED)
        except OrderConflict:
            await self._bury_conflicts([claim])
            return False
        except RowRefused:
            await self._give_up_or_wait([claim])
            return False
        return True

    async def _bury_conflicts(self, claims: Sequence[Claim]) -> None:
        """Buries elements, but not the orders that the ledger has under their ids: those are other ones."""
        if claims:
            log.error("%d elements of the queue reuse an order id; they are among the dead", len(claims))
            await self._queue._bury([replace(claim, order=None) for claim in claims])

    async def _save(self, orders: Sequence[Order]) -> dict[str, OrderState]:
        """Saves a batch; a row that the database refuses is found by splitting.

        Returns:
            The state that stands, of each order that the database took.
        """
        if not orders:
            return {}
        try:
            saved = await self._store.save(orders)
        except RowRefused:
            if len(orders) == 1:
                return {}
            middle = len(orders) // 2
            return await self._save(orders[:middle]) | await self._save(orders[middle:])
        return saved.states

    async def _give_up_or_wait(self, claims: Sequence[Claim]) -> None:
        """Lets go of orders that cannot be settled, with growing delay; the queue buries them after a few attempts."""
        for claim in claims:
            await self._queue.nack([claim], delay=0.25 * 2**claim.attempts)

    def _tell_lag(self, claims: Sequence[Claim], now: float) -> None:
        accepted = [order.created_at for claim in claims if (order := claim.order) and order.created_at is not None]
        if accepted:
            self._sale._notifier.lag(len(claims), max(0.0, now - min(accepted)))


def _order(claim: Claim) -> Order:
    assert claim.order is not None  # unreadable claims were buried
    return claim.order


def _may_be_saved(adoption: Adoption) -> bool:
    return adoption.code > 0 and adoption.state is not OrderState.REJECTED
