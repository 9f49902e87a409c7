"""The protocol `AsyncOrderHooks`: the host's own code in the transactions of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flashsale.model import Order, OrderState


class AsyncOrderHooks(Protocol):
    """What a store calls in its transactions, so that the host's tables and the sale's change together or not at all.

    Each method is optional: inherit this class, or have those that you need. A store gets an object by `hooks=`, in
    every process that has one: web, worker, syncer and commands.

    `connection` is the transaction's: of `SQLAlchemyStore` an SQLAlchemy connection, of `DjangoStore` Django's, inside
    `atomic`. Write over it, and neither commit nor roll back; where a statement may fail and you go on, use a savepoint
    of your own. The store's rows are written and locked before a hook is called, and stay so until the commit: others
    wait for the item meanwhile, and the whole transaction must end within the store's `timeout`.

    A hook is called again for a transaction that was rolled back. What happens outside the database belongs into the
    `Outbox`.
    """

    async def saved(self, connection: Any, orders: Sequence[Order]) -> Mapping[str, str] | None:
        """Called with the orders that this transaction saves: PERSISTED, with their units booked.

        Each order is saved by one committed transaction, and in that one `saved` ends well once with it. The orders of
        a basket come together; see `Order.basket_id`. It runs in a savepoint.

        Returns:
            The orders that must not be, each with a reason: they become REJECTED, and what the hook wrote stays. None
            or nothing refuses nobody.

        Raises:
            Refuse: an order must not be: what this call wrote is undone, that order is REJECTED, and `saved` is called
                again with the others, if there are any.
            Exception: anything else rolls the transaction back. The worker finds the order that it comes from by
                splitting the batch, and tries it five times; then it is a dead letter.
        """

    async def settled(self, connection: Any, order: Order, before: OrderState, after: OrderState) -> None:
        """Called for each move of an order's row, after our own writes; CONFIRMED, CANCELLED, EXPIRED or REJECTED.

        `before` is QUEUED for an order that never was PERSISTED: it came to nothing before it was saved, the guard had
        no unit for it, or `saved` refused it. What it raises makes the call a `StoreError`, and nothing has moved.

        Args:
            connection: of the transaction.
            order: as its row has it, with its data.
            before: the state that it leaves.
            after: the new state.
        """

    async def stock(self, connection: Any, goods_id: str, units: int) -> None:
        """Called whenever the units granted to the sale change, with the difference: the sum of its calls is `granted`.

        A higher total calls it in the transaction of `put_goods` or `restock`: an exception refuses that total, with
        `StoreError`. A negative number comes once Redis has fewer units, after a total was lowered; from the purge,
        with all that is not booked; and from each order that is released after the purge.

        Args:
            connection: of the transaction.
            goods_id: which item.
            units: positive: the sale takes so many from the shop's stock; negative: it gives them back.
        """
