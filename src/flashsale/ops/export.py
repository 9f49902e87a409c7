"""The command `export`: the rows of a sale as CSV or JSON lines, page by page."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from flashsale.model import StoredOrder
from flashsale.ops.frame import Context, Outcome, Stop, Verb

PAGE: Final = 1000  # rows of one read
EVERY: Final = 2.0  # seconds between two words on how far it is

Rows = Iterator[Mapping[str, Any]]


class Target(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> object:
        """Writes."""


class _Hashed:
    """Passes text on and adds it up."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._hash = hashlib.sha256()

    def write(self, text: str) -> None:
        self._hash.update(text.encode())
        self._target.write(text)

    def digest(self) -> str:
        return self._hash.hexdigest()


# -- rows -----------------------------------------------------------------------------------------------------------


def _orders(context: Context) -> Rows:
    after = None
    while page := context.store.orders(after=after, limit=PAGE):
        after = page[-1].order.order_id
        yield from map(row_of, page)


def row_of(row: StoredOrder) -> dict[str, Any]:
    """Returns the row of an order by the names of its columns."""
    order = row.order
    values = {name: getattr(order, name) for name in ("order_id", "goods_id", "buyer_id", "quantity")}
    values |= {"state": str(row.state), "created_at": order.created_at}
    values |= {name: getattr(row, name) for name in ("persisted_at", "settled_at") if hasattr(row, name)}
    return {**values, "reason": row.reason, "data": order.data}


def _goods(context: Context) -> Rows:
    yield from (asdict(goods) for goods in context.store.goods())


KINDS: Final[Mapping[str, Callable[[Context], Rows]]] = {"orders": _orders, "goods": _goods}


# -- formats --------------------------------------------------------------------------------------------------------


def _as_csv(rows: Rows, target: Target) -> Iterator[None]:
    writer: Any = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(target, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row if row.get("data") is None else {**row, "data": json.dumps(row["data"])})
        yield


def _as_json_lines(rows: Rows, target: Target) -> Iterator[None]:
    for row in rows:
        target.write(json.dumps(row, separators=(",", ":")) + "\n")
        yield


FORMATS: Final = {"csv": _as_csv, "jsonl": _as_json_lines}


# -- the command ----------------------------------------------------------------------------------------------------


def _add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--format", choices=list(FORMATS), default="csv", help="csv, or jsonl: one JSON object a line (csv)")
    add("--what", choices=list(KINDS), default="orders", help="which rows (orders)")
    add("--out", metavar="FILE", help="into this file, which is there only when it is whole (default: stdout)")


def _export(context: Context) -> Outcome:
    options = context.options
    if options.json and options.out is None:
        raise Stop("--json: the rows go to stdout: name a file by --out")
    with _target(context) as target:
        hashed = _Hashed(target)
        count = _write(context, FORMATS[options.format](KINDS[options.what](context), hashed))
    data = {"what": options.what, "rows": count, "sha256": hashed.digest(), "file": options.out}
    context.note(data)
    context.tell(f"{count:,} rows of {options.what}, sha256 {data['sha256']}")
    return Outcome((), data)


def _write(context: Context, written: Iterator[None]) -> int:
    count, told = 0, time.monotonic()
    for _ in written:
        count += 1
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            context.tell(f"{count:,} rows")
    return count


@contextmanager
def _target(context: Context) -> Iterator[Target]:
    """Gives the file under another name, which its owner alone may read, until it is whole; or stdout."""
    if context.options.out is None:
        yield context.out
        return
    path = Path(context.options.out)
    part = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise Stop(f"--out: {path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


VERBS: Final = (
    Verb(
        "export",
        "write the rows of the sale, as CSV or JSON lines",
        _export,
        _add,
        "Writes the rows of the sale in the database, page by page; how far it is goes to stderr. Times are epoch "
        "seconds. It works without Redis.",
        needs=frozenset({"database", "sale"}),
    ),
)
