"""The command `manage.py flashsale_outbox`: runs an outbox."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management.base import CommandError

from flashsale import InvalidRequest, Outbox
from flashsale.contrib.django.management.base import SaleCommand
from flashsale.ops.named import handler as named
from flashsale.ops.serving import serve


class Command(SaleCommand):
    """Hands the events of orders to a function of yours."""

    help = "Hands the events of orders to a function of yours, until SIGTERM. Run up to 64."

    def add_arguments(self, parser: Any) -> None:
        """Adds the options."""
        super().add_arguments(parser)
        parser.add_argument("--handler", required=True, help="dotted path of a function that takes an Event")
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between reads when nothing is due (1)")
        parser.add_argument("--max-attempts", type=int, default=10, help="failures until an event is dead (10)")

    def handle(self, *, sale: str | None, handler: str, interval: float, max_attempts: int, **_: Any) -> None:
        """Runs."""
        try:
            chosen = named(handler)
        except InvalidRequest as error:
            raise CommandError(str(error)) from error
        make = partial(Outbox, handler=chosen, interval=interval, max_attempts=max_attempts)
        found, outbox = self.part(sale, make)
        serve("outbox", found, outbox.run)
