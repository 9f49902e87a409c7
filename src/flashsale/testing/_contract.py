"""Helpers and fixtures that the tests of the `OrderStore` contract share; `flashsale.testing.stores` runs them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pytest

from flashsale._sync.store import OrderStore, bulk_settle
from flashsale.errors import StoreError
from flashsale.model import RELEASED, Event, Goods, Order, OrderState, StoredOrder

T = TypeVar("T")

QUEUED, PERSISTED, CONFIRMED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, EXPIRED, REJECTED = OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED

CALLERS = 8
NOW = 1.7e9 + 0.125  # epoch seconds; stores take the time from their caller
VISIBLE = "".join(map(chr, range(ord("!"), ord("~") + 1)))  # every character that an id may hold


class HostsRules:
    """What the host's tables ask of an order, while a test of theirs runs.

    Args:
        data: that each order has; None: what the test says.
        put_buyer: writes the row of a buyer, and returns its id in the host's tables; None: the same.
    """

    def __init__(self, data: Any, put_buyer: Callable[[str], str | None]) -> None:
        self.data = data
        self._put_buyer = put_buyer
        self._buyers: dict[str, str] = {}
        self._lock = threading.Lock()

    def obey(self, content: dict[str, Any]) -> dict[str, Any]:
        """Returns the content of an order as the host's tables take it, and writes its buyer."""
        name = content["buyer_id"]
        with self._lock:  # a test may make orders in threads
            if name not in self._buyers:
                self._buyers[name] = self._put_buyer(name) or name
        content = {**content, "buyer_id": self._buyers[name]}
        return content if self.data is None else {**content, "data": self.data}


_rules = HostsRules(None, lambda _: None)


def order(order_id: object = "o-1", quantity: int = 1, **other: Any) -> Order:
    """Returns an order of the item `phone`."""
    content: dict[str, Any] = {"goods_id": "phone", "buyer_id": f"buyer-of-{order_id}", **other}
    return Order(str(order_id), quantity=quantity, **_rules.obey(content))


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Returns what the calls return that were made at the same moment, each in a thread.

    Racing transactions may fail with `StoreError`, having done nothing: asked again, as the worker does.
    """
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait()
        for _ in range(20):
            try:
                return call()
            except StoreError:
                continue
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def settle_many(store: OrderStore, orders: Sequence[Order], state: OrderState) -> Mapping[str, OrderState]:
    """Decides orders as the syncer does: together where the store can, else one by one."""
    together = bulk_settle(store)
    if together is not None:
        return together(orders, state)
    return {one.order_id: store.settle(one, state) for one in orders}


def every_order(store: OrderStore, *, after: str | None = None, page: int = 1000) -> list[StoredOrder]:
    """Returns all rows, or those after an order id, read by pages."""
    rows: list[StoredOrder] = []
    while found := store.orders(after=rows[-1].order.order_id if rows else after, limit=page):
        assert len(found) <= page
        rows += found
    return rows


def active_units(store: OrderStore) -> int:
    """Returns the units of the orders that hold some."""
    return sum(row.order.quantity for row in every_order(store) if row.state not in RELEASED)


def moves(events: Sequence[Event]) -> list[tuple[str, OrderState, OrderState]]:
    """Returns order id, where it came from and where it went, of each event."""
    return [(event.order.order_id, event.previous, event.state) for event in events]


def every_event(store: OrderStore) -> list[Event]:
    """Returns all events that wait, delivered one round after the other as the outbox does."""
    events: list[Event] = []
    while found := store.events(now=NOW):
        store.delivered([event.event_id for event in found])
        events += found
    return events


class StoreFixtures:
    """A store, and how a suite brings one; each test has a sale of its own."""

    valid_data: Any = None
    """What your rules ask of an order's `data`, where they ask for something: then every order has it."""

    def _open(self, sale: str) -> OrderStore:
        raise NotImplementedError

    def _put_buyer(self, store: OrderStore, buyer_id: str) -> str | None:
        raise NotImplementedError

    def _put(self, store: OrderStore, goods: Goods) -> None:
        raise NotImplementedError

    def _close(self, store: OrderStore) -> None:
        raise NotImplementedError

    @pytest.fixture
    def open_store(self) -> Iterator[Callable[[str], OrderStore]]:
        """Opens the store of a sale, and closes it after the test."""
        opened: list[OrderStore] = []

        def open_store(sale: str) -> OrderStore:
            opened.append(self._open(sale))
            return opened[-1]

        yield open_store
        for store in opened:
            self._close(store)

    @pytest.fixture
    def sale(self) -> str:
        """A sale that no test had before."""
        return f"suite-{uuid.uuid4().hex}"

    @pytest.fixture
    def store(self, open_store: Callable[[str], OrderStore], sale: str, monkeypatch: pytest.MonkeyPatch) -> OrderStore:
        """A store with ten units of the item `phone`."""
        store = open_store(sale)
        monkeypatch.setattr(f"{__name__}._rules", HostsRules(self.valid_data, partial(self._put_buyer, store)))
        self._put(store, Goods("phone", 10))
        return store

    def free_units(self, store: OrderStore) -> int:
        """Returns how many more units the guard lets pass; uses them up."""
        probes = [order(f"probe-{uuid.uuid4().hex}") for _ in range(30)]
        return len(store.save(probes).inserted)
