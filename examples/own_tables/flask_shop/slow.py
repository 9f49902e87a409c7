"""The slow way: an outbox makes the shop's order, after the sale's, in a transaction of its own.

For what takes too long for a hook. Nobody waits for it, but the shop's order comes a moment later, and not with the
sale's. All processes of the shop have these settings, and outboxes run beside the worker, as many as their pace needs:

    FLASHSALE_HOOKS=examples.own_tables.flask_shop.slow.Hooks
    FLASHSALE_EVENTS=PERSISTED,CONFIRMED,CANCELLED,EXPIRED,REJECTED
    flask --app examples.own_tables.flask_shop.app flashsale outbox --handler examples.own_tables.flask_shop.slow.handle
"""

from __future__ import annotations

from sqlalchemy import select, update

from examples.own_tables.flask_shop import flash
from examples.own_tables.flask_shop.models import Order, Payment, db
from flashsale import Event, OrderState


class Hooks:
    """One stock for two channels cannot wait."""

    stock = flash.Hooks.stock


def handle(event: Event) -> None:
    """Does what the other hooks do. An event may come twice, so the shop's order is looked for first."""
    number = event.order.order_id
    with db.begin() as session:
        ours = session.scalar(select(Order).where(Order.number == number).with_for_update())
        if ours is None and (event.state is OrderState.PERSISTED or event.previous is not OrderState.QUEUED):
            session.add(flash.shop_order(event.order, event.state))
        elif ours is not None and event.state is not OrderState.PERSISTED:
            ours.status = flash.STATUS.get(event.state, "cancelled")
        if event.is_refund:
            session.execute(update(Payment).where(Payment.number == number).values(refund=True))
