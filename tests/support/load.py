"""Buyers who keep asking while servers come and go, and the worker and syncer behind them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

from flashsale import FlashSaleError, NotExecuted, Outcome, OutcomeUnknown
from tests.support.helpers import Awaited, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.hosts import Host


class Load:
    """The buyers of one sale, of one phone each; each asks again with the same order id until there is an answer.

    Args:
        host: makes worker and syncer.
        sale: with a store.
        pause: seconds between two buyers at one counter.

    Attributes:
        told: order id -> answer.
        troubles: what callers met before their answer, and how often.
    """

    def __init__(self, host: Host, sale: Awaited, *, pause: float) -> None:
        self.told: dict[str, Outcome] = {}
        self.troubles: Counter[str] = Counter()
        self.pause = pause
        self.sale = sale
        self._host = host
        self._numbers = itertools.count()
        self._accepted: list[tuple[float, float]] = []  # asked and told, monotonic seconds

    @property
    def accepted(self) -> set[str]:
        return {name for name, outcome in self.told.items() if outcome is Outcome.ACCEPTED}

    async def buy_all(self) -> None:
        """Sells at eight counters until all is sold."""
        await asyncio.gather(*(self._counter() for _ in range(8)))

    def outage(self, since: float) -> float:
        """Returns the seconds from `since` to the first ACCEPTED that was asked for later; 0 while there is none."""
        return min((told - since for asked, told in self._accepted if asked > since), default=0.0)

    async def _counter(self) -> None:
        outcome = None
        while outcome is not Outcome.SOLD_OUT:
            name = f"o-{next(self._numbers)}"
            while (outcome := await self._ask(name)) in {None, Outcome.UNCERTAIN}:
                await asyncio.sleep(0.02)
            assert outcome is not None
            self.told[name] = outcome
            await asyncio.sleep(self.pause)

    async def _ask(self, name: str) -> Outcome | None:
        asked = time.monotonic()
        try:
            receipt = await self.sale.buy("phone", f"buyer-{name}", order_id=name)
        except (NotExecuted, OutcomeUnknown) as error:
            assert error.order_id == name
            self.troubles[getattr(error, "reason", None) or type(error).__name__] += 1
            return None
        if receipt.accepted:
            self._accepted.append((asked, time.monotonic()))
        return receipt.outcome

    @contextlib.asynccontextmanager
    async def staff(self) -> AsyncIterator[None]:
        """A worker and a syncer at work, which wait for a Redis that is away; at the end all is settled."""
        parts = [self._host.worker(self.sale, lease=2.0), self._host.syncer(self.sale)]
        over = asyncio.Event()

        async def work(part: Awaited) -> None:
            while not over.is_set():
                try:
                    await part.run_once()
                except FlashSaleError:
                    self.troubles[f"the {type(part.real).__name__}"] += 1
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(work(part)) for part in parts]
        try:
            yield
            await until(self._is_settled, "a settled sale", within=60)
        finally:
            over.set()
            await asyncio.gather(*tasks)

    async def _is_settled(self) -> bool:
        audit = await self._host.syncer(self.sale).audit()
        return not (audit.pending or audit.orders or audit.moving)
