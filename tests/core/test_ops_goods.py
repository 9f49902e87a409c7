"""The commands for items: list, set field by field, open, stop, restock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from flashsale import Goods, Outcome

if TYPE_CHECKING:
    from tests.support.operator import Operator


def phone(operator: Operator) -> Goods:
    (goods,) = operator.store.goods()
    return goods


# -- list -----------------------------------------------------------------------------------------------------------


def test_the_list_says_what_there_is_and_whether_it_is_open(operator: Operator) -> None:
    later = time.time() + 3 * 3600 + 300
    operator.begin(
        Goods("phone", 20_000, per_buyer=2, hold=900.0, opens_at=later), Goods("case", 5), Goods("tv", 1, closes_at=2.0)
    )
    operator.sale.start("case")
    operator.sale.start("tv")
    operator.buy("o-1", quantity=2, goods_id="case")
    told = operator("goods", "list")
    assert told.code == 0
    lines = [line.split() for line in told.out.splitlines()]
    assert lines[1] == ["case", "5", "2", "3", "none", "none", "open"]
    assert lines[2][:7] == ["phone", "20,000", "0", "20,000", "2", "15", "min"]
    assert "opens " in told.out
    assert "(in 3 h " in told.out
    assert "by Redis's clock" in told.out
    assert "ended" in lines[3]


def test_the_list_needs_no_database(operator: Operator) -> None:
    operator.begin(Goods("phone", 5, per_buyer=2, hold=60.0))
    told = operator("goods", "list", "--json", "--redis", operator.redis_url, "--sale", "spring", where=False).json
    (found,) = told["goods"]
    assert (found["total"], found["per_buyer"], found["hold"], found["total_in_database"]) == (5, 2, 60.0, None)
    broken = ["--redis", operator.redis_url, "--sale", "spring", "--database", "postgresql://127.0.0.1:1/none"]
    said = operator("goods", "list", *broken, where=False)
    assert (said.code, "the database does not say" in said.err) == (0, True)


def test_the_list_says_what_redis_has_lost_and_what_it_has_not_got_yet(operator: Operator) -> None:
    operator.begin(Goods("phone", 5), Goods("case", 5))
    operator.store.put_goods(Goods("tv", 5))
    operator.store.put_goods(Goods("case", 7))
    operator.raw.delete(operator.sale.keys.stock("phone"))
    said = operator("goods", "list").out
    assert "lost from Redis" in said
    assert "not in Redis yet, the database has 5" in said
    assert "case: the database wants total 7, Redis has 5: the syncer brings it" in said


def test_a_time_finer_than_a_microsecond_is_no_other_policy(operator: Operator) -> None:
    """Redis keeps microseconds; `time.time() + 60` has more digits on most machines."""
    operator.begin(Goods("phone", 5, opens_at=1795961378.1906817, closes_at=1895961378.1906817, hold=60.1234567))
    assert "the database wants" not in operator("goods", "list").out
    assert "OTHER POLICY" not in operator("status").out
    assert operator("audit").out.endswith("clean\n")


def test_the_list_says_where_redis_has_another_policy_than_the_row(operator: Operator) -> None:
    """A syncer mends it, but for a row that is older: the database was restored."""
    operator.begin(Goods("phone", 5, per_buyer=2, hold=60.0))
    operator.sale.start("phone")
    operator.buy("o-1")
    stock = operator.sale.keys.stock("phone")
    operator.raw.hset(stock, mapping={"per_buyer": 5, "hold": "ever"})
    said = operator("goods", "list").out
    assert "phone: the database wants per_buyer 2, Redis has 5: the syncer brings it, if one runs" in said
    assert "phone: the database wants hold 60.0, Redis has ever" in said
    operator.syncer.run_once()
    assert "the database wants" not in operator("goods", "list").out
    operator.raw.hset(stock, mapping={"per_buyer": 5, "version": 9})
    operator.syncer.run_once()
    assert "per_buyer 2, Redis has 5: its row is older" in operator("goods", "list").out
    told = operator("doctor")
    assert (told.code, "! phone: the database wants per_buyer 2" in told.out) == (1, True)
    assert "! OTHER POLICY  phone: the database wants per_buyer 2, Redis has 5" in operator("status").out
    told = operator("audit")
    assert (told.code, "phone: the database wants per_buyer 2, Redis has 5" in told.out) == (1, True)
    assert told.out.endswith("not clean: orders and units agree, the policy of an item does not\n")
    told = operator("repair")
    assert (told.code, "phone: the database wants per_buyer 2, Redis has 5" in told.out) == (1, True)
    assert operator("rebuild", "--yes").code == 0
    assert "the database wants" not in operator("goods", "list").out


# -- set ------------------------------------------------------------------------------------------------------------


def test_a_total_never_wipes_the_rest_of_the_policy(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, per_buyer=2, hold=900.0, closes_at=1e10))
    told = operator("goods", "set", "phone", "--total", "11")
    assert (told.code, told.out) == (0, "phone  total 10 -> 11\n")
    now = phone(operator)
    assert (now.total, now.per_buyer, now.hold, now.closes_at) == (11, 2, 900.0, 1e10)
    assert operator.sale.inventory.stock("phone").total == operator.sale.gate.state("phone").count == 11


def test_none_removes_one_field(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, per_buyer=2, hold=900.0))
    operator.sale.start("phone")
    told = operator("goods", "set", "phone", "--per-buyer", "none")
    assert told.out == "phone  per_buyer 2 -> none\n"
    assert (phone(operator).per_buyer, phone(operator).hold) == (None, 900.0)
    assert operator.sale.buy("phone", "ann", 3).accepted  # Redis has it, too


def test_what_is_so_already_is_not_written(operator: Operator) -> None:
    operator.begin()
    version = phone(operator).version
    assert operator("goods", "set", "phone", "--total", "10").out == "phone is so already, in its row and in Redis\n"
    assert phone(operator).version == version
    assert operator("goods", "set", "phone").code == 2


def test_what_is_so_in_the_row_alone_is_brought_to_redis(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, per_buyer=1, hold=60.0))
    operator.raw.hset(operator.sale.keys.stock("phone"), "per_buyer", 5)
    version = phone(operator).version
    words = ["goods", "set", "phone", "--per-buyer", "1"]
    told = operator(*words, "--expect", "per_buyer=5")
    assert (told.code, "the row's per_buyer is 1, not 5: nothing was changed" in told.err) == (1, True)
    assert "the row's per_buyer is 1" in operator(*words, "--expect", "per_buyer=5", "--dry-run").err
    assert operator(*words, "--dry-run").code == 0
    assert operator.raw.hget(operator.sale.keys.stock("phone"), "per_buyer") == b"5"
    told = operator(*words)
    assert (told.code, told.out) == (0, "phone  per_buyer 5 -> 1: in Redis; its row is so already\n")
    assert operator.raw.hget(operator.sale.keys.stock("phone"), "per_buyer") == b"1"
    assert operator.sale.gate.state("phone").count == 10
    assert (told.trail[0]["before"], told.trail[0]["after"]) == ({"per_buyer": 5}, {"per_buyer": 1})
    assert phone(operator).version == version


def test_a_row_that_redis_has_newer_is_not_brought(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, per_buyer=1))
    operator.raw.hset(operator.sale.keys.stock("phone"), mapping={"per_buyer": 5, "version": 9})
    for cap in ("1", "2"):
        told = operator("goods", "set", "phone", "--per-buyer", cap)
        assert (told.code, f"wants per_buyer {cap}, Redis has 5: its row is older" in told.out) == (1, True)


def test_a_new_item_is_made_only_when_asked_for(operator: Operator) -> None:
    operator.begin()
    told = operator("goods", "set", "phnoe", "--total", "5")
    assert (told.code, "it has phone" in told.err) == (2, True)
    assert operator("goods", "set", "case", "--total", "5", "--new").code == 0
    assert {goods.goods_id for goods in operator.store.goods()} == {"case", "phone"}


def test_the_first_item_begins_a_sale(operator: Operator) -> None:
    assert operator("init").code == 0
    assert operator("goods", "set", "phone", "--total", "5").code == 2
    told = operator("goods", "set", "phone", "--total", "5", "--per-buyer", "1", "--opens-at", "+1h", "--new")
    assert (told.code, "the syncer loads it" in told.out) == (0, True)
    assert (phone(operator).total, phone(operator).per_buyer) == (5, 1)


def test_what_is_expected_is_compared_in_the_transaction(operator: Operator) -> None:
    operator.begin()
    told = operator("goods", "set", "phone", "--total", "11", "--expect", "total=9")
    assert (told.code, "total is 10, not 9: nothing was changed" in told.err) == (1, True)
    assert phone(operator).total == 10
    assert operator("goods", "set", "phone", "--hold", "60", "--expect", "hold=none", "--expect", "total=10").code == 0
    assert operator("goods", "set", "phone", "--hold", "60", "--expect", "colour=red").code == 2
    assert operator("goods", "set", "phone", "--hold", "30", "--expect", "booked=3", "--dry-run").code == 1
    assert operator("goods", "set", "phone", "--hold", "30", "--expect", "booked=0", "--dry-run").code == 0


def test_who_changed_the_row_in_between_wins(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the lock: what is expected is compared with what is there then."""
    from flashsale.ops import items

    operator.begin()
    locked = items.locked

    def slow(*given: object, **named: str):
        operator.store.put_goods(Goods("phone", 12))
        return locked(*given, **named)

    monkeypatch.setattr(items, "locked", slow)
    told = operator("goods", "set", "phone", "--total", "11", "--expect", "total=10")
    assert (told.code, "total is 12, not 10" in told.err) == (1, True)
    assert phone(operator).total == 12


