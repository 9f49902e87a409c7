"""The command `manage.py flashsale_worker`: runs a worker."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from flashsale import InvalidRequest, Worker
from flashsale.contrib.django import get_sale
from flashsale.contrib.serving import serve


class Command(BaseCommand):
    """Moves accepted orders into the database."""

    help = "Moves accepted orders into the database, until SIGTERM. Run as many as you like."

    def add_arguments(self, parser: Any) -> None:
        """Adds the options."""
        parser.add_argument("--batch", type=int, default=500, help="orders a transaction (500)")
        parser.add_argument("--lease", type=float, default=30.0, help="seconds until another takes over (30)")

    def handle(self, *, batch: int, lease: float, **_: Any) -> None:
        """Runs."""
        try:
            sale = get_sale()
            worker = Worker(sale, batch=batch, lease=lease)
        except InvalidRequest as error:
            raise CommandError(str(error)) from error
        serve("worker", sale, worker.run)
