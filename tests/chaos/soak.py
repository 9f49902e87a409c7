"""A shop that runs for a long time while things break: does anything grow that should not, is anything lost?

    python -m tests.chaos.soak --minutes 20

Two web processes (Flask on gunicorn's threads, Starlette on uvicorn), two workers and a syncer serve a steady stream of
buyers. One worker is killed again and again, Redis is killed and restarts from its append-only file, the database is
stopped and started, and a proxy cuts replies. Each second the run measures open files, memory, connections and queue.
At the end `tests.support.consistency` asks buyers, Redis and database separately, and every curve must be flat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import psycopg
import redis

from flashsale import FlashSale, Goods, Keys, Order, OrderState, Outcome
from flashsale.stores import SQLAlchemyStore
from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.chaos_steps import GOODS, HOLD, PER_BUYER, PLANS, SALE, Crew
from tests.support.consistency import Consistency, Purchase, check
from tests.support.growth import Samples, of_process, of_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

ROOT = Path(__file__).parent.parent.parent
ABOUT = (__doc__ or "").split("\n\n")[2].strip()
PAGE, PLOT = ROOT / "docs" / "soak.md", ROOT / "docs" / "plots" / "soak.svg"
LEASE = 2.0  # seconds
DOWN = 2.0  # seconds that Redis or the database is gone
AT_ONCE = 64  # requests under way; more wait, as at any balancer
EVERY = {
    "reply cut": 4.0,
    "worker killed": 30.0,
    "Redis killed": 120.0,
    "database stopped": 180.0,
}  # seconds, on average


@dataclass(frozen=True)
class Options:
    """How long, how many orders a second, and the seed of all that is random."""

    minutes: float = 20.0
    rate: float = 20.0
    seed: int = 1


@dataclass
class Report:
    """What happened, what was measured, and everything that is wrong about it."""

    samples: Samples = field(default_factory=Samples)
    faults: list[tuple[float, str]] = field(default_factory=list)
    retries: int = 0
    bytes_per_order: float = 0.0
    seconds: float = 0.0
    consistency: Consistency = field(default_factory=Consistency)
    wrong: list[str] = field(default_factory=list)

    def figures(self) -> list[tuple[str, object]]:
        consistency, struck = self.consistency, Counter(kind for _, kind in self.faults)
        return [
            ("seconds of load", f"{self.seconds:.0f}"),
            ("orders asked for", consistency.asked),
            ("orders accepted", consistency.acknowledged),
            ("rows in the database", consistency.rows),
            ("lost, doubled", f"{consistency.lost}, {consistency.duplicated}"),
            ("requests repeated", self.retries),
            *((kind, struck[kind]) for kind in EVERY),
            ("Redis memory for each order, bytes", f"{self.bytes_per_order:.0f}"),
        ]


def plan(options: Options) -> tuple[list[Purchase], list[Goods]]:
    """Draws the purchases: phones for everybody, cases for a fifth, so that most of the time these are sold out."""
    chance = random.Random(options.seed)
    purchases = []
    for number in range(round(options.minutes * 60 * options.rate)):
        order = Order(
            f"order-{number}-{chance.getrandbits(64):016x}",
            chance.choice(GOODS),
            f"buyer-{chance.randrange(1 + int(options.minutes * 60 * options.rate / 2))}",
            chance.choice((1, 1, 1, 2)),
        )
        purchases.append(Purchase(order, chance.choices(list(PLANS), list(PLANS.values()))[0]))
    units: Counter[str] = Counter()
    for purchase in purchases:
        units[purchase.order.goods_id] += purchase.order.quantity
    phones = Goods("phone", units["phone"], opens_at=1.0, per_buyer=PER_BUYER)
    return purchases, [phones, Goods("case", units["case"] // 5, opens_at=1.0, hold=HOLD)]


# -- the shop -------------------------------------------------------------------------------------------------------


class Shop:
    """The two web processes, and the buyers' way to them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.ports = {"gunicorn": servers.free_port(), "uvicorn": servers.free_port()}
        listen = (
            f"--no-control-socket --worker-class gthread --threads 8 --bind {servers.HOST}:{self.ports['gunicorn']}"
        )
        starlette = "tests.support.soak_web:starlette_app"
        commands = {
            "gunicorn": f"{listen} tests.support.soak_web:flask_app()",
            "uvicorn": f"--factory --log-level warning --port {self.ports['uvicorn']} {starlette}",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = {name: folder / f"{name}.log" for name in commands}
        for name, options in commands.items():
            with self.logs[name].open("wb") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", name, *options.split()],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | environment,
                    start_new_session=True,
                )

    def urls(self) -> list[str]:
        return [f"http://{servers.HOST}:{port}" for port in self.ports.values()]

    def close(self) -> list[str]:
        """Ends both, and returns what they did wrong."""
        wrong = []
        for name, process in self.processes.items():
            if process.poll() is not None:
                wrong.append(f"{name} ended by itself with {process.returncode}: {self.logs[name].read_text()[-2000:]}")
            process.terminate()
        for name, process in self.processes.items():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                wrong.append(f"{name} did not end")
                for each in (*psutil.Process(process.pid).children(recursive=True), process):
                    each.kill()
            if "Traceback" in (said := self.logs[name].read_text()):
                wrong.append(f"{name} failed: {said[-2000:]}")
        self.processes.clear()
        return wrong


