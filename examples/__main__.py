"""Opens one of the shops on this machine, with a Redis, a worker and a syncer of its own. Ctrl-C closes it.

python -m examples flask
python -m examples django --units 3 --opens-in 30
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
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from examples.shop import GOODS_ID
from flashsale import Goods
from flashsale.demo.processes import running
from flashsale.demo.servers import redis_for
from flashsale.stores import SQLAlchemyStore

ROOT = Path(__file__).parent.parent
SALE = "launch"
GUNICORN = ["gunicorn", "--workers=2", "--threads=32", "--bind=127.0.0.1:{port}"]
UVICORN = ["uvicorn", "--workers=2", "--log-level=warning", "--port={port}"]
SYNCER, WORKER = ["flashsale", "syncer", f"--sale={SALE}"], ["flashsale", "worker", f"--sale={SALE}"]
SHOPS = {
    "flask": [SYNCER, WORKER, [*GUNICORN, "examples.flask_shop.app:create_app()"]],
    "fastapi": [SYNCER, WORKER, [*UVICORN, "examples.fastapi_shop.app:app"]],
    "django": [
        ["django", "flashsale_sync"],
        ["django", "flashsale_worker"],
        [*GUNICORN, "examples.django_shop.wsgi:application"],
    ],
}


async def main() -> int:
    options = _options()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashsale-")))
        redis = await stack.enter_async_context(redis_for(options.redis, folder))
        environment = _environment(redis.url, folder / "shop.db")
        if options.shop == "django":
            await _run([sys.executable, "-m", "django", "migrate", "--verbosity=0"], environment)
        with SQLAlchemyStore(environment["FLASHSALE_DATABASE_URL"], SALE) as store:
            store.create_all()  # where Django has made them, they are there
        commands = [
            [sys.executable, "-m", *(word.format(port=options.port) for word in command)]
            for command in SHOPS[options.shop]
        ]
        logs = [folder / f"{place}.log" for place in range(len(commands))]
        processes = [
            await stack.enter_async_context(running(command, log=log, environment=environment))
            for command, log in zip(commands, logs, strict=True)
        ]
        ends = [asyncio.create_task(process.wait()) for process in processes]
        while not await _answers(options.port) and not any(end.done() for end in ends):
            await asyncio.sleep(0.1)
        _put_goods(environment["FLASHSALE_DATABASE_URL"], options)
        print(f"http://127.0.0.1:{options.port}/  {options.units} phones, in {options.opens_in:g} s, on {redis.label}")
        print("Ctrl-C closes the shop.", flush=True)
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in (stop, *ends):
            task.cancel()
        if not stopped.is_set():  # one of the three has ended by itself: its log says why
            sys.stderr.write("".join(log.read_text(errors="replace")[-2000:] for log in logs))
        return 0 if stopped.is_set() else 1


def _environment(redis_url: str, database: Path) -> dict[str, str]:
    return {
        "FLASHSALE_REDIS_URL": redis_url,
        "FLASHSALE_DATABASE_URL": f"sqlite:///{database}",
        "FLASHSALE_SALE": SALE,
        "SHOP_DATABASE": str(database),
        "SHOP_SECRET": secrets.token_hex(),
        "DJANGO_SETTINGS_MODULE": "examples.django_shop.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def _put_goods(database_url: str, options: argparse.Namespace) -> None:
    """Writes the goods as a back office does; `DjangoStore` and `SQLAlchemyStore` share their tables."""
    with SQLAlchemyStore(database_url, SALE) as store:
        opens_at = time.time() + options.opens_in
        closes_at = None if options.closes_in is None else time.time() + options.closes_in
        goods = Goods(GOODS_ID, options.units, per_buyer=1, opens_at=opens_at, closes_at=closes_at, hold=options.hold)
        store.put_goods(goods)


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment})
    if await process.wait():
        raise SystemExit(f"{command} failed")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples", description="Opens a small shop with a flash sale.")
    parser.add_argument("shop", choices=SHOPS)
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s)")
    parser.add_argument("--units", type=int, default=10, help="phones for sale (%(default)s)")
    parser.add_argument("--opens-in", type=float, default=15, metavar="S", help="seconds until the sale (%(default)s)")
    parser.add_argument("--closes-in", type=float, metavar="S", help="seconds until it ends (never)")
    parser.add_argument("--hold", type=float, default=60, metavar="S", help="seconds to pay (%(default)s)")
    parser.add_argument("--redis", metavar="URL", help="a Redis or Valkey; default: one of our own")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
