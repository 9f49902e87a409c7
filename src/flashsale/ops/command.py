"""Builds the command of a program out of its verbs, and runs it: options, errors, exit codes."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, NoReturn, TextIO

from flashsale._rules.observer import log
from flashsale.errors import (
    FlashSaleError,
    InvalidRequest,
    NotExecuted,
    OutcomeUnknown,
    PartitionMismatch,
    StoreRequired,
    UnknownSale,
)
from flashsale.ops.frame import (
    ATTENTION,
    CANNOT_TELL,
    DONE,
    INTERRUPTED,
    NOT_CONFIRMED,
    OPERATOR,
    USAGE,
    Context,
    Kind,
    Outcome,
    Program,
    Stop,
    Verb,
)
from flashsale.ops.words import noted

VERSION: Final = 1
"""Of the JSON that the commands answer with."""

EXIT_CODES: Final = """\
Exit codes: 0 well or done, 1 attention or failed, 2 usage, 3 cannot tell (Redis
cannot be read), 4 not confirmed, 130 interrupted.
"""

GROUPS: Final = {
    "goods": "the items of the sale: list, set",
    "orders": "single orders: find, show, claimed, cancel, confirm",
    "dead": "dead letters: list, show, requeue, cancel",
    "events": "dead events of the outbox: list, requeue",
}
"""The first words of commands that have two, and what they are about."""

_REFUSED: Final = {"OOM", "READONLY", "NOREPLICAS", "MISCONF", "CLOSED", "LAYOUT"}
"""Reasons of `NotExecuted` with which Redis has answered: it can be read."""


class _Usage(Exception):
    """The arguments make no sense."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """A parser whose errors can be answered as JSON."""

    def error(self, message: str) -> NoReturn:
        """Raises the error."""
        raise _Usage(self, message)


def build(program: Program, verbs: Iterable[Verb], **about: Any) -> Parser:
    """Returns the parser of all verbs; `about` has description and epilog."""
    parser = Parser(prog=program.prog, formatter_class=argparse.RawDescriptionHelpFormatter, **about)
    parser.set_defaults(verb=None, json=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    groups: dict[str, Any] = {}
    for verb in verbs:
        group, _, last = verb.name.rpartition(" ")
        if group and group not in groups:
            inner = commands.add_parser(group, help=GROUPS.get(group), description=GROUPS.get(group))
            groups[group] = inner.add_subparsers(dest="verb_of_group", metavar="COMMAND", required=True)
        _add(groups.get(group, commands), last, verb, program)
    return parser


def _add(commands: Any, name: str, verb: Verb, program: Program) -> None:
    about = {"description": verb.about or f"{verb.help[:1].upper()}{verb.help[1:]}."}
    raw = argparse.RawDescriptionHelpFormatter if "\n" in verb.about else argparse.HelpFormatter
    parser = commands.add_parser(name, help=verb.help, formatter_class=raw, **about)
    before = {action.dest for action in parser._actions}
    verb.add(parser)
    asked = {action.dest for action in parser._actions} - before
    parser.usage = _own_usage(parser)
    _add_common(parser, verb, program.prog)
    program.add(parser, verb)
    parser.set_defaults(verb=verb, asked=asked, parser=parser)


def _own_usage(parser: argparse.ArgumentParser) -> str:
    """Returns the usage of a command without the options that others have, too."""
    own = parser.format_usage().removeprefix("usage: ").rstrip()
    return f"{own.replace('%', '%%')} [OPTION ...]"


def _add_common(parser: argparse.ArgumentParser, verb: Verb, prog: str) -> None:
    if verb.kind is Kind.RUN:
        return
    if verb.kind is Kind.CHANGE:
        _add_changing(parser.add_argument_group("of a change").add_argument, verb)
    parser.set_defaults(expect=[])
    add = parser.add_argument_group(f"of every command ({prog} --help says more)").add_argument
    add("--json", action="store_true", help="answer with one JSON object")
    add(
        "--as",
        dest="actor",
        metavar="NAME",
        default=os.environ.get(OPERATOR),
        help=f"who you are, for the trail (${OPERATOR})",
    )


def _add_changing(add: Callable[..., object], verb: Verb) -> None:
    add("--dry-run", action="store_true", help="show what would be changed, and change nothing")
    add("--reason", metavar="TEXT", help=f"why, for the trail{' (required)' if verb.wants_reason else ''}")
    add("--yes", action="store_true", help="do not ask, for scripts" if verb.asks else argparse.SUPPRESS)
    if verb.expects:
        told = f"do it only if this is so, of {', '.join(verb.expects)}; may be given again"
        add("--expect", metavar="FIELD=VALUE", type=_pair(verb.expects), action="append", help=told)


def _pair(fields: Sequence[str]) -> Any:
    def pair(text: str) -> tuple[str, str]:
        name, equals, value = text.partition("=")
        if not equals or name not in fields:
            raise argparse.ArgumentTypeError(f"must be FIELD=VALUE, its field one of {', '.join(fields)}")
        return name, value.lower() if value.lower() == "none" else value

    return pair


def run(
    parser: Parser,
    program: Program,
    argv: Sequence[str] | None = None,
    *,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Runs a command, and returns the exit code."""
    out, err = out or sys.stdout, err or sys.stderr
    argv = sys.argv[1:] if argv is None else argv
    try:
        options = parser.parse_args(argv)
    except _Usage as error:
        return _usage(error, out, err, as_json="--json" in argv)
    if options.verb is None:
        parser.print_help(err)
        return USAGE
    try:
        with _logged(options, err):
            return _run(options, program, out, err)
    except BrokenPipeError:
        return _pipe_is_broken()
    except KeyboardInterrupt:
        return INTERRUPTED


