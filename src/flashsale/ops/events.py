"""The commands for dead events, on which the handler of the outbox failed too often: list them, make them due again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from flashsale.model import Event
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.values import between
from flashsale.ops.words import table

MOST: Final = 100
HEAD: Final = ("event", "order", "was", "is", "attempts")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    told = f"how many are shown, the oldest ({MOST})"
    parser.add_argument("--limit", type=between(1, 100_000), default=MOST, metavar="N", help=told)


def _list(context: Context) -> Outcome:
    dead, limit = _dead(context), context.options.limit
    lines = [*table(HEAD, map(_cells, dead)), *_more(dead, limit)] if dead else ["no dead events"]
    return Outcome(lines, {"dead": [_told(event) for event in dead]}, ATTENTION if dead else 0)


def _dead(context: Context) -> Sequence[Event]:
    store = context.store
    if not hasattr(store, "dead_events"):
        raise Stop(f"{type(store).__name__} has no dead_events: look where your shop keeps its events")
    dead: Sequence[Event] = store.dead_events(context.options.limit)
    return dead


def _cells(event: Event) -> tuple[str, ...]:
    return (str(event.event_id), event.order.order_id, event.previous, event.state, str(event.attempts))


def _told(event: Event) -> dict[str, Any]:
    return {
        "event": event.event_id,
        "order_id": event.order.order_id,
        "previous": event.previous,
        "state": event.state,
        "attempts": event.attempts,
    }


def _more(dead: Sequence[Event], limit: int) -> list[str]:
    return [f"there may be more than {limit}: --limit"] if len(dead) == limit else []


def _requeue(context: Context) -> Outcome:
    dead, limit = _dead(context), context.options.limit
    if not dead:
        return Outcome(["no dead events"], {"requeued": 0})
    lines = [f"event {each.event_id}, order {each.order.order_id} {each.state}  dead -> due" for each in dead]
    return context.change(
        Change(
            lines=[*lines, *(["perhaps there are more: all of them are due again"] if len(dead) == limit else [])],
            before={str(each.event_id): "dead" for each in dead},
            after={str(each.event_id): "due" for each in dead},
            make=lambda: _make_requeue(context),
        )
    )


def _make_requeue(context: Context) -> Outcome:
    back = context.store.requeue_events()
    return Outcome([f"{back:,} events are due again"], {"requeued": back})


VERBS: Final = (
    Verb(
        "events list",
        "list the events on which the outbox gave up",
        _list,
        _add_limit,
        needs=frozenset({"database", "sale"}),
    ),
    Verb(
        "events requeue",
        "make all dead events due again, once the handler is mended",
        _requeue,
        _add_limit,
        "Makes all dead events due again, with no attempt counted. Later events of their orders may have been "
        "delivered meanwhile.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
    ),
)
