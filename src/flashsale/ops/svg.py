"""Charts as inline SVG: lines over time, and bars. Pure.

A chart is readable without colours, by its dashes; its `desc` says in words what a reader of the picture sees first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final, TypeAlias

from flashsale.ops.markup import Html, tag

Point: TypeAlias = tuple[float, float]

WIDTH: Final = 480
HEIGHT: Final = 240
LEFT: Final = 62  # the picture's part: what is left of it belongs to the numbers
RIGHT: Final = 470
TOP: Final = 10
BOTTOM: Final = 208
COLUMNS: Final = 200
"""Points of a line; of more, the highest of each column is shown, for peaks are what matters."""

STROKES: Final = (
    ("#0072b2", None),
    ("#b34700", "7 3"),
    ("#00704f", "2 3"),
    ("#8a3a6b", "10 3 2 3"),
    ("#444444", "1 2"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Args:
        name: for the legend.
        points: seconds since the epoch and value, in the order of time.
    """

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values are in the picture."""

    first: float
    last: float
    top: float

    def x(self, at: float) -> float:
        return LEFT + (RIGHT - LEFT) * (at - self.first) / ((self.last - self.first) or 1.0)

    def y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value / self.top


def lines(name: str, title: str, drawn: Sequence[Line], when: Callable[[float], str]) -> Html:
    """Returns a figure with lines over time.

    Args:
        name: of the figure in its page, for its ids.
        title: what it shows, and in which unit.
        drawn: the lines; those without a point are left out.
        when: writes a time.
    """
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return _nothing(title)
    times = [at for line in drawn for at, _ in (line.points[0], line.points[-1])]
    peak = max(value for line in drawn for _, value in line.points)
    frame = _Frame(min(times), max(times), ceiling(peak))
    paths = [_path(line, frame, stroke) for line, stroke in zip(drawn, cycle(STROKES), strict=False)]
    said = "; ".join(_in_words(line, when) for line in drawn)
    legend = [_legend(line.name, stroke) for line, stroke in zip(drawn, cycle(STROKES), strict=False)]
    inside = [*_rules(frame.top), *_times(frame, when), *paths]
    return _figure(name, title, said, inside, legend if len(drawn) > 1 else [])


def bars(name: str, title: str, drawn: Sequence[tuple[str, float]], unit: str = "") -> Html:
    """Returns a figure with one bar for each name.

    Args:
        name: of the figure in its page, for its ids.
        title: what it shows.
        drawn: name and height of each bar.
        unit: of the heights.
    """
    if not any(value for _, value in drawn):
        return _nothing(title)
    frame = _Frame(0, len(drawn), ceiling(max(value for _, value in drawn)))
    said = ", ".join(f"{label}: {number(value)}{unit}" for label, value in drawn)
    inside = [*_rules(frame.top, unit)]
    every = math.ceil(len(drawn) / 10)  # labels that there is room for
    for place, (label, value) in enumerate(drawn):
        left, right, y = frame.x(place + 0.1), frame.x(place + 0.9), frame.y(value)
        size = {"width": _at(right - left), "height": _at(BOTTOM - y)}
        inside.append(tag("rect", x=_at(left), y=_at(y), fill=STROKES[0][0], **size))
        if place % every == 0:
            inside.append(_text((left + right) / 2, BOTTOM + 20, label, "middle"))
    return _figure(name, title, said, inside, [])


def ceiling(peak: float) -> float:
    """Returns the end of an axis: the next number of 1, 2, 4, 5 or 8 with zeros.

    >>> ceiling(23), ceiling(0.3), ceiling(0)
    (40.0, 0.4, 1.0)
    """
    if peak <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(peak))
    return next(step * power for step in (1, 2, 4, 5, 8, 10, 20) if step * power >= peak * (1 - 1e-9))


def number(value: float) -> str:
    """Returns a number as people read it.

    >>> number(23750), number(0.25), number(3.0)
    ('23,750', '0.25', '3')
    """
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:,.3g}"


def _path(line: Line, frame: _Frame, stroke: tuple[str, str | None]) -> Html:
    colour, dashes = stroke
    points = [(frame.x(at), frame.y(value)) for at, value in highest(line.points)]
    if len(points) == 1:
        return tag("circle", cx=_at(points[0][0]), cy=_at(points[0][1]), r=3, fill=colour)
    drawn = "M" + "L".join(f"{_at(x)} {_at(y)}" for x, y in points)
    return tag("path", d=drawn, fill="none", stroke=colour, stroke_width=2, stroke_dasharray=dashes)


def highest(points: Sequence[Point]) -> list[Point]:
    """Returns at most `COLUMNS` points, and the two ends: of each column the highest one."""
    if len(points) <= COLUMNS:
        return list(points)
    size = math.ceil(len(points) / COLUMNS)
    columns = (points[start : start + size] for start in range(0, len(points), size))
    peaks = [max(column, key=lambda point: point[1]) for column in columns]
    return [points[0], *(point for point in peaks if points[0][0] < point[0] < points[-1][0]), points[-1]]


def _in_words(line: Line, when: Callable[[float], str]) -> str:
    at, peak = max(line.points, key=lambda point: point[1])
    return f"{line.name}: at most {number(peak)}, at {when(at)}; at the end {number(line.points[-1][1])}"


def _rules(top: float, unit: str = "") -> list[Html]:
    """Returns the horizontal lines, with their numbers."""
    drawn = []
    for part in range(5):
        y = BOTTOM - (BOTTOM - TOP) * part / 4
        drawn.append(tag("path", d=f"M{LEFT} {_at(y)}H{RIGHT}", stroke="#999" if part == 0 else "#ddd"))
        drawn.append(_text(LEFT - 6, y + 5, number(top * part / 4) + unit, "end"))
    return drawn


def _times(frame: _Frame, when: Callable[[float], str]) -> list[Html]:
    """Returns the names of a few moments below the lines."""
    if frame.first == frame.last:
        return [_text(frame.x(frame.first), BOTTOM + 20, when(frame.first), "start")]
    anchors = ("start", "middle", "end")
    times = (frame.first, (frame.first + frame.last) / 2, frame.last)
    return [_text(frame.x(at), BOTTOM + 20, when(at), anchor) for at, anchor in zip(times, anchors, strict=True)]


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return tag("text", text, x=_at(x), y=_at(y), text_anchor=anchor)


def _legend(name: str, stroke: tuple[str, str | None]) -> Html:
    colour, dashes = stroke
    drawn = tag("path", d="M0 5H28", stroke=colour, stroke_width=3, stroke_dasharray=dashes)
    return tag("span", tag("svg", drawn, width=28, height=10, aria_hidden="true"), " ", name, class_="legend")


def _figure(name: str, title: str, said: str, inside: Sequence[Html], legend: Sequence[Html]) -> Html:
    head = [tag("title", title, id=f"{name}-title"), tag("desc", said, id=f"{name}-desc")]
    box = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "aria_labelledby": f"{name}-title", "aria_describedby": f"{name}-desc"}
    picture = tag("svg", *head, *inside, role="img", **box)
    return tag("figure", tag("figcaption", title), picture, tag("div", *legend) if legend else None)


def _nothing(title: str) -> Html:
    return tag("figure", tag("figcaption", title), tag("p", "Nothing was recorded.", class_="note"))


def _at(value: float) -> str:
    """Returns a place in the picture: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")
