"""The ledger's record of an order, and the ways from state to state. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from flashsale.errors import CorruptState
from flashsale.model import TRANSITIONS, Order, OrderState

STATES: Final = {state.encode("ascii"): state for state in OrderState}
"""The states, as they lie in Redis."""

# As `parse` in lua/include/record.lua.
_RECORD = re.compile(
    rf"({'|'.join(OrderState)})\|([1-9][0-9]{{0,6}})\|([0-3])\|([A-Za-z0-9_.-]{{1,64}})\|([0-9]{{1,15}})\|([!-~]{{1,128}})".encode(
        "ascii"
    )
)


class Record(NamedTuple):
    """What the ledger knows of an order: `state|quantity|gated|goods|seq|buyer`."""

    state: OrderState
    quantity: int
    gated: bool
    goods_id: str
    seq: int
    buyer_id: str

    def order(self, order_id: str) -> Order:
        """Returns the order, without what only the list knew: its time and its data."""
        return Order(order_id, self.goods_id, self.buyer_id, self.quantity)


def read(text: bytes, order_id: str) -> Record:
    """Reads a record.

    Raises:
        CorruptState: somebody else wrote it.
    """
    match = _RECORD.fullmatch(text)
    if match is None:
        raise CorruptState(f"the ledger's record of order {order_id!r} is not what flashsale writes")
    state, quantity, gated, goods_id, seq, buyer_id = (part.decode("ascii") for part in match.groups())
    return Record(OrderState(state), int(quantity), gated in {"1", "3"}, goods_id, int(seq), buyer_id)


def find(text: bytes | None, order_id: str) -> Record | None:
    """Reads a record; None where there is none, or somebody else wrote it."""
    return None if text is None or _RECORD.fullmatch(text) is None else read(text, order_id)


def current_state(text: bytes | None, order: Order) -> OrderState | None:
    """Returns the state of a record that has this order's content; None for any other text, and for none."""
    match = _RECORD.fullmatch(text or b"")
    content = (order.goods_id.encode("ascii"), order.buyer_id.encode("ascii"), b"%d" % order.quantity)
    return STATES[match[1]] if match is not None and match.group(4, 6, 2) == content else None


def path(start: OrderState, end: OrderState) -> list[OrderState]:
    """Returns the shortest way of allowed steps from `start` to `end`, without `start`; empty when there is none.

    >>> path(OrderState.QUEUED, OrderState.CONFIRMED)
    [<OrderState.PERSISTED: 'PERSISTED'>, <OrderState.CONFIRMED: 'CONFIRMED'>]
    """
    ways = [[start]]
    seen = {start}
    for way in ways:
        for state in sorted(TRANSITIONS[way[-1]] - seen):
            if state is end:
                return [*way[1:], state]
            seen.add(state)
            ways.append([*way, state])
    return []
