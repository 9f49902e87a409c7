"""Holds processes to a small share of a core each, so that one small machine stands for many.

By cgroups, version 1 or 2, where they can be written; else a process of ours stops each of them (SIGSTOP) whenever it
has had its share, and continues it (SIGCONT) when there is more.

python -m bench.cpu_share SHARE PID...
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MOUNTS, GROUPS = Path("/proc/self/mounts"), Path("/proc/self/cgroup")
QUOTA = 1000  # microseconds of CPU in each period: the least that Linux takes
LOOKS = 0.0005  # seconds between two looks of the limiter at its processes
SAVED = 0.001  # seconds of CPU that a process which had nothing to do may have in store


def cpu_of(pid: int) -> float:
    """Returns the seconds of CPU that a process has had, all its threads together. Linux only."""
    return time.clock_gettime((~pid << 3) | 2)


class Cgroups:
    """Limits by a group of each process's own.

    Args:
        home: the folder of the group that we are in, or of one above it.
        file: what holds quota and period there, `cpu.max`; None: version 1 has a file for each.
    """

    def __init__(self, home: Path, file: str | None) -> None:
        self._home, self._file = home, file
        self.name = f"cgroups v{2 if file else 1}"

    @classmethod
    def find(cls) -> Cgroups | None:
        """Returns those of this machine, if we may write to them."""
        with contextlib.suppress(OSError):
            for home, file in _homes():
                found = cls(home, file)
                with contextlib.suppress(OSError), found._group("probe", 0.5):
                    return found
        return None

    @contextlib.contextmanager
    def hold(self, pids: Sequence[int], share: float) -> Iterator[None]:
        """Holds each process to this share of a core."""
        with contextlib.ExitStack() as stack:
            for pid in pids:
                group = stack.enter_context(self._group(str(pid), share))
                stack.callback(self._put, self._home, pid)
                self._put(group, pid)
            yield

    @contextlib.contextmanager
    def _group(self, name: str, share: float) -> Iterator[Path]:
        group, period = self._home / f"flashsale-bench-{os.getpid()}-{name}", f"{QUOTA / share:.0f}"
        group.mkdir()
        try:
            if self._file:
                (group / self._file).write_text(f"{QUOTA} {period}")
            else:
                (group / "cpu.cfs_period_us").write_text(period)
                (group / "cpu.cfs_quota_us").write_text(str(QUOTA))
            yield group
        finally:
            group.rmdir()

    @staticmethod
    def _put(group: Path, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            (group / "cgroup.procs").write_text(str(pid))


def _homes() -> Iterator[tuple[Path, str | None]]:
    """Yields the folders in which a group might be made, the nearest first."""
    ours = dict(line.split(":", 2)[1:] for line in GROUPS.read_text().splitlines())
    for line in MOUNTS.read_text().splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup2" and "" in ours:
            path, file = ours[""], "cpu.max"
        elif kind == "cgroup" and "cpu" in options.split(","):
            path, file = next((place for name, place in ours.items() if "cpu" in name.split(",")), "/"), None
        else:
            continue
        own = Path(path.lstrip("/"))
        for each in (own, *own.parents):
            yield Path(mount) / each, file


class Stops:
    """Limits by a process that stops and continues the others."""

    name = "SIGSTOP and SIGCONT, by the CPU time of each process"

    @staticmethod
    @contextlib.contextmanager
    def hold(pids: Sequence[int], share: float) -> Iterator[None]:
        """Holds each process to this share of a core."""
        command = [sys.executable, "-m", "bench.cpu_share", str(share), *map(str, pids)]
        limiter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            limiter.stdout.readline()  # it has begun
            yield
        finally:
            limiter.communicate()  # it ends when its input does
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def limiter() -> Cgroups | Stops:
    """Returns what can limit here."""
    return Cgroups.find() or Stops()


def _limit(share: float, pids: Sequence[int]) -> None:
    """Stops and continues until its input ends: time gives a process its CPU, and what it has had too much it owes."""
    given = {pid: cpu_of(pid) for pid in pids}
    stopped: set[int] = set()
    print("begun", flush=True)
    before = time.monotonic()
    try:
        while not select.select([sys.stdin], [], [], LOOKS)[0]:
            now = time.monotonic()
            more, before = share * (now - before), now
            for pid in pids:
                had = cpu_of(pid)
                given[pid] = min(given[pid] + more, had + SAVED)
                if had > given[pid] and pid not in stopped:
                    os.kill(pid, signal.SIGSTOP)
                    stopped.add(pid)
                elif had + SAVED / 2 <= given[pid] and pid in stopped:
                    os.kill(pid, signal.SIGCONT)
                    stopped.remove(pid)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    _limit(float(sys.argv[1]), [int(pid) for pid in sys.argv[2:]])
