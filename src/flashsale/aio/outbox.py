"""The outbox: tells the host how each order went on, at least once, in the order of the order's life."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from flashsale._rules.backoff import Backoff, delay_after
from flashsale._rules.observer import log
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.transport.runtime import StopEvent, end_of, pause, stop_on_signals
from flashsale.errors import FlashSaleError, InvalidRequest, StoreRequired
from flashsale.lua import Code
from flashsale.model import Event
from flashsale.model.checks import check_int, check_seconds

PAGE: Final = 100  # events of one read
FIRST_DELAY: Final = 5.0  # seconds before the second attempt at the most; it doubles: 9 waits are half an hour or so
LONGEST_DELAY: Final = 3600.0


class Outbox:
    """Hands every event to your handler: rejected, confirmed, cancelled, expired, refunded (`Event.is_refund`).

    At least once: an event is forgotten only after the handler returned, so one that was handled just before a crash
    comes again; `event_id` tells. Of one order the next event comes only after the one before it was handled, or is
    dead. An event on which the handler raises comes again later, and is dead after `max_attempts`; other orders' events
    go on meanwhile. Run several for safety: one acts at a time, as long as the handler takes less than 30 seconds
    for one event.

    Args:
        sale: a FlashSale with a store.
        handler: called with one event after the other: sends mail, starts a refund, feeds another bus.
        interval: seconds between looks when nothing is due.
        max_attempts: how often the handler may fail on an event.
    """

    _LEASE = 30.0  # seconds for which one outbox acts, at most; renewed before each event

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
        self._token = secrets.token_hex(8)

    async def run(self, stop: StopEvent | None = None) -> None:
        """Delivers until `stop` is set; without one, until SIGTERM or SIGINT. An event begun is finished.

        An unreachable Redis or database is waited for.
        """
        backoff = Backoff()
        async with stop_on_signals(stop) as event:
            while not event.is_set():
                try:
                    delay = 0.0 if await self._pass(event) else self._interval
                    backoff.reset()
                except FlashSaleError as error:
                    delay = backoff.next()
                    if backoff.is_news:
                        log.warning("the outbox waits: %s", type(error).__name__)
                await pause(event, delay)

    async def run_once(self) -> int:
        """Delivers one page of what is due, of each order one event.

        Returns:
            The events delivered; 0 when none is due, or another outbox acts.

        Raises:
            StoreError: the database does not answer. The event that was being handled comes again.
            NotExecuted, OutcomeUnknown: Redis does not answer.
            InvalidRequest: the handler answered with something that nobody awaits; the event stays.
        """
        return await self._pass(None)

    async def dead(self, limit: int = 100) -> Sequence[Event]:
        """Returns events on which the handler failed too often, oldest first, at most `limit`."""
        return await self._store.dead_events(check_int("limit", limit, 1))

    async def requeue_dead(self) -> int:
        """Makes all dead events due again. Later events of their orders may have been delivered meanwhile.

        Returns:
            How many.
        """
        return await self._store.requeue_events()

    async def _pass(self, stop: StopEvent | None) -> int:
        delivered = 0
        if not await self._lead(self._LEASE):
            return delivered
        try:
            for event in await self._store.events(now=await self._sale._ledger.time(), limit=PAGE):
                # What was read is true only as long as nobody else has acted since.
                if (stop and stop.is_set()) or await self._lead(self._LEASE) != Code.REPLAYED:
                    break
                delivered += await self._deliver(event)
        finally:
            await self._lead(0.0)
        return delivered

    async def _deliver(self, event: Event) -> bool:
        try:
            answer = await end_of(self._handler(event))
        except Exception as error:  # noqa: BLE001 - whatever the host's code raises; its text may hold buyers' data
            await self._postpone(event, type(error).__name__)
            return False
        if inspect.isawaitable(answer):
            raise InvalidRequest("handler", "must not return something to await: nothing has happened yet")
        await self._store.delivered([event.event_id])
        return True

    async def _postpone(self, event: Event, why: str) -> None:
        attempts = event.attempts + 1
        if attempts >= self._max_attempts:
            log.error("event %d is dead after %d attempts: %s", event.event_id, attempts, why)
            await self._store.postpone(event.event_id, None)
            return
        delay = delay_after(attempts, FIRST_DELAY, LONGEST_DELAY)
        log.warning("event %d comes again in %.0f s: %s", event.event_id, delay, why)
        await self._store.postpone(event.event_id, await self._sale._ledger.time() + delay)

    async def _lead(self, lease: float) -> int:
        return await self._sale._meta.lead(self._token, lease, role="outbox")