def test_a_total_that_moves_far_is_asked_for(operator: Operator) -> None:
    operator.begin()
    assert operator("goods", "set", "phone", "--total", "9").code == 4
    assert operator("goods", "set", "phone", "--total", "13").code == 4
    assert operator("goods", "set", "phone", "--total", "12").code == 0
    assert operator("goods", "set", "phone", "--total", "9", "--yes").code == 0


# -- open and stop --------------------------------------------------------------------------------------------------


def test_an_item_is_opened_and_shut(operator: Operator) -> None:
    operator.begin(Goods("phone", 10))
    assert operator("open", "phone").out == "phone  shut -> open\n"
    assert operator.sale.buy("phone", "ann").accepted
    told = operator("stop", "phone", "--yes")
    assert "phone  open -> shut" in told.out
    assert operator.sale.buy("phone", "bob").outcome is Outcome.NOT_STARTED


def test_an_item_is_opened_at_a_time_by_the_clock_of_redis(operator: Operator) -> None:
    operator.begin(Goods("phone", 10))
    told = operator("open", "phone", "--at", "+3h")
    assert told.code == 0
    assert "shut -> opens " in told.out
    assert "(in 3 h by Redis's clock)" in told.out or "(in 2 h 59 min by Redis's clock)" in told.out
    state = operator.sale.gate.state("phone")
    assert 3 * 3600 - 60 < state.opens_in <= 3 * 3600
    assert phone(operator).opens_at == state.opens_at
    operator.syncer.run_once()  # it leaves it so
    assert operator.sale.gate.state("phone").opens_at == state.opens_at


