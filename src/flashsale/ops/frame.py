"""The types of a command: `Verb`, `Context`, `Change`, `Outcome`; what it needs, how it asks, how it answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, Protocol, Self, TextIO

from flashsale import FlashSale, Syncer
from flashsale._rules.trail import Note
from flashsale._sync.overview import Overview
from flashsale._sync.store import check_known, is_purged, noting
from flashsale.errors import FlashSaleError, PartitionMismatch, StoreError
from flashsale.model import Goods
from flashsale.model.trail import TrailEntry
from flashsale.ops import trail
from flashsale.ops.opening import Opened

DONE: Final = 0
ATTENTION: Final = 1
USAGE: Final = 2
CANNOT_TELL: Final = 3
NOT_CONFIRMED: Final = 4
INTERRUPTED: Final = 130
"""Exit codes."""

OPERATOR: Final = "FLASHSALE_OPERATOR"


class Stop(Exception):
    """The command cannot go on; the message says why and what to do.

    Args:
        message: one or two sentences.
        code: the exit code.
    """

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        lines: what is told, line by line.
        data: the same as JSON.
        code: the exit code.
    """

    lines: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    code: int = DONE


@dataclass(frozen=True)
class Change:
    """What a command is about to change.

    Args:
        lines: what is there before and after, to be shown first.
        before: the same as JSON.
        after: the same as JSON.
        make: makes it, and says how it went.
        asks: the operator must confirm it.
    """

    lines: Sequence[str]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    make: Callable[[], Outcome]
    asks: bool = False


class Kind(StrEnum):
    """What a command does."""

    LOOK = "look"
    CHANGE = "change"
    RUN = "run"  # until it is stopped


class Program(Protocol):
    """The program through which the commands are called: it knows where the sale is."""

    prog: str

    def add(self, parser: argparse.ArgumentParser, verb: Verb) -> None:
        """Adds the options that say where the sale is."""

    def open(self, options: argparse.Namespace, verb: Verb, *, is_async: bool = False) -> Opened:
        """Opens the sale; `is_async` asks for the asyncio API, where the program has both."""


def _nothing(_: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True)
class Verb:
    """One command.

    Args:
        name: one word, or two: "orders cancel".
        help: what it does, in some words.
        run: runs it.
        add: adds its own arguments.
        about: more about it, for its `--help`.
        kind: looks, changes or runs.
        needs: of redis, database and sale, those without which it cannot work.
        is_new: it also works on a sale that nobody knows yet.
        asks: it may ask for confirmation.
        wants_reason: it cannot do without `--reason`.
        expects: the fields that `--expect` takes.
    """

    name: str
    help: str
    run: Callable[[Context], Outcome]
    add: Callable[[argparse.ArgumentParser], None] = _nothing
    about: str = ""
    kind: Kind = Kind.LOOK
    needs: frozenset[str] = frozenset({"redis", "sale"})
    is_new: bool = False
    asks: bool = False
    wants_reason: bool = False
    expects: Sequence[str] = ()


NEEDS_ALL: Final = frozenset({"redis", "database", "sale"})


def refuse_others(sale: Any) -> None:
    """Refuses a sale that was begun with other partitions; whatever else is wrong with it will be told later.

    Raises:
        PartitionMismatch: it was.
    """
    try:
        if sale is not None:
            sale._check_known()
    except PartitionMismatch:
        raise
    except FlashSaleError:
        pass


