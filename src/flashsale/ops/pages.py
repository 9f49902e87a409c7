"""The pages of the console: what each reads of the sale, and how it is shown. Needs the extra `console`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from flashsale._sync.store import trail
from flashsale.errors import FlashSaleError, StoreError
from flashsale.model.snapshot import Found, Sample
from flashsale.ops import dead, status
from flashsale.ops.curves import refusals, waiting
from flashsale.ops.evidence import Clock
from flashsale.ops.frame import Context, Stop
from flashsale.ops.markup import Html, table, tag
from flashsale.ops.orders import described
from flashsale.ops.svg import STROKES, Line, lines
from flashsale.ops.tables import process_table, trail_table

if TYPE_CHECKING:
    from jinja2 import Environment

Query = Mapping[str, str]

ENTRIES: Final = 100  # of the trail
LETTERS: Final = 200  # dead letters
EVERY: Final = 10  # seconds, of a page that loads itself again

_CLOCK: Final = Clock(None)


# -- reading --------------------------------------------------------------------------------------------------------


def _status(context: Context, _: Query) -> dict[str, Any]:
    view = status.see(context)
    return {
        "head": status.head(view),
        "attention": view.attention,
        "heads": status.HEAD,
        "items": status.item_rows(view),
        "lines": [status.queue(view.look), *status.servers(view)],
        "processes": process_table(view.look, _CLOCK),
    }


def _orders(context: Context, query: Query) -> dict[str, Any]:
    wanted = query.get("q", "").strip()
    if not wanted:
        return {"wanted": "", "found": []}
    finder, now = context.finder, context.now()
    found: list[Found] = finder.by_ids([wanted]) or finder.by_buyer(wanted)
    if finder.failure is not None:
        context.tell(f"the database does not say what it has: {finder.failure}")
    return {"wanted": wanted, "found": [_order(each, now) for each in found]}


def _order(found: Found, now: float) -> tuple[str, list[str]]:
    order_id = found.order.order_id
    first, *others = described(found, now)
    return order_id, [first.removeprefix(order_id).strip(), *others]


def _dead(context: Context, _: Query) -> dict[str, Any]:
    letters = context.overview.dead_letters()
    now = context.now()
    rows = [dead.cells(name, letter, now) for name, letter in letters.items()]
    shown = [(_link(name), *others) for name, *others in rows[:LETTERS]]
    return {"heads": dead.HEAD, "rows": shown, "count": len(rows), "kept": dead.summed(letters)}


def _link(letter: str) -> object:
    return letter if letter.startswith(dead.MARK) else tag("a", letter, href=f"orders?q={quote(letter, safe='')}")


def _curves(context: Context, _: Query) -> dict[str, Any]:
    recorder = context.sale._recorder
    look = recorder.look()
    samples = {goods.goods_id: recorder.samples(goods.goods_id) for goods in look.goods}
    charts = (
        _booked(samples),
        *waiting(max(samples.values(), key=len, default=()), _CLOCK),
        refusals(recorder.minutes(), _CLOCK),
    )
    return {"charts": charts, "items": len(samples), "most": len(STROKES)}


def _booked(samples: Mapping[str, list[Sample]]) -> Html:
    """Returns the curves of the items that sold most: as many as can be told apart."""
    most = sorted(samples, key=lambda name: -max((each.booked for each in samples[name]), default=0))
    drawn = [Line(name, [(each.time, float(each.booked)) for each in samples[name]]) for name in most[: len(STROKES)]]
    return lines("booked", "Units booked", drawn, _CLOCK.time)


def _trail(context: Context, _: Query) -> dict[str, Any]:
    try:
        entries = trail(context.opened.store, limit=ENTRIES, last=True)
    except StoreError as error:
        context.tell(f"the database does not say what it has: {error}")
        entries = None
    shown = None if entries is None else trail_table(reversed(entries), _CLOCK)
    return {"trail": shown, "most": ENTRIES}


# -- showing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """One page.

    Args:
        title: its heading.
        read: returns what its template shows.
    """

    title: str
    read: Callable[[Context, Query], dict[str, Any]]


PAGES: Final = {
    "status": Page("Status", _status),
    "orders": Page("Orders", _orders),
    "dead": Page("Dead letters", _dead),
    "curves": Page("Curves", _curves),
    "trail": Page("Trail", _trail),
}
"""By the last part of their address."""


class Console:
    """Renders the pages, one after the other: however many look, the sale is read once at a time.

    Args:
        context: of the command; its sale stays open.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._opened = context, context.opened  # here: another thread is outside of the app's context

    @cached_property
    def style(self) -> str:
        """The style sheet."""
        data = files("flashsale.ops").joinpath("data")
        return "".join(data.joinpath(name).read_text("utf-8") for name in ("report.css", "console.css"))

    @cached_property
    def _templates(self) -> Environment:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - needs the extra

        made = Environment(
            loader=PackageLoader("flashsale.ops", "data/console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.globals["table"] = table
        return made

    def render(self, name: str, query: Query) -> tuple[int, str]:
        """Returns the HTTP status of a page, and its HTML."""
        said = io.StringIO()
        context = self._looking(said)
        page, code = PAGES[name], 200
        try:
            read, template = page.read(context, query), name
        except (FlashSaleError, Stop) as error:
            read, template, code = {"error": str(error)}, "error", 503
        given = {
            "sale": context.name,
            "pages": PAGES,
            "name": name,
            "title": page.title,
            "notes": said.getvalue().splitlines(),
        }
        every = EVERY if query.get("every") else None
        html = self._templates.get_template(f"{template}.html").render(**given, **read, every=every, seconds=EVERY)
        return code, html

    def _looking(self, said: io.StringIO) -> Context:
        """Returns a context of the same sale for one page, that keeps what it has to say."""
        whole = self._context
        context = Context(whole.verb, whole.options, whole.program, said, said)
        context.opened = self._opened
        return context