def test_an_item_whose_time_has_not_come_is_opened_all_the_same(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, opens_at=time.time() + 3600))
    assert operator.sale.buy("phone", "ann").outcome is Outcome.NOT_STARTED
    assert operator("open", "phone").code == 0
    assert operator.sale.buy("phone", "ann").accepted
    operator.syncer.run_once()
    assert operator.sale.buy("phone", "bob").accepted


def test_an_item_that_sells_is_not_shut_by_opening_it_later(operator: Operator) -> None:
    operator.begin()
    told = operator("open", "phone", "--at", "+1h")
    assert (told.code, "open already" in told.err) == (1, True)
    assert operator.sale.buy("phone", "ann").accepted


def test_what_has_ended_is_not_opened(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, closes_at=2.0))
    told = operator("open", "phone")
    assert (told.code, "--closes-at" in told.err) == (1, True)


def test_opening_says_that_the_sale_is_paused(operator: Operator) -> None:
    operator.begin(Goods("phone", 10))
    operator.sale.pause()
    assert "the sale is paused: resume" in operator("open", "phone").out


def test_an_item_that_redis_does_not_have_is_explained(operator: Operator) -> None:
    operator.begin(Goods("phone", 10))
    operator.store.put_goods(Goods("case", 1))
    told = operator("open", "case")
    assert (told.code, "does a syncer run?" in told.err) == (1, True)
    assert operator("open", "phone", "--at", "soon").code == 2


# -- restock --------------------------------------------------------------------------------------------------------


