"""The trail: what a command did is written with what it wrote, or neither is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import flashsale.aio.stores
from flashsale import FlashSaleError, Goods, InvalidRequest, Order, OrderState, OutcomeUnknown, RowRefused, StoreError
from flashsale._sync.store import noting, trail
from flashsale.model.trail import TrailEntry
from flashsale.stores import SQLAlchemyStore
from tests.support import django_shop
from tests.support.mutants import promises

django_shop.set_up()

from django.contrib.admin import site  # noqa: E402 - settings come first
from django.contrib.auth.models import User  # noqa: E402
from django.db import transaction  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from flashsale.contrib.django.models import SaleTrail  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402

ENTRY = TrailEntry(
    "restock",
    "Zoë",
    "shop-1",
    1_700_000_000.125,
    arguments={"units": 5, "goods": "phone", "more": ["x" * 100_000, None, 1.5]},
    before={"total": 10},
    reason="noch 5 übrig \U0001f4e6",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLAlchemyStore]:
    """Ten phones, on SQLite."""
    with opened(f"sqlite:///{tmp_path}/shop.db") as store:
        yield store


@contextlib.contextmanager
def opened(url: str, kind: type[SQLAlchemyStore] = SQLAlchemyStore) -> Iterator[SQLAlchemyStore]:
    with kind(url, "spring") as store:
        store.create_all()
        store.put_goods(Goods("phone", 10))
        yield store


@pytest.fixture(params=["sqlite", "postgres", "mysql", "django"])
def each_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Ten phones, on each database."""
    if request.param == "django":
        store = DjangoStore(f"trail-of-{tmp_path.name[:40]}")
        store.put_goods(Goods("phone", 10))
        yield store
        return
    url = f"sqlite:///{tmp_path}/shop.db" if request.param == "sqlite" else f"fresh_{request.param}_url"
    with opened(url if request.param == "sqlite" else request.getfixturevalue(url)) as store:
        yield store


def total(store: Any) -> int:
    (goods,) = store.goods()
    return int(goods.total)


def order(number: int) -> Order:
    return Order(f"o-{number}", "phone", "secret-buyer", 1)


# -- what stands there ----------------------------------------------------------------------------------------------


def test_an_entry_is_read_as_it_was_written(each_store: Any) -> None:
    first = each_store.note(ENTRY)
    second = each_store.note(TrailEntry("pause", "ann", "shop-1", 1.0, after={"state": OrderState.DEAD}))
    assert 0 < first < second
    whole, short = each_store.trail()
    assert whole == replace(ENTRY, entry_id=first)
    assert (short.arguments, short.before, short.after, short.reason) == ({}, {}, {"state": "DEAD"}, None)


def test_the_trail_is_read_oldest_first_and_by_pages(each_store: Any) -> None:
    ids = [each_store.note(TrailEntry("pause", "ann", "shop-1", float(n))) for n in range(5)]
    assert [entry.entry_id for entry in each_store.trail(limit=2)] == ids[:2]
    assert [entry.entry_id for entry in each_store.trail(after=ids[1], limit=2)] == ids[2:4]
    assert [entry.entry_id for entry in each_store.trail(limit=2, last=True)] == ids[3:]
    assert [entry.entry_id for entry in each_store.trail(after=ids[3], last=True)] == ids[4:]


def test_the_entries_of_one_command_are_read(each_store: Any) -> None:
    ids = [each_store.note(TrailEntry(command, "ann", "shop-1", 1.0)) for command in ("settle", "pause", "settle")]
    assert [entry.entry_id for entry in each_store.trail_of("settle")] == [ids[0], ids[2]]
    each_store.note(ENTRY)
    assert each_store.trail_of("restock")[0].arguments == ENTRY.arguments
    assert each_store.trail_of("export") == []


