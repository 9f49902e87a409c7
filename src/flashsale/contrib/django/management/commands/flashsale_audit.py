"""The command `manage.py flashsale_audit`: compares Redis with the database."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from flashsale import Syncer
from flashsale.contrib.django import get_sale


class Command(BaseCommand):
    """Compares Redis with the database."""

    help = "Compares Redis with the database; exit code 1 if they disagree."

    def handle(self, **_: Any) -> None:
        """Runs."""
        found = Syncer(get_sale()).audit()
        for each in found.orders:
            self.stdout.write(f"{each.order_id}: {each.problem}, ledger {each.ledger}, database {each.database}")
        if not found.ok:
            raise CommandError("not clean")
        self.stdout.write("clean")
