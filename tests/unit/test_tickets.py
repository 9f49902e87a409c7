"""Admission tickets: nobody can make, change or stretch one; whoever holds one may place that order, and no other."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale import InvalidRequest, InvalidTicket, Ticket, Tickets

OLD, NEW = b"o" * 32, b"n" * 32
PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F))
names = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=64)
ids = st.text(PRINTABLE, min_size=1, max_size=128)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(clock: Clock) -> Tickets:
    return Tickets({"a": OLD}, lifetime=60, clock=clock)


@given(names, st.integers(0, 10**6), names, ids, ids, st.integers(1, 1_000_000))
def test_a_ticket_says_what_was_written(
    sale: str, epoch: int, goods_id: str, buyer_id: str, order_id: str, quantity: int
) -> None:
    tickets = Tickets({"a": OLD}, lifetime=60, clock=lambda: 1000.0)
    ticket = tickets.issue(sale, epoch, goods_id, buyer_id, order_id, quantity)
    assert tickets.read(ticket) == Ticket(sale, epoch, goods_id, buyer_id, order_id, quantity, 1060)
    assert set(ticket) <= set(PRINTABLE)
    assert len(ticket) < 1024


def test_a_ticket_expires(tickets: Tickets, clock: Clock) -> None:
    ticket = tickets.issue("nov11", 1, "phone", "alice", "o-1", 1)
    clock.now = 1059.9
    assert tickets.read(ticket).order_id == "o-1"
    clock.now = 1060
    with pytest.raises(InvalidTicket, match="expired"):
        tickets.read(ticket)


def test_a_ticket_is_good_for_its_whole_lifetime(clock: Clock) -> None:
    tickets = Tickets({"a": OLD}, lifetime=1.0, clock=clock)
    clock.now = 1000.9
    ticket = tickets.issue("nov11", 1, "phone", "alice", "o-1", 1)
    clock.now = 1001.8
    assert tickets.read(ticket).order_id == "o-1"


def test_no_character_of_a_ticket_can_be_changed(tickets: Tickets) -> None:
    ticket = tickets.issue("nov11", 1, "phone", "alice", "o-1", 1)
    for place, character in enumerate(ticket):
        for other in set(string.ascii_letters + string.digits + "-_.") - {character}:
            with pytest.raises(InvalidTicket):
                tickets.read(ticket[:place] + other + ticket[place + 1 :])


@given(st.text() | st.binary() | st.none() | st.integers())
def test_what_is_no_ticket_is_refused(thing: object) -> None:
    with pytest.raises(InvalidTicket):
        Tickets({"a": OLD}).read(thing)


def test_a_secret_is_changed_without_a_gap(clock: Clock) -> None:
    before, during, after = (
        Tickets(secrets, clock=clock) for secrets in ({"a": OLD}, {"b": NEW, "a": OLD}, {"b": NEW})
    )
    old = before.issue("nov11", 1, "phone", "alice", "o-1", 1)
    new = during.issue("nov11", 1, "phone", "alice", "o-1", 1)
    assert during.read(old) == during.read(new) == after.read(new)
    for tickets, ticket in ((after, old), (before, new)):
        with pytest.raises(InvalidTicket, match="not in use"):
            tickets.read(ticket)


def test_a_key_id_does_not_choose_another_secret(clock: Clock) -> None:
    forger = Tickets({"a": NEW}, clock=clock)
    with pytest.raises(InvalidTicket, match="not signed by us"):
        Tickets({"a": OLD, "b": NEW}, clock=clock).read(forger.issue("nov11", 1, "phone", "alice", "o-1", 1))


@pytest.mark.parametrize("secrets", [{}, {"a": b"short"}, {"a b": OLD}, {"": OLD}, {"a": "text" * 8}])
def test_weak_secrets_are_refused(secrets: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest):
        Tickets(secrets)


def test_the_secret_is_not_shown(tickets: Tickets) -> None:
    assert repr(tickets) == "Tickets(a)"
