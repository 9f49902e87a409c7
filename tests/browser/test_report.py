"""The report in Chromium: on a phone, at a desk and on paper; nothing fails, nothing scrolls sideways."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flashsale.model.trail import TrailEntry
from flashsale.ops.report import render
from tests.support import evidence
from tests.support.shops import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

DESK, PHONE, PAPER = {"width": 1280, "height": 800}, {"width": 360, "height": 780}, {"width": 680, "height": 960}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def report(tmp_path: Path) -> Path:
    given = evidence.evidence(ok=False)
    names = [f"a-very-long-name-of-an-item-{place:03}-{'x' * 30}" for place in range(8)]
    units = given.settlement.audit.units
    audit = replace(given.settlement.audit, goods={"phone": units} | dict.fromkeys(names, units))
    long = {"expected": "/srv/shop/exports/" + "x" * 200}
    wide = replace(
        given,
        sale="n" * 64,
        settlement=replace(given.settlement, audit=audit),
        trail=[
            *given.trail,
            TrailEntry("audit", "a" * 60, "h" * 60, evidence.OPENING, long, {}, long, "because " * 30),
        ],
    )
    path = tmp_path / "report.html"
    path.write_text(render(wide, zone=evidence.ZONE), "utf-8")
    return path


@pytest.mark.parametrize(("size", "medium"), [(PHONE, "screen"), (DESK, "screen"), (PAPER, "print")])
def test_the_report_is_readable(browser: Browser, report: Path, size: dict[str, int], medium: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport=size)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url != report.as_uri() else None)
    page.emulate_media(media=medium)
    page.goto(report.as_uri())
    assert not said, "a message, or something was loaded"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("heading", level=2).count() == 7
    assert page.get_by_role("img", name="Orders a second").is_visible()
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 9, "the numbers of a chart are too small to read"
    page.close()
    if medium == "screen":
        assert_accessible(browser, report, size, Axe)


def assert_accessible(browser: Browser, report: Path, size: dict[str, int], axe: type) -> None:
    """axe needs scripts, which the page itself forbids."""
    context = browser.new_context(viewport=size, bypass_csp=True)
    page = context.new_page()
    page.goto(report.as_uri())
    found = axe().run(page)
    context.close()
    assert not found.violations_count, found.generate_report()
