"""The command: `python -m bench [SECTION...] [--quick]`. Run it from the repository's root, or by `make bench`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import report
from bench.calibration import calibrate
from bench.harness import Bench
from bench.results import Results, environment

SECTIONS = {
    "purchases": "purchases",
    "gate": "gate",
    "queue": "queues",
    "aof": "aof",
    "growth": "growth",
    "web": "web",
    "shops": "shops",
    "scale": "scale",
}
DEFAULTS = {"rounds": 5, "seconds": 0.6}
ROOT = Path(__file__).parent.parent


def main() -> int:
    options = _options()
    console = Console(stderr=True)
    if options.quick:
        rounds, seconds, folder = 1, 0.3, options.out or ROOT / "build" / "bench"
    else:
        rounds, seconds, folder = options.rounds, options.seconds, options.out or ROOT / "docs"
    results = Results(folder / "plots" / "benchmarks.json")
    if not options.report:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and so stops the servers
        bench = Bench(quick=options.quick, rounds=rounds, seconds=seconds, console=console)
        run = environment() | {"rounds": rounds, "seconds": seconds, "command": _command(options)}
        began = time.monotonic()
        for name in options.sections or SECTIONS:
            section = measured(importlib.import_module(f"bench.{SECTIONS[name]}").run, bench)
            if section is None:
                console.print(f"{name}: left out, what it needs is not here")
            else:
                results.put(name, section, run)
        console.print(f"measured in {time.monotonic() - began:.0f} s", highlight=False)
    report.write(results, folder / "benchmarks.md")
    page = folder / "benchmarks.md"
    console.print(f"wrote {page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page}", highlight=False)
    return 0


def measured(run: Callable[[Bench], dict | None], bench: Bench) -> dict | None:
    """Measures one section, if it can be measured here, and the machine before and after it."""
    before = calibrate()
    section = run(bench)
    return section and section | {"calibration": [before, calibrate()]}


def _command(options: argparse.Namespace) -> str:
    words = [*options.sections, *(["--quick"] if options.quick else [])]
    changed = {name: getattr(options, name) for name, value in DEFAULTS.items() if getattr(options, name) != value}
    words += [f"--{name} {value:g}" for name, value in changed.items()]
    return f'make bench ARGS="{" ".join(words)}"' if words else "make bench"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures flashsale beside the obvious code.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a smoke run into build/bench; its figures mean nothing")
    parser.add_argument(
        "--rounds", type=int, default=DEFAULTS["rounds"], help="how often each case is measured (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULTS["seconds"],
        help="for how long, where time decides (default: %(default)s)",
    )
    parser.add_argument("--report", action="store_true", help="only write the page anew from the last run's figures")
    parser.add_argument("--out", type=Path, help="folder of the page (default: docs)")
    parser.set_defaults(**DEFAULTS)
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
