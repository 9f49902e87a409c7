"""The command `manage.py flashsale`: the operator's commands, on the sales of Django's settings."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from flashsale.contrib.django import get_sale
from flashsale.ops import command, running
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


class Command(BaseCommand):
    """Runs the operator's commands."""

    help = "Sees, steers and proves a flash sale: manage.py flashsale --help lists the commands."
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        """Adds the words, which are read by a parser of their own."""
        parser.add_argument("words", nargs=argparse.REMAINDER)

    def run_from_argv(self, argv: list[str]) -> None:
        """Runs, and ends the process with the command's exit code."""
        try:
            sys.exit(_run(argv[2:]))
        finally:
            connections.close_all()

    def handle(self, *, words: list[str], **_: Any) -> None:
        """Runs, for `call_command`.

        Raises:
            SystemExit: the exit code is not 0.
        """
        code = _run(words, out=self.stdout._out, err=self.stderr._out)
        if code:
            raise SystemExit(code)


def _run(words: list[str], **streams: Any) -> int:
    program = OfDjango()
    parser = command.build(program, [*running.verbs(), *VERBS], description=Command.help, epilog=command.EXIT_CODES)
    return command.run(parser, program, words, **streams)
