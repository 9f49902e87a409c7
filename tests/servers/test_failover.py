"""Failovers that lose what was acknowledged: a replica behind a blocked link is promoted, and buyers go on.

`HYPOTHESIS_PROFILE=nightly` makes a hundred runs of it. Two sales live through each: of one `buy` answers when the
primary has the order, of the other when the replica has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Durability, Goods, OrderState, Outcome
from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.helpers import Awaited, until
from tests.support.mutants import without
from tests.support.sales import active_units, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts import Host

RUNS = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 10  # of each API
UNITS = 40


class Duo:
    """Two Redis servers without persistence, one the replica of the other over a link that can be held."""

    def __init__(
        self, primary: servers.RedisServer, replica: servers.RedisServer, links: dict[int, FaultProxy]
    ) -> None:
        self.primary, self.replica, self._links = primary, replica, links

    @property
    def link(self) -> FaultProxy:
        """Between the two."""
        return self._links[self.primary.port]

    def join(self) -> None:
        """Makes the replica follow; returns when it is in step."""
        self.link.clear()
        client = self.replica.client()
        client.replicaof(servers.HOST, str(self.link.port))
        servers.eventually(lambda: client.info("replication")["master_link_status"] == "up", "the replica")

    def fail_over(self) -> None:
        """The primary dies, and what is on its way with it; the replica is promoted."""
        self.primary.kill()
        self.replica.client().replicaof("NO", "ONE")
        self.primary, self.replica = self.replica, self.primary


@pytest.fixture(scope="module")
def duo() -> Iterator[Duo]:
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(servers.redis_server(repl_timeout=60, repl_diskless_sync_delay=0)) for _ in "12"]
        links = {server.port: stack.enter_context(FaultProxy(server.port)) for server in both}
        yield Duo(*both, links)


@pytest.fixture
def joined(duo: Duo) -> Duo:
    """The two in step and empty, whatever the last test has left."""
    for server in (duo.primary, duo.replica):
        server.restart()
    duo.join()
    return duo


@dataclass
class Aftermath:
    """What one sale came to.

    Attributes:
        told: ids of which a buyer was told ACCEPTED.
        gone: those of them that neither the database nor Redis has, when all is done.
        lost: those that the audit names.
        unreplicated: told while the link was held, and in no row when the primary died.
        rejected: ids that were refused by the database.
        units: units of rows that stand; never more than `UNITS`.
    """

    told: set[str]
    gone: set[str]
    lost: set[str]
    unreplicated: set[str]
    rejected: set[str]
    units: int


class Till:
    """One sale of `UNITS` phones and its buyers, before and after the failover."""

    def __init__(self, host: Host, durability: Durability) -> None:
        self._host, self.name, self._durability = host, str(durability), durability
        self.told: set[str] = set()
        self.unreplicated: set[str] = set()
        self._asked: dict[str, int] = {}
        self._store: Awaited
        self._sale: Awaited

    async def open(self, port: int) -> None:
        self._store = await self._host.store_of(self.name, Goods("phone", UNITS))
        self.reach(port)
        await self._host.syncer(self._sale).run_once()
        await self._sale.start("phone")

    def reach(self, port: int) -> None:
        """From now on the hosts' clients lead to this Redis."""
        how = {"durability": self._durability, "durable_within": 0.1, "cache_for": 0, "store": self._store}
        self._sale = self._host.on(self._host.connect(port), self.name, **how)

    async def sell(self, chance: random.Random, orders: int) -> set[str]:
        """So many buyers come at once; returns the ids that were accepted."""
        new = {f"o-{len(self._asked) + n}": chance.choice((1, 1, 2)) for n in range(orders)}
        return await self._buy(new)

    async def ask_again(self) -> None:
        """Every buyer who was not told ACCEPTED asks again, with the same id."""
        await self._buy({name: units for name, units in self._asked.items() if name not in self.told})

    async def _buy(self, orders: dict[str, int]) -> set[str]:
        self._asked |= orders
        receipts = await asyncio.gather(
            *(self._sale.buy("phone", f"buyer-{name}", units, order_id=name) for name, units in orders.items())
        )
        new = {receipt.order_id for receipt in receipts if receipt.outcome is Outcome.ACCEPTED}
        self.told |= new
        return new

    async def work(self) -> None:
        await self._host.worker(self._sale, batch=5).run_once()

    async def finish(self) -> None:
        """A worker and a syncer, until nothing is left to do."""
        worker, syncer = self._host.worker(self._sale), self._host.syncer(self._sale)

        async def is_done() -> bool:
            await worker.run_once()
            report = await syncer.run_once()
            audit = await syncer.audit()
            return not (audit.pending or audit.orders or report.settled)

        await until(is_done, "the end of the sale")

    async def saved(self) -> dict[str, OrderState]:
        return await rows(self._sale)

    async def aftermath(self, raw: Any) -> Aftermath:
        rows = await self.saved()
        ledger = {name.decode() for name in raw.hkeys(f"flashsale:{{{self.name}}}:orders")}
        audit = await self._host.syncer(self._sale).audit(self.told)
        return Aftermath(
            told=self.told,
            gone=self.told - rows.keys() - ledger,
            lost=set(audit.lost),
            unreplicated=self.unreplicated,
            rejected={name for name, state in rows.items() if state is OrderState.REJECTED},
            units=await active_units(self._sale),
        )


