"""Runs each target under atheris for its share of the time, in a process of its own."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SEEDS = (
    b"",
    b'{"order_id":"o-1","goods_id":"phone","buyer_id":"ann","quantity":2,"created_at":1.5,"data":{"a":[1,null]}}',
    b"QUEUED|2|3|phone|17|ann|x",
    b"redis_version:7.0.15\r\nconnected_slaves:1\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n",
    b"1|2|{}",
    b"o|g|b|1|PERSISTED|1.5|[]|QUEUED|0",
    b"\x00nan",
    b"\x03-1",
    b"[1,0]",
)


def names() -> list[str]:
    from tests.chaos.fuzz import parsers

    return [*parsers.TARGETS, "redis_value"]


def one(name: str, seconds: int, corpus: str) -> None:
    """Fuzzes one target; atheris ends the process."""
    import atheris

    with atheris.instrument_imports(include=["flashsale"], enable_loader_override=False):
        from tests.chaos.fuzz import parsers, scripts
    target = {**parsers.TARGETS, "redis_value": scripts.redis_value}[name]
    options = [
        f"-max_total_time={seconds}",
        "-max_len=2048",
        "-timeout=30",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/found-", corpus], target)
    atheris.Fuzz()


def run(name: str, seconds: int) -> tuple[int, str]:
    """Returns how many inputs a target was given, and what it found: a traceback and the input."""
    with tempfile.TemporaryDirectory(prefix="flashsale-fuzz-") as corpus:
        for number, seed in enumerate(SEEDS):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        command = [
            sys.executable,
            "-m",
            "tests.chaos.fuzz",
            "--one",
            name,
            "--seconds",
            str(seconds),
            "--corpus",
            corpus,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 120, check=False, errors="replace"
        )
        said = done.stdout + done.stderr
        executed = re.findall(r"number_of_executed_units: (\d+)", said) or re.findall(r"^#(\d+)", said, re.MULTILINE)
        found = [repr(path.read_bytes()) for path in Path(corpus).glob("found-*")]
        if done.returncode == 0 and not found:
            return int(executed[-1]), ""
        trace = said[max(0, said.find("Traceback")) :].partition("\n==")[0]
        return int(executed[-1]) if executed else 0, "\n".join([trace[-3000:], *found])


def main() -> int:
    """Returns 1 when anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together (60)")
    parser.add_argument("--target", choices=names(), action="append", help="only this one; may be repeated")
    parser.add_argument("--one", choices=names(), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.seconds, options.corpus)
    targets = options.target or names()
    wrong = 0
    for name in targets:
        executed, found = run(name, max(1, options.seconds // len(targets)))
        print(f"{name:<16}{executed:>10} inputs  {'FOUND' if found else 'nothing found'}", flush=True)
        if found:
            wrong += 1
            print(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
