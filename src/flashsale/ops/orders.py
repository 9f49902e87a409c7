"""The commands for single orders: find, show, cancel, confirm."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from flashsale._rules.ledger_record import Record
from flashsale._rules.rows import ORDER_COLUMNS
from flashsale.errors import CorruptState, NotPersisted, StoreError
from flashsale.model import RELEASED, TRANSITIONS, OrderState, StoredOrder
from flashsale.model.snapshot import Found
from flashsale.ops import clock
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.health import told
from flashsale.ops.transaction import can_lock, locked

FIELDS: Final = ("state", "goods_id", "buyer_id", "quantity")


# -- looking --------------------------------------------------------------------------------------------------------


def find_record(context: Context, order_id: str) -> Record | None:
    """Returns the ledger's record of an order; None when it has none that can be read."""
    try:
        return context.overview.record(order_id)
    except CorruptState as error:
        context.tell(str(error))
        return None


def find_row(context: Context, order_id: str) -> StoredOrder | None:
    """Returns the row of an order; None when it has none, or the database does not answer: the operator is told."""
    store = context.opened.store
    if store is None or not hasattr(store, "find"):
        return None
    try:
        return next(iter(store.find([order_id])), None)
    except StoreError as error:
        context.tell(f"the database does not say whether it has a row: {error}")
        return None


def state_of(context: Context, order_id: str) -> OrderState | None:
    """Returns the state of an order: of its row, else of the ledger; None: nobody knows it."""
    row = find_row(context, order_id)
    if row is not None:
        return row.state
    record = find_record(context, order_id)
    return None if record is None else record.state


# -- show and find --------------------------------------------------------------------------------------------------


def _add_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("order_id", metavar="ID", help="order id")


def _add_buyer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--buyer", metavar="ID", required=True, help="buyer id")


def _show(context: Context) -> Outcome:
    order_id, now = context.options.order_id, context.now()
    found = _found(context, context.finder.by_ids, [order_id])
    if not found:
        raise Stop(f"no server knows order {order_id!r} of sale {context.name}")
    return Outcome(described(found[0], now), {**_told(found[0]), "time": now})


def _find(context: Context) -> Outcome:
    now = context.now()
    found = _found(context, context.finder.by_buyer, context.options.buyer)
    lines = [line for each in found for line in described(each, now)]
    none = f"buyer {context.options.buyer} has no order that a server knows"
    return Outcome(lines or [none], {"orders": [_told(each) for each in found], "time": now})


def _found(context: Context, find: Callable[..., list[Found]], what: object) -> list[Found]:
    found = find(what)
    if context.finder.failure is not None:
        context.tell(f"the database does not say what it has: {context.finder.failure}")
    return found


def described(found: Found, now: float) -> list[str]:
    """Returns what is known of an order, line by line; the first line has its id first."""
    order, row = found.order, found.row
    database = row and row.state
    return [
        f"{order.order_id}  {order.goods_id} {order.quantity}  {database or found.ledger}  buyer {order.buyer_id}",
        f"ledger {found.ledger or 'has it not'}, database {database or 'has no row'}",
        *_times(found, now),
        *_where(found, now),
        *([f"why: {found.reason}"] if found.reason else []),
        *([f"to be paid until {clock.near(found.due, now)}"] if found.due is not None else []),
        *([f"refused by the shop: {row.reason}"] if row is not None and row.reason else []),
    ]


def _times(found: Found, now: float) -> list[str]:
    row = found.row
    accepted = row.order.created_at if row is not None else found.order.created_at
    names = {"accepted": accepted}
    names |= {"saved": row.persisted_at, "settled": row.settled_at} if row is not None else {}
    told = [f"{name} {clock.near(at, now)}" for name, at in names.items() if at is not None]
    return [f"{', '.join(told)}, by Redis's clock"] if told else []


def _where(found: Found, now: float) -> list[str]:
    if found.is_dead:
        return ["a dead letter: dead requeue, or dead cancel"]
    if found.ahead is not None:
        return [f"on the list, {found.ahead:,} before it"]
    if found.claim is None:
        return []
    held = f"try {found.claim.attempts}"
    if found.lease_ends_in is not None:
        word = "its lease ends" if found.lease_ends_in > 0 else "its lease ended"
        held += f", {word} {clock.gap(found.lease_ends_in, 0.0)}"
    if found.worker is not None:
        return [f"claimed by {told(found.worker, now)}; {held}"]
    is_held = found.claim.lease and found.lease_ends_in is not None and found.lease_ends_in > 0
    who = "claimed by a worker that has not told of it yet" if is_held else "given back, for the next worker to come"
    return [f"{who}; {held}", *(f"perhaps {told(each, now)}" for each in found.silent)]


def _told(found: Found) -> dict[str, Any]:
    order, row, worker = found.order, found.row, found.worker
    return {
        "order": {name: getattr(order, name) for name in ORDER_COLUMNS if hasattr(order, name)},
        "ledger": found.ledger,
        "database": row and row.state,
        "persisted_at": row and row.persisted_at,
        "settled_at": row and row.settled_at,
        "reason": found.reason or (row and row.reason),
        "ahead": found.ahead,
        "attempts": found.claim and found.claim.attempts,
        "worker": worker and worker.instance,
        "silent": [each.instance for each in found.silent],
        "lease_ends_in": found.lease_ends_in,
        "dead": found.is_dead,
        "pay_until": found.due,
    }


