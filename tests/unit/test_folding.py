"""A million orders become a few numbers: whole, bounded, and without a name."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.model import Order, OrderState, StoredOrder
from flashsale.ops.folding import RANKS, OrderStats, SampleStats, Slots
from tests.support.evidence import OPENING, TimedOrder, rows, samples


def folded(*orders: StoredOrder) -> OrderStats:
    stats = OrderStats()
    stats.add(orders)
    return stats


def order(name: str, *, buyer: str = "ann", units: int = 1, at: float | None = OPENING) -> Order:
    return Order(name, "phone", buyer, units, created_at=at)


@given(st.lists(st.floats(0, 1e6), max_size=200), st.integers(1, 20))
def test_slots_lose_nothing_and_stay_few(times: list[float], most: int) -> None:
    slots = Slots(1.0, most)
    for at in times:
        slots.add(at)
    assert sum(slots.counts.values()) == len(times)
    assert len(slots.counts) <= most
    assert len(slots.curve()) <= most + 2
    assert sum(rate for _, rate in slots.curve()) * slots.width == pytest.approx(len(times))
    assert [total for _, total in slots.sums()][-1:] == [len(times)] * bool(times)


def test_a_curve_has_a_zero_for_each_quiet_second() -> None:
    slots = Slots()
    for at in (10.2, 10.9, 13.0):
        slots.add(at)
    assert slots.curve() == [(9, 0), (10, 2), (11, 0), (12, 0), (13, 1), (14, 0)]


def test_orders_are_counted_by_state_and_units_by_item() -> None:
    stats = folded(
        StoredOrder(order("o-1", units=2), OrderState.CONFIRMED), StoredOrder(order("o-2"), OrderState.EXPIRED)
    )
    assert stats.states == {OrderState.CONFIRMED: 1, OrderState.EXPIRED: 1}
    assert stats.units == {("phone", OrderState.CONFIRMED): 2, ("phone", OrderState.EXPIRED): 1}
    assert stats.first == {"phone": OPENING}


def test_units_of_a_buyer_are_summed_and_released_ones_are_not() -> None:
    stats = folded(
        StoredOrder(order("o-1", units=2), OrderState.CONFIRMED),
        StoredOrder(order("o-2"), OrderState.PERSISTED),
        StoredOrder(order("o-3"), OrderState.CANCELLED),
        StoredOrder(order("o-4", buyer="bob"), OrderState.CONFIRMED),
        StoredOrder(order("o-5", buyer="eve"), OrderState.EXPIRED),
    )
    assert stats.units_of_buyers() == {3: 1, 1: 1}


def test_orders_without_times_are_counted_as_such() -> None:
    stats = folded(StoredOrder(order("o-1", at=None), OrderState.CONFIRMED))
    assert stats.timeless == 1
    assert stats.winners() == []
    assert stats.accepted.curve() == stats.saved.curve() == stats.paid.curve() == []


def test_times_of_the_rows_become_curves() -> None:
    stats = folded(
        TimedOrder(order("o-1"), OrderState.CONFIRMED, None, OPENING + 0.3, OPENING + 9),
        TimedOrder(order("o-2", units=3), OrderState.EXPIRED, None, OPENING + 7, OPENING + 60),
        TimedOrder(order("o-3"), OrderState.PERSISTED, None, OPENING + 7, None),
    )
    assert stats.accepted.curve()[1:-1] == [(OPENING, 3)]
    assert stats.paid.curve()[1:-1] == [(OPENING + 9, 1)]
    assert stats.returned.curve()[1:-1] == [(OPENING + 60, 1)]
    assert stats.given.sums() == [(OPENING + 61, 3)]
    assert sum(stats.lag) == 3
    assert stats.lag[6] == 1, "0.3 s: above 0.25, at most 0.5... the sixth bound"


def test_early_winners_are_seen() -> None:
    first_half = [
        StoredOrder(order(f"o-{n}", at=OPENING + n), OrderState.CONFIRMED if n < 50 else OrderState.EXPIRED)
        for n in range(100)
    ]
    random.Random(1).shuffle(first_half)
    shares = folded(*first_half).winners()
    assert len(shares) == RANKS
    assert shares == pytest.approx([1.0] * 10 + [0.0] * 10)


def test_arrivals_at_one_moment_are_shared_by_all_ranks() -> None:
    same = [
        StoredOrder(order(f"o-{n}"), OrderState.CONFIRMED if n % 4 == 0 else OrderState.EXPIRED) for n in range(100)
    ]
    assert folded(*same).winners() == pytest.approx([0.25] * RANKS)


def test_what_is_kept_does_not_grow_with_the_sale() -> None:
    stats = OrderStats()
    stats.add(rows(30_000))
    kept = (stats.accepted, stats.saved, stats.paid, stats.returned, stats.taken, stats.given, stats._arrived)
    assert all(len(slots.counts) <= 4096 for slots in kept)
    assert sum(names.itemsize * len(names) for names, _ in stats._buyers) < 8 * 30_000
    assert "buyer-7" not in repr(vars(stats))


def test_of_the_samples_only_those_of_one_item_are_kept() -> None:
    stats = SampleStats()
    for name, number in (("case", 20), ("phone", 120), ("bag", 60)):
        stats.add(name, samples(number))
    assert len(stats.longest) == 120
    assert stats.sold_out == {"phone": OPENING + 25, "bag": OPENING + 25}
