"""What a database has of an order: a row, what became of a batch, and the event of a change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flashsale.model.orders import Order, OrderState


@dataclass(frozen=True, slots=True)
class Saved:
    """What `OrderStore.save` did with a batch, by order id.

    Args:
        inserted: rows written now, with their units booked.
        refused: rows written as REJECTED, because the guard had no units for them, or a hook refused them.
        existing: ids that had a row of the same content, with its current state.
        conflicts: ids that had a row of other content; nothing was written for them.
    """

    inserted: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    existing: Mapping[str, OrderState] = field(default_factory=dict)
    conflicts: frozenset[str] = frozenset()

    @property
    def states(self) -> dict[str, OrderState]:
        """The current state of each order that the database has with this content."""
        inserted = dict.fromkeys(self.inserted, OrderState.PERSISTED)
        return inserted | dict.fromkeys(self.refused, OrderState.REJECTED) | dict(self.existing)


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """One row of the database.

    Args:
        order: the order.
        state: its current state.
        reason: why a hook of the host's refused it, as `Refuse` said; None: none did.
        persisted_at: epoch seconds, when `save` inserted it; None: it is a tombstone, or the store does not tell.
        settled_at: epoch seconds of its last move; None: it has not moved, or the store does not tell.

    Rows that differ in these two times only are equal.
    """

    order: Order
    state: OrderState
    reason: str | None = None
    persisted_at: float | None = field(default=None, compare=False)
    settled_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Event:
    """A change of an order's state that the host has not handled yet.

    Args:
        event_id: names the event for ever, so that a handler recognises one that it has seen; for each order it grows
            with time.
        order: the order.
        state: the new state: CONFIRMED, CANCELLED, EXPIRED or REJECTED; PERSISTED, if the store's `events` has it.
        previous: the state before; QUEUED when its row is new, or never booked units.
        attempts: how often the handler has failed on it.
        reason: with REJECTED, why a hook of the host's refused the order, as `Refuse` said; None: none did.
    """

    event_id: int
    order: Order
    state: OrderState
    previous: OrderState
    attempts: int = 0
    reason: str | None = None

    @property
    def is_refund(self) -> bool:
        """True when a paid order was cancelled: money goes back."""
        return self.state is OrderState.CANCELLED and self.previous is OrderState.CONFIRMED
