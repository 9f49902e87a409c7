"""Answers for items that the database has and Redis not yet: their sale has not started, it is not unknown."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from flashsale import FlashSaleError, Goods, OrderStore, UnknownGoods, web
from flashsale._rules.observer import log
from flashsale.aio import AsyncOrderStore
from flashsale.contrib import refuse

LOOK_EVERY: Final = 1.0  # seconds


class Announced:
    """Answers errors as `refuse` does, but for items that were never loaded; looks at the database once a second."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._next_look = 0.0  # monotonic seconds

    def refuse(self, error: FlashSaleError, store: OrderStore | None) -> web.Reply:
        """Returns the answer to a call that failed."""
        if store is not None and self._wants_look(error):
            try:
                self._see(store.goods())
            except FlashSaleError as failure:
                log.warning("the goods in the database cannot be read: %s", type(failure).__name__)
        return self._answer(error)

    async def refuse_async(self, error: FlashSaleError, store: AsyncOrderStore | None) -> web.Reply:
        """Returns the answer to a call that failed."""
        if store is not None and self._wants_look(error):
            try:
                self._see(await store.goods())
            except FlashSaleError as failure:
                log.warning("the goods in the database cannot be read: %s", type(failure).__name__)
        return self._answer(error)

    def _wants_look(self, error: FlashSaleError) -> bool:
        now = time.monotonic()
        if not isinstance(error, UnknownGoods) or now < self._next_look:
            return False
        self._next_look = now + LOOK_EVERY  # before the look: nobody looks at the same time
        return True

    def _see(self, goods: Iterable[Goods]) -> None:
        self._totals = {each.goods_id: each.total for each in goods if not each.loaded}  # loaded: Redis lost them

    def _answer(self, error: FlashSaleError) -> web.Reply:
        if isinstance(error, UnknownGoods) and (total := self._totals.get(error.goods_id or "")) is not None:
            return web.not_loaded(total)
        return refuse(error)
