"""Orders, outcomes and states: what a buyer asks for, which state may follow which, and claims of the queue. Pure."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Self

from flashsale.errors import InvalidRequest
from flashsale.model.checks import (
    MAX_TIME,
    are_plain,
    check_body,
    check_goods_id,
    check_id,
    check_optional_seconds,
    check_quantity,
    dump_json,
)


class Outcome(StrEnum):
    """The answer of the gate or of the stock. Sold out is an answer, not an exception."""

    ACCEPTED = "ACCEPTED"
    ADMITTED = "ADMITTED"
    NOT_STARTED = "NOT_STARTED"
    ENDED = "ENDED"
    PAUSED = "PAUSED"
    SOLD_OUT = "SOLD_OUT"
    LIMIT_REACHED = "LIMIT_REACHED"
    UNCERTAIN = "UNCERTAIN"
    REJECTED = "REJECTED"


class OrderState(StrEnum):
    """The state of an order. `TRANSITIONS` says which states may follow."""

    QUEUED = "QUEUED"
    PERSISTED = "PERSISTED"
    CONFIRMED = "CONFIRMED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    DEAD = "DEAD"


TRANSITIONS: Final[Mapping[OrderState, frozenset[OrderState]]] = {
    OrderState.QUEUED: frozenset(
        {OrderState.PERSISTED, OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED, OrderState.DEAD}
    ),
    OrderState.PERSISTED: frozenset({OrderState.CONFIRMED, OrderState.CANCELLED, OrderState.EXPIRED}),
    OrderState.CONFIRMED: frozenset({OrderState.CANCELLED}),
    OrderState.DEAD: frozenset({OrderState.QUEUED, OrderState.CANCELLED}),
    OrderState.CANCELLED: frozenset(),
    OrderState.EXPIRED: frozenset(),
    OrderState.REJECTED: frozenset(),
}

RELEASED: Final = frozenset({OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED})
"""The states in which an order holds no units; each is final."""


# -- orders ---------------------------------------------------------------------------------------------------------


# Frozen classes set each field by a call, which costs as much as ten plain assignments. Where many are made, a plain
# object with the same slots gets its fields, and then the frozen class.


class _OrderFields:
    __slots__ = ("_body", "buyer_id", "created_at", "data", "goods_id", "order_id", "quantity")


class _ClaimFields:
    __slots__ = ("attempts", "body", "order", "reason", "token")


@dataclass(frozen=True, slots=True, init=False)
class Order(_OrderFields):
    """One buyer's order of some units of one item; checked when made. Its repr shows neither buyer nor data.

    Args:
        order_id: names the request: asking twice with one id is asking once.
        goods_id: the item.
        buyer_id: who buys.
        quantity: units, 1..1,000,000.
        created_at: float seconds of Redis TIME; stamped by the script when None.
        data: any JSON value of the host's, at most 64 KiB with the rest, at most 32 levels deep.

    Raises:
        InvalidRequest: an argument breaks these rules.

    >>> Order("o-1", "phone", "alice", 2).to_json()
    '{"order_id":"o-1","goods_id":"phone","buyer_id":"alice","quantity":2}'
    """

    order_id: str
    goods_id: str
    buyer_id: str = field(repr=False)
    quantity: int
    created_at: float | None = None
    data: Any = field(default=None, hash=False, repr=False)
    _body: str = field(init=False, compare=False, repr=False)
    """The JSON, where it holds more than plain ids and a quantity; else empty."""

    def __init__(
        self,
        order_id: str,
        goods_id: str,
        buyer_id: str,
        quantity: int,
        created_at: float | None = None,
        data: Any = None,
    ) -> None:
        _put_order_id(self, order_id)
        _put_goods_id(self, goods_id)
        _put_buyer_id(self, buyer_id)
        _put_quantity(self, quantity)
        _put_created_at(self, created_at)
        _put_data(self, data)
        is_plain = data is None and created_at is None and are_plain(order_id, goods_id, buyer_id, quantity)
        _put_body(self, "" if is_plain else self._checked())

    def _checked(self) -> str:
        if self._is_plain_row():
            return f'{{"created_at":{self.created_at!r},{self._plain_body()[1:]}'
        check_id("order_id", self.order_id)
        check_goods_id(self.goods_id)
        check_id("buyer_id", self.buyer_id)
        check_quantity(self.quantity)
        check_optional_seconds("created_at", self.created_at)
        wire: dict[str, Any] = {} if self.created_at is None else {"created_at": self.created_at}
        wire |= {"order_id": self.order_id, "goods_id": self.goods_id}
        wire |= {"buyer_id": self.buyer_id, "quantity": self.quantity}
        if self.data is not None:
            wire["data"] = self.data
        body = dump_json(wire)
        check_body(body)
        return body

    def _is_plain_row(self) -> bool:
        """True for what most rows hold; JSON in general takes seven times as long."""
        return (
            self.data is None
            and type(self.created_at) is float
            and 0.0 <= self.created_at <= MAX_TIME
            and are_plain(self.order_id, self.goods_id, self.buyer_id, self.quantity)
        )

    def _plain_body(self) -> str:
        return (
            f'{{"order_id":"{self.order_id}","goods_id":"{self.goods_id}",'
            f'"buyer_id":"{self.buyer_id}","quantity":{self.quantity}}}'
        )

    @property
    def basket_id(self) -> str | None:
        """The basket that the order belongs to; None for an order that was bought by itself.

        It is read from the order id, `ID#1` to `ID#50`: an id of your own that ends so is taken for a basket's.

        >>> Order("b-7#2", "phone", "alice", 1).basket_id
        'b-7'
        """
        return basket_of(self.order_id)

    @property
    def content(self) -> tuple[str, str, int]:
        """What must be the same when an order id is used again: item, buyer, quantity."""
        return (self.goods_id, self.buyer_id, self.quantity)

    def to_json(self) -> str:
        """Returns the order as it is on the list: compact ASCII JSON, with `created_at` first when it is known."""
        return self._body or self._plain_body()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Reads an order from the list, ours or an external program's.

        Raises:
            InvalidRequest: not a JSON object of an order; the message does not quote it.
        """
        try:
            text = body.decode("utf-8")
            if cls is Order and (plain := _PLAIN.fullmatch(text)):
                return _orders_of_lines([(text, *plain.groups())])[0]  # type: ignore[return-value]  # Order is Self here
            check_body(text)
            wire = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("body", "not JSON") from error
        if not isinstance(wire, dict):
            raise InvalidRequest("body", "not a JSON object")
        missing = {"order_id", "goods_id", "buyer_id", "quantity"} - wire.keys()
        if missing:
            raise InvalidRequest("body", f"without {', '.join(sorted(missing))}")
        return cls(
            order_id=wire["order_id"],
            goods_id=wire["goods_id"],
            buyer_id=wire["buyer_id"],
            quantity=wire["quantity"],
            created_at=wire.get("created_at"),
            data=wire.get("data"),
        )