async def played(host: Host, duo: Duo, *, seed: int) -> dict[Durability, Aftermath]:
    """Plays both sales over one failover."""
    chance = random.Random(seed)
    tills = {each: Till(host, each) for each in (Durability.ACCEPTED, Durability.REPLICATED)}
    for till in tills.values():
        await till.open(duo.primary.port)
        await till.sell(chance, 15)
        if chance.random() < 0.5:
            await till.work()
    duo.replica.catch_up(duo.primary)
    duo.link.hold()
    for till in tills.values():
        held = await till.sell(chance, chance.randrange(10, 25))
        for _ in range(chance.choice((0, 1, 3, 6))):  # some reach the database: then Redis is behind it
            await till.work()
        till.unreplicated = held - (await till.saved()).keys()
    duo.fail_over()
    aftermaths = {}
    for durability, till in tills.items():
        till.reach(duo.primary.port)
        await till.ask_again()
        await till.sell(chance, 20)
        await till.finish()
        aftermaths[durability] = await till.aftermath(duo.primary.client())
    return aftermaths


@pytest.mark.parametrize("run", range(RUNS))
async def test_a_failover_never_oversells_and_every_lost_order_is_named(host: Host, joined: Duo, run: int) -> None:
    after = await played(host, joined, seed=2 * run + host.is_async)
    for sale in after.values():
        assert sale.units <= UNITS
        assert sale.lost == sale.gone == sale.unreplicated
    assert not after[Durability.REPLICATED].lost


LOSES, SELLS_AGAIN = 0, 3
"""Seeds: in the one run no worker came in time; in the other rows were saved that Redis then forgot."""


async def test_the_runs_do_lose_orders(host: Host, joined: Duo) -> None:
    assert (await played(host, joined, seed=LOSES))[Durability.ACCEPTED].lost


async def test_the_database_refuses_whom_redis_sold_units_again(host: Host, joined: Duo) -> None:
    sale = (await played(host, joined, seed=SELLS_AGAIN))[Durability.ACCEPTED]
    assert sale.rejected & sale.told
    assert sale.units == UNITS


@pytest.mark.parametrize(
    ("refusal", "goods", "other"),
    [
        (Outcome.SOLD_OUT, Goods("phone", 2, opens_at=1.0), "bob"),
        (Outcome.LIMIT_REACHED, Goods("phone", 9, opens_at=1.0, per_buyer=2), "ann"),
    ],
)
async def test_who_was_refused_after_a_failover_finds_the_order_again(
    host: Host, joined: Duo, refusal: Outcome, goods: Goods, other: str
) -> None:
    """A worker had saved it, and the new primary has never heard of it: its refusal stands until the syncer comes."""
    store = await host.store_of("spring", goods)
    sale = host.on(host.connect(joined.primary.port), store=store)
    await host.syncer(sale).run_once()
    joined.replica.catch_up(joined.primary)
    joined.link.hold()
    await sale.buy("phone", "ann", order_id="o-1")  # the answer is lost
    await host.worker(sale).run_once()
    joined.fail_over()

    sale = host.on(host.connect(joined.primary.port), store=store, cache_for=0)
    assert (await sale.buy("phone", other, 2, order_id="o-2")).accepted
    for _ in range(2):
        assert (await sale.buy("phone", "ann", order_id="o-1")).outcome is refusal
    assert await sale.status("o-1") is None
    assert (await host.syncer(sale).run_once()).settled == 1
    again = await sale.buy("phone", "ann", order_id="o-1")
    assert (again.accepted, again.replayed, again.state) == (True, True, OrderState.PERSISTED)
    await host.worker(sale).run_once()
    places = {Outcome.SOLD_OUT: OrderState.REJECTED, Outcome.LIMIT_REACHED: OrderState.PERSISTED}
    assert await rows(sale) == {"o-1": OrderState.PERSISTED, "o-2": places[refusal]}


# -- mutations ------------------------------------------------------------------------------------------------------


@without("the guard in the database")
async def test_without_the_guard_the_database_is_oversold(host: Host, joined: Duo) -> None:
    assert (await played(host, joined, seed=SELLS_AGAIN))[Durability.ACCEPTED].units > UNITS


@without("WAIT and its answer")
async def test_replicated_without_wait_loses_orders(host: Host, joined: Duo) -> None:
    sale = (await played(host, joined, seed=LOSES))[Durability.REPLICATED]
    assert sale.lost == sale.gone != set()