class Context:
    """One run of a command: its options, the sale, and who is to be told.

    Args:
        verb: which command.
        options: as they were given.
        program: through which it was called.
        out: where it answers.
        err: where it says what goes on.
    """

    def __init__(self, verb: Verb, options: argparse.Namespace, program: Program, out: TextIO, err: TextIO) -> None:
        self.verb, self.options, self.program, self.out, self.err = verb, options, program, out, err
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- the sale ---------------------------------------------------------------------------------------------------

    @cached_property
    def opened(self) -> Opened:
        """The sale's servers, opened at the first use; the sale is known to one of them."""
        opened = self._stack.enter_context(self.program.open(self.options, self.verb))
        if not self.verb.is_new and opened.sale is not None:
            opened.sale._check_known()
        elif not self.verb.is_new:
            check_known(opened.store, opened.name)
        else:
            refuse_others(opened.sale)
        return opened

    @property
    def sale(self) -> FlashSale:
        """The sale, as the API for threads has it."""
        sale: FlashSale = self.opened.sale
        return sale

    @property
    def name(self) -> str:
        """Name of the sale; empty for a command that has none."""
        return self.opened.name if "opened" in vars(self) else getattr(self.options, "sale", None) or ""

    @property
    def store(self) -> Any:
        """The database of the sale.

        Raises:
            Stop: none is named.
        """
        if self.opened.store is None:
            raise Stop(f"{self.verb.name} needs the sale's database")
        return self.opened.store

    @cached_property
    def syncer(self) -> Syncer:
        """A syncer, for audits and the like."""
        syncer: Syncer = self.opened.part("Syncer")
        return syncer

    @cached_property
    def overview(self) -> Overview:
        """What asks all partitions of the sale."""
        overview: Overview = self.opened.overview()
        return overview

    @cached_property
    def finder(self) -> Any:
        """A finder of orders."""
        return self.opened.finder()

    def now(self) -> float:
        """Returns the time of Redis, epoch seconds."""
        return float(self.sale._ledger.time())

    def items(self) -> dict[str, Goods]:
        """Returns the rows of the items, by id; none, and a word to the operator, when the database does not answer."""
        if self.opened.store is None:
            return {}
        try:
            return {goods.goods_id: goods for goods in self.opened.store.goods()}
        except StoreError as error:
            self.tell(f"the database does not say what it has: {error}")
            return {}

    def is_purged(self) -> bool:
        """Returns whether the database knows that the sale is over; False when it does not answer."""
        with suppress(StoreError):
            return is_purged(self.opened.store)
        return False

    def items_or_stop(self) -> dict[str, Goods]:
        """Returns the rows of the items, by id; fails where the database does not answer."""
        return {goods.goods_id: goods for goods in self.store.goods()}

    def no_item(self, goods_id: str) -> Stop:
        """Returns the error for an item that nobody knows; it names those that there are."""
        known = sorted({*self.overview.goods(), *self.items()})
        return Stop(f"sale {self.name} has no item {goods_id!r}; it has {', '.join(known) or 'none'}")

    # -- words ------------------------------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        """Says what goes on, beside the answer."""
        print(line, file=self.err, flush=True)

    def show(self, lines: Iterable[str]) -> None:
        """Shows a part of the answer; as JSON all of it comes at the end."""
        if not self.options.json:
            for line in lines:
                print(line, file=self.out, flush=True)

    # -- changes ----------------------------------------------------------------------------------------------------

    def expect(self, found: Mapping[str, Any], of: str = "") -> None:
        """Compares what `--expect` names.

        Args:
            found: what is so.
            of: what it is so of, in words before the name of a field.

        Raises:
            Stop: something else was found; nothing was changed.
        """
        for name, wanted in self.options.expect:
            is_so = _text(found.get(name))
            if is_so != wanted:
                raise Stop(f"{of}{name} is {is_so}, not {wanted}: nothing was changed", ATTENTION)

    def change(self, change: Change) -> Outcome:
        """Shows a change, asks where it must, makes it, and notes it in the trail.

        Raises:
            Stop: it wants a reason, and has none.
        """
        if self.verb.wants_reason and not (self.options.reason or self.options.dry_run):
            raise Stop(f"--reason: say why, for the trail: {self.verb.name} wants it")
        self.show(change.lines)
        data = {"before": change.before, "after": change.after}
        if self.options.dry_run:
            return Outcome(["nothing was changed: --dry-run"], {**data, "dry_run": True})
        if change.asks and not self._is_confirmed(change):
            return Outcome((), {**data, "error": "not confirmed: nothing was changed"}, NOT_CONFIRMED)
        with self._noted(change) as note:
            outcome = change.make()
            note.finish(outcome.data.get("after", change.after))
        return Outcome(outcome.lines, {**data, **outcome.data}, outcome.code)

    def note(self, after: Mapping[str, Any]) -> None:
        """Notes in the trail what was done, where nothing was changed by it."""
        change = Change((), {}, after, Outcome)
        with self._noted(change) as note:
            note.finish(after)

    @contextmanager
    def _noted(self, change: Change) -> Iterator[Note]:
        """Writes the entry of a change to the trail; where no database takes it, Redis keeps it for the syncer."""
        note = None
        try:
            with noting(self.opened.store, self._entry(change)) as note:
                yield note
        finally:
            if note is not None and note.is_logged and self.opened.sale is not None:
                with suppress(FlashSaleError):  # it is logged
                    self.sale._recorder.keep(note.entry)

    def _entry(self, change: Change) -> TrailEntry:
        options = self.options
        asked = {name: value for name, value in vars(options).items() if name in options.asked}
        return trail.entry(self.verb.name, options.actor, asked, change.before, getattr(options, "reason", None))

    def _is_confirmed(self, change: Change) -> bool:
        if self.options.yes:
            return True
        if self.options.json:
            for line in change.lines:
                self.tell(line)
        if not sys.stdin.isatty():
            self.tell("not confirmed: nothing was changed; in a script say --yes")
            return False
        print(f"Type the name of the sale, {self.name}, to do this: ", end="", file=self.err, flush=True)
        if sys.stdin.readline().strip() == self.name:
            return True
        self.tell("not confirmed: nothing was changed")
        return False


def _text(value: object) -> str:
    """Returns a value as it is written after `--expect FIELD=`."""
    if value is None:
        return "none"
    return f"{value:.15g}" if isinstance(value, float) else str(value)
