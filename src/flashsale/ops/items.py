"""What the commands for items share: how an item's row is written, and brought to Redis at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from flashsale._rules.rows import GOODS_COLUMNS, read_goods
from flashsale.errors import NotExecuted, UnknownGoods
from flashsale.model import GateState, Goods
from flashsale.ops import clock
from flashsale.ops.frame import ATTENTION, Context, Stop
from flashsale.ops.transaction import can_lock, locked

BRAKE: Final = 0.2  # of the total: what goes up by more than this, or down, is asked for
POLICY: Final = ("total", "per_buyer", "opens_at", "closes_at", "hold")
ROW_FIELDS: Final = ("total", "granted", "booked", "version", "per_buyer", "opens_at", "closes_at", "hold")


def add_goods(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names an item."""
    parser.add_argument("goods_id", metavar="GOODS", help="which item")


def gate_of(context: Context, goods_id: str) -> GateState:
    """Returns what the gate holds of an item.

    Raises:
        Stop: it does not know the item.
    """
    try:
        state = context.overview.gate(goods_id)
    except UnknownGoods:
        row = context.items().get(goods_id)
        if row is None:
            raise context.no_item(goods_id) from None
        lost = "lost from Redis: rebuild" if row.loaded else "not in Redis yet: does a syncer run?"
        raise Stop(f"{goods_id} is {lost}", ATTENTION) from None
    return state


def moment(context: Context, name: str, text: str) -> float | None:
    """Returns the moment that an option names, None for "none"."""
    if text == "none":
        return None
    try:
        return clock.read(text, context.now())
    except ValueError as error:
        raise Stop(f"--{name.replace('_', '-')}: must be {clock.FORMS}, not {text!r}") from error


def is_braked(before: int, after: int) -> bool:
    """Returns whether a total moves so far that the operator is asked."""
    return after < before or after > before * (1 + BRAKE)


def foresee(context: Context, goods_id: str) -> None:
    """Compares what is expected before a dry run, too."""
    if context.options.dry_run:
        compare(context, goods_id)


def compare(context: Context, goods_id: str) -> None:
    """Compares what is expected with the row of an item."""
    if context.options.expect and can_lock(context.store):
        with locked(context.store, "goods", GOODS_COLUMNS, goods_id=goods_id) as found:
            context.expect(found.row or {}, of="the row's ")


def write(context: Context, goods_id: str, given: Mapping[str, Any], *, is_new: bool = False) -> Goods:
    """Writes some fields of an item's row, in one transaction with what `--expect` compares; returns the row.

    A store of the host's own may not be able to lock a row: there it is compared just before.
    """
    store = context.store
    if not hasattr(store, "put_goods"):
        raise Stop(f"{type(store).__name__} has no put_goods: change the item where your shop does")
    if is_new:
        store.put_goods(Goods(goods_id, **{"total": 0, **given}))
    elif can_lock(store):
        with locked(store, "goods", GOODS_COLUMNS, goods_id=goods_id) as found:
            if found.row is None:
                raise context.no_item(goods_id)
            context.expect(found.row, of="the row's ")
            found.store.put_goods(replace(read_goods(found.row), **given), replace=True)
    else:
        row = {each.goods_id: each for each in store.goods()}[goods_id]
        context.expect(asdict(row), of="the row's ")
        store.put_goods(replace(row, **given), replace=True)
    return context.items_or_stop()[goods_id]


def bring(context: Context, goods: Goods) -> tuple[list[str], int | None]:
    """Brings the row of an item to Redis at once, as the syncer does within a second.

    Returns:
        What is to be said of it, and the total that stands in Redis, in units; None: it has not got there.
    """
    try:
        total = context.overview.bring(goods)
    except UnknownGoods:
        return [f"{goods.goods_id} is not in Redis: the syncer loads it"], None
    except NotExecuted as error:
        return [f"the row is written; Redis waits for the syncer: {error}"], None
    if total != goods.total:
        return [f"{total:,} units are booked: the total in Redis stops there until some return"], total
    return [], total
