"""The commands for dead letters: list them, show one, queue them again, cancel them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from flashsale.model import Claim, OrderState
from flashsale.ops import clock
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.orders import find_record, settle_all, state_of
from flashsale.ops.words import counted, table

NAMES: Final = "as `dead list` names it: by its order id, or if it is no order by #NUMBER"
MARK: Final = "#"
"""Stands on the command line for the blank before the number of an element that is no order."""


HEAD: Final = ("letter", "goods", "units", "buyer", "accepted", "attempts", "why")


# -- looking --------------------------------------------------------------------------------------------------------


def _list(context: Context) -> Outcome:
    letters = context.overview.dead_letters()
    now = context.now()
    rows = [cells(name, letter, now) for name, letter in letters.items()]
    lines = [*table(HEAD, rows), *summed(letters)] if letters else ["no dead letters"]
    return Outcome(lines, {"dead": [_told(each) for each in letters.items()]}, ATTENTION if letters else 0)


def cells(name: str, letter: Claim, now: float) -> tuple[str, ...]:
    """Returns the row of a dead letter under `HEAD`."""
    order = letter.order
    of_order = ("", "", "", "")
    if order is not None:
        accepted = "" if order.created_at is None else clock.near(order.created_at, now)
        of_order = (order.goods_id, str(order.quantity), order.buyer_id, accepted)
    return (_shown(name), *of_order, str(letter.attempts), _why(letter))


def _why(letter: Claim) -> str:
    if letter.order is None:
        return "it is no order"
    return letter.reason or "its workers died or were too slow"


def _cause(letter: Claim) -> str:
    return f"why it was dead: {_why(letter)}"


def summed(letters: Mapping[str, Claim]) -> list[str]:
    """Returns how many units of each item dead letters keep."""
    units = Counter[str]()
    for name, letter in letters.items():
        if letter.order is not None and _is_order(name):
            units[letter.order.goods_id] += letter.order.quantity
    return [f"they keep {counted(count, 'unit')} of {goods_id}" for goods_id, count in sorted(units.items())]


def _told(named: tuple[str, Claim]) -> dict[str, Any]:
    name, letter = named
    order = letter.order
    return {
        "letter": _shown(name),
        "goods": order and order.goods_id,
        "quantity": order and order.quantity,
        "buyer": order and order.buyer_id,
        "accepted": order and order.created_at,
        "attempts": letter.attempts,
        "why": _why(letter),
    }


def _shown(name: str) -> str:
    return name if _is_order(name) else f"{MARK}{name[1:]}"


def _is_order(name: str) -> bool:
    return not name.startswith(" ")


def _add_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letter", metavar="ID", help=NAMES)


def _show(context: Context) -> Outcome:
    ((name, letter),) = _chosen(context, [context.options.letter]).items()
    record = find_record(context, name) if _is_order(name) else None
    lines = [
        f"{_shown(name)}  {letter.attempts} attempts",
        f"why: {_why(letter)}",
        f"the ledger says {record.state}" if record else "the ledger has no such order: no unit is booked for it",
        letter.body.decode("utf-8", "replace"),
    ]
    told = _told((name, letter))
    return Outcome(lines, {**told, "ledger": record and record.state, "body": letter.body.decode("utf-8", "replace")})


# -- choosing -------------------------------------------------------------------------------------------------------


def _add_some(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letters", metavar="ID", nargs="*", help=NAMES)
    parser.add_argument("--all", action="store_true", help="all of them")


def _chosen(context: Context, given: list[str]) -> dict[str, Claim]:
    """Returns the dead letters of these names.

    Raises:
        Stop: one of them is none.
    """
    names = [f" {name[1:]}" for name in given if name.startswith(MARK)]
    letters = context.overview.dead_letters([*given, *names])
    absent = [name for name in given if name not in letters and f" {name[1:]}" not in letters]
    if absent:
        raise Stop(f"no dead letter: {', '.join(absent)}")
    return letters


def _wanted(context: Context) -> dict[str, Claim]:
    options = context.options
    if options.all == bool(options.letters):
        raise Stop("name the dead letters, or say --all")
    return context.overview.dead_letters() if options.all else _chosen(context, options.letters)


# -- changing -------------------------------------------------------------------------------------------------------


def _requeue(context: Context) -> Outcome:
    letters = _wanted(context)
    if not letters:
        return Outcome(["no dead letters"], {"requeued": 0})
    return context.change(
        Change(
            lines=[*(f"{_shown(name)}  dead -> queued; {_cause(each)}" for name, each in letters.items()), _AGAIN],
            before={_shown(name): _why(each) for name, each in letters.items()},
            after={_shown(name): "queued" for name in letters},
            make=lambda: _make_requeue(context, letters),
        )
    )


def _make_requeue(context: Context, letters: Mapping[str, Claim]) -> Outcome:
    back = context.overview.requeue_dead(list(letters))
    code = 0 if back == len(letters) else ATTENTION
    return Outcome([f"{back:,} of {len(letters):,} are on the list again"], {"requeued": back}, code)


def _cancel(context: Context) -> Outcome:
    letters = _wanted(context)
    if not letters:
        return Outcome(["no dead letters"], {"cancelled": 0})
    return context.change(
        Change(
            lines=[f"{_shown(name)}  {_fate(name)}; {_cause(each)}" for name, each in letters.items()],
            before={_shown(name): _why(each) for name, each in letters.items()},
            after={_shown(name): "cancelled" if _is_order(name) else "removed" for name in letters},
            make=lambda: _make_cancel(context, letters),
            asks=True,
        )
    )


def _fate(name: str) -> str:
    return "dead -> CANCELLED, its units return" if _is_order(name) else "dead -> removed, no unit is booked for it"


def _make_cancel(context: Context, letters: Mapping[str, Claim]) -> Outcome:
    orders = {name: state_of(context, name) for name in letters if _is_order(name)}
    done = settle_all(context, orders, OrderState.CANCELLED)
    removed = context.overview.remove_dead([name for name in letters if not _is_order(name)])
    lines = [*done.lines, *([f"{removed} elements that were no orders are removed"] if removed else [])]
    return Outcome(lines, {**done.data, "removed": removed}, done.code)


_AGAIN: Final = "while the cause stands, they die again after 5 attempts"

_WHY: Final = (
    "The reason is the type of the error alone: its text may hold buyers' data, and is in the database's own log. A "
    "type such as RaiseException comes of a trigger; `doctor` names it."
)

VERBS: Final = (
    Verb(
        "dead list",
        "list the dead letters, and why the database refused each",
        _list,
        about=_WHY,
    ),
    Verb(
        "dead show",
        "show one dead letter",
        _show,
        _add_one,
        _WHY,
    ),
    Verb(
        "dead requeue",
        "put dead letters back on the list, once the cause is gone",
        _requeue,
        _add_some,
        "Puts dead letters back on the list. While the cause stands they die again.",
        kind=Kind.CHANGE,
    ),
    Verb(
        "dead cancel",
        "cancel the orders of dead letters; their units return",
        _cancel,
        _add_some,
        "Cancels the orders of dead letters, so that their units return. A letter that is no order is removed.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        asks=True,
        wants_reason=True,
    ),
)
