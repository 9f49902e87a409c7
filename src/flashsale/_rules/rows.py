"""The columns of every table: how items, orders and events become rows, and come back. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Literal, Protocol, TypeAlias

from flashsale.errors import InvalidRequest, NotPersisted, OrderConflict, StoreError
from flashsale.model import RELEASED, TRANSITIONS, Event, Goods, Order, OrderState, Saved, StoredOrder
from flashsale.model.checks import dump_json

TableName: TypeAlias = Literal["sales", "goods", "orders", "events", "requests", "audit"]


class Row(Protocol):
    """Some columns of a row by their names, as a dict or a `sqlite3.Row` has them."""

    def keys(self) -> Iterable[str]:
        """Returns the names."""
        ...

    def __getitem__(self, column: str, /) -> Any: ...


KEYS: Final[Mapping[str, str]] = {
    "sales": "sale",
    "goods": "goods_id",
    "orders": "order_id",
    "events": "event_id",
    "requests": "request_id",
    "audit": "entry_id",
}
"""The column that names a row of each table within its sale."""

GOODS_COLUMNS: Final = (
    *("goods_id", "total", "granted", "booked", "version"),
    *("per_buyer", "opens_at", "closes_at", "hold", "loaded"),
)
ORDER_COLUMNS: Final = ("order_id", "goods_id", "buyer_id", "quantity", "state", "created_at", "data")
CURRENT_COLUMNS: Final = ORDER_COLUMNS[:5]
"""What tells whether an order is the same, and its state; without the host's data, which may be long."""
MORE_COLUMNS: Final = ("reason", "persisted_at", "settled_at")
"""What the tables of this release tell of an order beside `ORDER_COLUMNS`; fields of `StoredOrder`."""

CHUNK: Final = 500  # ids in one statement: SQLite before 3.32 takes 999 parameters

COMES_FROM: Final = {
    target: [state for state in (OrderState.PERSISTED, OrderState.CONFIRMED) if target in TRANSITIONS[state]]
    or [OrderState.QUEUED]
    for target in RELEASED | {OrderState.CONFIRMED}
}
"""Of the two states in which a row books units, in their order: those from which an order may go to the key.

No row is QUEUED: a tombstone of an order that came to nothing, REJECTED, starts with a write as everything else.
"""

EVENT_STATES: Final = ",".join(sorted(COMES_FROM))
"""The states that leave an event, where the host does not choose them: those that end an order, and CONFIRMED."""


def check_events(events: str | Iterable[str]) -> frozenset[OrderState]:
    """Returns the states that leave an event; a text names them, separated by commas.

    Raises:
        InvalidRequest: something else is named.
    """
    names = [name.strip() for name in events.split(",") if name.strip()] if isinstance(events, str) else events
    known = {state.value: state for state in (OrderState.PERSISTED, *COMES_FROM)}
    try:
        return frozenset(known[name] for name in names)
    except (KeyError, TypeError):
        raise InvalidRequest("events", f"must be of {', '.join(sorted(known))}") from None


def policy_values(goods: Goods) -> dict[str, Any]:
    """Returns the columns of an item's row that the host decides."""
    return {
        "total": goods.total,
        "per_buyer": goods.per_buyer,
        "opens_at": goods.opens_at,
        "closes_at": goods.closes_at,
        "hold": goods.hold,
    }


def goods_values(goods: Goods) -> dict[str, Any]:
    """Returns the first row of an item, but for its sale: all units granted, none booked."""
    return policy_values(goods) | {
        "goods_id": goods.goods_id,
        "granted": goods.total,
        "booked": 0,
        "version": goods.version,
        "loaded": goods.loaded,
    }


def completed(goods: Goods, row: Row) -> Goods:
    """Returns the item with what it leaves open as its row has it.

    Raises:
        InvalidRequest: they do not go together.
    """
    return replace(goods, **{name: row[name] for name, value in policy_values(goods).items() if value is None})


def purged(sale: str) -> InvalidRequest:
    """Returns the error for what would bring a purged sale back."""
    return InvalidRequest("sale", f"{sale} was purged and is over; sell under another name")


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:  # the message would hold the row
        raise StoreError(f"a row of {what} is not what flashsale writes: {type(error).__name__}") from None


def read_goods(row: Row) -> Goods:
    """Returns the item that the row of an item holds.

    Raises:
        StoreError: somebody else wrote it.
    """
    with _reading("goods"):
        return _goods(row)


def _goods(row: Row) -> Goods:
    return Goods(
        goods_id=row["goods_id"],
        total=row["total"],
        version=row["version"],
        per_buyer=row["per_buyer"],
        opens_at=row["opens_at"],
        closes_at=row["closes_at"],
        hold=row["hold"],
        loaded=bool(row["loaded"]),
    )


def order_values(order: Order) -> dict[str, Any]:
    """Returns what the row of an order has for itself: all but its sale and its state."""
    return {
        "order_id": order.order_id,
        "goods_id": order.goods_id,
        "buyer_id": order.buyer_id,
        "quantity": order.quantity,
        "created_at": order.created_at,
        "data": None if order.data is None else dump_json(order.data),
    }


