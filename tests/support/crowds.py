"""Buyers of a sale over several partitions, at a counter for each; and what must be true when they have gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, TypeVar

from flashsale import FlashSaleError, NotExecuted, OrderState, Outcome, OutcomeUnknown
from tests.support.helpers import Awaited, until
from tests.support.sales import active_units
from tests.support.sales import rows as rows_of

Answer = TypeVar("Answer")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from flashsale import Receipt
    from flashsale.model.reports import Audit
    from tests.support.hosts import Host


async def patiently(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Makes a call that may be made again, until it is answered: on a busy machine any server may be late."""
    answers: list[Answer] = []

    async def is_answered() -> bool:
        with contextlib.suppress(NotExecuted, OutcomeUnknown):
            answers.append(await call())
        return bool(answers)

    await until(is_answered, "an answer")
    return answers[0]


class Crowd:
    """The buyers of one phone each; each asks again with the same order id until there is an answer.

    Args:
        host: makes worker and syncer.
        sale: over several partitions, with a store.
        name: which the names of its buyers begin with.

    Attributes:
        told: order id -> answer.
        troubles: partition -> what its callers met before their answer, and how often.
        sold_at: partition -> when the buyers of its orders asked and were told, monotonic seconds.
    """

    def __init__(self, host: Host, sale: Awaited, *, name: str = "b") -> None:
        self.sale = sale
        self.told: dict[str, Outcome] = {}
        self.troubles: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.sold_at: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
        self.places = range(sale.real.partitions)
        self._host = host
        self._buyers = [self._names(name, place) for place in self.places]

    def _names(self, begin: str, place: int) -> Iterator[str]:
        of_buyer = self.sale.real._routes.of_buyer
        return (name for number in itertools.count() if of_buyer(name := f"{begin}-{number}") == place)

    def _next(self, place: int) -> tuple[str, str]:
        """Returns a new buyer of a partition, and an order id."""
        buyer = next(self._buyers[place])
        return buyer, self.sale.real.order_id(buyer, buyer)

    @property
    def accepted(self) -> set[str]:
        return {name for name, outcome in self.told.items() if outcome is Outcome.ACCEPTED}

    async def buy(self, place: int) -> Receipt:
        """Lets one new buyer of a partition ask once, as it comes."""
        buyer, order_id = self._next(place)
        receipt: Receipt = await self.sale.buy("phone", buyer, order_id=order_id)
        self.told[order_id] = receipt.outcome
        return receipt

    async def sells(self, *places: int) -> None:
        """Lets a new buyer of each of these partitions ask, and expects that they are served."""
        for place in places:
            assert await self.served(place) is Outcome.ACCEPTED

    async def served(self, place: int) -> Outcome:
        """Lets one new buyer ask until there is an answer."""
        buyer, order_id = self._next(place)
        while True:
            asked = time.monotonic()
            try:
                outcome: Outcome = (await self.sale.buy("phone", buyer, order_id=order_id)).outcome
            except (NotExecuted, OutcomeUnknown) as error:
                assert error.order_id == order_id
                self.troubles[place][getattr(error, "reason", None) or type(error).__name__] += 1
            else:
                if outcome is not Outcome.UNCERTAIN:
                    break
                self.troubles[place]["UNCERTAIN"] += 1
            await asyncio.sleep(0.02)
        self.told[order_id] = outcome
        if outcome is Outcome.ACCEPTED:
            self.sold_at[place].append((asked, time.monotonic()))
        return outcome

    @contextlib.asynccontextmanager
    async def selling(self, *, hot: int, pause: float = 0.05) -> AsyncIterator[None]:
        """Sells at a counter of each partition while the block runs, and at two more of the one that is `hot`.

        The counters get slower, so that units are left at the end: whoever is told SOLD_OUT was told wrongly.
        """
        over = asyncio.Event()

        async def counter(place: int) -> None:
            while not over.is_set():
                outcome = await self.served(place)
                assert outcome is Outcome.ACCEPTED, f"a buyer of partition {place} was told {outcome}"
                await asyncio.sleep(pause * 2 ** (len(self.told) / 100))

        async with asyncio.TaskGroup() as group:
            for place in (*self.places, hot, hot):
                group.create_task(counter(place))
            try:
                yield
            finally:
                over.set()

    async def sold_since(self, moment: float, places: Iterable[int]) -> float:
        """Waits until each of these partitions has sold to a buyer who asked after that.

        Returns:
            The seconds that it took them.
        """

        def times() -> list[float]:
            return [
                min((told - moment for asked, told in list(self.sold_at[place]) if asked > moment), default=0.0)
                for place in places
            ]

        await until(lambda: all(times()), f"an order in each of the partitions {[*places]}", within=30)
        return max(times())

    @contextlib.asynccontextmanager
    async def staff(self) -> AsyncIterator[None]:
        """A worker and a syncer at work, in the loops that a shop runs."""
        stop: Any = asyncio.Event() if self._host.is_async else threading.Event()
        parts = [self._host.worker(self.sale, lease=2.0), self._host.syncer(self.sale, interval=0.2)]
        tasks = [asyncio.create_task(part.run(stop)) for part in parts]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def quiet(self) -> Audit:
        """Returns the audit when nothing is under way any more: all is drained, and the ledger follows the rows."""
        worker, syncer = self._host.worker(self.sale, lease=2.0), self._host.syncer(self.sale)

        async def is_quiet() -> Audit | None:
            with contextlib.suppress(FlashSaleError):
                while await worker.run_once():
                    pass
                await syncer.run_once()
                audit: Audit = await syncer.audit(self.accepted)
                return None if audit.pending or audit.orders or audit.moving else audit
            return None

        found: Audit = await until(is_quiet, "a quiet sale", within=30)
        return found

    async def mended(self) -> tuple[set[str], int]:
        """Repairs the sale where a failover has lost units, or left some over.

        Returns:
            The acknowledged orders that are lost, and the units that were; below 0: that were left over.
        """
        audit = await self.quiet()
        if audit.adrift:
            await self._host.syncer(self.sale).repair(dry_run=False)
        return set(audit.lost), audit.adrift.get("phone", 0)

    async def end(self, total: int, *, lost: Iterable[str] = (), among: Sequence[int] = ()) -> int:
        """Sells what is left, at a quiet moment, and settles the sale.

        Args:
            total: units that the shop has.
            lost: orders that were acknowledged and that a failover has lost.
            among: partitions whose buyers come now; all unless told.

        Returns:
            Units that were sold before.
        """
        audit = await self.quiet()
        assert set(audit.lost) == set(lost)
        assert audit.goods["phone"].agree
        assert not audit.adrift
        assert audit.goods["phone"].total == total
        left = audit.goods["phone"].free
        assert left > 0, "nothing was left to show that it can be sold"
        crowd = itertools.islice(itertools.cycle(among or self.places), left)
        assert Counter(await asyncio.gather(*map(self.served, crowd))) == {Outcome.ACCEPTED: left}
        for place in among or self.places:
            assert await self.served(place) is Outcome.SOLD_OUT
        after = await self.quiet()
        assert after.ok or set(after.lost) == set(lost)
        assert (after.goods["phone"].total, after.goods["phone"].free) == (total, 0)
        rows = await rows_of(self.sale)
        persisted = {name for name, state in rows.items() if state is OrderState.PERSISTED}
        assert self.accepted - set(lost) <= persisted
        assert len(persisted) == await active_units(self.sale) == total
        return total - left
