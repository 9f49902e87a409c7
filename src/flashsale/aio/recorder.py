"""The recorder: tells Redis what this process does and has counted, and reads the snapshot behind status and metrics.

What it cannot write is written later, or never: it may lose a count, and stops no sale.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from threading import Lock
from time import monotonic
from typing import Any, Final

from flashsale._rules.activity import Activity, read_process
from flashsale._rules.batches import batches
from flashsale._rules.codes import number
from flashsale._rules.rate_limited_log import RateLimitedLog, named
from flashsale._rules.refusal_cache import RefusalCache
from flashsale._rules.tally import LAG, SETTLED, STORE, STORE_ERROR, Name, Tally, totals_of
from flashsale._rules.trail import entry_text, read_text
from flashsale.aio.sale_state import SaleMeta
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.transport.link import Argument, Link
from flashsale.aio.transport.runtime import Later, repeating, spend
from flashsale.errors import FlashSaleError, OutcomeUnknown
from flashsale.keys import Keys
from flashsale.model import OrderState
from flashsale.model.snapshot import BOUGHT, GoodsSnapshot, Process, Sample, Snapshot, Totals
from flashsale.model.trail import TrailEntry

FLUSH: Final = 10.0  # seconds from the first count of a process until Redis is told
BEAT: Final = 5.0  # seconds between two heartbeats of a worker, syncer or outbox
PATIENCE: Final = 1.0  # seconds that telling may take
GONE: Final = 3600.0  # seconds after its last heartbeat until a process is forgotten
MINUTES: Final = 2880  # whose counts are kept, two days; the totals keep all
SAMPLES: Final = 14_400  # of one item: four hours of one a second
FOREVER: Final = 10**9
_PAGE: Final = 200  # keys of one read


class Recorder:
    """Writes and reads what is recorded of one sale.

    Args:
        link: to the Redis of the stock.
        gate_link: to the Redis of the gate.
        keys: of the sale.
        meta: of the sale.
        tally: what this process counts.
        refusals: what it has refused from memory.
    """

    def __init__(
        self, link: Link, gate_link: Link, keys: Keys, meta: SaleMeta, tally: Tally, refusals: RefusalCache
    ) -> None:
        self._link = link
        self._gate_link = gate_link
        self._keys = keys
        self._meta = meta
        self._refusals = refusals
        self._tally = tally
        self._log = RateLimitedLog()
        self._web = Activity("web")
        self._forgot = 0  # the minute in which old ones were forgotten last
        self._reset()
        tally.on_count = self._begin

    def _reset(self) -> None:
        """What was counted before is told, or is another process's to tell."""
        self._process = os.getpid()
        self._lock = Lock()
        self._told = self._refusals.counts
        self._untold = deque[Counter[Name]]()  # taken, and refused by Redis
        self._later = Later(partial(self._flush, self._web))
        self._parts = 0  # that beat: they tell what is counted, too

    # -- counting ---------------------------------------------------------------------------------------------------

    @contextmanager
    def timing(self, operation: str) -> Iterator[None]:
        """Counts how long the database takes for an operation, and its errors."""
        began = monotonic()
        try:
            yield
        except Exception as error:
            self._tally.add((STORE_ERROR, operation, type(error).__name__))
            raise
        finally:
            self._tally.took((STORE, operation), monotonic() - began)

    def saved(self, orders: int) -> None:
        """Counts orders that a worker has saved; the ledger counts those that moved on from there."""
        if orders > 0:
            self._tally.add((SETTLED, OrderState.PERSISTED), orders)

    def lagged(self, seconds: float) -> None:
        """Counts a batch of a worker, whose oldest order was accepted so long before."""
        self._tally.took((LAG, ""), seconds)

    # -- writing ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def beating(self, activity: Activity) -> AsyncIterator[None]:
        """Tells every five seconds what a worker, syncer or outbox does, while the block runs."""
        self._parts += 1
        await self._flush(activity)
        try:
            async with repeating(partial(self._flush, activity), BEAT, FOREVER):
                yield
        finally:
            self._parts -= 1
            await self._leave(activity)

    async def aclose(self) -> None:
        """Tells what was not told yet."""
        await self._later.end(PATIENCE)
        if self._grown():
            await self._flush(self._web)

    def _begin(self) -> None:
        """Something is about to be counted: Redis is told of it soon."""
        if self._process != os.getpid():  # this is a child; what was counted before the fork is its parent's
            self._tally.clear()
            self._reset()
        if not self._later.is_begun and not self._parts:
            self._later.begin(FLUSH)

    async def _flush(self, activity: Activity) -> None:
        """Tells Redis what a part of this process does, and what was counted since it was told last."""
        grown = self._take()
        try:
            await spend(monotonic() + PATIENCE, self._record, activity, grown)
        except OutcomeUnknown as error:  # rather a count too few than one twice
            self._tell(error)
        except FlashSaleError as error:
            self._untold.append(grown)
            self._tell(error)

    def _take(self) -> Counter[Name]:
        """Returns what was counted since it was last taken; nothing while another thread takes it.

        Nobody waits for the lock: whom an exception from outside strikes may never give it back.
        """
        if not self._lock.acquire(blocking=False):
            self._begin()  # what the other thread has not seen is told later
            return Counter()
        try:
            counts = self._refusals.counts
            grown, self._told = counts - self._told, counts
            while self._untold:
                grown.update(self._untold.popleft())
        finally:
            self._lock.release()
        return grown

    def _grown(self) -> Counter[Name]:
        """Returns what was counted and is not told yet."""
        return sum(self._untold.copy(), self._refusals.counts - self._told)

    def _tell(self, error: FlashSaleError) -> None:
        """Logs that something was not recorded: of a server that does not answer, everybody else complains."""
        level = logging.WARNING if getattr(error, "reason", None) == "NOPERM" else logging.INFO
        self._log.tell(named(error), "the recorder cannot write: %s", error, level=level)

    async def _record(self, activity: Activity, grown: Mapping[Name, int]) -> None:
        seconds, _ = await self._link.command("TIME")
        minute = int(seconds) // 60
        keys = self._keys
        told, ago = activity.told()
        arguments: list[Argument] = [activity.name, told, "" if ago is None else f"{ago:.6f}", minute]
        arguments += (word for name, times in grown.items() for word in ("|".join(name), times))
        names = [keys.meta, keys.processes, keys.minutes, keys.stats, keys.stats_of(minute)]
        await self._link.run("tell", names, arguments)

    async def _leave(self, activity: Activity) -> None:
        """Takes this process off the list of those that run."""
        with suppress(FlashSaleError):  # the syncer forgets it in an hour
            await spend(monotonic() + PATIENCE, self._link.command, "HDEL", self._keys.processes, activity.name)

    async def sample(self) -> None:
        """Adds a sample of each item, and forgets what is too old: each syncer does, once an interval."""
        try:
            await spend(monotonic() + PATIENCE, self._sample_now)
        except FlashSaleError as error:
            self._tell(error)

    async def _sample_now(self) -> None:
        await self._sample(await self.look())

    async def _sample(self, look: Snapshot) -> None:
        if look.goods:
            lag = max(0.0, look.time - look.oldest) if look.oldest else 0.0
            tail = f"{look.queued}|{look.claimed}|{look.dead}|{lag:.3f}"
            samples = [f"{look.time:.3f}|{it.total}|{it.booked}|{it.access}|{tail}" for it in look.goods]
            keys = [self._keys.meta, *(self._keys.samples(it.goods_id) for it in look.goods)]
            await self._link.run("sample", keys, [SAMPLES, *samples])
        gone = [f"{each.kind} {each.instance}" for each in look.processes if each.beat < look.time - GONE]
        if gone:
            await self._link.command("HDEL", self._keys.processes, *gone)
        minute = int(look.time) // 60
        if minute != self._forgot:
            await self._forget_minutes(minute - MINUTES)
            self._forgot = minute

    async def _forget_minutes(self, last: int) -> None:
        old = await self._minutes(0, last)
        if old:
            await self._link.command("UNLINK", *map(self._keys.stats_of, old))
            await self._link.command("ZREM", self._keys.minutes, *old)

    async def keep(self, entry: TrailEntry) -> None:
        """Keeps an entry of the trail that the database did not take; the syncer writes it there."""
        await self._link.command("LPUSH", self._keys.trail, entry_text(entry))

    async def write_kept(self, store: AsyncOrderStore) -> None:
        """Writes entries of the trail that were kept; one that is written twice is better than one that is lost."""
        note: Callable[[TrailEntry], Awaitable[int]] | None = getattr(store, "note", None)
        while note is not None and (kept := await self._link.command("LRANGE", self._keys.trail, -1, -1)):
            entry = read_text(kept[0])
            if entry is not None:
                await note(entry)
            await self._link.command("RPOP", self._keys.trail)

    async def forget(self, goods: Iterable[str]) -> None:
        """Removes what lies under names of its own: samples and minutes."""
        minutes = await self._minutes(0, FOREVER)
        for names in batches([*map(self._keys.stats_of, minutes), *map(self._keys.samples, goods)], _PAGE):
            await self._link.command("UNLINK", *names)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def look(self) -> Snapshot:
        """Returns the whole sale at one moment: one reading of the stock's Redis, and one of the gate's."""
        goods = await self._meta.goods()
        reply = await self._link.run("look", look_keys(self._keys, goods))
        gates = await self._gate_link.run("gates", gate_keys(self._keys, goods)) if goods else ()
        return read_look(goods, reply, read_gates(gates))

    async def totals(self) -> Totals:
        """Returns what all processes have counted since the sale began, but for what is not told yet."""
        found = _texts(await self._link.command("HGETALL", self._keys.stats))
        return totals_of(_counts(found))

    async def refused(self) -> dict[str, int]:
        """Returns the refusals that all processes have told of, by `goods_id`; of this one those not told yet, too."""
        refused = Counter[str]()
        grown = totals_of(("|".join(name), times) for name, times in self._grown().items())
        for totals in (await self.totals(), grown):
            for (goods_id, outcome), times in totals.purchases.items():
                if outcome not in BOUGHT:
                    refused[goods_id] += times
        return dict(refused)

    async def minutes(self) -> dict[int, Mapping[tuple[str, str], int]]:
        """Returns how often each item and outcome was counted, by minutes since the epoch."""
        return {minute: totals.purchases for minute, totals in (await self.minute_totals()).items()}

    async def minute_totals(self, since: float = 0.0) -> dict[int, Totals]:
        """Returns what all processes have counted in each minute, by minutes since the epoch.

        Args:
            since: epoch seconds.
        """
        found: dict[int, Totals] = {}
        for names in batches(await self._minutes(int(since) // 60, FOREVER), _PAGE):
            reply = await self._link.run("minutes", [self._keys.stats_of(name) for name in names])
            for name, each in zip(names, reply, strict=True):
                found[name] = totals_of(_counts(_texts(each)))
        return found

    async def samples(self, goods_id: str) -> list[Sample]:
        """Returns the samples of an item, oldest first."""
        found = await self._link.command("LRANGE", self._keys.samples(goods_id), 0, -1)
        return [sample for text in _texts(found) if (sample := _sample(text)) is not None]

    async def _minutes(self, first: int, last: int) -> list[int]:
        found = await self._link.command("ZRANGEBYSCORE", self._keys.minutes, first, last)
        return [int(name) for name in found if name.isdigit()]


def look_keys(keys: Keys, goods: Sequence[str]) -> list[str]:
    """Returns what the script `look` takes, of these items."""
    names = [keys.meta, keys.order_list, keys.leases, keys.dead, keys.holds, keys.processes]
    return [*names, *map(keys.stock, goods)]


def gate_keys(keys: Keys, goods: Sequence[str]) -> list[str]:
    """Returns what the script `gates` takes, of these items."""
    return [key for goods_id in goods for key in keys.gate(goods_id)[:3]]


def read_gates(reply: Iterable[Any]) -> list[list[str]]:
    """Returns count, start and access of each item, as the script `gates` replied."""
    texts = _texts(reply)
    return [texts[place : place + 3] for place in range(0, len(texts), 3)]


def read_look(goods: Sequence[str], reply: Sequence[Any], gates: Sequence[Sequence[str]]) -> Snapshot:
    """Returns what the script `look` replied of these items, with what `read_gates` did."""
    stocks = [_texts(reply[place : place + 6]) for place in range(12, len(reply), 6)]
    time, state, epoch, layout, leader, led_until = _texts(reply[:6])
    processes = _processes(_texts(reply[11]))
    return Snapshot(
        time=float(time),
        state=state or "open",
        epoch=_whole(epoch),
        layout=_whole(layout),
        leader=_leader(leader, _seconds(led_until) or 0.0, float(time), processes),
        queued=reply[6],
        oldest=_accepted_at(reply[7]),
        claimed=reply[8],
        dead=reply[9],
        unpaid=reply[10],
        goods=tuple(_goods(name, *each) for name, *each in zip(goods, stocks, gates, strict=True)),
        processes=processes,
    )


def _texts(values: Iterable[Any]) -> list[str]:
    return [str(value, "utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


def _whole(text: str) -> int | None:
    return number(text.encode())


def _units(text: str) -> int:
    return _whole(text) or 0


def _seconds(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _goods(goods_id: str, stock: Sequence[str], gate: Sequence[str]) -> GoodsSnapshot:
    total, booked, per_buyer, opens_at, closes_at, hold = stock
    count, started, access = gate
    return GoodsSnapshot(
        goods_id=goods_id,
        total=_units(total),
        booked=_units(booked),
        gate=_whole(count),
        access=_units(access),
        started=started == "1",
        per_buyer=_whole(per_buyer),
        opens_at=_seconds(opens_at),
        closes_at=_seconds(closes_at),
        hold=_seconds(hold),
    )


def _leader(token: str, until: float, now: float, processes: Iterable[Process]) -> str | None:
    """Returns the syncer that leads. Between its passes it has no lease, and still it leads while it lives.

    One that sends no heartbeats, as it passes by `run_once`, leads for some seconds after its pass.
    """
    name = token.rpartition(":")[0]
    lives = any(each.kind == "syncer" and each.instance == name and each.beat > now - 3 * BEAT for each in processes)
    return name or None if lives or until > now - BEAT else None


def _processes(flat: Sequence[str]) -> tuple[Process, ...]:
    found = [read_process(name, text) for name, text in zip(flat[::2], flat[1::2], strict=True)]
    return tuple(sorted((each for each in found if each), key=lambda each: (each.kind, each.instance)))


def _counts(flat: Sequence[str]) -> list[tuple[str, int]]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return [(name, times) for name, text in pairs if "|" in name and (times := _whole(text)) is not None]


def _accepted_at(body: bytes) -> float | None:
    """Returns when an order was accepted, of the first characters of its JSON; None where it does not say."""
    head, _, rest = body.partition(b":")
    return _seconds(rest.partition(b",")[0].decode("ascii", "replace")) if head == b'{"created_at"' else None


def _sample(text: str) -> Sample | None:
    """Returns the sample that a text holds; None where somebody else wrote it."""
    try:
        time, total, booked, access, queued, claimed, dead, lag = text.split("|")
        return Sample(
            float(time), int(total), int(booked), int(access), int(queued), int(claimed), int(dead), float(lag)
        )
    except ValueError:
        return None
