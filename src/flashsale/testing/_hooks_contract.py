"""Tests of the `OrderHooks` contract; `flashsale.testing.hooks` runs them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import iscoroutinefunction
from types import FrameType
from typing import Any

import pytest

from flashsale._rules.hooks import Hooks
from flashsale._sync.store import OrderStore
from flashsale.errors import InvalidRequest
from flashsale.model import RELEASED, Goods, Order, OrderState
from flashsale.testing._contract import (
    CALLERS,
    CANCELLED,
    CONFIRMED,
    EXPIRED,
    PERSISTED,
    REJECTED,
    StoreFixtures,
    at_once,
    every_event,
    every_order,
    order,
    settle_many,
)

MOST_PLACES = 1000
PRIMITIVES = ("select", "insert_new", "insert_events", "update", "book")


class Kill(BaseException):
    """The process dies here."""


class Spy:
    """Stands between a store and its hooks: notes the calls, and kills at one place.

    Attributes:
        saved: ids of the orders of each call of `saved` that ended well.
        units: what `stock` was told in sum, by item, by calls that ended well.
        stock: units of the item `phone` in the shop's own stock at first, if it tells.
        left: places to pass before the one where it kills; None: it kills nowhere.
    """

    def __init__(self, store: Any, stock: int | None) -> None:
        self.stock = stock
        self.saved: list[list[str]] = []
        self.units: Counter[str] = Counter()
        self.left: int | None = None
        self._files = {
            method.__code__.co_filename for method in store._called if hasattr(method, "__code__")
        }  # of the host's code
        methods = {name: self._watched(name, method) for name, method in store._called._asdict().items() if method}
        store._called = Hooks(**methods)
        for name in PRIMITIVES:
            setattr(store, name, self._counted(getattr(store, name)))

    def _pass(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Kill

    def _counted(self, primitive: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **how: Any) -> Any:
            self._pass()
            return primitive(*args, **how)

        return counted

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def sync(connection: Any, *args: Any) -> Any:
            with self._traced():
                answer = method(connection, *args)
            self._note(name, args)
            return answer

        async def asynchronous(connection: Any, *args: Any) -> Any:
            with self._traced():
                answer = await method(connection, *args)
            self._note(name, args)
            return answer

        return asynchronous if iscoroutinefunction(method) else sync

    def _note(self, name: str, args: Any) -> None:
        if name == "saved":
            self.saved.append([one.order_id for one in args[0]])
        elif name == "stock":
            self.units[args[0]] += args[1]

    @contextmanager
    def _traced(self) -> Iterator[None]:
        """Counts every line of the host's hooks as a place to die at."""
        if self.left is None:
            yield
            return
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self._pass()
        return self._trace


