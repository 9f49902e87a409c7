"""Opens one of the shops on this machine, with a Redis, a worker and a syncer of its own. Ctrl-C closes it.

python -m examples flask
python -m examples fastapi --units 3 --opens-in 30
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from examples.shop import GOODS_ID
from flashsale import Goods
from flashsale.demo.processes import running
from flashsale.demo.servers import redis_for
from flashsale.stores import SQLAlchemyStore

ROOT = Path(__file__).parent.parent
SALE = "launch"
PYTHON = [sys.executable, "-m"]
SERVERS = {
    "flask": [
        "gunicorn",
        "--worker-class=gthread",
        "--workers=2",
        "--threads=32",
        "examples.flask_shop.app:create_app()",
    ],
    "fastapi": ["uvicorn", "--workers=2", "--log-level=warning", "examples.fastapi_shop.app:app"],
}


async def main() -> int:
    options = _options()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashsale-")))
        redis = await stack.enter_async_context(redis_for(options.redis, folder))
        database = f"sqlite:///{folder / 'shop.db'}"
        with SQLAlchemyStore(database, SALE) as store:
            store.create_all()
            opens_at = time.time() + options.opens_in
            store.put_goods(Goods(GOODS_ID, options.units, per_buyer=1, opens_at=opens_at, hold=options.hold))
        environment = {
            "FLASHSALE_REDIS_URL": redis.url,
            "FLASHSALE_DATABASE_URL": database,
            "FLASHSALE_SALE": SALE,
            "SHOP_SECRET": secrets.token_hex(),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        address = ["--bind", f"127.0.0.1:{options.port}"] if options.shop == "flask" else ["--port", str(options.port)]
        commands = {
            "syncer": [*PYTHON, "flashsale", "syncer", "--sale", SALE],
            "worker": [*PYTHON, "flashsale", "worker", "--sale", SALE],
            "shop": [*PYTHON, *SERVERS[options.shop], *address],
        }
        processes = [
            await stack.enter_async_context(running(command, log=folder / f"{name}.log", environment=environment))
            for name, command in commands.items()
        ]
        print(f"http://127.0.0.1:{options.port}/  {options.units} phones, in {options.opens_in:g} s, on {redis.label}")
        print("Ctrl-C closes the shop.", flush=True)
        ends = [asyncio.create_task(process.wait()) for process in processes]
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in (stop, *ends):
            task.cancel()
        if stopped.is_set():
            return 0
        for name in commands:
            with suppress(OSError):
                sys.stderr.write((folder / f"{name}.log").read_text(errors="replace")[-2000:])
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples", description="Opens a small shop with a flash sale.")
    parser.add_argument("shop", choices=SERVERS)
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s)")
    parser.add_argument("--units", type=int, default=10, help="phones for sale (%(default)s)")
    parser.add_argument("--opens-in", type=float, default=15, metavar="S", help="seconds until the sale (%(default)s)")
    parser.add_argument("--hold", type=float, default=60, metavar="S", help="seconds to pay (%(default)s)")
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey; default: one of our own")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
