"""Tests of the `OrderStore` contract: items, orders and the guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from flashsale._sync.store import OrderStore, bulk_settle
from flashsale.errors import NotPersisted, OrderConflict, StoreError
from flashsale.model import RELEASED, TRANSITIONS, Goods, OrderState, Saved, StoredOrder
from flashsale.testing._contract import (
    CALLERS,
    CANCELLED,
    CONFIRMED,
    EXPIRED,
    PERSISTED,
    REJECTED,
    VISIBLE,
    StoreFixtures,
    active_units,
    at_once,
    every_order,
    order,
    settle_many,
)


class OrderContract(StoreFixtures):
    """Goods, orders and the guard."""

    # -- items and sale -------------------------------------------------------------------------------------------

    def test_goods_are_read_as_they_were_put(self, store: OrderStore) -> None:
        """Total and policy come back; nothing is loaded yet."""
        case = Goods("case", 5, per_buyer=2, opens_at=1.7e9 + 0.125, closes_at=1.8e9, hold=900.5)
        self._put(store, case)
        found = {goods.goods_id: replace(goods, version=0) for goods in store.goods()}
        assert found == {"case": case, "phone": Goods("phone", 10)}

    def test_every_change_of_goods_raises_the_version(self, store: OrderStore) -> None:
        """Redis refuses older versions, so a change must not keep the number."""
        (before,) = store.goods()
        self._put(store, Goods("phone", 11))
        (after,) = store.goods()
        assert (after.total, after.version > before.version) == (11, True)

    def test_lowering_the_total_rejects_nobody(self, store: OrderStore) -> None:
        """`granted` is what Redis was given: orders accepted from it fit, whatever the total is now."""
        self._put(store, Goods("phone", 1))
        assert len(store.save([order(n) for n in range(10)]).inserted) == 10

    def test_a_grant_moves_the_guard(self, store: OrderStore) -> None:
        """More may be booked after a greater grant, and nothing more after one below what is booked."""
        store.grant("phone", 12)
        assert len(store.save([order(n) for n in range(11)]).inserted) == 11
        store.grant("phone", 3)
        assert self.free_units(store) == 0
        assert active_units(store) == 11

    def test_a_grant_for_an_older_version_changes_nothing(self, store: OrderStore) -> None:
        """Whoever read the row before it was changed must not move the guard any more."""
        before = next(iter(store.goods()))
        after = store.restock("phone", 2)
        assert store.grant("phone", 12, version=after.version) is True
        assert store.grant("phone", 3, loaded=True, version=before.version) is False
        assert (self.free_units(store), next(iter(store.goods())).loaded) == (12, False)

    def test_loaded_is_never_unset(self, store: OrderStore) -> None:
        """Goods that Redis held once are never preloaded again."""
        store.grant("phone", 10, loaded=True)
        store.grant("phone", 9)
        self._put(store, Goods("phone", 9))
        assert [goods.loaded for goods in store.goods()] == [True]

    def test_a_restock_moves_the_total_under_a_new_version(self, store: OrderStore) -> None:
        """Units are added or taken away, never below 0; the guard does not move."""
        before = next(iter(store.goods()))
        more = store.restock("phone", 5)
        less = store.restock("phone", -(before.total + 99))
        assert (more.total, less.total) == (before.total + 5, 0)
        assert before.version < more.version < less.version
        assert next(iter(store.goods())) == less

    def test_restocks_at_once_all_count(self, store: OrderStore) -> None:
        """None is lost, and each has a version of its own."""
        (before,) = store.goods()
        versions = [goods.version for goods in at_once(*[partial(store.restock, "phone", 1)] * CALLERS)]
        (after,) = store.goods()
        assert (after.total, after.version) == (before.total + CALLERS, max(versions))
        assert len({before.version, *versions}) == CALLERS + 1

    def test_a_restock_without_a_row_is_an_error(self, store: OrderStore) -> None:
        with pytest.raises(StoreError):
            store.restock("nothing", 1)

    def test_a_grant_without_a_row_is_an_error(self, store: OrderStore) -> None:
        """It must not be lost silently."""
        with pytest.raises(StoreError):
            store.grant("case", 5)

    def test_the_epoch_only_grows(self, store: OrderStore) -> None:
        """It is 1, and every advance returns a number of its own."""
        assert store.epoch() == 1
        assert sorted(at_once(*[store.advance_epoch] * CALLERS)) == list(range(2, CALLERS + 2))
        assert store.epoch() == CALLERS + 1

    # -- save -----------------------------------------------------------------------------------------------------

    def test_saving_twice_is_saving_once(self, store: OrderStore) -> None:
        """The second call reports what stands and books nothing."""
        batch = [order(n, 2) for n in range(3)]
        ids = frozenset(one.order_id for one in batch)
        assert store.save(batch) == Saved(inserted=ids)
        assert store.save(batch) == Saved(existing=dict.fromkeys(ids, PERSISTED))
        assert self.free_units(store) == 4

    def test_nothing_to_save(self, store: OrderStore) -> None:
        """An empty batch is no error."""
        assert store.save([]) == Saved()

    @pytest.mark.parametrize("data", [None, 0, "", [], {"übermäßig": ["☎", None, {"a": [1.5, True]}]}, "\0 '%s' \\"])
    def test_an_order_comes_back_as_it_was(self, store: OrderStore, data: Any) -> None:
        """Content, time and the host's own data."""
        saved = order(VISIBLE, 3, buyer_id=VISIBLE[::-1], created_at=1_700_000_000.123456, data=data)
        store.save([saved])
        assert every_order(store) == [StoredOrder(saved, PERSISTED)]

    def test_ids_differ_by_case(self, store: OrderStore) -> None:
        """Two ids are the same only when every byte is."""
        assert store.save([order("a"), order("A")]).inserted == {"a", "A"}

    def test_orders_that_do_not_fit_are_refused_in_their_turn(self, store: OrderStore) -> None:
        """Who comes first is served first, whatever the ids; a refused order keeps nobody from a unit."""
        batch = [order("z", 6), order("y", 5), order("x", 4), order("w", 1)]
        assert store.save(batch) == Saved(inserted=frozenset("zx"), refused=frozenset("yw"))
        assert store.states("wxyz") == {"z": PERSISTED, "x": PERSISTED, "y": REJECTED, "w": REJECTED}

    def test_a_refusal_is_final(self, store: OrderStore) -> None:
        """Units that come back later do not revive the order."""
        first, late = order("first", 10), order("late")
        store.save([first, late])
        store.settle(first, CANCELLED)
        assert store.save([late]).existing == {"late": REJECTED}

    def test_a_batch_books_only_what_is_new(self, store: OrderStore) -> None:
        """Redelivered orders among new ones take no second unit."""
        store.save([order("old", 4)])
        assert store.save([order("old", 4), order("new", 6)]) == Saved(frozenset({"new"}), existing={"old": PERSISTED})

    @pytest.mark.parametrize("other", [{"goods_id": "case"}, {"buyer_id": "mallory"}, {"quantity": 2}])
    def test_other_content_is_a_conflict(self, store: OrderStore, other: dict[str, Any]) -> None:
        """The row stays, and the rest of the batch is saved."""
        self._put(store, Goods("case", 5))
        store.save([order()])
        assert store.save([order(**other), order("new")]) == Saved(frozenset({"new"}), conflicts=frozenset({"o-1"}))
        assert StoredOrder(order(), PERSISTED) in every_order(store)

    def test_other_data_is_no_conflict(self, store: OrderStore) -> None:
        """A retry may carry another note; the first one stays."""
        store.save([order(data="first")])
        assert store.save([order(data="second")]).existing == {"o-1": PERSISTED}
        assert every_order(store) == [StoredOrder(order(data="first"), PERSISTED)]

    def test_a_missing_goods_row_is_an_error_and_nothing_is_written(self, store: OrderStore) -> None:
        """It is no refusal: the whole batch comes again."""
        with pytest.raises(StoreError):
            store.save([order("known"), order("unknown", goods_id="case")])
        assert every_order(store) == []
        assert self.free_units(store) == 10

    def test_a_large_batch(self, store: OrderStore) -> None:
        """As large as the worker's, with several items, and refusals."""
        self._put(store, Goods("case", 300))
        batch = [order(n, goods_id="case" if n % 2 else "phone") for n in range(1200)]
        saved = store.save(batch)
        assert (len(saved.inserted), len(saved.refused)) == (310, 890)
        assert store.save(batch).existing == store.states([one.order_id for one in batch])

    def test_saves_at_once_never_book_more_than_granted(self, store: OrderStore) -> None:
        """The guard holds between transactions."""
        batches = [[order(f"{caller}-{n}") for n in range(5)] for caller in range(CALLERS)]
        answers = at_once(*(partial(store.save, batch) for batch in batches))
        assert sum(len(saved.inserted) for saved in answers) == 10 == active_units(store)
        assert sum(len(saved.refused) for saved in answers) == 5 * CALLERS - 10

    def test_one_batch_saved_by_several_at_once_is_saved_once(self, store: OrderStore) -> None:
        """Two workers may hold the same order after a lease ran out; also in another order."""
        batch = [order(n) for n in range(6)]
        turned = batch[::-1]
        answers = at_once(*(partial(store.save, turned if n % 2 else batch) for n in range(CALLERS)))
        assert sorted(order_id for saved in answers for order_id in saved.inserted) == [str(n) for n in range(6)]
        assert self.free_units(store) == 4

    # -- settle ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("path", [(), (CONFIRMED,), (CANCELLED,), (EXPIRED,), (CONFIRMED, CANCELLED)])
    @pytest.mark.parametrize("target", [CONFIRMED, CANCELLED, EXPIRED, REJECTED])
    def test_an_order_moves_only_where_it_may(
        self, store: OrderStore, path: Sequence[OrderState], target: OrderState
    ) -> None:
        """A move gives the state asked for, else the state that stands; units return with the first release."""
        store.save([order(quantity=3)])
        stands = PERSISTED
        for state in path:
            stands = store.settle(order(quantity=3), state)
            assert stands is state
        expected = target if target in TRANSITIONS[stands] else stands
        assert store.settle(order(quantity=3), target) is expected
        assert store.settle(order(quantity=3), target) is expected
        assert store.states(["o-1"]) == {"o-1": expected}
        assert self.free_units(store) == (10 if expected in RELEASED else 7)

    @pytest.mark.parametrize("state", sorted(RELEASED))
    def test_a_release_before_the_row_leaves_a_tombstone(self, store: OrderStore, state: OrderState) -> None:
        """The worker's insert meets it, and books nothing."""
        gone = order(quantity=10, data={"note": "kept"})
        assert store.settle(gone, state) is state
        assert store.save([gone]).existing == {"o-1": state}
        assert every_order(store) == [StoredOrder(gone, state)]
        assert self.free_units(store) == 10

    def test_a_confirmation_before_the_row_must_be_repeated(self, store: OrderStore) -> None:
        """It plants nothing."""
        with pytest.raises(NotPersisted) as caught:
            store.settle(order(), CONFIRMED)
        assert caught.value.order_id == "o-1"
        assert store.states(["o-1"]) == {}

    @pytest.mark.parametrize("other", [{"goods_id": "case"}, {"buyer_id": "mallory"}, {"quantity": 2}])
    def test_settling_other_content_is_a_conflict(self, store: OrderStore, other: dict[str, Any]) -> None:
        """And changes nothing."""
        store.save([order()])
        with pytest.raises(OrderConflict):
            store.settle(order(**other), CANCELLED)
        assert store.states(["o-1"]) == {"o-1": PERSISTED}

    @pytest.mark.parametrize("targets", [(CANCELLED, EXPIRED), (CONFIRMED, EXPIRED), (CANCELLED, CANCELLED)])
    def test_settling_at_once_has_one_winner(self, store: OrderStore, targets: Sequence[OrderState]) -> None:
        """Everybody is told the same state, and the units return once."""
        store.save([order(quantity=4)])
        answers = at_once(*(partial(store.settle, order(quantity=4), targets[n % 2]) for n in range(CALLERS)))
        assert set(answers) == set(store.states(["o-1"]).values())
        assert self.free_units(store) == (10 if answers[0] in RELEASED else 6)

    def test_saving_against_cancelling_ends_cancelled(self, store: OrderStore) -> None:
        """Whoever comes first, the order holds nothing in the end."""
        batch = [order(n, 2) for n in range(4)]
        cancels = [partial(store.settle, one, CANCELLED) for one in batch]
        answers: list[Any] = at_once(partial(store.save, batch), *cancels)
        assert answers[1:] == [CANCELLED] * 4
        assert set(store.states("0123").values()) == {CANCELLED}
        assert self.free_units(store) == 10

    # -- settle many: beside the protocol, for a store that can ---------------------------------------------------

    @pytest.mark.parametrize("target", [CANCELLED, EXPIRED])
    def test_many_orders_settle_as_each_would_alone(self, store: OrderStore, target: OrderState) -> None:
        """Whether they are unpaid, paid, released or have no row; of several items; and a second time nothing moves."""
        self._put(store, Goods("case", 9))
        batch = [order("unpaid", 2), order("paid", 3), order("gone", 1), order("other", 4, goods_id="case")]
        store.save(batch)
        store.settle(batch[1], CONFIRMED)
        store.settle(batch[2], CANCELLED)
        batch.append(order("new", 5, goods_id="bag"))  # no item's row is asked for
        paid = CANCELLED if target is CANCELLED else CONFIRMED
        wanted = {"unpaid": target, "paid": paid, "gone": CANCELLED, "other": target, "new": target}
        for _ in range(2):
            assert settle_many(store, batch, target) == wanted
            assert store.states(list(wanted)) == wanted
        held = 3 if paid is CONFIRMED else 0
        assert active_units(store) == held
        assert self.free_units(store) == 10 - held
        assert len(store.save([order(n, goods_id="case") for n in range(10)]).inserted) == 9

    def test_no_orders_are_settled_in_no_time(self, store: OrderStore) -> None:
        """An empty batch is none."""
        assert settle_many(store, [], EXPIRED) == {}

    def test_many_orders_are_confirmed_or_none(self, store: OrderStore) -> None:
        """One that has no row yet keeps the others from being written."""
        batch = [order("a"), order("b")]
        store.save(batch)
        with pytest.raises(NotPersisted) as caught:
            settle_many(store, [order("0"), *batch], CONFIRMED)
        assert caught.value.order_id == "0"
        assert store.states(["0", "a", "b"]) == {"a": PERSISTED, "b": PERSISTED}
        assert settle_many(store, batch, CONFIRMED) == {"a": CONFIRMED, "b": CONFIRMED}

    def test_one_order_of_many_with_other_content_is_a_conflict(self, store: OrderStore) -> None:
        """And then nothing was written, by a store that settles them together."""
        batch = [order("a"), order("b"), order("c")]
        store.save(batch)
        asked = [order("a"), order("b", 2), order("c"), order("new")]
        if bulk_settle(store) is None:
            asked = asked[1:]  # one by one, those before it would be settled
        with pytest.raises(OrderConflict):
            settle_many(store, asked, EXPIRED)
        assert store.states(["a", "b", "c", "new"]) == dict.fromkeys("abc", PERSISTED)
        assert self.free_units(store) == 7

    def test_settling_many_at_once_has_one_winner_of_each(self, store: OrderStore) -> None:
        """Against each other, turned around, and against payments and cancellations of one."""
        batch = [order(n, goods_id="case" if n % 2 else "phone") for n in range(8)]
        self._put(store, Goods("case", 4))
        store.save(batch)
        pages = [partial(settle_many, store, batch[:: -1 if n % 2 else 1], EXPIRED) for n in range(CALLERS // 2)]
        singles = [partial(store.settle, one, (CANCELLED, CONFIRMED)[n // 2 % 2]) for n, one in enumerate(batch)]
        answers: list[Any] = at_once(*pages, *singles)
        final = store.states([str(n) for n in range(8)])
        for page in answers[: len(pages)]:
            assert {name: state for name, state in page.items() if state is not final[name]} == {}
        assert answers[len(pages) :] == [final[str(n)] for n in range(8)]
        held = active_units(store)
        cases = store.save([order(f"case-{n}", goods_id="case") for n in range(9)]).inserted
        assert self.free_units(store) + len(cases) == 14 - held

    # -- reading --------------------------------------------------------------------------------------------------

    def test_unknown_orders_have_no_state(self, store: OrderStore) -> None:
        """They are left out."""
        store.save([order("known")])
        assert store.states(["known", "unknown"]) == {"known": PERSISTED}
        assert store.states([]) == {}

    def test_pages_hold_every_order_once(self, store: OrderStore) -> None:
        """Whatever the page; after the last comes an empty one."""
        ids = ["B", "a", "_", "Z-1", "z.1", "10", "9", "~", "!"]
        store.save([order(order_id) for order_id in ids])
        for page in (1, 4, 9, 100):
            assert sorted(row.order.order_id for row in every_order(store, page=page)) == sorted(ids)

    def test_sales_do_not_disturb_each_other(
        self, store: OrderStore, open_store: Callable[[str], OrderStore], sale: str
    ) -> None:
        """The same ids in another sale are other items and orders."""
        other = open_store(f"{sale}-2")
        self._put(other, Goods("phone", 3))
        store.save([order(quantity=3)])
        assert other.save([order(quantity=3)]).inserted == {"o-1"}
        assert other.settle(order(quantity=3), CANCELLED) is CANCELLED
        other.advance_epoch()
        other.grant("phone", 2, loaded=True)
        assert (store.epoch(), store.states(["o-1"])) == (1, {"o-1": PERSISTED})
        assert [(goods.total, goods.loaded) for goods in store.goods()] == [(10, False)]
        assert [row.order.quantity for row in other.orders()] == [3]
        assert (self.free_units(store), self.free_units(other)) == (7, 2)
