"""The fence around redis-py: a test for each thing that we lean on, to be run alone against any release of it.

Each fails when a release changes the thing quietly, and says so here rather than as a lost unit somewhere else.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.cluster
import redis.connection
import redis.sentinel
from redis import exceptions

from flashsale._rules import redis_errors, redispy
from flashsale._rules.redispy import COPIED, LEFT, Settings, copied, settings_of_client
from flashsale.errors import CorruptState, NotExecuted, OutcomeUnknown
from tests.support import servers
from tests.support.helpers import until
from tests.support.sources import trees

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FENCE = {"_rules/redispy.py", "aio/transport/_redispy.py", "_sync/transport/_redispy.py"}
KINDS = ("Connection", "SSLConnection", "UnixDomainSocketConnection")


class Api:
    """One of redis-py's two, and our fence around it."""

    def __init__(self, name: str) -> None:
        self.is_async = name == "aio"
        self.fence = importlib.import_module(f"flashsale.{name}.transport._redispy")
        self.redis = self.module("")

    def module(self, name: str) -> Any:
        return importlib.import_module(("redis.asyncio" if self.is_async else "redis") + name)

    async def do(self, answer: Any) -> Any:
        return await answer if inspect.isawaitable(answer) else answer

    async def ask(self, connection: Any, *command: str) -> Any:
        """Sends a command through the fence and reads its reply."""
        await self.do(self.fence.send(connection, b"".join(connection.pack_command(*command))))
        return await self.do(self.fence.receive(connection))

    @contextlib.asynccontextmanager
    async def pool(self, port: int, **arguments: Any) -> AsyncIterator[Any]:
        """A pool of our own, made from the settings of a host's client."""
        client = self.redis.Redis(host=servers.HOST, port=port, **arguments)
        pool = self.fence.new_pool(settings_of_client(client))
        try:
            yield pool
        finally:
            await self.do(pool.disconnect())
            await self.do(client.aclose() if self.is_async else client.close())

    @contextlib.asynccontextmanager
    async def connection(self, port: int, settings: Settings | None = None, **arguments: Any) -> AsyncIterator[Any]:
        """A connection of our own, made from the settings of a host's client."""
        client = self.redis.Redis(host=servers.HOST, port=port, **arguments)
        connection = self.fence.new_connection(settings or settings_of_client(client))
        try:
            await self.do(self.fence.connect(connection, 5.0))
            yield connection
        finally:
            await self.do(self.fence.disconnect(connection))
            await asyncio.sleep(0.01)  # the loop ends the socket
            await self.do(client.aclose() if self.is_async else client.close())


@pytest.fixture(params=["_sync", "aio"])
def api(request: pytest.FixtureRequest) -> Api:
    return Api(request.param)


@pytest.fixture
def server(redis_server: servers.RedisServer, redis_url: str) -> servers.RedisServer:
    """The real Redis of this run, emptied."""
    return redis_server


@contextlib.contextmanager
def answering(*replies: bytes | None) -> Iterator[int]:
    """A port where the first client gets these bytes, one for each thing it sends; None: the connection is closed."""
    listener = socket.create_server((servers.HOST, 0))

    def serve() -> None:
        script = list(replies)
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                while heard := client.recv(65536):
                    if greetings := heard.count(b"SETINFO"):  # redis-py tells its name and version
                        client.sendall(b"+OK\r\n" * greetings)
                        continue
                    reply = script.pop(0) if script else b""
                    if reply is None:
                        return
                    client.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


# -- the fence ------------------------------------------------------------------------------------------------------


def outside() -> dict[str, ast.Module]:
    """Every module of the package that is no part of the fence."""
    return {name: tree for name, tree in trees().items() if name not in FENCE}


def private_attributes(tree: ast.AST) -> dict[str, int]:
    """Private attributes of anything but `self` and `cls`, with a line where each is used."""
    return {
        node.attr: node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    }


