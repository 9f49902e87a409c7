"""The command that sets the policy of an item, field by field."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from flashsale.model import Goods
from flashsale.ops import clock
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.goods import apart, differing, look
from flashsale.ops.items import POLICY, ROW_FIELDS, bring, compare, foresee, is_braked, moment, write
from flashsale.ops.values import or_none, units
from flashsale.ops.words import change


def _add_set(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("goods_id", metavar="GOODS", help="which item")
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    add("--total", metavar="N", type=units, help="units for sale", **given)
    add("--per-buyer", metavar="N|none", type=or_none(units), help="most units of one buyer", **given)
    add("--opens-at", metavar="T|none", help=f"when it opens by the clock of Redis: {clock.FORMS}", **given)
    add("--closes-at", metavar="T|none", help="when it ends", **given)
    add("--hold", metavar="S|none", type=or_none(_seconds), help="seconds to pay", **given)
    add("--new", action="store_true", help="the item, and perhaps the sale, is a new one")


def _set(context: Context) -> Outcome:
    given = _given(context)
    if not given:
        raise Stop("nothing is to be set: name --total, --per-buyer, --opens-at, --closes-at or --hold")
    goods_id = context.options.goods_id
    if not context.options.new:
        context.sale._check_known()
    before = context.items_or_stop().get(goods_id)
    if before is None and not context.options.new:
        raise Stop(f"{context.no_item(goods_id)}; to add this one: --new")
    foresee(context, goods_id)
    after = replace(before or Goods(goods_id, _total(given)), **given)
    changes = {name: (getattr(before, name, None), getattr(after, name)) for name in given}
    changes = {name: pair for name, pair in changes.items() if before is None or pair[0] != pair[1]}
    if not changes:
        return _bring_row(context, after)
    return context.change(
        Change(
            lines=[f"{goods_id}  {change(name, *_words(context, name, pair))}" for name, pair in changes.items()],
            before={name: pair[0] for name, pair in changes.items()},
            after={name: pair[1] for name, pair in changes.items()},
            make=lambda: _write_and_bring(context, goods_id, given, is_new=before is None),
            asks=before is not None and before.loaded and is_braked(before.total, after.total),
        )
    )


def _total(given: Mapping[str, Any]) -> int:
    if "total" not in given:
        raise Stop("a new item needs --total")
    return int(given["total"])


def _given(context: Context) -> dict[str, Any]:
    given = {name: value for name, value in vars(context.options).items() if name in POLICY}
    for name in given.keys() & {"opens_at", "closes_at"}:
        given[name] = moment(context, name, given[name])
    return given


def _words(context: Context, name: str, pair: tuple[Any, Any]) -> list[object]:
    if name in {"opens_at", "closes_at"}:
        now = context.now()
        return [None if each is None else clock.away(each, now) for each in pair]
    if name == "hold":
        return [None if each is None else clock.span(each) for each in pair]
    return list(pair)


def _write_and_bring(context: Context, goods_id: str, given: Mapping[str, Any], *, is_new: bool) -> Outcome:
    return _of_bringing(context, write(context, goods_id, given, is_new=is_new))


def _bring_row(context: Context, row: Goods) -> Outcome:
    """Brings a row to Redis that is so already, where Redis has something else."""
    goods_id = row.goods_id
    pairs = differing(look(context, goods_id, row))
    if not pairs:
        return Outcome([f"{goods_id} is so already, in its row and in Redis"], {"before": {}, "after": {}})
    return context.change(
        Change(
            lines=[
                f"{goods_id}  {change(name, *_words(context, name, (there, wanted)))}: in Redis; its row is so already"
                for name, (wanted, there) in pairs.items()
            ],
            before={name: there for name, (_, there) in pairs.items()},
            after={name: wanted for name, (wanted, _) in pairs.items()},
            make=lambda: _brought(context, row),
        )
    )


def _brought(context: Context, row: Goods) -> Outcome:
    compare(context, row.goods_id)
    return _of_bringing(context, row)


def _of_bringing(context: Context, row: Goods) -> Outcome:
    """Brings a row to Redis, and says what Redis still has otherwise."""
    said, stands = bring(context, row)
    left = [] if said else [f"{row.goods_id}: {text}" for text in apart(look(context, row.goods_id, row))]
    data = {"goods": row.goods_id, "version": row.version, "total_in_redis": stands}
    return Outcome([*said, *left], data, ATTENTION if left else 0)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be seconds, not {text!r}") from None


VERBS: Final = (
    Verb(
        "goods set",
        "set the policy of an item, field by field",
        _set,
        _add_set,
        "Sets what is named and leaves the rest of the item as it is. The row is brought to Redis at once, also where "
        "it was so already and Redis had something else. --expect is compared with the row. A total that goes down, "
        "or up by more than 20 %, must be confirmed.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        is_new=True,
        asks=True,
        expects=ROW_FIELDS,
    ),
)