def read_order(row: Row) -> StoredOrder:
    """Returns the order and the state that a row of an order holds.

    Raises:
        StoreError: somebody else wrote it.
    """
    with _reading("orders"):
        return _order(row)


def read_state(text: str) -> OrderState:
    """Returns the state that a column holds; StoreError when somebody else wrote it."""
    with _reading("orders"):
        return OrderState(text)


def _order(row: Row) -> StoredOrder:
    order = Order(
        order_id=row["order_id"],
        goods_id=row["goods_id"],
        buyer_id=row["buyer_id"],
        quantity=row["quantity"],
        created_at=row["created_at"],
        data=None if row["data"] is None else json.loads(row["data"]),
    )
    known = row.keys()  # of a Row, `in` asks for its values
    return StoredOrder(
        order, OrderState(row["state"]), *(row[name] if name in known else None for name in MORE_COLUMNS)
    )


def event_values(order: Order, state: OrderState, previous: OrderState) -> dict[str, Any]:
    """Returns the row of a new event, but for its sale and its number: it is due at once."""
    moved = {"order_id": order.order_id, "state": state.value, "previous": previous.value}
    return moved | {"attempts": 0, "due_at": 0.0}


def read_event(row: Row) -> Event:
    """Returns the event that a row of an event holds, joined with the row of its order.

    Raises:
        StoreError: somebody else wrote it.
    """
    moved = read_order(row)
    reason = moved.reason if moved.state is OrderState.REJECTED else None
    return Event(row["event_id"], moved.order, moved.state, read_state(row["previous"]), row["attempts"], reason)


def is_same(row: Row | None, order: Order) -> bool:
    """True when there is a row, and it has the order's content."""
    return row is not None and (row["goods_id"], row["buyer_id"], row["quantity"]) == order.content


def in_turn(orders: Iterable[Order], left: int) -> tuple[int, list[Order]]:
    """Returns how many of the units left are taken when each order is served in its turn, and who gets none."""
    units, refused = 0, []
    for order in orders:
        if units + order.quantity <= left:
            units += order.quantity
        else:
            refused.append(order)
    return units, refused


def saved(
    orders: Sequence[Order], inserted: Collection[str], refused: Collection[str], current: Mapping[str, Row]
) -> Saved:
    """Returns what became of a batch.

    Args:
        orders: the batch.
        inserted: order ids of the rows written now.
        refused: those of them that are REJECTED.
        current: the rows of all others, by order id.
    """
    same = {order.order_id for order in orders if is_same(current.get(order.order_id), order)}
    return Saved(
        inserted=frozenset(inserted) - frozenset(refused),
        refused=frozenset(refused),
        existing={order_id: read_state(current[order_id]["state"]) for order_id in same},
        conflicts=frozenset(order.order_id for order in orders) - frozenset(inserted) - same,
    )


def check_ids(orders: Sequence[Order]) -> set[str]:
    """Returns the ids of a batch, in which each stands once."""
    ids = {order.order_id for order in orders}
    if len(ids) < len(orders):
        raise InvalidRequest("orders", "an order id occurs twice")
    return ids


def check_target(state: OrderState) -> None:
    """Raises InvalidRequest when the database settles no order in this state."""
    if state not in COMES_FROM:
        raise InvalidRequest("state", "must be CONFIRMED, CANCELLED, EXPIRED or REJECTED")


class Settling:
    """What it takes to settle many orders whose rows are locked.

    Args:
        sale: of the orders.
        orders: each id once.
        state: where to.
        rows: those that there are, by order id.

    Attributes:
        new: orders that get a tombstone, by id.
        moved: orders that move, by id, under the state that they leave.
        returned: units that come back, by item id in their order.
        states: the current state afterwards, by order id.

    Raises:
        OrderConflict: a row has other content.
        NotPersisted: an order to be CONFIRMED has no row yet.
    """

    def __init__(self, sale: str, orders: Sequence[Order], state: OrderState, rows: Mapping[str, Row]) -> None:
        orders = sorted(orders, key=lambda order: order.order_id)
        for order in orders:
            if order.order_id in rows and not is_same(rows[order.order_id], order):
                raise OrderConflict(sale=sale, goods_id=order.goods_id, order_id=order.order_id)
            if order.order_id not in rows and state not in RELEASED:
                raise NotPersisted("the order has no row yet", order_id=order.order_id)
        left = {order_id: read_state(row["state"]) for order_id, row in rows.items()}
        moving = [order for order in orders if left.get(order.order_id) in COMES_FROM[state]]
        units = Counter({order.goods_id: 0 for order in sorted(moving, key=lambda order: order.goods_id)})
        self.new = [order for order in orders if order.order_id not in rows]
        self.moved: dict[OrderState, list[Order]] = {}
        for order in moving:
            self.moved.setdefault(left[order.order_id], []).append(order)
            units[order.goods_id] += order.quantity
        self.returned = units if state in RELEASED else {}
        self.states = left | {order.order_id: state for order in (*self.new, *moving)}