def defined(tree: ast.AST) -> set[str]:
    """Names that a module gives to its own attributes, functions and classes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_no_other_module_touches_a_private_attribute_of_redis_py() -> None:
    """One that redis-py's source defines and the package itself does not."""
    sources = Path(redis.__file__).parent.rglob("*.py")
    theirs = set().union(*(defined(ast.parse(path.read_text("utf-8"))) for path in sources))
    trees = outside()
    ours = set().union(*map(defined, trees.values()))
    leaks = [
        f"{name}:{line} {attribute}"
        for name, tree in trees.items()
        for attribute, line in private_attributes(tree).items()
        if attribute in theirs - ours - {"_fields", "_replace"}
    ]
    assert not leaks
    assert {"_reader", "_writer"} <= theirs - ours  # what the fence uses would be found


def test_no_other_module_touches_what_redis_py_does_not_document() -> None:
    undocumented = {
        "address_remap",
        "can_read",
        "check_health",
        "connection_kwargs",
        "connection_pool",
        "discover_master",
        "discover_slaves",
        "get_redis_connection",
        "health_check_interval",
        "is_master",
        "nodes_manager",
        "pack_command",
        "read_response",
        "send_packed_command",
        "sentinel_manager",
        "service_name",
        "startup_nodes",
        "user_on_connect_func",
    }
    used = {
        f"{name}:{node.lineno} {node.attr}"
        for name, tree in outside().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in undocumented
    }
    sentinels_of_a_manager = {each for each in used if each.endswith("connection_pool") and "/clients.py" in each}
    assert used - sentinels_of_a_manager == set()  # clients.py tries the settings of a pool that it has made itself


def test_other_modules_import_documented_names_alone() -> None:
    documented = {
        "redis": {"Redis", "RedisCluster", "RedisError", "ConnectionPool", "exceptions"},
        "redis.asyncio": {"Redis", "RedisCluster", "ConnectionPool"},
        "redis.sentinel": {"Sentinel"},
        "redis.asyncio.sentinel": {"Sentinel"},
        "redis.backoff": {"NoBackoff"},
        "redis.retry": {"Retry"},
    }
    for name, tree in outside().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "redis":
                names = {each.name for each in node.names}
                assert node.module == "redis.exceptions" or names <= documented.get(node.module or "", set()), name
            elif isinstance(node, ast.Import):
                modules = {each.name for each in node.names if each.name.partition(".")[0] == "redis"}
                assert modules <= {"redis", "redis.asyncio"}, name


def test_both_fences_offer_the_same() -> None:
    def offered(module: Any) -> dict[str, list[str]]:
        own = {name: each for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__}
        return {name: list(inspect.signature(own[name]).parameters) for name in own if not name.startswith("_")}

    assert offered(Api("_sync").fence) == offered(Api("aio").fence)


# -- settings -------------------------------------------------------------------------------------------------------


