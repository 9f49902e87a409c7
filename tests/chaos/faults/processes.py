"""The processes of the rows: workers and syncers that die, sleep or have a wrong clock at a given place.

python -m tests.chaos.faults.processes <role> <what it is told, as JSON>
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

import flashsale.stores
from flashsale import Receipt
from flashsale._sync.transport.link import Link
from flashsale.lua import SCRIPTS, Script
from tests.support.helpers import settled
from tests.support.hosts import Host

if TYPE_CHECKING:
    from tests.support.helpers import Awaited


NEVER = threading.Event()  # its wait is the one sleep that every libfaketime leaves alone


class Told:
    """What this process was told, and how it tells where it is."""

    def __init__(self, role: str, told: dict[str, Any]) -> None:
        self.role = role
        self.port: int = told["port"]
        self.api: str = told["api"]
        self.folder = Path(told["folder"])
        self.lease: float = told.get("lease", 60.0)
        self.own_clock: bool = told.get("own_clock", False)
        self.inherits: bool = told.get("inherits", False)

    def comes_to(self, place: str) -> None:
        (self.folder / f"{self.role}.{place}").touch()

    def waits_at(self, place: str) -> None:
        """Waits for `go`, with all else in this process current state still."""
        self.comes_to(place)
        while not (self.folder / f"{self.role}.go").exists():
            NEVER.wait(0.005)


def stuck(told: Told, place: str, method: Any) -> Any:
    """Returns the method, in which the process stays until it is killed, once there is something to do."""

    def stay(items: Any) -> Any:
        if items:
            told.comes_to(place)
            NEVER.wait(60)
        return method(items)

    return stay


async def before_commit(host: Host, sale: Awaited, told: Told) -> None:
    """A worker that never gets as far as the commit."""
    sale.real.store.save = stuck(told, "save", sale.real.store.save)
    await host.worker(sale, lease=told.lease).run_once()


async def before_ack(host: Host, sale: Awaited, told: Told) -> None:
    """A worker that commits, and never acknowledges."""
    sale.real.queue._drop = stuck(told, "ack", sale.real.queue._drop)
    await host.worker(sale, lease=told.lease).run_once()


async def zombie(host: Host, sale: Awaited, told: Told) -> dict[str, int]:
    """A worker that sleeps with a claim in hand, and goes on as if no time had passed."""
    claims = await sale.queue.claim(1, lease=told.lease)
    told.waits_at("claim")
    extended = await sale.queue.extend(claims, lease=60)
    let_go = await sale.queue.nack(claims)
    saved = await settled(sale.real.store.save([claim.order for claim in claims]))
    return {"extended": extended, "let_go": let_go, "inserted": len(saved.inserted)}


async def skewed(host: Host, sale: Awaited, told: Told) -> dict[str, Any]:
    """A worker whose clock is wrong."""
    if told.own_clock:
        _lease_by_own_clock()
    early = await sale.buy("case", "ann")
    claims = await sale.queue.claim(1, lease=told.lease)
    told.waits_at("claim")
    saved = await settled(sale.real.store.save([claim.order for claim in claims]))
    await sale.queue.ack(claims)
    return {"clock": time.time(), "early": early.outcome, "inserted": len(saved.inserted)}


def _lease_by_own_clock() -> None:
    """The end of a lease is reckoned here, and not by the server."""
    run = Link.run

    def skewed_run(self: Any, name: str, keys: Any, args: Any = ()) -> Any:
        if name == "claim":
            seconds, microseconds = self.command("TIME")
            server = int(seconds) + int(microseconds) / 1e6
            args = [args[0], f"{time.time() + float(args[1]) - server:.6f}"]
        return run(self, name, keys, args)

    Link.run = skewed_run


async def syncer(host: Host, sale: Awaited, told: Told) -> dict[str, Any]:
    """A syncer that sleeps between reading and writing."""
    inventory = sale.real.inventory
    configure = inventory._configure

    def sleepy(goods: Any) -> Any:
        told.waits_at("configure")
        return configure(goods)

    inventory._configure = sleepy
    report = await host.syncer(sale).run_once()
    return {"leading": report.leading}


async def preloaded(host: Host, sale: Awaited, told: Told) -> list[int]:
    """A server that opens its sale, buys, and then forks three workers, each with threads.

    Returns how many threads of each worker got a wrong answer.
    """
    shop = sale.real
    if told.inherits:
        sys.modules["flashsale._sync.transport.topology"].os = types.SimpleNamespace(getpid=lambda: 0)
    for number in range(12):
        shop.inventory.preload(f"goods-{number}", number)
    shop.buy("phone", "parent", order_id="parent")
    wrong = []
    pipes = []
    at_once = time.monotonic() + 0.3
    with redis.Redis(port=told.port) as client:
        client.client_pause(800)  # milliseconds: all of them have asked before the first is answered
    for worker in range(3):
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                NEVER.wait(at_once - time.monotonic())
                os.write(write, str(_crowd(shop, worker)).encode())
            finally:
                os._exit(0)
        os.close(write)
        pipes.append(read)
    for read in pipes:
        with os.fdopen(read) as pipe:
            wrong.append(int(pipe.read() or 10_000))
        os.wait()
    return wrong


def _crowd(shop: Any, worker: int) -> int:
    """Returns how many of 4 threads with 25 orders each got an answer that is not theirs."""
    wrong: list[str] = []

    def buy(thread: int) -> None:
        total = 4 * worker + thread  # of items that nobody else asks for
        for number in range(25):
            order_id = f"{worker}-{thread}-{number}"
            try:
                answer: Any = shop.buy("phone", "ann", order_id=order_id)
                good = isinstance(answer, Receipt) and answer.accepted and not answer.replayed
                good = good and all(shop.inventory.stock(f"goods-{total}").total == total for _ in range(10))
            except Exception:
                good = False
            if not good:
                wrong.append(order_id)
                return

    threads = [threading.Thread(target=buy, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


ROLES = {role.__name__: role for role in (before_commit, before_ack, zombie, skewed, syncer, preloaded)}


async def main(role: str, words: dict[str, Any]) -> None:
    for name, text in words["scripts"].items():
        SCRIPTS[name] = Script(name, text, hashlib.sha1(text.encode("ascii"), usedforsecurity=False).hexdigest())
    told = Told(role, words)
    if words.get("keyless"):
        from tests.support import broken

        flashsale.stores.SQLAlchemyStore = broken.NoKey
    host = Host(told.api, told.folder)
    store = await host.store_of("spring")
    timeout = {"socket_timeout": 2} if told.inherits else {}
    sale = host.on(host.connect(told.port, **timeout), store=store, cache_for=0)
    print(json.dumps(await ROLES[role](host, sale, told)))
    await host.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
