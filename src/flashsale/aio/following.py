"""What is decided in transactions of the host's: once they have ended, the ledger follows."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final
from weakref import WeakValueDictionary

from flashsale._rules.observer import log
from flashsale._rules.rate_limited_log import named
from flashsale.aio.store import AsyncOrderStore, after_commit, after_end
from flashsale.aio.transport.runtime import BackgroundWork, spend
from flashsale.model import OrderState, StoredOrder

WITHIN: Final = 1.0  # seconds: what a commit of the host's waits for
_NUMBERS: Final = itertools.count()


class Decision:
    """A row that was decided. Only the transaction refers to it: rolled back, it is forgotten."""

    def __init__(self, row: StoredOrder) -> None:
        self.row = row
        self.transaction: object = self
        self.is_followed = False


class Following:
    """Lets the ledger of one sale follow, without ever raising, in a second at most: the syncer does the rest.

    Args:
        store: of the sale, or None.
        follow_all: moves the ledger to the states of rows.
    """

    def __init__(
        self, store: AsyncOrderStore | None, follow_all: Callable[[Sequence[StoredOrder]], Awaitable[Any]]
    ) -> None:
        self._store = store
        self._follow_all = follow_all
        self._decisions = WeakValueDictionary[int, Decision]()
        self._background = BackgroundWork()

    async def aclose(self) -> None:
        """Ends what is under way after a second, and begins nothing more."""
        await self._background.end(WITHIN)

    def later(self, store: AsyncOrderStore, row: StoredOrder) -> bool:
        """Lets the ledger follow a row after the commit of the transaction that `store` is in; False: it is in none.

        What one transaction decides, the ledger follows together.
        """
        decision, transaction = Decision(row), None
        if store is not self._store:
            self._background.prepare()
            transaction = after_end(store, self._background.begin, partial(self._follow, decision, look_again=True))
        if not transaction:
            transaction = after_commit(store, partial(self._follow, decision, look_again=False))
        if not transaction:
            return store is not self._store  # it was joined, and does not say when it ends: the syncer will see
        if transaction is not True:
            decision.transaction = transaction
        self._decisions[next(_NUMBERS)] = decision
        return True

    async def _follow(self, decision: Decision, *, look_again: bool) -> None:
        if decision.is_followed:
            return
        rows = {decision.row.order.order_id: decision.row}
        for each in [found for known in self._decisions.valuerefs() if (found := known()) is not None]:
            if each.transaction is decision.transaction and not each.is_followed:
                each.is_followed = True
                rows[each.row.order.order_id] = each.row
        try:
            await spend(monotonic() + WITHIN, self._follow_rows, list(rows.values()), look_again)
        except Exception as error:  # noqa: BLE001 - the host has committed, and nobody may tell it otherwise
            text = "%d orders were decided in a transaction of the host's, the ledger waits for the syncer: %s"
            log.warning(text, len(rows), named(error))

    async def _follow_rows(self, rows: Sequence[StoredOrder], look_again: bool) -> None:  # noqa: FBT001 - of `spend`
        if look_again:
            rows = await self._standing(rows)
        if rows:
            await self._follow_all(rows)

    async def _standing(self, rows: Sequence[StoredOrder]) -> Sequence[StoredOrder]:
        """Returns what the rows say now: was it committed, and is a savepoint rolled back?"""
        assert self._store is not None
        states = await self._store.states([row.order.order_id for row in rows])
        stand = [(row.order, states.get(row.order.order_id, OrderState.PERSISTED)) for row in rows]
        return [StoredOrder(order, state) for order, state in stand if state is not OrderState.PERSISTED]