def constructor_arguments(kind: type) -> set[str]:
    found: set[str] = set()
    for each in kind.__mro__:
        if "__init__" in vars(each) and each is not object:
            found |= set(inspect.signature(each.__init__).parameters)  # type: ignore[misc]
    return found - {"self", "args", "kwargs"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_of_redis_py_is_copied_or_left(api: Api, kind: str) -> None:
    """A release with a new one fails here: somebody has to decide."""
    assert constructor_arguments(getattr(api.module(".connection"), kind)) <= COPIED | LEFT
    assert not COPIED & LEFT


def settings_of_hosts(api: Api) -> dict[str, Settings]:
    client, module = api.redis.Redis, api.module(".sentinel")
    manager = module.Sentinel([(servers.HOST, 1)])
    clients = {
        "plain": client(),
        "TLS": client(ssl=True, protocol=3),
        "unix": client(unix_socket_path="/tmp/none"),
        "URL": client.from_url("rediss://ann:pw@h/1?socket_timeout=2"),
    }
    found = {name: settings_of_client(each) for name, each in clients.items()}
    for name, each in {"primary": manager.master_for("shop"), "replica": manager.slave_for("shop")}.items():
        watch = api.fence.watch_of(each)
        found |= {name: watch.settings, f"{name}'s Sentinel": watch.sentinels[0]}
    return found


def test_no_usual_client_loses_a_setting(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    redispy._reported.clear()
    for name, settings in settings_of_hosts(api).items():
        settings.connection_class(**settings.arguments), name
    assert not caplog.records


async def test_settings_reach_the_server(api: Api, server: servers.RedisServer) -> None:
    raw = server.client()
    raw.execute_command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all")
    try:
        async with api.connection(server.port, client_name="shop", db=3, username="ann", password="pw") as connection:
            assert await api.ask(connection, "CLIENT", "ID")
            (seen,) = [each for each in raw.client_list() if each["name"] == "shop"]
            assert (seen["db"], seen["user"]) == ("3", "ann")
    finally:
        raw.execute_command("ACL", "DELUSER", "ann")


async def test_a_unix_socket_is_reached(api: Api, server: servers.RedisServer) -> None:
    client = api.redis.Redis(unix_socket_path=server.socket)
    async with api.connection(server.port, settings_of_client(client)) as connection:
        assert await api.ask(connection, "PING") == b"PONG"
        assert not api.is_async or isinstance(connection._writer, asyncio.StreamWriter)


async def test_the_form_of_replies_is_ours(api: Api, server: servers.RedisServer) -> None:
    server.client().hset("h", "a", "1")
    looks = {"decode_responses": True, "protocol": 3}
    if "legacy_responses" in inspect.signature(api.redis.Redis).parameters:
        looks["legacy_responses"] = False
    async with api.connection(server.port, **looks) as connection:
        assert await api.ask(connection, "HGETALL", "h") == [b"a", b"1"]


@pytest.mark.parametrize("interval", [0, 1000])
async def test_the_health_check_of_the_host(api: Api, server: servers.RedisServer, interval: int) -> None:
    raw = server.client()
    async with api.connection(server.port, health_check_interval=interval) as connection:
        assert api.fence.has_health_checks(connection) == bool(interval)
        before = raw.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        connection.next_health_check = 0  # long ago
        if api.fence.has_health_checks(connection):
            await api.do(api.fence.check_health(connection))
        assert raw.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] - before == bool(interval)


async def test_our_connections_do_not_retry(api: Api) -> None:
    """Whatever the host's client does: the command is sent once, and its loss is told."""
    retry = api.module(".retry").Retry(redis.backoff.NoBackoff(), 5)
    with answering(b"+OK\r\n", None) as port:
        async with api.connection(port, retry=retry, retry_on_error=[redis.ConnectionError]) as connection:
            assert await api.ask(connection, "PING") == b"OK"
            with pytest.raises(redis.ConnectionError):
                await api.ask(connection, "PING")


def test_an_unknown_setting_is_named_once_and_its_value_never(caplog: pytest.LogCaptureFixture) -> None:
    redispy._reported.clear()
    theirs = {"host": "h", "brand_new": "secret", "retry": None}
    for _ in range(2):
        assert copied(theirs, redis.Connection) == {"host": "h"}
    (record,) = caplog.records
    assert "brand_new" in record.getMessage()
    assert "secret" not in caplog.text
    assert copied({"nothing_new": None}, redis.Connection) == {}
    assert len(caplog.records) == 1  # it changes nothing


async def test_a_connection_class_of_the_host_gets_its_own_setting(api: Api, server: servers.RedisServer) -> None:
    class Tenants(api.redis.Connection):  # type: ignore[name-defined,misc]
        def __init__(self, **arguments: Any) -> None:
            self.tenant = arguments.pop("tenant")
            super().__init__(**arguments)

    pool = api.redis.ConnectionPool(connection_class=Tenants, host=servers.HOST, port=server.port, tenant="ann")
    async with api.connection(server.port, redispy.settings_of(pool)) as connection:
        assert connection.tenant == "ann"
        assert await api.ask(connection, "PING") == b"PONG"


def test_what_a_url_says(api: Api) -> None:
    read = api.fence.read_url("rediss://ann:p%40w@h:1/2?socket_timeout=2.5&health_check_interval=3")
    wanted = {"username": "ann", "password": "p@w", "db": 2, "socket_timeout": 2.5, "health_check_interval": 3}
    assert read == wanted | {"ssl": True}
    assert api.fence.read_url("redis://h") == {}


def test_an_option_that_redis_py_does_not_know_is_a_type_error(api: Api) -> None:
    redispy.try_settings(api.redis.ConnectionPool.from_url("redis://h?socket_timeout=1"))
    with pytest.raises(TypeError):
        redispy.try_settings(api.redis.ConnectionPool.from_url("redis://h?socket_timeuot=1"))


# -- a connection ---------------------------------------------------------------------------------------------------


async def test_a_reply_is_read_whole(api: Api, server: servers.RedisServer) -> None:
    server.client().set("big", "x" * 300_000)
    async with api.connection(server.port) as connection:
        assert len(await api.ask(connection, "GET", "big")) == 300_000
        assert await api.ask(connection, "PING") == b"PONG"
        assert not api.fence.is_stale(connection)
        assert not api.is_async or isinstance(connection._writer, asyncio.StreamWriter)  # else the slower way is taken
        assert not api.is_async or isinstance(connection._reader, asyncio.StreamReader)  # else nothing looks stale


async def test_a_closed_connection_is_stale(api: Api, server: servers.RedisServer) -> None:
    async with api.connection(server.port) as connection:
        mine = await api.ask(connection, "CLIENT", "ID")
        assert not api.fence.is_stale(connection)
        server.client().execute_command("CLIENT", "KILL", "ID", mine)
        await until(lambda: _now(api.fence.is_stale(connection)), "the end of the connection")


async def test_a_connection_with_an_unread_reply_is_stale(api: Api, server: servers.RedisServer) -> None:
    async with api.connection(server.port) as connection:
        await api.do(api.fence.send(connection, b"*1\r\n$4\r\nPING\r\n"))
        await until(lambda: _now(api.fence.is_stale(connection)), "the reply")


async def _now(answer: bool) -> bool:
    return answer


def test_an_asyncio_disconnect_need_not_wait() -> None:
    assert list(inspect.signature(redis.asyncio.Connection.disconnect).parameters)[1] == "nowait"


@pytest.mark.parametrize("left", [0.2, 5.0])
async def test_a_reply_is_waited_for_until_its_time_is_over(api: Api, server: servers.RedisServer, left: float) -> None:
    """And the next one as long as ever."""
    raw = server.client()
    async with api.connection(server.port, socket_timeout=10.0) as connection:
        assert await api.ask(connection, "PING") == b"PONG"
        raw.client_pause(1000, all=False)
        await api.do(api.fence.send(connection, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"))
        reply = (
            api.do(api.fence.receive(connection, time.monotonic() + left))
            if api.is_async
            else asyncio.to_thread(api.fence.receive, connection, time.monotonic() + left)
        )
        if left < 1:
            with pytest.raises(exceptions.TimeoutError):
                await reply
            raw.client_unpause()
        else:
            assert await reply == b"OK"
            assert await api.ask(connection, "PING") == b"PONG"


async def test_a_silent_server_is_a_timeout(api: Api) -> None:
    with answering(b"") as port:
        async with api.connection(port, socket_timeout=0.2) as connection:
            with pytest.raises(exceptions.TimeoutError) as silent:
                await api.ask(connection, "PING")
    assert isinstance(redis_errors.sent(silent.value), OutcomeUnknown)


@pytest.mark.parametrize("begun", [b"", b"$9\r\nhal"], ids=["before", "within"])
async def test_a_connection_that_ends_is_a_connection_error(api: Api, begun: bytes) -> None:
    with answering(begun, None) as port:
        async with api.connection(port, socket_timeout=5) as connection:
            for _ in range(2):
                await api.do(api.fence.send(connection, b"PING\r\n"))
                await asyncio.sleep(0.05)  # one reading of the server's for each
            with pytest.raises(exceptions.ConnectionError) as ended:
                await api.do(api.fence.receive(connection))
    assert isinstance(redis_errors.sent(ended.value), OutcomeUnknown)


# -- errors ---------------------------------------------------------------------------------------------------------

REFUSALS = {
    "ASK 7 h:1": "ASK",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "BUSY",
    "CLUSTERDOWN The cluster is down": "CLUSTERDOWN",
    "CROSSSLOT Keys in request don't hash to the same slot": "CROSSSLOT",
    "LOADING Redis is loading the dataset in memory": "LOADING",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "MASTERDOWN",
    "MISCONF Redis is configured to save RDB snapshots": "MISCONF",
    "MOVED 7 h:1": "MOVED",
    "NOAUTH Authentication required.": "NOAUTH",
    "NOPERM this user has no permissions to run the 'evalsha' command": "NOPERM",
    "NOREPLICAS Not enough good replicas to write.": "NOREPLICAS",
    "OOM command not allowed when used memory > 'maxmemory'.": "OOM",
    "READONLY You can't write against a read only replica.": "READONLY",
    "TRYAGAIN Multiple keys request during rehashing of slot": "TRYAGAIN",
    "UNKILLABLE Sorry the script already executed write commands": "UNKILLABLE",
    "ERR unknown command 'EVALSHA', with args beginning with: ": "unknown command",
}


async def raised(api: Api, text: str) -> Exception:
    """Returns what redis-py raises for an error reply."""
    with answering(f"-{text}\r\n+OK\r\n".encode()) as port:
        async with api.connection(port) as connection:
            with pytest.raises(redis.RedisError) as failed:
                await api.ask(connection, "EVALSHA")
            if not isinstance(failed.value, redis.ConnectionError):
                assert await api.do(api.fence.receive(connection)) == b"OK"  # the connection is still good
    return failed.value


@pytest.mark.parametrize("text", REFUSALS)
async def test_a_refusal_is_understood(api: Api, text: str) -> None:
    ours = redis_errors.sent(await raised(api, text))
    assert isinstance(ours, NotExecuted)
    assert ours.reason == REFUSALS[text]


async def test_where_a_cluster_sends_us(api: Api) -> None:
    for text in ("MOVED 7 h:1", "ASK 7 h:1"):
        assert redispy.slot_and_target(str(await raised(api, text)), ("asked", 5)) == (7, ("h", 1))
    assert redispy.slot_and_target(str(await raised(api, "MOVED 7 :1")), ("asked", 5)) == (7, ("asked", 1))
    assert redispy.slot_and_target("what is this", ("asked", 5)) is None


async def test_errors_that_are_no_refusals(api: Api) -> None:
    assert isinstance(await raised(api, "NOSCRIPT No matching script."), exceptions.NoScriptError)
    wrong = await raised(api, "WRONGTYPE Operation against a key holding the wrong kind of value")
    assert isinstance(redis_errors.sent(wrong), CorruptState)
    half = await raised(api, "NOPERM this user has no permissions to run the 'del' command in script")
    assert isinstance(redis_errors.sent(half), OutcomeUnknown)
    assert isinstance(redis_errors.sent(await raised(api, "ERR whatever")), OutcomeUnknown)


# -- Sentinel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched() -> Iterator[Any]:
    """A primary, its replica and Sentinels."""
    with (
        servers.redis_server() as primary,
        servers.redis_server(replica_of=primary) as replica,
        servers.sentinels(primary) as sentinels,
    ):
        yield SimpleNamespace(primary=primary, replica=replica, sentinels=sentinels)


async def test_sentinels_name_the_primary_and_its_replicas(api: Api, watched: Any) -> None:
    sentinels = watched.sentinels
    settings = {"decode_responses": True}
    manager = sentinels.amanager(**settings) if api.is_async else sentinels.manager(**settings)
    order = list(manager.sentinels)
    found = {}
    for choose in (manager.master_for, manager.slave_for):
        client = choose(sentinels.name, protocol=3)
        watch = api.fence.watch_of(client)
        assert watch.settings.connection_class is api.redis.Connection
        pools = sentinel_pools(api, watch)
        await until(lambda: _discovered(api, watch, pools), "the Sentinels to know the replica")  # noqa: B023
        found[watch.is_primary] = list(await api.do(api.fence.discover(watch, pools)))
        for pool in pools:
            await api.do(pool.disconnect())
        await api.do(client.aclose() if api.is_async else client.close())
    assert found == {True: [(servers.HOST, watched.primary.port)], False: [(servers.HOST, watched.replica.port)]}
    assert manager.sentinels == order
    for each in manager.sentinels:
        await api.do(each.aclose() if api.is_async else each.close())


def sentinel_pools(api: Api, watch: Any) -> list[Any]:
    return [api.fence.new_pool(each) for each in watch.sentinels]


async def _discovered(api: Api, watch: Any, pools: Any) -> bool:
    found = await api.do(api.fence.discover(watch, pools))
    return watch.is_primary or found != [(servers.HOST, 0)]


async def test_no_sentinel_answers(api: Api) -> None:
    client = api.module(".sentinel").Sentinel([(servers.HOST, servers.free_port())]).master_for("shop")
    watch = api.fence.watch_of(client)
    pools = sentinel_pools(api, watch)
    with pytest.raises(api.module(".sentinel").MasterNotFoundError) as failed:
        await api.do(api.fence.discover(watch, pools))
    assert isinstance(redis_errors.unsent(failed.value), NotExecuted)


def test_a_plain_client_has_no_sentinels(api: Api) -> None:
    assert api.fence.watch_of(api.redis.Redis()) is None


# -- Cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    """Three primaries."""
    with servers.cluster() as cluster:
        yield cluster


def remap(address: tuple[str, int]) -> tuple[str, int]:
    return address


@pytest.mark.filterwarnings("ignore:Call to '__init__' function with deprecated:DeprecationWarning")  # 7.4 of itself
async def test_the_nodes_that_a_client_knows(api: Api, cluster: servers.Cluster) -> None:
    settings = {"address_remap": remap, "password": None, "client_name": "shop", "socket_timeout": 3, "protocol": 3}
    client = api.redis.RedisCluster(host=servers.HOST, port=cluster.nodes[0].port, **settings)
    before = api.fence.nodes_of(client)
    assert {port for _, port in before.addresses} <= {node.port for node in cluster.nodes}
    assert before.remap is remap
    await api.do(client.ping(target_nodes="random") if not api.is_async else client.initialize())
    known = api.fence.nodes_of(client)
    assert {port for _, port in known.addresses} == {node.port for node in cluster.nodes}
    assert known.settings.arguments["client_name"] == "shop"
    assert known.settings.arguments["socket_timeout"] == 3
    assert known.settings.arguments["redis_connect_func"] is None  # a READONLY of the host's would be one
    known.settings.arguments.update(host=servers.HOST, port=cluster.nodes[1].port)
    async with api.connection(0, known.settings) as connection:
        assert await api.ask(connection, "PING") == b"PONG"
    await api.do(client.aclose() if api.is_async else client.close())


async def test_the_slots_of_a_cluster(api: Api, cluster: servers.Cluster) -> None:
    for looks in ({}, {"protocol": 3, "decode_responses": True}):
        async with api.pool(cluster.nodes[1].port, **looks) as pool:
            ranges = redispy.slot_ranges(await api.do(api.fence.cluster_slots(pool)), (servers.HOST, 1))
        assert sum(high - low + 1 for low, high, _ in ranges) == 16384
        assert {place for *_, place in ranges} == {(servers.HOST, node.port) for node in cluster.nodes}
    assert redispy.slot_ranges([[0, 5, [None, 7, b"id"]], [6, 9, [b"h", 8]]], ("asked", 1)) == [
        (0, 5, ("asked", 7)),
        (6, 9, ("h", 8)),
    ]


def test_the_slot_of_a_key(cluster: servers.Cluster) -> None:
    raw = cluster.nodes[0].client()
    for key in ("flashsale:{spring}:orders", "flashsale:{a}b{c}", "plain", "{}x"):
        assert redispy.slot_of(key) == raw.execute_command("CLUSTER", "KEYSLOT", key)
