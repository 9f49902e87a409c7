"""Fixtures: one real Redis and one PostgreSQL for the whole run, and a backend that is fake or real, bytes or str."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import fakeredis
import hypothesis
import pytest
import redis
import redis.asyncio

from tests import servers
from tests.helpers import Shop
from tests.hosts import Host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

hypothesis.settings.register_profile("default", deadline=None, max_examples=25, stateful_step_count=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100, stateful_step_count=50, print_blob=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000, stateful_step_count=100)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


class Backend:
    """A Redis to test against, empty at the start of each test. Every client sees the same data.

    Attributes:
        kind: `fakeredis` or `redis`.
        decode: whether `client` and `aclient` answer str; the library must not care.
    """

    def __init__(self, kind: str, *, decode: bool, server: servers.RedisServer | None) -> None:
        self.kind = kind
        self.decode = decode
        self._fake = fakeredis.FakeServer()
        self._server = server
        self._clients: list[redis.Redis] = []

    def client(self, **kwargs: Any) -> redis.Redis:
        """Returns a new client as a host would make it, closed after the test."""
        kwargs.setdefault("decode_responses", self.decode)
        client: redis.Redis
        if self._server is None:
            client = fakeredis.FakeRedis(server=self._fake, **kwargs)
        else:
            client = redis.Redis(host=servers.HOST, port=self._server.port, **kwargs)
        self._clients.append(client)
        return client

    def aclient(self, **kwargs: Any) -> redis.asyncio.Redis:
        """Returns a new asyncio client; use it with `async with`."""
        kwargs.setdefault("decode_responses", self.decode)
        if self._server is None:
            return fakeredis.FakeAsyncRedis(server=self._fake, **kwargs)
        return redis.asyncio.Redis(host=servers.HOST, port=self._server.port, **kwargs)

    def raw(self) -> redis.Redis:
        """Returns a client with bytes replies, to look at the keys and to set them up."""
        return self.client(decode_responses=False)

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.RedisServer]:
    """The real Redis of this run. Tests that kill or configure one start their own: `servers.redis_server()`."""
    with servers.redis_server() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: servers.RedisServer) -> str:
    """URL of the real Redis, emptied for this test."""
    redis_server.client().flushall()
    return redis_server.url


@pytest.fixture(
    params=[("fakeredis", False), ("fakeredis", True), ("redis", False), ("redis", True)],
    ids=["fakeredis-bytes", "fakeredis-str", "redis-bytes", "redis-str"],
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Runs the test on fakeredis and on the real server, with bytes and with str replies."""
    kind, decode = request.param
    server = None
    if kind == "redis":
        server = request.getfixturevalue("redis_server")  # a run without a real server still tests the fake
    backend = Backend(kind, decode=decode, server=server)
    backend.raw().flushall()
    try:
        yield backend
    finally:
        backend.close()


@pytest.fixture
def client(backend: Backend) -> redis.Redis:
    """The host's client."""
    return backend.client()


@pytest.fixture
async def aclient(backend: Backend) -> AsyncIterator[redis.asyncio.Redis]:
    """The host's asyncio client."""
    async with backend.aclient() as client:
        yield client


@pytest.fixture
def raw(backend: Backend) -> redis.Redis:
    """A client with bytes replies, to look at the keys."""
    return backend.raw()


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """The PostgreSQL of this run."""
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: servers.Postgres) -> Iterator[str]:
    """SQLAlchemy URL of one database for the whole run: name your sale as nobody else does."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def fresh_postgres_url(postgres: servers.Postgres) -> Iterator[str]:
    """SQLAlchemy URL of an empty database for this test."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["flashsale", "flashsale.aio"], ids=["sync", "aio"])
async def shop(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> AsyncIterator[Shop]:
    """Makes sales and their parts, of both faces on every backend."""
    shop = Shop(request.param, backend, tmp_path)
    yield shop
    await shop.close()


@pytest.fixture(params=["flashsale", "flashsale.aio"], ids=["sync", "aio"])
async def real_shop(
    request: pytest.FixtureRequest, redis_server: servers.RedisServer, redis_url: str, tmp_path: Path
) -> AsyncIterator[Shop]:
    """Like `shop`, on the real Redis only: for crowds, and for what the fake does not know."""
    with contextlib.closing(Backend("redis", decode=False, server=redis_server)) as backend:
        shop = Shop(request.param, backend, tmp_path)
        yield shop
        await shop.close()


@pytest.fixture(params=["flashsale", "flashsale.aio"], ids=["sync", "aio"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    """Makes clients of any kind, and sales on them, of both faces."""
    host = Host(request.param, tmp_path)
    yield host
    await host.close()
