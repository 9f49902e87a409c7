"""The flash sale in the shop's own tables: all that stands between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import flashsale
from examples.own_tables.flask_shop.models import Item, Order, Payment, Stock, db
from flashsale import OrderState

STATUS = {OrderState.PERSISTED: "open", OrderState.CONFIRMED: "paid"}  # all others: cancelled


def shop_order(order: flashsale.Order, state: OrderState) -> Order:
    """Returns an order of the sale as one of the shop's, with the price at which it was bought."""
    item = Item(sku=order.goods_id, quantity=order.quantity, cents=order.data["cents"])
    status = STATUS.get(state, "cancelled")
    return Order(number=order.order_id, customer_id=int(order.buyer_id), status=status, items=[item])


class Hooks:
    """Called in the sale's transactions: both tables change, or none."""

    def saved(self, connection: Connection, orders: Sequence[flashsale.Order]) -> None:
        with Session(connection) as session, session.begin():  # one INSERT into orders, one into items
            session.add_all(shop_order(order, OrderState.PERSISTED) for order in orders)

    def settled(self, connection: Connection, order: flashsale.Order, before: OrderState, after: OrderState) -> None:
        if before is OrderState.QUEUED:
            return  # it was never saved
        with Session(connection) as session, session.begin():
            status = STATUS.get(after, "cancelled")
            ours = update(Order).where(Order.number == order.order_id).values(status=status)
            if not session.execute(ours).rowcount:  # bought before the hooks were there
                session.add(shop_order(order, after))
            if before is OrderState.CONFIRMED:
                session.execute(update(Payment).where(Payment.number == order.order_id).values(refund=True))

    def stock(self, connection: Connection, goods_id: str, units: int) -> None:
        """Moves units from the regular channel to the sale; a negative number moves them back."""
        move = update(Stock).where(Stock.sku == goods_id, Stock.units >= units).values(units=Stock.units - units)
        if not connection.execute(move).rowcount:
            raise ValueError(f"{goods_id}: the shop has fewer than {units}")


def backfill(store: Any) -> int:
    """Makes the shop's orders of those that were accepted before the hooks were there, and returns how many."""
    made, after = 0, None
    while page := store.orders(after=after):
        try:
            with db.begin() as session:
                known = [row.order.order_id for row in page]
                there = set(session.scalars(select(Order.number).where(Order.number.in_(known))))
                missing = [row for row in page if row.state in STATUS and row.order.order_id not in there]
                session.add_all(shop_order(row.order, row.state) for row in missing)
        except IntegrityError:  # one of them was paid or cancelled just now, and the hook was first
            continue
        made, after = made + len(missing), page[-1].order.order_id
    return made
