"""The report of a sale: one HTML file with the proof, the curves, the trail and who bought. Pure.

It has no script and loads nothing; whatever comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from importlib.resources import files
from typing import Final

from flashsale.model import OrderState
from flashsale.model.reports import Settlement, Units
from flashsale.ops.curves import answers, curves, fairness, items
from flashsale.ops.evidence import Clock, Evidence, section
from flashsale.ops.markup import Html, joined, table, tag
from flashsale.ops.svg import number
from flashsale.ops.tables import MAX_ROWS, processes, trail

_HEAD: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="robots" content="noindex">
"""


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
    sections = [part(evidence, clock) for part in _SECTIONS]
    body = tag("body", tag("header", *_header(evidence, clock)), tag("main", *sections))
    return joined([Html(_HEAD), *head, Html("\n</head>\n"), body, Html("\n</html>\n")])


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
    return section(
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


_SECTIONS: Final = (_proof, items, curves, answers, fairness, trail, processes)
