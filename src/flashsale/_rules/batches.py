"""Cuts a long series into batches that one call can carry, and orders so that no basket is cut. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from flashsale.model import Order
from flashsale.model.orders import basket_of

Item = TypeVar("Item")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields the elements in their order, `size` at a time.

    >>> list(batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def whole_baskets(order_ids: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yields ids of orders, at least `size` at a time but for the last ones; those of a basket come together.

    >>> list(whole_baskets([b"a", b"b#1", b"b#10", b"b#1x", b"b#2"], 2))
    [[b'a', b'b#1', b'b#10', b'b#2'], [b'b#1x']]
    """
    batch: list[bytes] = []
    for group in bought_together(order_ids, lambda order_id: basket_of(order_id.decode("ascii", "replace"))):
        batch += group
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def bought_together(items: Iterable[Item], basket: Callable[[Item], str | None]) -> list[list[Item]]:
    """Returns the elements in groups, each the orders of a basket, or one order that was bought by itself."""
    groups: dict[str | int, list[Item]] = {}
    for number, item in enumerate(items):
        groups.setdefault(basket(item) or number, []).append(item)
    return list(groups.values())


def halves(orders: Sequence[Order]) -> tuple[list[Order], list[Order]]:
    """Returns two parts of about one size, each basket whole in one of them; one is empty when there is one basket.

    >>> alone, basket = Order("o-1", "phone", "ann", 1), [Order(f"b#{n}", "phone", "bob", 1) for n in (1, 2)]
    >>> [[order.order_id for order in half] for half in halves([alone, *basket])]
    [['o-1'], ['b#1', 'b#2']]
    """
    groups = bought_together(orders, lambda order: order.basket_id)
    first: list[Order] = []
    while groups and (not first or len(first) + len(groups[0]) <= len(orders) // 2):
        first += groups.pop(0)
    return first, [order for group in groups for order in group]
