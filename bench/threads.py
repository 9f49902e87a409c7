"""How threads may wait for each other: the ways that were measured before one was kept; prints a table.

`python -m bench.threads [rounds]`. The ways that were not kept exist here only.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from functools import partial
from unittest import mock

from rich.console import Console

from bench import purchases
from bench.harness import Bench, Case, median
from bench.peers import same_script
from bench.servers import redis_server
from flashsale._sync.transport.coalescer import Coalescer

CONNECTIONS = 64
SECONDS = 0.25


@contextlib.contextmanager
def _own_connection():
    """Each caller sends for itself, on one of so many held connections."""
    room = threading.BoundedSemaphore(CONNECTIONS)

    def submit(self, item, until=None):
        with room:
            (answer,) = self._send([item])
        if isinstance(answer, Exception):
            raise answer
        return answer

    with mock.patch.object(Coalescer, "submit", submit), _connections(CONNECTIONS):
        yield


@contextlib.contextmanager
def _in_flight(batches):
    """So many batches in flight, whether or not callers of the last one are still waking."""

    def may_leave(self):
        return self._in_flight < batches

    with mock.patch.object(Coalescer, "_may_leave", may_leave), _connections(max(4, batches)):
        yield


@contextlib.contextmanager
def _connections(held):
    with mock.patch("flashsale._sync.transport.topology.MAX_CONNECTIONS", 2 * held + 64):
        yield


def _measure(way, peer, callers, bed, seconds):
    with way():
        return purchases.threads(peer, callers, bed, seconds)


def main(rounds: int) -> None:
    """Measures and prints; an odd number of rounds has a median that was seen."""
    bench = Bench(quick=False, rounds=rounds, seconds=SECONDS, console=Console(stderr=True))
    ours, nothing = same_script.OURS_THREADS, contextlib.nullcontext
    ways = {
        "redis-py's pool": (nothing, same_script.REDIS_POOL),
        "a held connection each": (_own_connection, ours),
        **{f"batches, up to {many} in flight": (partial(_in_flight, many), ours) for many in (1, 2, 4, 8, 16, 32, 64)},
        "**the same, 2, none beside those who wake**": (nothing, ours),
    }
    loads = [(callers, pinned) for pinned in (False, True) for callers in purchases.THREADS]
    with redis_server() as bed:
        cases = [
            Case("threads", name, f"{callers}{', pinned' if pinned else ''}",
                 partial(_measure, way, peer, callers, bed, bench.seconds), pinned=pinned)
            for callers, pinned in loads
            for name, (way, peer) in ways.items()
        ]  # fmt: skip
        records = bench.run("threads", cases)
    cells = {(record["peer"], record["load"]): record for record in records}
    heads = [case.load for case in cases[:: len(ways)]]
    print("|", " | ".join(["", *heads]), "|")
    print("|---|" + "---:|" * len(heads))
    for name in ways:
        rates = [cells[name, head]["figures"].get("rate") for head in heads]
        print("|", " | ".join([name, *(f"{median(rate):,.0f}" if rate else "failed" for rate in rates)]), "|")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
