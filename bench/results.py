"""What a run has found: the JSON file, and how the page, the plots and the targets read it."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from bench.harness import CPUS, median
from bench.servers import redis_executable

PACKAGES = [
    *("redis", "hiredis", "uvloop", "valkey-glide", "coredis", "psycopg", "SQLAlchemy"),
    *(
        "rq",
        "dramatiq",
        "celery",
        "huey",
        "arq",
        "saq",
        "starlette",
        "fastapi",
        "uvicorn",
        "flask",
        "django",
        "gunicorn",
    ),
]


class Figure(NamedTuple):
    """What several rounds have measured.

    Args:
        median: of the rounds; of a ratio, the ratio of the medians.
        rounds: every round's own; empty for a ratio whose rounds are no pairs, because one has failed.
    """

    median: float
    rounds: Sequence[float]

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Self | None:
        return cls(median(rounds), tuple(rounds)) if rounds else None

    def over(self, other: Figure | None) -> Figure | None:
        """Returns the ratio: each round is divided by the same round of the other."""
        if other is None or not other.median:
            return None
        pairs = zip(self.rounds, other.rounds, strict=True) if len(self.rounds) == len(other.rounds) else ()
        return Figure(self.median / other.median, tuple(one / another for one, another in pairs if another))

    def spread(self, form: str = ",.2f") -> str:
        """Returns the lowest and the highest round as text; empty when there are not two."""
        return f"{min(self.rounds):{form}} to {max(self.rounds):{form}}" if len(self.rounds) > 1 else ""


class Results:
    """The sections measured so far; a run replaces those that it measures.

    Attributes:
        sections: by name, as in the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.sections = json.loads(file.read_text()) if file.exists() else {}

    def put(self, name: str, section: dict, run: dict) -> None:
        """Keeps one section, and writes the file."""
        loops = [*self._loops(), *(loop["cpu"] for loop in section.get("calibration", []))]
        self.sections[name] = section | {"run": run} | ({"fastest": min(loops)} if loops else {})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self.sections, indent=1) + "\n")

    def fastest(self) -> float:
        """Returns the fewest seconds of CPU that the calibration loop ever took; infinite if it never ran."""
        return min(self._loops(), default=math.inf)

    def _loops(self) -> list[float]:
        return [section["fastest"] for section in self.sections.values() if "fastest" in section]

    def records(self, section: str, table: str) -> list[dict]:
        return [record for record in self.sections.get(section, {}).get("records", []) if record["table"] == table]

    def rounds(self, section: str, table: str, peer: str, load: str | None = None, figure: str = "rate") -> list[float]:
        """Returns a figure of every round; without a load, of the load at which the peer is best; empty if absent."""
        found = [
            record["figures"][figure]
            for record in self.records(section, table)
            if record["peer"] == peer and load in {None, record["load"]} and figure in record["figures"]
        ]
        return max(found, key=median, default=[])

    def figure(self, *which: str | None) -> Figure | None:
        """Returns `rounds` as a figure, or None."""
        return Figure.of(self.rounds(*which))


def environment() -> dict:
    """Describes the machine and the versions, without naming where anything lies."""
    words = subprocess.run([redis_executable(), "--version"], capture_output=True, text=True, check=True).stdout.split()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "cores": len(CPUS) or os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": f"{words[0]} {next(word[2:] for word in words if word.startswith('v='))}",
        "packages": versions,
        "load": os.getloadavg()[0],
        "when": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
