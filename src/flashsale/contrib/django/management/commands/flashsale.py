"""The command `manage.py flashsale`: the operator's commands, on the sales of Django's settings."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from flashsale.contrib.django.program import OfDjango
from flashsale.ops import command, running
from flashsale.ops.verbs import VERBS


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
