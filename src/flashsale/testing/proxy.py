"""A TCP proxy in front of a Redis that loses, halves, holds or delays the requests and replies it is told to.

It runs in a thread with an event loop of its own, so that sync and async tests use it alike:

    with FaultProxy(6379) as proxy:
        client = redis.Redis(port=proxy.port)
        proxy.cut_reply(b"EVALSHA")        # the next script runs, and nobody hears of it
        ...
        assert proxy.tripped == 1

Faults watch whole requests, as Redis would parse them, however they were cut into packets. They fire once Redis has
answered, so that the command surely ran, unless the request itself is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine

HOST = "127.0.0.1"


@dataclass
class _Fault:
    """What to do with the requests that contain `needle`, from the nth one on, so many times (None: for ever)."""

    action: str
    needle: bytes
    nth: int
    times: int | None
    seconds: float = 0.0

    def fires(self, request: bytes) -> bool:
        if self.times == 0 or self.needle not in request:
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    fault: _Fault | None = None  # waits for the next reply


class FaultProxy:
    """Forwards to a Redis on a loopback port; a context manager.

    Args:
        target: port of the Redis.
        host: its address.

    Attributes:
        port: where it listens, on 127.0.0.1.
        url: the same as a Redis URL.
        connections: how many were accepted so far.
        tripped: how many faults have fired.
        requests: every request seen, as sent.
    """

    def __init__(self, target: int, *, host: str = HOST) -> None:
        self.port = 0
        self.connections = 0
        self.tripped = 0
        self.requests: list[bytes] = []
        self._target = (host, target)
        self._faults: list[_Fault] = []
        self._seen = threading.Condition()
        self._tasks: set[asyncio.Task[None]] = set()  # one a connection
        self._running: set[asyncio.Task[None]] = set()  # those of them that may be cancelled
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._flowing: asyncio.Event

    @property
    def url(self) -> str:
        """Of a client that goes through it."""
        return f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- faults -------------------------------------------------------------------------------------------------

    def cut_reply(self, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis runs the request; the connection ends before a byte of the reply.

        Args:
            needle: bytes that the request contains; empty matches every request, a new connection's HELLO included.
            nth: which of the matching requests from now on, 1 is the next.
            times: how many in a row from there; None for all.
        """
        self._add("cut", needle, nth, times)

    def half_reply(self, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis runs the request; the first half of the reply arrives, then the connection ends."""
        self._add("half", needle, nth, times)

    def swallow_reply(self, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis runs the request; no reply ever arrives on this connection, which stays open."""
        self._add("swallow", needle, nth, times)

    def delay_reply(self, seconds: float, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis runs the request; the reply arrives `seconds` later."""
        self._add("delay", needle, nth, times, seconds)

    def lose_request(self, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis never sees the request; the connection ends."""
        self._add("lose", needle, nth, times)

    def swallow_request(self, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis never sees the request, nor anything after it on this connection, which stays open."""
        self._add("hole", needle, nth, times)

    def half_request(self, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis reads the first half of the request, and runs nothing; then the connection ends."""
        self._add("half request", needle, nth, times)

    def delay_request(self, seconds: float, needle: bytes = b"", *, nth: int = 1, times: int | None = 1) -> None:
        """Redis runs the request `seconds` later, even if its caller has gone away by then."""
        self._add("late", needle, nth, times, seconds)

    def clear(self) -> None:
        """Forgets every fault that has not fired, and lets held bytes flow."""
        self._faults.clear()
        self.release()

    def _add(self, action: str, needle: bytes, nth: int, times: int | None, seconds: float = 0.0) -> None:
        self._faults.append(_Fault(action, needle, nth, times, seconds))

    def hold(self) -> None:
        """Keeps back every byte, in both directions, until `release`."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def release(self) -> None:
        """Lets the bytes that were held flow on."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def disconnect(self) -> None:
        """Ends every connection now; new ones are welcome."""
        self._run(self._disconnect())

    def refuse(self) -> None:
        """Stops listening and ends every connection: connecting is refused until `accept`."""
        self._run(self._close_server())
        self._run(self._disconnect())

    def accept(self) -> None:
        """Listens again, on the same port."""
        self._run(self._listen())

    # -- what happened ------------------------------------------------------------------------------------------

    def count(self, needle: bytes = b"") -> int:
        """Returns how many requests with these bytes were seen."""
        return sum(needle in request for request in list(self.requests))

    def wait_for(self, needle: bytes = b"", *, count: int = 1, within: float = 20.0) -> None:
        """Returns when so many requests with these bytes were seen; TimeoutError after `within` seconds."""
        with self._seen:
            if not self._seen.wait_for(lambda: self.count(needle) >= count, within):
                raise TimeoutError(f"{count} requests with {needle!r} were not seen within {within:g} s")

    # -- inside the loop ----------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(20)

    async def _listen(self) -> None:
        if self.port == 0:
            self._flowing = asyncio.Event()
            self._flowing.set()
        if self._listener is None:
            self._listener = socket.create_server((HOST, self.port))
            self._listener.settimeout(0)
            self.port = self._listener.getsockname()[1]
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        # by hand: asyncio's own server forgets a connection that it accepts while it is being closed
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = self._listener.accept()
            client.settimeout(0)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so for its own alone
            self.connections += 1
            task = self._loop.create_task(self._handle(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _close_server(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _disconnect(self) -> None:
        while self._tasks:  # one that is still connecting will be running in a moment
            while self._running:
                self._running.pop().cancel()  # once: a second time would interrupt its cleaning up
            await asyncio.sleep(0)

    async def _stop(self) -> None:
        await self._close_server()
        await self._disconnect()

    async def _handle(self, client: socket.socket) -> None:
        writers: list[asyncio.StreamWriter] = []
        pipes: list[asyncio.Task[None]] = []
        task = asyncio.current_task()
        assert task is not None
        try:
            reader, writer = await asyncio.open_connection(sock=client)
            writers.append(writer)
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            writers.append(server_writer)
            connection = _Connection(writer, server_writer)
            pipes.append(asyncio.create_task(self._requests(reader, connection)))
            pipes.append(asyncio.create_task(self._replies(server_reader, connection)))
            self._running.add(task)
            # whichever side ends first ends both, as a broken network would
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._running.discard(task)
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            for each in writers:
                each.transport.abort()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while True:
            request = await _read_request(reader)
            with self._seen:
                self.requests.append(request)
                self._seen.notify_all()
            fault = next((fault for fault in self._faults if fault.fires(request)), None)
            self.tripped += fault is not None
            await self._flowing.wait()
            if fault and fault.action == "lose":
                return
            if fault and fault.action == "hole":
                while await reader.read(65536):
                    pass
                return
            if fault and fault.action == "half request":
                connection.server.write(request[: len(request) // 2])
                await connection.server.drain()
                return
            if fault and fault.action == "late":
                await asyncio.sleep(fault.seconds)
                fault = None
            connection.fault = fault or connection.fault
            connection.server.write(request)
            await connection.server.drain()

    async def _replies(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while reply := await reader.read(65536):
            await self._flowing.wait()
            fault, connection.fault = connection.fault, None
            if fault and fault.action == "cut":
                return
            if fault and fault.action == "half":
                connection.client.write(reply[: max(1, len(reply) // 2)])
                await connection.client.drain()
                return
            if fault and fault.action == "swallow":
                while await reader.read(65536):
                    pass
                return
            if fault and fault.action == "delay":
                await asyncio.sleep(fault.seconds)
            connection.client.write(reply)
            await connection.client.drain()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Returns one whole request: an array of bulk strings, or an inline line."""
    try:
        parts = [await reader.readuntil(b"\r\n")]
        if parts[0].startswith(b"*"):
            for _ in range(int(parts[0][1:])):
                length = await reader.readuntil(b"\r\n")
                parts += [length, await reader.readexactly(int(length[1:]) + 2)]
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError from error
    return b"".join(parts)
