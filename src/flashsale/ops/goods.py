"""The command that lists the items: units, policy, state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flashsale._rules.codes import kept
from flashsale.errors import CorruptState, NotExecuted, OutcomeUnknown, UnknownGoods
from flashsale.model import GateState, Goods, Stock
from flashsale.model import Outcome as Answer
from flashsale.ops import clock
from flashsale.ops.frame import Context, Outcome, Verb
from flashsale.ops.items import POLICY
from flashsale.ops.words import noted, number, shown, table


def _list(context: Context) -> Outcome:
    now, rows = context.now(), context.items()
    names = sorted({*context.overview.goods(), *rows})
    found = [look(context, goods_id, rows.get(goods_id)) for goods_id in names]
    head = ("goods", "total", "booked", "free", "cap", "hold", "state")
    lines = table(head, (_cells(each, now) for each in found)) if found else [f"sale {context.name} has no items"]
    later = [f"{each['goods']}: {text}" for each in found for text in apart(each)]
    return Outcome([*lines, *later], {"time": now, "goods": found})


def look(context: Context, goods_id: str, row: Goods | None) -> dict[str, Any]:
    """Returns what is known of an item: by Redis, and its policy by its row, else by Redis too."""
    stock, gate, problem = None, None, ""
    try:
        stock, gate = context.overview.stock(goods_id), context.overview.gate(goods_id)
    except UnknownGoods as error:
        later = f", the database has {number(row.total)}" if row else ""
        problem = lost(context) + noted(error) if row is not None and row.loaded else f"not in Redis yet{later}"
    except CorruptState as error:
        problem = f"corrupt in Redis{noted(error)}"
    except (NotExecuted, OutcomeUnknown) as error:
        if not noted(error):
            raise
        problem = f"not known: no answer{noted(error)}"
    there = _policy_of_redis(context, goods_id)
    policy = _policy(row) if row else {**there, "total_in_database": None, "version": None}
    told = {"problem": problem, "in_redis": None if problem else there}
    return {"goods": goods_id, **_of_stock(stock), **_of_gate(gate), **policy, **told}


def lost(context: Context) -> str:
    """Returns why Redis has no item that it once had."""
    return "purged" if context.is_purged() else "lost from Redis"


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


def _policy_of_redis(context: Context, goods_id: str) -> dict[str, Any]:
    names = ("per_buyer", "opens_at", "closes_at", "hold", "version")
    texts = context.overview.policy(goods_id, names)
    return {name: _value(name, text) if text else None for name, text in zip(names, texts, strict=True)}


def _value(name: str, text: bytes) -> int | float | str:
    """Returns a field of Redis; what somebody else wrote there stays a text."""
    try:
        return int(text) if name in {"per_buyer", "version"} else float(text)
    except ValueError:
        return text.decode(errors="replace")


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


def differing(found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns which fields of an item Redis has otherwise than the row, of what `look` has found: row's, Redis's."""
    there, total = found["in_redis"], found["total_in_database"]
    if there is None or total is None:
        return {}
    pairs = {"total": (total, found["total"])}
    pairs |= {name: (kept(found[name]), there[name]) for name in POLICY if name in there}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def apart(found: Mapping[str, Any]) -> list[str]:
    """Returns where the policy that holds in Redis is not that of the row, of what `look` has found."""
    return [
        f"the database wants {name} {shown(wanted)}, Redis has {shown(there)}: {_remedy(found, name)}"
        for name, (wanted, there) in differing(found).items()
    ]


def all_apart(context: Context) -> list[str]:
    """Returns where Redis has another policy than the row, of all items."""
    looks = {goods_id: look(context, goods_id, row) for goods_id, row in sorted(context.items().items())}
    return [f"{goods_id}: {text}" for goods_id, found in looks.items() for text in apart(found)]


def _remedy(found: Mapping[str, Any], name: str) -> str:
    version = found["in_redis"]["version"]
    if isinstance(version, int) and version > found["version"]:
        return "its row is older than what Redis has. Was the database restored? `flashsale rebuild` brings it"
    if name == "total" and found["total"] == found["booked"] > found["total_in_database"]:
        return "so many are booked; it follows as units return"
    return "the syncer brings it, if one runs, or `flashsale goods set`"


VERBS: Final = (Verb("goods list", "list the items: units, policy, and whether they are open", _list),)
