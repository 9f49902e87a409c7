"""The command that sets the policy of an item, field by field."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from flashsale.model import Goods
from flashsale.ops import clock
from flashsale.ops.frame import NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.items import ROW_FIELDS, bring, foresee, is_braked, moment, write
from flashsale.ops.values import or_none, units
from flashsale.ops.words import change

POLICY: Final = ("total", "per_buyer", "opens_at", "closes_at", "hold")


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
        return Outcome([f"{goods_id} is so already"], {"before": {}, "after": {}})
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
    written = write(context, goods_id, given, is_new=is_new)
    said, stands = bring(context, written)
    return Outcome(said, {"goods": goods_id, "version": written.version, "total_in_redis": stands})


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
        "Sets what is named and leaves the rest of the item as it is. It is brought to Redis at once. A total that "
        "goes down, or up by more than 20 %, must be confirmed.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        is_new=True,
        asks=True,
        expects=ROW_FIELDS,
    ),
)
