"""What the buyer hears: `manage.py flashsale_outbox --handler examples.own_tables.django_shop.mails.tell`."""

from __future__ import annotations

from django.core.mail import EmailMessage

from examples.own_tables.django_shop.flash import number_of
from flashsale import Event, OrderState

SAID = {
    OrderState.PERSISTED: "It is yours: please pay.",
    OrderState.CONFIRMED: "Paid. Thank you!",
    OrderState.CANCELLED: "Your order is cancelled.",
    OrderState.EXPIRED: "You have not paid in time.",
    OrderState.REJECTED: "The last one went to somebody else.",
}


def tell(event: Event) -> None:
    """Sends one mail. An event may come twice: by its Message-ID a mail program shows one."""
    order = event.order
    said = f"Sorry: {event.reason}." if event.reason else SAID[event.state]
    to, number = f"{order.buyer_id}@shop.example", number_of(order)
    mail = EmailMessage(f"Your order {number}: {order.goods_id}", said, to=[to])
    mail.extra_headers["Message-ID"] = f"<{event.event_id}@shop.example>"
    mail.send()