def test_each_sale_has_a_trail_of_its_own_and_a_purge_leaves_it(store: SQLAlchemyStore, tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/shop.db") as same, SQLAlchemyStore(same._engine, "autumn") as other:
        store.note(ENTRY)
        store.purge()
        assert other.trail() == []
        assert [entry.command for entry in same.trail()] == ["restock"]


def test_a_number_is_never_used_again(store: SQLAlchemyStore) -> None:
    store.note(ENTRY)
    with store.transaction() as connection:
        connection.execute(text("DELETE FROM flashsale_audit"))
    assert store.note(ENTRY) == 2


# -- in the transaction of the command ------------------------------------------------------------------------------


def test_a_row_is_committed_with_what_the_command_writes(each_store: Any) -> None:
    with each_store.noting(ENTRY) as note:
        each_store.goods()
        assert each_store.trail() == []  # to read is to write nothing
        goods = each_store.restock("phone", 5)
        begun = each_store.trail()
        assert [(entry.command, entry.actor, entry.after) for entry in begun] == [("restock", "Zoë", None)]
        each_store.restock("phone", 1)  # it goes on, in the same row
        note.finish({"total": goods.total + 1})
    assert each_store.trail() == [replace(begun[0], after={"total": 16})]
    assert total(each_store) == 16
    each_store.restock("phone", 1)
    assert len(each_store.trail()) == 1


WRITES = {
    "put_goods": lambda store: store.put_goods(Goods("case", 1)),
    "grant": lambda store: store.grant("phone", 11),
    "restock": lambda store: store.restock("phone", 1),
    "restock_once": lambda store: store.restock_once("phone", 1, "r-1"),
    "advance_epoch": lambda store: store.advance_epoch(),
    "purge": lambda store: store.purge(),
    "save": lambda store: store.save([order(2)]),
    "settle": lambda store: store.settle(order(1), OrderState.CONFIRMED),
    "settle_many": lambda store: store.settle_many([order(1)], OrderState.EXPIRED),
    "delivered": lambda store: store.delivered([1]),
    "postpone": lambda store: store.postpone(1, None),
    "requeue_events": lambda store: store.requeue_events(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_each_method_that_writes_carries_the_row(store: SQLAlchemyStore, write: Any) -> None:
    store.save([order(1)])
    with store.noting(ENTRY):
        write(store)
        assert [entry.after for entry in store.trail()] == [None]


def test_what_is_rolled_back_leaves_no_row_until_the_end(each_store: Any) -> None:
    each_store.save([order(1)])
    other = Order("o-1", "phone", "someone-else", 1)
    with pytest.raises(FlashSaleError), each_store.noting(ENTRY):
        try:
            each_store.settle(other, OrderState.CANCELLED)
        finally:
            assert each_store.trail() == []
    (entry,) = each_store.trail()
    assert str(entry.after and entry.after["error"]).startswith("OrderConflict: ")
    assert "someone-else" not in json.dumps(entry.after)


def test_a_commit_that_fails_takes_the_row_with_it(fresh_postgres_url: str) -> None:
    """A rule of the host's that PostgreSQL looks at when it commits."""
    rule = """
        CREATE TABLE known (n int PRIMARY KEY);
        CREATE TABLE raised (n int REFERENCES known DEFERRABLE INITIALLY DEFERRED);
        CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO raised VALUES (NEW.total); RETURN NEW; END';
        CREATE TRIGGER note_it AFTER UPDATE ON flashsale_goods FOR EACH ROW EXECUTE FUNCTION note_it()
    """
    with opened(fresh_postgres_url) as store:
        with store.transaction() as connection:
            connection.exec_driver_sql(rule)
        with store.noting(ENTRY) as note:
            with pytest.raises(RowRefused):
                store.restock("phone", 5)
            assert store.trail() == []
            with store.transaction() as connection:
                connection.exec_driver_sql("INSERT INTO known VALUES (16)")
            store.restock("phone", 6)
            assert [entry.after for entry in store.trail()] == [None]
            note.finish({"total": 16})
        assert [entry.after for entry in store.trail()] == [{"total": 16}]
        assert total(store) == 16


def test_a_command_that_writes_nothing_is_written_at_its_end(store: SQLAlchemyStore) -> None:
    with store.noting(ENTRY) as note:
        note.finish({"state": "paused"})
        assert store.trail() == []
    with store.noting(TrailEntry("resume", "ann", "shop-1", 1.0)):
        pass
    assert [entry.after for entry in store.trail()] == [{"state": "paused"}, {}]


def test_a_command_that_fails_leaves_the_type_of_its_error(store: SQLAlchemyStore) -> None:
    with pytest.raises(ZeroDivisionError), store.noting(ENTRY):
        store.restock("phone", 5)
        raise ZeroDivisionError("secret-buyer")
    with pytest.raises(InvalidRequest), store.noting(ENTRY):
        raise InvalidRequest("units", "must not be 0")
    with pytest.raises(KeyboardInterrupt), store.noting(ENTRY):
        raise KeyboardInterrupt
    written = ["ZeroDivisionError", "InvalidRequest: units: must not be 0", "KeyboardInterrupt"]
    assert [entry.after for entry in store.trail()] == [{"error": each} for each in written]


def test_buyers_at_the_same_time_write_no_row(store: SQLAlchemyStore) -> None:
    def buy() -> None:
        store.save([order(1)])

    with store.noting(ENTRY):
        buyer = threading.Thread(target=buy)
        buyer.start()
        buyer.join()
        assert store.states(["o-1"])
        assert store.trail() == []
        store.restock("phone", 1)
        assert len(store.trail()) == 1


@pytest.fixture
async def astore(tmp_path: Path) -> AsyncIterator[flashsale.aio.stores.SQLAlchemyStore]:
    """The same for asyncio."""
    async with flashsale.aio.stores.SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "spring") as store:
        await store.create_all()
        await store.put_goods(Goods("phone", 10))
        yield store


async def test_tasks_at_the_same_time_write_no_row(astore: flashsale.aio.stores.SQLAlchemyStore) -> None:
    begun, wait = asyncio.Event(), asyncio.Event()

    async def buy() -> None:
        begun.set()
        await wait.wait()
        await astore.save([order(1)])

    buyer = asyncio.create_task(buy())
    await begun.wait()
    async with astore.noting(ENTRY) as note:
        wait.set()
        await buyer
        assert (await astore.trail(), await astore.states(["o-1"])) == ([], {"o-1": OrderState.PERSISTED})
        note.finish({"total": (await astore.restock("phone", 5)).total})
        assert [entry.after for entry in await astore.trail()] == [None]
    assert [entry.after for entry in await astore.trail(last=True)] == [{"total": 15}]


async def test_what_a_command_does_at_once_is_one_row(astore: flashsale.aio.stores.SQLAlchemyStore) -> None:
    async with astore.noting(ENTRY) as note:
        await asyncio.gather(*(astore.restock("phone", 1) for _ in range(5)))
        note.finish({"total": 15})
    assert [entry.after for entry in await astore.trail()] == [{"total": 15}]


async def test_a_command_that_was_cancelled_says_so(astore: flashsale.aio.stores.SQLAlchemyStore) -> None:
    async def command() -> None:
        async with astore.noting(ENTRY):
            await astore.restock("phone", 5)
            begun.set()
            await asyncio.Event().wait()

    begun, task = asyncio.Event(), asyncio.create_task(command())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [entry.after for entry in await astore.trail()] == [{"error": "CancelledError"}]


def test_another_sale_in_the_same_thread_writes_no_row(store: SQLAlchemyStore, tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/other.db") as other, store.noting(ENTRY):
        other.restock("phone", 1)
        assert (other.trail(), store.trail()) == ([], [])


@promises(
    {
        "the entry in the transaction": test_a_row_is_committed_with_what_the_command_writes,
        "the entry is rolled back": test_what_is_rolled_back_leaves_no_row_until_the_end,
        "an entry is of its thread": test_buyers_at_the_same_time_write_no_row,
        "one row of a command": test_a_row_is_committed_with_what_the_command_writes,
    }
)
def test_without_its_mechanism_the_trail_is_another(store: SQLAlchemyStore, promise: Any) -> None:
    promise(store)


# -- a database that fails ------------------------------------------------------------------------------------------


class Unanswered(SQLAlchemyStore):
    """The answer to the next COMMIT is lost, once it was carried out, or before."""

    lost: str = ""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        lost, self.lost = self.lost, ""
        with super().transaction() as connection:
            yield connection
            if lost == "before":
                raise OutcomeUnknown("no answer")
        if lost == "after":
            raise OutcomeUnknown("no answer")


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize("again", [True, False])
def test_a_commit_without_an_answer_leaves_one_row(tmp_path: Path, lost: str, again: bool) -> None:
    with opened(f"sqlite:///{tmp_path}/shop.db", Unanswered) as store:
        assert isinstance(store, Unanswered)
        with contextlib.suppress(OutcomeUnknown), store.noting(ENTRY) as note:
            store.lost = lost
            try:
                store.restock("phone", 5)
            except OutcomeUnknown:
                if not again:
                    raise
                store.restock("phone", 0)
            note.finish({"total": 15})
        after = {"total": 15} if again else {"error": "OutcomeUnknown: no answer"}
        assert [entry.after for entry in store.trail()] == [after]
        assert total(store) == (15 if lost == "after" else 10)


def test_a_number_that_was_rolled_back_is_not_taken_for_ours(tmp_path: Path) -> None:
    """SQLite gives it to the next one."""
    with opened(f"sqlite:///{tmp_path}/shop.db", Unanswered) as store:
        assert isinstance(store, Unanswered)
        with pytest.raises(OutcomeUnknown), store.noting(ENTRY):
            store.lost = "before"
            try:
                store.restock("phone", 5)
            finally:
                store.note(TrailEntry("pause", "ann", "shop-2", 1.0))
        assert [(entry.command, entry.after) for entry in store.trail()] == [
            ("pause", None), ("restock", {"error": "OutcomeUnknown: no answer"})
        ]  # fmt: skip


def test_a_command_without_a_table_for_its_entry_is_undone(store: SQLAlchemyStore, caplog: Any) -> None:
    with store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE flashsale_audit")
    with pytest.raises(StoreError), store.noting(ENTRY):
        store.restock("phone", 5)
    assert total(store) == 10
    assert "not written to the trail" in caplog.text


def test_an_entry_that_no_database_takes_is_logged(store: SQLAlchemyStore, caplog: Any) -> None:
    with store.noting(ENTRY) as note, store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE flashsale_audit")
        note.finish({"state": "paused"})
    (line,) = caplog.messages
    said = json.loads(line.removeprefix("not written to the trail: "))
    assert (said["command"], said["actor"], said["after"]) == ("restock", "Zoë", {"state": "paused"})


@pytest.mark.parametrize("store", [None, object()], ids=["no store", "a store without a trail"])
def test_without_a_trail_the_entry_is_logged(store: Any, caplog: Any) -> None:
    with pytest.raises(ZeroDivisionError), noting(store, ENTRY):
        raise ZeroDivisionError
    with noting(store, ENTRY) as note:
        note.finish({"total": 15})
    said = [json.loads(line.removeprefix("not written to the trail: ")) for line in caplog.messages]
    assert [each["after"] for each in said] == [{"error": "ZeroDivisionError"}, {"total": 15}]
    assert trail(store) is None


def test_a_store_with_a_trail_is_asked_for_it(store: SQLAlchemyStore) -> None:
    with noting(store, ENTRY) as note:
        note.finish({"total": 15})
    assert trail(store, last=True) == store.trail()
    assert [entry.after for entry in trail(store) or ()] == [{"total": 15}]


def test_a_row_that_somebody_else_wrote_says_so(store: SQLAlchemyStore) -> None:
    store.note(ENTRY)
    with store.transaction() as connection:
        connection.execute(text("UPDATE flashsale_audit SET arguments = '{secret-buyer'"))
    with pytest.raises(StoreError, match="a row of the trail") as caught:
        store.trail()
    assert "secret-buyer" not in str(caught.value)


# -- transactions of the host's -------------------------------------------------------------------------------------


def test_a_transaction_of_the_hosts_carries_no_row(store: SQLAlchemyStore) -> None:
    """It may end after the command has."""
    store.save([order(1)])
    with store.noting(ENTRY) as note:
        with store._engine.begin() as connection:
            note.finish({"state": store.joined(connection).settle(order(1), OrderState.CONFIRMED)})
        assert store.trail() == []
    assert [entry.after for entry in store.trail()] == [{"state": "CONFIRMED"}]


def test_inside_atomic_the_row_is_the_hosts_to_commit() -> None:
    store = DjangoStore("trail-atomic")
    store.put_goods(Goods("phone", 10))
    for is_kept in (False, True):
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            with store.noting(ENTRY) as note:
                note.finish({"total": store.restock("phone", 5).total})
            assert [entry.after for entry in store.trail()] == [{"total": 15}]
            if not is_kept:
                raise ZeroDivisionError
        assert (total(store), len(store.trail())) == ((15, 1) if is_kept else (10, 0))


def test_the_admin_shows_the_trail_and_changes_nothing_in_it() -> None:
    number = DjangoStore("trail-admin").note(ENTRY)
    client = Client()
    client.force_login(User.objects.create_superuser("zoe"))
    trail = "/admin/flashsale/saletrail/"
    with override_settings(ROOT_URLCONF=(path("admin/", site.urls),)):
        assert "Trail" in client.get("/admin/").content.decode()
        shown = client.get(f"{trail}?sale=trail-admin").content.decode()
        entry = client.get(f"{trail}{number}/change/").content.decode()
        answers = [
            client.post(f"{trail}{where}").status_code for where in ("add/", f"{number}/change/", f"{number}/delete/")
        ]
    assert "Nov. 14, 2023, 4:13 p.m." in shown  # in the zone of the project
    assert "noch 5 übrig" in entry
    assert "_save" not in entry
    assert answers == [403] * 3
    assert SaleTrail.objects.filter(entry_id=number).exists()
