"""Is all well with a sale? What is sold a second, and what needs an operator's attention. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flashsale._rules.activity import is_silent
from flashsale._rules.codes import kept, number
from flashsale.model import Goods
from flashsale.model.snapshot import (
    BOUGHT,
    BOUNDS,
    MISSING,
    GoodsSnapshot,
    Histogram,
    Process,
    Sample,
    Snapshot,
    Totals,
)
from flashsale.ops import clock
from flashsale.ops.items import POLICY
from flashsale.ops.words import shown

OLD: Final = 10.0  # seconds that an order may wait for the database, or a step of a process may take
WINDOW: Final = 10.0  # seconds over which a rate is taken
FEW: Final = 20  # units in a window: fewer tell nothing of when an item is gone
LONGER: Final = 300.0  # seconds over which its rate is taken then
FULL: Final = 0.8  # of the memory
UNSURE: Final = 0.01  # of the purchases
NAMED: Final = 3  # workers in one line

Minutes = Mapping[int, Mapping[tuple[str, str], int]]


@dataclass(frozen=True)
class Rate:
    """How fast an item sells.

    Args:
        sold: units a second that `booked` grew by, or the purchases of the last minute, which are more where other
            units returned; None: it cannot be told yet.
        refused: purchases a second, over the last minute.
        gone_in: seconds until nothing is free, as `booked` grows, over five minutes where few are sold; None: never,
            or it cannot be told.
    """

    sold: float | None
    refused: float
    gone_in: float | None


@dataclass(frozen=True)
class Attention:
    """Something that an operator should look at.

    Args:
        name: what, in capitals.
        text: what was seen, and what helps.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Leases:
    """What a worker has claimed.

    Args:
        count: orders.
        until: when the last lease ends, epoch seconds.
    """

    count: int
    until: float


NOBODY: Final[Mapping[str, Leases]] = {}


def rate(goods: GoodsSnapshot, samples: Sequence[Sample], minutes: Minutes, now: float) -> Rate:
    """Returns how fast an item sells, by its samples and what was counted."""
    grown, units = _grown(goods, samples, now, WINDOW)
    pace = grown if units >= FEW else _grown(goods, samples, now, LONGER)[0]
    gone_in = goods.free / pace if pace and goods.free > 0 else None
    bought, refused = _counted(goods.goods_id, minutes, now)
    return Rate(max(grown or 0.0, bought) if bought else grown, refused, gone_in)


def _grown(goods: GoodsSnapshot, samples: Sequence[Sample], now: float, window: float) -> tuple[float | None, int]:
    """Returns the units a second, and the units, that `booked` grew by; None: it cannot be told yet."""
    first = next((sample for sample in samples if sample.time >= now - window), None)
    if first is None or now <= first.time:
        return None, 0
    units = max(0, goods.booked - first.booked)
    return units / (now - first.time), units


def _counted(goods_id: str, minutes: Minutes, now: float) -> tuple[float, float]:
    """Returns how many purchases a second were accepted and were refused, over the last minute and this one."""
    minute, counts = int(now) // 60, Counter[bool]()
    for each in (minute - 1, minute):
        for (name, outcome), times in minutes.get(each, {}).items():
            counts[outcome in BOUGHT] += times if name == goods_id else 0
    seconds = 60 + now % 60
    return counts[True] / seconds, counts[False] / seconds


def quantile(times: Histogram, share: float) -> float | None:
    """Returns the upper bound, in seconds, under which so large a share of them is; None: there are none, or above all.

    >>> quantile(Histogram((9, 1, *[0] * 12), 0.05), 0.5)
    0.005
    """
    total, passed = sum(times.counts), 0
    for bound, found in zip(BOUNDS, times.counts, strict=False):
        passed += found
        if total and passed >= share * total:
            return bound
    return None


def summed(histograms: Iterable[Histogram]) -> Histogram:
    """Returns the sum of histograms.

    >>> summed([Histogram((1, *[0] * 13), 1.0), Histogram((2, *[0] * 13), 0.5)]).seconds
    1.5
    """
    found = [*histograms, Histogram()]
    counts = tuple(map(sum, zip(*(each.counts for each in found), strict=True)))
    return Histogram(counts, sum(each.seconds for each in found))


def word(look: Snapshot) -> str:
    """Returns the state of a sale in one word."""
    if look.epoch is None and not look.goods:
        return "NOT THERE"
    if look.state != "open":
        return look.state.upper()
    if all(goods.free <= 0 for goods in look.goods):
        return "SOLD OUT"
    if not any(_is_open(goods, look.time) for goods in look.goods):
        ended = all(goods.closes_at and goods.closes_at <= look.time for goods in look.goods)
        return "ENDED" if ended else "NOT OPEN"
    return "SELLING"


