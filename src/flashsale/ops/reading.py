"""Calls the recorder, Redis's INFO and the database, for the metrics and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Final, TypeVar

from flashsale._sync.overview import Overview
from flashsale._sync.sale import FlashSale
from flashsale._sync.store import OrderStore
from flashsale.errors import FlashSaleError
from flashsale.model import StoredOrder
from flashsale.model.reports import Settlement
from flashsale.model.trail import TrailEntry
from flashsale.ops.evidence import Evidence
from flashsale.ops.folding import OrderStats, SampleStats
from flashsale.ops.metrics import Reading, as_one

Read = TypeVar("Read")

_PAGE: Final = 1000  # orders


def scrape(sale: FlashSale) -> Reading:
    """Returns what the metrics say of a sale, as far as Redis can be read."""
    recorder = sale._recorder
    snapshot = _if_it_can(recorder.look)
    totals = _if_it_can(recorder.totals) if snapshot else None
    infos = _if_it_can(Overview(sale).infos) if snapshot else None
    return Reading(sale.name, version("flashsale"), snapshot, totals, as_one((infos or {}).values()))


def gather(sale: FlashSale, settlement: Settlement, trail: Sequence[TrailEntry] = ()) -> Evidence:
    """Returns what the report of a sale is made of; it reads all orders, page by page.

    Args:
        sale: which.
        settlement: its proof.
        trail: the operators' commands, in the order of time.

    Raises:
        NotExecuted: Redis does not answer.
        StoreError: the database does not answer.
    """
    recorder = sale._recorder
    orders, samples = OrderStats(), SampleStats()
    for page in _pages(sale.store) if sale.store else ():
        orders.add(page)
    snapshot = recorder.look()
    for goods in snapshot.goods:
        samples.add(goods.goods_id, recorder.samples(goods.goods_id))
    return Evidence(sale.name, settlement, snapshot, orders, recorder.minutes(), samples, trail, recorder.totals())


def _if_it_can(look: Callable[[], Read]) -> Read | None:
    try:
        return look()
    except FlashSaleError:
        return None


def _pages(store: OrderStore) -> Iterator[Sequence[StoredOrder]]:
    last = None
    while page := store.orders(after=last, limit=_PAGE):
        yield page
        last = page[-1].order.order_id
