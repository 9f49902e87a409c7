"""The Redis that the pytest plugin connects to: a fake one, a server that it starts, or the host's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import redis
import redis.asyncio

from flashsale.testing._blocking import LoopThread
from flashsale.testing._redis_server import own_redis


class Server:
    """A Redis for one test.

    Args:
        url: of a real one; None: a fake, empty.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        if url is None:
            import fakeredis  # noqa: PLC0415 - needs an extra

            self._fake = fakeredis.FakeServer()
            self.client().ping()  # makes the database: two threads who come first, at once, would make one each

    def client(self) -> redis.Redis:
        """Returns a client; all of them see the same data."""
        if self._url is not None:
            return redis.Redis.from_url(self._url)
        import fakeredis  # noqa: PLC0415 - needs an extra

        return fakeredis.FakeRedis(server=self._fake)

    def async_client(self) -> redis.asyncio.Redis:
        """Returns an asyncio client."""
        if self._url is not None:
            return redis.asyncio.Redis.from_url(self._url)
        import fakeredis  # noqa: PLC0415 - needs an extra

        return fakeredis.FakeAsyncRedis(server=self._fake)


@contextmanager
def running_redis() -> Iterator[str]:
    """Runs the best Redis of this machine on a unix socket in a temporary folder; gives its URL.

    Raises:
        CannotStart: there is none that starts.
    """
    short = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 - a socket's path has room for 100 characters
    with tempfile.TemporaryDirectory(prefix="flashsale-", dir=short) as folder, LoopThread() as loop:
        stack = AsyncExitStack()
        try:
            yield loop.run(stack.enter_async_context(own_redis(Path(folder)))).url
        finally:
            loop.run(stack.aclose())
