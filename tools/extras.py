"""Installs each extra of pyproject.toml alone, from the wheel, and uses it once.

    python tools/extras.py                 # every extra
    python tools/extras.py testing demo    # these

What an extra forgets to ask for is found here: its environment has nothing else. `tools/extras/<extra>.py` is what is
done with it; a Redis of ours is at $FLASHSALE_REDIS_URL. `dev` and `bench` are not here: `make test` runs in the one,
`make bench` in the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flashsale.testing._plugin_redis import running_redis

PROJECT = Path(__file__).resolve().parent.parent
USES = Path(__file__).with_suffix("")
PINS = PROJECT / "constraints.txt"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


class Failed(Exception):
    """A command ended badly; the text is what it said."""


def run(*command: object, **more: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise Failed(f"{done.stdout}{done.stderr}".strip())


def gather(house: Path, extras: list[str]) -> None:
    """Puts the project's wheel, and once for all whatever the extras need, into a folder."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", house, PROJECT)
    run(
        *PIP, "download", "--dest", house, "--constraint", PINS, "--find-links", house, f"flashsale[{','.join(extras)}]"
    )


def try_out(extra: str, house: Path, redis_url: str) -> str:
    """Installs one extra into an empty environment and uses it; returns what went wrong."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flashsale-extra-") as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        try:
            run(sys.executable, "-m", "venv", "--without-pip", Path(folder) / "venv")
            offline = ("--no-index", "--find-links", house)
            run(*PIP, "--python", python, "install", *offline, f"flashsale[{extra}]")
            installed = time.monotonic()
            clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            settings = clean | {"FLASHSALE_REDIS_URL": redis_url}
            run(python, "-I", "-W", "error", USES / f"{extra}.py", cwd=folder, env=settings, timeout=120)
        except Failed as error:
            print(f"  {extra:<12}failed")
            return f"\n{extra}:\n{error}\n"
    print(
        f"  {extra:<12}installed in {installed - began:4.1f} s, used in {time.monotonic() - installed:4.1f} s",
        flush=True,
    )
    return ""


def main(argv: list[str] | None = None) -> int:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    every = [name for name in project["optional-dependencies"] if name not in {"bench", "dev"}]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("extras", nargs="*", choices=[*every, []], help="these alone")
    extras = parser.parse_args(argv).extras or every
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flashsale-wheels-") as house, running_redis() as redis_url:
        gather(Path(house), extras)
        print(f"  {'wheels':<12}gathered in {time.monotonic() - began:4.1f} s", flush=True)
        with ThreadPoolExecutor(2) as pool:
            problems = list(pool.map(lambda extra: try_out(extra, Path(house), redis_url), extras))
    print("".join(problems), end="", file=sys.stderr)
    good = problems.count("")
    print(f"{good} of {len(extras)} extras work alone ({time.monotonic() - began:.0f} s)")
    return int(any(problems))


if __name__ == "__main__":
    sys.exit(main())
