"""The command `doctor` finds what may spoil a sale, and nothing where all is well."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from flashsale import Goods
from flashsale._rules import activity
from flashsale._rules.activity import Activity, instance
from flashsale.lua import LAYOUT
from flashsale.ops.doctor import TRIALS
from tests.support import acl, servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.operator import Operator


@pytest.fixture
def well(operator: Operator) -> Iterator[Operator]:
    """A sale with which all is well, but that this Redis keeps no append-only file: it is told that it does."""
    operator.begin(Goods("phone", 10, per_buyer=2, hold=900.0))
    operator.raw.config_set("appendonly", "yes")
    yield operator
    operator.raw.config_set("appendonly", "no")
    operator.raw.config_set("maxmemory", 0)


def bad(operator: Operator, *words: str) -> list[str]:
    """Returns what wants attention."""
    told = operator("doctor", "--json", *words)
    found = [f"{each['about']}: {each['text']}" for each in told.json["findings"] if each["is_bad"]]
    assert told.code == (1 if found else 0)
    return found


def test_nothing_is_found_where_all_is_well(well: Operator) -> None:
    assert bad(well) == []
    assert well("doctor").out.endswith("nothing needs attention\n")


def test_servers_settings_are_looked_at(well: Operator) -> None:
    well.raw.config_set("appendonly", "no")
    assert "set appendonly yes" in bad(well, "--replicas", "1")[0]
    assert "0 replicas are connected, 1 are wanted" in bad(well, "--replicas", "1")[1]
    well.raw.config_set("appendonly", "yes")
    well.raw.config_set("maxmemory", int(well.raw.info("memory")["used_memory"] * 1.1))
    assert any("of maxmemory is used" in each for each in bad(well))


def test_a_clock_that_is_wrong_is_found(well: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    from flashsale.ops import doctor

    there = doctor.time.time
    monkeypatch.setattr(doctor.time, "time", lambda: there() - 100)
    assert [each for each in bad(well) if each.startswith("clock: Redis is 1 min 40 s ahead of this host")]


def test_a_sale_without_a_syncer_is_found(well: Operator) -> None:
    well.raw.hset(well.sale.keys.meta, "leader_until", 1)
    assert any("no syncer has led for" in each for each in bad(well))
    well.raw.hdel(well.sale.keys.meta, "leader_until")
    assert "syncer: no syncer has led yet: start one" in bad(well)
    held = Activity("syncer")
    with held.doing("pass"):
        well.sale._recorder._flush(held)
    assert any("no syncer has led yet: syncer " in each and ", in pass for " in each for each in bad(well))


def test_a_paused_sale_lost_items_and_dead_letters_are_found(well: Operator) -> None:
    well.store.put_goods(Goods("case", 5))
    well.sale.start("phone")
    well.buy("o-1")
    well.sale.queue._bury(well.sale.queue.claim(1))
    well.sale.pause()
    well.raw.delete(well.sale.keys.count("phone"))
    found = bad(well)
    assert "sale: it is paused: resume" in found
    assert "dead: 1 dead letter: dead list" in found
    assert "phone: Redis has lost it: rebuild" in found
    told = well("doctor").out
    assert "case: it has no hold: orders that nobody pays never expire" in told
    assert "case: it has no cap: one buyer may take all" in told


def test_tables_that_are_behind_and_triggers_are_found(well: Operator, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("DROP TABLE flashsale_requests")
        database.execute("CREATE TRIGGER guard BEFORE INSERT ON flashsale_orders BEGIN SELECT 1; END")
    assert bad(well) == ["database: table flashsale_requests is missing: init --upgrade"]
    told = well("doctor").out
    assert "trigger 'guard' on flashsale_orders: an error of it, such as RaiseException, refuses the order" in told


def test_a_database_that_is_away_is_a_finding(well: Operator) -> None:
    where = ["--redis", well.redis_url, "--sale", "spring", "--database", "postgresql://127.0.0.1:1/none"]
    told = well("doctor", *where, where=False)
    assert (told.code, "database: cannot be looked at" in told.out) == (1, True)


def test_processes_of_different_releases_are_found(well: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = well.sale._recorder._flush
    tell(Activity("worker"))
    one = f"flashsale {version('flashsale')}, layout {LAYOUT}"
    told = well("doctor")
    assert (told.code, f"  processes: {one}: worker {instance()}" in told.out) == (0, True)
    monkeypatch.setattr(activity, "_version", lambda: "9.9")
    tell(Activity("syncer"))
    advice = "; others differ: restart the older ones"
    other = f"processes: flashsale 9.9, layout {LAYOUT}: syncer {instance()}{advice}"
    assert bad(well) == [f"processes: {one}: worker {instance()}{advice}", other]


def test_a_process_of_a_release_that_says_no_layout_is_listed(well: Operator) -> None:
    well.sale._recorder._flush(Activity("worker"))
    name, text = well.raw.hgetall(well.sale.keys.processes).popitem()
    well.raw.hset(well.sale.keys.processes, name, text.replace(f'"layout":{LAYOUT},'.encode(), b""))
    assert f"layout ?: worker {instance()}" in well("doctor").out
    beat, _, rest = text.partition(b"|")
    well.raw.hset(well.sale.keys.processes, name, b"%f|%s" % (float(beat) - 70, rest))
    told = well("doctor")
    assert (told.code, f"! processes: worker {instance()} silent since " in told.out) == (1, True)
    assert "layout ?" not in told.out


# -- rights ---------------------------------------------------------------------------------------------------------


def test_every_command_of_the_documented_user_is_tried() -> None:
    tried = {" ".join(words.split()[:1]).upper() for words in TRIALS.split(";")}
    assert tried == {name.split("|")[0] for name in acl.allowed("flashsale")}


def test_a_redis_that_cannot_try_rights_says_so(well: Operator, redis_url: str) -> None:
    assert "acl: the rights cannot be tried: this user may not" in well("doctor").out
    said = well("doctor", "--redis", redis_url, "--sale", "spring", where=False).out
    assert "acl: user default may call all commands" in said or "ACL DRYRUN needs Redis 7" in said


@pytest.fixture
def redis_7() -> Iterator[servers.RedisServer]:
    """A Redis that knows ACL DRYRUN; the wheel carries an older one."""
    with servers.redis_server() as server:
        if int(server.client().info()["redis_version"].split(".")[0]) < 7:
            pytest.skip("this Redis does not know ACL DRYRUN")
        yield server


def test_a_right_that_is_missing_is_named(redis_7: servers.RedisServer, operator: Operator) -> None:
    client = redis_7.client()
    operator.redis_url = redis_7.url
    (line,) = (words for words in acl.users() if words[2] == "flashsale")
    client.execute_command(*line, "+acl|whoami", "+acl|dryrun", "-hlen", "-zscore")
    client.execute_command("CONFIG", "SET", "appendonly", "yes")
    client.hset("flashsale:{spring}:meta", mapping={"layout": 4})
    url = redis_7.url.replace("redis://", "redis://flashsale:secret@")
    told = operator("doctor", "--redis", url, "--sale", "spring", where=False)
    assert "user flashsale may not call HLEN, ZSCORE" in told.out
    client.execute_command("ACL", "SETUSER", "flashsale", "-acl|dryrun")
    assert "'+acl|dryrun' let it" in operator("doctor", "--redis", url, "--sale", "spring", where=False).out


def test_events_that_the_outbox_gave_up_are_found(well: Operator) -> None:
    well.sale.start("phone")
    well.buy("o-1")
    well.worker.run_once()
    well.sale.confirm("o-1")
    (event,) = well.store.events(now=1e12)
    well.store.postpone(event.event_id, None)
    assert bad(well) == ["outbox: 1 events are dead: the handler failed on order o-1: events list"]