def test_a_small_restock_asks_nothing(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1", quantity=4)
    told = operator("restock", "phone", "+2", "--reason", "found some")
    assert told.code == 0
    assert "phone  total 10 -> 12 (+2, +20 %)" in told.out
    assert "phone  free 6 -> 8, booked 4" in told.out
    assert operator.sale.inventory.stock("phone").total == operator.sale.gate.state("phone").count == 12
    assert told.trail[0]["after"] == {"total": 12}


@pytest.mark.parametrize("units", ["-1", "+3", "+1,000"])
def test_a_restock_down_or_far_up_asks(operator: Operator, units: str) -> None:
    operator.begin()
    assert operator("restock", "phone", units, "--reason", "why").code == 4
    assert operator.sale.inventory.stock("phone").total == phone(operator).total == 10
    assert operator("restock", "phone", units, "--reason", "why", typed="spring").code == 0
    assert operator.sale.inventory.stock("phone").total != 10


def test_a_dry_run_says_what_a_restock_would_do(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1", quantity=8)
    told = operator("restock", "phone", "-5", "--dry-run")
    assert told.code == 0
    assert "phone  total 10 -> 5 (-5, -50 %)" in told.out
    assert "Redis stops at 8" in told.out
    assert phone(operator).total == 10
    assert operator("restock", "phone", "-5", "--yes", "--reason", "why").code == 0
    assert operator.sale.inventory.stock("phone").total == 8


def test_a_restock_that_is_repeated_is_done_once(operator: Operator) -> None:
    operator.begin()
    again = ["restock", "phone", "+1", "--reason", "why", "--request-id", "r-1"]
    assert operator(*again).code == 0
    told = operator(*again)
    assert (told.code, "was done before: it set a total of 11" in told.out) == (0, True)
    assert phone(operator).total == 11
    made = operator("restock", "phone", "+1", "--reason", "why", "--json").json
    assert made["request_id"].startswith("restock-")
    assert phone(operator).total == 12


def test_a_restock_that_met_another_total_does_nothing(operator: Operator) -> None:
    operator.begin()
    told = operator("restock", "phone", "+1", "--reason", "why", "--expect", "total=9", "--request-id", "r-1")
    assert told.code == 1
    assert phone(operator).total == 10
    assert told.trail[0]["after"] == {"error": "Stop"}
    told = operator("restock", "phone", "+1", "--reason", "why", "--expect", "total=10", "--request-id", "r-1")
    assert (told.code, phone(operator).total) == (0, 11)


@pytest.mark.parametrize("units", ["0", "many", "+1.5"])
def test_units_are_whole(operator: Operator, units: str) -> None:
    operator.begin()
    assert operator("restock", "phone", units, "--reason", "why").code == 2


# -- partitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_an_item_of_a_sale_over_partitions_is_steered_as_one(operator: Operator) -> None:
    operator.begin(Goods("phone", 30, per_buyer=5))
    assert operator("open", "phone").code == 0
    for place in range(4):
        operator.buy(f"o-{place}", f"buyer-{place}", 5)
    assert operator("goods", "list").out.splitlines()[1].split() == ["phone", "30", "20", "10", "5", "none", "open"]
    assert operator("restock", "phone", "+4", "--reason", "why").code == 0
    assert operator("restock", "phone", "-10", "--yes", "--reason", "why").code == 0
    assert operator("goods", "set", "phone", "--per-buyer", "7").code == 0
    assert operator("goods", "set", "phone", "--total", "10", "--yes").code == 0  # more is booked than that
    assert operator("goods", "list", "--json").json["goods"][0] | {"version": 0} == {
        **operator("goods", "list", "--json").json["goods"][0],
        "version": 0,
        "total": 20,
        "per_buyer": 7,
        "total_in_database": 10,
    }
    stocks = [part.inventory.stock("phone") for part in operator.sale._parts]
    assert sum(stock.total for stock in stocks) == 20
    assert [operator.raw.hget(part.keys.stock("phone"), "per_buyer") for part in operator.sale._parts] == [b"7"] * 3
    assert [operator.raw.hget(part.keys.window("phone"), "per_buyer") for part in operator.sale._parts] == [b"7"] * 3
    assert operator("stop", "phone", "--yes").code == 0
    assert [part.gate.state("phone").started for part in operator.sale._parts] == [False] * 3
    assert operator("pause").code == 0
    assert {part._meta.state().state for part in operator.sale._parts} == {"paused"}
    assert operator("resume").code == 0
    assert "shut" in operator("goods", "list").out


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_where_one_partition_has_another_policy_the_list_says_so(operator: Operator) -> None:
    operator.begin(Goods("phone", 30, per_buyer=5))
    operator.raw.hset(operator.sale._parts[2].keys.stock("phone"), "per_buyer", 9)
    assert "the database wants per_buyer 5, Redis has 9" in operator("goods", "list").out
    assert operator("audit").code == 1
