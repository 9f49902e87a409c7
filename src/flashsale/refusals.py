"""The process' memory of refusals: a blocked sale costs no round trip (docs/design.md). Pure, and safe in threads.

A remembered answer may only refuse, never admit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from flashsale.model import Admission, Outcome

PRIMARY_EVERY: Final = 1.0  # seconds; a replica that was cut off would keep the sale shut
_KEPT: Final = frozenset({Outcome.NOT_STARTED, Outcome.ENDED, Outcome.PAUSED})


class _Refusal:
    __slots__ = ("admission", "fresh_until", "primary_at")

    def __init__(self, admission: Admission, now: float, keep: float) -> None:
        self.admission = admission
        self.fresh_until = now + keep
        self.primary_at = now


class Refusals:
    """Refusals by goods, each good for `keep` seconds.

    Args:
        keep: seconds; 0 remembers nothing.
        clock: monotonic seconds.

    Attributes:
        counts: refusals given by this process, by goods; threads may lose a few.
    """

    def __init__(self, keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._clock = clock
        self._by_goods: dict[str, _Refusal] = {}
        self.counts: Counter[str] = Counter()

    def get(self, goods_id: str) -> Admission | None:
        """Returns the remembered refusal, or None when the caller must ask.

        When a refusal has aged, one caller is sent to ask, and the others go on with the old answer meanwhile.
        """
        refusal = self._by_goods.get(goods_id)
        if refusal is None:
            return None
        now = self._clock()
        if now < refusal.fresh_until:
            self.counts[goods_id] += 1
            return refusal.admission
        refusal.fresh_until = now + self._keep  # the others wait for this caller's answer, one more period at most
        return None

    def may_ask_replica(self, goods_id: str) -> bool:
        """True while the primary has confirmed this refusal within the last second."""
        refusal = self._by_goods.get(goods_id)
        return refusal is not None and self._clock() < refusal.primary_at + PRIMARY_EVERY

    def renew(self, goods_id: str) -> None:
        """A replica says that it is still refused."""
        if refusal := self._by_goods.get(goods_id):
            refusal.fresh_until = self._clock() + self._keep

    def note(self, goods_id: str, admission: Admission) -> None:
        """Remembers a refusal of the primary, or forgets it when the goods are open.

        Sold out is kept only at 0 units left: with fewer units than asked, another caller may still buy one.
        """
        outcome = admission.outcome
        self.counts[goods_id] += 1
        if self._keep > 0 and (outcome in _KEPT or (outcome is Outcome.SOLD_OUT and admission.remaining == 0)):
            self._by_goods[goods_id] = _Refusal(admission, self._clock(), self._keep)
        else:
            self._by_goods.pop(goods_id, None)

    def forget(self, goods_id: str | None = None) -> None:
        """Forgets one goods, or all: this process changed something itself."""
        if goods_id is None:
            self._by_goods.clear()
        else:
            self._by_goods.pop(goods_id, None)
