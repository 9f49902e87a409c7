"""The commands for single orders and for dead letters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from flashsale import Goods, Order, OrderState
from flashsale._rules.activity import Activity, delivery, holder, instance
from flashsale.model.snapshot import Process
from tests.support.operator import MOMENT

if TYPE_CHECKING:
    from tests.support.operator import Operator

WHY = ("--reason", "why")


def states(operator: Operator) -> dict[str, OrderState]:
    return {row.order.order_id: row.state for row in operator.store.orders()}


# -- show -----------------------------------------------------------------------------------------------------------


def test_an_order_that_waits_says_how_many_are_before_it(operator: Operator) -> None:
    operator.begin()
    for number in range(3):
        operator.buy(f"o-{number}", f"buyer-{number}")
    told = operator("orders", "show", "o-2")
    assert told.code == 0
    assert "o-2  phone 1  QUEUED  buyer buyer-2" in told.out
    assert "on the list, 2 before it" in told.out
    assert operator("orders", "show", "o-0", "--json").json["ahead"] == 0


def test_an_order_that_is_claimed_says_when_its_lease_ends(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    claims = operator.sale.queue.claim(1, lease=30.0)
    assert (
        "claimed by a worker that has not told of it yet; try 1, its lease ends in "
        in operator("orders", "show", "o-1").out
    )
    activity = Activity("worker")
    activity.hold(claims)
    operator.sale._recorder._flush(activity)
    told = operator("orders", "find", "--buyer", "ann")
    assert f"claimed by worker {instance()} holds 1; try 1, its lease ends in " in told.out
    assert operator("orders", "show", "o-1", "--json").json["worker"] == instance()


def test_the_worker_that_tries_a_batch_again_is_named(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    activity, first = Activity("worker"), operator.sale.queue.claim(1, lease=30.0)
    activity.hold(first)
    operator.sale._recorder._flush(activity)
    operator.sale.queue.nack(first, delay=60, count_attempt=False)
    assert "given back, for the next worker to come; try 0, its lease ends in " in operator("orders", "show", "o-1").out
    operator.raw.zadd(operator.sale.keys.leases, {str(delivery(first[0])): 1})
    again = operator.sale.queue.claim(1, lease=30.0)
    assert again[0].lease != first[0].lease
    assert operator("orders", "show", "o-1", "--json").json["worker"] == instance()


def test_a_silent_worker_may_hold_what_nobody_has_told_of(operator: Operator) -> None:
    """It was frozen after it claimed, and before it told."""
    operator.begin()
    operator.buy("o-1")
    operator.sale._recorder._flush(Activity("worker"))
    name, keys = f"worker {instance()}", operator.sale.keys
    beat, rest = operator.raw.hget(keys.processes, name).decode().split("|", 1)
    operator.sale.queue.claim(1, lease=30.0)
    assert "perhaps" not in operator("orders", "show", "o-1").out
    operator.raw.hset(keys.processes, name, f"{float(beat) - 20}|{rest}")
    assert f"perhaps worker {instance()} silent since " in operator("orders", "show", "o-1").out
    assert operator("orders", "show", "o-1", "--json").json["silent"] == [instance()]


def test_claimed_orders_are_listed_with_their_workers(operator: Operator) -> None:
    operator.begin()
    assert operator("orders", "claimed").out == "no claimed orders\n"
    for number in range(4):
        operator.buy(f"o-{number}")
    activity, keys = Activity("worker"), operator.sale.keys
    activity.hold(operator.sale.queue.claim(1, lease=30.0))
    operator.sale._recorder._flush(activity)
    operator.sale.queue.claim(1, lease=60.0)
    operator.sale.queue.nack(operator.sale.queue.claim(1, lease=30.0), delay=90, count_attempt=False)
    told = operator("orders", "claimed")
    head, *rows = told.out.splitlines()
    assert (told.code, head.split()) == (0, ["order", "goods", "accepted", "lease", "ends", "worker"])
    assert [row.split()[0] for row in rows] == ["o-0", "o-1", "o-2"]
    assert [re.split(r"  +", row)[-1] for row in rows] == [instance(), "none has told", "given back"]
    name = f"worker {instance()}"
    beat, rest = operator.raw.hget(keys.processes, name).decode().split("|", 1)
    operator.raw.hset(keys.processes, name, f"{float(beat) - 20}|{rest}")
    told = operator("orders", "claimed")
    assert f"{instance()}, silent\n" in told.out
    assert told.out.endswith(f"of which none has told, perhaps: {instance()}, silent\n")
    (first, second, _) = operator("orders", "claimed", "--json").json["claimed"]
    assert (first["order_id"], first["worker"], second["worker"]) == ("o-0", instance(), None)
    assert first["accepted"] < first["lease_ends"] < second["lease_ends"]


def test_of_two_workers_that_told_of_an_order_the_last_one_is_named(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    (claim,) = operator.sale.queue.claim(1, lease=30.0)
    spans = ((delivery(claim), delivery(claim)),)
    processes = [Process("worker", name, "1", beat, deliveries=spans) for name, beat in (("a", 1), ("b", 3), ("c", 2))]
    found = holder(processes, claim)
    assert found is not None
    assert found.instance == "b"


def test_a_buyers_orders_are_found_wherever_they_are(operator: Operator) -> None:
    operator.begin()
    for number in range(4):
        operator.buy(f"o-{number}")
        if number == 0:
            operator.worker.run_once()
    operator.buy("o-9", "bob")
    operator.sale.queue.claim(1, lease=30.0)
    operator.bury("o-2")
    found = {
        each["order"]["order_id"]: each
        for each in operator("orders", "find", "--buyer", "ann", "--json").json["orders"]
    }
    assert set(found) == {"o-0", "o-1", "o-2", "o-3"}
    assert (found["o-0"]["database"], found["o-0"]["persisted_at"] > 0) == ("PERSISTED", True)
    assert (found["o-1"]["attempts"], found["o-1"]["worker"]) == (1, None)
    assert (found["o-2"]["dead"], found["o-2"]["ledger"]) == (True, "DEAD")
    assert operator("orders", "find", "--buyer", "cleo").out == "buyer cleo has no order that a server knows\n"


def test_an_unpaid_order_says_until_when_it_is_to_be_paid(operator: Operator) -> None:
    operator.begin(Goods("phone", 5, hold=900.0))
    operator.sale.start("phone")
    operator.buy("o-1")
    operator.worker.run_once()
    told = operator("orders", "show", "o-1")
    assert "ledger PERSISTED, database PERSISTED" in told.out
    assert "to be paid until " in told.out
    assert "accepted " in told.out
    assert told.out.count("by Redis's clock") == 1


def test_a_dead_order_says_why(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.sale.queue._explain("o-1", "the database refused a row: IntegrityError")
    operator.bury("o-1")
    assert "why: the database refused a row: IntegrityError" in operator("orders", "show", "o-1").out


def test_an_order_that_nobody_knows_is_no_order(operator: Operator) -> None:
    operator.begin()
    told = operator("orders", "show", "o-9")
    assert (told.code, "no server knows order 'o-9'" in told.err) == (2, True)


def test_an_order_is_shown_while_the_database_is_away(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    where = ["--redis", operator.redis_url, "--sale", "spring", "--database", "postgresql://127.0.0.1:1/none"]
    told = operator("orders", "show", "o-1", *where, where=False)
    assert (told.code, "QUEUED" in told.out, "the database does not say" in told.err) == (0, True, True)


# -- cancel and confirm ---------------------------------------------------------------------------------------------


def test_orders_are_cancelled_and_their_units_return(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1", quantity=3)
    operator.worker.run_once()
    operator.buy("o-2")
    assert operator("orders", "cancel", "o-1", "o-2", *WHY).code == 4
    assert operator.sale.inventory.stock("phone").booked == 4
    told = operator("orders", "cancel", "o-1", "o-2", *WHY, "--yes")
    assert told.code == 0
    assert "o-1  PERSISTED -> CANCELLED" in told.out
    assert "o-2  QUEUED -> CANCELLED" in told.out
    assert states(operator) == {"o-1": "CANCELLED", "o-2": "CANCELLED"}
    assert operator.sale.inventory.stock("phone").booked == 0
    assert told.trail[0]["after"] == {"o-1": "CANCELLED", "o-2": "CANCELLED"}


def test_a_paid_order_that_is_cancelled_says_that_money_goes_back(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    operator.sale.confirm("o-1")
    told = operator("orders", "cancel", "o-1", "--dry-run")
    assert "o-1  CONFIRMED -> CANCELLED; it was paid: money goes back" in told.out
    assert states(operator) == {"o-1": "CONFIRMED"}


def test_one_order_that_is_unknown_stops_no_other(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    told = operator("orders", "cancel", "o-9", "o-1", *WHY, "--yes")
    assert told.code == 1
    assert "o-9 is unknown" in told.out
    assert operator.sale.status("o-1") is OrderState.CANCELLED
    assert operator("orders", "cancel", "o-8", "o-9", *WHY, "--yes").code == 2


def test_what_is_final_stays(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.sale.cancel("o-1")
    told = operator("orders", "confirm", "o-1")
    assert (told.code, "o-1 is CANCELLED: that was final before" in told.out) == (1, True)


def test_orders_are_confirmed(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    told = operator("orders", "confirm", "o-1")
    assert (told.code, "do workers run?" in told.out) == (1, True)
    operator.worker.run_once()
    assert operator("orders", "confirm", "o-1").code == 0
    assert operator.sale.status("o-1") is OrderState.CONFIRMED


def test_an_order_that_is_not_as_expected_is_left_alone(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.buy("o-2", "bob")
    operator.worker.run_once()
    operator.sale.confirm("o-2")
    told = operator("orders", "cancel", "o-1", "o-2", "--expect", "state=PERSISTED", "--dry-run")
    assert "o-1  PERSISTED -> CANCELLED" in told.out
    assert "o-2  state is CONFIRMED, not PERSISTED" in told.out
    told = operator("orders", "cancel", "o-1", "o-2", *WHY, "--yes", "--expect", "state=PERSISTED")
    assert told.code == 1
    assert "o-2: state is CONFIRMED, not PERSISTED: nothing was changed" in told.out
    assert states(operator) == {"o-1": "CANCELLED", "o-2": "CONFIRMED"}
    assert operator.sale.status("o-1") is OrderState.CANCELLED  # Redis has followed the commit
    operator.buy("o-3")  # it has no row yet
    assert operator("orders", "cancel", "o-3", *WHY, "--yes", "--expect", "buyer_id=bob").code == 1
    assert operator("orders", "cancel", "o-3", *WHY, "--yes", "--expect", "buyer_id=ann").code == 0


def test_who_pays_in_between_is_not_cancelled(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the lock: the comparison and the move are one transaction."""
    from flashsale.ops import orders

    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    locked = orders.locked

    def slow(*given: object, **named: str):
        operator.sale.confirm("o-1")
        return locked(*given, **named)

    monkeypatch.setattr(orders, "locked", slow)
    assert operator("orders", "cancel", "o-1", *WHY, "--yes", "--expect", "state=PERSISTED").code == 1
    assert states(operator) == {"o-1": "CONFIRMED"}