# What a frozen dataclass sets its fields by, without looking each one up by its name.
_put_order_id, _put_goods_id, _put_buyer_id, _put_quantity, _put_created_at, _put_data, _put_body = (
    getattr(Order, each.name).__set__ for each in fields(Order)
)


def order_of(order_id: str, goods_id: str, buyer_id: str, quantity: int, data: Any = None) -> Order:
    """Makes an order, as `Order` does, for half the cost where it is plain: every purchase pays it."""
    if data is None and are_plain(order_id, goods_id, buyer_id, quantity):
        order: Any = _OrderFields()
        order.order_id = order_id
        order.goods_id = goods_id
        order.buyer_id = buyer_id
        order.quantity = quantity
        order.created_at = None
        order.data = None
        order._body = ""
        order.__class__ = Order
        return order  # type: ignore[no-any-return]
    return Order(order_id, goods_id, buyer_id, quantity, data=data)


def _orders_of_lines(lines: Iterable[tuple[str, ...]]) -> list[Order | None]:
    """Makes orders of JSON that obeys the rules: each line, and its values in the order of `_PLAIN`."""
    orders: list[Order | None] = []
    for line, created_at, order_id, goods_id, buyer_id, quantity in lines:
        order: Any = _OrderFields()
        order.order_id = order_id
        order.goods_id = goods_id
        order.buyer_id = buyer_id
        order.quantity = int(quantity)
        order.created_at = float(created_at)
        order.data = None
        order._body = line
        order.__class__ = Order
        orders.append(order)
    return orders


