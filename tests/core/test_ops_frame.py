"""What all commands of an operator share: exit codes, JSON, confirmation, dry runs, the trail, an unknown sale."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
import redis

from flashsale import FlashSale, Goods, Syncer
from flashsale._sync.stores.trailed import TrailedRowStore
from flashsale.cli import main
from flashsale.ops import clock
from flashsale.ops.frame import Kind
from flashsale.ops.verbs import VERBS
from tests.support.operator import MOMENT

if TYPE_CHECKING:
    from tests.support.operator import Operator

NOWHERE = "redis://127.0.0.1:1/0"


def test_a_change_is_shown_before_and_after(operator: Operator) -> None:
    operator.begin()
    told = operator("pause")
    assert (told.code, told.out) == (0, "sale spring  open -> paused\n")
    assert operator("resume").out == "sale spring  paused -> open\n"


def test_every_change_has_a_dry_run_that_changes_nothing(operator: Operator) -> None:
    operator.begin()
    told = operator("pause", "--dry-run")
    assert told.code == 0
    assert "nothing was changed" in told.out
    assert operator.sale._meta.state().state == "open"
    assert not told.trail


def test_json_is_one_object_with_a_version(operator: Operator) -> None:
    operator.begin()
    told = operator("pause", "--json").json
    assert (told["v"], told["command"], told["sale"], told["ok"], told["exit"]) == (1, "pause", "spring", True, 0)
    assert (told["before"], told["after"]) == ({"state": "open"}, {"state": "paused"})


def test_errors_are_json_too(operator: Operator) -> None:
    operator.begin()
    told = operator("stop", "phnoe", "--json")
    assert told.json["exit"] == told.code == 2
    assert told.json["error"] == "sale spring has no item 'phnoe'; it has phone"
    assert told.json["error"] in told.err
    usage = operator("stop", "--json")
    assert usage.json["exit"] == usage.code == 2
    assert "GOODS" in usage.json["error"]
    assert "Traceback" not in told.err + usage.err


def test_in_a_script_what_asks_does_nothing_without_yes(operator: Operator) -> None:
    operator.begin()
    told = operator("stop", "phone")
    assert told.code == 4
    assert "--yes" in told.err
    assert operator("stop", "phone", "--json").json["exit"] == 4
    assert operator.sale.gate.state("phone").started
    assert operator("stop", "phone", "--yes").code == 0
    assert not operator.sale.gate.state("phone").started


def test_on_a_terminal_the_sales_name_is_typed(operator: Operator) -> None:
    operator.begin()
    told = operator("stop", "phone", typed="phone")
    assert (told.code, "spring" in told.err) == (4, True)
    assert operator.sale.gate.state("phone").started
    assert operator("stop", "phone", typed="spring").code == 0
    assert not operator.sale.gate.state("phone").started


def test_an_unknown_sale_is_named_with_those_there_are(operator: Operator) -> None:
    operator.begin()
    for words in (["goods", "list"], ["pause"], ["audit"], ["export"]):
        told = operator(
            *words, "--sale", "sprung", "--redis", operator.redis_url, "--database", operator.database, where=False
        )
        assert told.code == 2
        assert "'sprung'" in told.err
        assert "the database has spring" in told.err


def test_without_redis_nothing_can_be_told(operator: Operator) -> None:
    operator.begin()
    for words in (["goods", "list"], ["pause"], ["doctor"], ["orders", "show", "o-1"]):
        told = operator(*words, "--sale", "spring", "--redis", NOWHERE, "--database", operator.database, where=False)
        assert told.code == 3, told
        assert "no connection to Redis" in told.err


def test_ctrl_c_ends_a_command(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()

    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("flashsale.ops.frame.noting", interrupted)
    assert operator("pause").code == 130


def test_the_trail_says_who_did_what_and_why(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    (entry,) = operator("pause", "--as", "mia", "--reason", "wrong price").trail
    assert (entry["command"], entry["actor"], entry["reason"]) == ("pause", "mia", "wrong price")
    assert (entry["before"], entry["after"]) == ({"state": "open"}, {"state": "paused"})
    monkeypatch.setenv("FLASHSALE_OPERATOR", "nils")
    (entry,) = operator("stop", "phone", "--yes").trail
    assert (entry["actor"], entry["arguments"]) == ("nils", {"goods_id": "phone"})
    monkeypatch.delenv("FLASHSALE_OPERATOR")
    monkeypatch.setenv("LOGNAME", "ola")
    assert operator("resume").trail[0]["actor"] == "ola"


def test_a_change_that_fails_is_in_the_trail_without_an_end(operator: Operator) -> None:
    operator.begin()
    told = operator("orders", "confirm", "o-1", "--expect", "state=DEAD")
    assert told.code == 2
    operator.buy("o-1")
    operator.sale.queue._link.command("DEL", operator.sale.keys.meta)
    told = operator("rebuild", "--yes", "--as", "mia")
    assert told.trail[0]["after"] is not None


@pytest.mark.parametrize(
    "words",
    [
        ["goods", "set", "phone", "--hold", "60"],
        ["restock", "phone", "+1", "--reason", "why"],
        ["orders", "cancel", "o-1", "--reason", "why", "--yes"],
        ["orders", "cancel", "o-1", "--reason", "why", "--yes", "--expect", "state=PERSISTED"],
        ["orders", "confirm", "o-1", "--expect", "buyer_id=ann"],
    ],
    ids=lambda words: " ".join(words[:2] + words[-1:]),
)
def test_the_entry_is_committed_with_what_the_command_writes(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A command that is killed after its commit has left its entry, without an end."""
    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    monkeypatch.setattr(TrailedRowStore, "_end", lambda self, note: None)
    assert operator("goods", "set", "phone", "--hold", "60", "--expect", "total=9").trail == []
    told = operator(*words)
    assert told.code == 0
    (entry,) = told.trail
    assert (entry["command"], entry["after"]) == (" ".join(words[: 1 + (words[0] != "restock")]), None)


