"""Hypothesis strategies for all that a sale takes and returns; they include the extremes that it accepts."""

from __future__ import annotations

import string
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from flashsale.model import Goods, Order, OrderState, Outcome, Receipt
from flashsale.model.checks import MAX_QUANTITY, MAX_UNITS

_NAME: Final = string.ascii_letters + string.digits + "_.-"
_VISIBLE: Final = "".join(map(chr, range(ord("!"), ord("~") + 1)))
_MADE: Final = [OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED, OrderState.CANCELLED, OrderState.EXPIRED]


def sales() -> SearchStrategy[str]:
    """Names of sales."""
    return st.text(_NAME, min_size=1, max_size=64)


def goods_ids() -> SearchStrategy[str]:
    """Ids of items."""
    return st.text(_NAME, min_size=1, max_size=64)


def ids() -> SearchStrategy[str]:
    """Ids of buyers and orders, quotes, braces and backslashes among them."""
    return st.text(_VISIBLE, min_size=1, max_size=128)


def quantities(most: int = MAX_QUANTITY) -> SearchStrategy[int]:
    """Units of one order, small ones first."""
    return st.integers(1, most)


def data() -> SearchStrategy[Any]:
    """JSON values that may go with an order."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


def orders(
    *,
    order_id: SearchStrategy[str] | None = None,
    goods_id: SearchStrategy[str] | None = None,
    buyer_id: SearchStrategy[str] | None = None,
    quantity: SearchStrategy[int] | None = None,
) -> SearchStrategy[Order]:
    """Orders; give a strategy for what your test holds still, such as `st.just("phone")`."""
    return st.builds(
        Order, order_id or ids(), goods_id or goods_ids(), buyer_id or ids(), quantity or quantities(), data=data()
    )


@st.composite
def goods(
    draw: st.DrawFn, *, goods_id: SearchStrategy[str] | None = None, total: SearchStrategy[int] | None = None
) -> Goods:
    """Goods of any policy: cap, window (epoch seconds, about this century) and hold, or none of them."""
    times = st.floats(1e9, 4e9, allow_nan=False)
    opens_at, closes_at = draw(st.none() | times), draw(st.none() | times)
    if opens_at is not None and closes_at is not None and closes_at <= opens_at:
        closes_at = None
    return Goods(
        draw(goods_id or goods_ids()),
        draw(total or st.integers(0, MAX_UNITS)),
        per_buyer=draw(st.none() | st.integers(1, 100)),
        opens_at=opens_at,
        closes_at=closes_at,
        hold=draw(st.none() | st.floats(0.001, 1e6)),
    )


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    """Every answer of `buy`: what a page must have words for."""
    outcome = draw(st.sampled_from([each for each in Outcome if each is not Outcome.ADMITTED]))
    booked = outcome in {Outcome.ACCEPTED, Outcome.UNCERTAIN}
    replayed = booked and draw(st.booleans())
    state = draw(st.sampled_from(_MADE)) if replayed else OrderState.QUEUED if booked else None
    remaining = draw(st.integers(0, MAX_UNITS))
    return Receipt(outcome, draw(ids()), draw(goods_ids()), draw(quantities()), remaining, replayed, state)