class HooksContract(StoreFixtures):
    """What the host's tables say must be what the sale's tables say, whatever happens in between."""

    def _active(self, store: OrderStore) -> Collection[str]:
        raise NotImplementedError

    def _stock(self, store: OrderStore, goods_id: str) -> int | None:
        raise NotImplementedError

    def _refusable(self, one: Order) -> Order | None:
        raise NotImplementedError

    def _raw(self, store: OrderStore) -> Any:
        return store

    def _call(self, answer: Any) -> Any:
        return answer

    @pytest.fixture
    def spy(self, store: OrderStore) -> Spy:
        """Between a store with ten units of the item `phone` and its hooks."""
        return Spy(self._raw(store), self._stock(store, "phone"))

    @pytest.fixture
    def refused(self) -> Callable[..., Order]:
        """Makes an order that the hooks refuse; skips where they refuse none."""

        def make(order_id: object, **other: Any) -> Order:
            one = self._refusable(order(order_id, **other))
            if one is None:
                pytest.skip("the hooks refuse no order: no `refused_order`")
            return one

        return make

    def agree(self, store: OrderStore, *, after: str | None = None) -> None:
        """Fails where the shop and the sale disagree about which orders are active; all up to `after` are released."""
        active = {row.order.order_id for row in every_order(store, after=after) if row.state not in RELEASED}
        assert set(self._active(store)) == active

    def agree_on_stock(self, store: OrderStore, spy: Spy, granted: int) -> None:
        """Fails where the hooks were told of other units than are granted, or the shop's stock says so."""
        if self._raw(store)._called.stock is None:
            pytest.skip("the hooks have no `stock`")
        told = granted - 10  # that many were told before the spy came
        assert spy.units["phone"] == told
        assert self._stock(store, "phone") == (None if spy.stock is None else spy.stock - told)

    # -- saved ----------------------------------------------------------------------------------------------------

    def test_what_is_saved_is_the_shops(self, store: OrderStore, spy: Spy) -> None:
        """One call with the whole batch; not with what the guard refuses, and a repeated batch calls nothing."""
        batch = [order(n, 2) for n in range(6)]
        assert len(store.save(batch).inserted) == 5
        store.save(batch)
        assert spy.saved in ([["0", "1", "2", "3", "4"]], [])
        self.agree(store)

    def test_only_new_orders_of_a_batch_are_saved(self, store: OrderStore, spy: Spy) -> None:
        """Redelivered orders, and those that were cancelled before their row came, are not."""
        store.save([order("old")])
        store.settle(order("gone"), CANCELLED)
        store.save([order("old"), order("new"), order("gone")])
        assert spy.saved in ([["old"], ["new"]], [])
        self.agree(store)

    def test_a_basket_comes_together(self, store: OrderStore, spy: Spy) -> None:
        """All its orders in one call, with others around them."""
        self._put(store, Goods("case", 5))
        basket = [order("b#1", buyer_id="ann", goods_id="case"), order("b#2", buyer_id="ann")]
        store.save([order("x"), *basket, order("y")])
        assert spy.saved in ([["x", "b#1", "b#2", "y"]], [])
        self.agree(store)

    def test_batches_at_once_are_saved_once(self, store: OrderStore) -> None:
        """Two workers may hold the same orders after a lease ran out."""
        batch = [order(n) for n in range(6)]
        at_once(*(partial(store.save, batch[:: -1 if n % 2 else 1]) for n in range(CALLERS)))
        self.agree(store)

    # -- refusals -------------------------------------------------------------------------------------------------

    def test_who_is_refused_is_rejected_with_a_reason(self, store: OrderStore, refused: Callable[..., Order]) -> None:
        """The others are saved, the units come back, and an event tells why."""
        saved = store.save([order("a"), refused("no", quantity=3), order("b")])
        assert (set(saved.inserted), set(saved.refused)) == ({"a", "b"}, {"no"})
        assert store.states(["a", "b", "no"]) == {"a": PERSISTED, "b": PERSISTED, "no": REJECTED}
        (row,) = (row for row in every_order(store) if row.order.order_id == "no")
        (event,) = every_event(store)
        assert row.reason is not None
        assert (event.order.order_id, event.state, event.reason) == ("no", REJECTED, row.reason)
        self.agree(store)
        assert store.save([refused("no", quantity=3)]).existing == {"no": REJECTED}
        self.agree(store)
        assert len(store.save([order(f"free-{n}") for n in range(12)]).inserted) == 8

    def test_all_of_a_batch_may_be_refused(self, store: OrderStore, refused: Callable[..., Order]) -> None:
        """One after the other, or together."""
        batch = [refused(n) for n in range(3)]
        assert store.save(batch).refused == {"0", "1", "2"}
        self.agree(store)

    # -- settled --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", [CANCELLED, EXPIRED, CONFIRMED])
    def test_the_shop_follows_each_move(self, store: OrderStore, state: OrderState) -> None:
        """One by one, many in one transaction, and a second time, when nothing moves."""
        batch = [order(n) for n in range(4)]
        store.save(batch)
        for _ in range(2):
            store.settle(batch[0], state)
            settle_many(store, batch[1:3], state)
            self.agree(store)

    def test_a_refund_is_followed(self, store: OrderStore) -> None:
        """A paid order that is cancelled after all."""
        store.save([order()])
        store.settle(order(), CONFIRMED)
        store.settle(order(), CANCELLED)
        self.agree(store)

    def test_an_order_that_came_to_nothing_is_none_of_the_shops(self, store: OrderStore) -> None:
        """Cancelled or refused before it had a row: `before` is QUEUED."""
        store.settle(order("gone"), CANCELLED)
        settle_many(store, [order("late"), order("later")], EXPIRED)
        store.settle(order("sold-out"), REJECTED)
        self.agree(store)

    # -- stock ----------------------------------------------------------------------------------------------------

    def test_stock_is_told_of_all_that_is_granted(self, store: OrderStore, spy: Spy) -> None:
        """A raise at once, a lower total when Redis has fewer, a purge, and who is cancelled after it."""
        self.agree_on_stock(store, spy, 10)
        version = store.restock("phone", 5).version
        self.agree_on_stock(store, spy, 15)
        store.grant("phone", 15, version=version)
        store.restock("phone", -7)
        self.agree_on_stock(store, spy, 15)
        store.grant("phone", 8)
        self.agree_on_stock(store, spy, 8)
        self._put(store, Goods("phone", 12))
        self.agree_on_stock(store, spy, 12)
        store.save([order("a", 3), order("b", 2)])
        self._call(self._raw(store).purge())
        self.agree_on_stock(store, spy, 5)
        with pytest.raises(InvalidRequest):
            store.grant("phone", 12)
        store.settle(order("a", 3), CANCELLED)
        self.agree_on_stock(store, spy, 2)
        settle_many(store, [order("b", 2)], EXPIRED)
        self.agree_on_stock(store, spy, 0)

    # -- kills ----------------------------------------------------------------------------------------------------

    def test_killed_anywhere_in_a_save_nothing_is_half_done(self, store: OrderStore, spy: Spy) -> None:
        """Before each statement of the store and each line of the hooks; then the batch comes again."""

        def attempt(place: str) -> None:
            unwanted = self._refusable(order(f"{place}-no"))
            store.save([order(f"{place}-a"), *([unwanted] if unwanted else []), order(f"{place}-b")])

        self._everywhere(store, spy, attempt)

    @pytest.mark.parametrize("state", [CONFIRMED, CANCELLED])
    def test_killed_anywhere_in_a_move_nothing_is_half_done(
        self, store: OrderStore, spy: Spy, state: OrderState
    ) -> None:
        """Of one order, and of many in one transaction; then the call comes again."""

        def attempt(place: str) -> None:
            store.settle(order(f"{place}-a"), state)
            settle_many(store, [order(f"{place}-b"), order(f"{place}-c")], state)

        def prepare(place: str) -> None:
            store.save([order(f"{place}-{letter}") for letter in "abc"])

        self._everywhere(store, spy, attempt, prepare)

    def test_killed_anywhere_in_a_raise_nothing_is_half_done(self, store: OrderStore, spy: Spy) -> None:
        """Total, granted and the shop's stock move together."""
        raises = self._everywhere(store, spy, lambda _: store.restock("phone", 1))
        self.agree_on_stock(store, spy, 10 + raises)

    def _everywhere(
        self,
        store: OrderStore,
        spy: Spy,
        attempt: Callable[[str], object],
        prepare: Callable[[str], object] = lambda _: None,
    ) -> int:
        """Attempts it once for each place where it may be killed, and then again; returns how often it was done.

        The ids of each place's orders begin with its digits, so that those of all places before are not read again.
        """
        for number in range(MOST_PLACES):
            place = f"{number:03}"
            prepare(place)
            spy.left = number
            try:
                attempt(place)
            except Kill:
                self.agree(store, after=place)
                attempt(place)
                self.agree(store, after=place)
            else:
                assert number > 3, "nothing was killed"
                spy.left = None
                self.agree(store)
                return number + 1
            active = [row.order for row in every_order(store, after=place) if row.state not in RELEASED]
            settle_many(store, active, CANCELLED)
        raise AssertionError("no attempt ran through")