class Soak:
    """One run, in one event loop."""

    def __init__(
        self,
        options: Options,
        purchases: Sequence[Purchase],
        *,
        server: servers.RedisServer,
        proxy: FaultProxy,
        postgres: servers.Postgres,
        crew: Crew,
        shop: Shop,
        database_url: str,
        say: Callable[[str], None],
    ) -> None:
        self.report = Report()
        self._options, self._purchases = options, purchases
        self._server, self._proxy, self._postgres = server, proxy, postgres
        self._crew, self._shop, self._say = crew, shop, say
        self._chance = random.Random(options.seed + 1)
        self._keys = Keys(SALE)
        self._raw = server.client(socket_timeout=2)
        self._database: psycopg.Connection[Any] | None = None
        self._database_url = database_url.replace("+psycopg", "")
        self._stable = {"worker": self._worker(), "syncer": crew.start("syncer", "--interval", "0.5")}
        self._victim = self._worker()
        self._served = 0
        self._served_all = asyncio.Event()
        self._began = time.monotonic()

    def _worker(self) -> subprocess.Popen[bytes]:
        return self._crew.start("worker", "--lease", str(LEASE))

    async def run(self) -> None:
        """Serves, breaks, measures and drains."""
        timeout = httpx.Timeout(30)
        async with httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=2 * AT_ONCE)) as self._http:
            await self._until(self._is_open, "the shop is open")
            self._began = time.monotonic()
            seconds = self._options.minutes * 60
            helpers = [asyncio.create_task(self._measure()), asyncio.create_task(self._break(seconds))]
            try:
                await self._serve_all()
                self.report.seconds = self._now()
                await helpers[1]
            finally:
                self._served_all.set()  # measuring is not cancelled: its thread would go on, and connect again
                helpers[1].cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                if self._database is not None:
                    self._database.close()
            helpers[0].result()
            await self._until(self._is_drained, "the queue is empty")

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _is_open(self) -> bool:
        if not all(self._raw.exists(self._keys.count(goods_id)) for goods_id in GOODS):
            return False
        try:
            return all([(await self._http.get(url)).status_code == 404 for url in self._shop.urls()])
        except httpx.TransportError:
            return False

    # -- buyers -----------------------------------------------------------------------------------------------------

    async def _serve_all(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        due = 0.0
        async with asyncio.TaskGroup() as group:
            for purchase in self._purchases:
                due += self._chance.expovariate(self._options.rate)
                await asyncio.sleep(max(0.0, due - self._now()))
                await room.acquire()
                group.create_task(self._serve(purchase)).add_done_callback(lambda _: room.release())

    async def _serve(self, purchase: Purchase) -> None:
        order = purchase.order
        purchase.asked = True
        content = {"goods_id": order.goods_id, "buyer_id": order.buyer_id, "quantity": order.quantity}
        purchase.outcome = Outcome(await self._answer("buy", order_id=order.order_id, **content))
        self._served += 1
        if purchase.outcome is not Outcome.ACCEPTED or purchase.plan == "keep":
            return
        if purchase.plan in {"pay", "refund"}:
            purchase.told = OrderState(await self._answer("confirm", order_id=order.order_id))
        if purchase.plan != "pay":
            both = [OrderState(await self._answer("cancel", order_id=order.order_id)) for _ in range(2)]
            purchase.told = both[0] if both[0] == both[1] else None

    async def _answer(self, verb: str, **asked: Any) -> str:
        """Asks one process or the other until there is an answer, as a browser's buyer does."""
        while True:
            try:
                reply = await self._http.post(f"{self._chance.choice(self._shop.urls())}/{verb}", json=asked)
            except httpx.TransportError:  # a web server closes an idle connection just when it is used
                reply = None
            if reply is not None and reply.status_code == 200:
                return str(reply.json()["said"])
            if reply is not None and reply.status_code != 503:
                await asyncio.sleep(0.5)  # a web server answers first, then logs
                logs = [log.read_text()[-2000:] for log in self._shop.logs.values()]
                raise AssertionError("\n".join([f"{verb} was answered with {reply.status_code}", *logs]))
            self.report.retries += reply is None or reply.json()["error"] != "NotPersisted"
            await asyncio.sleep(self._chance.uniform(0.1, 0.5))

    # -- faults -----------------------------------------------------------------------------------------------------

    async def _break(self, seconds: float) -> None:
        """Strikes at times drawn in advance, one after the other."""
        strikes = {
            "reply cut": self._cut,
            "worker killed": self._kill_worker,
            "Redis killed": self._kill_redis,
            "database stopped": self._stop_database,
        }
        times = [
            (self._chance.uniform(seconds * 0.1, seconds * 0.9), kind)
            for kind, every in EVERY.items()
            for _ in range(max(1, round(seconds / every)))
        ]
        for at, kind in sorted(times):
            await asyncio.sleep(max(0.0, at - self._now()))
            self.report.faults.append((self._now(), kind))
            await strikes[kind]()

    async def _cut(self) -> None:
        fault = self._chance.choice((self._proxy.cut_reply, self._proxy.half_reply, self._proxy.lose_request))
        fault(b"EVALSHA", times=self._chance.choice((1, 1, 2, 4)))

    async def _kill_worker(self) -> None:
        self._crew.kill(self._victim)
        self._victim = self._worker()

    async def _kill_redis(self) -> None:
        self._server.kill()
        await asyncio.sleep(DOWN)
        await asyncio.to_thread(self._server.start)

    async def _stop_database(self) -> None:
        await asyncio.to_thread(self._postgres.stop)
        await asyncio.sleep(DOWN)
        await asyncio.to_thread(self._postgres.start)

    # -- measuring --------------------------------------------------------------------------------------------------

    async def _measure(self) -> None:
        while not self._served_all.is_set():
            self.report.samples.add(self._now(), await asyncio.to_thread(self._look))
            self._proxy.requests.clear()
            self._say(f"{self._served} of {len(self._purchases)} served, {self.report.retries} repeated")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._served_all.wait(), 1)

    def _look(self) -> dict[tuple[str, str], float | None]:
        found: dict[tuple[str, str], float | None] = {}
        for name, process in (self._shop.processes | self._stable).items():
            found[f"files of {name}", "files"], found[f"memory of {name}", "MiB"] = of_process(process.pid)
        found["Redis connections", "connections"] = found["orders on the way", "orders"] = None
        found["age of the oldest", "s"] = found["database connections", "connections"] = None
        with contextlib.suppress(redis.RedisError):  # it is down
            found["Redis connections", "connections"] = self._raw.info("clients")["connected_clients"]
            found["orders on the way", "orders"], found["age of the oldest", "s"] = of_queue(self._raw, self._keys)
        with contextlib.suppress(psycopg.Error):  # the same
            if self._database is None or self._database.closed:
                self._database = psycopg.connect(self._database_url, autocommit=True)
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            found["database connections", "connections"] = self._database.execute(query).fetchone()[0]
        return found

    async def _is_drained(self) -> bool:
        if self._raw.hlen(self._keys.dead):  # too many workers died of it: an operator looks, and puts it back
            with FlashSale(self._raw, SALE) as sale:
                sale.queue.requeue_dead()
        keys = self._keys
        return not (self._raw.llen(keys.order_list) or self._raw.hlen(keys.claimed) or self._raw.hlen(keys.dead))

    async def _until(self, check: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + 60
        while not await check():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within a minute: {what}")
            await asyncio.sleep(0.1)


# -- one run --------------------------------------------------------------------------------------------------------


def play(options: Options, say: Callable[[str], None] = lambda _: None) -> Report:
    """Plays it all on servers of its own; everything that was started has ended on return."""
    purchases, goods = plan(options)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(servers.temporary_folder())
        postgres = stack.enter_context(servers.postgres())
        database_url = stack.enter_context(postgres.database())
        with SQLAlchemyStore(database_url, SALE) as store:
            store.create_all()
            for entry in goods:
                store.put_goods(entry)
        server = stack.enter_context(servers.redis_server(aof=True, auto_aof_rewrite_percentage=0))
        empty = server.client().info("memory")["used_memory"]
        proxy = stack.enter_context(FaultProxy(server.port))
        environment = {"FLASHSALE_REDIS_URL": proxy.url, "FLASHSALE_DATABASE_URL": database_url}
        crew = Crew(folder, proxy.url, database_url)
        stack.callback(crew.close)
        shop = Shop(folder, environment)
        stack.callback(shop.close)
        soak = Soak(
            options,
            purchases,
            server=server,
            proxy=proxy,
            postgres=postgres,
            crew=crew,
            shop=shop,
            database_url=database_url,
            say=say,
        )
        report = soak.report
        asyncio.run(asyncio.wait_for(soak.run(), options.minutes * 60 + 180))
        report.wrong += shop.close() + crew.close()
        with SQLAlchemyStore(database_url, SALE) as store:
            report.consistency = check(purchases, server.client(), store, SALE)
        report.wrong += report.consistency.wrong
        grown = server.client().info("memory")["used_memory"] - empty
        report.bytes_per_order = grown / max(1, report.consistency.acknowledged)
    return report


def write(options: Options, report: Report) -> None:
    """Writes the page and its picture."""
    PLOT.parent.mkdir(exist_ok=True)
    report.samples.plot(PLOT, report.faults)
    figures = "\n".join(f"| {name} | {value} |" for name, value in report.figures())
    verdict = (
        "Buyers, Redis and database agree, and all curves are flat."
        if not report.wrong
        else "\n".join(f"- WRONG: {line}" for line in report.wrong)
    )
    PAGE.write_text(
        f"""# Soak

<!-- Generated by `make soak`. Do not edit. -->

{ABOUT}

`make soak ARGS="--minutes {options.minutes:g} --rate {options.rate:g} --seed {options.seed}"`,
{time.strftime("%Y-%m-%d")}, Python {sys.version.split()[0]}, {os.cpu_count()} cores.

{verdict}

| what | how many |
|---|---|
{figures}

A curve is flat if the median of its last quarter exceeds that of its second quarter by at most 5 % or a little noise;
the column "may rise by" shows how much. The first quarter does not count, because pools and caches fill. Redis itself
grows with each accepted order, as it must, and is not among the curves. Of the two workers, the one that is never
killed is measured.

{report.samples.table()}

![Open files, memory, connections and the queue over time](plots/soak.svg)
"""
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all agrees and the curves are flat, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=ABOUT)
    request = Options()
    parser.add_argument("--minutes", type=float, default=request.minutes, help=f"of load ({request.minutes:g})")
    parser.add_argument("--rate", type=float, default=request.rate, help=f"orders a second ({request.rate:g})")
    parser.add_argument("--seed", type=int, default=request.seed, help=f"of all that is random ({request.seed})")
    options = Options(**vars(parser.parse_args(argv)))
    if not 0.1 <= options.minutes <= 240 or not 1 <= options.rate <= 200:
        parser.error("0.1 to 240 minutes, 1 to 200 orders a second")
    servers.end_on_signals()
    last = 0.0

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() > last + 10:
            last = time.monotonic()
            print(text, flush=True)

    try:
        report = play(options, say)
    except KeyboardInterrupt:
        return 130
    report.wrong += report.samples.not_flat
    write(options, report)
    print(f"\n{report.samples.table()}\n")
    for name, value in report.figures():
        print(f"{name:<38}{value!s:>12}")
    for line in report.wrong:
        print(f"WRONG: {line}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
