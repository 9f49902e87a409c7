"""Fixtures: one real Redis and one PostgreSQL for the whole run, and a backend that is fake or real, bytes or str.

With `--cluster` every test that asks for a backend runs on a Redis Cluster of six nodes instead. With `--quick` most
tests run on asyncio and the real Redis alone, and no server of a database is started.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import shutil
import sys
import tempfile
import threading
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fakeredis
import hypothesis
import pymysql.connections
import pytest
import redis
import redis.asyncio

from tests.support import acl, mutants, servers
from tests.support.helpers import Shop
from tests.support.hosts import Host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

hypothesis.settings.register_profile("default", deadline=None, max_examples=25, stateful_step_count=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100, stateful_step_count=50, print_blob=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000, stateful_step_count=100)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

metadata.version = functools.cache(metadata.version)  # redis-py reads its own from a file for every client

if new_context := getattr(pymysql.connections.Connection, "_create_ssl_ctx", None):  # absent: slower, that is all
    default_context = functools.cache(lambda: new_context(None, {}))
    pymysql.connections.Connection._create_ssl_ctx = (  # reads all certificates of the machine for every connection
        lambda connection, options: new_context(connection, options) if options else default_context()
    )

PROTOCOL = servers.SPOKEN.get("protocol", 2)  # of the host's clients: RESP2 or RESP3

BACKENDS = {
    "fakeredis-bytes": ("fakeredis", False),
    "fakeredis-str": ("fakeredis", True),
    "redis-bytes": ("redis", False),
    "redis-str": ("redis", True),
}
SOURCE = {"aio", "redis", "str"}
"""The API from which the other one is generated, on a real server: what most tests of `--quick` run on."""
TWO = ({"sync", "fakeredis", "bytes"}, SOURCE)
"""Both APIs, both kinds of server, and both kinds of reply, each once: what most tests run on."""
FOUR = (
    {"sync", "fakeredis", "bytes"},
    {"sync", "redis", "str"},
    {"aio", "fakeredis", "str"},
    {"aio", "redis", "bytes"},
)
"""Each API with each kind of server and of reply, and each server with each kind of reply."""
ON_FOUR = {f"test_{name}" for name in ("gate", "inventory", "order_queue", "reserve", "sale", "stampede", "worker")}
"""Modules about what every purchase goes through."""
NOT_QUICK = {"cluster", "postgres", "postgresql", "mysql"}

ON_A_CLUSTER_TOO = {"test_gate", "test_sale", "test_worker"}
"""Modules that the ordinary run plays on a Cluster as well, with str replies."""


LONG = {"browser", "chaos", "examples"}
"""Folders of tests that take long; those that any worker can take over come after them."""

MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory: each commit of a database waits for a disk for milliseconds."""
ROOM = 2 * 2**30