def _is_open(goods: GoodsSnapshot, now: float) -> bool:
    if goods.closes_at and goods.closes_at <= now:
        return False
    return goods.started or bool(goods.opens_at and goods.opens_at <= now)


# -- what needs attention -------------------------------------------------------------------------------------------

CHECKS: Final = 10
OF_ROWS: Final = 2  # of them need the rows of the database
OF_PARTITIONS: Final = 2  # more, of a sale that has them


def judge(
    look: Snapshot,
    totals: Totals,
    infos: Mapping[str, Mapping[str, str]],
    rows: Sequence[Goods] = (),
    leases: Mapping[str, Leases] = NOBODY,
) -> list[Attention]:
    """Returns what needs attention; empty when all is well.

    Args:
        look: at the sale.
        totals: what was counted.
        infos: INFO of each server of the stock, by what it has of the sale, in words; empty where it does not say.
        rows: of the items in the database.
        leases: what silent workers still have, by their instance.
    """
    return [
        *_state(look),
        *_missing(look, rows),
        *_policy(look, rows),
        *_queue(look),
        *_dead(look),
        *_leader(look),
        *_silent(look, leases),
        *_oversold(look),
        *_uncertain(totals),
        *(found for name, info in infos.items() for found in _server(name, info)),
        *of_partitions(look),
    ]


def _state(look: Snapshot) -> Iterator[Attention]:
    where = in_state(look, look.state)
    if look.state == "closed":
        yield Attention("CLOSED", f"Redis has lost something{where}; nothing is sold until `flashsale rebuild`")
    if look.state == "paused":
        yield Attention("PAUSED", f"every purchase is answered PAUSED{where} until `flashsale resume`")


def in_state(look: Snapshot, state: str) -> str:
    """Returns where a sale is in a state, in words; empty: everywhere."""
    there = [part.place for part in look.partitions if part.state == state]
    return f" in {_places(there)}" if there and len(there) < len(look.partitions) else ""


def _places(places: Sequence[int]) -> str:
    return f"partition{'s' * (len(places) > 1)} {', '.join(map(str, places))}"


def of_partitions(look: Snapshot) -> Iterator[Attention]:
    """Yields the partitions that do not answer, and those that have lost something and are not closed yet."""
    if look.away:
        names = f"{_places(look.away)} cannot be reached, and {'is' if len(look.away) == 1 else 'are'} not in the sums"
        yield Attention("AWAY", f"{names}: their buyers wait, and where no unit is left others' do, too")
    for part in look.partitions:
        if part.state == MISSING:
            yield Attention("LOST", f"partition {part.place} has lost all it had: `flashsale rebuild`")
        elif part.lost and part.state != "closed":
            yield Attention("LOST", f"partition {part.place} has lost {', '.join(part.lost)}: `flashsale rebuild`")


def _missing(look: Snapshot, rows: Sequence[Goods]) -> Iterator[Attention]:
    missing = sorted({row.goods_id for row in rows if row.loaded} - {goods.goods_id for goods in look.goods})
    if missing:
        yield Attention("GOODS MISSING", f"Redis has lost {', '.join(missing)}: `flashsale rebuild`")


def _policy(look: Snapshot, rows: Sequence[Goods]) -> Iterator[Attention]:
    there = {goods.goods_id: goods for goods in look.goods}
    for row in rows:
        if row.goods_id in there:
            for name, wanted, found in _otherwise(row, there[row.goods_id], is_whole=not look.away):
                text = f"{row.goods_id}: the database wants {name} {shown(wanted)}, Redis has {shown(found)}"
                yield Attention("OTHER POLICY", f"{text}: `flashsale goods list` says what brings it")


def _otherwise(row: Goods, there: GoodsSnapshot, *, is_whole: bool) -> Iterator[tuple[str, object, object]]:
    """Yields what Redis has otherwise than the row; a total below what is booked follows as units return."""
    if is_whole and max(row.total, there.booked) != there.total != row.total:
        yield "total", row.total, there.total
    for name in POLICY:
        wanted, found = kept(getattr(row, name)), getattr(there, name)
        if name != "total" and wanted != found:
            yield name, wanted, found


