"""The tutorials, replayed as a newcomer does: their files are saved and their commands typed, in an empty folder.

In a tutorial a `python` block that begins with a file's name is that file, or is added at its end. A `sh` block runs
on in a terminal of its own. In a `console` block each line after `$` is typed, and must sooner or later be answered as
shown, where `...` is anything. `text` is not for replaying: what is installed, and how a Redis comes to this machine.
The minute until the opening ends when the first order is to be accepted.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers

DOCS = Path(__file__).parent.parent.parent / "docs"
TUTORIALS = ["tutorial.md", "fastapi.md", "django.md"]
PATIENCE = 60.0  # seconds


class Newcomer:
    """Somebody at a desk, with several terminals. Whatever still runs in them ends with `leave`."""

    def __init__(self, folder: Path, redis: str) -> None:
        self._folder = folder
        self._changes = {
            "localhost:6379": redis,
            "8000": str(servers.free_port()),
            "time.time() + 60": "time.time() + 3600",  # until `let_it_open`
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        clean = {name: value for name, value in os.environ.items() if not re.match("PYTEST|DJANGO|FLASK", name)}
        self._environment = clean | {"PATH": path}
        self._terminals: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path] = []

    def save(self, name: str, text: str) -> None:
        with (self._folder / name).open("a") as file:
            file.write(self._here(text))

    def leave_running(self, script: str) -> None:
        log = self._folder / f"terminal-{len(self._logs)}.log"
        with log.open("wb") as output:
            terminal = subprocess.Popen(
                ["bash", "-c", self._here(script)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._terminals.append(terminal)
        self._logs.append(log)

    def type(self, command: str, shown: str) -> None:
        if "goods.py" in command:
            self._put_goods = command
        wanted = ".*".join(map(re.escape, shown.strip().split("...")))
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = subprocess.run(
                ["bash", "-c", self._here(command).replace("curl ", "curl -sS ")],
                cwd=self._folder,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            if answer.returncode == 0 and re.fullmatch(wanted, answer.stdout.strip(), re.DOTALL):
                return
            if time.monotonic() > deadline:
                logs = "".join(log.read_text()[-3000:] for log in self._logs)
                pytest.fail(f"$ {command}\n{answer.stdout}{answer.stderr}\nand not\n{shown}\n{logs}", pytrace=False)
            time.sleep(0.2)

    def let_it_open(self) -> None:
        """Puts the item anew, with an opening that is now: no test waits for a minute, or loses a race against it."""
        goods = self._folder / "goods.py"
        goods.write_text(goods.read_text().replace("time.time() + 3600", "time.time()"))
        self.type(self._put_goods, "")

    def has_read(self, line: str) -> bool:
        return any(line in log.read_text() for log in self._logs)

    def leave(self) -> None:
        for terminal in self._terminals:
            os.killpg(terminal.pid, signal.SIGKILL)
            terminal.wait()

    def _here(self, text: str) -> str:
        for shown, real in self._changes.items():
            text = text.replace(shown, real)
        return text


@pytest.fixture
def newcomer(tmp_path: Path, redis_url: str) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path, redis_url.removeprefix("redis://").removesuffix("/0"))
    try:
        yield newcomer
    finally:
        newcomer.leave()


@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_leads_where_it_says(page: str, newcomer: Newcomer) -> None:
    prose = (DOCS / page).read_text()
    blocks = re.findall(r"^```(python|sh|console)\n(.*?)^```", prose, re.MULTILINE | re.DOTALL)
    is_open = False
    for kind, text in blocks:
        if kind == "python":
            first, _, _ = text.partition("\n")
            newcomer.save(re.fullmatch(r"# ([\w/]+\.py)(?:, .*)?", first)[1], text)
        elif kind == "sh":
            newcomer.leave_running(text)
        else:
            for command, shown in re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", text, re.MULTILINE):
                if "ACCEPTED" in shown and not is_open:
                    newcomer.let_it_open()
                    is_open = True
                newcomer.type(command, shown)
    assert {kind for kind, _ in blocks} == {"python", "sh", "console"}
    (line,) = re.findall(r"^Syncer and worker each say `([^`]*)`", prose, re.MULTILINE)
    assert newcomer.has_read(line)
