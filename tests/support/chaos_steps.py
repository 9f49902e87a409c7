"""What happens in `tests.chaos`: hosts that buy, pay and cancel, and everything around them that is killed or cut."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

from flashsale import (
    Durability,
    Keys,
    NotExecuted,
    NotPersisted,
    Outcome,
    OutcomeUnknown,
    Receipt,
    StoreError,
    UnknownGoods,
    aio,
)
from flashsale.aio.stores import SQLAlchemyStore as AsyncStore
from tests.support.claims import by_element
from tests.support.consistency import Consistency, Purchase
from tests.support.deployments import Alone, Clustered, Watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.support.database_faults import DatabaseFaults
    from tests.support.interrupted_host import InterruptedHost

SALE = "chaos"
GOODS = ("phone", "case")
PER_BUYER = 4  # phones
HOLD = 3600.0  # seconds to pay for a case
HOSTS = 8  # processes of a shop, as far as connections and batches go
BUYERS = 4  # that each host serves at once
WORKERS = 4
BATCH = 10  # orders of one transaction: small, so that a worker is seldom between two
LEASE = 1.0  # seconds
DOWN_AFTER = 1.0  # seconds of silence until the Sentinels elect another primary
DELAY = 0.05  # seconds after its order, at most, that Redis is killed
IN_HAND = 0.02  # seconds between two looks for a worker with orders in hand, at most

ASK_AGAIN = {Outcome.UNCERTAIN, Outcome.PAUSED}  # a sale is closed while a lost key is brought back
KEYS = (
    "orders",
    "meta",
    "stock",
    "buyers",
    "goods",
    "count",
    "access",
    "window",
    "order_list",
    "claimed",
    "holds",
    "leases",
)

PLANS = {  # what a buyer does with an order, and how many in a hundred do so
    "keep": 57,
    "pay": 26,
    "cancel at once": 6,
    "cancel": 6,
    "refund": 5,
}


@dataclass(frozen=True)
class Options:
    """How much is to happen. About as many orders are accepted; a tenth more are asked for."""

    orders: int = 20_000
    worker_kills: int = 200
    redis_kills: int = 50
    elections: int = 0  # with any, Redis is three servers behind Sentinels, and orders are `replicated`
    slot_moves: int = 0  # with any, Redis is a Cluster; the source dies half way
    cut_replies: int = 500
    database_faults: int = 0  # with any, everybody reaches the database through a proxy
    database_fault_seconds: float = 8.0  # at most
    lost_keys: int = 0
    strikes: int = 0  # calls struck by an exception of a signal's handler, in a host of its own
    moods: int = 0  # exceptions of the workers' own store
    seed: int = 1
    seconds: float = 480.0  # of selling; what is still due then does not happen, and the report says so
    appendfsync: str = "always"
    first_layout: bool = False  # as releases before began a sale: each element of the queue has a lease of its own


@dataclass
class Report:
    """What happened, and everything that is wrong about it."""

    worker_kills: int = 0
    redis_kills: int = 0
    elections: int = 0
    slot_moves: int = 0
    replies_cut: int = 0
    database_faults: Counter[str] = field(default_factory=Counter)
    lost_keys: Counter[str] = field(default_factory=Counter)
    rebuilds: int = 0
    strikes: int = 0
    moods: int = 0
    retries: int = 0  # by the callers; the library makes one of its own before
    orphaning: int = 0  # worker kills that left claimed orders behind
    orphans: int = 0
    dead: int = 0  # orders of which so many workers died that an operator had to requeue them
    restored: int = 0  # orders refused by a Redis that had lost them, and found again
    looks: int = 0  # at the stock, while the sale ran
    seconds: float = 0.0
    worker_recoveries: list[float] = field(default_factory=list)
    disturbed_recoveries: list[float] = field(default_factory=list)  # of workers, while Redis was away as well
    redis_recoveries: list[float] = field(default_factory=list)
    election_recoveries: list[float] = field(default_factory=list)
    named: list[float] = field(default_factory=list)  # seconds from such a kill until a Sentinel named another primary
    consistency: Consistency | None = None
    wrong: list[str] = field(default_factory=list)

    def table(self) -> str:
        consistency = self.consistency or Consistency()
        rows: list[tuple[str, object]] = [
            ("orders asked for", consistency.asked),
            ("orders acknowledged", consistency.acknowledged),
            ("refused (sold out, buyer's limit)", consistency.asked - consistency.acknowledged),
            ("kill -9 of workers", self.worker_kills),
            ("  that left claims behind", f"{self.orphaning} ({self.orphans} orders)"),
            ("  until those were in the database", _spread(self.worker_recoveries)),
            ("  the same, Redis away meanwhile", _spread(self.disturbed_recoveries)),
            ("kill -9 of Redis, which comes back", self.redis_kills),
            ("  until an order was answered", _spread(self.redis_recoveries)),
            ("elections", self.elections),
            ("slot moves whose source died", self.slot_moves),
            ("  until a Sentinel named another", _spread(self.named)),
            ("  until an order was answered", _spread(self.election_recoveries)),
            ("replies cut", self.replies_cut),
            ("faults of the database", self.database_faults.total()),
            *((f"  {kind}", count) for kind, count in sorted(self.database_faults.items())),
            ("keys lost", self.lost_keys.total()),
            *((f"  {name}", count) for name, count in sorted(self.lost_keys.items())),
            ("rebuilds", self.rebuilds),
            ("exceptions of a signal's handler in buy", self.strikes),
            ("exceptions of the workers' store", self.moods),
            ("calls repeated by callers", self.retries),
            ("dead letters requeued", self.dead),
            ("rows in the database", consistency.rows),
            *((f"  {state}", count) for state, count in sorted(consistency.states.items())),
            ("lost", consistency.lost),
            ("duplicated", consistency.duplicated),
            ("never acknowledged, but stored", consistency.strangers),
            ("refused after a loss, found again", self.restored),
            ("units accepted", consistency.units_accepted),
            ("units given back", consistency.units_returned),
            ("units booked", consistency.units_booked),
            ("looks at the stock while it sold", self.looks),
            ("seconds", f"{self.seconds:.1f}"),
        ]
        return "\n".join(f"{name:<38}{value!s:>12}" for name, value in rows)

    def shortfall(self, options: Options) -> list[str]:
        """Returns what was wished for and did not happen."""
        counts = {
            "worker kills": (self.worker_kills, options.worker_kills),
            "Redis kills": (self.redis_kills, options.redis_kills),
            "elections": (self.elections, options.elections),
            "slot moves": (self.slot_moves, options.slot_moves),
            "cut replies": (self.replies_cut, options.cut_replies),
            "database faults": (self.database_faults.total(), options.database_faults),
            "lost keys": (self.lost_keys.total(), options.lost_keys),
            "strikes": (self.strikes, options.strikes),
            "moods": (self.moods, options.moods),
        }
        return [f"only {did} of {request} {what}" for what, (did, request) in counts.items() if did < request]


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    return f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"


# -- processes ------------------------------------------------------------------------------------------------------


class Crew:
    """Processes of the command `flashsale`; each is ended by its own pid, at the latest when the context is left.

    Args:
        folder: of their logs.
        redis_url: of the sale.
        database_url: of its orders.
        module: the command; `tests.support.chaos_command` shows when a worker has orders in hand.
        moody: the store of that one raises now and then.
    """

    def __init__(
        self, folder: Path, redis_url: str, database_url: str, *, module: str = "flashsale", moody: bool = False
    ) -> None:
        self._folder = folder
        self._moods = folder / "moods"
        self._saving = folder / "saving"
        self._saving.mkdir()
        self._module = module
        urls = {"FLASHSALE_REDIS_URL": redis_url, "FLASHSALE_DATABASE_URL": database_url}
        self._environment = {**os.environ, **urls, "FLASHSALE_SAVING": str(self._saving)}
        if moody:
            self._environment["FLASHSALE_MOODS"] = str(self._moods)
        self._logs: dict[subprocess.Popen[bytes], Path] = {}
        self._ready: set[subprocess.Popen[bytes]] = set()
        self._killed: set[subprocess.Popen[bytes]] = set()

    def start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        path = self._folder / f"{name}-{len(self._logs)}.log"
        command = [sys.executable, "-m", self._module, name, "--sale", SALE, *options]
        with path.open("wb") as log:  # in a session of its own: Ctrl-C is for us, who end it
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._logs[process] = path
        return process

    def is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """True when it has begun its work."""
        if process not in self._ready and f"sale {SALE}:".encode() in self._logs[process].read_bytes():
            self._ready.add(process)
        return process in self._ready and process not in self._killed

    def freeze_in_hand(self, process: subprocess.Popen[bytes]) -> bool:
        """Freezes a worker if it has orders in hand; returns False when it has none."""
        sign = self._saving / str(process.pid)
        if not sign.exists():
            return False
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if sign.exists():  # still: it did not go on before it stopped
            return True
        process.send_signal(signal.SIGCONT)
        return False

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        self._killed.add(process)
        process.kill()
        process.wait()

    @property
    def moods(self) -> int:
        """How many exceptions the store of a moody crew has raised."""
        return self._moods.stat().st_size if self._moods.exists() else 0

    def last_lines(self) -> list[str]:
        """Returns the end of each log."""
        return [f"{path.stem}: {path.read_text()[-500:]}" for path in self._logs.values()]

    def close(self) -> list[str]:
        """Asks all to finish, and returns what they did wrong."""
        wrong = []
        alive = [process for process in self._logs if process not in self._killed]
        for process in alive:
            if process.poll() is None:
                process.terminate()
        for process in alive:
            try:
                code = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if code != 0:
                wrong.append(f"{self._logs[process].stem} ended with {code}: {self._logs[process].read_text()[-2000:]}")
        for process, path in self._logs.items():
            if process in self._killed and "Traceback" in path.read_text():
                wrong.append(f"{path.stem} failed before it was killed: {path.read_text()[-2000:]}")
        self._logs.clear()
        return wrong


# -- the sale -------------------------------------------------------------------------------------------------------


class Chaos:
    """One run, in one event loop.

    Args:
        options: how much is to happen.
        deployment: the Redis to be killed.
        crew: runs workers and syncer.
        database_url: SQLAlchemy URL, with the tables and the item.
        database_faults: of that database, if it is to have any.
        interrupted: a host more, whose calls are struck by exceptions.
        say: is told of the progress.
    """

    def __init__(
        self,
        options: Options,
        purchases: Sequence[Purchase],
        *,
        deployment: Alone,
        crew: Crew,
        database_url: str,
        say: Callable[[str], None],
        database_faults: DatabaseFaults | None = None,
        interrupted: InterruptedHost | None = None,
    ) -> None:
        self.report = Report()
        self._options = options
        self._database_faults = database_faults
        self._interrupted = interrupted
        self._purchases = purchases
        self._stage = deployment
        self._crew = crew
        self._database_url = database_url
        self._say = say
        self._chance = random.Random(options.seed + 1)
        self._keys = Keys(SALE)
        self._hosts: list[aio.FlashSale] = []
        self._workers: list[subprocess.Popen[bytes]] = []
        self._one_reads = asyncio.Lock()
        self._redis_lock = asyncio.Lock()
        self._database_lock = asyncio.Lock()
        self._calm = asyncio.Event()  # no lost key is being brought back
        self._calm.set()
        self._outages: list[float] = []  # monotonic seconds: when Redis was whole again; the last may be infinite
        self._deaths: list[float] = []  # of workers, monotonic seconds
        self._served = 0
        self._over = False
        self._excess = dict.fromkeys(GOODS, 0)  # units that were booked beyond the total
        self._asking: dict[object, str] = {}  # calls that are not answered yet: what the last try came to
        self._raw: redis.asyncio.Redis

    def stand(self) -> str:
        """Returns what is not answered yet, what Redis holds of it, and the last lines of every log."""
        found: dict[str, object] = {"asked": list(self._asking.values())}
        with contextlib.suppress(redis.RedisError), self._stage.primary.client() as raw:
            found |= {
                "meta": raw.hgetall(self._keys.meta),
                "time": raw.time(),
                "list": raw.lrange(self._keys.order_list, 0, 20),
                "claimed": raw.hgetall(self._keys.claimed),
                "leases": raw.zrange(self._keys.leases, 0, -1, withscores=True),
                "dead": raw.hgetall(self._keys.dead),
                "replication": raw.info("replication"),
            }
        return "\n".join([*(f"{name}: {value}" for name, value in found.items()), *self._crew.last_lines()])

    async def run(self) -> None:
        """Sells, breaks, mends and drains."""
        async with contextlib.AsyncExitStack() as stack:
            self._raw = await stack.enter_async_context(self._stage.watch_client())
            manager = getattr(getattr(self._raw, "connection_pool", None), "sentinel_manager", None)
            for sentinel in manager.sentinels if manager else ():  # closing a client leaves those open
                stack.push_async_callback(sentinel.aclose)
            durability = Durability.REPLICATED if self._stage.replicas else Durability.ACCEPTED
            store = await stack.enter_async_context(AsyncStore(self._database_url, SALE))
            for _ in range(HOSTS):
                client = await stack.enter_async_context(self._stage.host_client())
                replicas = max(1, self._stage.replicas)
                sale = aio.FlashSale(client, SALE, store=store, durability=durability, replicas=replicas)
                self._hosts.append(await stack.enter_async_context(sale))
            self._crew.start("syncer", "--interval", "0.2")
            for _ in range(WORKERS):
                self._start_worker()
            await self._until(self._is_loaded, "the syncer has loaded the goods")
            watch = asyncio.create_task(self._watch())
            try:
                await self._sell()
                await self._drain()
                await self._stage.whole()
                if self._stage.replicas:
                    await self._find_again(store)
            finally:
                self._over = True
                await watch
        self.report.wrong += [
            f"{over} too many of {name} were booked" for name, over in self._excess.items() if over > 0
        ]
        self.report.replies_cut = self._stage.tripped
        self.report.moods = self._crew.moods
        self.report.strikes = self._interrupted.struck if self._interrupted else 0
        self.report.named = self._stage.named if isinstance(self._stage, Watched) else []

    async def _is_loaded(self) -> bool:
        counts = [self._keys.count(goods_id) for goods_id in GOODS]
        return all([await self._read(lambda count=count: self._raw.exists(count)) for count in counts])

    # -- buyers -----------------------------------------------------------------------------------------------------

    async def _sell(self) -> None:
        faults = self._faults()
        orders: asyncio.Queue[Purchase | None] = asyncio.Queue(1)
        deadline = time.monotonic() + self._options.seconds
        async with asyncio.TaskGroup() as group:
            for host in self._hosts:
                for _ in range(BUYERS):
                    group.create_task(self._serve(host, orders, group))
            if self._interrupted:
                group.create_task(self._serve(self._interrupted, orders, group))
            for number, purchase in enumerate(self._purchases):
                if time.monotonic() > deadline:
                    self._say("the time is over")
                    break
                for fault in faults.get(number, ()):
                    await fault(group)
                await self._calm.wait()
                await orders.put(purchase)
            for _ in range(HOSTS * BUYERS + (self._interrupted is not None)):
                await orders.put(None)

    async def _serve(
        self, host: aio.FlashSale | InterruptedHost, orders: asyncio.Queue[Purchase | None], group: asyncio.TaskGroup
    ) -> None:
        """Serves buyers one after the other; each is asked for again until it is answered."""
        while (purchase := await orders.get()) is not None:
            order = purchase.order
            purchase.asked = True
            receipt = await self._answer(
                lambda order=order: host.buy(order.goods_id, order.buyer_id, order.quantity, order_id=order.order_id)
            )
            purchase.outcome = receipt.outcome
            self._served += 1
            if receipt.accepted and purchase.plan != "keep":
                group.create_task(self._follow(purchase))

    async def _follow(self, purchase: Purchase) -> None:
        """Does with an order what its buyer planned; every cancellation is clicked twice, at two hosts."""
        order_id = purchase.order.order_id
        if purchase.plan in {"pay", "refund"}:
            purchase.told = await self._answer(lambda: self._any_host().confirm(order_id))
        if purchase.plan == "cancel":
            await asyncio.sleep(self._chance.uniform(0.0, 2.0))
        if purchase.plan in {"cancel", "cancel at once", "refund"}:
            first, second = self._chance.sample(self._hosts, 2)
            both = await asyncio.gather(
                self._answer(lambda: first.cancel(order_id)), self._answer(lambda: second.cancel(order_id))
            )
            purchase.told = both[0] if both[0] == both[1] else None

    async def _find_again(self, store: AsyncStore) -> None:
        """Who was refused asks once more, where the database has the order all the same.

        A worker had saved it before its primary died, and the next primary, which refused, had never heard of it. When
        the syncer has been there, the order id finds its order.
        """
        refused = {
            purchase.order.order_id: purchase
            for purchase in self._purchases
            if purchase.outcome not in {None, Outcome.ACCEPTED}
        }
        for order_id in await store.states(list(refused)):
            await self._ask_again(refused[order_id], self._any_host())

    async def _ask_again(self, purchase: Purchase, host: aio.FlashSale) -> None:
        order = purchase.order
        await self._until(lambda: host.status(order.order_id), "the syncer has restored an order")
        receipt = await self._answer(
            lambda: host.buy(order.goods_id, order.buyer_id, order.quantity, order_id=order.order_id)
        )
        if not (receipt.accepted and receipt.replayed):
            self.report.wrong.append(f"restored, but not found again: {receipt.outcome}")
        purchase.outcome, purchase.restored = receipt.outcome, True
        self.report.restored += 1
        self._excess[order.goods_id] -= order.quantity  # a restored order may take Booked past Total
        await self._follow(purchase)

    def _any_host(self) -> aio.FlashSale:
        return self._chance.choice(self._hosts)

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Asks again until there is an answer, as a host does."""
        call = object()
        while True:
            try:
                answer = await ask()
                if not (isinstance(answer, Receipt) and answer.outcome in ASK_AGAIN):
                    self._asking.pop(call, None)
                    return answer
                self._asking[call] = str(answer)
                self.report.retries += 1
            except NotPersisted as error:  # paid before the worker came: no fault
                self._asking[call] = repr(error)
            except (NotExecuted, OutcomeUnknown, StoreError, UnknownGoods) as error:
                self._asking[call] = repr(error)
                self.report.retries += 1
            await asyncio.sleep(self._chance.uniform(0.02, 0.1))

    # -- faults -----------------------------------------------------------------------------------------------------

    def _faults(self) -> dict[int, list[Callable[[asyncio.TaskGroup], Awaitable[None]]]]:
        """Ties every fault to the number of an order; nothing is cut so late that too few requests follow."""
        due: dict[int, list[Callable[[asyncio.TaskGroup], Awaitable[None]]]] = {}
        last = int(self._options.orders * 0.95)
        for count, fault in (
            (self._options.worker_kills, self._kill_worker),
            (self._options.redis_kills, self._kill_redis),
            (self._options.elections, self._elect),
            (self._options.slot_moves, self._move_slot),
            (self._options.database_faults, self._break_database),
            (self._options.lost_keys, self._lose_key),
        ):
            for _ in range(count):
                due.setdefault(self._chance.randrange(last), []).append(fault)
        left = self._options.cut_replies
        while left:
            in_a_row = min(left, self._chance.choice((1, 1, 2, 3, 6)))
            left -= in_a_row
            half = self._chance.random() < 0.25
            due.setdefault(self._chance.randrange(last), []).append(self._cut(in_a_row, half=half))
        return due

    def _cut(self, times: int, *, half: bool) -> Callable[[asyncio.TaskGroup], Awaitable[None]]:
        async def cut(_: asyncio.TaskGroup) -> None:
            self._stage.cut(b"EVALSHA", times, half=half)

        return cut

    async def _kill_worker(self, group: asyncio.TaskGroup) -> None:
        """Kills one of at least two that work, a moment later; orders wait for this, or all would be sold at once."""
        await self._until(lambda: len(self._ready()) >= 2, "two workers are at work")
        group.create_task(self._kill_and_replace(group))

    async def _kill_and_replace(self, group: asyncio.TaskGroup) -> None:
        victim = await self._one_with_orders()
        killed_at = time.monotonic()
        self._deaths.append(killed_at)
        self._workers.remove(victim)
        self._crew.kill(victim)
        self.report.worker_kills += 1
        self._start_worker()
        group.create_task(self._time_recovery(killed_at))
        self._progress()

    async def _one_with_orders(self) -> subprocess.Popen[bytes]:
        """Returns a worker that is frozen with orders in hand; any that works, when none has orders for long."""
        last_look = time.monotonic() + 5
        while time.monotonic() < last_look:
            await asyncio.sleep(self._chance.uniform(0.0, IN_HAND))
            for worker in self._chance.sample(self._ready(), len(self._ready())):
                if self._crew.freeze_in_hand(worker):
                    return worker
        await self._until(self._ready, "a worker is at work")
        return self._chance.choice(self._ready())

    def _ready(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self._workers if self._crew.is_ready(worker)]

    def _start_worker(self) -> None:
        self._workers.append(self._crew.start("worker", "--batch", str(BATCH), "--lease", str(LEASE)))

    async def _time_recovery(self, killed_at: float) -> None:
        """Follows what was claimed when a worker died until it is gone; claimed once more, it was the dead one's.

        If the one who claimed it dies as well, its time counts from then on.
        """
        entries = by_element(await self._read(lambda: self._raw.hgetall(self._keys.claimed)))
        left = {delivery: (entry.split(b"|", 2)[1], killed_at) for delivery, entry in entries.items()}
        orphans: set[int] = set()
        longest = 0.0
        while left:
            await asyncio.sleep(0.02)
            entries = by_element(await self._read(lambda: self._raw.hgetall(self._keys.claimed)))
            now = time.monotonic()
            for delivery, (lease, since) in list(left.items()):
                entry = entries.get(delivery)
                if entry is None:
                    del left[delivery]
                    if delivery in orphans:
                        longest = max(longest, now - since)
                elif entry.split(b"|", 2)[1] != lease:
                    died_since = max((death for death in self._deaths if death < now), default=since)
                    left[delivery] = entry.split(b"|", 2)[1], died_since if delivery in orphans else since
                    orphans.add(delivery)
        if orphans:
            disturbed = any(end > killed_at for end in self._outages)
            (self.report.disturbed_recoveries if disturbed else self.report.worker_recoveries).append(longest)
            self.report.orphaning += 1
            self.report.orphans += len(orphans)

    async def _kill_redis(self, group: asyncio.TaskGroup) -> None:
        down = self._chance.uniform(0, 0.3)

        async def restart() -> None:
            await self._stage.restart(down)
            self.report.redis_kills += 1

        await self._strike(group, restart, self.report.redis_recoveries)

    async def _elect(self, group: asyncio.TaskGroup) -> None:
        async def elect() -> None:
            assert isinstance(self._stage, Watched | Clustered)
            await self._stage.elect()
            self.report.elections += 1

        await self._strike(group, elect, self.report.election_recoveries)

    async def _move_slot(self, group: asyncio.TaskGroup) -> None:
        async def move() -> None:
            assert isinstance(self._stage, Clustered)
            await self._stage.move()
            await self._heal()
            self.report.slot_moves += 1

        await self._strike(group, move, self.report.election_recoveries)

    async def _break_database(self, group: asyncio.TaskGroup) -> None:
        """Lets the database fail in one of its ways, when the fault before is over."""
        faults = self._database_faults
        assert faults is not None
        await self._take(self._database_lock, "the database is whole again")
        kind = list(faults.kinds)[self.report.database_faults.total() % len(faults.kinds)]
        seconds = self._chance.uniform(0.5, self._options.database_fault_seconds)

        async def fail() -> None:
            try:
                await faults.kinds[kind](seconds)
            finally:
                self._database_lock.release()
            self.report.database_faults[kind] += 1
            self._progress()

        group.create_task(fail())

    async def _lose_key(self, group: asyncio.TaskGroup) -> None:
        """Deletes a key of the living sale, as soon as it is there; no more buyers come until it is back.

        A second loss may take what the first could be mended by, and so may a server that dies with it.
        """
        await self._take(self._redis_lock, "Redis is whole again")
        name = KEYS[self.report.lost_keys.total() % len(KEYS)]

        async def lose() -> None:
            try:
                await self._until(lambda: self._delete(name), f"{name} is there")
                await self._heal()
            finally:
                self._redis_lock.release()
            self.report.lost_keys[name] += 1
            self._progress()

        group.create_task(lose())

    async def _delete(self, name: str) -> bool:
        key = getattr(self._keys, name)
        names = [key] if isinstance(key, str) else [key(goods_id) for goods_id in GOODS]
        return any([await self._read(lambda name=name: self._raw.delete(name)) for name in names])

    async def _heal(self) -> None:
        """Returns when all is well again; nobody does anything but `rebuild`, where the syncer asks for it."""
        syncer = aio.Syncer(self._hosts[0])
        self._calm.clear()
        try:
            await self._until(lambda: self._is_well(syncer), "what was lost is mended")
        finally:
            self._calm.set()

    async def _is_well(self, syncer: aio.Syncer) -> bool:
        report = await self._answer(syncer.run_once)
        if not report.leading:
            return False
        if report.closed or report.missing:
            await self._answer(syncer.rebuild)
            self.report.rebuilds += 1
        audit = await self._answer(syncer.audit)
        return audit.ok and not audit.moving

    async def _strike(
        self, group: asyncio.TaskGroup, outage: Callable[[], Awaitable[None]], seconds: list[float]
    ) -> None:
        """Lets Redis die in a moment, when the outage before is over; `replicated` outlives one loss, not two."""
        await self._take(self._redis_lock, "Redis is whole again")

        async def strike(delay: float) -> None:
            try:
                await asyncio.sleep(delay)
                self._outages.append(math.inf)
                group.create_task(self._time_answer(seconds))
                await outage()
                self._outages[-1] = time.monotonic()
            finally:
                self._redis_lock.release()
            self._progress()

        group.create_task(strike(self._chance.uniform(0.0, DELAY)))

    async def _time_answer(self, seconds: list[float]) -> None:
        """Asks for the first order, from the moment of a kill until it is told ACCEPTED as before."""
        began = time.monotonic()
        order, host = self._purchases[0].order, self._any_host()
        receipt = await self._answer(
            lambda: host.buy(order.goods_id, order.buyer_id, order.quantity, order_id=order.order_id)
        )
        seconds.append(time.monotonic() - began)
        if not receipt.accepted:
            self.report.wrong.append(f"the first order, asked for again: {receipt.outcome}")

    # -- watching ---------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Looks whether more was ever booked than is for sale, and is the operator who requeues dead letters.

        It is told to end, not cancelled: now and then a cancellation is lost inside redis-py.
        """
        while not self._over:
            for goods_id in GOODS:
                stock = self._keys.stock(goods_id)
                total, booked = await self._read(lambda stock=stock: self._raw.hmget(stock, "Total", "Booked"))
                self.report.looks += 1
                if int(total or 0) and booked:  # it is 0 during a rebuild
                    self._excess[goods_id] = max(self._excess[goods_id], int(booked) - int(total))
            await self._requeue_dead()  # who pays for such an order waits for it
            await asyncio.sleep(0.05)

    async def _read(self, read: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                async with self._one_reads:  # a Cluster's client closes connections under its other callers
                    return await read()
            except (redis.RedisError, OSError):  # it was killed
                await asyncio.sleep(0.02)

    async def _drain(self) -> None:
        self._say("sold; the queue drains")
        await self._until(self._is_drained, "the queue is empty")
        await self._until(self._is_mirrored, "the gates have the slots again that nobody uses")

    async def _is_mirrored(self) -> bool:
        for goods_id in GOODS:
            stock, access = self._keys.stock(goods_id), self._keys.access(goods_id)
            booked = await self._read(lambda stock=stock: self._raw.hget(stock, "Booked"))
            if await self._read(lambda access=access: self._raw.get(access)) != booked:
                return False
        return True

    async def _is_drained(self) -> bool:
        sizes = [
            await self._read(lambda: self._raw.llen(self._keys.order_list)),
            len(by_element(await self._read(lambda: self._raw.hgetall(self._keys.claimed)))),
            await self._read(lambda: self._raw.hlen(self._keys.dead)),
        ]
        return not any(sizes)

    async def _requeue_dead(self) -> None:
        if letters := await self._read(lambda: self._raw.hlen(self._keys.dead)):
            self.report.dead += letters
            for letter in await self._answer(self._hosts[0].queue.dead):
                self._say(f"dead: {letter}")
            await self._answer(self._hosts[0].queue.requeue_dead)

    async def _take(self, lock: asyncio.Lock, what: str) -> None:
        await self._until(lambda: not lock.locked(), what)
        await lock.acquire()

    async def _until(self, check: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(90):
                while True:
                    answer = check()
                    if await answer if asyncio.iscoroutine(answer) else answer:
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise TimeoutError(f"not within 90 s: {what}") from error

    def _progress(self) -> None:
        report = self.report
        self._say(
            f"{self._served} of {len(self._purchases)} orders, {report.worker_kills} workers and {report.redis_kills} "
            f"Redis killed, {report.elections} elections, {self._stage.tripped} replies cut, {report.retries} retries"
        )
