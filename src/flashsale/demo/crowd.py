"""One process of the demo's crowd: each buyer is an asyncio task that knows only what `FlashSale` tells it.

It speaks JSON lines with the runner. It reads a `Share`, and then the names of the phases: `go`, `after`, `close`. It
writes tallies, and an event at the end of each phase. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from random import Random
from typing import Final

from redis.asyncio import Redis

from flashsale.aio import FlashSale
from flashsale.aio.stores import SQLAlchemyStore
from flashsale.demo.options import GOODS_ID, PER_BUYER
from flashsale.demo.tally import Purchase, Tally
from flashsale.errors import FlashSaleError, NotExecuted, OutcomeUnknown
from flashsale.model import OrderState, Outcome, Receipt
from flashsale.testing._processes import LINE

EVERY: Final = 0.2  # seconds between tallies
_TRIES: Final = 6
_AT_ONCE: Final = 2  # buyers of one process at the database at a time: SQLite lets them in one by one
_SHUT: Final = frozenset({Outcome.NOT_STARTED, Outcome.PAUSED})


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the crowd that one process simulates.

    Args:
        redis: URL of the sale's Redis.
        database: URL of the sale's database.
        sale: name of the sale.
        first: number of the first buyer.
        buyers: how many.
        seed: of everything that is random.
        arrivals: seconds over which the buyers arrive.
        patience: seconds that one phase may take.
    """

    redis: str
    database: str
    sale: str
    first: int
    buyers: int
    seed: int
    arrivals: float
    patience: float


@dataclass(frozen=True, slots=True)
class Buyer:
    """Someone in the crowd, with the habits that the seed gave them. Times are seconds."""

    buyer_id: str
    quantity: int
    arrives: float
    refreshes: float
    clicks_twice: bool
    is_greedy: bool
    is_patient: bool
    regrets: bool
    pays: bool

    @classmethod
    def draw(cls, number: int, arrivals: float, random: Random) -> Buyer:
        """Returns buyer `number`."""
        mood = random.random()
        return cls(
            buyer_id=f"buyer-{number}",
            quantity=PER_BUYER if random.random() < 0.2 else 1,
            arrives=random.uniform(0, arrivals),
            refreshes=random.uniform(0.3, 1.2),
            clicks_twice=random.random() < 0.1,
            is_greedy=random.random() < 0.1,
            is_patient=random.random() < 0.3,
            regrets=mood < 0.15,
            pays=mood > 0.6,
        )