# -- dead letters ---------------------------------------------------------------------------------------------------


def three_dead(operator: Operator) -> None:
    """Two orders and an element that is none."""
    operator.begin()
    for name in ("o-1", "o-2"):
        operator.buy(name, quantity=2)
    operator.raw.lpush(operator.sale.keys.order_list, "no order")
    claims = operator.sale.queue.claim(10)
    operator.sale.queue._explain("o-1", "RowRefused")
    operator.sale.queue._bury(claims)


def test_dead_letters_are_listed_with_why_each_was_refused(operator: Operator) -> None:
    operator.begin()
    assert operator("dead", "list").out == "no dead letters\n"
    operator.close()
    three_dead(operator)
    told = operator("dead", "list")
    assert told.code == 1
    head, first, second, third = [re.split(r"  +", line) for line in told.out.splitlines()[:4]]
    assert head == ["letter", "goods", "units", "buyer", "accepted", "attempts", "why"]
    assert first[:4] == ["o-1", "phone", "2", "ann"]
    assert re.fullmatch(rf"{MOMENT} \(\d+ s ago\)", first[4])
    assert first[5:] == ["1", "RowRefused"]
    assert second[5:] == ["1", "its workers died or were too slow"]
    assert third == ["#3", "1", "it is no order"]
    (letter, *_) = operator("dead", "list", "--json").json["dead"]
    assert (letter["buyer"], letter["accepted"] > 0) == ("ann", True)
    assert "they keep 4 units of phone" in told.out
    assert [each["letter"] for each in operator("dead", "list", "--json").json["dead"]] == ["o-1", "o-2", "#3"]


