"""What product pages show of an item: one reading of the gate serves all visitors of this process for a moment."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from flashsale.aio.gate import Gate
from flashsale.aio.ledger import Ledger
from flashsale.model import GateState, Outcome


class _Seen(NamedTuple):
    state: GateState
    at: float  # monotonic seconds
    fresh_until: float


class ViewCache:
    """Reads the gate of an item, and keeps what it read for `keep` seconds.

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

    async def get(self, goods_id: str) -> GateState:
        """Returns the state of the gate; one caller renews an aged one, and the others get the old one meanwhile."""
        seen = self._seen.get(goods_id)
        now = time.monotonic()
        if seen is not None and now < seen.fresh_until:
            return replace(seen.state, now=seen.state.now + now - seen.at)
        if seen is not None:
            self._seen[goods_id] = seen._replace(fresh_until=now + self._keep)
        state = await self._gate.state(goods_id)
        if state.outcome is Outcome.SOLD_OUT:
            state = replace(state, may_return=await self._ledger.unpaid() > 0)
        now = time.monotonic()
        self._seen[goods_id] = _Seen(state, now, now + self._keep)
        return state