# -- cancel and confirm ---------------------------------------------------------------------------------------------


def _add_some(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("order_ids", metavar="ID", nargs="+", help="order ids")


def _cancel(context: Context) -> Outcome:
    return _settle(context, OrderState.CANCELLED, asks=True)


def _confirm(context: Context) -> Outcome:
    return _settle(context, OrderState.CONFIRMED, asks=False)


def _settle(context: Context, target: OrderState, *, asks: bool) -> Outcome:
    before = {order_id: state_of(context, order_id) for order_id in dict.fromkeys(context.options.order_ids)}
    if not any(before.values()):
        raise Stop(f"no server knows {', '.join(map(repr, before))}")
    return context.change(
        Change(
            lines=[f"{order_id}  {_foreseen(context, order_id, state, target)}" for order_id, state in before.items()],
            before=before,
            after={order_id: target for order_id, state in before.items() if _may_go(state, target)},
            make=lambda: settle_all(context, before, target),
            asks=asks,
        )
    )


def _may_go(state: OrderState | None, target: OrderState) -> bool:
    if state is None or state in RELEASED:
        return False
    return target in TRANSITIONS[state] or (state, target) == (OrderState.QUEUED, OrderState.CONFIRMED)


def _foreseen(context: Context, order_id: str, state: OrderState | None, target: OrderState) -> str:
    if state is None:
        return "is unknown"
    if not _may_go(state, target):
        return f"{state}, stays so"
    try:
        context.expect(_content(context, order_id) | {"state": state} if context.options.expect else {})
    except Stop as error:
        return str(error)
    paid = "; it was paid: money goes back" if state is OrderState.CONFIRMED else ""
    return f"{state} -> {target}{paid}"


def settle_all(context: Context, before: dict[str, OrderState | None], target: OrderState) -> Outcome:
    """Moves orders to a state, each by itself; what stops one stops no other.

    Returns:
        What became of each; attention, when one of them is not where it was to go.
    """
    after: dict[str, OrderState | None] = {}
    problems: dict[str, str] = {}
    for order_id in before:
        try:
            after[order_id] = settle_one(context, order_id, target)
        except NotPersisted:
            problems[order_id] = "its row is not in the database yet: do workers run?"
        except (StoreError, CorruptState, Stop) as error:
            problems[order_id] = str(error)
    lines = [_became(order_id, after, problems, target) for order_id in before]
    is_done = all(after.get(order_id) is target for order_id in before)
    return Outcome(lines, {"after": after, "problems": problems}, 0 if is_done else ATTENTION)


def _became(order_id: str, after: dict[str, OrderState | None], problems: dict[str, str], target: OrderState) -> str:
    if order_id in problems:
        return f"{order_id}: {problems[order_id]}"
    state = after[order_id]
    if state is None:
        return f"{order_id} is unknown"
    return f"{order_id} is {state}" + ("" if state is target else ": that was final before")


def settle_one(context: Context, order_id: str, target: OrderState) -> OrderState | None:
    """Moves one order; where `--expect` is given, in one transaction with the comparison.

    An order without a row has nothing to lock: it is compared with the ledger just before. So is every order of a store
    that cannot lock.
    """
    step = context.sale.cancel if target is OrderState.CANCELLED else context.sale.confirm
    if not context.options.expect:
        return step(order_id)
    if not can_lock(context.store):
        context.expect(_content(context, order_id))
        return step(order_id)
    with locked(context.store, "orders", ORDER_COLUMNS, order_id=order_id) as found:
        context.expect(found.row if found.row is not None else _content(context, order_id))
        return step(order_id, connection=found.connection)


def _content(context: Context, order_id: str) -> dict[str, Any]:
    record = find_record(context, order_id)
    return {} if record is None else {name: getattr(record, name) for name in FIELDS}


_EXPECTED: Final = (
    " --expect is compared with the order's row in the transaction that moves it; an order that has no row yet, with "
    "the ledger just before."
)

VERBS: Final = (
    Verb(
        "orders find",
        "find the orders of a buyer: where they are, and what they wait for",
        _find,
        _add_buyer,
        "Lists the orders of a buyer: the last hundred of the database, and all that wait in Redis.",
    ),
    Verb(
        "orders show",
        "show one order: where it is, and why",
        _show,
        _add_one,
        "Shows what the ledger and the database have of an order, where it waits, and why the database refused it.",
    ),
    Verb(
        "orders cancel",
        "cancel orders, paid or not; their units return",
        _cancel,
        _add_some,
        "Cancels orders, paid or not, each by itself: the database decides, then units, allowance and slot return."
        + _EXPECTED,
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        asks=True,
        wants_reason=True,
        expects=FIELDS,
    ),
    Verb(
        "orders confirm",
        "record that orders are paid",
        _confirm,
        _add_some,
        "Records that orders are paid, each by itself." + _EXPECTED,
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        expects=FIELDS,
    ),
)
