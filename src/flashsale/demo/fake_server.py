"""A process that serves fakeredis over TCP. Prints its port; ends when its standard input does, or on SIGTERM."""

from __future__ import annotations

import os
import sys
import threading

from fakeredis import FakeRedis, TcpFakeServer


def main() -> None:
    """Serves until whoever started us is gone."""
    server = TcpFakeServer(("127.0.0.1", 0))
    FakeRedis(server=server.fake_server).ping()  # makes the database: connections that come at once would make one each
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # its threads wait for their clients


if __name__ == "__main__":
    main()
