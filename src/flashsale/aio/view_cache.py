"""The view cache: one reading of the gate serves all product pages of this process for `cache_for` seconds."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from flashsale.model import GateState, Outcome
from flashsale.model.checks import check_goods_id


class _Seen(NamedTuple):
    state: GateState
    at: float  # monotonic seconds
    fresh_until: float


class ViewCache:
    """Reads the gate of an item, and keeps what it read for `keep` seconds.

    Args:
        read: returns the state of the gate.
        unpaid: returns how many orders await payment.
        keep: seconds.
    """

    def __init__(
        self, read: Callable[[str], Awaitable[GateState]], unpaid: Callable[[], Awaitable[int]], keep: float
    ) -> None:
        self._read = read
        self._unpaid = unpaid
        self._keep = keep
        self._seen: dict[str, _Seen] = {}

    async def get(self, goods_id: str) -> GateState:
        """Returns the state of the gate; one caller renews an aged one, and the others get the old one meanwhile."""
        seen = self._seen.get(check_goods_id(goods_id))
        now = time.monotonic()
        if seen is not None and now < seen.fresh_until:
            return replace(seen.state, now=seen.state.now + now - seen.at)
        if seen is not None:
            self._seen[goods_id] = seen._replace(fresh_until=now + self._keep)
        state = await self._read(goods_id)
        if state.outcome is Outcome.SOLD_OUT:
            state = replace(state, may_return=await self._unpaid() > 0)
        now = time.monotonic()
        self._seen[goods_id] = _Seen(state, now, now + self._keep)
        return state
