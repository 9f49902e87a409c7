"""The contract of `OrderStore`, as tests: the events that tell how orders ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from flashsale._sync.store import OrderStore
from flashsale.errors import NotPersisted, OrderConflict, StoreError
from flashsale.model import RELEASED, Event, OrderState
from flashsale.testing._contract import (
    CALLERS,
    CANCELLED,
    CONFIRMED,
    EXPIRED,
    NOW,
    PERSISTED,
    QUEUED,
    REJECTED,
    StoreFixtures,
    at_once,
    every_event,
    moves,
    order,
    settle_many,
)


class EventContract(StoreFixtures):
    """Whoever was told "accepted" hears how it ended."""

    def test_saving_makes_an_event_of_each_refused_order_only(self, store: OrderStore) -> None:
        """Once, however often the batch comes."""
        refused = order("late", data={"note": "übermäßig"}, created_at=1_700_000_000.123456)
        for _ in range(2):
            store.save([order("all", 10), refused])
        (event,) = store.events(now=NOW)
        assert event == Event(event.event_id, refused, REJECTED, QUEUED, 0)

    @pytest.mark.parametrize("path", [(CONFIRMED,), (CANCELLED,), (EXPIRED,), (CONFIRMED, CANCELLED)])
    def test_every_move_makes_one_event(self, store: OrderStore, path: Sequence[OrderState]) -> None:
        """A second call for the same state makes none; the way of the order can be read from them."""
        store.save([order()])
        for state in path:
            store.settle(order(), state)
            store.settle(order(), state)
        store.settle(order(), EXPIRED)  # too late
        expected = [("o-1", before, after) for before, after in zip((PERSISTED, *path), path, strict=False)]
        events = every_event(store)
        assert moves(events) == expected
        assert sum(event.is_refund for event in events) == len(path) - 1

    @pytest.mark.parametrize("state", sorted(RELEASED))
    def test_a_tombstone_makes_one_event(self, store: OrderStore, state: OrderState) -> None:
        """The order was queued, and never gets a row that holds units."""
        gone = order(data={"note": "kept"})
        store.settle(gone, state)
        store.settle(gone, state)
        store.save([gone])
        (event,) = every_event(store)
        assert event == Event(event.event_id, gone, state, QUEUED)
        assert not event.is_refund

    def test_what_was_not_written_makes_no_event(self, store: OrderStore) -> None:
        """An event is part of the transaction that fails, and a call that is refused makes none."""
        batch = [order("all", 10), order("late")]
        with pytest.raises(StoreError):
            store.save([*batch, order("unknown", goods_id="zebra")])
        with pytest.raises(NotPersisted):
            store.settle(order("all"), CONFIRMED)
        assert store.events(now=NOW) == []
        store.save(batch)
        with pytest.raises(OrderConflict):
            store.settle(order("all", 9), CANCELLED)
        assert moves(every_event(store)) == [("late", QUEUED, REJECTED)]

    def test_settling_many_makes_an_event_of_each_move(self, store: OrderStore) -> None:
        """Each with the state that it left; those that stay make none."""
        batch = [order(name) for name in ("gone", "new", "paid", "unpaid")]
        store.save([one for one in batch if one.order_id != "new"])
        store.settle(batch[0], EXPIRED)
        store.settle(batch[2], CONFIRMED)
        every_event(store)
        for _ in range(2):
            settle_many(store, batch, CANCELLED)
        expected = [("new", QUEUED, CANCELLED), ("paid", CONFIRMED, CANCELLED), ("unpaid", PERSISTED, CANCELLED)]
        assert sorted(moves(every_event(store))) == expected

    @pytest.mark.parametrize("targets", [(CANCELLED, CANCELLED), (CANCELLED, EXPIRED), (CONFIRMED, CANCELLED)])
    @pytest.mark.parametrize("saved", [True, False])
    def test_settling_at_once_makes_an_event_of_each_move(
        self, store: OrderStore, targets: Sequence[OrderState], *, saved: bool
    ) -> None:
        """As many as the order made moves, in their order."""
        if saved:
            store.save([order()])

        def settle(state: OrderState) -> None:
            try:
                store.settle(order(), state)
            except NotPersisted:
                assert (state, saved) == (CONFIRMED, False)

        at_once(*(partial(settle, targets[n % 2]) for n in range(CALLERS)))
        path = [PERSISTED if saved else QUEUED]
        for order_id, previous, state in moves(every_event(store)):
            assert (order_id, previous) == ("o-1", path[-1])
            path.append(state)
        assert store.states(["o-1"]) == {"o-1": path[-1]}
        assert len(path) == 2 or path[1:] == [CONFIRMED, CANCELLED]

    def test_of_each_order_only_the_first_event_is_due(self, store: OrderStore) -> None:
        """The next one when it was delivered; other orders do not wait for it."""
        store.save([order("a"), order("b")])
        for state in (CONFIRMED, CANCELLED):
            store.settle(order("a"), state)
        store.settle(order("b"), EXPIRED)
        first, other = store.events(now=NOW)
        assert store.events(now=NOW) == [first, other]
        assert store.events(now=NOW, limit=1) == [first]
        assert moves([first, other]) == [("a", PERSISTED, CONFIRMED), ("b", PERSISTED, EXPIRED)]
        store.delivered([first.event_id, other.event_id])
        (last,) = store.events(now=NOW)
        assert moves([last]) == [("a", CONFIRMED, CANCELLED)]
        assert last.event_id > first.event_id
        store.delivered([last.event_id, first.event_id])
        assert store.events(now=NOW) == []

    def test_a_postponed_event_waits_and_holds_back_the_next_of_its_order(self, store: OrderStore) -> None:
        """Failed attempts are counted; its turn comes at the second."""
        store.save([order("a"), order("b")])
        for state in (CONFIRMED, CANCELLED):
            store.settle(order("a"), state)
        store.settle(order("b"), EXPIRED)
        first, other = store.events(now=NOW)
        store.postpone(first.event_id, NOW + 5)
        assert store.events(now=NOW + 4.875) == [other]
        assert store.events(now=NOW + 5) == [replace(first, attempts=1), other]

    def test_a_dead_event_holds_nobody_back_until_it_is_requeued(self, store: OrderStore) -> None:
        """And comes back with no attempt counted."""
        store.save([order("a")])
        for state in (CONFIRMED, CANCELLED):
            store.settle(order("a"), state)
        (first,) = store.events(now=NOW)
        assert store.dead_events() == []
        store.postpone(first.event_id, NOW)
        store.postpone(first.event_id, None)
        assert store.dead_events() == [replace(first, attempts=2)]
        assert moves(store.events(now=NOW)) == [("a", CONFIRMED, CANCELLED)]
        assert (store.requeue_events(), store.requeue_events()) == (1, 0)
        assert (store.dead_events(), store.events(now=NOW)) == ([], [first])

    def test_dead_events_are_read_oldest_first(self, store: OrderStore) -> None:
        """As many as asked for."""
        for name in "cab":
            store.settle(order(name), CANCELLED)
        for event in store.events(now=NOW):
            store.postpone(event.event_id, None)
        assert [event.order.order_id for event in store.dead_events(2)] == ["c", "a"]

    def test_event_ids_are_never_used_again(self, store: OrderStore) -> None:
        """A late call for an event that is gone must not meet another."""
        ids: list[int] = []
        for name in "abc":
            store.settle(order(name), CANCELLED)
            ids += [event.event_id for event in every_event(store)]
        assert ids == sorted(set(ids))
        store.settle(order("d"), CANCELLED)
        store.delivered(ids)
        for event_id in ids:
            store.postpone(event_id, None)
        assert moves(store.events(now=NOW)) == [("d", QUEUED, CANCELLED)]
        assert store.dead_events() == []

    def test_more_events_than_one_statement_takes(self, store: OrderStore) -> None:
        """Pages are as long as asked for."""
        store.save([order(n, 11) for n in range(1200)])
        page = store.events(now=NOW, limit=1100)
        assert (len(page), len(store.events(now=NOW))) == (1100, 100)
        store.delivered([event.event_id for event in page])
        assert len(store.events(now=NOW, limit=1100)) == 100

    def test_events_of_sales_do_not_meet(
        self, store: OrderStore, open_store: Callable[[str], OrderStore], sale: str
    ) -> None:
        """Whatever one sale does with the numbers of the other's."""
        other = open_store(f"{sale}-2")
        other.settle(order(), CANCELLED)
        assert store.events(now=NOW) == []
        (event,) = other.events(now=NOW)
        store.postpone(event.event_id, None)
        store.delivered([event.event_id])
        assert (store.requeue_events(), other.events(now=NOW)) == (0, [event])