def test_pause_and_stop_work_without_the_database(operator: Operator) -> None:
    operator.begin()
    where = ["--sale", "spring", "--redis", operator.redis_url]
    assert operator("pause", *where, where=False).trail
    assert operator("stop", "phone", "--yes", *where, where=False).trail
    assert operator.sale._meta.state().state == "paused"
    assert operator.store.trail() == []
    operator.raw.rpush(operator.sale.keys.trail, "not ours")
    operator.syncer.run_once()
    assert [entry.command for entry in operator.store.trail()] == ["pause", "stop"]
    assert not operator.raw.exists(operator.sale.keys.trail)
    broken = ["--database", "postgresql://127.0.0.1:1/none"]
    assert operator("resume", *where, *broken, where=False).code == 0
    assert operator.sale._meta.state().state == "open"


def test_what_needs_a_reason_does_nothing_without(operator: Operator) -> None:
    operator.begin()
    told = operator("restock", "phone", "+1")
    assert (told.code, "--reason" in told.err) == (2, True)
    assert operator.sale.inventory.stock("phone").total == 10
    assert operator("restock", "phone", "+1", "--dry-run").code == 0


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_commands_help_says_what_it_takes(verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb.name.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert ("--dry-run" in shown) is (verb.kind is Kind.CHANGE)
    assert all(option in shown for option in ("--redis", "--database", "--sale"))
    assert all(field in shown for field in verb.expects)
    own, common = shown.split("\nof every command (flashsale --help says more):\n")
    assert len(common.splitlines()) <= 11  # it is read once
    assert "--redis" not in own


def test_the_sale_may_come_from_the_environment(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    monkeypatch.setenv("FLASHSALE_SALE", "spring")
    monkeypatch.setenv("FLASHSALE_REDIS_URL", operator.redis_url)
    assert json.loads(operator("goods", "list", "--json", where=False).out)["goods"][0]["goods"] == "phone"


def test_the_gate_may_have_a_redis_of_its_own(operator: Operator) -> None:
    other = f"{operator.redis_url.removesuffix('/0')}/1"
    operator.store.create_all()
    operator.store.put_goods(Goods("phone", 10))
    with (
        redis.Redis.from_url(other) as gate,
        FlashSale(operator.raw, "spring", gate_client=gate, store=operator.store) as sale,
    ):
        Syncer(sale).run_once()
        assert operator("open", "phone", "--gate-redis", other).code == 0
        assert sale.gate.state("phone").started


# -- the trail ------------------------------------------------------------------------------------------------------


def test_the_trail_lists_what_operators_did(operator: Operator) -> None:
    operator.begin()
    assert operator("trail").out == "no entries\n"
    operator("restock", "phone", "+1", "--reason", "found one", "--as", "ann", "--request-id", "r-1")
    operator("stop", "phone", "--yes", "--as", "bob")
    lines = operator("trail").out.splitlines()
    assert re.fullmatch(rf"#\d+  {MOMENT}  ann on \S+  restock goods_id=phone units=1 request_id=r-1", lines[0])
    assert lines[1:3] == ["  total=10 booked=0 -> total=11", "  why: found one"]
    assert lines[3].split("  ")[2:] == [f"bob on {socket.gethostname()}", "stop goods_id=phone"]
    (entry,) = operator("trail", "--last", "1", "--json").json["trail"]
    assert (entry["actor"], entry["command"], entry["reason"]) == ("bob", "stop", None)
    assert len(operator("trail", "--since", "1h", "--json").json["trail"]) == 2
    assert operator("trail", "--since", str(int(time.time()) + 60)).out == "no entries\n"
    assert operator("trail", "--since", "soon").code == 2
    assert operator("trail", "--database", operator.database, "--sale", "spring", where=False).out.startswith("#")


# -- moments --------------------------------------------------------------------------------------------------------


def at(text: str) -> float:
    return clock.datetime.fromisoformat(text).timestamp()


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-10-24T20:00+02:00"),
        ("+90s", "2026-10-24T20:01:30+02:00"),
        ("+2h", "2026-10-24T22:00+02:00"),
        ("21:00", "2026-10-24T21:00+02:00"),
        ("20:00", "2026-10-25T20:00+01:00"),  # tomorrow: in that night the clock is set back
        ("2026-11-11T21:00", "2026-11-11T21:00+01:00"),
        ("2026-11-11T21:00Z", "2026-11-11T22:00+01:00"),
        ("1793653200", "2026-11-02T22:00+01:00"),
    ],
)
def test_a_time_is_read_in_the_operators_zone(in_berlin, text: str, moment: str) -> None:
    assert clock.read(text, at("2026-10-24T20:00+02:00")) == at(moment)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30m", "2026-10-25T19:30+01:00"),
        ("19:00", "2026-10-25T19:00+01:00"),
        ("21:00", "2026-10-24T21:00+02:00"),  # yesterday: in that night the clock was set back
        ("2026-10-01T21:00", "2026-10-01T21:00+02:00"),
    ],
)
def test_a_time_that_has_been_is_the_last_one(in_berlin, text: str, moment: str) -> None:
    assert clock.read_past(text, at("2026-10-25T20:00+01:00")) == at(moment)


@pytest.mark.parametrize("text", ["25:00", "soon", "", "+5", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        clock.read(text, 0.0)


def test_a_moment_is_shown_in_the_operators_zone(in_berlin) -> None:
    now = at("2026-11-11T17:48+01:00")
    assert clock.away(at("2026-11-11T21:00+01:00"), now) == "21:00:00 (in 3 h 12 min by Redis's clock)"
    assert clock.away(at("2026-11-10T17:48+01:00"), now) == "2026-11-10 17:48:00 CET (1 d ago by Redis's clock)"
