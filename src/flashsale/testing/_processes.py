"""Child processes that are always ended: asked by SIGTERM first, killed if that takes too long."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

LINE: Final = 2**27  # bytes of one line from a process, at most
_STOPPING: Final = 10.0  # seconds until SIGKILL


@asynccontextmanager
async def running(
    command: Sequence[str | Path], *, log: Path, talks: bool = False, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Runs a process, in a session of its own: Ctrl-C is for us, who end it when the context is left.

    Args:
        command: program and arguments.
        log: file for its standard error.
        talks: True: with pipes to its standard input and output.
        environment: variables to set, such as URLs, which may hold passwords.
    """
    pipe = PIPE if talks else DEVNULL
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe,
            stdout=pipe,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            limit=LINE,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await stop(process)


async def stop(process: Process) -> int:
    """Asks a process to finish (SIGTERM), kills it if it takes too long, and returns the exit code."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
    return await ended(process, _STOPPING)


async def ended(process: Process, seconds: float) -> int:
    """Waits for the end of a process, kills it after `seconds`, and returns the exit code."""
    try:
        async with asyncio.timeout(seconds):
            return await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        return await process.wait()
