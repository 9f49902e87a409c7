"""The operator's commands on the sales of Django's settings: for `manage.py flashsale`, and for the admin."""

from __future__ import annotations

import argparse
from functools import cache
from typing import Any

from flashsale.contrib.django import get_sale
from flashsale.ops import command
from flashsale.ops.frame import Stop, Verb
from flashsale.ops.opening import Opened
from flashsale.ops.verbs import VERBS


class OfDjango:
    """Opens a sale of Django's settings."""

    prog = "manage.py flashsale"

    def add(self, parser: argparse.ArgumentParser, verb: Verb) -> None:
        """Adds the options; Django has read its own two before."""
        if verb.needs:
            parser.add_argument("--sale", metavar="NAME", help="name of the sale (default: FLASHSALE_SALE)")
        for option in ("--settings", "--pythonpath"):
            parser.add_argument(option, help=argparse.SUPPRESS)

    def open(self, options: argparse.Namespace, verb: Verb, *, is_async: bool = False) -> Opened:
        """Returns the sale of this process, which stays open."""
        if is_async:
            raise Stop("--handler: it is async: run a flashsale.aio.Outbox yourself")
        sale = get_sale(options.sale)
        return Opened(sale.name, sale, sale.store)


def call(verb: str, *words: str, sale: str, **options: Any) -> command.Called:
    """Runs a command for the admin, whose user has said yes.

    Args:
        verb: its name.
        words: which items or orders.
        sale: name of the sale.
        options: by their names, such as `dry_run=True`; None and an empty text are left out.
    """
    given = {name.replace("_", "-"): value for name, value in {"sale": sale, **options}.items() if value}
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
    return command.call(_parser(), OfDjango(), [*verb.split(), *flags, *(["--", *words] if words else [])])


@cache
def _parser() -> command.Parser:
    return command.build(OfDjango(), VERBS)
