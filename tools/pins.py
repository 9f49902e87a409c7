"""Writes constraints.txt: the release of every package that `make` installs, as an empty environment resolves it today.

The environment is one of the oldest Python that the project supports: a package may leave out its first patch releases.

    python tools/pins.py

`make` installs by it, so that a release elsewhere turns nothing red here; `make matrix` has a row without it. A package
that only another Python or system needs is not in it, and is then the newest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PINS = PROJECT / "constraints.txt"
WANTED = (
    [".[dev,bench]", "editables"],  # editables: what hatchling needs for an editable install
    ["--no-deps", "arq"],  # declares an older redis-py: `make bench` installs it without its dependencies
)
DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
OLDEST = DECLARED["requires-python"].removeprefix(">=") + ".0"
HEAD = "# The releases that `make` installs. Written by `make pins`; do not edit.\n"


def resolve(*wanted: str) -> dict[str, str]:
    """Returns what pip would install into an empty environment, and in which release."""
    with tempfile.TemporaryDirectory(prefix="flashsale-pins-") as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--dry-run", "--ignore-installed", "--report", str(report), "--target", folder]
        options += ["--python-version", OLDEST, "--only-binary", ":all:"]  # pip takes the one only with the other
        subprocess.run([*pip, *options, *wanted], cwd=PROJECT, check=True)
        found = json.loads(report.read_text("utf-8"))["install"]
    return {each["metadata"]["name"].lower().replace("_", "-"): each["metadata"]["version"] for each in found}


def main() -> int:
    pins: dict[str, str] = {}
    for wanted in WANTED:
        pins |= resolve(*wanted)
    del pins["flashsale"]
    PINS.write_text(HEAD + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins)), "utf-8")
    print(f"{PINS.name}: {len(pins)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
