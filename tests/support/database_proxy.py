"""Databases that say nothing: a proxy keeps what the server says, to a COMMIT or altogether; or it is frozen."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import sqlalchemy
from sqlalchemy import URL, make_url

from flashsale._sql import engines
from tests.support.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_COMMIT = re.compile(b"(?<!AUTO)COMMIT(?!TED)")  # of AUTOCOMMIT, of READ COMMITTED


class DatabaseProxy:
    """Forwards bytes to the database of a URL; a context manager.

    Args:
        url: of the database, at a TCP port or a unix socket.

    Attributes:
        url: the same through the proxy.
        lost: how many answers to COMMIT were kept.
    """

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._listener = socket.create_server((HOST, 0))
        self._sockets: list[socket.socket] = []
        self._commits = 0
        self._silent = threading.Event()
        self._silent_at_commit = False
        self.lost = 0

    @property
    def url(self) -> URL:
        """Of a client that goes through it."""
        plain = self._target.difference_update_query(["host", "unix_socket"])
        return plain.set(host=HOST, port=self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.append(self._listener)
        self.end_all()

    def end_all(self) -> None:
        """Ends every connection."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def lose_commits(self, times: int = 1) -> None:
        """The next COMMITs reach the server; it answers, and instead of the answer the connection ends."""
        self._commits = times

    def fall_silent(self) -> None:
        """Nothing that the server says arrives any more, and no connection ends."""
        self._silent.set()

    def fall_silent_at_commit(self) -> None:
        """The next COMMIT reaches the server, and from then on nothing that it says arrives."""
        self._silent_at_commit = True

    def speak(self) -> None:
        """Lets new connections work again."""
        self._silent.clear()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = self._connect()
                except (OSError, StopIteration):  # it is down
                    client.close()
                    continue
                self._sockets += [client, server]
                losing = threading.Event()
                self._pump(client, server, lambda data, losing=losing: self._asked(data, losing))
                self._pump(server, client, lambda data, losing=losing: self._answered(data, losing))

    def _connect(self) -> socket.socket:
        query = self._target.query
        if path := query.get("unix_socket"):
            return self._unix(str(path))
        if str(query.get("host", "")).startswith("/"):
            return self._unix(str(next(Path(str(query["host"])).glob(".s.PGSQL.*[0-9]"))))
        return socket.create_connection((self._target.host or HOST, self._target.port or 5432))

    def _unix(self, path: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(path)
        except OSError:
            made.close()
            raise
        return made

    def _asked(self, data: bytes, losing: threading.Event) -> bool:
        if self._commits and _COMMIT.search(data):
            self._commits -= 1
            losing.set()
        if self._silent_at_commit and _COMMIT.search(data):
            self._silent_at_commit = False
            self._silent.set()
        return True

    def _answered(self, _: bytes, losing: threading.Event) -> bool:
        if losing.is_set():
            self.lost += 1
            return False
        return not self._silent.is_set()

    def _pump(self, source: socket.socket, target: socket.socket, passes: Callable[[bytes], bool]) -> None:
        def pump() -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if passes(data):
                        target.sendall(data)
                    elif not self._silent.is_set():
                        break
            if not self._silent.is_set():
                for each in (source, target):
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=pump, daemon=True).start()


def pids_of(url: str) -> list[int]:
    """Returns the processes of a server: of PostgreSQL one for each connection, too."""
    engine = sqlalchemy.create_engine(engines.database_url(url, engines.DRIVERS))
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            folder = connection.exec_driver_sql("SHOW data_directory").scalar_one()
            first = int(Path(folder, "postmaster.pid").read_text().split()[0])
        else:
            first = int(Path(connection.exec_driver_sql("SELECT @@pid_file").scalar_one()).read_text())
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    engine.dispose()
    return [first, *map(int, children)]


@contextlib.contextmanager
def frozen(url: str) -> Iterator[None]:
    """Stops a server, as a host that hangs: its kernel still acknowledges packets."""
    pids = pids_of(url)
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # of the connection by which we looked
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
