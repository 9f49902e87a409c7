"""How events become rows of `EVENTS` and come back. Pure: no connection here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, Select, and_, exists, select

from flashsale._rules.rows import read_order, read_state
from flashsale._sql.tables import EVENTS, ORDERS
from flashsale.model import Event, OrderState


def event_values(sale: str, order_id: str, state: OrderState, previous: OrderState) -> dict[str, Any]:
    """Returns the row of a new event, due at once."""
    return {
        "sale": sale,
        "order_id": order_id,
        "state": state.value,
        "previous": previous.value,
        "attempts": 0,
        "due_at": 0.0,
    }


def due_events(sale: str, now: float) -> Select[Any]:
    """Returns the query of what is due at `now` (epoch seconds), of each order only the first that waits."""
    first = EVENTS.alias()
    waits_for_another = exists().where(
        first.c.sale == EVENTS.c.sale,
        first.c.order_id == EVENTS.c.order_id,
        first.c.event_id < EVENTS.c.event_id,
        first.c.due_at.is_not(None),
    )
    return _events(sale).where(EVENTS.c.due_at <= now, ~waits_for_another)


def dead_events(sale: str) -> Select[Any]:
    """Returns the query of the dead letters."""
    return _events(sale).where(EVENTS.c.due_at.is_(None))


def _events(sale: str) -> Select[Any]:
    of_event = [EVENTS.c.event_id, EVENTS.c.state, EVENTS.c.previous, EVENTS.c.attempts]
    of_order = [column for column in ORDERS.c if column.name != "state"]
    its_order = and_(ORDERS.c.sale == EVENTS.c.sale, ORDERS.c.order_id == EVENTS.c.order_id)
    return (
        select(*of_event, *of_order)
        .select_from(EVENTS)
        .join(ORDERS, its_order)
        .where(EVENTS.c.sale == sale)
        .order_by(EVENTS.c.event_id)
    )


def read_event(row: Row[Any]) -> Event:
    """Returns the event that a row of these queries holds."""
    moved = read_order(row)
    return Event(row.event_id, moved.order, moved.state, read_state(row.previous), row.attempts)
