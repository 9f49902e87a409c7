"""The command `manage.py flashsale_worker`: runs a worker."""

from __future__ import annotations

from functools import partial
from typing import Any

from flashsale import Worker
from flashsale.contrib.django.management.base import SaleCommand
from flashsale.ops.serving import serve


class Command(SaleCommand):
    """Moves accepted orders into the database."""

    help = "Moves accepted orders into the database, until SIGTERM. Run as many as you like."

    def add_arguments(self, parser: Any) -> None:
        """Adds the options."""
        super().add_arguments(parser)
        parser.add_argument("--batch", type=int, default=500, help="orders a transaction (500)")
        parser.add_argument("--lease", type=float, default=30.0, help="seconds until another takes over (30)")

    def handle(self, *, sale: str | None, batch: int, lease: float, **_: Any) -> None:
        """Runs."""
        found, worker = self.part(sale, partial(Worker, batch=batch, lease=lease))
        serve("worker", found, worker.run)
