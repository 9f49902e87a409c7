"""The outbox: hands the events of orders to the host's handler, at least once, and in sequence for each order."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final
from zlib import crc32

from flashsale._rules.activity import Activity
from flashsale._rules.backoff import Backoff, delay_after
from flashsale._rules.observer import log
from flashsale.aio.known import wait_until_known
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.transport.runtime import StopEvent, end_of, pause, repeating, stop_on_signals
from flashsale.errors import FlashSaleError, InvalidRequest, StoreRequired
from flashsale.lua import Code
from flashsale.model import Event
from flashsale.model.checks import check_int, check_seconds

PAGE: Final = 500  # events of one read
SLOTS: Final = 64  # what all outboxes share, each order in one: more of them than that have nothing to do
FIRST_DELAY: Final = 5.0  # seconds before the second attempt, at most; it doubles: nine waits take about half an hour
LONGEST_DELAY: Final = 3600.0


class Outbox:
    """Hands every event to your handler: rejected, confirmed, cancelled, expired, refunded (`Event.is_refund`).

    With a store that has PERSISTED among its `events`, also each order that was saved, before its other events.

    Delivery is at least once: an event is deleted only after the handler has returned, so an event that was handled
    just before a crash comes again, with the same `event_id`. The next event of an order comes only after the one
    before it was handled, or is dead. When the handler raises, the event comes again later, and is dead after
    `max_attempts`; the events of other orders are delivered meanwhile.

    Run several for safety and for pace, up to 64: they share the orders, and when one dies the others have its orders
    after 30 seconds. A handler may take five minutes for one event; then another outbox may handle it, too. One that
    blocks the event loop may take 30 seconds.

    Args:
        sale: a FlashSale with a store.
        handler: called with one event at a time: it sends mail, starts a refund, or publishes to a message bus.
        interval: seconds between reads when nothing is due.
        max_attempts: how often the handler may fail on an event.
    """

    _LEASE = 30.0  # seconds for which it has its slots; renewed before each event, and while that is handled
    _RENEWALS = 30  # while an event is handled, each after a third of the lease

    def __init__(
        self,
        sale: FlashSale,
        handler: Callable[[Event], Awaitable[object]],
        *,
        interval: float = 1.0,
        max_attempts: int = 10,
    ) -> None:
        if sale.store is None:
            raise StoreRequired("an outbox")
        self._sale = sale
        self._store: AsyncOrderStore = sale.store
        self._handler = handler
        self._interval = check_seconds("interval", interval, low=0.001)
        self._max_attempts = check_int("max_attempts", max_attempts, 1)
        self._activity = Activity("outbox")
        self._token = secrets.token_hex(8)
        self._has_lease = False

    async def run(self, stop: StopEvent | None = None) -> None:
        """Delivers until `stop` is set; without one, until SIGTERM or SIGINT. An event that was begun is finished.

        It waits for a Redis or a database that cannot be reached.
        """
        async with stop_on_signals(stop) as event:
            await wait_until_known(self._sale, self._activity, event)
            try:
                async with self._sale._recorder.beating(self._activity):
                    await self._deliver_all(event)
            finally:
                await self._leave()

    async def _deliver_all(self, stop: StopEvent) -> None:
        backoff = Backoff()
        while not stop.is_set():
            self._activity.go_on()
            try:
                delay = 0.0 if await self._pass(stop) else self._interval
                backoff.reset()
            except FlashSaleError as error:
                delay = backoff.next()
                if backoff.is_news:
                    log.warning("the outbox waits: %s", type(error).__name__)
            await pause(stop, delay)

    async def run_once(self) -> int:
        """Delivers one page of due events, one of each order.

        Returns:
            The events delivered; 0 when none is due, or when other outboxes have their orders.

        Raises:
            StoreError: the database does not answer. The event that was being handled comes again.
            NotExecuted, OutcomeUnknown: Redis does not answer.
            InvalidRequest: the handler returned an awaitable, which nobody would await; the event stays.
        """
        try:
            return await self._pass(None)
        finally:
            await self._leave()

    async def dead(self, limit: int = 100) -> Sequence[Event]:
        """Returns the events on which the handler failed too often: oldest first, at most `limit`."""
        return await self._store.dead_events(check_int("limit", limit, 1))

    async def requeue_dead(self) -> int:
        """Makes all dead events due again. Later events of their orders may have been delivered meanwhile.

        Returns:
            How many there were.
        """
        return await self._store.requeue_events()

    async def _pass(self, stop: StopEvent | None) -> int:
        delivered = 0
        await self._sale._meet_all()
        mine = await self._share(Code.DONE, Code.REPLAYED)
        for event in await self._due(mine):
            if stop and stop.is_set():
                break
            slot = _slot(event)
            if slot in mine:  # the page is valid only for slots that no other outbox has had since
                mine &= await self._share(Code.REPLAYED)
            if slot in mine:
                delivered += await self._deliver(event)
        return delivered

    async def _due(self, mine: set[int]) -> Sequence[Event]:
        """Returns a page of due events of these slots; those of others lie between them, and sometimes before them."""
        limit = PAGE * SLOTS // max(1, len(mine))
        while mine:
            events = await self._store.events(now=await self._sale._ledger.time(), limit=limit)
            page = [event for event in events if _slot(event) in mine]
            if len(events) < limit or 4 * len(page) >= PAGE:
                return page
            limit *= 2
        return []

    async def _deliver(self, event: Event) -> bool:
        try:
            async with repeating(self._renew, self._LEASE / 3, self._RENEWALS):
                answer = await self._handle(event)
        except Exception as error:  # noqa: BLE001 - whatever the host's code raises; its text may hold buyers' data
            await self._postpone(event, type(error).__name__)
            return False
        if inspect.isawaitable(answer):
            raise InvalidRequest("handler", "must not return an awaitable: nothing has happened yet")
        await self._store.delivered([event.event_id])
        return True

    async def _handle(self, event: Event) -> object:
        with self._activity.doing("deliver"):
            return await end_of(self._handler(event))

    async def _postpone(self, event: Event, why: str) -> None:
        attempts = event.attempts + 1
        if attempts >= self._max_attempts:
            text = "event %d of order %s is dead after %d attempts: %s"
            log.error(text, event.event_id, event.order.order_id, attempts, why)
            await self._store.postpone(event.event_id, None)
            return
        delay = delay_after(attempts, FIRST_DELAY, LONGEST_DELAY)
        text = "event %d of order %s comes again in %.0f s: %s"
        log.warning(text, event.event_id, event.order.order_id, delay, why)
        await self._store.postpone(event.event_id, await self._sale._ledger.time() + delay)

    async def _share(self, *codes: int) -> set[int]:
        """Takes or renews a fair share of the slots, and returns those of these codes."""
        self._has_lease = False
        shared = await self._sale._meta.share(self._token, self._LEASE, SLOTS)
        self._has_lease = True
        return {slot for slot, code in enumerate(shared) if code in codes}

    async def _renew(self) -> None:
        with suppress(FlashSaleError):  # the next `_share` says what it came to
            await self._sale._meta.share(self._token, self._LEASE, SLOTS, busy=True)

    async def _leave(self) -> None:
        """Gives up its slots; where Redis does not answer, others have them when the lease ends."""
        if self._has_lease:
            with suppress(FlashSaleError):
                await self._sale._meta.share(self._token, 0.0, SLOTS)


def _slot(event: Event) -> int:
    return crc32(event.order.order_id.encode()) % SLOTS
