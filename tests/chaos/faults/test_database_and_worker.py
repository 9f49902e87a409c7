"""Rows 20 to 24, 32 and 33: workers, syncers and the database behind them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import OrderState, Outcome, StoreError
from tests.chaos.faults.catalogue import fault
from tests.chaos.faults.world import PATIENCE
from tests.support import servers
from tests.support.claims import claimed
from tests.support.helpers import clock, order

if TYPE_CHECKING:
    from tests.chaos.faults.world import World

LEASE = 0.5  # seconds


async def _taken_over(world: World, sale: Any) -> None:
    """Another worker goes on once the lease has ended."""
    worker, deadline = world.worker(sale), time.monotonic() + PATIENCE
    while world.raw.exists(world.keys.order_list, world.keys.claimed):
        assert time.monotonic() < deadline, "E: nobody takes the claims over"
        await worker.run_once()


# -- workers --------------------------------------------------------------------------------------------------------


@fault(
    20,
    "worker dies before commit",
    "kill -9",
    holds="E",
    mechanism="the lease ends",
    without=("the end of a lease",),
)
async def test_row_20_worker_dies_before_commit(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    accepted = [f"o-{number}" for number in range(5)]
    for order_id in accepted:
        assert (await sale.buy("phone", "ann", order_id=order_id)).accepted
    worker = world.process("before_commit", world.redis_server.port, lease=LEASE)
    await worker.has_come_to("save")
    worker.kill()
    assert len(claimed(world.raw, world.keys)) == 5
    await _taken_over(world, sale)
    await world.holds(sale, accepted, total=10)


@fault(
    21,
    "worker dies between commit and ack",
    "kill -9",
    holds="E",
    mechanism="the primary key; only rows inserted are counted",
    without=("the end of a lease", "the primary key", "the count of inserted rows alone"),
)
async def test_row_21_worker_dies_between_commit_and_ack(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    accepted = [f"o-{number}" for number in range(5)]
    for order_id in accepted:
        assert (await sale.buy("phone", "ann", order_id=order_id)).accepted
    worker = world.process("before_ack", world.redis_server.port, lease=LEASE)
    await worker.has_come_to("ack")
    worker.kill()
    assert len(await world.orders(sale)) == len(claimed(world.raw, world.keys)) == 5
    await _taken_over(world, sale)
    assert world.sql("SELECT count(*) FROM flashsale_orders") == [(5,)], "E: an order has two rows"
    await world.holds(sale, accepted, total=10)


@fault(
    22,
    "zombie worker",
    "SIGSTOP for longer than the lease",
    holds="E",
    mechanism="an idempotent insert; nack and extend need the lease",
    without=(
        "the lease of nack",
        "the lease of extend",
        "the primary key",
    ),
)
async def test_row_22_zombie_worker(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    zombie = world.process("zombie", world.redis_server.port, lease=LEASE)
    await zombie.has_come_to("claim")
    zombie.signal(signal.SIGSTOP)
    zombie.go()
    claims: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while not claims and time.monotonic() < deadline:
        claims = await sale.queue.claim(1, lease=60, timeout=0.1)
    zombie.signal(signal.SIGCONT)
    result = await zombie.result()  # it saves the order as well
    assert (result["extended"], result["let_go"]) == (0, 0), "E: two workers hold one order"
    assert await sale.queue.claim(1, timeout=0) == [], "E: two workers hold one order"
    await sale.queue.nack(claims)
    await world.drain(sale)
    assert world.sql("SELECT count(*) FROM flashsale_orders") == [(1,)], "E: an order has two rows"
    await world.holds(sale, ["o-1"], total=10)


# -- the database ---------------------------------------------------------------------------------------------------


async def _outlasts(world: World, sale: Any) -> None:
    """More passes of the worker than an order has attempts, each without a database."""
    for _ in range(7):
        await world.answered(StoreError, world.worker(sale).run_once())
        world.end_leases()


@fault(
    23,
    "database down or locked",
    "stop PostgreSQL; lock SQLite",
    holds="E",
    mechanism="nack with a delay, and no attempt is counted",
    without=("the attempt that does not count",),
)
async def test_row_23_database_down_or_locked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsale._sql.engines.SQLITE_WAIT", 0.05)
    sale = await world.sell(world.redis_server.port)
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    with contextlib.closing(sqlite3.connect(world.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await _outlasts(world, sale)
    await world.holds(sale, ["o-1"], total=10)
    assert await sale.status("o-1") is OrderState.PERSISTED, "E: the order died of a database that was locked"

    world.raw.flushall()
    postgres = world.enter(servers.postgres())
    sale = await world.sell(world.redis_server.port, url=world.enter(postgres.database()))
    assert (await sale.buy("phone", "ann", order_id="o-2")).accepted
    await asyncio.to_thread(postgres.stop)
    try:
        await _outlasts(world, sale)
    finally:
        await asyncio.to_thread(postgres.start)
    await world.holds(sale, ["o-2"], total=10)
    assert await sale.status("o-2") is OrderState.PERSISTED, "E: the order died of a database that was down"


@fault(
    24,
    "poison order",
    "a row that the database refuses",
    holds="E L",
    mechanism="the batch is split; attempts, then dead; units stay booked until requeued or cancelled, and return once",
    without=(
        "the split of the batch",
        "the units of a refused order",
        "the state of a dead order",
    ),
)
async def test_row_24_poison_order(world: World) -> None:
    sale = await world.sell(world.redis_server.port, 20)
    good = [f"o-{number}" for number in range(7)]
    for order_id in [*good[:3], "poison-1", *good[3:], "poison-2"]:
        assert (await sale.buy("phone", "ann", order_id=order_id)).accepted
    world.sql(
        "CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders WHEN NEW.order_id LIKE 'poison%' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    assert await world.answer(world.worker(sale).run_once()) == 7, "E: the others are not saved"
    await world.drain(sale)
    assert {claim.order.order_id for claim in await sale.queue.dead()} == {"poison-1", "poison-2"}
    assert await sale.status("poison-1") is OrderState.DEAD
    assert world.booked() == 9  # they keep their units until somebody decides
    for _ in range(2):
        assert await sale.cancel("poison-1") is OrderState.CANCELLED
    assert world.booked() == 8, "L: the units of a cancelled order return once"
    world.sql("DROP TRIGGER poison")
    assert await sale.queue.requeue_dead() == 1
    await world.holds(sale, [*good, "poison-2"], total=20)
    assert await sale.status("poison-2") is OrderState.PERSISTED
    assert world.booked() == 8


# -- clocks and sleep -----------------------------------------------------------------------------------------------


def faketime(offset: str) -> dict[str, str]:
    """Returns the environment of a process whose clock is off: from the wheel, else from Debian's package."""
    wheel = importlib.util.find_spec("libfaketime")
    found = [
        *(library for place in (wheel and wheel.submodule_search_locations) or () for library in _in(place, "**")),
        *_in("/usr/lib", "*/faketime"),
    ]
    if found:
        return {"LD_PRELOAD": str(found[0]), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return servers.missing("libfaketime (the wheel, or Debian's package)")


def _in(place: str, folders: str) -> list[Path]:
    return sorted(Path(place).glob(f"{folders}/libfaketime.so.1"))


@fault(
    32,
    "clock skew",
    "workers an hour ahead and an hour behind, by libfaketime",
    holds="E L",
    mechanism="Redis TIME only",
    without=("the clock of Redis",),
)
async def test_row_32_clock_skew(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    began = clock(world.raw)
    await sale.preload("case", 5, opens_at=began + 600)
    for order_id in ("o-1", "o-2"):
        assert (await sale.buy("phone", "ann", order_id=order_id)).accepted

    ahead = world.process("skewed", world.redis_server.port, environment=faketime("+1h"), lease=LEASE)
    await ahead.has_come_to("claim")
    ahead.kill()
    claims: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while len(claims) < 2 and time.monotonic() < deadline:
        claims += await sale.queue.claim(2, lease=60, timeout=0.1)
    assert len(claims) == 2, "L: the lease of a dead worker lasts an hour"
    await sale.queue.nack(claims)

    (world.folder / "skewed.claim").unlink()
    behind = world.process("skewed", world.redis_server.port, environment=faketime("-1h"), lease=60)
    await behind.has_come_to("claim")
    others = await sale.queue.claim(2, lease=60, timeout=0)
    assert len(others) == 1, "E: two workers hold one order"
    await sale.queue.nack(others)
    behind.go()
    result = await behind.result()
    assert abs(result["clock"] - time.time() + 3600) < 60  # else the clock was not wrong
    assert (result["early"], result["inserted"]) == (Outcome.NOT_STARTED, 1)
    await world.holds(sale, ["o-1", "o-2"], total=10)
    times = [created_at for (created_at,) in world.sql("SELECT created_at FROM flashsale_orders")]
    assert all(began <= created_at <= clock(world.raw) for created_at in times)


@fault(
    33,
    "stale Syncer",
    "SIGSTOP between reading and writing, and resume",
    holds="O",
    mechanism="the version of the row",
    without=("the version of the total",),
)
async def test_row_33_stale_syncer(world: World) -> None:
    sale = await world.sell(world.redis_server.port, 5)
    stale = world.process("syncer", world.redis_server.port)
    await stale.has_come_to("configure")
    stale.signal(signal.SIGSTOP)
    assert await sale.restock("phone", -3) == 2
    stale.go()
    stale.signal(signal.SIGCONT)
    assert (await stale.result())["leading"]
    total = int(world.raw.hget(world.keys.stock("phone"), "Total"))
    receipts = [await sale.inventory.reserve([order(number)]) for number in range(4)]
    assert (total, sum(receipt.accepted for (receipt,) in receipts)) == (2, 2), "O: an old row brought units back"
    await world.holds(sale, [], total=2)
