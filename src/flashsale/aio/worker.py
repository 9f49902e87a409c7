"""The worker: moves orders from the queue to the database in batches, each order exactly once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, ClassVar, Final, Self

from flashsale._rules.activity import Activity
from flashsale._rules.backoff import Backoff
from flashsale._rules.batches import bought_together, halves
from flashsale._rules.hooks import HookFailed
from flashsale._rules.observer import log
from flashsale._rules.rate_limited_log import RateLimitedLog, named
from flashsale._rules.signatures import signed_as
from flashsale.aio.known import wait_until_known
from flashsale.aio.ledger import Adoption
from flashsale.aio.order_queue import MAX_ATTEMPTS
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.transport.runtime import BackgroundTask, StopEvent, pause, repeating, spend, stop_on_signals
from flashsale.errors import (
    FlashSaleError,
    InvalidRequest,
    NotExecuted,
    OrderConflict,
    OutcomeUnknown,
    RowRefused,
    StoreError,
    StoreRequired,
)
from flashsale.lua import Code
from flashsale.model import Claim, Order, OrderState, StoredOrder
from flashsale.model.checks import check_int, check_seconds

_GIVING_BACK: Final = 2.0  # seconds for returning what was claimed ahead; else its leases end by themselves
_SLOW: Final = 1.0  # seconds of a transaction: after a quick one, twice as many orders may follow
_EXTENSIONS: Final = 30  # of a lease, each by a third: what takes ten leases is left to another worker


class Worker:
    """Claims a batch, saves it in one transaction, commits, and acks.

    `run` claims the next batch while a full one is saved.

    Wherever it is killed, another worker takes over when the lease ends: the row's primary key makes the second save
    harmless, and the ack comes only after the commit. While a save takes long, its leases are extended, to ten times
    `lease` at most. A batch that was too much for one transaction is tried again by halves. Run as many workers as you
    like.

    Args:
        sale: a FlashSale with a store.
        batch: most orders of one transaction, 1..1,000; a basket that is longer goes into one all the same.
        lease: seconds by the Redis clock after which another worker takes over.
    """

    _PARTITIONED: ClassVar[type[Worker]]  # of a sale over several partitions; aio/partitions/worker.py names it

    def __init__(self, sale: FlashSale, *, batch: int = 500, lease: float = 30.0) -> None:
        if sale.store is None:
            raise StoreRequired("a worker")
        self._sale = sale
        self._queue = sale.queue
        self._store: AsyncOrderStore = sale.store
        self._batch = check_int("batch", batch, 1, 1000)
        self._limit = self._batch  # less, while so many are more than the database or a hook can bear
        self._lease = check_seconds("lease", lease, low=0.001)
        self._log = RateLimitedLog()
        self._activity = Activity("worker")
        self._suspects: AbstractSet[str] = frozenset()  # ids of the last batch that was refused alike
        self._blamed: AbstractSet[str] = frozenset()  # such ids, once the database took other rows

    @signed_as(__init__)
    def __new__(cls, sale: FlashSale, **_: Any) -> Self:
        """Makes the worker that the sale needs."""
        if sale.partitions == 1 or issubclass(cls, cls._PARTITIONED):
            return object.__new__(cls)
        if cls is not Worker:
            raise InvalidRequest("sale", "a worker class of your own takes a sale with one partition")
        return object.__new__(cls._PARTITIONED)  # type: ignore[return-value]

    async def run(self, stop: StopEvent | None = None) -> None:
        """Works until `stop` is set; without one, until SIGTERM or SIGINT. A batch that was begun is finished.

        It waits for a Redis or a database that cannot be reached; told to stop, it waits 20 seconds at most.
        """
        async with stop_on_signals(stop) as event:
            await wait_until_known(self._sale, self._activity, event)
            async with self._sale._recorder.beating(self._activity):
                await self._work(event)

    def _workers(self) -> Sequence[Worker]:
        """Returns the workers that drain a queue each: this one, where the sale has no partitions."""
        return (self,)

    async def _work(self, stop: StopEvent) -> None:
        async with BackgroundTask() as background:
            await self._take_turns(stop, background)

    async def _take_turns(self, stop: StopEvent, background: BackgroundTask) -> None:
        backoff = Backoff()
        claims: Sequence[Claim] = ()
        while claims or not stop.is_set():
            self._activity.go_on()
            try:
                if stop.is_set():
                    await self._requeue(claims)
                    break
                claims = await self._turn(claims or await self._claim(0.5), background)
            except FlashSaleError as error:
                claims = ()
                if not isinstance(error, StoreError):  # that one is logged already, with an order id
                    self._log.tell(type(error), "the worker waits and tries again: %s", named(error))
                await pause(stop, backoff.next())
            else:
                backoff.reset()

    async def run_once(self) -> int:
        """Processes one batch.

        Returns:
            The orders that came to an end here; 0 within a second when there are none.

        Raises:
            StoreError: the database does not answer, or has no row of the item. The orders went back to the queue,
                and this attempt does not count.
            NotExecuted, OutcomeUnknown: Redis does not answer; the leases end by themselves.
        """
        claims = await self._claim(0.5)
        if not claims:
            return 0
        async with repeating(partial(self._extend, claims), self._lease / 3, _EXTENSIONS):
            return await self._process(claims)

    async def _claim(self, timeout: float) -> Sequence[Claim]:
        return await self._queue.claim(self._limit, lease=self._lease, timeout=timeout)

    async def _turn(self, claims: Sequence[Claim], background: BackgroundTask) -> Sequence[Claim]:
        """Processes a batch, and claims the next one meanwhile, if this one was full: then more are waiting.

        Returns:
            The next batch, its lease still fresh.
        """
        held = [*claims]
        self._activity.hold(held)
        async with repeating(partial(self._extend, held), self._lease / 3, _EXTENSIONS):
            if len(claims) < self._limit:
                await self._process(claims)
                return ()
            next_claims = background.begin(partial(self._claim_ahead, held))
            try:
                await self._process(claims)
            except FlashSaleError:
                await spend(monotonic() + _GIVING_BACK, self._requeue, await next_claims())
                raise
            return await next_claims()

    async def _claim_ahead(self, held: list[Claim]) -> Sequence[Claim]:
        claims = await self._claim(0)
        held += claims
        return claims

    async def _extend(self, claims: Sequence[Claim]) -> None:
        """Extends the leases of a batch that is being saved; claims that are settled already are left out."""
        first = next((claim.order.order_id for claim in claims if claim.order), "unreadable")
        message = "saving %d orders takes long, order %s first; %s"
        try:
            await self._queue.extend(claims, lease=self._lease)
        except FlashSaleError as error:
            after = f"their leases are not extended, so another worker may save them, too: {named(error)}"
            self._log.tell((message, type(error)), message, len(claims), first, after)
        else:
            self._log.tell(message, message, len(claims), first, "their leases are extended")

    async def _requeue(self, claims: Sequence[Claim]) -> None:
        """Returns claims that were not begun: another worker gets them at once, and no attempt is counted."""
        await self._queue.nack(claims, count_attempt=False)

    async def _process(self, claims: Sequence[Claim]) -> int:
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
            known = {order_id for order_id, same in by_id.items() if same[0].attempts > 1}
            states = await self._save([_order(same[0]) for same in by_id.values()], known)
        except (StoreError, OutcomeUnknown) as error:
            await self._queue.nack(readable, delay=1.0, count_attempt=False)
            self._tell_failure(readable, error)
            raise
        settled = states.keys() - await self._follow(
            [StoredOrder(_order(by_id[order_id][0]), state) for order_id, state in states.items()]
        )
        done = [claim for order_id in settled for claim in by_id[order_id]]
        dropped, now = await self._queue._drop(done)
        moved_on = [order_id for order_id in settled if states[order_id] is not OrderState.PERSISTED]
        self._sale._recorder.saved(dropped - len(moved_on))
        await self._give_up_or_wait([claim for claim in claims if _order(claim).order_id not in settled])
        self._tell_lag(done, now)
        return len(settled) + rejected

    def _tell_failure(self, claims: Sequence[Claim], error: FlashSaleError) -> None:
        message = "the database failed with %d orders, order %s first: %s; they are tried again, no attempt counts"
        self._log.tell((message, named(error)), message, len(claims), _order(claims[0]).order_id, named(error))

    async def _follow(self, rows: Sequence[StoredOrder]) -> set[str]:
        """Makes the ledger follow what the database released; the ack does the rest.

        Returns:
            Ids of orders whose items cannot be trusted: that stops only these orders.
        """
        rows = [row for row in rows if row.state is not OrderState.PERSISTED]
        moves = await self._sale._transitions.follow_all(rows)
        return {row.order.order_id for row, move in zip(rows, moves, strict=True) if move.code == Code.CORRUPT}

    async def _adopted(self, claims: Sequence[Claim]) -> tuple[Sequence[Claim], int]:
        """Brings external orders into the ledger.

        Returns:
            The claims that the database may save, and how many orders ended REJECTED.
        """
        adoptions = await self._sale._ledger.adopt([_order(claim) for claim in claims])
        pairs = list(zip(claims, adoptions, strict=True))
        await self._bury_conflicts([claim for claim, adoption in pairs if adoption.code == Code.CONFLICT])
        stuck = _stuck(pairs)
        await self._give_up_or_wait(list(stuck.values()))
        early = [claim for claim, adoption in pairs if adoption.code == Code.PAUSED]
        if early:  # a rebuild is under way
            await self._queue.nack(early, delay=1.0, count_attempt=False)
        sold_out = [claim for claim, adoption in pairs if adoption.state is OrderState.REJECTED]
        rejected = [claim for claim in sold_out if await self._reject(claim)]
        await self._queue.ack(rejected)
        ready = [claim for claim, adoption in pairs if _may_be_saved(adoption) and claim.token not in stuck]
        return ready, len(rejected)

    async def _reject(self, claim: Claim) -> bool:
        """Tells the database of an order that was sold out; False when it takes no such row."""
        try:
            await self._store.settle(_order(claim), OrderState.REJECTED)
        except OrderConflict:
            await self._bury_conflicts([claim])
            return False
        except Exception as error:
            if not _blames_row(error):
                raise
            await self._tell_refusal(_order(claim).order_id, error)
            await self._give_up_or_wait([claim])
            return False
        return True

    async def _bury_conflicts(self, claims: Sequence[Claim]) -> None:
        """Buries elements, but not the orders that the ledger has under their ids: those are other ones."""
        if claims:
            for claim in claims:
                log.error("an element is a dead letter: it reuses the id of order %s", _order(claim).order_id)
            await self._queue._bury([replace(claim, order=None) for claim in claims])

    async def _save(self, orders: Sequence[Order], known: AbstractSet[str]) -> dict[str, OrderState]:
        """Saves a batch; a row that the database refuses is found by splitting.

        A batch of which every order is refused alike is the database's fault, unless the database took other rows
        since it refused these: beside them (they are `known`), or in a later batch.

        Returns:
            The current state of each order that the database took.

        Raises:
            StoreError: the database's fault: no order is to blame.
        """
        refusals: dict[str, Exception] = {}
        states = await self._split(orders, refusals)
        causes = {_reason(error) for error in refusals.values()}
        alike = len(refusals) == len(orders) and len(causes) == 1 and bool(halves(orders)[1])
        if alike and not refusals.keys() <= known | self._blamed:
            self._suspects = frozenset(refusals)
            refusal = next(iter(refusals.values()))
            raise StoreError(f"each order of a batch was refused: {_reason(refusal)}") from refusal
        if len(refusals) < len(orders):
            self._blame_suspects()
        for order_id, error in refusals.items():
            await self._tell_refusal(order_id, error)
        await self._queue._forget_reasons(states.keys() & known)
        return states

    def _blame_suspects(self) -> None:
        """The database takes rows: it was not its fault that it refused a batch alike."""
        if self._suspects:
            self._blamed, self._suspects = self._suspects, frozenset()

    async def _tell_refusal(self, order_id: str, error: Exception) -> None:
        reason, message = _reason(error), "order %s was refused by the database: %s"
        self._log.tell((message, reason), message, order_id, reason, level=logging.ERROR)
        await self._queue._explain(order_id, reason)

    async def _split(self, orders: Sequence[Order], refusals: dict[str, Exception]) -> dict[str, OrderState]:
        """Saves orders, half by half where it must; what is refused alone, or is a basket, goes to `refusals`."""
        if not orders:
            return {}
        began = monotonic()
        try:
            with self._activity.doing("save"), self._sale._recorder.timing("save"):
                saved = await self._store.save(orders)
        except Exception as error:
            if not _blames_row(error):
                if _is_slow(began):
                    self._limit = min(self._batch, max(2, len(orders) // 2))  # one alone would be to blame
                raise
            first, second = halves(orders)
            if not second:
                refusals.update(dict.fromkeys((order.order_id for order in orders), error))
                return {}
            return await self._split(first, refusals) | await self._split(second, refusals)
        if not _is_slow(began):
            self._limit = min(self._batch, max(self._limit, 2 * len(orders)))
        return saved.states

    async def _give_up_or_wait(self, claims: Sequence[Claim]) -> None:
        """Requeues orders that cannot be saved with exponential backoff, until the queue makes them dead letters."""
        for together in bought_together(claims, lambda claim: _order(claim).basket_id):
            attempts = max(claim.attempts for claim in together)
            delay = 0.25 * 2**attempts
            await self._queue.nack(together, delay=delay)
            message = "order %s cannot be settled, attempt %d of %d; it is tried again in %.1f s"
            self._log.tell(message, message, _order(together[0]).order_id, attempts, MAX_ATTEMPTS, delay)

    def _tell_lag(self, claims: Sequence[Claim], now: float) -> None:
        accepted = [order.created_at for claim in claims if (order := claim.order) and order.created_at is not None]
        if accepted:
            lag = max(0.0, now - min(accepted))
            self._sale._recorder.lagged(lag)
            self._sale._notifier.lag(len(claims), lag)


def _order(claim: Claim) -> Order:
    assert claim.order is not None  # unreadable claims were buried
    return claim.order


def _stuck(pairs: Sequence[tuple[Claim, Adoption]]) -> dict[str, Claim]:
    """Returns by token the claims whose item is unknown or corrupt, and with each of them the rest of its basket."""
    codes = {Code.UNKNOWN, Code.CORRUPT}
    if all(adoption.code not in codes for _, adoption in pairs):
        return {}
    return {
        claim.token: claim
        for group in bought_together(pairs, lambda pair: _order(pair[0]).basket_id)
        if any(adoption.code in codes for _, adoption in group)
        for claim, adoption in group
        if adoption.code in codes or _may_be_saved(adoption)
    }


def _is_slow(began: float) -> bool:
    return monotonic() - began > _SLOW


def _blames_row(error: Exception) -> bool:
    """True when one of the orders is to blame: the database refused a row, or a host's own `save` raised anything."""
    if isinstance(error, StoreError):
        return isinstance(error, RowRefused | HookFailed)
    return not isinstance(error, NotExecuted | OutcomeUnknown)


def _reason(error: Exception) -> str:
    """Returns what a log may say: our own message, or the type of an error that may quote the order."""
    return str(error) if isinstance(error, RowRefused | HookFailed) else type(error).__name__


def _may_be_saved(adoption: Adoption) -> bool:
    return adoption.code > 0 and adoption.state is not OrderState.REJECTED
