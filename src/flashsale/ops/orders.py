"""The commands for single orders: show, cancel, confirm."""

from __future__ import annotations

import argparse
from typing import Any, Final

from flashsale._rules.ledger_record import Record
from flashsale._rules.rows import ORDER_COLUMNS
from flashsale._sync.order_queue import _parts
from flashsale.errors import CorruptState, InvalidRequest, NotPersisted, StoreError
from flashsale.model import RELEASED, TRANSITIONS, Order, OrderState, StoredOrder
from flashsale.ops import clock
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.transaction import can_lock, locked

FIELDS: Final = ("state", "goods_id", "buyer_id", "quantity")


# -- looking --------------------------------------------------------------------------------------------------------


def find_record(context: Context, order_id: str) -> Record | None:
    """Returns the ledger's record of an order; None when it has none that can be read."""
    try:
        return context.sale._ledger.get(order_id)
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


def place_of(context: Context, order_id: str) -> dict[str, Any] | None:
    """Returns where an order is on its way to the database; None: nowhere."""
    return _letter(context, order_id) or _on_list(context, order_id) or _claimed(context, order_id)


def _letter(context: Context, order_id: str) -> dict[str, Any] | None:
    letter = context.sale.queue._dead_letters([order_id]).get(order_id)
    return None if letter is None else {"place": "dead", "attempts": letter.attempts, "why": letter.reason}


def _on_list(context: Context, order_id: str) -> dict[str, Any] | None:
    sale, page = context.sale, 1000
    length = sale.queue.size()
    for at in range(0, length, page):
        for place, body in enumerate(sale._link.command("LRANGE", sale.keys.order_list, at, at + page - 1), at):
            if _is_of(body, order_id):
                return {"place": "list", "ahead": max(0, length - 1 - place)}
    return None


def _claimed(context: Context, order_id: str) -> dict[str, Any] | None:
    sale = context.sale
    for page in sale.queue._scan(sale.keys.claimed):
        for delivery, entry in page.items():
            attempts, lease, body = _parts(entry)
            if _is_of(body, order_id):
                ends = sale._link.command("ZSCORE", sale.keys.leases, delivery)
                ends = None if ends is None else float(ends)
                return {"place": "claimed", "attempts": attempts, "lease": lease, "lease_ends": ends}
    return None


def _is_of(body: bytes, order_id: str) -> bool:
    try:
        return Order.from_json(body).order_id == order_id
    except InvalidRequest:
        return False


# -- show -----------------------------------------------------------------------------------------------------------


def _add_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("order_id", metavar="ID", help="order id")


def _show(context: Context) -> Outcome:
    order_id, now = context.options.order_id, context.now()
    record, row = find_record(context, order_id), find_row(context, order_id)
    order = row.order if row is not None else record and record.order(order_id)
    if order is None:
        raise Stop(f"no server knows order {order_id!r} of sale {context.name}")
    ledger, database = record and record.state, row and row.state
    queued = ledger in {OrderState.QUEUED, OrderState.DEAD} or (ledger is None and row is None)
    place = place_of(context, order_id) if queued else None
    ends = _deadline(context, order_id)
    lines = [
        f"{order_id}  {order.goods_id} {order.quantity}  {database or ledger}  buyer {order.buyer_id}",
        f"ledger {ledger or 'has it not'}, database {database or 'has no row'}",
        *_times(order, row, now),
        *_where(place, now),
        *([f"to be paid until {clock.away(ends, now)}"] if ends is not None else []),
        *([f"refused by the shop: {row.reason}"] if row is not None and row.reason else []),
    ]
    data = {
        "order": {name: getattr(order, name) for name in ORDER_COLUMNS if hasattr(order, name)},
        "ledger": ledger,
        "database": database,
        "reason": row.reason if row is not None else None,
        "place": place,
        "pay_until": ends,
        "time": now,
    }
    return Outcome(lines, data)


def _times(order: Order, row: StoredOrder | None, now: float) -> list[str]:
    names = {"accepted": order.created_at}
    names |= {name: getattr(row, f"{name}_at", None) for name in ("persisted", "settled")}
    told = [f"{name} {clock.away(at, now)}" for name, at in names.items() if at is not None]
    return [", ".join(told)] if told else []


def _where(place: dict[str, Any] | None, now: float) -> list[str]:
    if place is None:
        return []
    if place["place"] == "dead":
        why = place["why"] or "nobody refused it: its workers died or were too slow, or it is no order"
        return [f"a dead letter after {place['attempts']} attempts", f"why: {why}"]
    if place["place"] == "list":
        return [f"on the list, {place['ahead']:,} before it"]
    ends = place["lease_ends"]
    free = "" if ends is None else f", its lease ends {clock.away(ends, now)}"
    return [f"claimed by a worker, try {place['attempts']}{free}"]


def _deadline(context: Context, order_id: str) -> float | None:
    sale = context.sale
    score = sale._link.command("ZSCORE", sale.keys.holds, order_id)
    return None if score is None else float(score)


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
            lines=[f"{order_id}  {_foreseen(state, target)}" for order_id, state in before.items()],
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


def _foreseen(state: OrderState | None, target: OrderState) -> str:
    if state is None:
        return "is unknown"
    if not _may_go(state, target):
        return f"{state}, stays so"
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
