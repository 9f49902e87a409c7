"""HTML and SVG as text, in which every value is escaped unless it is markup already. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is markup already."""

    __slots__ = ()

    def __html__(self) -> str:
        """Returns the text; template engines ask for it."""
        return self


def tag(name: str, *inside: object, **attributes: object) -> Html:
    """Returns an element.

    Args:
        name: of the element.
        inside: what is in it; None is left out, and what is no `Html` is escaped.
        attributes: `class_` and `aria_label` stand for `class` and `aria-label`; None is left out.

    >>> tag("p", "a < b", tag("b", 3), class_="note")
    '<p class="note">a &lt; b<b>3</b></p>'
    """
    given = "".join(
        f' {attribute.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for attribute, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{joined(inside)}</{name}>")


def joined(parts: Iterable[object]) -> Html:
    """Returns the parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(str(part)) for part in parts if part is not None))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: bool = True) -> Html:
    """Returns a table, whose rows have their name in the first cell; it scrolls by itself where it is too wide.

    Args:
        caption: what it shows.
        heads: of the columns.
        rows: the cells.
        numbers: True: all but the first column hold numbers, which stand to the right.
    """
    head = tag("tr", *(tag("th", each, scope="col") for each in heads))
    body = [tag("tr", tag("th", first, scope="row"), *(tag("td", each) for each in others)) for first, *others in rows]
    inside = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    kind = "table numbers" if numbers else "table"
    return tag("div", inside, class_=kind, role="region", aria_label=caption, tabindex=0)
