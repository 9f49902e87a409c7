"""Tells a supervisor, such as Kubernetes or systemd, whether a process goes on: by a file, or by HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Event, Thread
from typing import Any, Final, NamedTuple

from flashsale._rules.activity import Activity
from flashsale.ops.frame import ATTENTION, Stop

EVERY: Final = 1.0  # seconds between two replacements of the file


class Pulse(NamedTuple):
    """How a process is.

    Args:
        process: its kind and name.
        is_well: it has gone on within `bound`.
        still_for: seconds since it last went on.
        bound: seconds that this may take.
    """

    process: str
    is_well: bool
    still_for: float
    bound: float

    def line(self) -> str:
        """Returns it as one line of JSON."""
        told = {"v": 1, "process": self.process, "ok": self.is_well, "still_for": round(self.still_for, 3)}
        return json.dumps({**told, "bound": self.bound}) + "\n"


def pulse(activity: Activity, bound: float) -> Pulse:
    """Returns how a process is now."""
    still_for = activity.still_for()
    return Pulse(activity.name, still_for <= bound, still_for, bound)


@contextmanager
def telling(where: str | None, activity: Activity, bound: float) -> Iterator[None]:
    """Tells how a process is while the block runs.

    Args:
        where: a file, a port, or HOST:PORT; None: nobody asks.
        activity: of the process.
        bound: seconds that it may stand still.

    Raises:
        Stop: nothing can be written there, or somebody else listens there.
    """
    with ExitStack() as stack:
        if where is not None:
            address = _address(where)
            told = _by_file(Path(where)) if address is None else _by_http(*address)
            try:
                stack.enter_context(told(lambda: pulse(activity, bound)))
            except OSError as error:
                raise Stop(f"--health: {where} cannot be used: {error}", ATTENTION) from error
        yield


def _address(where: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:(?P<host>[^/]+):)?(?P<port>\d{1,5})", where)
    return found and ((found["host"] or "127.0.0.1").strip("[]"), int(found["port"]))


def _by_file(path: Path) -> Callable[[Callable[[], Pulse]], Any]:
    """Replaces the file each second while the process is well, and removes it at the end."""

    @contextmanager
    def told(ask: Callable[[], Pulse]) -> Iterator[None]:
        ended = Event()
        _replace(path, ask())
        thread = Thread(target=_keep, args=(path, ask, ended), name="flashsale-health", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            path.unlink(missing_ok=True)

    return told


def _keep(path: Path, ask: Callable[[], Pulse], ended: Event) -> None:
    while not ended.wait(EVERY):
        found = ask()
        if found.is_well:
            with suppress(OSError):  # a full disk: the file grows old, and the supervisor sees that
                _replace(path, found)


def _replace(path: Path, found: Pulse) -> None:
    written = path.with_name(f"{path.name}.{os.getpid()}")
    written.write_text(found.line(), "utf-8")
    written.replace(path)


def _by_http(host: str, port: int) -> Callable[[Callable[[], Pulse]], Any]:
    """Answers 200 while the process is well, else 503."""

    @contextmanager
    def told(ask: Callable[[], Pulse]) -> Iterator[None]:
        with _server(host, port, ask) as server:
            thread = Thread(target=server.serve_forever, args=(0.1,), name="flashsale-health", daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    return told


def _server(host: str, port: int, ask: Callable[[], Pulse]) -> ThreadingTCPServer:
    from http.server import BaseHTTPRequestHandler  # noqa: PLC0415 - most commands do without

    class Server(ThreadingTCPServer):  # http.server's own asks the DNS for its name
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        allow_reuse_address = daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Logs nothing: who asked has gone."""

    class Answer(BaseHTTPRequestHandler):
        timeout = 5.0  # who asks and says nothing is not waited for

        def do_GET(self) -> None:
            found = ask()
            body = found.line().encode()
            self.send_response(200 if found.is_well else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Logs no request: there is one every few seconds."""

    return Server((host, port), Answer)
