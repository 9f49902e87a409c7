"""Plays the rows and writes docs/guarantees.md.

python -m tests.chaos.faults [options of pytest, such as -n 2]
"""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import redis

from tests.chaos.faults import table
from tests.support import servers


class Recorder:
    """Keeps what became of each test."""

    def __init__(self) -> None:
        self.results: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed" or report.when == "call":
            self.results[report.nodeid] = report.outcome


def versions() -> str:
    """Returns what the rows ran on, and when."""
    said = subprocess.run([servers.redis_executable(), "--version"], capture_output=True, text=True, check=True).stdout
    number = next(word for word in said.split() if word.startswith("v="))[2:]
    name = "Valkey" if "valkey" in said.lower() else "Redis"
    with servers.postgres() as server, psycopg.connect(server.uri) as connection:
        (postgres,) = connection.execute("SHOW server_version").fetchone() or ("?",)
    return (
        f"Last run: {datetime.now(UTC):%Y-%m-%d}, {name} {number}, PostgreSQL {postgres}, "
        f"Python {platform.python_version()}, redis-py {redis.__version__}."
    )


def main() -> int:
    recorder = Recorder()
    folder = str(Path(__file__).parent)
    code = pytest.main(
        [folder, "-q", "--deselect", "tests/chaos/faults/test_table.py", *sys.argv[1:]], plugins=[recorder]
    )
    table.PAGE.write_text(table.render(recorder.results, versions()))
    print(f"wrote {table.PAGE}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