def work_in_memory() -> None:
    """Puts temporary files into memory, those of the processes that tests start too. `TMPDIR` says otherwise."""
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def keep_bytecode() -> None:
    """Lets the hundreds of processes of a run compile the package once, as the Makefile does."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


keep_bytecode()
work_in_memory()


def pytest_configure(config: pytest.Config) -> None:
    """A run that is told to end, ends its servers too; its databases start as copies of one that is new."""
    config.addinivalue_line("markers", "kills(mutant, by=()): must fail without this mechanism; tests.support.mutants")
    config.addinivalue_line("markers", "without(mutant): says itself what goes wrong without this mechanism")
    if config.option.first_layout:
        mutants.begin_in_layout_1(pytest.MonkeyPatch())
    config.pluginmanager.register(mutants.Killers(), mutants.Killers.NAME)
    if threading.current_thread() is threading.main_thread():
        servers.end_on_signals()
    if servers.TEMPLATES not in os.environ:  # the workers of pytest-xdist share the folder
        os.environ[servers.TEMPLATES] = tempfile.mkdtemp(prefix="flashsale-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(servers.TEMPLATES), ignore_errors=True))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", action="store_true", help="on a Redis Cluster whatever asks for a backend")
    parser.addoption(
        "--quick", action="store_true", help="on asyncio and the real Redis; what each purchase needs on both APIs"
    )
    parser.addoption("--first-layout", action="store_true", help="begin sales in layout 1, as releases before did")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives each test its backends, unless it names some itself."""
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "backend" in metafunc.fixturenames and "backend" not in chosen:
        backends = dict(BACKENDS)
        in_the_subset = _is_in(ON_A_CLUSTER_TOO, metafunc)
        one_server = metafunc.definition.get_closest_marker("one_server")
        if in_the_subset and not (one_server or metafunc.config.option.cluster):
            backends["cluster-str"] = ("cluster", True)
        metafunc.parametrize("backend", backends.values(), ids=backends, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--cluster` only what asks for a real backend and no server of its own is left, with `--quick` the quick."""
    wanted = _may_run_on_a_cluster if config.option.cluster else _is_quick if config.option.quick else _is_once
    kept, left = [], []
    for item in items:
        (kept if wanted(item) else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = _dealt(kept, getattr(config, "workerinput", {"workercount": 1})["workercount"])


def pytest_collection_finish() -> None:
    """Ten thousand tests live until the end: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


def _dealt(items: list[pytest.Item], hands: int) -> list[pytest.Item]:
    """Deals the files out to the workers of pytest-xdist, which get a hand each: first those that take long, in turn.

    So the end of a run is many short tests, which any worker takes over, and no worker has all that is long.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    dealt: list[list[pytest.Item]] = [[] for _ in range(hands)]
    long = [path for path in files if LONG & set(path.parts)]
    for number, path in enumerate(long):
        dealt[number % hands] += files.pop(path)
    for rest in files.values():
        min(dealt, key=len).extend(rest)
    return [item for hand in dealt for item in hand]


def _is_once(item: pytest.Item) -> bool:
    """Whether no other combination proves what this one does."""
    if not hasattr(item, "callspec") or "backend" not in item.callspec.params or "cluster" in _words(item):
        return True
    combinations = FOUR if _is_in(ON_FOUR, item) else TWO
    asked = _words(item) & set().union(*combinations)
    return any(asked <= combination for combination in combinations)


def _is_quick(item: pytest.Item) -> bool:
    if item.get_closest_marker("kills") or item.get_closest_marker("without"):
        return False  # a mutant: it tests the tests
    combinations = TWO if _is_in(ON_FOUR, item) else (SOURCE,)
    asked = (_words(item) | set(getattr(item, "fixturenames", ()))) & NOT_QUICK.union(*TWO)
    return any(asked <= combination for combination in combinations)


def _is_in(modules: set[str], what: Any) -> bool:
    """Returns whether a test, or a function of which tests are made, is in one of these modules."""
    return what.module.__name__.rpartition(".")[2] in modules


def _words(item: pytest.Item) -> set[str]:
    return set(item.callspec.id.split("-")) if hasattr(item, "callspec") else set()


def _may_run_on_a_cluster(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    if item.get_closest_marker("one_server") or fixtures & {"redis_server", "redis_url"}:
        return False
    kind, _ = item.callspec.params.get("backend", ("", False)) if hasattr(item, "callspec") else ("", False)
    return kind == "redis" or "real_shop" in fixtures


@pytest.hookimpl(optionalhook=True)  # there is a run without pytest-xdist, too
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three more than there are cores: the tests wait for servers and leases for most of their time."""
    return (os.cpu_count() or 1) + 3


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker that has nothing left takes over half of what waits behind another one's long test."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Takes the mechanism of `kills` or `without` out; a test that `kills` and succeeds has not shown a need for it."""
    kills, without = (pyfuncitem.get_closest_marker(name) for name in ("kills", "without"))
    mark = kills or without
    if mark is None:
        return (yield)
    with pytest.MonkeyPatch.context() as monkeypatch:
        mutants.MUTANTS[mark.args[0]].take_out(monkeypatch, pyfuncitem.funcargs.get("world"))
        if without:
            return (yield)
        try:
            yield
        except (*mutants.BROKEN, *mark.kwargs["by"]) as broken:
            print(broken)
            return True
    pytest.fail(f"nothing misses {mark.args[0]}")


class Backend:
    """A Redis to test against, empty at the start of each test. Every client sees the same data.

    Args:
        kind: `fakeredis`, `redis` or `cluster`.
        decode: whether `client` and `aclient` answer str; the library must not care.
        server: the real Redis, if it is not the fake. Beside a Cluster it is the other Redis that `db=1` means.
        cluster: the Cluster, if it is one.
    """

    def __init__(
        self,
        kind: str,
        *,
        decode: bool,
        server: servers.RedisServer | None,
        cluster: servers.Cluster | None = None,
    ) -> None:
        self.kind = kind
        self.decode = decode
        self._server = server
        self._cluster = cluster
        self._clients: list[Any] = []
        if server is None:
            self._fake = fakeredis.FakeServer()
            self._fake.dbs[0]  # two threads who come first would make a database each
            return
        with server.operator.pipeline(transaction=False) as trip:
            for command in acl.users(more=acl.HOST):
                trip.execute_command(*command)
            trip.flushall().execute()
        if cluster is not None:
            self.flush()

    def client(self, **kwargs: Any) -> Any:
        """Returns a new client as a host would make it, closed after the test.

        On the real server it is the user that docs/operating.md names.
        """
        kwargs.setdefault("decode_responses", self.decode)
        kwargs.setdefault("protocol", PROTOCOL)
        client: Any
        if self._server is None:
            client = fakeredis.FakeRedis(server=self._fake, **kwargs)
        elif self._cluster and not kwargs.get("db"):
            client = redis.RedisCluster(host=servers.HOST, port=self._cluster.nodes[0].port, **kwargs)
        else:
            client = redis.Redis(host=servers.HOST, port=self._server.port, **(acl.LIBRARY | kwargs))
        self._clients.append(client)
        return client

    def aclient(self, **kwargs: Any) -> Any:
        """Returns a new asyncio client; use it with `async with`."""
        kwargs.setdefault("decode_responses", self.decode)
        kwargs.setdefault("protocol", PROTOCOL)
        if self._server is None:
            return fakeredis.FakeAsyncRedis(server=self._fake, **kwargs)
        if self._cluster and not kwargs.get("db"):
            return redis.asyncio.RedisCluster(host=servers.HOST, port=self._cluster.nodes[0].port, **kwargs)
        return redis.asyncio.Redis(host=servers.HOST, port=self._server.port, **(acl.LIBRARY | kwargs))

    def raw(self, sale: str = "spring", **kwargs: Any) -> redis.Redis:
        """Returns a client with bytes replies that may do anything, to look at the keys of a sale and to set them up.

        In a Cluster it leads to the node that has the sale, as an operator's would.
        """
        if self._cluster is not None and not kwargs.get("db"):
            return self._cluster.node_of(f"{{{sale}}}").client()
        return self.client(decode_responses=False, protocol=2, username=None, password=None, **kwargs)

    def flush(self) -> None:
        """Empties every server."""
        if self._cluster is not None:
            for node in self._cluster.nodes:
                node.client().flushall()
        self.raw(db=1).flushall()

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
    redis_server.operator.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[servers.Cluster]:
    """The Cluster of this run: three primaries, each with a replica."""
    with servers.cluster(replicas=True) as cluster:
        yield cluster


@contextlib.contextmanager
def empty_backend(request: pytest.FixtureRequest, kind: str, *, decode: bool) -> Iterator[Backend]:
    if kind == "redis" and request.config.option.cluster:
        kind = "cluster"
    # asked for only here: a run without a real server still tests the fake
    server = request.getfixturevalue("redis_server") if kind != "fakeredis" else None
    cluster = request.getfixturevalue("redis_cluster") if kind == "cluster" else None
    with contextlib.closing(Backend(kind, decode=decode, server=server, cluster=cluster)) as backend:
        yield backend


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Runs the test on fakeredis and on the real server, with bytes and with str replies."""
    kind, decode = request.param
    with empty_backend(request, kind, decode=decode) as backend:
        yield backend


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


@pytest.fixture(scope="session")
def mysql() -> Iterator[servers.MySQL]:
    """The MariaDB or MySQL of this run."""
    with servers.mysql() as server:
        yield server


@pytest.fixture(scope="session")
def mysql_url(mysql: servers.MySQL) -> Iterator[str]:
    """SQLAlchemy URL of one database for the whole run: name your sale as nobody else does."""
    with mysql.database() as url:
        yield url


@pytest.fixture
def fresh_mysql_url(mysql: servers.MySQL) -> Iterator[str]:
    """SQLAlchemy URL of an empty database for this test."""
    with mysql.database() as url:
        yield url


@pytest.fixture(params=["flashsale", "flashsale.aio"], ids=["sync", "aio"])
async def shop(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> AsyncIterator[Shop]:
    """Makes sales and their parts, of both APIs on every backend."""
    shop = Shop(request.param, backend, tmp_path)
    yield shop
    await shop.close()


@pytest.fixture(params=["flashsale", "flashsale.aio"], ids=["sync", "aio"])
async def real_shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    """Like `shop`, on the real Redis only: for crowds, and for what the fake does not know."""
    with empty_backend(request, "redis", decode=False) as backend:
        shop = Shop(request.param, backend, tmp_path)
        yield shop
        await shop.close()


@pytest.fixture
async def sync_shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    """Like `real_shop`, of the sync API only: for mutants of the scripts, which are the same for both."""
    with empty_backend(request, "redis", decode=False) as backend:
        shop = Shop("flashsale", backend, tmp_path)
        yield shop
        await shop.close()


@pytest.fixture(params=["flashsale", "flashsale.aio"], ids=["sync", "aio"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    """Makes clients of any kind, and sales on them, of both APIs."""
    host = Host(request.param, tmp_path)
    yield host
    await host.close()
