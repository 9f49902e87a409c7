"""What a process does just now: it tells of it in its heartbeats. Pure."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from time import monotonic
from typing import Any, Final

from flashsale._rules.rate_limited_log import named
from flashsale._rules.tokens import delivery_and_lease
from flashsale.lua import LAYOUT
from flashsale.model import Claim
from flashsale.model.snapshot import Process, Snapshot

SILENT: Final = 15.0  # seconds without a heartbeat: three of them are missing
APART: Final = 10**14  # between the numbers of two partitions' deliveries, which stay below (claim.lua)
_SPANS: Final = 8  # of deliveries in one heartbeat: those of a batch are one, or a few


def instance() -> str:
    """Returns the name of this process: its host and its id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Activity:
    """What a worker, syncer, outbox or web process does.

    Args:
        kind: which of these.

    Attributes:
        kind: the same.
        last_error: what failed last, without ids; empty when nothing has.
        place: the partition of which it holds deliveries; 0 where there is one.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.last_error = ""
        self.place = 0
        self._claims: Sequence[Claim] = ()
        self._doing = ""
        self._began = 0.0
        self._last_ms: float | None = None
        self._failed: float | None = None
        self._went_on = monotonic()

    @property
    def name(self) -> str:
        """Its kind, and the name of its process."""
        return f"{self.kind} {instance()}"

    def go_on(self) -> None:
        """Notes that it makes progress."""
        self._went_on = monotonic()

    def still_for(self) -> float:
        """Returns the seconds since it last made progress."""
        return monotonic() - self._went_on

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Tells of `what` while the block runs, and how long it took afterwards."""
        before = self._doing, self._began
        self._doing, self._began = what, monotonic()
        self.go_on()
        try:
            yield
        except Exception as error:
            self.last_error, self._failed = named(error), monotonic()
            raise
        finally:
            self._last_ms = 1000 * (monotonic() - self._began)
            self._doing, self._began = before
            self.go_on()

    def hold(self, claims: Sequence[Claim]) -> None:
        """Tells of these claims from now on; the list may grow meanwhile."""
        self._claims = claims

    def told(self) -> tuple[str, float | None]:
        """Returns what a heartbeat says, as JSON, and the seconds since it began what it does; None: it waits."""
        return _told([self])

    def _numbers(self) -> list[int]:
        return [self.place * APART + delivery(claim) for claim in list(self._claims)]


class SharedActivity(Activity):
    """What several parts of one process do, such as a worker of each partition: it tells as one.

    Args:
        kind: of all.
        parts: what each does.
    """

    def __init__(self, kind: str, parts: Sequence[Activity]) -> None:
        super().__init__(kind)
        self._parts = parts
        for place, part in enumerate(parts):
            part.place = place

    def go_on(self) -> None:
        """Notes that all make progress."""
        for part in self._parts:
            part.go_on()

    def still_for(self) -> float:
        """Returns the seconds since the one that stands still longest made progress."""
        return max(part.still_for() for part in self._parts)

    def told(self) -> tuple[str, float | None]:
        """Returns what a heartbeat says; of what the parts do, that which one of them has done longest."""
        return _told(self._parts)


def _told(parts: Sequence[Activity]) -> tuple[str, float | None]:
    """Returns what the heartbeat of a process says, of which these are the parts."""
    held = [part._numbers() for part in parts]
    longest = min(parts, key=lambda part: part._began if part._doing else float("inf"))
    failed = max(parts, key=lambda part: part._failed or 0.0)
    last_ms = max((part._last_ms for part in parts if part._last_ms is not None), default=None)
    said = {
        "version": _version(),
        "layout": LAYOUT,
        "doing": longest._doing,
        "claimed": sum(map(len, held)),
        "deliveries": [span for numbers in held for span in _spans(numbers)],
        "last_ms": last_ms and round(last_ms, 3),
        "last_error": failed.last_error,
        "failed_ago": failed._failed and round(monotonic() - failed._failed, 3),
    }
    ago = monotonic() - longest._began if longest._doing else None
    return json.dumps(said, separators=(",", ":")), ago


@cache
def _version() -> str:
    return version("flashsale")  # reads files: once is enough


def delivery(claim: Claim) -> int:
    """Returns the number of a claim that stays the same however often it is tried again."""
    return int(delivery_and_lease(claim.token)[0])


def apart(claim: Claim, place: int) -> Claim:
    """Returns a claim of a partition to look at: its delivery has a number that no other partition's has."""
    number, _, rest = claim.token.partition("-")
    return replace(claim, token=f"{place * APART + int(number)}-{rest}") if place else claim


def _spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number <= spans[-1][1] + 1:
            spans[-1] = spans[-1][0], number
        else:
            spans.append((number, number))
    return spans[:_SPANS]


def holder(processes: Iterable[Process], claim: Claim) -> Process | None:
    """Returns the worker that last told of a claim; None: nobody has told, or it waits for its next try."""
    told = [each for each in processes if claim.lease and each.holds(delivery(claim))]
    return max(told, key=lambda each: each.beat, default=None)


def is_silent(process: Process, now: float) -> bool:
    """Returns whether a process has not told anything for long: whoever works tells within five seconds."""
    return now - process.beat > SILENT


def silent(look: Snapshot) -> tuple[Process, ...]:
    """Returns the workers that have not told anything for long."""
    return tuple(each for each in look.processes if each.kind == "worker" and is_silent(each, look.time))


def left_by(process: Process, processes: Iterable[Process]) -> list[int]:
    """Returns the numbers of the deliveries that a process last told of, and nobody else has since."""
    later = [each for each in processes if each.beat > process.beat]
    told = (number for first, last in process.deliveries for number in range(first, last + 1))
    return [number for number in told if not any(each.holds(number) for each in later)]


def read_process(name: str, text: str) -> Process | None:
    """Returns the process of a heartbeat; None where somebody else wrote it."""
    kind, _, process = name.partition(" ")
    beat, _, rest = text.partition("|")
    since, _, said = rest.partition("|")
    try:
        found: dict[str, Any] = json.loads(said)
        return Process(
            kind=kind,
            instance=process,
            version=str(found["version"]),
            layout=None if found.get("layout") is None else int(found["layout"]),
            beat=float(beat),
            doing=str(found["doing"]),
            since=float(since) if since else None,
            claimed=int(found["claimed"]),
            deliveries=tuple((int(first), int(last)) for first, last in found["deliveries"]),
            last_ms=None if found["last_ms"] is None else float(found["last_ms"]),
            last_error=str(found["last_error"]),
            failed_at=None if found.get("failed_ago") is None else float(beat) - float(found["failed_ago"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