def test_a_dead_letter_is_shown(operator: Operator) -> None:
    three_dead(operator)
    told = operator("dead", "show", "o-1")
    assert told.code == 0
    assert "why: RowRefused" in told.out
    assert '"order_id":"o-1"' in told.out
    assert "no order" in operator("dead", "show", "#3").out
    assert operator("dead", "show", "o-3").code == 2


def dead_event(operator: Operator) -> int:
    """Lets the outbox give up an event of a paid order."""
    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    operator.sale.confirm("o-1")
    (event,) = operator.store.events(now=1e12)
    operator.store.postpone(event.event_id, None)
    return event.event_id


def test_dead_events_are_listed(operator: Operator) -> None:
    number = dead_event(operator)
    told = operator("events", "list")
    assert told.code == 1
    assert told.out.splitlines()[1].split() == [str(number), "o-1", "PERSISTED", "CONFIRMED", "1"]
    assert [each["event"] for each in operator("events", "list", "--json").json["dead"]] == [number]
    assert "there may be more than 1: --limit" in operator("events", "list", "--limit", "1").out


def test_dead_events_are_made_due_again(operator: Operator) -> None:
    number = dead_event(operator)
    assert operator("events", "requeue", "--dry-run").code == 0
    assert operator.store.events(now=1e12) == []
    told = operator("events", "requeue", "--reason", "the mail server is back", "--yes")
    assert (told.code, f"event {number}, order o-1 CONFIRMED  dead -> due" in told.out) == (0, True)
    assert [event.event_id for event in operator.store.events(now=1e12)] == [number]
    (entry,) = told.trail
    assert (entry["command"], entry["after"], entry["reason"]) == (
        "events requeue",
        {str(number): "due"},
        "the mail server is back",
    )
    assert operator("events", "list").out == operator("events", "requeue").out == "no dead events\n"


