"""Starts, watches and ends the processes of the demo; `runner` says which there are."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from flashsale.demo.crowd import Share, instructions
from flashsale.demo.options import DemoError
from flashsale.demo.tally import Tally
from flashsale.testing._processes import running

_TAIL: Final = 2000  # characters of a log that are shown


class Helper:
    """A running process, and where it logs.

    Args:
        name: what to call it.
        process: the process.
        log: file with its standard error.
    """

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    def check(self) -> None:
        """Raises DemoError with the end of its log if it has ended."""
        if self.process.returncode is not None:
            text = self._log.read_text(errors="replace")[-_TAIL:]
            raise DemoError(f"the {self.name} ended early, exit code {self.process.returncode}:\n{text}".rstrip())


class Member(Helper):
    """A process of the crowd. `tally` is its latest tally, complete after the last phase; `finished` has its phases."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        super().__init__(name, process, log)
        self.tally = Tally()
        self.finished: set[str] = set()
        self.listener = asyncio.create_task(self._listen())

    def send(self, line: bytes) -> None:
        """Sends a line, such as the name of the phase to begin."""
        if self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(line)

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            message = json.loads(line)
            self.tally = Tally.from_json(message["tally"])
            self.finished.add(message["event"])


@asynccontextmanager
async def helper(
    name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[Helper]:
    """Runs `flashsale` with these arguments and variables; it is ended when the context is left."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "flashsale", *arguments]
    async with running(command, log=log, environment=environment) as process:
        yield Helper(name, process, log)


@asynccontextmanager
async def member(name: str, share: Share, folder: Path) -> AsyncIterator[Member]:
    """Runs a process of the crowd; it is ended when the context is left."""
    log = folder / f"{name}.log"
    async with running([sys.executable, "-m", "flashsale.demo.crowd"], log=log, talks=True) as process:
        started = Member(name, process, log)
        try:
            started.send(instructions(share))
            yield started
        finally:
            started.listener.cancel()
