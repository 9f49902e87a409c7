"""How worker and syncer wait for a sale that nobody knows yet, and say so: its name may be misspelt."""

from __future__ import annotations

from typing import Final

from flashsale._rules.activity import Activity
from flashsale._rules.rate_limited_log import RateLimitedLog
from flashsale.aio.sale import FlashSale
from flashsale.aio.transport.runtime import StopEvent, pause
from flashsale.errors import FlashSaleError, UnknownSale

AGAIN: Final = 0.5  # seconds between looks


async def wait_until_known(sale: FlashSale, activity: Activity, stop: StopEvent) -> None:
    """Waits until Redis or the database knows the sale, or `stop` is set; says once a minute what it waits for.

    Args:
        sale: which.
        activity: of who waits.
        stop: ends it.
    """
    log, who = RateLimitedLog(), f"the {activity.kind}"
    while not stop.is_set():
        activity.go_on()
        try:
            await sale._check_known()
        except UnknownSale as error:
            log.tell(who, "%s waits: UnknownSale: %s", who, error)
            await pause(stop, AGAIN)
        except FlashSaleError:  # a server does not answer: who waits meets it again, and says so in its own words
            return
        else:
            return
