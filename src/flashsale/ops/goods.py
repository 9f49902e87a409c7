"""The commands for items: list them, set their policy, open them, stop them, restock them."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from flashsale._rules.rows import GOODS_COLUMNS, read_goods
from flashsale.errors import CorruptState, NotExecuted, UnknownGoods
from flashsale.model import GateState, Goods, Stock
from flashsale.model import Outcome as Answer
from flashsale.model.checks import MAX_UNITS
from flashsale.ops import clock
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.transaction import can_lock, locked
from flashsale.ops.words import change, number, share, shown, table

BRAKE: Final = 0.2  # of the total: what goes up by more than this, or down, is asked for
POLICY: Final = ("total", "per_buyer", "opens_at", "closes_at", "hold")
ROW_FIELDS: Final = ("total", "granted", "booked", "version", "per_buyer", "opens_at", "closes_at", "hold")


# -- list -----------------------------------------------------------------------------------------------------------


def _list(context: Context) -> Outcome:
    now, rows = context.now(), context.items()
    names = sorted({*context.sale._meta.goods(), *rows})
    found = [look(context, goods_id, rows.get(goods_id)) for goods_id in names]
    head = ("goods", "total", "booked", "free", "cap", "hold", "state")
    lines = table(head, (_cells(each, now) for each in found)) if found else [f"sale {context.name} has no items"]
    later = [f"{each['goods']}: {_apart(each)}" for each in found if _apart(each)]
    return Outcome([*lines, *later], {"time": now, "goods": found})


def look(context: Context, goods_id: str, row: Goods | None) -> dict[str, Any]:
    """Returns what is known of an item: by Redis, and its policy by its row, else by Redis too."""
    sale = context.sale
    stock, gate, problem = None, None, ""
    try:
        stock, gate = sale.inventory.stock(goods_id), sale.gate.state(goods_id)
    except UnknownGoods:
        problem = "lost from Redis" if row is not None and row.loaded else "not in Redis yet"
    except CorruptState:
        problem = "corrupt in Redis"
    policy = _policy(row) if row else _policy_of_redis(sale, goods_id)
    return {"goods": goods_id, **_of_stock(stock), **_of_gate(gate), **policy, "problem": problem}


def _of_stock(stock: Stock | None) -> dict[str, Any]:
    if stock is None:
        return dict.fromkeys(("total", "booked", "free", "direct"))
    return {
        "total": stock.total,
        "booked": stock.booked,
        "free": stock.total - stock.booked,
        "direct": stock.direct,
    }


def _of_gate(gate: GateState | None) -> dict[str, Any]:
    if gate is None:
        return dict.fromkeys(("gate", "access", "answer"))
    return {"gate": gate.count, "access": gate.access, "answer": str(gate.outcome)}


def _policy(row: Goods) -> dict[str, Any]:
    return {
        "per_buyer": row.per_buyer,
        "opens_at": row.opens_at,
        "closes_at": row.closes_at,
        "hold": row.hold,
        "total_in_database": row.total,
        "version": row.version,
    }


def _policy_of_redis(sale: Any, goods_id: str) -> dict[str, Any]:
    names = ("per_buyer", "opens_at", "closes_at", "hold")
    texts = sale._link.command("HMGET", sale.keys.stock(goods_id), *names)
    values = {name: float(text) if text else None for name, text in zip(names, texts, strict=True)}
    cap = values["per_buyer"]
    return {**values, "per_buyer": None if cap is None else int(cap), "total_in_database": None, "version": None}


def _cells(found: Mapping[str, Any], now: float) -> tuple[str, ...]:
    hold = "none" if found["hold"] is None else clock.span(found["hold"])
    counts = (number(found[name]) for name in ("total", "booked", "free"))
    return (found["goods"], *counts, shown(found["per_buyer"]), hold, _state(found, now))


def _state(found: Mapping[str, Any], now: float) -> str:
    opens_at, closes_at = found["opens_at"], found["closes_at"]
    ends = f", ends {clock.away(closes_at, now)}" if closes_at else ""
    if found["problem"]:
        return str(found["problem"])
    if found["answer"] == Answer.NOT_STARTED:
        return f"opens {clock.away(opens_at, now)}" if opens_at and opens_at > now else "shut"
    if found["answer"] == Answer.ENDED:
        return f"ended {clock.away(closes_at, now)}" if closes_at else "ended"
    words = {Answer.ADMITTED: "open", Answer.SOLD_OUT: "sold out", Answer.PAUSED: "paused"}
    return words[Answer(found["answer"])] + ends


def _apart(found: Mapping[str, Any]) -> str:
    wanted = found["total_in_database"]
    if wanted is None or found["total"] in {None, wanted}:
        return ""
    return f"the database wants {wanted:,} units, Redis has {found['total']:,}: the syncer brings it, if one runs"


# -- set ------------------------------------------------------------------------------------------------------------


def _add_set(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("goods_id", metavar="GOODS", help="which item")
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    add("--total", metavar="N", type=_count, help="units for sale", **given)
    add("--per-buyer", metavar="N|none", type=_or_none(_count), help="most units of one buyer", **given)
    add("--opens-at", metavar="T|none", help=f"when it opens by the clock of Redis: {clock.FORMS}", **given)
    add("--closes-at", metavar="T|none", help="when it ends", **given)
    add("--hold", metavar="S|none", type=_or_none(_seconds), help="seconds to pay", **given)
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
    _foresee(context, goods_id)
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


def _foresee(context: Context, goods_id: str) -> None:
    """Compares what is expected before a dry run, too."""
    if context.options.dry_run and context.options.expect and can_lock(context.store):
        with locked(context.store, "goods", GOODS_COLUMNS, goods_id=goods_id) as found:
            context.expect(found.row or {})


def _total(given: Mapping[str, Any]) -> int:
    if "total" not in given:
        raise Stop("a new item needs --total")
    return int(given["total"])


def _given(context: Context) -> dict[str, Any]:
    given = {name: value for name, value in vars(context.options).items() if name in POLICY}
    for name in given.keys() & {"opens_at", "closes_at"}:
        given[name] = moment(context, name, given[name])
    return given


def moment(context: Context, name: str, text: str) -> float | None:
    """Returns the moment that an option names, None for "none"."""
    if text == "none":
        return None
    try:
        return clock.read(text, context.now())
    except ValueError as error:
        raise Stop(f"--{name.replace('_', '-')}: must be {clock.FORMS}, not {text!r}") from error


def _words(context: Context, name: str, pair: tuple[Any, Any]) -> list[object]:
    if name in {"opens_at", "closes_at"}:
        now = context.now()
        return [None if each is None else clock.away(each, now) for each in pair]
    if name == "hold":
        return [None if each is None else clock.span(each) for each in pair]
    return list(pair)


def is_braked(before: int, after: int) -> bool:
    """Returns whether a total moves so far that the operator is asked."""
    return after < before or after > before * (1 + BRAKE)


def _write_and_bring(context: Context, goods_id: str, given: Mapping[str, Any], *, is_new: bool) -> Outcome:
    written = write(context, goods_id, given, is_new=is_new)
    said, stands = bring(context, written)
    return Outcome(said, {"goods": goods_id, "version": written.version, "total_in_redis": stands})


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
            context.expect(found.row)
            found.store.put_goods(replace(read_goods(found.row), **given), replace=True)
    else:
        row = {each.goods_id: each for each in store.goods()}[goods_id]
        context.expect(asdict(row))
        store.put_goods(replace(row, **given), replace=True)
    return context.items_or_stop()[goods_id]


def bring(context: Context, goods: Goods) -> tuple[list[str], int | None]:
    """Brings the row of an item to Redis at once, as the syncer does within a second.

    Returns:
        What is to be said of it, and the total that stands in Redis, in units; None: it has not got there.
    """
    sale = context.sale
    try:
        total = sale._transitions.adjust(goods, sale.inventory.stock(goods.goods_id))
        follow(sale, goods, total)
    except UnknownGoods:
        return [f"{goods.goods_id} is not in Redis: the syncer loads it"], None
    except NotExecuted as error:
        return [f"the row is written; Redis waits for the syncer: {error}"], None
    if total != goods.total:
        return [f"{total:,} units are booked: the total in Redis stops there until some return"], total
    return [], total


def follow(sale: Any, goods: Goods, total: int) -> None:
    """Makes the gate follow the stock: count, window and cap."""
    goods_id, cap = goods.goods_id, goods.per_buyer
    gate, booked = sale.gate, sale.inventory.stock(goods_id).booked
    gate._ensure(goods_id, total, opens_at=goods.opens_at, closes_at=goods.closes_at, per_buyer=cap)
    paused = sale._meta.state().state != "open"
    gate._mirror(goods_id, total, booked, paused=paused, per_buyer=cap, stock_here=sale._one_redis)


# -- open and stop --------------------------------------------------------------------------------------------------


def _add_goods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("goods_id", metavar="GOODS", help="which item")


def _add_open(parser: argparse.ArgumentParser) -> None:
    _add_goods(parser)
    parser.add_argument("--at", metavar="TIME", help=f"by the clock of Redis: {clock.FORMS} (default: now)")


def _open(context: Context) -> Outcome:
    goods_id, now = context.options.goods_id, context.now()
    gate = gate_of(context, goods_id)
    at = now if context.options.at is None else moment(context, "at", context.options.at)
    if at is None:
        raise Stop("--at: must be a time; none is for: goods set --opens-at")
    if gate.closes_at is not None and gate.closes_at <= max(at, now):
        ends = clock.away(gate.closes_at, now)
        raise Stop(f"{goods_id} ends {ends}: set a later end first, goods set {goods_id} --closes-at", ATTENTION)
    if at > now:
        return _open_later(context, gate, goods_id, at)
    if gate.opens_at is not None and gate.opens_at > now:
        return _open_early(context, gate, goods_id, now)
    return context.change(
        Change(
            lines=[f"{goods_id}  {_is(gate, now)} -> open"],
            before={"started": gate.started},
            after={"started": True},
            make=lambda: _start(context, goods_id),
        )
    )


def _open_later(context: Context, gate: GateState, goods_id: str, at: float) -> Outcome:
    if gate.started:
        raise Stop(f"{goods_id} is open already; stop it first, if it is to wait", ATTENTION)
    return context.change(_opening(context, gate, goods_id, at, f"opens {clock.away(at, context.now())}"))


def _open_early(context: Context, gate: GateState, goods_id: str, now: float) -> Outcome:
    """Opens an item whose time has not come: its row must say so too, or the syncer shuts it again."""
    return context.change(_opening(context, gate, goods_id, now, "open"))


def _opening(context: Context, gate: GateState, goods_id: str, at: float, words: str) -> Change:
    now = context.now()

    def make() -> Outcome:
        said, _ = bring(context, write(context, goods_id, {"opens_at": at}))
        if at <= now:
            context.sale.start(goods_id)
        return Outcome([*said, *_hindered(context)], {"goods": goods_id})

    lines = [f"{goods_id}  {_is(gate, now)} -> {words}"]
    return Change(lines, {"opens_at": gate.opens_at}, {"opens_at": at}, make)


def _start(context: Context, goods_id: str) -> Outcome:
    context.sale.start(goods_id)
    return Outcome(_hindered(context), {"goods": goods_id})


def _hindered(context: Context) -> list[str]:
    state = context.sale._meta.state().state
    advice = {"paused": "the sale is paused: resume", "closed": "the sale is closed: rebuild"}
    return [advice[state]] if state in advice else []


def _is(gate: GateState, now: float) -> str:
    if gate.outcome is Answer.NOT_STARTED and gate.opens_at and gate.opens_at > now:
        return f"opens {clock.away(gate.opens_at, now)}"
    return "open" if gate.started else "shut"


def gate_of(context: Context, goods_id: str) -> GateState:
    """Returns what the gate holds of an item.

    Raises:
        Stop: it does not know the item.
    """
    try:
        state: GateState = context.sale.gate.state(goods_id)
    except UnknownGoods:
        row = context.items().get(goods_id)
        if row is None:
            raise context.no_item(goods_id) from None
        lost = "lost from Redis: rebuild" if row.loaded else "not in Redis yet: does a syncer run?"
        raise Stop(f"{goods_id} is {lost}", ATTENTION) from None
    return state


def _stop(context: Context) -> Outcome:
    goods_id, now = context.options.goods_id, context.now()
    gate = gate_of(context, goods_id)
    return context.change(
        Change(
            lines=[f"{goods_id}  {_is(gate, now)} -> shut, until: open {goods_id}"],
            before={"started": gate.started, "opens_at": gate.opens_at},
            after={"started": False},
            make=lambda: _shut(context, goods_id),
            asks=True,
        )
    )


def _shut(context: Context, goods_id: str) -> Outcome:
    context.sale.stop(goods_id)
    return Outcome(["buyers who have passed the gate still get their units; pause lets nobody buy"])


# -- restock --------------------------------------------------------------------------------------------------------


def _add_restock(parser: argparse.ArgumentParser) -> None:
    _add_goods(parser)
    add = parser.add_argument
    add("units", metavar="+N|-N", type=_signed, help="units to add, or to take away")
    add("--request-id", metavar="ID", help="names this restock: given again, it is done once (default: a new one)")


def _restock(context: Context) -> Outcome:
    goods_id, units = context.options.goods_id, context.options.units
    row = context.items_or_stop().get(goods_id)
    if row is None:
        raise context.no_item(goods_id)
    gate_of(context, goods_id)
    _foresee(context, goods_id)
    stock = context.sale.inventory.stock(goods_id)
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


# -- values ---------------------------------------------------------------------------------------------------------


def _count(text: str) -> int:
    return _whole(text, 0)


def _signed(text: str) -> int:
    value = _whole(text, -MAX_UNITS)
    if not value:
        raise argparse.ArgumentTypeError("must not be 0")
    return value


def _whole(text: str, low: int) -> int:
    try:
        value = int(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
    if not low <= value <= MAX_UNITS:
        raise argparse.ArgumentTypeError(f"must be in {low}..{MAX_UNITS}, not {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be seconds, not {text!r}") from None


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else kind(text)


VERBS: Final = (
    Verb("goods list", "list the items: units, policy, and whether they are open", _list),
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
    Verb(
        "open",
        "open an item, now or at a time",
        _open,
        _add_open,
        "Opens an item. One whose time has not come yet is opened all the same, and its row says so from then.",
        kind=Kind.CHANGE,
    ),
    Verb(
        "stop",
        "shut the gate of an item at once",
        _stop,
        _add_goods,
        "Shuts the gate of one item, until it is opened again. Buyers between gate and stock still get their units. "
        "Works without the database.",
        kind=Kind.CHANGE,
        asks=True,
    ),
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
