"""Targets that need no server: everything that is read is either right or refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from flashsale import CorruptState, InvalidRequest, Order, StoreError
from flashsale._rules import codes
from flashsale._rules.durability import Durability, Guarantee
from flashsale._rules.ledger_record import path, read
from flashsale._rules.rows import read_event, read_goods, read_order, read_state
from flashsale._rules.server_check import judge
from flashsale._rules.tokens import elements_of, parts
from flashsale.model import checks


def order_body(data: bytes) -> None:
    """An element of the list."""
    try:
        order = Order.from_json(data)
    except InvalidRequest as error:
        assert data[:20] not in str(error).encode() or len(data) < 3
        return
    assert Order.from_json(order.to_json().encode()) == order
    assert order.content == (order.goods_id, order.buyer_id, order.quantity)


def ledger_record(data: bytes) -> None:
    """A record of the ledger."""
    try:
        record = read(data, "o-1")
    except CorruptState:
        return
    order = record.order("o-1")
    flags = data.split(b"|", 3)[2]
    shown = f"{record.state}|{order.quantity}|{flags.decode()}|{order.goods_id}|".encode()
    assert data.startswith(shown)
    assert data.endswith(b"|" + order.buyer_id.encode())
    assert path(record.state, record.state) == []


def argument(data: bytes) -> None:
    """What a caller gives, as text and as whatever JSON makes of it."""
    text = data.decode("utf-8", "surrogateescape")
    values: list[Any] = [text, data, data.decode("latin-1")]
    with contextlib.suppress(ValueError, RecursionError):
        values.append(json.loads(text))
    for value in values:
        for check in (
            checks.check_sale,
            checks.check_goods_id,
            lambda value: checks.check_id("buyer_id", value),
            checks.check_quantity,
            lambda value: checks.check_int("units", value, 0),
            lambda value: checks.check_seconds("lease", value),
            lambda value: checks.check_optional_seconds("opens_at", value),
        ):
            with contextlib.suppress(InvalidRequest):
                assert check(value) == value
        with contextlib.suppress(InvalidRequest):
            order = Order("o-1", "phone", "ann", 1, data=value)
            checks.check_body(order.to_json())
            Order.from_json(order.to_json().encode())
        with contextlib.suppress(InvalidRequest):
            checks.check_policy(value, value, value, value)


def stored_number(data: bytes) -> None:
    """A number that somebody else wrote."""
    units = codes.number(data)
    assert units is None or (str(units).encode() == data and units < 10**15)
    hold = codes.hold_seconds(data)
    assert hold is None or 0 <= hold < 10**20
    attempts, lease, body = parts(data)
    assert data.endswith(body)
    assert attempts >= 0 <= lease
    name, _, entry = data.partition(b" ")
    assert entry.endswith(b"\n".join(element.body for element in elements_of(name, entry)))


def server_info(data: bytes) -> None:
    """INFO of a server that is not quite a Redis."""
    lines = data.decode("utf-8", "replace").splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    text = data.decode("latin-1")
    for found in (info, {"connected_slaves": text}, {"redis_version": text}, {"valkey_version": text}):
        assert all(finding.message for finding in judge(found, replicas=1))


def barrier_reply(data: bytes) -> None:
    """What comes back from WAIT and WAITAOF."""
    replies: list[Any] = [data, [data], [], None, len(data), [len(data), 0], [None]]
    with contextlib.suppress(ValueError, RecursionError):
        replies.append(json.loads(data))
    for durability in Durability:
        guarantee = Guarantee(durability, replicas=1, within=1.0, socket_timeout=5.0)
        for reply in replies:
            assert guarantee.is_met(reply) in {True, False}


def database_row(data: bytes) -> None:
    """A row that the host's own program wrote."""
    text = data.decode("utf-8", "replace")
    parts: list[Any] = [*text.split("|"), *[None] * 9][:9]
    for number, part in enumerate(parts):
        with contextlib.suppress(ValueError, RecursionError):
            parts[number] = json.loads(part) if part is not None and number % 2 else part
    names = ("order_id", "goods_id", "buyer_id", "quantity", "state", "created_at", "data", "previous", "attempts")
    row: Any = {**dict(zip(names, parts, strict=True)), "event_id": 1}
    good = {"order_id": "o", "goods_id": "g", "buyer_id": "b", "quantity": 1, "state": "PERSISTED", "created_at": None}
    good |= {"data": None, "previous": "QUEUED", "attempts": 0, "event_id": 1}
    rows = [row, *(good | {name: text} for name in names)]
    policy = {"goods_id": "g", "total": 1, "version": 0, "per_buyer": None, "opens_at": None, "closes_at": None}
    policy |= {"hold": None, "loaded": True}
    for each in rows:
        for reader in (read_order, read_event, lambda row: read_state(row["state"])):
            with contextlib.suppress(StoreError):
                reader(each)
    for name in policy:
        for value in (text, parts[1], parts[3]):
            with contextlib.suppress(StoreError):
                read_goods(policy | {name: value})


TARGETS = {
    target.__name__: target
    for target in (order_body, ledger_record, argument, stored_number, server_info, barrier_reply, database_row)
}
