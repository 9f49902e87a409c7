"""Which Redis the demo uses: the host's, one from PATH, the one inside a wheel, or fakeredis.

What is started here listens on a unix socket in a temporary folder (fakeredis: on a free loopback port), keeps nothing,
and is always stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis

from flashsale.clients import from_url
from flashsale.demo.options import DemoError, OptionError
from flashsale.errors import InvalidRequest
from flashsale.testing._redis_server import STARTING, CannotStart, Server, client, describe, own_redis, started


@asynccontextmanager
async def redis_for(url: str | None, folder: Path) -> AsyncIterator[Server]:
    """Gives the host's server at `url`; without one, starts the best one that it finds.

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
        except CannotStart:
            ours = await stack.enter_async_context(_fakeredis(folder))
            label = "fakeredis' TCP server: no Redis was found; it is slow, but follows the rules"
            server = Server(ours, label, ours=True)
        yield server


def introduce(url: str) -> str:
    """Returns name and version of the server at `url`, once it has answered."""
    try:
        with client(url) as connection:
            from_url(url)  # for its checks: the client itself would meet an unknown option at the first use
            connection.ping()
            try:
                info: dict[str, Any] = connection.info()
            except redis.ResponseError:  # fakeredis has no INFO
                return describe({})
    except InvalidRequest as error:
        raise OptionError(f"--redis: {error.reason}") from error
    except ValueError as error:
        raise OptionError("--redis: must be a URL such as redis://localhost:6379/0, rediss:// or unix://") from error
    except redis.RedisError as error:
        raise OptionError(f"--redis: the server does not answer: {type(error).__name__}") from error
    if info.get("cluster_enabled"):
        raise OptionError("--redis: this is a node of a Redis Cluster; the demo needs a single server")
    if info.get("role") != "master":
        raise OptionError("--redis: this is a replica; the demo needs its primary")
    return describe(info)


@asynccontextmanager
async def _fakeredis(folder: Path) -> AsyncIterator[str]:
    """Runs fakeredis' TCP server; gives its URL once it listens."""
    log = folder / "fakeredis.log"
    async with started([sys.executable, "-m", "flashsale.demo.fake_server"], log) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(STARTING):
                port = (await process.stdout.readline()).strip().decode()
        except TimeoutError:
            port = ""
        if not port:
            raise DemoError(f"no Redis could be started, nor fakeredis:\n{log.read_text(errors='replace')[-2000:]}")
        yield f"redis://127.0.0.1:{port}/0"
