"""The command that adds units to an item on sale, or takes some away."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import asdict
from typing import Final

from flashsale._rules.rows import GOODS_COLUMNS
from flashsale.ops.frame import NEEDS_ALL, Change, Context, Kind, Outcome, Verb
from flashsale.ops.items import ROW_FIELDS, add_goods, foresee, gate_of, is_braked
from flashsale.ops.transaction import can_lock, locked
from flashsale.ops.values import signed
from flashsale.ops.words import change, share


def _add_restock(parser: argparse.ArgumentParser) -> None:
    add_goods(parser)
    add = parser.add_argument
    add("units", metavar="+N|-N", type=signed, help="units to add, or to take away")
    add("--request-id", metavar="ID", help="names this restock: given again, it is done once (default: a new one)")


def _restock(context: Context) -> Outcome:
    goods_id, units = context.options.goods_id, context.options.units
    row = context.items_or_stop().get(goods_id)
    if row is None:
        raise context.no_item(goods_id)
    gate_of(context, goods_id)
    foresee(context, goods_id)
    stock = context.overview.stock(goods_id)
    request_id = context.options.request_id or f"restock-{secrets.token_hex(8)}"
    done = _done_before(context, request_id)
    if done is not None:
        return Outcome([f"{request_id} was done before: it set a total of {done:,}"], {"total": done, "replayed": True})
    after = max(0, row.total + units)
    free = max(after, stock.booked) - stock.booked
    lines = [
        f"{goods_id}  {change('total', row.total, after)} ({share(units, row.total)})",
        f"{goods_id}  {change('free', stock.remaining, free)}, booked {stock.booked:,}",
    ]
    if after < stock.booked:
        lines.append(f"more is booked than that: Redis stops at {stock.booked:,} until units return")
    return context.change(
        Change(
            lines=lines,
            before={"total": row.total, "booked": stock.booked},
            after={"total": after},
            make=lambda: _make_restock(context, goods_id, units, request_id),
            asks=is_braked(row.total, after),
        )
    )


def _done_before(context: Context, request_id: str) -> int | None:
    """Returns the total that a restock of this id has set; None: there was none, or the store cannot tell."""
    store = context.store
    if context.options.request_id is None or not can_lock(store):
        return None
    with store.transaction() as connection:
        where = {"sale": store.sale, "request_id": request_id}
        found = [row["result"] for row in store.select(connection, "requests", ("result",), where)]
    return int(found[0]) if found else None


def _make_restock(context: Context, goods_id: str, units: int, request_id: str) -> Outcome:
    sale, store = context.sale, context.store
    if can_lock(store):
        with locked(store, "goods", GOODS_COLUMNS, goods_id=goods_id) as found:
            if found.row is not None:
                context.expect(found.row)
            goods, total = found.store.restock_once(goods_id, units, request_id)
        stands = sale._transitions._bring_or_log(goods)
    else:
        context.expect({**asdict(context.items()[goods_id])})
        once = request_id if hasattr(store, "restock_once") else None
        total = stands = sale.restock(goods_id, units, once)
    lines = [f"{goods_id} now has {stands:,} units for sale"]
    if context.options.request_id is None:
        lines.append(f"to repeat it safely: --request-id {request_id}")
    return Outcome(lines, {"goods": goods_id, "after": {"total": total}, "request_id": request_id, "in_redis": stands})


VERBS: Final = (
    Verb(
        "restock",
        "add units to an item, or take some away",
        _restock,
        _add_restock,
        "Adds units to an item on sale, or takes some away, never below what is booked. Down, or up by more than 20 %, "
        "it must be confirmed. --expect is compared with the item's row in the transaction that changes it.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        asks=True,
        wants_reason=True,
        expects=ROW_FIELDS,
    ),
)
