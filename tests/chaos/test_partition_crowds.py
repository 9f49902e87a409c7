"""Crowds on nearly sold-out stock over partitions: tasks and threads buy and cancel, and what they were told is true.

A purchase takes its units at some moment of its call, and a cancellation returns them at some moment of its own. So
during any time at least as many units are free as nobody may have had: who was told SOLD_OUT must have had fewer.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, NotExecuted, OrderState, Outcome, OutcomeUnknown
from flashsale._rules.partitions import tag_of
from flashsale.keys import PartitionKeys
from flashsale.model import RELEASED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.helpers import Shop

pytestmark = pytest.mark.one_server
UNITS = 8


@dataclass
class Bought:
    """Units that a buyer may have had: from the begin of the purchase to the end of the cancellation."""

    order_id: str
    begin: float
    units: int
    end: float = inf


@dataclass
class Refused:
    """A call that was told SOLD_OUT."""

    begin: float
    end: float
    units: int


class History:
    """What was told to whom, and when."""

    def __init__(self) -> None:
        self.bought: list[Bought] = []
        self.refused: list[Refused] = []

    def least(self, begin: float, end: float) -> int:
        """Returns how many units were free during all this time, at least."""
        moments = [begin, *(each.begin for each in self.bought if begin < each.begin < end)]
        return min(
            UNITS - sum(each.units for each in self.bought if each.begin <= moment < each.end) for moment in moments
        )

    def lies(self, cache_for: float) -> list[Refused]:
        """Returns those who were refused, and as many units as they wanted were free during their whole call.

        Args:
            cache_for: so old may the answer be.
        """
        return [each for each in self.refused if self.least(each.begin - cache_for, each.end) >= each.units]


class Crowd:
    """Buyers of phones, by several processes' worth of sales."""

    def __init__(self, sales: list[Any]) -> None:
        self.sales = sales
        self.history = History()

    async def buy(self, name: str, units: int, number: int) -> Bought | None:
        """Buys; who hears that nothing happened, or nothing, asks again."""
        sale = self.sales[number % len(self.sales)]
        order_id = sale.real.order_id(name, f"o{number}")
        bought = Bought(order_id, monotonic(), units)
        while True:
            begin = monotonic()
            try:
                receipt = await sale.buy("phone", name, units, order_id=order_id)
            except (NotExecuted, OutcomeUnknown):  # a busy machine: a partition did not answer in time
                await asyncio.sleep(0.01)
                continue
            if receipt.outcome is Outcome.SOLD_OUT:
                self.history.refused.append(Refused(begin, monotonic(), units))
                return None
            assert receipt.accepted
            self.history.bought.append(bought)
            return bought

    async def cancel(self, bought: Bought, number: int) -> None:
        """Cancels, and asks again until it hears that it has."""
        while True:
            try:
                state = await self.sales[number % len(self.sales)].cancel(bought.order_id)
            except (NotExecuted, OutcomeUnknown):
                await asyncio.sleep(0.01)
                continue
            assert state is OrderState.CANCELLED
            bought.end = monotonic()
            return

    async def come_and_go(self, name: str, units: Iterable[int], numbers: Any) -> None:
        """Buys and cancels, again and again."""
        for wanted in units:
            number = next(numbers)
            bought = await self.buy(name, wanted, number)
            if bought is not None:
                await self.cancel(bought, number + 1)


async def opened(shop: Shop, partitions: int, cache_for: float) -> tuple[list[Any], Any]:
    """Returns two sales of one shop, and its store, with the phones on sale."""
    store = await shop.store(Goods("phone", UNITS))
    sales = [shop.sale(store=store, partitions=partitions, cache_for=cache_for, timeout=60.0) for _ in range(2)]
    await shop.syncer(sales[0]).run_once()
    await sales[0].start("phone")
    return sales, store


@pytest.mark.parametrize("partitions", [4, 8])
async def test_nobody_is_refused_while_a_unit_is_free(real_shop: Shop, partitions: int) -> None:
    """There are always more units than buyers, wherever they lie: each buyer gets one each time."""
    sales, _ = await opened(real_shop, partitions, 0.0)
    crowd, numbers = Crowd(sales), itertools.count()
    await asyncio.gather(*(crowd.come_and_go(f"buyer-{n}", [1] * 8, numbers) for n in range(UNITS - 1)))
    assert len(crowd.history.bought) == 8 * (UNITS - 1)
    assert crowd.history.refused == []


@pytest.mark.parametrize("partitions", [4, 8])
@pytest.mark.parametrize("cache_for", [0.0, 0.05])
async def test_a_crowd_that_comes_and_goes_is_told_the_truth(
    real_shop: Shop, partitions: int, cache_for: float
) -> None:
    """What is refused was not there; in the end more is wanted than there is, nothing is lost, and all is sold."""
    sales, store = await opened(real_shop, partitions, cache_for)
    crowd, numbers = Crowd(sales), itertools.count()
    wanted = [[1, 2, 1, 3, 1, 2], [2, 1, 1, 1, 2, 1]]
    await asyncio.gather(*(crowd.come_and_go(f"buyer-{n}", wanted[n % 2], numbers) for n in range(14)))
    assert crowd.history.lies(cache_for) == []
    assert all(each.end < inf for each in crowd.history.bought)
    await asyncio.sleep(cache_for)
    orders = await asyncio.gather(*(crowd.buy(f"last-{n}", 1, next(numbers)) for n in range(2 * UNITS)))
    assert len([each for each in orders if each is not None]) == UNITS, "units are stranded, or oversold"
    assert crowd.history.refused, "they did not want more than there is"
    assert crowd.history.lies(cache_for) == []
    await all_is_sold(real_shop, sales[0], store, partitions)


async def all_is_sold(shop: Shop, sale: Any, store: Any, partitions: int) -> None:
    """Stock and database have sold each unit once, and no move is open."""
    worker, syncer = shop.worker(sale), shop.syncer(sale)
    while await worker.run_once():
        pass
    await syncer.run_once()
    stocks = [
        shop.raw.hgetall(PartitionKeys("spring", tag_of("spring", place, partitions)).stock("phone"))
        for place in range(partitions)
    ]
    assert sum(int(stock[b"Total"]) for stock in stocks) == UNITS
    assert sum(int(stock[b"Booked"]) for stock in stocks) == UNITS
    assert all(int(stock[b"Booked"]) <= int(stock[b"Total"]) for stock in stocks)
    rows = await store.orders(limit=10_000)
    assert sum(row.order.quantity for row in rows if row.state not in RELEASED) == UNITS
    audit = await syncer.audit()
    assert audit.ok, audit
