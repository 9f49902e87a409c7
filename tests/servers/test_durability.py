"""What ACCEPTED promises: in the primary's memory, on a replica, on disk, in the database; short of it, UNCERTAIN."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import (
    Durability,
    Goods,
    InvalidRequest,
    OrderState,
    Outcome,
    StoreRequired,
    UnsafeServer,
)
from flashsale._rules.durability import Guarantee
from flashsale._rules.server_check import judge
from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.helpers import Awaited, settled, snapshot
from tests.support.mutants import kills
from tests.support.sales import access, active_units, booked, each_backend, rows, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop
    from tests.support.hosts import Host

QUEUED, PERSISTED, CANCELLED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CANCELLED
REJECTED, DEAD = OrderState.REJECTED, OrderState.DEAD
ACCEPTED, UNCERTAIN, SOLD_OUT = Outcome.ACCEPTED, Outcome.UNCERTAIN, Outcome.SOLD_OUT


# -- replicated -----------------------------------------------------------------------------------------------------


class Pair:
    """A primary, and a replica behind a link that can be held.

    Attributes:
        primary: where the sale is.
        replica: its replica.
        link: the proxy between the two.
    """

    def __init__(self, primary: servers.RedisServer, replica: servers.RedisServer, link: FaultProxy) -> None:
        self.primary, self.replica, self.link = primary, replica, link

    def waits(self) -> int:
        """How many WAITs the primary has answered."""
        stats: Any = self.primary.client().info("commandstats")
        return stats.get("cmdstat_wait", {"calls": 0})["calls"]


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    with servers.redis_server(repl_timeout=60) as primary, FaultProxy(primary.port) as link:
        settings = {"replicaof": f"{servers.HOST} {link.port}", "repl_diskless_sync_delay": 0}
        with servers.redis_server(**settings) as replica:
            servers.eventually(
                lambda: replica.client().info("replication")["master_link_status"] == "up", "the replica"
            )
            yield Pair(primary, replica, link)


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[Pair]:
    """One for the tests that leave it whole."""
    with pair() as both:
        yield both


@pytest.fixture
async def replicated(host: Host, shared_pair: Pair) -> AsyncIterator[tuple[Pair, Awaited]]:
    """The pair, and a started sale of ten phones that waits for one replica, long enough for a slow machine."""
    host.raw = shared_pair.primary.client()
    host.raw.flushall()
    sale = waits(host, both=shared_pair)
    await sale.preload("phone", 10)
    await sale.start("phone")
    yield shared_pair, sale
    shared_pair.link.release()


def waits(host: Host, both: Pair, **settings: Any) -> Awaited:
    """A sale on the primary that waits for the replica."""
    settings = {"durability": Durability.REPLICATED, "durable_within": 4.0, "cache_for": 0} | settings
    return host.on(host.connect(both.primary.port), **settings)


def hurries(host: Host, both: Pair, **settings: Any) -> Awaited:
    """The same, for as long as the link is held: it need not be patient."""
    return waits(host, both, durable_within=0.1, **settings)


async def test_an_order_is_accepted_when_a_replica_has_it(replicated: tuple[Pair, Awaited]) -> None:
    both, sale = replicated
    for n in range(5):
        assert (await sale.buy("phone", "ann", order_id=f"o-{n}")).outcome is ACCEPTED
        assert both.replica.client().hexists("flashsale:{spring}:orders", f"o-{n}")  # no waiting: it is there
    assert both.waits() >= 5


async def test_without_a_replica_in_time_the_answer_is_uncertain_and_a_replay_waits_again(
    host: Host, replicated: tuple[Pair, Awaited]
) -> None:
    both, sale = replicated
    hasty = hurries(host, both)
    assert (await sale.buy("phone", "ann", order_id="before")).accepted
    both.link.hold()
    first = await hasty.buy("phone", "ann", 2, order_id="o-1")
    assert (first.outcome, first.accepted, first.replayed, first.state) == (UNCERTAIN, False, False, QUEUED)
    assert await booked(sale) == 3
    again = await hasty.buy("phone", "ann", 2, order_id="o-1")
    assert (again.outcome, again.replayed, again.state) == (UNCERTAIN, True, QUEUED)
    assert await booked(sale) == await access(sale) == 3  # the unit is booked once, and sold to nobody else
    both.link.release()
    again = await sale.buy("phone", "ann", 2, order_id="o-1")
    assert (again.outcome, again.replayed, again.state) == (ACCEPTED, True, QUEUED)
    assert both.replica.client().hexists("flashsale:{spring}:orders", "o-1")
    assert await booked(sale) == 3


async def test_a_replay_on_a_connection_that_wrote_nothing_waits_as_well(
    host: Host, replicated: tuple[Pair, Awaited]
) -> None:
    """WAIT counts the writes of its own connection; that of another process has none."""
    both, _ = replicated
    both.link.hold()
    for _ in range(2):
        assert (await hurries(host, both).buy("phone", "ann", order_id="o-1")).outcome is UNCERTAIN


async def test_who_is_refused_waits_for_nobody(replicated: tuple[Pair, Awaited]) -> None:
    both, sale = replicated
    assert (await sale.buy("phone", "ann", 10, order_id="all")).accepted
    both.link.hold()
    before, offset = both.waits(), both.primary.client().info("replication")["master_repl_offset"]
    for n in range(5):
        assert (await sale.buy("phone", "bob", order_id=f"o-{n}")).outcome is SOLD_OUT
    assert both.waits() == before
    assert both.primary.client().info("replication")["master_repl_offset"] <= offset + 200  # pings, no writes


async def test_more_replicas_than_there_are_is_uncertain(host: Host, replicated: tuple[Pair, Awaited]) -> None:
    both, _ = replicated
    sale = hurries(host, both, replicas=2)
    assert (await sale.buy("phone", "ann", order_id="o-1")).outcome is UNCERTAIN
    assert await booked(sale) == 1


async def test_a_basket_waits_too(host: Host, replicated: tuple[Pair, Awaited]) -> None:
    both, sale = replicated
    await sale.preload("case", 5)
    await sale.start("case")
    assert (await sale.buy_basket("ann", [("phone", 1), ("case", 1)], basket_id="b-0")).accepted
    both.link.hold()
    basket = await hurries(host, both).buy_basket("ann", [("phone", 2), ("case", 3)], basket_id="b-1")
    assert [basket.outcome, *(receipt.outcome for receipt in basket.receipts)] == [UNCERTAIN] * 3
    assert await booked(sale) == 3
    both.link.release()
    assert (await sale.buy_basket("ann", [("phone", 2), ("case", 3)], basket_id="b-1")).accepted
    assert (await booked(sale), await booked(sale, "case")) == (3, 4)


async def test_a_wait_that_is_lost_is_uncertain_and_the_connection_is_not_used_again(
    host: Host, replicated: tuple[Pair, Awaited]
) -> None:
    both, _ = replicated
    with FaultProxy(both.primary.port) as line:
        sale = host.on(host.connect(line.port), durability=Durability.REPLICATED, durable_within=4, cache_for=0)
        line.cut_reply(b"$4\r\nWAIT")
        assert (await sale.buy("phone", "ann", order_id="o-1")).outcome is UNCERTAIN
        again = await sale.buy("phone", "ann", order_id="o-1")
        assert (again.outcome, again.replayed) == (ACCEPTED, True)
        line.swallow_reply(b"$4\r\nWAIT")
        short = host.on(
            host.connect(line.port, socket_timeout=0.3),
            durability=Durability.REPLICATED,
            durable_within=60,
            cache_for=0,
        )
        assert (await short.buy("phone", "ann", order_id="o-2")).outcome is UNCERTAIN
        assert (await short.status("o-2"), await short.status("nobody")) == (QUEUED, None)
        assert await booked(sale) == 2


@pytest.mark.parametrize("durability", [Durability.REPLICATED, Durability.ACCEPTED])
async def test_what_was_accepted_survives_a_promotion(host: Host, durability: Durability) -> None:
    """The link is cut, then the primary dies; in the memory of the primary alone, accepted orders die with it."""
    with pair() as both:
        sale, hasty = (make(host, both, durability=durability) for make in (waits, hurries))
        await sale.preload("phone", 10)
        await sale.start("phone")
        answers = [await sale.buy("phone", "ann", order_id=f"o-{n}") for n in range(4)]
        client = both.replica.client()
        servers.eventually(lambda: client.hlen("flashsale:{spring}:orders") == 4, "the replica has caught up")
        both.link.hold()
        answers += [await hasty.buy("phone", "ann", order_id=f"o-{n}") for n in range(4, 8)]
        both.primary.kill()
        client.replicaof("NO", "ONE")
        kept = {name.decode() for name in client.hkeys("flashsale:{spring}:orders")}
        accepted = {receipt.order_id for receipt in answers if receipt.accepted}
        assert len(kept) == 4
        if durability is Durability.ACCEPTED:
            assert len(accepted - kept) == 4
            return
        assert accepted == kept
        assert [receipt.outcome for receipt in answers[4:]] == [UNCERTAIN] * 4
        sale = host.on(host.connect(both.replica.port), cache_for=0)  # each of these asks again, and is told the truth
        replays = [await sale.buy("phone", "ann", order_id=f"o-{n}") for n in range(8)]
        assert [receipt.replayed for receipt in replays] == [True] * 4 + [False] * 4
        assert all(receipt.accepted for receipt in replays)
        assert await booked(sale) == 8


# -- fsynced --------------------------------------------------------------------------------------------------------


def version() -> tuple[int, ...]:
    """Of the servers of this run; Valkey goes on from Redis 7.2."""
    said = subprocess.run([servers.redis_executable(), "--version"], capture_output=True, text=True, check=True).stdout
    number = next(word for word in said.split() if word.startswith("v="))
    return tuple(int(part) for part in number[2:].split(".")[:2])


async def test_an_order_is_accepted_when_it_is_on_the_disk_of_the_primary(host: Host) -> None:
    if version() < (7, 2):
        pytest.skip("this server has no WAITAOF; it takes Redis or Valkey 7.2")
    with servers.redis_server(aof=True) as server:
        how = {"durability": Durability.FSYNCED, "cache_for": 0}
        sale = await host.opened(host.connect(server.port), 10, durable_within=4, **how)
        hasty = host.on(host.connect(server.port), durable_within=0.3, **how)
        for replayed in (False, True):
            receipt = await sale.buy("phone", "ann", order_id="o-1")
            assert (receipt.outcome, receipt.replayed) == (ACCEPTED, replayed)
        server.client().config_set("appendfsync", "no")  # when the kernel likes
        for replayed in (False, True):
            receipt = await hasty.buy("phone", "ann", order_id="o-2")
            assert (receipt.outcome, receipt.state, receipt.replayed) == (UNCERTAIN, QUEUED, replayed)
        server.client().config_set("appendfsync", "always")
        receipt = await sale.buy("phone", "ann", order_id="o-2")
        assert (receipt.outcome, receipt.replayed) == (ACCEPTED, True)
        server.restart()
        again = host.on(host.connect(server.port))
        assert [await again.status(name) for name in ("o-1", "o-2")] == [QUEUED] * 2
        assert await booked(again) == 2


async def test_a_server_that_cannot_say_so_answers_uncertain_at_once(host: Host) -> None:
    """Too old for WAITAOF, or without an append-only file; `check` says it before the sale."""
    with servers.redis_server() as server:
        sale = await host.opened(host.connect(server.port), 10, durability=Durability.FSYNCED, durable_within=30)
        began = time.monotonic()
        for _ in range(3):
            receipt = await sale.buy("phone", "ann", order_id="o-1")
            assert (receipt.outcome, receipt.state) == (UNCERTAIN, QUEUED)
        assert time.monotonic() - began < 10
        assert await booked(sale) == 1
        found = {finding.name for finding in await sale.check()}
        assert found == ({"persistence"} if version() >= (7, 2) else {"persistence", "version"})


# -- persisted ------------------------------------------------------------------------------------------------------


async def persisted(shop: Shop, *goods: Goods, **settings: Any) -> Awaited:
    """A started sale whose buyers hear ACCEPTED when their row is committed."""
    goods = goods or (Goods("phone", 10, per_buyer=9, hold=60),)
    settings = {"durability": Durability.PERSISTED, "cache_for": 0} | settings
    sale = shop.sale(store=await shop.store(*goods), **settings)
    await shop.syncer(sale).run_once()
    for each in goods:
        await sale.start(each.goods_id)
    return sale


@each_backend
async def test_the_row_is_committed_before_the_buyer_hears_of_it(shop: Shop) -> None:
    sale = await persisted(shop)
    receipt = await sale.buy("phone", "ann", 2, order_id="o-1", data={"colour": "red"})
    assert (receipt.outcome, receipt.state, receipt.replayed) == (ACCEPTED, PERSISTED, False)
    ((row),) = await settled(sale.store.orders())
    assert (row.order.content, row.order.data, row.state) == (("phone", "ann", 2), {"colour": "red"}, PERSISTED)
    assert row.order.created_at is not None
    assert shop.raw.zscore(shop.keys.holds, "o-1") is not None  # the time to pay has begun
    again = await sale.buy("phone", "ann", 2, order_id="o-1")
    assert (again.outcome, again.state, again.replayed) == (ACCEPTED, PERSISTED, True)
    assert await sale.confirm("o-1") is OrderState.CONFIRMED  # nobody waits for the worker
    await work(shop, sale)  # it meets a row that exists
    assert await rows(sale) == {"o-1": OrderState.CONFIRMED}
    assert await sale.status("o-1") is OrderState.CONFIRMED
    assert await booked(sale) == await active_units(sale) == 2
    assert (await shop.syncer(sale).audit(["o-1"])).ok


async def test_a_crowd_shares_commits(real_shop: Shop) -> None:
    shop = real_shop
    sale = await persisted(shop, Goods("phone", 60))
    saves: list[int] = []
    store = sale.store
    save = store.save

    async def acounted(orders: Any) -> Any:
        saves.append(len(orders))
        return await save(orders)

    def counted(orders: Any) -> Any:
        saves.append(len(orders))
        return save(orders)

    store.save = acounted if shop.is_async else counted
    receipts = await asyncio.gather(*(sale.buy("phone", f"b-{n}", order_id=f"o-{n}") for n in range(100)))
    outcomes = [receipt.outcome for receipt in receipts]
    assert (outcomes.count(ACCEPTED), outcomes.count(SOLD_OUT)) == (60, 40)
    assert sum(saves) == 60
    assert len(saves) < 60
    assert {receipt.order_id for receipt in receipts if receipt.accepted} == set(await rows(sale))


@each_backend
async def test_a_database_that_is_down_is_uncertain_and_the_worker_persists_later(shop: Shop) -> None:
    sale = await persisted(shop)
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    first = await sale.buy("phone", "ann", order_id="o-1")
    assert (first.outcome, first.accepted, first.state) == (UNCERTAIN, False, QUEUED)
    again = await sale.buy("phone", "ann", order_id="o-1")
    assert (again.outcome, again.replayed) == (UNCERTAIN, True)
    assert await booked(sale) == 1
    shop.sql("ALTER TABLE away RENAME TO flashsale_orders")
    await work(shop, sale)
    assert await rows(sale) == {"o-1": PERSISTED}
    again = await sale.buy("phone", "ann", order_id="o-1")
    assert (again.outcome, again.state, again.replayed) == (ACCEPTED, PERSISTED, True)
    assert await booked(sale) == await active_units(sale) == 1


@each_backend
async def test_a_replay_persists_what_was_uncertain(shop: Shop) -> None:
    sale = await persisted(shop)
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    assert (await sale.buy("phone", "ann", order_id="o-1")).outcome is UNCERTAIN
    shop.sql("ALTER TABLE away RENAME TO flashsale_orders")
    again = await sale.buy("phone", "ann", order_id="o-1")
    assert (again.outcome, again.state) == (ACCEPTED, PERSISTED)
    assert await rows(sale) == {"o-1": PERSISTED}


@each_backend
async def test_what_the_guard_refuses_is_sold_out_and_its_units_return_once(shop: Shop) -> None:
    sale = await persisted(shop)
    shop.sql("UPDATE flashsale_goods SET granted = 3")
    assert (await sale.buy("phone", "ann", 2, order_id="a")).accepted
    for replayed in (False, True):
        refused = await sale.buy("phone", "bob", 2, order_id="b")
        assert (refused.outcome, refused.state, refused.replayed) == (SOLD_OUT, REJECTED, replayed)
        assert await booked(sale) == await access(sale) == await active_units(sale) == 2
    assert shop.raw.hget(shop.keys.buyers("phone"), "bob") == b"0"
    await work(shop, sale)
    assert await rows(sale) == {"a": PERSISTED, "b": REJECTED}
    assert (await shop.syncer(sale).audit("ab")).ok
    assert (await sale.buy("phone", "cleo", order_id="c")).accepted


@each_backend
async def test_an_order_among_the_dead_is_uncertain(shop: Shop) -> None:
    sale = await persisted(shop)
    shop.sql("CREATE TRIGGER poison BEFORE INSERT ON flashsale_orders BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert (await sale.buy("phone", "ann", order_id="o-1")).outcome is UNCERTAIN
    await work(shop, sale)
    assert await sale.status("o-1") is DEAD
    again = await sale.buy("phone", "ann", order_id="o-1")
    assert (again.outcome, again.state) == (UNCERTAIN, DEAD)
    assert await sale.cancel("o-1") is CANCELLED  # though the database does not even take the tombstone
    assert (await booked(sale), await sale.queue.dead(), await rows(sale)) == (0, [], {})
    assert (await shop.syncer(sale).audit(["o-1"])).ok


@each_backend
async def test_an_order_that_was_cancelled_since_says_so(shop: Shop) -> None:
    sale = await persisted(shop)
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.cancel("o-1")
    again = await sale.buy("phone", "ann", order_id="o-1")
    assert (again.outcome, again.replayed, again.state) == (ACCEPTED, True, CANCELLED)


async def test_redis_lost_behind_the_script_is_never_called_not_executed(host: Host, tmp_path: Any) -> None:
    """The units are booked: whoever is told that nothing happened may order a second time."""
    stores = importlib.import_module(f"{host.api.__name__}.stores")
    with servers.redis_server() as server, FaultProxy(server.port) as line:
        host.raw = server.client()
        store = Awaited(stores.SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "spring"), host._threads)
        await store.create_all()
        await store.put_goods(Goods("phone", 5))
        sale = await host.opened(host.connect(line.port), 5, store=store, durability=Durability.PERSISTED, cache_for=0)
        line.lose_request(b"$4\r\nTIME\r\n", times=None)
        receipt = await sale.buy("phone", "ann")
        assert (receipt.outcome, receipt.state) == (UNCERTAIN, QUEUED)
        assert host.booked() == 1
        line.clear()
        again = await sale.buy("phone", "ann", order_id=receipt.order_id)
        assert (again.outcome, again.replayed, again.state) == (ACCEPTED, True, PERSISTED)
        assert host.booked() == 1
        await store.close()


@each_backend
async def test_on_two_redis_a_refused_orders_slot_returns(shop: Shop) -> None:
    sale = await persisted(shop, gate_client=shop.client(db=1))
    shop.sql("UPDATE flashsale_goods SET granted = 1")
    assert (await sale.buy("phone", "ann", order_id="a")).accepted
    assert (await sale.buy("phone", "bob", order_id="b")).outcome is SOLD_OUT
    assert await booked(sale) == await access(sale) == 1


@each_backend
async def test_a_basket_is_persisted_whole_or_given_back(shop: Shop) -> None:
    sale = await persisted(shop, Goods("phone", 10), Goods("case", 10))
    assert (await sale.buy_basket("ann", [("phone", 1), ("case", 1)], basket_id="b-1")).accepted
    assert await rows(sale) == dict.fromkeys(["b-1#1", "b-1#2"], PERSISTED)
    shop.sql("UPDATE flashsale_goods SET granted = 2 WHERE goods_id = 'phone'")
    for replayed in (False, True):
        basket = await sale.buy_basket("bob", [("phone", 2), ("case", 2)], basket_id="b-2")
        assert (basket.outcome, basket.accepted) == (SOLD_OUT, False)
        assert [receipt.outcome for receipt in basket.receipts] == [SOLD_OUT] * 2
        assert [receipt.state for receipt in basket.receipts] == [CANCELLED, REJECTED]
        assert [receipt.replayed for receipt in basket.receipts] == [replayed] * 2
        assert [await booked(sale, name) for name in ("phone", "case")] == [1, 1]
        assert [await access(sale, name) for name in ("phone", "case")] == [1, 1]
    await work(shop, sale)
    assert [await active_units(sale, name) for name in ("phone", "case")] == [1, 1]
    assert (await shop.syncer(sale).audit()).ok


@each_backend
async def test_half_a_basket_that_cannot_be_given_back_is_uncertain_until_it_is(shop: Shop) -> None:
    sale = await persisted(shop, Goods("phone", 10), Goods("case", 10))
    shop.sql("UPDATE flashsale_goods SET granted = 0 WHERE goods_id = 'phone'")
    shop.sql(
        "CREATE TRIGGER down BEFORE UPDATE ON flashsale_orders WHEN NEW.state = 'CANCELLED' "
        "BEGIN SELECT RAISE(ABORT, 'down'); END"
    )
    basket = await sale.buy_basket("bob", [("phone", 2), ("case", 2)], basket_id="b-1")
    assert basket.outcome is UNCERTAIN
    shop.sql("DROP TRIGGER down")
    basket = await sale.buy_basket("bob", [("phone", 2), ("case", 2)], basket_id="b-1")
    assert basket.outcome is SOLD_OUT
    assert [await booked(sale, name) for name in ("phone", "case")] == [0, 0]


# -- what cannot be given is refused before the sale ----------------------------------------------------------------


async def test_what_a_client_or_a_store_cannot_give_is_refused_at_construction(host: Host) -> None:
    client = host.connect(1)  # nobody is asked
    for durability in (Durability.PERSISTED, "persisted"):
        with pytest.raises(StoreRequired):
            host.on(client, durability=durability)
    for wrong in (
        {"durability": "safe"},
        {"durability": None},
        {"durability": Durability.REPLICATED, "replicas": 0},
        {"durability": Durability.REPLICATED, "replicas": True},
        {"durability": Durability.REPLICATED, "durable_within": 0},
        {"durability": Durability.REPLICATED, "durable_within": 61},
    ):
        with pytest.raises(InvalidRequest):
            host.on(client, **wrong)
    for fine in Durability:
        if fine is not Durability.PERSISTED:
            host.on(client, durability=str(fine))


@pytest.mark.parametrize(
    ("within", "socket_timeout", "milliseconds"),
    [(1, 5, 1000), (10, 5, 4500), (1, 1, 500), (0.001, 5, 1), (1, 0.2, 100)],
)
def test_a_wait_ends_before_the_connection_would_be_given_up(
    within: float, socket_timeout: float, milliseconds: int
) -> None:
    guarantee = Guarantee(Durability.REPLICATED, replicas=2, within=within, socket_timeout=socket_timeout)
    assert guarantee.barrier("meta")[-1] == ("WAIT", 2, milliseconds)


# -- the check before a sale ----------------------------------------------------------------------------------------

GOOD = {"redis_version": "7.4.0", "maxmemory_policy": "noeviction", "aof_enabled": "1", "connected_slaves": "1"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"maxmemory_policy": "allkeys-lru"}, ["eviction"]),
        ({"maxmemory_policy": "volatile-ttl"}, ["eviction"]),
        ({"aof_enabled": "0"}, ["persistence"]),
        ({"connected_slaves": "0"}, ["replicas"]),
        ({"redis_version": "6.0.16"}, ["version"]),
        ({"redis_version": "6.2.0"}, []),
        ({"redis_version": "6.0.0", "valkey_version": "8.0.1"}, []),
        (
            {"maxmemory_policy": "allkeys-lfu", "aof_enabled": "0", "connected_slaves": "0"},
            ["eviction", "persistence", "replicas"],
        ),
    ],
)
def test_what_a_servers_settings_say(change: dict[str, str], found: list[str]) -> None:
    assert [finding.name for finding in judge(GOOD | change, replicas=1)] == found


def test_a_server_that_says_nothing_is_a_finding() -> None:
    assert [finding.name for finding in judge({}, replicas=0)] == ["version"]
    assert judge(GOOD, replicas=1, oldest=(7, 2)) == ()
    (finding,) = judge(GOOD | {"redis_version": "7.0.15"}, replicas=1, oldest=(7, 2))
    assert finding.name == "version"


async def test_an_unfit_server_is_named_and_with_strict_refused(host: Host) -> None:
    with servers.redis_server(maxmemory_policy="allkeys-lru") as server:
        sale = host.on(host.connect(server.port))
        before = snapshot(server.client())
        findings = await sale.check(replicas=1)
        assert [finding.name for finding in findings] == ["eviction", "persistence", "replicas"]
        assert "allkeys-lru" in str(findings[0])
        with pytest.raises(UnsafeServer) as caught:
            await sale.check(replicas=1, strict=True)
        assert caught.value.findings == findings
        assert "allkeys-lru" in str(caught.value)
        assert snapshot(server.client()) == before
        for wrong in (-1, "1", True, 1.0):
            with pytest.raises(InvalidRequest):
                await sale.check(replicas=wrong)
        waiting = host.on(host.connect(server.port), durability=Durability.REPLICATED, replicas=2)
        assert "2 are wanted" in str((await waiting.check())[-1])  # its durability needs them


async def test_a_fit_server_passes(host: Host) -> None:
    with servers.redis_server(aof=True) as server, servers.redis_server(replica_of=server):
        sale = host.on(host.connect(server.port), durability=Durability.REPLICATED)
        assert await sale.check(replicas=1, strict=True) == ()


async def test_the_fake_is_not_called_fit(shop: Shop) -> None:
    if shop.backend.kind == "fakeredis":
        assert {finding.name for finding in await shop.sale().check()} & {"version", "persistence"}


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@kills("the write before WAIT")
async def test_without_the_write_before_it_a_replay_would_not_wait(
    host: Host, replicated: tuple[Pair, Awaited]
) -> None:
    if version() < (7, 2):
        pytest.skip("this server waits for the writes of all connections; Redis and Valkey 7.2 for those of one")
    await test_a_replay_on_a_connection_that_wrote_nothing_waits_as_well(host, replicated)


@kills("the units of a refused order")
async def test_without_the_settling_of_a_refusal_its_units_would_stay(sync_shop: Shop) -> None:
    await test_what_the_guard_refuses_is_sold_out_and_its_units_return_once(sync_shop)
