"""The refusal cache: outcome and units left of each refusal, for `cache_for` seconds, so that it costs no round trip.

A remembered answer can only refuse, never admit (docs/design.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import monotonic
from typing import Final

from flashsale._rules.tally import Name, Tally
from flashsale.model import Admission, Outcome, Receipt

PRIMARY_EVERY: Final = 1.0  # seconds; a replica that was cut off would keep the sale shut
_KEPT: Final = frozenset({Outcome.NOT_STARTED, Outcome.ENDED, Outcome.PAUSED})


class Refusal:
    """A refusal that the primary gave.

    Args:
        admission: the answer.
        fresh_until: monotonic seconds; until then it is given without asking.
        primary_at: monotonic seconds of the primary's answer.
        for_buyers: False: a buyer may have a ticket, and must ask.

    Attributes:
        given: how often it was given from memory; threads may lose a few.
    """

    __slots__ = ("admission", "for_buyers", "fresh_until", "given", "primary_at")

    def __init__(self, admission: Admission, fresh_until: float, primary_at: float, *, for_buyers: bool = True) -> None:
        self.admission = admission
        self.fresh_until = fresh_until
        self.primary_at = primary_at
        self.for_buyers = for_buyers
        self.given = 0


OPEN: Final = Refusal(Admission(Outcome.ADMITTED, 0), float("-inf"), float("-inf"))
"""Stands for no refusal: never fresh, so never given."""


class RefusalCache:
    """Refusals by item, each valid for `keep` seconds.

    Args:
        keep: seconds; 0 remembers nothing.
        tally: counts the refusals, by item and outcome; those given from memory when the refusal is replaced.

    Attributes:
        keep: the same.
        tally: the same.
        by_goods: what is remembered of each item that Redis knows: its refusal, or OPEN.
    """

    def __init__(self, keep: float, tally: Tally) -> None:
        self.keep = keep
        self.tally = tally
        self.by_goods: dict[str, Refusal] = {}

    @property
    def counts(self) -> Counter[Name]:
        """All that the tally has counted, and what was given from memory since."""
        counts = self.tally.counts
        for goods_id, refusal in list(self.by_goods.items()):
            if refusal.given:
                counts[goods_id, refusal.admission.outcome] += refusal.given
        return counts

    def of(self, goods_id: str) -> Refusal:
        """Returns what is remembered of this item: a refusal, be it old, or OPEN. Whoever gives it counts it."""
        try:
            return self.by_goods[goods_id]
        except (KeyError, TypeError):  # TypeError: an id that cannot be hashed; the checks will say so
            return OPEN

    def give(self, refusal: Refusal) -> Admission | None:
        """Returns the answer that a refusal still gives, or None when the caller must ask.

        When a refusal has aged, one caller is sent to ask, and the others go on with the old answer meanwhile.
        """
        now = monotonic()
        if now < refusal.fresh_until:
            refusal.given += 1
            return refusal.admission
        refusal.fresh_until = now + self.keep  # the others wait for this caller's answer, one more period at most
        return None

    def may_ask_replica(self, goods_id: str) -> bool:
        """True while the primary has confirmed this refusal within the last second."""
        return monotonic() < self.by_goods.get(goods_id, OPEN).primary_at + PRIMARY_EVERY

    def renew(self, goods_id: str) -> None:
        """A replica says that it is still refused."""
        refusal = self.by_goods.get(goods_id, OPEN)
        if refusal is not OPEN:
            refusal.fresh_until = monotonic() + self.keep

    def note(self, goods_id: str, admission: Admission, callers: int = 1, *, ticketless: bool = False) -> None:
        """Remembers a refusal that the primary gave to so many callers, or forgets it when the item is open.

        Sold out is kept only at 0 units left: with fewer units than asked, another caller may still buy one.

        Args:
            goods_id: which item.
            admission: the answer.
            callers: how many got it.
            ticketless: no buyer has a ticket of this item, as far as the gate knows.
        """
        outcome, units = admission.outcome, admission.remaining
        self.tally.add((goods_id, outcome), callers)
        now = monotonic()
        until = self._fresh_until(goods_id, admission, now)
        if until > now and (outcome in _KEPT or (outcome is Outcome.SOLD_OUT and units == 0)):
            for_buyers = ticketless or outcome is not Outcome.SOLD_OUT
            self._replace(goods_id, Refusal(admission, until, now, for_buyers=for_buyers))
        elif outcome is not Outcome.LIMIT_REACHED or units > 0:  # the cap is looked at before the units
            self._replace(goods_id, OPEN)

    def _fresh_until(self, goods_id: str, admission: Admission, now: float) -> float:  # noqa: ARG002
        """Returns until when a refusal may be given from memory, in monotonic seconds."""
        return now + self.keep

    def learn(self, answers: Iterable[object]) -> None:
        """Remembers the refusals among the answers to single orders; whoever found an item open lets the others ask."""
        opened, refused = set[str](), list[Receipt]()
        for answer in answers:
            if not isinstance(answer, Receipt):
                continue
            if answer.state is None:
                refused.append(answer)
            elif not answer.replayed:  # a replay says nothing of the gate
                opened.add(answer.goods_id)
        for goods_id in opened:
            if self.by_goods.get(goods_id) is not OPEN:
                self.forget(goods_id)
        for receipt in refused:
            if receipt.outcome is not Outcome.LIMIT_REACHED:  # of one script, no refusal for want of units comes before
                self.note(receipt.goods_id, Admission(receipt.outcome, receipt.remaining))
            else:
                self.tally.add((receipt.goods_id, receipt.outcome))
                if receipt.remaining > 0:
                    self.forget(receipt.goods_id)

    def forget(self, goods_id: str | None = None) -> None:
        """Forgets what is remembered of one item, or of all: it is open, or this process changed something."""
        for name in list(self.by_goods) if goods_id is None else [goods_id]:
            self._replace(name, OPEN)

    def _replace(self, goods_id: str, refusal: Refusal) -> None:
        before = self.by_goods.pop(goods_id, OPEN)  # by one thread: what it gave is counted once
        if before.given:
            self.tally.add((goods_id, before.admission.outcome), before.given)
        self.by_goods[goods_id] = refusal
