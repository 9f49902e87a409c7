"""The tally: what one process has counted since it began, such as purchases by outcome and times of the database.

The recorder tells Redis how much that has grown; `Totals` is what all processes have told.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Final, TypeAlias

from flashsale.model import Outcome, Receipt
from flashsale.model.snapshot import BOUNDS, Histogram, Totals

Name: TypeAlias = tuple[str, ...]

SETTLED: Final = ":settled"  # no item has a colon in its name
STORE: Final = ":store"
STORE_ERROR: Final = ":error"
LAG: Final = ":lag"
BATCH: Final = ":batch"
_SUM: Final = "us"  # of a histogram: microseconds
_BATCHES: Final = tuple((BATCH, "", str(place)) for place in range(len(BOUNDS) + 1))
_BATCH_SUM: Final = (BATCH, "", _SUM)


class Tally:
    """Counts by name. Each thread counts for itself, so that no count is lost and nobody waits.

    The name of a purchase is its item and its outcome.

    Attributes:
        on_count: called before something is counted.
    """

    def __init__(self) -> None:
        self._by_thread: dict[int, Counter[Name]] = {}
        self.on_count: Callable[[], object] = _nothing

    @property
    def counts(self) -> Counter[Name]:
        """All that was counted."""
        total = Counter[Name]()
        for counts in list(self._by_thread.values()):
            total.update(counts.copy())
        return total

    def clear(self) -> None:
        """Forgets all: in a child, it is its parent's."""
        self._by_thread.clear()

    def add(self, name: Name, number: int = 1) -> None:
        """Counts."""
        self.on_count()
        self._own()[name] += number

    def took(self, name: Name, seconds: float) -> None:
        """Counts in a histogram how long something took."""
        self.on_count()
        counts = self._own()
        counts[(*name, str(bisect_left(BOUNDS, seconds)))] += 1
        counts[(*name, _SUM)] += max(0, int(seconds * 1e6))

    def batch(self, answers: Iterable[object], seconds: float) -> None:
        """Counts a script call, and of its purchases those that the stock did not refuse; a replay is none."""
        self.on_count()
        counts = self._own()
        counts[_BATCHES[bisect_left(BOUNDS, seconds)]] += 1
        counts[_BATCH_SUM] += int(seconds * 1e6)
        goods_id, outcome, orders = "", Outcome.ACCEPTED, 0
        for answer in answers:
            if not isinstance(answer, Receipt) or answer.state is None or answer.replayed:
                continue
            if answer.outcome is not outcome or answer.goods_id != goods_id:
                if orders:
                    counts[goods_id, outcome] += orders
                goods_id, outcome, orders = answer.goods_id, answer.outcome, 0
            orders += 1
        if orders:
            counts[goods_id, outcome] += orders

    def refused(self, answers: Iterable[object]) -> None:
        """Counts what the stock refused, where no refusal cache does."""
        for answer in answers:
            if isinstance(answer, Receipt) and answer.state is None:
                self.add((answer.goods_id, answer.outcome))

    def settled(self, states: Iterable[str]) -> None:
        """Counts orders that have moved, by the state where they are now."""
        for state, orders in Counter(states).items():
            self.add((SETTLED, state), orders)

    def _own(self) -> Counter[Name]:
        me = get_ident()
        try:
            return self._by_thread[me]
        except KeyError:
            return self._by_thread.setdefault(me, Counter())


def _nothing() -> None:
    """Nobody listens."""


def totals_of(counts: Iterable[tuple[str, int]]) -> Totals:
    """Returns the totals that fields of Redis hold: names joined by bars, and numbers."""
    purchases: dict[tuple[str, str], int] = {}
    settled: dict[str, int] = {}
    errors: dict[tuple[str, str], int] = {}
    times: dict[tuple[str, str], dict[str, int]] = {}
    for name, number in counts:
        kind, _, rest = name.partition("|")
        first, _, last = rest.rpartition("|")
        if not kind.startswith(":"):
            purchases[kind, rest] = number
        elif kind == SETTLED:
            settled[rest] = number
        elif kind == STORE_ERROR:
            errors[first, last] = number
        else:
            times.setdefault((kind, first), {})[last] = number
    store = {operation: _histogram(found) for (kind, operation), found in times.items() if kind == STORE}
    lag, batch = (_histogram(times.get((kind, ""), {})) for kind in (LAG, BATCH))
    return Totals(purchases, settled, errors, store, lag, batch)


def _histogram(fields: dict[str, int]) -> Histogram:
    counts = tuple(fields.get(str(place), 0) for place in range(len(BOUNDS) + 1))
    return Histogram(counts, fields.get(_SUM, 0) / 1e6)
