"""How numbers, tables and changes are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def number(value: float | None) -> str:
    """Returns a number with commas; nothing for None.

    >>> number(23750)
    '23,750'
    """
    return "" if value is None else f"{value:,}"


def change(name: str, before: object, after: object) -> str:
    """Returns a change as `name before -> after`."""
    return f"{name} {shown(before)} -> {shown(after)}"


def shown(value: object) -> str:
    """Returns a value of a policy."""
    if value is None:
        return "none"
    return number(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def need_attention(count: int) -> str:
    """Returns how many things need it.

    >>> need_attention(1), need_attention(2)
    ('1 needs attention', '2 need attention')
    """
    return f"{count} {'needs' if count == 1 else 'need'} attention"


def counted(count: int, thing: str) -> str:
    """Returns how many there are of a thing.

    >>> counted(1, "unit"), counted(2000, "unit")
    ('1 unit', '2,000 units')
    """
    return f"{count:,} {thing}" + "s" * (count != 1)


def share(units: int, total: int) -> str:
    """Returns how much a change is, of what was there."""
    return f"{units:+,}" if not total else f"{units:+,}, {100 * units / total:+.0f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, its columns one below the other."""
    lines = [head, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def noted(error: Exception) -> str:
    """Returns what was noted of an error, such as the partition that it is of, in brackets.

    >>> noted(ValueError("no"))
    ''
    """
    notes = "; ".join(getattr(error, "__notes__", ()))
    return f" ({notes})" if notes else ""
