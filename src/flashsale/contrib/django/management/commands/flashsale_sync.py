"""The command `manage.py flashsale_sync`: runs the syncer."""

from __future__ import annotations

from functools import partial
from typing import Any

from flashsale import Syncer
from flashsale.contrib.django.management.base import SaleCommand
from flashsale.ops.serving import serve


class Command(SaleCommand):
    """Brings items from the database to Redis."""

    help = "Brings items from the database to Redis and expires unpaid orders, until SIGTERM. Of several, one acts."

    def add_arguments(self, parser: Any) -> None:
        """Adds the options."""
        super().add_arguments(parser)
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between passes (1)")
        parser.add_argument("--once", action="store_true", help="one pass, then end")

    def handle(self, *, sale: str | None, interval: float, once: bool, **_: Any) -> None:
        """Runs."""
        found, syncer = self.part(sale, partial(Syncer, interval=interval))
        if once:
            self.stdout.write(str(syncer.run_once()))
        else:
            serve("syncer", found, syncer.run)
