"""What goes over HTTP: each outcome and error has its status, bodies are RFC 9457, no cache outlives the opening."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flashsale
from flashsale import (
    Admission,
    FlashSaleError,
    GateState,
    InvalidRequest,
    NotExecuted,
    OrderState,
    Outcome,
    Receipt,
    UnknownGoods,
)
from flashsale.web import Reply, admit, answer, fragment, not_modified, order_status, page_headers, refuse, status_code

ERRORS = {
    "InvalidTicket": 403,
    "InvalidRequest": 400,
    "UnknownGoods": 404,
    "UnknownSale": 404,
    "AlreadyLoaded": 500,
    "CorruptState": 503,
    "OrderConflict": 409,
    "NotPersisted": 409,
    "NotExecuted": 503,
    "OutcomeUnknown": 503,
    "Overloaded": 503,
    "PartitionMismatch": 503,
    "UnknownLayout": 503,
    "NotSettled": 500,
    "UnsafeServer": 500,
    "StoreRequired": 500,
    "StoreError": 503,
    "RowRefused": 503,
    "FlashSaleError": 500,
}
OUTCOMES = {
    Outcome.ACCEPTED: 202,
    Outcome.UNCERTAIN: 202,
    Outcome.ADMITTED: 200,
    Outcome.NOT_STARTED: 403,
    Outcome.SOLD_OUT: 409,
    Outcome.REJECTED: 409,
    Outcome.ENDED: 410,
    Outcome.LIMIT_REACHED: 429,
    Outcome.PAUSED: 503,
}


def receipt(outcome: Outcome, state: OrderState | None = None) -> Receipt:
    return Receipt(outcome, "o-1", "phone", 2, 7, replayed=False, state=state)


def body(reply: Reply) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(reply.body)
    return decoded


def test_every_outcome_has_its_status() -> None:
    assert {outcome: status_code(outcome) for outcome in Outcome} == OUTCOMES


def test_every_error_has_its_status() -> None:
    exported = {
        name: error
        for name, error in vars(flashsale).items()
        if isinstance(error, type) and issubclass(error, FlashSaleError)
    }
    assert {name: status_code(error.__new__(error)) for name, error in exported.items()} == ERRORS


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.UNCERTAIN])
def test_a_booked_order_is_202_and_says_where_to_look(outcome: Outcome) -> None:
    reply = answer(receipt(outcome, OrderState.QUEUED), location="/orders/o-1")
    assert reply.status == 202
    assert reply.headers == {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "Location": "/orders/o-1",
    }
    assert body(reply) == {
        "outcome": outcome,
        "order_id": "o-1",
        "goods_id": "phone",
        "quantity": 2,
        "state": "QUEUED",
        "replayed": False,
    }


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.ACCEPTED, Outcome.UNCERTAIN, Outcome.ADMITTED}))
def test_a_refusal_is_a_problem_that_nobody_keeps(outcome: Outcome) -> None:
    reply = answer(receipt(outcome), location="/orders/o-1", problems="https://shop.example/problems/")
    said = body(reply)
    assert reply.status == said["status"] == OUTCOMES[outcome]
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["Cache-Control"] == "no-store"
    assert "Location" not in reply.headers
    assert said["type"] == "https://shop.example/problems/" + outcome.lower().replace("_", "-")
    assert said["title"]
    assert said["remaining"] == 7


def test_who_is_admitted_gets_the_ticket_that_nobody_keeps() -> None:
    reply = admit(Admission(Outcome.ADMITTED, 7, "o-1", "1.key.words.signature"))
    assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
    assert body(reply) == {"outcome": "ADMITTED", "order_id": "o-1", "ticket": "1.key.words.signature"}


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.ACCEPTED, Outcome.UNCERTAIN, Outcome.ADMITTED}))
def test_who_is_not_admitted_is_told_as_a_buyer_is(outcome: Outcome) -> None:
    assert admit(Admission(outcome, 7), opens_in=9) == answer(receipt(outcome), location="", opens_in=9)


@pytest.mark.parametrize(("opens_in", "seconds"), [(0.2, "1"), (59.01, "60"), (-3.0, "1")])
def test_retry_after_counts_to_the_opening(opens_in: float, seconds: str) -> None:
    reply = answer(receipt(Outcome.NOT_STARTED), location="", opens_in=opens_in)
    assert reply.headers["Retry-After"] == seconds


def test_only_what_passes_by_itself_asks_to_retry() -> None:
    answers = {each: answer(receipt(each), location="", opens_in=5) for each in set(Outcome) - {Outcome.ADMITTED}}
    hopeful = {outcome for outcome, reply in answers.items() if "Retry-After" in reply.headers}
    assert hopeful == {Outcome.NOT_STARTED, Outcome.PAUSED}


def test_an_error_names_the_field_and_the_order_and_nothing_else() -> None:
    reply = refuse(InvalidRequest("quantity", "must be an int in 1..1000000"))
    assert body(reply)["field"] == "quantity"
    assert body(reply)["detail"] == "quantity: must be an int in 1..1000000"
    reply = refuse(NotExecuted("secret host:6379", order_id="o-9"))
    assert body(reply)["order_id"] == "o-9"
    assert reply.headers["Retry-After"] == "1"
    assert b"secret" not in reply.body
    assert b"nov11" not in refuse(UnknownGoods("unknown goods", sale="nov11", goods_id="phone")).body


def test_an_order_that_nobody_knows_is_404() -> None:
    assert order_status("o-1", None).status == 404
    assert body(order_status("o-1", OrderState.PERSISTED)) == {"order_id": "o-1", "state": "PERSISTED"}


def test_the_fragment_is_small_and_shared() -> None:
    state = GateState(5, True, 5, 0, outcome=Outcome.SOLD_OUT, now=1000.25, closes_at=2000.0, may_return=True)
    reply = fragment(state)
    assert reply.headers["Cache-Control"] == "public, max-age=0, s-maxage=1"
    assert body(reply) == {
        "state": "SOLD_OUT",
        "remaining": 0,
        "may_return": True,
        "now": 1000.25,
        "opens_at": None,
        "closes_at": 2000.0,
    }
    assert len(reply.body) < 200


times = st.none() | st.floats(0, 10_000)
ages = st.integers(0, 1000)


@given(now=st.floats(0, 10_000), opens_at=times, closes_at=times, max_age=ages, s_maxage=ages, stale=ages)
def test_no_cache_outlives_the_opening_or_the_closing(
    now: float, opens_at: float | None, closes_at: float | None, max_age: int, s_maxage: int, stale: int
) -> None:
    headers = page_headers(
        b"page",
        now=now,
        opens_at=opens_at,
        closes_at=closes_at,
        max_age=max_age,
        s_maxage=s_maxage,
        stale_while_revalidate=stale,
    )
    words = dict(word.split("=") for word in headers["Cache-Control"].split(", ")[1:])
    kept = {name: int(seconds) for name, seconds in words.items()}
    assert kept["max-age"] <= max_age
    assert kept["s-maxage"] <= s_maxage
    assert kept["stale-while-revalidate"] <= stale
    until = now + max(kept["max-age"], kept["s-maxage"]) + kept["stale-while-revalidate"]
    for at in (opens_at, closes_at):
        assert at is None or at <= now or until <= at
    if all(at is None or at <= now for at in (opens_at, closes_at)):
        assert list(kept.values()) == [max_age, s_maxage, stale]


def test_the_etag_tells_pages_apart() -> None:
    one, other = page_headers(b"one", now=0), page_headers(b"other", now=0)
    assert one["ETag"] != other["ETag"]
    assert not_modified(one["ETag"], one)
    assert not_modified(f'"x", W/{one["ETag"]}', one)
    assert not_modified("*", one)
    assert not not_modified(other["ETag"], one)
    assert not not_modified(None, one)
