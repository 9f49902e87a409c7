"""The commands that open an item and shut it."""

from __future__ import annotations

import argparse
from typing import Final

from flashsale.model import GateState
from flashsale.model import Outcome as Answer
from flashsale.ops import clock
from flashsale.ops.frame import ATTENTION, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.items import add_goods, bring, gate_of, moment, write


def _add_open(parser: argparse.ArgumentParser) -> None:
    add_goods(parser)
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
    state = context.overview.state().state
    advice = {"paused": "the sale is paused: resume", "closed": "the sale is closed: rebuild"}
    return [advice[state]] if state in advice else []


def _is(gate: GateState, now: float) -> str:
    if gate.outcome is Answer.NOT_STARTED and gate.opens_at and gate.opens_at > now:
        return f"opens {clock.away(gate.opens_at, now)}"
    return "open" if gate.started else "shut"


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


VERBS: Final = (
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
        add_goods,
        "Shuts the gate of one item, until it is opened again. Buyers between gate and stock still get their units. "
        "Works without the database.",
        kind=Kind.CHANGE,
        asks=True,
    ),
)