@contextmanager
def _logged(options: argparse.Namespace, err: TextIO) -> Iterator[None]:
    """Shows what the library warns of, beside the answer; what runs until it is stopped has a log of its own."""
    if options.verb.kind is Kind.RUN:
        yield
        return
    handler, propagated = logging.StreamHandler(err), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated


def _usage(error: _Usage, out: TextIO, err: TextIO, *, as_json: bool) -> int:
    error.parser.print_usage(err)
    print(f"{error.parser.prog}: error: {error}", file=err)
    if as_json:
        _print_json(out, error.parser.prog.partition(" ")[2], USAGE, {"error": str(error)})
    return USAGE


def _run(options: argparse.Namespace, program: Program, out: TextIO, err: TextIO) -> int:
    verb: Verb = options.verb
    name = getattr(options, "sale", None)
    try:
        with Context(verb, options, program, out, err) as context:
            try:
                outcome = verb.run(context)
            finally:
                name = context.name
    except (Stop, FlashSaleError) as error:
        outcome = _failed(error, options)
        print(f"{program.prog} {verb.name}: error: {outcome.data['error']}", file=err)
    if options.json:
        _print_json(out, verb.name, outcome.code, {"sale": name, **outcome.data})
    else:
        for line in outcome.lines:
            print(line, file=out)
    return outcome.code


def _failed(error: Exception, options: argparse.Namespace) -> Outcome:
    code, text = judged(error, options)
    return Outcome((), {"error": text, "kind": type(error).__name__}, code)


class Called(NamedTuple):
    """What a command said to another program.

    Args:
        shown: what is there before and after, of a change; and what was said beside the answer.
        outcome: how it ended; an error is in its `data`.
    """

    shown: Sequence[str]
    outcome: Outcome


def call(parser: Parser, program: Program, argv: Sequence[str]) -> Called:
    """Runs a command for a program with other work, such as a web server: nobody is asked, and the log is left alone.

    A change that asks wants `--yes`, or is only shown, with `--dry-run`.
    """
    said = io.StringIO()
    try:
        options = parser.parse_args(argv)
    except _Usage as error:
        return Called((), Outcome((), {"error": str(error)}, USAGE))
    try:
        with Context(options.verb, options, program, said, said) as context:
            outcome = options.verb.run(context)
    except (Stop, FlashSaleError) as error:
        outcome = _failed(error, options)
    return Called(said.getvalue().splitlines(), outcome)


def _print_json(out: TextIO, command: str, code: int, data: Mapping[str, Any]) -> None:
    whole = {"v": VERSION, "command": command, "ok": code == DONE, "exit": code, **data}
    print(json.dumps(whole, default=str), file=out)


def judged(error: Exception, options: argparse.Namespace) -> tuple[int, str]:
    """Returns the exit code of an error, and what the operator reads."""
    if isinstance(error, Stop):
        return error.code, str(error)
    if isinstance(error, PartitionMismatch):
        urls = f" --redis '{' '.join(['URL'] * error.servers)}'" if error.servers > 1 else ""
        return USAGE, f"{error}: --partitions {error.partitions}{urls}"
    if isinstance(error, UnknownSale | StoreRequired):
        return USAGE, str(error)
    if isinstance(error, InvalidRequest):
        option = f"--{error.field.replace('_', '-')}"
        is_option = option in options.parser._option_string_actions
        return USAGE, f"{option if is_option else error.field}: {error.reason}"
    if isinstance(error, OutcomeUnknown) or (isinstance(error, NotExecuted) and error.reason not in _REFUSED):
        return CANNOT_TELL, _said(error)
    return ATTENTION, _said(error)


def _said(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return (f"{error} ({reason})" if reason and reason not in str(error) else str(error)) + noted(error)


def _pipe_is_broken() -> int:
    """Whoever read our answer has gone, `head` perhaps: nothing more is written, at the exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ATTENTION


__all__ = ["EXIT_CODES", "NOT_CONFIRMED", "Called", "Parser", "build", "call", "judged", "run"]
