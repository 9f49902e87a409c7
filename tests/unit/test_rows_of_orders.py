"""An order of a row is made by a short cut: its body is the JSON of the long way, and bad values are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale import InvalidRequest, Order

ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)


@given(ids, ids, st.integers(1, 1_000_000), st.floats(0, 1e11) | st.integers(0, 10**11))
def test_the_body_is_the_json_of_the_order(order_id: str, buyer_id: str, quantity: int, created_at: float) -> None:
    order = Order(order_id, "phone", buyer_id, quantity, created_at=created_at)
    wire = {"created_at": created_at, "order_id": order_id, "goods_id": "phone", "buyer_id": buyer_id}
    assert order.to_json() == json.dumps(wire | {"quantity": quantity}, separators=(",", ":"))
    assert Order.from_json(order.to_json().encode()) == order


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
