"""Tab completion of the command: a script for a shell, made by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

SHELLS: Final = ("bash", "zsh")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Adds the option that prints the script."""
    told = "print the completion script of a shell, bash or zsh; needs: pip install 'flashsale[completion]'"
    parser.add_argument("--print-completion", action=_Print, choices=SHELLS, help=told)


class _Print(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - what argparse gives
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - likewise
    ) -> None:
        try:
            import shtab  # noqa: PLC0415 - needs the extra
        except ImportError:
            parser.error("completion needs shtab: pip install 'flashsale[completion]'")
        print(shtab.complete(parser, shell=str(values)))
        parser.exit(0)
