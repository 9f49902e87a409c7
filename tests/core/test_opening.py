"""The moment of opening: one buyer who finds the item open lets the whole process in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import flashsale
from flashsale import Outcome
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from tests.conftest import Backend


@pytest.mark.parametrize("gates", ["one Redis", "a Redis for the gate"])
def test_a_remembered_refusal_ends_with_the_first_buyer_who_gets_in(backend: Backend, gates: str) -> None:
    gate_client = None if gates == "one Redis" else backend.client()
    with (
        flashsale.FlashSale(backend.client(), "sale", gate_client=gate_client, cache_for=0.5) as sale,
        flashsale.FlashSale(backend.client(), "sale") as elsewhere,
    ):
        sale.preload("phone", 100)
        assert sale.buy("phone", "early").outcome is Outcome.NOT_STARTED
        elsewhere.start("phone")
        eventually(lambda: sale.buy("phone", "first").accepted, "the refusal has aged and one buyer asks")
        assert [sale.buy("phone", f"buyer-{number}").outcome for number in range(9)] == [Outcome.ACCEPTED] * 9
