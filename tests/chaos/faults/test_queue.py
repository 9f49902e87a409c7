"""Rows 42, 44 and 61: claims whose workers die or are slow, lost leases, and what the log says of it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flashsale import OrderState, StoreError
from tests.chaos.faults.catalogue import fault
from tests.chaos.faults.world import PATIENCE, Heard
from tests.support import servers
from tests.support.claims import claimed
from tests.support.helpers import order, settled

if TYPE_CHECKING:
    from tests.chaos.faults.world import World

LEASE = 0.75  # seconds
KILLER = "o-9"  # no worker survives it; delivery 10, next to the first one in the order of names


@contextlib.contextmanager
def _locked(world: World) -> Any:
    """Somebody else holds the lock of the SQLite file."""
    with contextlib.closing(sqlite3.connect(world.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def _works(world: World, sale: Any) -> int:
    """Claims and saves until nothing is left, and dies each time with the killer in hand; returns how often."""
    deaths = 0
    while world.raw.exists(world.keys.order_list, world.keys.claimed):
        claims = await sale.queue.claim(500, lease=60, timeout=0)
        assert {claim.attempts for claim in claims} <= {1}, "E: a lease that ended counts as a refusal"
        if KILLER in {claim.order.order_id for claim in claims}:
            deaths += 1
            assert deaths < 30, "E: one order kills every worker, and keeps others from being saved"
            world.end_leases()
        else:
            await settled(sale.real.store.save([claim.order for claim in claims]))
            await sale.queue.ack(claims)
    return deaths


@contextlib.contextmanager
def _locked_table(url: str) -> Any:
    """Somebody else holds a lock on the orders in PostgreSQL."""
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE flashsale_orders IN EXCLUSIVE MODE")
        yield


async def _outlasts_its_lease(world: World, sale: Any, lock: Any) -> None:
    """A save waits for three leases, and nobody else gets its order."""
    assert (await sale.buy("phone", "ann", order_id="slow")).accepted
    with lock:
        saving = asyncio.create_task(world.worker(sale, lease=LEASE).run_once())
        others: list[Any] = []
        for _ in range(15):
            await asyncio.sleep(LEASE / 5)
            others += await sale.queue.claim(timeout=0)
    assert (await saving, others) == (1, []), "E: two workers hold one order"


@fault(
    42,
    "workers die or are slow while they hold a batch",
    "kill -9; an order that kills whoever holds it; a database that is locked for three leases",
    holds="E L",
    mechanism="lost leases go to the back, halved; five that ended alone bury; a long save extends its lease",
    without=(
        "the half of lost claims",
        "the back of the queue",
        "the count of claims alone",
        "the count of refusals alone",
        "the longer lease",
    ),
)
async def test_row_42_workers_die_or_are_slow(world: World) -> None:
    sale = await world.sell(world.redis_server.port, 200)
    accepted = [f"o-{number}" for number in range(160)]
    await sale.inventory.reserve([order(name) for name in accepted])
    worker = world.process("before_commit", world.redis_server.port, lease=60)
    await worker.has_come_to("save")
    worker.kill()
    world.end_leases()
    assert (await sale.buy("phone", "ann", order_id="late")).accepted
    assert await world.answer(world.worker(sale).run_once()) == 1, "E: what killed a worker comes before what is new"
    assert await sale.status("late") is OrderState.PERSISTED

    deaths = await _works(world, sale)
    assert {claim.order.order_id for claim in await sale.queue.dead()} == {KILLER}, "E: good orders are dead"
    assert await sale.cancel(KILLER) is OrderState.CANCELLED
    print(f"{deaths} more workers died")

    await _outlasts_its_lease(world, sale, _locked(world))
    await world.holds(sale, [*accepted, "late", "slow"], total=200)

    world.raw.flushall()
    url = world.enter(world.enter(servers.postgres()).database())
    sale = await world.sell(world.redis_server.port, url=url)
    await _outlasts_its_lease(world, sale, _locked_table(url))
    await world.holds(sale, ["slow"], total=10)


@fault(
    44,
    "the key of the leases is lost",
    "kill -9 of a worker, DEL leases",
    holds="E",
    mechanism="a claim that counts more bodies than leases gives each one a lease",
    without=("the new leases",),
)
async def test_row_44_leases_are_lost(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    accepted = [f"o-{number}" for number in range(5)]
    await sale.inventory.reserve([order(name) for name in accepted])
    worker = world.process("before_commit", world.redis_server.port, lease=60)
    await worker.has_come_to("save")
    worker.kill()
    assert (await sale.buy("phone", "ann", order_id="o-5")).accepted
    held = await sale.queue.claim(1, lease=60)
    world.raw.delete(world.keys.leases)
    assert await sale.queue.extend(held, lease=60) == 1  # who is alive holds on
    worker, deadline = world.worker(sale, lease=LEASE), time.monotonic() + PATIENCE
    while len(claimed(world.raw, world.keys)) > 1:
        assert time.monotonic() < deadline, "E: nobody finds the orders"
        await worker.run_once()
    assert world.raw.hkeys(world.keys.claimed) == world.raw.zrange(world.keys.leases, 0, -1)
    assert await sale.queue.nack(held) == 1
    await world.holds(sale, [*accepted, "o-5"], total=10)


@fault(
    61,
    "a database that hangs, dead letters, expiries that fail",
    "a lock on SQLite; an order refused again and again; a trigger that refuses every expiry",
    holds="T",
    mechanism="one line a minute for each cause, with an order id, and a count of what came meanwhile",
    without=(
        "the count of repeats",
        "the line about a dead letter",
        "the line about the database",
    ),
)
async def test_row_61_the_log_says_what_goes_on_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsale._sql.engines.SQLITE_WAIT", 0.05)
    sale = await world.sell(world.redis_server.port, 30, hold=600)
    await sale.inventory.reserve([order(f"o-{number}", buyer_id="secret") for number in range(20)])
    worker, syncer = world.worker(sale), world.syncer(sale)
    with Heard() as heard:
        with _locked(world):
            for _ in range(3):
                await world.answered(StoreError, worker.run_once())
                world.end_leases()
        await world.drain(sale)
        world.sql("CREATE TRIGGER no BEFORE UPDATE ON flashsale_orders BEGIN SELECT RAISE(ABORT, 'no'); END")
        for order_id in world.raw.zrange(world.keys.holds, 0, -1):
            world.raw.zadd(world.keys.holds, {order_id: 1})
        for _ in range(2):
            await world.answer(syncer.run_once())
        world.sql("DROP TRIGGER no")
        await sale.inventory.reserve([order("bad", buyer_id="secret")])
        for _ in range(5):
            (claim,) = await sale.queue.claim(timeout=0)
            await sale.queue.nack([claim])
        assert await sale.queue.claim(timeout=0) == []
    print("\n".join(record.getMessage() for record in heard.records))
    assert heard.says("the database failed with 20 orders", "o-0", "tried again") == 1, "T: the database"
    assert heard.says("cannot be expired", "order o-", "the next pass tries again") == 1, "T: the expiries"
    assert heard.says("bad", "dead letter", "requeue or cancel") == 1, "T: the dead letter"
    assert len(heard.records) == 3, "T: something is said again and again"
    assert not heard.says("secret"), "T: a buyer is named"
    assert not any(record.exc_info for record in heard.records), "T: a traceback is no line"
