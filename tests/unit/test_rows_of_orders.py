"""Orders and claims are made by short cuts: they are what the long way makes, and bad values are refused."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale import InvalidRequest, Order
from flashsale._rules.tokens import held
from flashsale.model import Claim, order_of
from flashsale.model.orders import claims_of

ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)


@given(ids, ids, st.integers(1, 1_000_000), st.floats(0, 1e11) | st.integers(0, 10**11))
def test_the_body_is_the_json_of_the_order(order_id: str, buyer_id: str, quantity: int, created_at: float) -> None:
    order = Order(order_id, "phone", buyer_id, quantity, created_at=created_at)
    wire = {"created_at": created_at, "order_id": order_id, "goods_id": "phone", "buyer_id": buyer_id}
    assert order.to_json() == json.dumps(wire | {"quantity": quantity}, separators=(",", ":"))
    read = Order.from_json(order.to_json().encode())
    assert (type(read), read, read.to_json()) == (Order, order, order.to_json())


@pytest.mark.parametrize("created_at", [float("nan"), float("inf"), -0.1, 1e12, "1", True])
def test_a_bad_time_is_refused(created_at: object) -> None:
    with pytest.raises(InvalidRequest, match="created_at"):
        Order("o-1", "phone", "ann", 1, created_at=created_at)


@pytest.mark.parametrize("quantity", [0, 1_000_001, True, 1.0])
def test_a_bad_quantity_is_refused_beside_a_time(quantity: object) -> None:
    with pytest.raises(InvalidRequest, match="quantity"):
        Order("o-1", "phone", "ann", quantity, created_at=1.0)


@pytest.mark.parametrize("order_id", ["", "with blank", "é", "x" * 129, 7])
def test_a_bad_id_is_refused_beside_a_time(order_id: object) -> None:
    with pytest.raises(InvalidRequest, match="order_id"):
        Order(order_id, "phone", "ann", 1, created_at=1.0)


@given(
    st.tuples(
        ids | st.text() | st.integers(),
        ids | st.text(),
        ids | st.none(),
        st.integers() | st.booleans() | st.floats(),
        st.none() | st.integers() | st.text(),
    )
)
def test_an_order_of_a_purchase_is_the_order(words: tuple[object, ...]) -> None:
    """Equal words make equal orders, or the same error."""
    *plain, data = words
    try:
        order = Order(*plain, data=data)
    except InvalidRequest as error:
        with pytest.raises(InvalidRequest) as raised:
            order_of(*plain, data)
        assert str(raised.value) == str(error)
    else:
        made = order_of(*plain, data)
        assert type(made) is Order
        assert [getattr(made, each.name) for each in fields(Order)] == [*plain, None, data, order._body]


def test_an_order_of_a_purchase_is_frozen_and_can_be_copied() -> None:
    whole = Order("o-1", "phone", "ann", 2, created_at=7.25)
    for order, same in (
        (order_of("o-1", "phone", "ann", 2), Order("o-1", "phone", "ann", 2)),
        (Order.from_json(whole.to_json().encode()), whole),
    ):
        with pytest.raises(FrozenInstanceError):
            order.quantity = 3
        assert pickle.loads(pickle.dumps(order)) == copy.copy(order) == order == same
        assert replace(order, quantity=3) == replace(same, quantity=3)
        assert (hash(order), repr(order)) == (hash(same), repr(same))


def test_claims_of_columns_are_claims() -> None:
    order = Order("o-1", "phone", "ann", 2)
    (claim, unreadable) = claims_of([order, None], [b"body", b"?"], [1, 2], ["1-1-1+2", "2-2-1+2"])
    assert (claim, unreadable) == (Claim(order, b"body", 1, "1-1-1+2"), Claim(None, b"?", 2, "2-2-1+2"))
    assert (hash(claim), repr(claim)) == (hash(copy.copy(claim)), repr(Claim(order, b"body", 1, "1-1-1+2")))
    assert replace(claim, reason="why").reason == "why"
    with pytest.raises(FrozenInstanceError):
        claim.attempts = 3


@given(st.lists(st.sampled_from([f"{n}-{n}-1+3" for n in (1, 2, 3)] + ["4-4-14+1", "5-5-5+2", "7-9", "8-9"])))
def test_tokens_are_sorted_by_claim(tokens: list[str]) -> None:
    there = set(tokens)
    claims = {"1+3": {"1-1-1+3", "2-2-1+3", "3-3-1+3"}, "14+1": {"4-4-14+1"}, "5+2": {"5-5-5+2", "6-6-5+2"}}
    whole = {name for name, elements in claims.items() if elements <= there}
    parts = {name for name, elements in claims.items() if elements & there} - whole
    sorted_ = held(tokens)
    assert (set(sorted_.whole), set(sorted_.parts)) == (whole, parts)
    assert set(sorted_.elements) == there.difference(*(claims[name] for name in whole))
    assert len(sorted_.elements) == len(set(sorted_.elements))
