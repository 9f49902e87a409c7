"""A worker or syncer whose Redis a Sentinel names: the command `flashsale`, with another client.

python -m tests.hands flashsale 26379 26380 26381 -- worker --sale chaos
python -m tests.hands redis://localhost:6379/0 -- worker --sale chaos
"""

from __future__ import annotations

import sys

import redis.sentinel

from flashsale import cli
from tests.servers import HOST

if __name__ == "__main__":
    split = sys.argv.index("--")
    (first, *ports), (command, *options) = sys.argv[1:split], sys.argv[split + 1 :]
    if ports:
        sentinel = redis.sentinel.Sentinel([(HOST, int(port)) for port in ports], socket_timeout=1)
        cli._client = lambda _: sentinel.master_for(first)
    sys.exit(cli.main([command, "--redis", first, *options]))