class _Watch:
    """The observer of the process: counts outcomes on its own."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def outcome(self, goods_id: str, outcome: Outcome) -> None:  # noqa: ARG002
        self._tally.observed[outcome] += 1

    def batch(self, size: int, wait: float) -> None: ...

    def lag(self, orders: int, seconds: float) -> None: ...


class Crowd:
    """The buyers of one process.

    Args:
        share: which buyers they are.
        client: of the sale's Redis.
        store: the sale's database; only cancelling and paying touch it.
    """

    def __init__(self, share: Share, client: Redis, store: SQLAlchemyStore) -> None:
        self.tally = Tally()
        self._sale = FlashSale(
            client, share.sale, store=store, observer=_Watch(self.tally), max_waiting=4 * share.buyers
        )
        random = Random(f"{share.seed}:{share.first}")  # noqa: S311 - habits, not secrets
        numbers = range(share.first, share.first + share.buyers)
        self._buyers = [Buyer.draw(number, share.arrivals, random) for number in numbers]
        self._patient: list[Buyer] = []
        self._owners: dict[str, Buyer] = {}
        self._last_call = asyncio.Event()
        self._at_database = asyncio.Semaphore(_AT_ONCE)
        self._resale = False
        self._askers: asyncio.Future[list[None]] | None = None

    async def aclose(self) -> None:
        """Closes connections."""
        if self._askers is not None:
            self._askers.cancel()
        await self._sale.aclose()

    # -- the three phases ---------------------------------------------------------------------------------------------

    async def go(self) -> None:
        """Everybody arrives, waits for the start, and buys; until everybody has an answer."""
        await _all(self._shop(buyer) for buyer in self._buyers)

    async def after(self) -> None:
        """Winners ask for their orders; some cancel, some pay. Patient losers ask on until `close`."""
        winners = list(self._owners)
        self._resale = True
        self._askers = asyncio.gather(*(self._keep_asking(buyer) for buyer in self._patient))
        await _all(self._manage(order_id) for order_id in winners)

    async def close(self) -> None:
        """The last call: buyers who still hope ask once more; late winners see their orders persisted."""
        self._last_call.set()
        if self._askers is not None:
            await self._askers
        late = [order_id for order_id, purchase in self.tally.purchases.items() if purchase.resale]
        await _all(self._until_persisted(order_id) for order_id in late)

    # -- what buyers do ---------------------------------------------------------------------------------------------

    async def _shop(self, buyer: Buyer) -> None:
        await asyncio.sleep(buyer.arrives)
        receipt = await self._ask(buyer)
        while receipt is not None and receipt.outcome in _SHUT:
            await asyncio.sleep(buyer.refreshes)
            receipt = await self._ask(buyer)
        if receipt is None:
            return
        if not receipt.accepted:
            if buyer.is_patient:
                self._patient.append(buyer)
            return
        if buyer.clicks_twice:
            again = await self._ask(buyer, receipt.order_id)
            self.tally.repeats += 1
            self.tally.replays += again is not None and again.replayed and again.order_id == receipt.order_id
        while buyer.is_greedy and receipt is not None and receipt.accepted:
            receipt = await self._ask(buyer)

    async def _keep_asking(self, buyer: Buyer) -> None:
        while True:
            is_last = self._last_call.is_set()
            receipt = await self._ask(buyer)
            if is_last or receipt is None or receipt.accepted:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(buyer.refreshes):
                    await self._last_call.wait()

    async def _manage(self, order_id: str) -> None:
        buyer = self._owners[order_id]
        await self._until_persisted(order_id)
        if buyer.regrets:
            self._told(order_id, await self._decide(self._sale.cancel, order_id))
            self.tally.cancelled += self.tally.purchases[order_id].state is OrderState.CANCELLED
        elif buyer.pays:
            self._told(order_id, await self._decide(self._sale.confirm, order_id))

    async def _until_persisted(self, order_id: str) -> None:
        while self.tally.purchases[order_id].state is OrderState.QUEUED:
            async with self._at_database:
                with suppress(NotExecuted, OutcomeUnknown):  # a query: asked again
                    self._told(order_id, await self._sale.status(order_id))
                    self.tally.statuses += 1
            await asyncio.sleep(0.1)

    async def _ask(self, buyer: Buyer, order_id: str | None = None) -> Receipt | None:
        """Buys, again with the same order id when the answer was lost; returns None when it never came."""
        failure = ""
        for attempt in range(_TRIES):
            try:
                receipt = await self._sale.buy(GOODS_ID, buyer.buyer_id, buyer.quantity, order_id=order_id)
            except (NotExecuted, OutcomeUnknown) as error:
                order_id, failure = error.order_id, f"{type(error).__name__}: {error}"
                await asyncio.sleep(0.1 * 2**attempt)
            else:
                self._note(buyer, receipt)
                return receipt
        self.tally.unanswered[failure] += 1
        return None

    async def _decide(self, decide: Callable[[str], Awaitable[OrderState | None]], order_id: str) -> OrderState | None:
        """Cancels or pays, again after an error: both are idempotent."""
        for attempt in range(_TRIES):
            try:
                async with self._at_database:
                    return await decide(order_id)
            except FlashSaleError:
                if attempt == _TRIES - 1:
                    raise
            await asyncio.sleep(0.1 * 2**attempt)
        return None

    # -- what they remember -----------------------------------------------------------------------------------------

    def _note(self, buyer: Buyer, receipt: Receipt) -> None:
        self.tally.answers[receipt.outcome] += 1
        if receipt.accepted and receipt.order_id not in self.tally.purchases:
            state = receipt.state or OrderState.QUEUED
            self._owners[receipt.order_id] = buyer
            self.tally.purchases[receipt.order_id] = Purchase(buyer.buyer_id, receipt.quantity, self._resale, state)

    def _told(self, order_id: str, state: OrderState | None) -> None:
        if state is not None:
            self.tally.purchases[order_id] = self.tally.purchases[order_id]._replace(state=state)


async def _all(coroutines: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*coroutines)


# -- the process ----------------------------------------------------------------------------------------------------


def _say(event: str, tally: Tally, *, purchases: bool = False) -> None:
    print(json.dumps({"event": event, "tally": tally.to_json(purchases=purchases)}), flush=True)


async def _report(tally: Tally) -> None:
    while True:
        await asyncio.sleep(EVERY)
        _say("tally", tally)


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main() -> None:
    """Simulates the share that arrives on standard input."""
    lines = await _standard_input()
    share = Share(**json.loads(await lines.readline()))
    client = Redis.from_url(share.redis)
    store = SQLAlchemyStore(share.database, share.sale)
    crowd = Crowd(share, client, store)
    reporter = asyncio.create_task(_report(crowd.tally))
    try:
        _say("ready", crowd.tally)
        for phase, run in (("go", crowd.go), ("after", crowd.after), ("close", crowd.close)):
            if (await lines.readline()).strip().decode() != phase:
                return  # the runner is gone
            async with asyncio.timeout(share.patience):
                await run()
            _say(phase, crowd.tally, purchases=phase == "close")
        reporter.cancel()  # the last tally is the complete one
        await lines.readline()
    finally:
        reporter.cancel()
        await crowd.aclose()
        await client.aclose()
        await store.aclose()


def instructions(share: Share) -> bytes:
    """Returns the first line for a process of the crowd."""
    return json.dumps(asdict(share)).encode() + b"\n"


if __name__ == "__main__":
    asyncio.run(main())
