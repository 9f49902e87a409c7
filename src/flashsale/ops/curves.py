"""The curves of a sale, as the report and the console draw them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from flashsale.model import OrderState
from flashsale.model.snapshot import BOUGHT, BOUNDS, GoodsSnapshot, Sample
from flashsale.ops.evidence import Clock, Evidence, section, span
from flashsale.ops.folding import RANKS, Slots
from flashsale.ops.markup import Html, table, tag
from flashsale.ops.svg import Line, Point, bars, lines, number

_RELEASED: Final = (OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED)
_MOST_UNITS: Final = 10  # of one buyer, that have a bar of their own

# -- items ----------------------------------------------------------------------------------------------------------


def items(evidence: Evidence, clock: Clock) -> Html:
    """Returns the section: how each item was sold."""
    heads = ("Item", "Opened", "Sold out", "After", "Units accepted", "Units returned", "Sold again, at least")
    rows = [_item_row(goods, evidence, clock) for goods in evidence.snapshot.goods]
    stats = evidence.orders
    total = float(sum(goods.total for goods in evidence.snapshot.goods))
    taken, given = stats.taken.sums(), stats.given.sums()
    drawn = [Line("accepted", taken), Line("returned", given), Line("for sale", _level(taken + given, total))]
    return section(
        "Items",
        table("From opening to sold out", heads, rows),
        tag("p", "Sold again: units that were accepted beyond the total, after others had come back.", class_="note"),
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


def curves(evidence: Evidence, clock: Clock) -> Html:
    """Returns the section: how fast orders came and went."""
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
    return section(
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


def answers(evidence: Evidence, clock: Clock) -> Html:
    """Returns the section: what buyers were told."""
    summed = Counter[tuple[str, str]]()
    for counts in evidence.minutes.values():
        summed.update(counts)
    return section(
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


def fairness(evidence: Evidence, clock: Clock) -> Html:
    """Returns the section: who bought."""
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
    return section(
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
