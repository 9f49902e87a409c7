"""A Redis behind TLS: the host's client settings are ours too, and a certificate that does not fit is a typed error.

`Terminator` stands before a plain Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest
import trustme

from flashsale import NotExecuted, OutcomeUnknown
from tests.support.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.hosts import Host
    from tests.support.servers import RedisServer


class Terminator:
    """Speaks TLS on a port of its own and passes what it reads to a Redis; a context manager."""

    def __init__(self, target: int, certificate: trustme.LeafCert) -> None:
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._context)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.1)  # notices who went away in a handshake: else the garbage collector does

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, onward = await asyncio.open_connection(HOST, self._target)
            pipes = [asyncio.create_task(_pass(reader, onward)), asyncio.create_task(_pass(there, writer))]
            try:
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                onward.transport.abort()  # first: the wait may be cancelled
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.gather(*pipes, return_exceptions=True)
        finally:
            writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(redis_server: RedisServer, redis_url: str, authority: trustme.CA) -> Iterator[Terminator]:
    with Terminator(redis_server.port, authority.issue_cert(HOST)) as terminator:
        yield terminator


def trusted(authority: trustme.CA, folder: Path) -> dict[str, Any]:
    """Returns a client's settings that trust this authority."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return {"ssl": True, "ssl_ca_certs": str(path), "ssl_check_hostname": True}


async def refused(host: Host, port: int, **settings: Any) -> None:
    """A purchase ends soon with a typed error, and carries its order id."""
    sale = host.on(host.connect(port, socket_timeout=1, socket_connect_timeout=1, **settings))
    began = time.monotonic()
    with pytest.raises((NotExecuted, OutcomeUnknown)) as failed:
        await sale.buy("phone", "ann", order_id="o-1")
    assert failed.value.order_id == "o-1"
    assert time.monotonic() - began < 10


async def test_a_sale_behind_tls(host: Host, tls: Terminator, authority: trustme.CA, tmp_path: Path) -> None:
    sale = await host.opened(host.connect(tls.port, **trusted(authority, tmp_path)), 2)
    receipts = await asyncio.gather(*(sale.buy("phone", f"b-{number}") for number in range(3)))
    assert sorted(receipt.accepted for receipt in receipts) == [False, True, True]
    big = await sale.queue.push(host.api.Order("big", "phone", "ann", 1, data="x" * 60_000))
    assert big == 3
    assert len(await sale.queue.claim(timeout=0)) == 3


async def test_the_wrong_authority(host: Host, tls: Terminator, tmp_path: Path) -> None:
    await refused(host, tls.port, **trusted(trustme.CA(), tmp_path))


async def test_a_certificate_of_another_name(
    host: Host, redis_server: RedisServer, authority: trustme.CA, tmp_path: Path
) -> None:
    with Terminator(redis_server.port, authority.issue_cert("elsewhere.test")) as other:
        await refused(host, other.port, **trusted(authority, tmp_path))


async def test_tls_to_a_plain_port(
    host: Host, redis_server: RedisServer, authority: trustme.CA, tmp_path: Path
) -> None:
    await refused(host, redis_server.port, **trusted(authority, tmp_path))


async def test_plain_words_to_a_tls_port(host: Host, tls: Terminator) -> None:
    await refused(host, tls.port)


async def test_after_the_link_was_cut_the_sale_goes_on(
    host: Host,
    redis_server: RedisServer,
    authority: trustme.CA,
    tmp_path: Path,
    redis_url: str,
) -> None:
    """The server drops every connection: the next purchase is answered, or asks to be repeated."""
    certificate = authority.issue_cert(HOST)
    with Terminator(redis_server.port, certificate) as tls:
        sale = await host.opened(host.connect(tls.port, socket_timeout=2, **trusted(authority, tmp_path)), 5)
        assert (await sale.buy("phone", "ann")).accepted
        redis_server.client().client_kill_filter(_type="normal", skipme=True)
        for _ in range(5):
            with contextlib.suppress(NotExecuted, OutcomeUnknown):
                assert (await sale.buy("phone", "bob", order_id="o-2")).accepted
                return
        pytest.fail("nobody was answered")