def _queue(look: Snapshot) -> Iterator[Attention]:
    waited = look.time - look.oldest if look.oldest else 0.0
    workers = [each for each in look.processes if each.kind == "worker"]
    if look.queued and waited > OLD and not workers and 0 not in look.away:
        yield Attention("NOT DRAINING", f"no worker runs, and {look.queued + look.claimed} orders wait")
    elif look.queued and waited > OLD:
        yield Attention("NOT DRAINING", f"the oldest order waits {waited:.0f} s. {_named(workers, look.time)}".rstrip())
    elif look.claimed and (slow := [each for each in workers if _is_slow(each, look.time)]):
        yield Attention("NOT DRAINING", f"claimed orders wait. {_named(slow, look.time)}")


def _is_slow(process: Process, now: float) -> bool:
    """Returns whether a process that lives is long at one step; one that is silent is told of elsewhere."""
    return process.since is not None and now - process.since > OLD and not is_silent(process, now)


def _named(workers: Sequence[Process], now: float) -> str:
    """Returns what some workers told last: those first that stand still longest."""
    ordered = sorted(workers, key=lambda each: min(each.beat, each.since or now))
    said = "; ".join(told(each, now) for each in ordered[:NAMED])
    return f"{said}; {len(ordered) - NAMED} more" if len(ordered) > NAMED else said


def told(process: Process, now: float) -> str:
    """Returns what a process last told of itself; of one that is silent, since when it is, and what it held then."""
    said = f"{process.kind} {process.instance}"
    if is_silent(process, now):
        said += f" silent since {clock.near(process.beat, now)}"
        said += f", held {process.claimed} then" if process.claimed else ""
        return said + (f", in {process.doing}" if process.doing else "")
    if process.claimed:
        said += f" holds {process.claimed}"
    if process.since is not None:
        said += f", in {process.doing} for {now - process.since:.0f} s"
    if process.last_error and process.failed_at is not None:
        said += f", last error {process.last_error} {clock.gap(process.failed_at, now)}"
    return said


def _dead(look: Snapshot) -> Iterator[Attention]:
    if look.dead:
        yield Attention("DEAD LETTERS", f"{look.dead}: `flashsale dead list` says why the database refused them")


def _leader(look: Snapshot) -> Iterator[Attention]:
    beating = [each for each in look.processes if each.kind == "syncer" and not is_silent(each, look.time)]
    if not beating and look.goods and 0 not in look.away:
        yield Attention("NO SYNCER", "nothing opens by the clock, expires or is restocked")


def _silent(look: Snapshot, leases: Mapping[str, Leases]) -> Iterator[Attention]:
    for process in look.processes:
        if process.kind != "web" and is_silent(process, look.time):
            held = leases.get(process.instance) if process.kind == "worker" else None
            more = f". {_still(held, look.time)}" if held else ""
            yield Attention("SILENT", f"{told(process, look.time)}{more}. End it, if it is still there")


def _still(held: Leases, now: float) -> str:
    """Returns until when a silent worker has orders."""
    when = f"{clock.near(held.until, now)} at the latest, when its lease ends"
    return f"Another worker takes {held.count} of them at {when}; see `flashsale orders claimed`"


def _oversold(look: Snapshot) -> Iterator[Attention]:
    for goods in look.goods:
        if goods.booked > goods.total:
            more = f"{goods.goods_id}: {goods.booked} booked of {goods.total}; it sells nothing until units return"
            yield Attention("BOOKED > TOTAL", more)


def _uncertain(totals: Totals) -> Iterator[Attention]:
    bought = sum(times for (_, outcome), times in totals.purchases.items() if outcome in BOUGHT)
    unsure = sum(times for (_, outcome), times in totals.purchases.items() if outcome == "UNCERTAIN")
    if bought and unsure / bought > UNSURE:
        yield Attention("UNCERTAIN", f"{100 * unsure / bought:.1f} % of the orders: a replica or the database is slow")


def _server(name: str, info: Mapping[str, str]) -> Iterator[Attention]:
    where = f" of {name}" if name else ""
    used, most = count(info, "used_memory"), count(info, "maxmemory")
    if most and used / most > FULL:
        yield Attention("MEMORY", f"Redis{where} uses {100 * used / most:.0f} % of it; full, it accepts no order")
    if evicted := count(info, "evicted_keys"):
        yield Attention("EVICTED", f"Redis{where} has thrown away {evicted} keys: set maxmemory-policy noeviction")
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Attention("AOF", f"Redis{where} cannot write its log: a restart would lose orders")


def count(info: Mapping[str, str], name: str) -> int:
    """Returns a number of INFO; 0 where the server does not say."""
    return number(info.get(name, "0").encode()) or 0
