"""What the commands share: the option --sale, and errors of the settings as errors of the command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError

from flashsale import FlashSale, InvalidRequest
from flashsale.contrib.django import get_sale

Part = TypeVar("Part")


class SaleCommand(BaseCommand):
    """A command for one sale."""

    def add_arguments(self, parser: Any) -> None:
        """Adds the options."""
        parser.add_argument("--sale", metavar="NAME", help="name of the sale (default: FLASHSALE_SALE)")

    def part(self, sale: str | None, make: Callable[[FlashSale], Part]) -> tuple[FlashSale, Part]:
        """Returns the sale of this name, and what `make` makes of it."""
        try:
            found = get_sale(sale)
            return found, make(found)
        except InvalidRequest as error:
            raise CommandError(str(error)) from error
