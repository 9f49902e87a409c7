"""The commands that prove and mend: init, audit, repair, rebuild, settle, export, purge."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from flashsale import Goods, Order, OrderState, StoredOrder
from flashsale._rules.activity import Activity
from flashsale.stores import SQLAlchemyStore
from tests.support.sales import of_the_release_before

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.operator import Operator

WHY = ("--reason", "why")


def ended(operator: Operator) -> None:
    """A sale of ten phones at its end: two are paid, one was cancelled."""
    operator.begin()
    operator.buy("o-1", quantity=2)
    operator.buy("o-2")
    operator.worker.run_once()
    operator.sale.confirm("o-1")
    operator.sale.cancel("o-2")


# -- init -----------------------------------------------------------------------------------------------------------


def test_the_tables_are_made_once(operator: Operator) -> None:
    told = operator("init", "--dry-run")
    assert "missing: table flashsale_orders" in told.out
    assert operator("init", "--database", operator.database, where=False).code == 0
    assert operator("init").out == "all tables are there\n"
    operator.begin()


def test_tables_of_an_older_release_are_upgraded_when_told(operator: Operator, tmp_path: Path) -> None:
    operator.begin()
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        for statement in of_the_release_before("sqlite"):
            database.execute(statement)
    told = operator("init")  # makes the table that is missing
    assert (told.code, "--upgrade" in told.out) == (1, True)
    told = operator("init", "--upgrade", "--dry-run")
    assert "missing: ALTER TABLE flashsale_orders ADD COLUMN settled_at" in told.out
    assert operator("init", "--upgrade").code == 0
    assert operator("init").code == 0
    operator.buy("o-1")
    operator.worker.run_once()


# -- audit and repair -----------------------------------------------------------------------------------------------


def test_an_audit_says_where_every_unit_is(operator: Operator) -> None:
    ended(operator)
    told = operator("audit")
    assert told.code == 0
    lines = [line.split() for line in told.out.splitlines()]
    assert lines == [
        ["goods", "total", "free", "queued", "unpaid", "sold", "dead", "direct"],
        ["phone", "10", "8", "0", "0", "2", "0", "0"],
        ["clean"],
    ]
    assert operator("audit", "--json").json["goods"]["phone"]["sold"] == 2


def test_an_audit_names_what_buyers_were_told_and_is_lost(operator: Operator, tmp_path: Path) -> None:
    ended(operator)
    (tmp_path / "told.txt").write_text("o-1\no-2\n\no-9\n")
    told = operator("audit", "--expected", str(tmp_path / "told.txt"))
    assert (told.code, "o-9: lost" in told.out, "o-1" in told.out) == (1, True, False)
    assert operator("audit", "--expected", str(tmp_path / "none.txt")).code == 2


def test_a_repair_says_what_it_would_mend_and_mends_it_when_told(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.raw.delete(operator.sale.keys.order_list)
    assert operator("audit").code == 1
    told = operator("repair")
    assert (told.code, "would mend o-1: NOT_QUEUED, ledger QUEUED, database None" in told.out) == (1, True)
    assert operator("repair", "--apply").code == 4
    assert operator.sale.queue.size() == 0
    told = operator("repair", "--apply", "--yes")
    assert (told.code, "mended o-1" in told.out) == (0, True)
    operator.worker.run_once()
    assert operator("repair").out.endswith("there is nothing to mend\n")


def test_what_is_paid_in_redis_alone_is_left_unless_trusted(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    operator.sale._ledger.move([StoredOrder(Order("o-1", "phone", "ann", 1), OrderState.CONFIRMED)])
    told = operator("repair", "--apply", "--yes")
    assert (told.code, "leaves o-1: AHEAD" in told.out) == (1, True)
    assert operator("repair", "--apply", "--yes", "--trust-ledger").code == 0
    assert operator.store.states(["o-1"]) == {"o-1": "CONFIRMED"}


# -- rebuild --------------------------------------------------------------------------------------------------------


def test_a_sale_that_redis_lost_is_rebuilt(operator: Operator) -> None:
    ended(operator)
    operator.raw.flushall()
    assert operator("rebuild").code == 4
    told = operator("rebuild", "--yes")
    assert told.code == 0
    assert "2 orders of the database are in the ledger" in told.out
    assert "phone: 2 units booked" in told.out
    assert "phone has no opening time: open phone" in told.out
    assert operator("open", "phone").code == 0
    operator.buy("o-3")


def test_a_settled_sale_is_not_rebuilt_unless_forced(operator: Operator) -> None:
    ended(operator)
    told = operator("rebuild", "--yes")
    assert (told.code, "--force" in told.err) == (1, True)
    assert operator.store.epoch() == 1
    assert operator("rebuild", "--yes", "--force").code == 0
    assert operator.store.epoch() == 2


def test_an_item_that_redis_lost_is_no_settled_sale(operator: Operator) -> None:
    operator.begin()
    operator.raw.flushall()
    assert operator("rebuild", "--yes").code == 0


# -- settle ---------------------------------------------------------------------------------------------------------


def test_the_proof_adds_every_unit_up(operator: Operator) -> None:
    ended(operator)
    assert not operator.sale.buy("phone", "bob", 9, order_id="o-3").accepted
    operator.sale._recorder._flush(Activity("web"))
    told = operator("settle")
    assert told.code == 0
    assert "sold 2 + free 8 + unpaid 0 + dead 0 + direct 0 = 10  OK" in told.out
    assert "orders 2: confirmed 1, cancelled 1; refused 1\n" in told.out
    proof = operator("settle", "--json").json
    text = json.dumps(proof["proof"], sort_keys=True, separators=(",", ":"))
    assert proof["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert f"SETTLED  proof sha256 {proof['sha256']}" in told.out
    assert told.trail[0]["after"]["sha256"] == proof["sha256"]


def test_what_is_not_settled_says_what_is_left(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    operator.buy("o-2")
    told = operator("settle")
    assert told.code == 1
    assert "sold 0 + free 8 + queued 1 + unpaid 1 + dead 0 + direct 0 = 10  OK" in told.out
    assert "1 orders wait for the workers" in told.out
    assert told.out.endswith("NOT SETTLED\n")
    assert not told.trail


# -- export ---------------------------------------------------------------------------------------------------------


def test_orders_are_exported(operator: Operator, tmp_path: Path) -> None:
    ended(operator)
    told = operator("export")
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert [(row["order_id"], row["state"], row["quantity"]) for row in rows] == [
        ("o-1", "CONFIRMED", "2"),
        ("o-2", "CANCELLED", "1"),
    ]
    assert "2 rows of orders" in told.err
    file = tmp_path / "orders.jsonl"
    said = operator("export", "--format", "jsonl", "--out", str(file), "--json").json
    assert [json.loads(line)["order_id"] for line in file.read_text().splitlines()] == ["o-1", "o-2"]
    assert (said["rows"], said["sha256"]) == (2, hashlib.sha256(file.read_bytes()).hexdigest())
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_export_works_without_redis_and_knows_the_items(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, per_buyer=2))
    told = operator("export", "--what", "goods", "--sale", "spring", "--database", operator.database, where=False)
    assert [row["per_buyer"] for row in csv.DictReader(io.StringIO(told.out))] == ["2"]


def test_an_export_that_fails_leaves_no_file(operator: Operator, tmp_path: Path) -> None:
    operator.begin()
    assert operator("export", "--out", str(tmp_path / "none" / "orders.csv")).code == 2
    assert operator("export", "--json").code == 2
    assert sorted(path.suffix for path in tmp_path.iterdir() if "orders" in path.name) == []


def test_an_export_reads_page_by_page(operator: Operator) -> None:
    operator.begin(Goods("phone", 5000))
    operator.sale.start("phone")
    orders = [Order(f"o-{number:04}", "phone", f"buyer-{number}", 1, data={"n": number}) for number in range(2300)]
    for at in range(0, 2300, 500):
        operator.store.save(orders[at : at + 500])
    rows = list(csv.DictReader(io.StringIO(operator("export").out)))
    assert [row["order_id"] for row in rows] == [order.order_id for order in orders]
    assert json.loads(rows[7]["data"]) == {"n": 7}


def test_whoever_reads_an_export_may_go(operator: Operator) -> None:
    operator.begin(Goods("phone", 5000))
    for at in range(0, 2000, 500):
        operator.store.save(
            [Order(f"o-{number:04}", "phone", "ann", 1, data="x" * 90) for number in range(at, at + 500)]
        )
    command = f"{sys.executable} -m flashsale export --sale spring --database {operator.database} | head -n 1"
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.startswith("order_id,")
    assert "Traceback" not in said.stderr
    assert "BrokenPipe" not in said.stderr


# -- purge ----------------------------------------------------------------------------------------------------------


def test_a_settled_sale_is_purged(operator: Operator) -> None:
    ended(operator)
    told = operator("purge", *WHY, "--yes")
    assert (told.code, "there must be: export, settle" in told.err) == (1, True)
    for command in (["export", "--what", "goods"], ["settle"], ["export", "--out", "none/orders.csv"]):
        operator(*command)
    assert "there must be: export" in operator("purge", *WHY, "--yes").err
    assert operator("export").code == 0
    operator.sale.cancel("o-1")  # what was proven is so no more
    assert "there must be: settle" in operator("purge", *WHY, "--yes").err
    proven = operator("settle", "--json").json
    (entry,) = operator.store.trail(last=True, limit=1)
    assert (entry.entry_id, entry.after["sha256"]) == (proven["entry"], proven["sha256"])
    assert f"written to flashsale_audit #{proven['entry'] + 1}" in operator("settle").out
    assert operator("purge", *WHY).code == 4
    assert operator("purge", "--yes").code == 2
    told = operator("purge", *WHY, "--yes", "--expect", "sold=3")
    assert (told.code, "sold is 0, not 3" in told.err) == (1, True)
    assert operator.raw.keys("*")
    assert operator("purge", *WHY, "--yes", "--expect", "sold=0", "--expect", "orders=2").code == 0
    assert not operator.raw.keys("*")
    assert operator.store.purged()
    told = operator("rebuild", "--yes", "--force")
    assert (told.code, "purged" in told.err) == (2, True)
    told = operator("status")
    assert (told.code, "spring  PURGED  " in told.out, "rebuild" in told.out) == (0, True, False)
    told = operator("doctor")
    assert ("sale: purged, " in told.out, "no syncer has led" in told.out) == (True, False)
    assert "phone" in operator("goods", "list").out
    assert "lost" not in operator("goods", "list").out
    assert "phone: the sale was purged" in operator("doctor").out
    for command in ("audit", "settle", "repair"):
        told = operator(command)
        assert (told.code, "Its proof is the last settle of the trail" in told.err) == (2, True)


def test_a_purge_reads_only_the_entries_that_it_needs(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    read, trail_of = [], SQLAlchemyStore.trail_of

    def watched(store: SQLAlchemyStore, command: str) -> object:
        read.append(command)
        return trail_of(store, command)

    monkeypatch.setattr(SQLAlchemyStore, "trail_of", watched)
    with monkeypatch.context() as patched:
        patched.setattr("flashsale.ops.trail.entries", None)
        told = operator("purge", *WHY, "--yes")
    assert (told.code, "there must be: export, settle" in told.err, read) == (1, True, ["export", "settle"])


def test_a_store_that_cannot_choose_is_read_whole(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    monkeypatch.setattr(SQLAlchemyStore, "trail_of", property())
    assert operator("export", "--out", str(operator.folder / "orders.csv")).code == 0
    assert "there must be: settle" in operator("purge", *WHY, "--yes").err


def test_what_is_not_settled_is_not_purged(operator: Operator) -> None:
    operator.begin()
    for command in ("export", "settle"):
        assert operator(command).code == 0
    operator.buy("o-1")
    told = operator("purge", *WHY, "--yes")
    assert (told.code, "nothing was removed" in told.out) == (1, True)
    assert operator.sale.status("o-1") is OrderState.QUEUED


# -- the report -----------------------------------------------------------------------------------------------------


def test_a_settlement_writes_its_report(operator: Operator, tmp_path: Path) -> None:
    ended(operator)
    operator("pause", "--as", "mia", "--reason", "a break")
    path = tmp_path / "report.html"
    told = operator("settle", "--report", str(path))
    assert (told.code, f"report: {path}" in told.out) == (0, True)
    text = path.read_text("utf-8")
    assert all(word in text for word in ("<svg", "mia", "a break", "spring"))
    assert "<script" not in text


def test_a_report_is_written_of_a_sale_that_is_not_settled_too(operator: Operator, tmp_path: Path) -> None:
    operator.begin()
    operator.buy("o-1")
    path = tmp_path / "report.html"
    assert operator("settle", "--report", str(path)).code == 1
    assert path.exists()
    assert operator("settle", "--report", str(tmp_path / "none" / "report.html")).code == 2


# -- partitions -----------------------------------------------------------------------------------------------------


def of_each_partition(operator: Operator) -> list[str]:
    """Buys in each partition, and returns the order ids."""
    found: dict[str, str] = {}
    for place in range(60):
        buyer = f"buyer-{place}"
        found.setdefault(operator.sale.order_id(buyer)[:2], buyer)
    return [operator.buy("o-1", buyer) for _, buyer in sorted(found.items())]


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_a_sale_over_partitions_is_proved_and_purged(operator: Operator, tmp_path: Path) -> None:
    operator.begin(Goods("phone", 30, hold=900.0))
    assert operator("open", "phone").code == 0
    orders = of_each_partition(operator)
    while operator.worker.run_once():
        pass
    told = operator("audit")
    assert (told.code, told.out.splitlines()[1].split()) == (0, ["phone", "30", "27", "0", "3", "0", "0", "0"])
    assert operator("repair").code == 0
    assert operator("settle").code == 1
    assert operator("orders", "confirm", *orders).code == 0
    operator.sale.stop("phone")
    told = operator("settle", "--report", str(tmp_path / "report.html"))
    assert told.code == 0
    assert "sold 3 + free 27 + unpaid 0 + dead 0 + direct 0 = 30  OK" in told.out
    assert operator("export", "--out", str(tmp_path / "orders.csv")).code == 0
    assert operator("purge", "--yes", *WHY).code == 0
    assert not operator.raw.keys("*spring~*")
    assert "PURGED" in operator("status").out


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_a_partition_that_redis_lost_is_rebuilt(operator: Operator) -> None:
    operator.begin(Goods("phone", 30))
    operator.sale.start("phone")
    of_each_partition(operator)
    while operator.worker.run_once():
        pass
    operator.raw.delete(*operator.raw.keys("*~3.01*"))
    told = operator("status")
    assert told.code == 1
    assert "! LOST  partition 1 has lost all it had" in told.out
    assert "lost from Redis (partition 1)" in operator("goods", "list").out
    assert operator("rebuild", "--yes").code == 0
    told = operator("audit")
    assert (told.code, told.out.splitlines()[1].split()[:3]) == (0, ["phone", "30", "27"])


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_units_that_a_failover_lost_between_partitions_are_mended(operator: Operator) -> None:
    operator.begin(Goods("phone", 30))
    keys = operator.sale._parts[1].keys
    operator.raw.hincrby(keys.stock("phone"), "Total", -4)
    operator.raw.decrby(keys.count("phone"), 4)
    told = operator("audit")
    assert told.code == 1
    assert "phone: 4 units are lost, on their way between partitions" in told.out
    told = operator("repair")
    assert (told.code, "would mend phone: 4 units" in told.out) == (1, True)
    assert operator("repair", "--apply", "--yes").code == 0
    assert operator("audit").code == 0
