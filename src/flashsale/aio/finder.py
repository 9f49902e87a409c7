"""The finder: where an order is, by its id or by its buyer, what it waits for, and until when it must be paid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from flashsale._rules.activity import holder, silent
from flashsale.aio.overview import Overview
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore, orders_of, stored
from flashsale.errors import StoreError
from flashsale.model import Order, StoredOrder
from flashsale.model.snapshot import Found

MOST: Final = 100  # orders of one buyer in the database

Rows: TypeAlias = Sequence[StoredOrder] | None
Wanted: TypeAlias = Callable[[Order], bool]


class Finder:
    """Finds orders of one sale. It reads the whole list and all claims, page by page: for an operator, not for a shop.

    Args:
        sale: a FlashSale; without a store only Redis is asked.

    Attributes:
        failure: why the database did not answer the last time; None: it did, or was not asked.
    """

    def __init__(self, sale: FlashSale) -> None:
        self._sale = sale
        self._overview = Overview(sale)
        self._found: dict[str, Found] = {}
        self.failure: str | None = None

    async def by_ids(self, order_ids: Collection[str]) -> list[Found]:
        """Returns those of the orders that Redis or the database knows, by order id."""
        ids = set(order_ids)
        return await self._find(ids, lambda order: order.order_id in ids)

    async def by_buyer(self, buyer_id: str) -> list[Found]:
        """Returns the orders of a buyer, by order id: a hundred in the database at most, and all that wait in Redis."""
        rows = await self._ask(partial(orders_of, buyer_id=buyer_id, limit=MOST))
        return await self._find({row.order.order_id for row in rows}, lambda order: order.buyer_id == buyer_id)

    async def _find(self, ids: set[str], wanted: Wanted) -> list[Found]:
        self._found = {}
        await self._look_in_queue(wanted)
        await self._look_in_ledger(ids | self._found.keys())
        await self._look_in_database(ids | self._found.keys())
        return [self._found[name] for name in sorted(self._found)]

    def _note(self, order: Order, **what: Any) -> None:
        """Notes something about an order; what the queue knows of it is more than what the ledger knows."""
        known = self._found.get(order.order_id, Found(order))
        self._found[order.order_id] = replace(known, **what)

    async def _look_in_queue(self, wanted: Wanted) -> None:
        for order, ahead in await self._overview.places(wanted):
            self._note(order, ahead=ahead)
        look = await self._sale._recorder.look()
        for claim, ends in await self._overview.claims(wanted):
            worker = holder(look.processes, claim)
            lease_ends_in = None if ends is None else ends - look.time
            if claim.order is not None:
                self._note(claim.order, claim=claim, lease_ends_in=lease_ends_in, worker=worker, reason=claim.reason)
                if worker is None and claim.lease:
                    self._note(claim.order, silent=silent(look))
        for letter in (await self._overview.dead_letters()).values():
            if letter.order is not None and wanted(letter.order):
                self._note(letter.order, is_dead=True, reason=letter.reason)

    async def _look_in_ledger(self, ids: Collection[str]) -> None:
        for name, record in (await self._overview.records(sorted(ids))).items():
            self._note(record.order(name), ledger=record.state)
        for name, due in (await self._overview.deadlines(sorted(self._found))).items():
            self._note(self._found[name].order, due=due)

    async def _look_in_database(self, ids: Collection[str]) -> None:
        for row in await self._ask(partial(stored, order_ids=sorted(ids))):
            self._note(row.order, row=row)

    async def _ask(self, read: Callable[[AsyncOrderStore], Awaitable[Rows]]) -> Sequence[StoredOrder]:
        """Returns rows of the database; none where it does not answer, for Redis knows most of it."""
        self.failure = None
        if self._sale.store is None:
            return ()
        try:
            return await read(self._sale.store) or ()
        except StoreError as error:
            self.failure = str(error)
            return ()
