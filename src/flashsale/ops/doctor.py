"""The command `doctor`: what of servers, rights and items may spoil the sale."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import chain
from typing import Any, Final, NamedTuple

from flashsale._rules.activity import is_silent
from flashsale._rules.server_check import judge
from flashsale._sync.transport.link import Link
from flashsale.errors import CorruptState, NotExecuted, OutcomeUnknown, StoreError, UnknownGoods
from flashsale.model.snapshot import Process, Snapshot
from flashsale.ops import clock
from flashsale.ops import goods as listed
from flashsale.ops.frame import ATTENTION, Context, Outcome, Verb
from flashsale.ops.health import count, in_state, of_partitions, told
from flashsale.ops.sale import missing
from flashsale.ops.words import counted, need_attention, noted

SKEW: Final = 1.0  # seconds that this host's clock may be wrong: it judges tickets
FULL: Final = 0.8  # of maxmemory
MOST: Final = 100  # dead events that are counted
LIVING: Final = 60.0  # seconds since the last heartbeat of a web process: one that sells nothing tells seldom
NO_LEADER: Final = 5.0  # seconds since the last syncer led

TRIALS: Final = """\
PING; SELECT 0; INFO; TIME; EVAL x 0; EVALSHA x 0; SCRIPT LOAD x; EXISTS k; GET k; MGET k; SET k v; GETSET k v;
SETNX k v; INCRBY k 1; DECRBY k 1; UNLINK k; HGET k f; HGETALL k; HMGET k f; HSET k f v; HSETNX k f v;
HDEL k f; HINCRBY k f 1; HLEN k; HSCAN k 0; LINDEX k 0; LLEN k; LPUSH k v; LRANGE k 0 1; RPUSH k v; RPOP k;
BLPOP k 1; BRPOP k 1; SADD k m; SISMEMBER k m; SMEMBERS k; ZADD k 1 m; ZCARD k; ZMSCORE k m; ZRANGEBYSCORE k 0 1;
ZREM k m; ZSCORE k m"""
"""Each command that a worker, a syncer or an operator calls; `k` is a key of the sale."""


class Finding(NamedTuple):
    """What was found.

    Args:
        about: redis, acl, clock, sale, an item, database.
        text: what is so, and what to do.
        is_bad: it wants attention; else it is only good to know.
    """

    about: str
    text: str
    is_bad: bool = True


Findings = Iterator[Finding]


def _add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--replicas", type=int, default=0, metavar="N", help="how many replicas the Redis should have (0)")


def _doctor(context: Context) -> Outcome:
    found: list[Finding] = []
    for look in (_redis, _memory, _gate, _clock, _rights, _sale, _processes, _items, _database, _events, _triggers):
        found += _looked(context, look)
    bad = [each for each in found if each.is_bad]
    lines = [f"{'! ' if each.is_bad else '  '}{each.about}: {each.text}" for each in sorted(found, key=_bad_first)]
    lines.append(need_attention(len(bad)) if bad else "nothing needs attention")
    data = {"findings": [each._asdict() for each in found], "version": version("flashsale")}
    return Outcome(lines, data, ATTENTION if bad else 0)


def _bad_first(finding: Finding) -> bool:
    return not finding.is_bad


def _looked(context: Context, look: Any) -> list[Finding]:
    """Returns what one look finds; what fails in it is a finding, too, unless no Redis answers."""
    try:
        return list(look(context))
    except (NotExecuted, StoreError, CorruptState) as error:
        if isinstance(error, NotExecuted) and error.reason != "NOPERM" and not any(context.overview.infos().values()):
            raise
        return [Finding(look.__name__.strip("_"), f"cannot be looked at: {error}")]


# -- Redis ----------------------------------------------------------------------------------------------------------


def _redis(context: Context) -> Findings:
    for finding in context.sale.check(replicas=context.options.replicas):
        yield Finding(finding.name, finding.message)
    for where, info in context.overview.infos().items():
        if info:
            name = "Valkey" if "valkey_version" in info else "Redis"
            release = info.get("valkey_version") or info.get("redis_version", "?")
            text = f"{_of(where)}{name} {release}, {info.get('role', '?')}"
            yield Finding("redis", text, is_bad=info.get("role") == "slave")


def _of(where: str) -> str:
    """Returns how a finding about one of several servers begins: with the partitions that it has."""
    return f"{where}: " if where else ""


def _memory(context: Context) -> Findings:
    for where, info in context.overview.infos().items():
        for finding in _memory_of(info):
            yield finding._replace(text=f"{_of(where)}{finding.text}")


def _memory_of(info: Mapping[str, str]) -> Findings:
    used, most = (count(info, name) for name in ("used_memory", "maxmemory"))
    if most and used > FULL * most:
        yield Finding("memory", f"{100 * used / most:.0f} % of maxmemory is used: raise it before Redis is full")
    elif info:
        limit = f"of {most / 2**20:,.0f} MiB" if most else "without a limit"
        yield Finding("memory", f"{used / 2**20:,.0f} MiB used {limit}", is_bad=False)
    if evicted := count(info, "evicted_keys"):
        yield Finding("eviction", f"{evicted:,} keys were evicted since Redis started: rebuild, if one was of the sale")
    for name in ("aof_last_write_status", "aof_last_bgrewrite_status"):
        if info.get("aof_enabled") == "1" and info.get(name, "ok") != "ok":
            yield Finding("persistence", f"{name} is {info[name]}: is the disk full?")


def _gate(context: Context) -> Findings:
    if not context.sale._one_redis:
        for finding in judge(context.sale._gate_link.info(), replicas=0):
            if finding.name != "persistence":  # its counters follow the stock
                yield Finding(finding.name, f"the gate's Redis: {finding.message}")


def _clock(context: Context) -> Findings:
    before = time.time()
    there = context.now()
    skew = there - (before + time.time()) / 2
    if abs(skew) > SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        yield Finding("clock", f"Redis is {clock.span(abs(skew))} {ahead} this host: it opens the sale; set it right")
    else:
        yield Finding("clock", f"Redis and this host differ by {abs(skew):.2f} s", is_bad=False)


# -- rights ---------------------------------------------------------------------------------------------------------


def _rights(context: Context) -> Findings:
    """Tries each command by ACL DRYRUN, which changes nothing, on each server."""
    for where, link in context.overview.servers().items():
        yield _rights_at(link, context.overview.key, _of(where))


def _rights_at(link: Link, key: str, where: str) -> Finding:
    try:
        user = link.command("ACL", "WHOAMI")
        denied = [words[0] for words in _trials(key) if not _may(link, user, words)]
    except (NotExecuted, OutcomeUnknown) as error:  # an older Redis does not know the word
        return Finding("acl", f"{where}the rights cannot be tried: {_why_not(error)}", is_bad=False)
    if denied:
        text = f"{where}user {user.decode()} may not call {', '.join(denied)}: see the page Operating"
        return Finding("acl", text)
    return Finding("acl", f"{where}user {user.decode()} may call all commands", is_bad=False)


def _why_not(error: Exception) -> str:
    if getattr(error, "reason", None) == "NOPERM":
        return "this user may not: '+acl|whoami' '+acl|dryrun' let it"
    return "ACL DRYRUN needs Redis 7" if "answered with an error" in str(error) else str(error)


def _trials(key: str) -> list[list[str]]:
    texts = [text.split() for text in TRIALS.split(";")]
    return [[key if word == "k" else word for word in words] for words in texts]


def _may(link: Link, user: bytes, words: list[str]) -> bool:
    return bool(link.command("ACL", "DRYRUN", user, *words) == b"OK")


# -- the sale -------------------------------------------------------------------------------------------------------


def _sale(context: Context) -> Findings:
    sale = context.sale
    state, epoch, seq = context.overview.state()
    layout, led = context.overview.layout_and_lead()
    parts = f", {sale.partitions} partitions" if sale.partitions > 1 else ""
    is_over = epoch is None and context.is_purged()
    there = f"{state}, epoch {epoch}, layout {layout}" if epoch is not None or state != "open" else "not in Redis yet"
    text = f"{'purged' if is_over else there}{parts}, flashsale {version('flashsale')} here"
    yield Finding("sale", text, is_bad=False)
    look = sale._recorder.look()
    if state != "open":
        where = in_state(look, state)
        yield Finding("sale", f"it is paused{where}: resume" if state == "paused" else f"it is closed{where}: rebuild")
    for found in of_partitions(look):
        yield Finding("sale", found.text)
    if seq is None:
        yield Finding("sale", "meta seq is not what flashsale writes: nothing is accepted until a rebuild")
    gap = context.now() - led
    if gap > NO_LEADER and not is_over:
        since = f"for {clock.span(gap)}" if led else "yet"
        yield Finding("syncer", f"no syncer has led {since}: {_syncers(look) or 'start one'}")
    if look.dead:
        yield Finding("dead", f"{counted(look.dead, 'dead letter')}: dead list")


def _processes(context: Context) -> Findings:
    """Groups the processes that live by what they run; who differs reads and writes the sale in another way."""
    look = context.sale._recorder.look()
    living = [each for each in look.processes if _lives(each, look.time)]
    groups: dict[str, list[str]] = {}
    for each in living:
        release = f"flashsale {each.version}, layout {'?' if each.layout is None else each.layout}"
        groups.setdefault(release, []).append(f"{each.kind} {each.instance}")
    differ = len(groups) > 1
    for release, names in sorted(groups.items()):
        advice = "; others differ: restart the older ones" if differ else ""
        yield Finding("processes", f"{release}: {', '.join(names)}{advice}", is_bad=differ)
    for each in look.processes:
        if each.kind != "web" and is_silent(each, look.time):
            yield Finding("processes", f"{told(each, look.time)}: end it, if it is still there")


def _lives(process: Process, now: float) -> bool:
    """Returns whether a process tells of itself; one of the web that sells nothing tells seldom."""
    return now - process.beat <= LIVING if process.kind == "web" else not is_silent(process, now)


def _syncers(look: Snapshot) -> str:
    """Returns what the syncers tell that live; empty: there are none."""
    alive = [each for each in look.processes if each.kind == "syncer" and not is_silent(each, look.time)]
    return "; ".join(told(each, look.time) for each in alive)


def _items(context: Context) -> Findings:
    rows = context.items()
    for goods_id in sorted({*context.overview.goods(), *rows}):
        row = rows.get(goods_id)
        yield from _in_redis(context, goods_id, is_loaded=row is None or row.loaded)
        if row is not None:
            yield from (Finding(goods_id, text) for text in listed.apart(listed.look(context, goods_id, row)))
        if row is None and context.opened.store is not None and rows:
            yield Finding(goods_id, "the database has no row of it")
        elif row is not None and row.hold is None:
            yield Finding(goods_id, "it has no hold: orders that nobody pays never expire", is_bad=False)
        if row is not None and row.per_buyer is None:
            yield Finding(goods_id, "it has no cap: one buyer may take all", is_bad=False)


def _in_redis(context: Context, goods_id: str, *, is_loaded: bool) -> Findings:
    try:
        stock = context.overview.stock(goods_id)
        context.overview.gate(goods_id)
    except UnknownGoods as error:
        gone = "the sale was purged: it is over" if context.is_purged() else "Redis has lost it: rebuild"
        why = gone if is_loaded else "Redis does not have it yet: the syncer loads it"
        yield Finding(goods_id, why + noted(error), is_bad=is_loaded)
    except CorruptState as error:
        yield Finding(goods_id, f"{error}{noted(error)}")
    else:
        if stock.booked > stock.total:
            yield Finding(goods_id, f"{stock.booked - stock.total:,} units more are booked than there are")


# -- the database ---------------------------------------------------------------------------------------------------


def _database(context: Context) -> Findings:
    store = context.opened.store
    if store is None:
        yield Finding("database", "none was named: it was not looked at", is_bad=False)
        return
    before = time.monotonic()
    store.goods()
    yield Finding("database", f"answers in {1000 * (time.monotonic() - before):.0f} ms", is_bad=False)
    if hasattr(store, "create_all"):
        for part in chain(*missing(store)):
            yield Finding("database", f"{part} is missing: init --upgrade")


def _events(context: Context) -> Findings:
    store = context.opened.store
    if hasattr(store, "dead_events") and (dead := store.dead_events(MOST)):
        count = f"{len(dead)} or more" if len(dead) == MOST else f"{len(dead)}"
        yield Finding(
            "outbox", f"{count} events are dead: the handler failed on order {dead[0].order.order_id}: events list"
        )


TRIGGERS: Final = {
    "sqlite": "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT r.relname, t.tgname FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid "
    "WHERE NOT t.tgisinternal AND pg_table_is_visible(r.oid)",
    "mysql": "SELECT event_object_table, trigger_name FROM information_schema.triggers "
    "WHERE trigger_schema = DATABASE()",
}
_DIALECTS: Final = {"mariadb": "mysql"}


def _triggers(context: Context) -> Findings:
    store = context.opened.store
    if store is None or not hasattr(store, "transaction"):
        return
    with store.transaction() as connection:
        dialect = _dialect(connection)
        for table, name in _rows(connection, TRIGGERS.get(_DIALECTS.get(dialect, dialect), "")):
            if str(table).startswith("flashsale_"):
                text = f"trigger '{name}' on {table}: an error of it, such as RaiseException, refuses the order"
                yield Finding("database", text, is_bad=False)


def _dialect(connection: Any) -> str:
    return str(getattr(connection, "vendor", "") or connection.dialect.name)


def _rows(connection: Any, query: str) -> list[tuple[Any, Any]]:
    if not query:
        return []
    if hasattr(connection, "vendor"):  # Django's
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    return list(connection.exec_driver_sql(query).all())


VERBS: Final = (
    Verb(
        "doctor",
        "look for what may spoil the sale",
        _doctor,
        _add,
        "Looks at the servers' settings, the user's rights, the clocks, the items and the tables. Changes nothing; "
        "exit code 1 if something needs attention.",
    ),
)
