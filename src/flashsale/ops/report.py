"""The report of a sale: one HTML file with the proof, the curves, the trail and who bought. Pure.

It has no script and loads nothing; whatever comes from outside is escaped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from importlib.resources import files
from typing import Any, Final

from flashsale.model import OrderState
from flashsale.model.reports import Settlement, Units
from flashsale.model.snapshot import BOUGHT, BOUNDS, GoodsSnapshot, Process, Sample, Snapshot, Totals
from flashsale.model.trail import TrailEntry
from flashsale.ops.folding import RANKS, OrderStats, SampleStats, Slots
from flashsale.ops.markup import Html, joined, table, tag
from flashsale.ops.svg import Line, Point, bars, lines, number

MAX_ROWS: Final = 200
"""Orders that disagree, and processes, that are shown one by one; of further ones only the number."""

_RELEASED: Final = (OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED)
_MOST_UNITS: Final = 10  # of one buyer, that have a bar of their own

_HEAD: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="robots" content="noindex">
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the report is made of.

    Args:
        sale: its name.
        settlement: the proof.
        snapshot: of the sale, at the time of the report.
        orders: all orders, folded.
        minutes: purchases by minute since the epoch, then by item and outcome.
        samples: of all items, folded.
        trail: the operators' commands, in the order of time.
        totals: what all processes have counted.
    """

    sale: str
    settlement: Settlement
    snapshot: Snapshot
    orders: OrderStats = field(default_factory=OrderStats)
    minutes: Mapping[int, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    samples: SampleStats = field(default_factory=SampleStats)
    trail: Sequence[TrailEntry] = ()
    totals: Totals = field(default_factory=Totals)


def render(evidence: Evidence, *, zone: tzinfo | None = None) -> str:
    """Returns the report as HTML.

    Args:
        evidence: what it is made of.
        zone: in which times are shown; None: that of this machine.
    """
    clock = Clock(zone)
    title = f"{evidence.sale}: {_verdict(evidence.settlement)[0]}"
    style = files("flashsale.ops").joinpath("data", "report.css").read_text("utf-8")
    head = [tag("title", title), tag("style", Html(style))]
    sections = [section(evidence, clock) for section in _SECTIONS]
    body = tag("body", tag("header", *_header(evidence, clock)), tag("main", *sections))
    return joined([Html(_HEAD), *head, Html("\n</head>\n"), body, Html("\n</html>\n")])


class Clock:
    """Writes times in one zone."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone

    def date(self, at: float) -> str:
        """Returns date, time and zone."""
        return self._of(at).strftime("%Y-%m-%d %H:%M:%S %Z")

    def time(self, at: float) -> str:
        """Returns the time of day."""
        return self._of(at).strftime("%H:%M:%S")

    def _of(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone).astimezone(self._zone)


def span(seconds: float) -> str:
    """Returns a duration as people read it.

    >>> span(0.8), span(72), span(7260)
    ('0.8 s', '1 min 12 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


# -- head and proof -------------------------------------------------------------------------------------------------


def _header(evidence: Evidence, clock: Clock) -> list[Html]:
    verdict, reasons = _verdict(evidence.settlement)
    read = f"As of {clock.date(evidence.snapshot.time)}, by the clock of Redis. State: {evidence.snapshot.state}."
    return [
        tag("h1", f"Sale {evidence.sale}"),
        tag("p", read),
        tag("p", verdict.capitalize(), class_="verdict bad" if reasons else "verdict ok"),
        tag("ul", *(tag("li", reason) for reason in reasons)) if reasons else Html(),
    ]


def _verdict(settlement: Settlement) -> tuple[str, list[str]]:
    """Returns the verdict, and what stands in its way."""
    if settlement.ok:
        return "settled: every unit and every order is accounted for", []
    return "not settled", list(_reasons(settlement))


def _reasons(settlement: Settlement) -> Iterable[str]:
    audit = settlement.audit
    units = audit.units
    yield from (f"The units of {name} do not add up" for name, each in audit.goods.items() if not each.agree)
    for count, what in (
        (len(audit.orders), "orders on which Redis and the database disagree"),
        (len(audit.lost), "expected orders that no system holds"),
        (audit.unreadable, "elements of the queue that are no orders"),
        (len(audit.corrupt), "keys of Redis that are not what flashsale writes"),
        (audit.pending, "orders on their way to the database"),
        (units.queued, "units of orders that are queued"),
        (units.held, "units of orders that are not paid"),
        (units.dead, "units of dead letters"),
    ):
        if count:
            yield f"{what[0].upper()}{what[1:]}: {number(count)}"
    if audit.moving:
        yield "The sale moves so fast that its units could not be summed at one moment"


def _proof(evidence: Evidence, clock: Clock) -> Html:
    del clock
    settlement = evidence.settlement
    heads = ("Item", "Total", "Sold", "Unpaid", "Queued", "Dead", "Untracked", "Free", "Adds up")
    rows = [_units_row(name, units) for name, units in settlement.audit.goods.items()]
    if len(rows) > 1:
        rows.append(_units_row("All", settlement.audit.units))
    states = [(state.value, number(settlement.orders.get(state, 0))) for state in OrderState]
    return _section(
        "Proof",
        tag("p", "Total = sold + unpaid + queued + dead + untracked + free, for each item."),
        table("Where every unit is", heads, rows),
        table("Orders in the database", ("State", "Orders"), [row for row in states if row[1] != "0"]),
        _disagreements(settlement),
        _read_apart(evidence),
    )


def _units_row(name: str, units: Units) -> Sequence[object]:
    parts = (units.total, units.sold, units.held, units.queued, units.dead, units.direct, units.free)
    return (name, *map(number, parts), "yes" if units.agree else "NO")


def _disagreements(settlement: Settlement) -> Html | None:
    found = settlement.audit.orders
    if not found:
        return None
    rows = [(each.order_id, each.problem, each.ledger or "none", each.database or "none") for each in found[:MAX_ROWS]]
    caption = f"Orders on which Redis and the database disagree: {number(len(found))}"
    return table(caption, ("Order", "Problem", "Redis", "Database"), rows, numbers=False)


def _read_apart(evidence: Evidence) -> Html | None:
    """Says so when the orders that the curves are made of are not those of the proof."""
    read = {state: count for state, count in evidence.orders.states.items() if count}
    if not read or read == {state: count for state, count in evidence.settlement.orders.items() if count}:
        return None
    counted = number(sum(evidence.settlement.orders.values()))
    text = f"The curves are made of {number(sum(read.values()))} orders, the proof of {counted}: the sale went on."
    return tag("p", text, class_="note")


# -- items ----------------------------------------------------------------------------------------------------------


def _items(evidence: Evidence, clock: Clock) -> Html:
    heads = ("Item", "Opened", "Sold out", "After", "Units accepted", "Units returned", "Sold again, at least")
    rows = [_item_row(goods, evidence, clock) for goods in evidence.snapshot.goods]
    stats = evidence.orders
    total = float(sum(goods.total for goods in evidence.snapshot.goods))
    taken, given = stats.taken.sums(), stats.given.sums()
    drawn = [Line("accepted", taken), Line("returned", given), Line("for sale", _level(taken + given, total))]
    return _section(
        "Items",
        table("From opening to sold out", heads, rows),
        tag("p", "More units accepted than there are: units that came back were sold again.", class_="note"),
        tag("div", lines("resold", "Units since the opening, summed", drawn, clock.time), class_="charts"),
    )


def _item_row(goods: GoodsSnapshot, evidence: Evidence, clock: Clock) -> Sequence[object]:
    units = evidence.orders.units
    accepted = sum(units[goods.goods_id, state] for state in OrderState)
    returned = sum(units[goods.goods_id, state] for state in _RELEASED)
    opened = _opened(goods, evidence)
    gone = evidence.samples.sold_out.get(goods.goods_id)
    return (
        goods.goods_id,
        "" if opened is None else clock.time(opened),
        "no" if gone is None else clock.time(gone),
        "" if gone is None or opened is None else span(max(0.0, gone - opened)),
        *map(number, (accepted, returned, max(0, min(returned, accepted - goods.total)))),
    )


def _opened(goods: GoodsSnapshot, evidence: Evidence) -> float | None:
    """Returns when the item was opened: by its row, else when the first order was accepted."""
    first = evidence.orders.first.get(goods.goods_id)
    if goods.opens_at is not None and (first is None or goods.opens_at <= first):
        return goods.opens_at if goods.opens_at <= evidence.snapshot.time else None
    return first


def _level(points: Sequence[Point], value: float) -> list[Point]:
    times = [at for at, _ in points]
    return [(min(times), value), (max(times), value)] if times and value else []


# -- curves ---------------------------------------------------------------------------------------------------------


def _curves(evidence: Evidence, clock: Clock) -> Html:
    stats = evidence.orders
    orders = [
        Line("accepted", stats.accepted.curve()),
        Line("paid", stats.paid.curve()),
        Line("returned", stats.returned.curve()),
    ]
    charts = (
        lines("orders", "Orders a second", orders, clock.time),
        *waiting(evidence.samples.longest, clock),
        lines("drained", "Orders saved a second", [Line("saved", stats.saved.curve())], clock.time),
        bars("saved-after", "Orders by the time from accepted to saved", _lag_bars(stats.lag)),
    )
    return _section(
        "Curves",
        tag("p", "An order that was paid and then cancelled counts as returned only.", class_="note"),
        tag("div", *charts, class_="charts"),
    )


def waiting(samples: Sequence[Sample], clock: Clock) -> tuple[Html, Html]:
    """Returns the curves of the orders that wait, and of how long the oldest does."""
    queue = [
        Line("queued", [(each.time, float(each.queued)) for each in samples]),
        Line("claimed", [(each.time, float(each.claimed)) for each in samples]),
        Line("dead", [(each.time, float(each.dead)) for each in samples] if any(s.dead for s in samples) else []),
    ]
    lag = [Line("lag", [(each.time, each.lag) for each in samples])]
    return (
        lines("queue", "Orders that wait", queue, clock.time),
        lines("lag", "Age of the oldest order on the queue, in seconds", lag, clock.time),
    )


def _lag_bars(lag: Sequence[int]) -> list[tuple[str, float]]:
    names = [*(f"≤{bound:g} s" for bound in BOUNDS), f">{BOUNDS[-1]:g} s"]
    found = [place for place, count in enumerate(lag) if count]
    return [(names[place], float(lag[place])) for place in range(found[0], found[-1] + 1)] if found else []


# -- answers --------------------------------------------------------------------------------------------------------


_LOWER_BOUND: Final = "At least so many: a process that is killed takes the counts of up to ten seconds with it."


def _answers(evidence: Evidence, clock: Clock) -> Html:
    summed = Counter[tuple[str, str]]()
    for counts in evidence.minutes.values():
        summed.update(counts)
    return _section(
        "Answers",
        _answers_by_item(summed) if summed else None,
        tag("p", _LOWER_BOUND, class_="note"),
        tag("div", refusals(evidence.minutes, clock), class_="charts"),
    )


def refusals(minutes: Mapping[int, Mapping[tuple[str, str], int]], clock: Clock) -> Html:
    """Returns the curves of the refusals."""
    refused: dict[str, Slots] = {}
    for minute, counts in minutes.items():
        for (_, outcome), count in counts.items():
            if outcome not in BOUGHT:
                refused.setdefault(str(outcome), Slots(60.0)).add(minute * 60.0, count)
    drawn = [
        Line(outcome, [(at, 60 * rate) for at, rate in slots.curve()]) for outcome, slots in sorted(refused.items())
    ]
    return lines("refusals", "Refusals a minute, by outcome", drawn, clock.time)


def _answers_by_item(summed: Mapping[tuple[str, str], int]) -> Html:
    outcomes = sorted({str(outcome) for _, outcome in summed})
    items = sorted({goods_id for goods_id, _ in summed})
    rows = [(item, *(number(summed.get((item, outcome), 0)) for outcome in outcomes)) for item in items]
    return table("Answers to purchases, of all processes", ("Item", *outcomes), rows)


# -- fairness -------------------------------------------------------------------------------------------------------


def _fairness(evidence: Evidence, clock: Clock) -> Html:
    del clock
    buyers, won = evidence.orders.units_of_buyers(), evidence.orders.winners()
    most = max(buyers, default=0)
    few = [(str(units), float(buyers[units])) for units in range(1, min(most, _MOST_UNITS) + 1)]
    many = sum(count for units, count in buyers.items() if units > _MOST_UNITS)
    of_buyers = [*few, (f">{_MOST_UNITS}", float(many))] if many else few
    of_ranks = [(_rank(place), 100 * share) for place, share in enumerate(won)]
    text = f"{number(buyers.total())} buyers have {number(sum(units * buyers[units] for units in buyers))} units; "
    timeless = evidence.orders.timeless
    without = f" Without a time of arrival: {number(timeless)} orders." if timeless else ""
    return _section(
        "Fairness",
        tag("p", f"{text}nobody has more than {number(most)}.{without}"),
        tag(
            "div",
            bars("buyers", "Buyers by units", of_buyers),
            bars("ranks", "Orders paid, by rank of arrival", of_ranks, "%"),
            class_="charts",
        ),
        tag("p", "Rank of arrival: 5 % are the first twentieth of the accepted orders, 100 % the last.", class_="note"),
    )


def _rank(place: int) -> str:
    return f"{100 * (place + 1) // RANKS}%"


# -- trail and processes --------------------------------------------------------------------------------------------


def _trail(evidence: Evidence, clock: Clock) -> Html:
    return _section("Trail", trail_table(evidence.trail, clock))


def trail_table(entries: Iterable[TrailEntry], clock: Clock) -> Html:
    """Returns the table of what the operators did."""
    heads = ("At", "Who", "Command", "Before", "After", "Reason")
    rows = [_trail_row(entry, clock) for entry in entries]
    return table("What the operators did", heads, rows, numbers=False) if rows else tag("p", "Nobody did anything.")


def _trail_row(entry: TrailEntry, clock: Clock) -> Sequence[object]:
    after = "did not end" if entry.after is None else _written(entry.after)
    command = f"{entry.command} {_written(entry.arguments)}".strip()
    who = f"{entry.actor} on {entry.host}"
    return (clock.date(entry.at), who, command, _written(entry.before), after, entry.reason or "")


def _written(values: Mapping[str, Any]) -> str:
    """Returns names and values as an operator types them."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in values.items()
    }
    return " ".join(f"{name}={text}" for name, text in texts.items())


def _processes(evidence: Evidence, clock: Clock) -> Html:
    errors = [
        (operation, kind, number(count)) for (operation, kind), count in sorted(evidence.totals.store_errors.items())
    ]
    return _section(
        "Processes and errors",
        process_table(evidence.snapshot, clock),
        table("Errors of the database", ("Call", "Error", "Times"), errors, numbers=False) if errors else None,
    )


def process_table(snapshot: Snapshot, clock: Clock) -> Html:
    """Returns the table of what the processes told of themselves."""
    rows = [_process_row(process, snapshot.time, clock) for process in snapshot.processes[:MAX_ROWS]]
    heads = ("Process", "Release", "Last beat", "Does", "Claimed", "Last took", "Last error")
    count = number(len(snapshot.processes))
    return table(f"Processes: {count}", heads, rows, numbers=False) if rows else tag("p", "No process told of itself.")


def _process_row(process: Process, now: float, clock: Clock) -> Sequence[object]:
    beat = f"{clock.time(process.beat)}, {span(max(0.0, now - process.beat))} before"
    since = "" if process.since is None else f" since {clock.time(process.since)}"
    took = "" if process.last_ms is None else f"{number(process.last_ms)} ms"
    doing = f"{process.doing}{since}" if process.doing else "waits"
    name = f"{process.kind} {process.instance}"
    return (name, process.version, beat, doing, number(process.claimed), took, process.last_error or "none")


def _section(title: str, *inside: Html | None) -> Html:
    name = title.lower().replace(" ", "-")
    return tag("section", tag("h2", title, id=name), *inside, aria_labelledby=name)


_SECTIONS: Final = (_proof, _items, _curves, _answers, _fairness, _trail, _processes)
