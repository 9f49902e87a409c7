"""The command `manage.py flashsale_audit`: compares Redis with the database."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from flashsale import Syncer
from flashsale.contrib.django.management.base import SaleCommand


class Command(SaleCommand):
    """Compares Redis with the database."""

    help = "Compares Redis with the database; exit code 1 if they disagree."

    def handle(self, *, sale: str | None, **_: Any) -> None:
        """Runs."""
        _sale, syncer = self.part(sale, Syncer)
        found = syncer.audit()
        for each in found.orders:
            self.stdout.write(f"{each.order_id}: {each.problem}, ledger {each.ledger}, database {each.database}")
        if not found.ok:
            raise CommandError("not clean")
        self.stdout.write("clean")