def _no_constant(name: str) -> None:
    raise InvalidRequest("data", f"{name} is not JSON")


# The body that our scripts write for an order without data: three times as fast to read as JSON in general.
_PLAIN: Final = re.compile(
    r'\{"created_at":((?:0|[1-9][0-9]{0,10})\.[0-9]{1,20}),'
    r'"order_id":"([!#-\[\]-~]{1,128})","goods_id":"([A-Za-z0-9_.-]{1,64})",'
    r'"buyer_id":"([!#-\[\]-~]{1,128})","quantity":([1-9][0-9]{0,5}|1000000)\}'
)
_PLAIN_LINES: Final = re.compile(f"^({_PLAIN.pattern})$", re.MULTILINE)
_OF_BASKET: Final = re.compile(r"(.+)#(?:[1-9]|[1-4][0-9]|50)")
_DECODER = json.JSONDecoder(parse_constant=_no_constant)  # made once: json.loads would make one for every order


def basket_of(order_id: str) -> str | None:
    """Returns the basket that an order of this id belongs to, as `Order.basket_id` does."""
    found = _OF_BASKET.fullmatch(order_id)
    return None if found is None else found[1]


def read_orders(bodies: Sequence[bytes]) -> list[Order | None]:
    """Reads the elements of a batch; None for what is no order. Those that our scripts wrote are read at once."""
    text = b"\n".join(bodies)
    if text.count(b"\n") == len(bodies) - 1:  # a line each
        found = _PLAIN_LINES.findall(text.decode("ascii", "replace"))
        if len(found) == len(bodies):
            return _orders_of_lines(found)
    return [_read_order(body) for body in bodies]


def _read_order(body: bytes) -> Order | None:
    try:
        return Order.from_json(body)
    except InvalidRequest:
        return None


@dataclass(frozen=True, slots=True)
class Claim(_ClaimFields):
    """An element of the list that one worker holds for a while.

    Args:
        order: the order, or None when `body` is unreadable.
        body: the element as it was pushed.
        attempts: 1, and one more for each time that it was refused; a lease that ended counts nothing.
        token: names the element and its lease; ack, nack and extend take it.
        reason: of a dead letter: why the database refused it last, in words or as a type of error; None: not refused.
    """

    order: Order | None
    body: bytes = field(repr=False)
    attempts: int
    token: str
    reason: str | None = None

    @property
    def lease(self) -> int:
        """The number of its lease: no other has it."""
        return int(self.token.split("-")[1])


def claims_of(
    orders: Iterable[Order | None], bodies: Iterable[bytes], attempts: Iterable[int], tokens: Iterable[str]
) -> list[Claim]:
    """Makes claims, as `Claim` does, of columns."""
    claims: list[Claim] = []
    for order, body, made, token in zip(orders, bodies, attempts, tokens, strict=True):
        claim: Any = _ClaimFields()
        claim.order = order
        claim.body = body
        claim.attempts = made
        claim.token = token
        claim.reason = None
        claim.__class__ = Claim
        claims.append(claim)
    return claims


def by_goods(orders: Iterable[Order]) -> dict[str, list[Order]]:
    """Returns the orders grouped by item, in their order."""
    groups: defaultdict[str, list[Order]] = defaultdict(list)
    for order in orders:
        groups[order.goods_id].append(order)
    return groups
