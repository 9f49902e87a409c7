"""Folds the orders of a sale, page by page, and its samples into what the report shows of them. Pure.

The curves have a bounded number of slots, however long the sale was. Of each order 16 bytes stay, to add up the units
of each buyer; nobody is named.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from flashsale.model import RELEASED, OrderState, StoredOrder
from flashsale.model.snapshot import BOUNDS, Sample
from flashsale.ops.svg import Point

PARTS: Final = 64  # in which the buyers are added up, one after the other
RANKS: Final = 20
"""Groups of equal size into which the orders are divided by their arrival."""


class Slots:
    """Counts by time, in slots of equal width; when there are too many, all become twice as wide.

    Args:
        width: of a slot, in seconds.
        most: slots.
    """

    def __init__(self, width: float = 1.0, most: int = 4096) -> None:
        self.width = width
        self.counts: dict[int, int] = {}
        self._most = most

    def add(self, at: float, number: int = 1) -> None:
        """Counts what happened at this time."""
        counts, slot = self.counts, int(at // self.width)
        if slot in counts:
            counts[slot] += number
            return
        counts[slot] = number
        while len(self.counts) > self._most:
            self.widen(self.width * 2)

    def widen(self, width: float) -> None:
        """Makes the slots this wide: a multiple, by a power of two, of what they are."""
        factor = round(width / self.width)
        wide = Counter[int]()
        for slot, number in self.counts.items():
            wide[slot // factor] += number
        self.width, self.counts = width, dict(wide)

    def curve(self) -> list[Point]:
        """Returns how many a second, for every slot, from before the first in which something was to after the last."""
        if not self.counts:
            return []
        self._bound_span()
        slots = range(min(self.counts) - 1, max(self.counts) + 2)
        return [(slot * self.width, self.counts.get(slot, 0) / self.width) for slot in slots]

    def sums(self) -> list[Point]:
        """Returns how many in all, at the end of each slot in which something was counted."""
        total, points = 0, []
        for slot in sorted(self.counts):
            total += self.counts[slot]
            points.append(((slot + 1) * self.width, float(total)))
        return points

    def _bound_span(self) -> None:
        """Makes the slots so wide that those between the first and the last are not too many, either."""
        while max(self.counts) - min(self.counts) >= self._most:
            self.widen(self.width * 2)


class OrderStats:
    """What all orders of a sale come to.

    Attributes:
        states: orders by state.
        units: by item and state.
        first: when the first order of each item was accepted.
        accepted, saved, paid, returned: when that happened to the orders; `returned` are those that were released.
        taken, given: the units of the orders that were accepted and of those that were released, by time.
        lag: orders by bucket of `BOUNDS`: from accepted to saved.
        timeless: orders of which nobody knows when they were accepted.
    """

    def __init__(self) -> None:
        self.states = Counter[OrderState]()
        self.units = Counter[tuple[str, OrderState]]()
        self.first: dict[str, float] = {}
        self.accepted, self.saved, self.paid, self.returned = (Slots() for _ in range(4))
        self.taken, self.given = Slots(), Slots()
        self.lag = [0] * (len(BOUNDS) + 1)
        self.timeless = 0
        self._arrived, self._won = (Slots(2.0**-10) for _ in range(2))
        self._buyers = [(array("q"), array("q")) for _ in range(PARTS)]

    def add(self, page: Iterable[StoredOrder]) -> None:
        """Adds a page of orders."""
        for stored in page:
            order, state = stored.order, stored.state
            self.states[state] += 1
            self.units[order.goods_id, state] += order.quantity
            if state not in RELEASED:
                self._add_buyer(order.buyer_id, order.quantity)
            self._add_times(
                stored,
                order.created_at,
                getattr(stored, "persisted_at", None),
                getattr(stored, "settled_at", None),
            )

    def _add_buyer(self, buyer_id: str, quantity: int) -> None:
        name = hash(buyer_id)
        names, units = self._buyers[name % PARTS]
        names.append(name)
        units.append(quantity)

    def _add_times(
        self, stored: StoredOrder, created_at: float | None, persisted_at: float | None, settled_at: float | None
    ) -> None:
        order, state = stored.order, stored.state
        if created_at is None:
            self.timeless += 1
        else:
            self.accepted.add(created_at)
            self.taken.add(created_at, order.quantity)
            self._arrived.add(created_at)
            if state is OrderState.CONFIRMED:
                self._won.add(created_at)
            if created_at < self.first.get(order.goods_id, float("inf")):
                self.first[order.goods_id] = created_at
        if persisted_at is not None:
            self.saved.add(persisted_at)
            if created_at is not None:
                self.lag[bisect_left(BOUNDS, persisted_at - created_at)] += 1
        if settled_at is not None and state is OrderState.CONFIRMED:
            self.paid.add(settled_at)
        elif settled_at is not None and state in RELEASED:
            self.returned.add(settled_at)
            self.given.add(settled_at, order.quantity)

    def units_of_buyers(self) -> Counter[int]:
        """Returns how many buyers have how many units of orders that were not released."""
        buyers = Counter[int]()
        for names, units in self._buyers:
            part: dict[int, int] = {}
            for name, number in zip(names, units, strict=True):
                part[name] = part.get(name, 0) + number
            buyers.update(part.values())
        return buyers

    def winners(self) -> list[float]:
        """Returns which share of the orders was paid, of each twentieth by arrival; empty when no time is known."""
        width = max(self._arrived.width, self._won.width)
        for slots in (self._arrived, self._won):
            slots.widen(width)
        total = sum(self._arrived.counts.values())
        won, arrived, before = [0.0] * RANKS, [0.0] * RANKS, 0
        for slot in sorted(self._arrived.counts):
            number = self._arrived.counts[slot]
            for group, part in _groups(before, number, total):
                arrived[group] += part
                won[group] += self._won.counts.get(slot, 0) * part / number
            before += number
        return [mine / all_of_it for mine, all_of_it in zip(won, arrived, strict=True) if all_of_it]


class SampleStats:
    """What the samples of all items come to.

    Attributes:
        longest: the samples of the item that has most: what they say of the whole sale, each item's say.
        sold_out: when all units of an item were booked for the first time; without those that never were.
    """

    def __init__(self) -> None:
        self.longest: Sequence[Sample] = ()
        self.sold_out: dict[str, float] = {}

    def add(self, goods_id: str, samples: Sequence[Sample]) -> None:
        """Adds the samples of an item, in the order of time."""
        gone = next((each.time for each in samples if 0 < each.total <= each.booked), None)
        if gone is not None:
            self.sold_out[goods_id] = gone
        if len(samples) > len(self.longest):
            self.longest = samples


def _groups(before: int, number: int, total: int) -> Iterable[tuple[int, float]]:
    """Divides the orders of a slot among the groups of equal size: group, and how many orders of it."""
    size, start, end = total / RANKS, float(before), float(before + number)
    while end - start > 1e-9:
        group = min(RANKS - 1, int(start / size + 1e-9))
        upto = end if group == RANKS - 1 else min(end, (group + 1) * size)
        yield group, upto - start
        start = upto