def test_a_store_without_dead_events_says_so(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    monkeypatch.setattr("flashsale.stores.SQLAlchemyStore.dead_events", property())
    told = operator("events", "list")
    assert (told.code, "has no dead_events" in told.err) == (2, True)


def test_chosen_dead_letters_are_queued_again(operator: Operator) -> None:
    three_dead(operator)
    told = operator("dead", "requeue", "o-1")
    assert told.code == 0
    assert "o-1  dead -> queued; why it was dead: RowRefused" in told.out
    assert list(operator.sale.queue._dead_letters()) == ["o-2", " 3"]
    assert operator.sale.status("o-1") is OrderState.QUEUED
    operator.worker.run_once()
    assert states(operator) == {"o-1": "PERSISTED"}


def test_all_dead_letters_are_queued_again(operator: Operator) -> None:
    three_dead(operator)
    assert operator("dead", "requeue").code == 2
    told = operator("dead", "requeue", "--all", "--dry-run")
    assert (told.code, "while the cause stands, they die again" in told.out) == (0, True)
    assert operator.sale.queue.size() == 0
    assert operator("dead", "requeue", "--all", "--json").json["requeued"] == 3
    assert operator.sale.queue.size() == 3
    assert operator("dead", "requeue", "--all").out == "no dead letters\n"


def test_dead_letters_are_cancelled_and_their_units_return(operator: Operator) -> None:
    three_dead(operator)
    assert operator("dead", "cancel", "o-1", *WHY).code == 4
    assert operator("dead", "cancel", "o-1", "#3", *WHY, "--yes").code == 0
    assert list(operator.sale.queue._dead_letters()) == ["o-2"]
    assert operator.sale.inventory.stock("phone").booked == 2
    told = operator("dead", "cancel", "--all", *WHY, typed="spring")
    assert (told.code, told.trail[0]["after"]) == (0, {"o-2": "CANCELLED"})
    assert operator.sale.inventory.stock("phone").booked == 0
    assert operator.syncer.audit().ok


def test_a_letter_that_reuses_an_orders_id_leaves_that_order_alone(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    operator.raw.lpush(operator.sale.keys.order_list, Order("o-1", "phone", "eve", 5).to_json())
    operator.sale.queue._bury(operator.sale.queue.claim(10))
    (name,) = operator.sale.queue._dead_letters()
    assert operator("dead", "cancel", f"#{name[1:]}", *WHY, "--yes").code == 0
    assert not operator.sale.queue._dead_letters()
    assert states(operator) == {"o-1": "PERSISTED"}


# -- partitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_an_order_is_found_in_its_partition(operator: Operator) -> None:
    operator.begin(Goods("phone", 30, hold=900.0))
    operator.sale.start("phone")
    first, second, third = (operator.buy(f"o-{name}", name) for name in ("ann", "bob", "cleo"))
    assert "on the list, " in operator("orders", "show", second).out
    assert operator("orders", "find", "--buyer", "bob", "--json").json["orders"][0]["order"]["order_id"] == second
    claims = [claim for part in operator.sale._parts for claim in part.queue.claim(9, lease=60.0)]
    assert len(claims) == 3
    listed = operator("orders", "claimed").out
    assert all(order_id in listed for order_id in (first, second, third))
    for part in operator.sale._parts:
        part.queue.nack([claim for claim in claims if claim.order.order_id[:2] == f"{part.place:02x}"])
    while operator.worker.run_once():
        pass
    assert operator("orders", "confirm", first, third).code == 0
    assert operator("orders", "cancel", second, "--expect", "state=PERSISTED", "--yes", *WHY).code == 0
    assert states(operator) == {
        first: OrderState.CONFIRMED,
        second: OrderState.CANCELLED,
        third: OrderState.CONFIRMED,
    }
    told = operator("orders", "show", "zz-1")
    assert (told.code, "no server knows order 'zz-1'" in told.err) == (2, True)


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_dead_letters_of_all_partitions_are_listed_and_dealt_with(operator: Operator) -> None:
    operator.begin(Goods("phone", 30))
    operator.sale.start("phone")
    orders = [operator.buy(f"o-{name}", name) for name in ("ann", "bob", "cleo", "dora")]
    operator.bury(*orders[:3])
    for part in operator.sale._parts[1:]:
        operator.raw.lpush(part.keys.order_list, "no order")
        part.queue._bury([claim for claim in part.queue.claim(9) if claim.order is None])
    names = {each["letter"] for each in operator("dead", "list", "--json").json["dead"]}
    assert names >= set(orders[:3])
    strange = sorted(names - set(orders))
    assert [name[:3] for name in strange] == ["#1.", "#2."]
    assert "no order" in operator("dead", "show", strange[1]).out
    assert operator("dead", "requeue", orders[0]).code == 0
    assert operator("dead", "cancel", orders[1], strange[0], "--yes", *WHY).code == 0
    left = {each["letter"] for each in operator("dead", "list", "--json").json["dead"]}
    assert left == {orders[2], strange[1]}
