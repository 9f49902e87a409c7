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
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import redis

from examples.shop import GOODS_ID
from flashsale import FlashSale, FlashSaleError, Goods, InvalidRequest
from flashsale.demo import DemoError
from flashsale.demo.servers import redis_for
from flashsale.stores import SQLAlchemyStore
from flashsale.testing._processes import running
from flashsale.testing._redis_server import Server

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
GUNICORN = ["gunicorn", "--workers=2", "--threads=32", "--graceful-timeout=3", "--bind={host}:{port}"]
UVICORN = ["uvicorn", "--workers=2", "--log-level=warning", "--timeout-graceful-shutdown=3", "--port={port}"]
SYNCER, WORKER = ["flashsale", "syncer", "--sale={sale}"], ["flashsale", "worker", "--sale={sale}"]
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
        server = await stack.enter_async_context(redis_for(options.redis, folder))
        sale = f"launch-{secrets.token_hex(2)}"
        environment = _environment(server.url, folder / "shop.db", sale)
        if options.shop == "django":
            await _run([sys.executable, "-m", "django", "migrate", "--verbosity=0"], environment)
        store = stack.enter_context(SQLAlchemyStore(environment["FLASHSALE_DATABASE_URL"], sale))
        store.create_all()  # where Django has made them, they are there
        if not server.ours:
            stack.callback(_forget, server.url, sale)
        commands = [
            [sys.executable, "-m", *(word.format(host=HOST, port=options.port, sale=sale) for word in command)]
            for command in SHOPS[options.shop]
        ]
        logs = [folder / f"{place}.log" for place in range(len(commands))]
        processes = [
            await stack.enter_async_context(running(command, log=log, environment=environment))
            for command, log in zip(commands, logs, strict=True)
        ]
        ends = [asyncio.create_task(process.wait()) for process in processes]
        stop = asyncio.create_task(stopped.wait())
        tasks = [stop, *ends]
        while not (over := any(task.done() for task in tasks)) and not await _answers(options.port):
            await asyncio.sleep(0.1)
        if not over:
            store.put_goods(_goods(options, now=time.time()))
            _announce(options, server, environment)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for command, end, log in zip(commands, ends, logs, strict=True):
            if end.done():
                said = log.read_text(errors="replace")[-2000:]
                print(f"{' '.join(command[2:])} has ended, with code {end.result()}\n{said}", file=sys.stderr)
        for task in tasks:
            task.cancel()
        for process in processes:  # all at once, rather than one after the other
            with suppress(ProcessLookupError):
                process.terminate()
        return 0 if stopped.is_set() else 1


def _environment(redis_url: str, database: Path, sale: str) -> dict[str, str]:
    return {
        "FLASHSALE_REDIS_URL": redis_url,
        "FLASHSALE_DATABASE_URL": f"sqlite:///{database}",
        "FLASHSALE_SALE": sale,
        "SHOP_DATABASE": str(database),
        "SHOP_SECRET": secrets.token_hex(),
        "DJANGO_SETTINGS_MODULE": "examples.django_shop.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def _goods(options: argparse.Namespace, *, now: float) -> Goods:
    """Returns what a back office writes into the database; `DjangoStore` and `SQLAlchemyStore` share their tables."""
    goods = Goods(GOODS_ID, options.units, per_buyer=1, opens_at=now + options.opens_in, hold=options.hold)
    return goods if options.closes_in is None else replace(goods, closes_at=now + options.closes_in)


def _forget(redis_url: str, sale: str) -> None:
    """Removes the sale from a Redis that is not ours."""
    try:
        with redis.Redis.from_url(redis_url) as client, FlashSale(client, sale) as over:
            over._forget()
    except FlashSaleError as error:
        print(f"the keys of the sale {sale} stay in Redis: {error}", file=sys.stderr)


def _announce(options: argparse.Namespace, server: Server, environment: Mapping[str, str]) -> None:
    print(f"http://{HOST}:{options.port}/  {options.units} units, opens in {options.opens_in:g} s, on {server.label}")
    for name in ("FLASHSALE_SALE", "FLASHSALE_REDIS_URL", "FLASHSALE_DATABASE_URL"):
        if name != "FLASHSALE_REDIS_URL" or server.ours:  # a URL that was given may hold a password
            print(f"{name}={environment[name]}")
    print("Ctrl-C closes the shop.", flush=True)


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
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
    options = parser.parse_args()
    try:
        _goods(options, now=time.time())
    except InvalidRequest as error:
        parser.error(str(error))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, options.port))
        except (OSError, OverflowError) as error:
            parser.error(f"port {options.port}: {error}; choose another with --port")
        options.port = probe.getsockname()[1]  # 0 is any that is free
    return options


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except DemoError as error:
        sys.exit(f"python -m examples: {error}")
