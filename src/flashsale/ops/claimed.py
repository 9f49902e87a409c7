"""The command `orders claimed`: which orders workers have claimed, and until when."""

from __future__ import annotations

from typing import Any, Final

from flashsale._rules.activity import holder, is_silent, silent
from flashsale.model import Claim, Order
from flashsale.model.snapshot import Process, Snapshot
from flashsale.ops import clock
from flashsale.ops.frame import Context, Outcome, Verb
from flashsale.ops.words import table

HEAD: Final = ("order", "goods", "accepted", "lease ends", "worker")


def _claimed(context: Context) -> Outcome:
    look = context.sale._recorder.look()
    claims = context.overview.claims(lambda _: True)
    found = [_told(look, claim, claim.order, ends) for claim, ends in claims if claim.order is not None]
    found.sort(key=lambda each: (each["lease_ends"] or 0.0, each["order_id"]))
    rows = [_cells(each, look.time) for each in found]
    lines = [*table(HEAD, rows), *_silence(look, found)] if found else ["no claimed orders"]
    return Outcome(lines, {"claimed": found, "time": look.time})


def _told(look: Snapshot, claim: Claim, order: Order, ends: float | None) -> dict[str, Any]:
    worker = holder(look.processes, claim)
    return {
        "order_id": order.order_id,
        "goods_id": order.goods_id,
        "accepted": order.created_at,
        "lease_ends": ends,
        "attempts": claim.attempts,
        "worker": worker and worker.instance,
        "who": _who(look, claim, worker),
    }


def _who(look: Snapshot, claim: Claim, worker: Process | None) -> str:
    if worker is not None:
        return worker.instance + (", silent" if is_silent(worker, look.time) else "")
    return "none has told" if claim.lease else "given back"


def _cells(found: dict[str, Any], now: float) -> tuple[str, ...]:
    moments = (found["accepted"], found["lease_ends"])
    times = ("" if each is None else clock.near(each, now) for each in moments)
    return (found["order_id"], found["goods_id"], *times, found["who"])


def _silence(look: Snapshot, found: list[dict[str, Any]]) -> list[str]:
    """Returns which silent workers may hold the orders of which none has told."""
    names = [each.instance for each in silent(look)]
    untold = any(each["who"] == "none has told" for each in found)
    return [f"of which none has told, perhaps: {', '.join(names)}, silent"] if names and untold else []


VERBS: Final = (
    Verb(
        "orders claimed",
        "list the orders that workers have claimed, and until when",
        _claimed,
        about="Lists the orders that workers have claimed: when each was accepted, when the lease ends, after which "
        "another worker takes it, and which worker claimed it, as far as that has told.",
    ),
)
