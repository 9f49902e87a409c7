"""The shop window: one look at the goods serves every visitor of this process for a moment."""

from __future__ import annotations

import time
from typing import NamedTuple

from flashsale.aio.gate import Gate
from flashsale.aio.ledger import Ledger
from flashsale.model import GoodsView, Outcome
from flashsale.model.checks import check_goods_id


class _Seen(NamedTuple):
    view: GoodsView
    at: float  # monotonic seconds
    fresh_until: float


class ViewCache:
    """Looks at goods, and remembers what it saw for `keep` seconds.

    Args:
        gate: of the sale.
        ledger: of the sale.
        keep: seconds.
    """

    def __init__(self, gate: Gate, ledger: Ledger, keep: float) -> None:
        self._gate = gate
        self._ledger = ledger
        self._keep = keep
        self._seen: dict[str, _Seen] = {}

    async def get(self, goods_id: str) -> GoodsView:
        """Returns the view; when it has aged one caller looks again, and the others see the old one meanwhile."""
        seen = self._seen.get(check_goods_id(goods_id))
        now = time.monotonic()
        if seen is not None and now < seen.fresh_until:
            return seen.view._replace(now=seen.view.now + now - seen.at)
        if seen is not None:
            self._seen[goods_id] = seen._replace(fresh_until=now + self._keep)
        view = await self._gate.view(goods_id)
        if view.outcome is Outcome.SOLD_OUT:
            view = view._replace(may_return=await self._ledger.unpaid() > 0)
        now = time.monotonic()
        self._seen[goods_id] = _Seen(view, now, now + self._keep)
        return view
