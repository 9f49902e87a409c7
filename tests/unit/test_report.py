"""The report: one page that says what is true, escapes what it is given, and can be read without seeing it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from flashsale.model import Order, OrderState, Outcome
from flashsale.model.reports import Disagreement, Problem
from flashsale.model.trail import TrailEntry
from flashsale.ops import svg
from flashsale.ops.curves import refusals
from flashsale.ops.evidence import Clock, Evidence, span
from flashsale.ops.folding import OrderStats
from flashsale.ops.report import render
from flashsale.ops.svg import Line
from tests.support import evidence

EVIL = "<script>alert('x')</script>\"&<b>"
SECTIONS = ["Proof", "Items", "Curves", "Answers", "Fairness", "Trail", "Processes and errors"]


class Page(HTMLParser):
    """The tags and texts of a page; every element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def page(given: Evidence | None = None) -> Page:
    return Page(render(given or evidence.evidence(), zone=evidence.ZONE))


def said(given: Evidence | None = None) -> str:
    return " ".join(page(given).texts)


def test_the_report_has_all_its_sections() -> None:
    text = render(evidence.evidence(), zone=evidence.ZONE)
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == SECTIONS
    assert text.startswith('<!doctype html>\n<html lang="en">')


def test_a_settled_sale_says_so() -> None:
    assert "Settled: every unit and every order is accounted for" in said()


def test_an_unsettled_sale_says_why() -> None:
    text = said(evidence.evidence(ok=False))
    assert "Not settled" in text
    assert "The units of phone do not add up" in text
    assert "Orders on which Redis and the database disagree: 1" in text
    assert "NO_ROW" in text


def test_whatever_comes_from_outside_is_escaped() -> None:
    given = evidence.evidence()
    bad = Order("o-1", "phone", "ann", 1)
    audit = replace(given.settlement.audit, orders=(Disagreement(bad, Problem.AHEAD, None, OrderState.DEAD),))
    values = {EVIL: EVIL}
    hostile = replace(
        given,
        sale=EVIL,
        settlement=replace(given.settlement, audit=replace(audit, goods={EVIL: given.settlement.audit.units})),
        snapshot=replace(
            evidence.snapshot(evidence.goods(EVIL)),
            state=EVIL,
            processes=(replace(evidence.process(EVIL, EVIL), version=EVIL, doing=EVIL, last_error=EVIL),),
        ),
        minutes={1: {(EVIL, EVIL): 3, (EVIL, Outcome.SOLD_OUT): 1}},
        trail=[TrailEntry(EVIL, EVIL, EVIL, evidence.OPENING, values, values, values, EVIL)],
        totals=replace(given.totals, store_errors={(EVIL, EVIL): 1}),
    )
    text = render(hostile, zone=evidence.ZONE)
    tags = {tag for tag, _ in Page(text).tags}
    assert not tags & {"script", "b"}
    assert text.count("&lt;script&gt;") >= 15
    assert "<script" not in text


def test_nothing_is_loaded_and_nothing_runs() -> None:
    text = render(evidence.evidence(), zone=evidence.ZONE)
    assert not re.search(r"https?:|src=|href=|@import|url\(|\son\w+=|javascript:", text)
    policies = [each["content"] for each in page().all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_every_chart_has_a_title_and_a_description() -> None:
    shown = page()
    ids = [attributes["id"] for _, attributes in shown.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    charts = [each for each in shown.all("svg") if each.get("role") == "img"]
    assert len(charts) >= 9
    for chart in charts:
        assert {chart["aria-labelledby"], chart["aria-describedby"]} <= set(ids)


def test_every_table_has_a_caption_and_heads() -> None:
    shown = page()
    assert len(shown.all("caption")) == len(shown.all("table")) >= 6
    assert {each.get("scope") for each in shown.all("th")} == {"col", "row"}


def test_a_purchase_that_is_uncertain_is_no_refusal() -> None:
    first, outcome = min(evidence.minutes()), Outcome.UNCERTAIN
    assert refusals({first: {("phone", outcome): 7}}, Clock(evidence.ZONE)) == refusals({}, Clock(evidence.ZONE))
    given = replace(evidence.evidence(), minutes={first: {("phone", outcome): 7, ("phone", Outcome.SOLD_OUT): 5}})
    assert "UNCERTAIN" in said(given), "it stands in the table"


def test_the_report_says_that_refusals_are_a_lower_bound() -> None:
    assert "At least so many: a process that is killed takes the counts of up to ten seconds with it." in said()


def test_the_report_says_what_the_sale_did() -> None:
    text = said()
    assert "21:00:00" in text, "it was opened"
    assert "25 s" in text, "and sold out, by the samples, when 100 units were booked"
    assert "supplier called" in text
    assert "did not end" in text, "a command without an after"
    assert "worker web-2:27706" in text
    assert "OperationalError" in text
    assert "4,120" in text, "refusals"


def test_orders_that_are_not_those_of_the_proof_are_said() -> None:
    assert "The curves are made of 300 orders, the proof of 110" in said()
    same = replace(evidence.evidence().settlement, orders=evidence.evidence().orders.states)
    assert "The curves are made of" not in said(replace(evidence.evidence(), settlement=same))


def test_a_sale_of_which_nothing_is_recorded_has_a_report_too() -> None:
    given = Evidence("nov11", evidence.settlement(), evidence.snapshot(processes=()))
    text = said(given)
    assert text.count("Nothing was recorded.") >= 7
    assert "Nobody did anything." in text
    assert "No process told of itself." in text


def test_no_buyer_is_named() -> None:
    assert "buyer-" not in render(evidence.evidence(), zone=evidence.ZONE)


def test_an_item_is_sold_out_when_all_of_it_is_booked() -> None:
    assert evidence.sampled(evidence.samples(120)).sold_out == {"phone": evidence.OPENING + 25}
    assert evidence.sampled(evidence.samples(20)).sold_out == {}
    assert evidence.sampled(evidence.samples(20, total=0)).sold_out == {}


@pytest.mark.parametrize(("seconds", "text"), [(59.96, "60.0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min")])
def test_a_duration_is_written(seconds: float, text: str) -> None:
    assert span(seconds).replace("60 s", "60.0 s") == text


def test_a_long_line_keeps_its_peak_and_its_ends() -> None:
    points = [(float(at), 1.0) for at in range(10_000)]
    points[777] = (777.0, 99.0)
    drawn = svg.highest(points)
    assert len(drawn) <= svg.COLUMNS + 2
    assert (777.0, 99.0) in drawn
    assert (drawn[0], drawn[-1]) == (points[0], points[-1])


def test_a_chart_says_its_peak_in_words() -> None:
    drawn = svg.lines("queue", "Orders that wait", [Line("queued", [(0, 1), (5, 40), (9, 3)])], lambda at: f"t{at:.0f}")
    assert "queued: at most 40, at t5; at the end 3" in drawn


def test_all_points_are_inside_the_picture() -> None:
    drawn = svg.lines("x", "x", [Line("a", [(1e9, 0.001), (1e9 + 1, 12345.0)])], str)
    numbers = [float(text) for path in re.findall(r' d="([^"]+)"', drawn) for text in re.findall(r"[\d.]+", path)]
    assert numbers
    assert all(0 <= number <= svg.WIDTH for number in numbers)


def test_the_report_is_small() -> None:
    stats = OrderStats()
    stats.add(evidence.rows(20_000))
    given = replace(evidence.evidence(), orders=stats, samples=evidence.sampled(evidence.samples(14_400)))
    assert len(render(given, zone=evidence.ZONE)) < 120_000
