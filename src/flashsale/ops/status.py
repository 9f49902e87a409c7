"""`status` and what `top` shows each second: one sale on one screen, and what needs attention."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from flashsale._rules.activity import delivery, left_by, silent
from flashsale.model.snapshot import AWAY, Sample, Snapshot, Totals
from flashsale.ops.clock import local, span
from flashsale.ops.frame import ATTENTION, CANNOT_TELL, DONE, Context, Outcome, Verb
from flashsale.ops.health import (
    CHECKS,
    OF_PARTITIONS,
    OF_ROWS,
    OLD,
    Attention,
    Leases,
    Rate,
    count,
    judge,
    quantile,
    rate,
    summed,
    told,
    word,
)
from flashsale.ops.words import need_attention, number, table

RECENT: Final = 300.0  # seconds of counts that are read
PARTS: Final = 16  # partitions that the screen has room for
LONG: Final = 3600.0  # seconds until an item is gone: beyond, no number is told


@dataclass(frozen=True)
class View:
    """What is known of a sale at one moment.

    Args:
        name: of the sale.
        state: of it, in a word.
        look: at all of it.
        totals: what was counted since it began.
        samples: of each item, oldest first.
        rates: how fast each item sells.
        infos: INFO of each server of the stock, by what it has of the sale, in words; empty where it does not say.
        attention: what an operator should look at.
        checks: how many were made.
        database: what is known of the database, in some words; empty: it was not asked.
    """

    name: str
    state: str
    look: Snapshot
    totals: Totals
    samples: Mapping[str, Sequence[Sample]]
    rates: Mapping[str, Rate]
    infos: Mapping[str, Mapping[str, str]]
    attention: Sequence[Attention]
    checks: int
    database: str


def see(context: Context) -> View:
    """Looks at the sale once."""
    recorder = context.sale._recorder
    look = recorder.look()
    is_told = 0 not in look.away  # there the processes tell what they count
    totals = recorder.totals() if is_told else Totals()
    recent = recorder.minute_totals(look.time - RECENT) if is_told else {}
    minutes = {minute: each.purchases for minute, each in recent.items()}
    samples = {goods.goods_id: recorder.samples(goods.goods_id) if is_told else [] for goods in look.goods}
    rates = {goods.goods_id: rate(goods, samples[goods.goods_id], minutes, look.time) for goods in look.goods}
    infos = context.overview.infos()
    is_over = look.epoch is None and context.is_purged()
    state = "PURGED" if is_over else word(look)
    rows = [] if is_over else list(context.items().values())
    attention = judge(look, totals, infos, rows, leases(context, look))
    checks = CHECKS - (0 if rows else OF_ROWS) + (OF_PARTITIONS if look.partitions else 0)
    return View(context.name, state, look, totals, samples, rates, infos, attention, checks, database(recent.values()))


def leases(context: Context, look: Snapshot) -> dict[str, Leases]:
    """Returns what silent workers still have, as far as they told, by their instance."""
    left = {process.instance: left_by(process, look.processes) for process in silent(look)}
    if not any(left.values()):
        return {}
    leased = context.overview.claims(lambda _: True)
    ends = {delivery(claim): end for claim, end in leased if end is not None}
    still = {instance: [ends[number] for number in numbers if number in ends] for instance, numbers in left.items()}
    return {instance: Leases(len(found), max(found)) for instance, found in still.items() if found}


def database(recent: Collection[Totals]) -> str:
    """Returns how long a save took of late, and how many failed, in some words; empty: nothing was saved."""
    save = summed(each.store["save"] for each in recent if "save" in each.store)
    if not sum(save.counts):
        return ""
    p95 = quantile(save, 0.95)
    errors = [item for each in recent for item in each.store_errors.items()]
    failed = sum(times for (operation, kind), times in errors if operation == "save" and kind != "RowRefused")
    took = "over a minute" if p95 is None else f"under {1000 * p95:.0f} ms"
    return f"database save p95 {took}" + (f", {number(failed)} failed within five minutes" if failed else "")


# -- as lines ---------------------------------------------------------------------------------------------------------


def lines(view: View) -> list[str]:
    """Returns the screen."""
    parts = partition_rows(view.look)
    return [
        head(view),
        *table(HEAD, item_rows(view)),
        queue(view.look),
        *(table(PART_HEAD, parts) if parts else ()),
        *_attention(view),
        *servers(view),
    ]


def head(view: View) -> str:
    """Returns the name and the state of the sale, and how many checks are well."""
    wrong = len({each.name for each in view.attention})
    said = f"{view.checks - wrong} of {view.checks} checks ok" + (f", {need_attention(wrong)}" if wrong else "")
    return f"{view.name}  {view.state}  {local(view.look.time):%H:%M:%S} by Redis   {said}"


HEAD: Final = ("goods", "total", "booked", "free", "sold/s", "refused/s", "gone in")


def item_rows(view: View) -> list[list[str]]:
    """Returns the row of each item, under `HEAD`."""
    rows = []
    for goods in view.look.goods:
        pace = view.rates[goods.goods_id]
        sold = "" if pace.sold is None else number(round(pace.sold))
        gone = "" if pace.gone_in is None else within(pace.gone_in)
        units = [number(goods.total), number(goods.booked), number(goods.free)]
        rows.append([goods.goods_id, *units, sold, number(round(pace.refused)), gone])
    return rows


PART_HEAD: Final = ("partition", "state", "total", "booked", "free", "queued", "dead", "unpaid")


def partition_rows(look: Snapshot) -> list[list[str]]:
    """Returns the row of each partition, under `PART_HEAD`, with the units of all items; of many, the odd ones first.

    None where the sale has one, or is over.
    """
    if look.epoch is None:
        return []
    parts = sorted(look.partitions, key=lambda part: (part.state == look.state and not part.lost, part.place))
    rows = []
    for part in sorted(parts[:PARTS], key=lambda part: part.place):
        units = [sum(each) for each in zip(*((it.total, it.booked, it.free) for it in part.goods), strict=True)]
        counts = [*(units or [0, 0, 0]), part.queued + part.claimed, part.dead, part.unpaid]
        rows.append([str(part.place), part.state, *("" if part.state == AWAY else number(each) for each in counts)])
    return rows


def within(seconds: float) -> str:
    """Returns a time that is guessed; a long one would jump about."""
    return span(seconds) if seconds <= LONG else "more than 1 h"


def queue(look: Snapshot) -> str:
    """Returns how many orders are where."""
    oldest = f", oldest {max(0.0, look.time - look.oldest):.1f} s" if look.oldest else ""
    where = f"on the list {number(look.queued)}{oldest}, claimed {number(look.claimed)}"
    queued = number(look.queued + look.claimed)
    return f"queued {queued} ({where})  dead {number(look.dead)}  unpaid {number(look.unpaid)}"


def _attention(view: View) -> Iterator[str]:
    for each in view.attention:
        yield f"! {each.name}  {each.text}"


def servers(view: View) -> list[str]:
    """Returns who leads and works, and how Redis and the database are."""
    first, *others = view.infos.items() or [("", {})]
    return [_leader(view.look), _server(*first, view.database), *(_server(*each, "") for each in others)]


def _leader(look: Snapshot) -> str:
    syncers = [each for each in look.processes if each.kind == "syncer"]
    others = ", ".join(each.instance for each in syncers if each.instance != look.leader)
    still = len(silent(look))
    workers = f"{sum(each.kind == 'worker' for each in look.processes) - still}" + f", silent {still}" * bool(still)
    ago = max((look.time - each.beat for each in syncers if each.instance == look.leader), default=0.0)
    quiet = f", silent for {ago:.0f} s: another leads when its lease ends" if ago > OLD else ""
    return f"leader  {look.leader or 'none'}{quiet}{f'  standby {others}' if others else ''}  workers {workers}"


def _server(name: str, info: Mapping[str, str], more: str) -> str:
    what = f"redis   {name + ': ' if name else ''}"
    if not info:
        return f"{what}does not say  {more}".rstrip()
    used, most = _bytes(info, "used_memory"), _bytes(info, "maxmemory")
    limit = f" of {most}" if most != "0 MiB" else ""
    aof = "on" if info.get("aof_enabled", "0").strip() == "1" else "off"
    replicas = info.get("connected_slaves", "0").strip()
    return f"{what}{used}{limit}, AOF {aof}, replicas {replicas}   {more}".rstrip()


def _bytes(info: Mapping[str, str], name: str) -> str:
    return f"{count(info, name) / 2**20:,.0f} MiB"


def data(view: View) -> dict[str, Any]:
    """Returns the same as JSON."""
    return {
        "state": view.state,
        "look": asdict(view.look),
        "rates": {goods_id: asdict(pace) for goods_id, pace in view.rates.items()},
        "attention": [asdict(each) for each in view.attention],
        "processes": [told(each, view.look.time) for each in view.look.processes],
    }


# -- the commands -----------------------------------------------------------------------------------------------------


def _status(context: Context) -> Outcome:
    while True:
        view = see(context)
        outcome = Outcome(lines(view), data(view), ATTENTION if view.attention else DONE)
        if context.options.watch is None:
            return outcome
        context.show([*outcome.lines, ""])
        time.sleep(context.options.watch)


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch", nargs="?", type=float, const=2.0, metavar="S", help="again every S seconds, until interrupted (2)"
    )


VERBS: Final = (
    Verb(
        "status",
        "is all well? what is sold, what waits, who works, and what needs attention",
        _status,
        _add_status,
        about=f"Exit code 0: all is well. 1: something needs attention. {CANNOT_TELL}: Redis cannot be read.",
    ),
)
