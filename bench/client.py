"""A load generator for machines without wrk: keeps connections busy with requests, and prints wrk.lua's figures.

python -m bench.client PORT CONNECTIONS SECONDS PREFIX
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from bench.harness import summary
from bench.servers import HOST


class _Connection(asyncio.Protocol):
    def __init__(self, name, end, latencies):
        self._name, self._end, self._latencies = name, end, latencies
        self._count, self._buffer, self._began = 0, b"", 0.0
        self.failed = 0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self._transport = transport
        self._ask()

    def _ask(self):
        self._count += 1
        name = f"{self._name}-{self._count}"
        self._began = time.perf_counter()
        self._transport.write(
            f"POST /buy/phone HTTP/1.1\r\nHost: shop\r\nX-Buyer: {name}\r\nIdempotency-Key: {name}\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )

    def data_received(self, data):
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not found or len(body) < length:
            return
        self._buffer, now = b"", time.perf_counter()
        self.failed += not head.startswith(b"HTTP/1.1 2")
        if now >= self._end:
            self._transport.close()
            return
        self._latencies.append(now - self._began)
        self._ask()

    def connection_lost(self, error):
        self.failed += time.perf_counter() < self._end
        self.closed.set_result(None)


async def main(port, connections, seconds, prefix):
    loop, latencies = asyncio.get_running_loop(), []
    end = time.perf_counter() + seconds
    protocols = []
    for number in range(connections):
        made = await loop.create_connection(lambda n=number: _Connection(f"{prefix}-{n}", end, latencies), HOST, port)
        protocols.append(made[1])
    async with asyncio.timeout(seconds + 30):
        for protocol in protocols:
            await protocol.closed
    figures = summary(latencies, len(latencies) / seconds, 0)
    del figures["cpu"]
    print(json.dumps(figures | {"failed": sum(protocol.failed for protocol in protocols)}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
