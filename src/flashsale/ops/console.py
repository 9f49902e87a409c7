"""Serves the console, a small page that shows a sale and changes nothing. Needs the extra `console`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from flashsale._sync.transport.runtime import StopEvent, stop_on_signals
from flashsale.ops.pages import PAGES, Console

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PORT: Final = 9643
USER: Final = "operator"
PASSWORD: Final = "FLASHSALE_CONSOLE_PASSWORD"  # noqa: S105 - its name in the environment
GUESSES: Final = 10  # wrong passwords of one address
WITHIN: Final = 60.0  # seconds
ADDRESSES: Final = 1000  # whose wrong passwords are remembered
POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"x-robots-tag", b"noindex"),
)
"""Of each answer: nobody keeps it, frames it, or runs a script in it."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a host of this name.

    >>> is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guesses:
    """Counts wrong passwords by address: after `GUESSES` of them within `WITHIN` seconds it must wait."""

    def __init__(self) -> None:
        self._failed: dict[str, deque[float]] = {}

    def wait(self, address: str) -> float:
        """Returns the seconds until an address may try again; 0: now."""
        times = self._failed.get(address)
        return max(0.0, times[0] + WITHIN - monotonic()) if times and len(times) == GUESSES else 0.0

    def failed(self, address: str) -> None:
        """Counts a wrong password."""
        if len(self._failed) >= ADDRESSES and address not in self._failed:
            del self._failed[min(self._failed, key=self._last)]
        self._failed.setdefault(address, deque(maxlen=GUESSES)).append(monotonic())

    def _last(self, address: str) -> float:
        return self._failed[address][-1]


class Guard:
    """Lets in who may see the console, and puts `HEADERS` on each answer.

    With a password, whoever knows it. Without one, whoever is on this machine and asks for it by a name of this
    machine: a page of somebody else's, whose name leads here, is refused.

    Args:
        app: behind it.
        password: of `USER`; empty: none.
    """

    def __init__(self, app: App, password: str = "") -> None:
        self._app, self._password = app, password
        self._guesses = Guesses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        from starlette.responses import PlainTextResponse  # noqa: PLC0415 - needs the extra

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        refusal = self._refusal(dict(scope.get("headers", ())), (scope.get("client") or ("",))[0])
        app: App = self._app if refusal is None else PlainTextResponse(*refusal)
        await app(scope, receive, guarded)

    def _refusal(self, headers: Mapping[bytes, bytes], address: str) -> tuple[str, int, Mapping[str, str]] | None:
        """Returns text, status and headers of a refusal; None: the request is let in."""
        if not self._password:
            known = is_loopback(_name(headers.get(b"host", b"")))
            return None if known else ("This is not a name of this machine.\n", 421, {})
        if wait := self._guesses.wait(address):
            return "Too many wrong passwords.\n", 429, {"Retry-After": str(ceil(wait))}
        given = headers.get(b"authorization", b"")
        if knows(given, self._password):
            return None
        if given:
            self._guesses.failed(address)
        return "Who are you?\n", 401, {"WWW-Authenticate": f'Basic realm="{USER}", charset="UTF-8"'}


def knows(header: bytes, password: str) -> bool:
    """Returns whether a header `Authorization` has the password; it takes as long for any that is as long."""
    kind, _, given = header.partition(b" ")
    try:
        found = base64.b64decode(given.strip(), validate=True)
    except binascii.Error:
        return False
    return kind.lower() == b"basic" and hmac.compare_digest(found, f"{USER}:{password}".encode())


def _name(host: bytes) -> str:
    """Returns the name in a header `Host`, without its port."""
    text = host.decode("latin-1")
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]


def app(console: Console, threads: ThreadPoolExecutor) -> Starlette:
    """Returns the application; `threads`, of which there is one, read the sale."""
    from starlette.applications import Starlette  # noqa: PLC0415 - needs the extra
    from starlette.responses import HTMLResponse, RedirectResponse  # noqa: PLC0415 - likewise
    from starlette.responses import Response as Plain  # noqa: PLC0415 - likewise
    from starlette.routing import Route  # noqa: PLC0415 - likewise

    async def show(request: Request) -> Response:
        name, query = request.path_params["name"], dict(request.query_params)
        if name not in PAGES:
            return Plain("There is no such page.\n", 404, media_type="text/plain")
        code, html = await asyncio.get_running_loop().run_in_executor(threads, console.render, name, query)
        return HTMLResponse(html, code)

    async def style(_: Request) -> Response:
        return Plain(console.style, media_type="text/css")

    async def first(_: Request) -> Response:
        return RedirectResponse("status")

    return Starlette(routes=[Route("/", first), Route("/style.css", style), Route("/{name}", show)])


def serve(
    console: Console,
    port: int = PORT,
    address: str = "127.0.0.1",
    password: str = "",
    *,
    stop: StopEvent | None = None,
) -> None:
    """Answers until `stop` is set; without one, until SIGTERM or SIGINT.

    Args:
        console: renders the pages.
        port: to listen on.
        address: likewise.
        password: see `Guard`.
        stop: ends it.

    Raises:
        ImportError: the extra `console` is not installed.
        OSError: somebody else listens there.
    """
    import jinja2  # noqa: F401, PLC0415 - needs the extra, and says so before the first page
    import uvicorn  # noqa: PLC0415 - needs the extra

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, port), family=family) as listener,
        ThreadPoolExecutor(1, thread_name_prefix="flashsale-console") as threads,
        stop_on_signals(stop) as event,
    ):
        server = uvicorn.Server(
            uvicorn.Config(
                Guard(app(console, threads), password),
                access_log=False,  # addresses have ids of buyers
                limit_concurrency=64,
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=5,
                ws="none",
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        event.wait()
        server.should_exit = True
        thread.join()
