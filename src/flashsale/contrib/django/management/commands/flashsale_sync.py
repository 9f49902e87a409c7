"""The command `manage.py flashsale_sync`: runs the syncer."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from flashsale import InvalidRequest, Syncer
from flashsale.contrib.django import get_sale
from flashsale.contrib.serving import serve


class Command(BaseCommand):
    """Brings items from the database to Redis."""

    help = "Brings items from the database to Redis and expires unpaid orders, until SIGTERM. Of several, one acts."

    def add_arguments(self, parser: Any) -> None:
        """Adds the options."""
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between passes (1)")
        parser.add_argument("--once", action="store_true", help="one pass, then end")

    def handle(self, *, interval: float, once: bool, **_: Any) -> None:
        """Runs."""
        try:
            sale = get_sale()
            syncer = Syncer(sale, interval=interval)
        except InvalidRequest as error:
            raise CommandError(str(error)) from error
        if once:
            self.stdout.write(str(syncer.run_once()))
        else:
            serve("syncer", sale, syncer.run)
