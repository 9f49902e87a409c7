"""A sale over several partitions on several servers: looks, ends, durability, transactions of the host's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Durability, Goods, NotExecuted, OrderState, Outcome, OutcomeUnknown
from flashsale.testing.proxy import FaultProxy
from tests.core.test_partition_units import in_thread
from tests.support import servers
from tests.support.helpers import until
from tests.support.partitions import FOUR, allotted, booked, buyer, keys, opened, partitioned, rows, synced, work
from tests.support.transactions import HostDatabase, Undone, follows, stays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.helpers import Awaited, Shop
    from tests.support.hosts import Host

ACCEPTED, SOLD_OUT, UNCERTAIN = Outcome.ACCEPTED, Outcome.SOLD_OUT, Outcome.UNCERTAIN
CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED


# -- looks ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def four_servers() -> Iterator[list[servers.RedisServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(servers.redis_server()) for _ in range(FOUR)]


async def test_all_servers_are_asked_before_one_has_answered(host: Host) -> None:
    """So a look takes as long as the slowest server, and not as long as all of them together."""
    with four_servers() as running, contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(each.port)) for each in running]
        sale = partitioned(host, client=[host.connect(each.port) for each in proxies])
        await opened(host, 8, sale=sale)
        assert (await sale.buy("phone", buyer(1), 8)).accepted  # every connection is there, and every script loaded
        needles = [keys(place).transfers("phone").encode() for place in range(FOUR)]
        before = [proxy.count(needle) for proxy, needle in zip(proxies, needles, strict=True)]
        for proxy in proxies:
            proxy.hold()
        asked = asyncio.create_task(in_thread(sale.real._transfers.look, "phone"))
        for proxy, needle, count in zip(proxies, needles, before, strict=True):
            await asyncio.to_thread(proxy.wait_for, needle, count=count + 1)
        for proxy in proxies:
            proxy.release()
        assert (await asked).left == 0


# -- ends and outages --------------------------------------------------------------------------------------------------


async def test_a_sale_closes_all_that_it_has_opened(host: Host) -> None:
    """What is left open is an error of this test run; the counts of all partitions are told at the end."""
    with four_servers() as running:
        clients = [host.connect(each.port) for each in running]
        store = await host.store(Goods("phone", 8))
        sale = host.api.FlashSale(clients, "spring", partitions=8, store=store.real, cache_for=0)
        sale._transfers._within = 8.0
        if host.is_async:
            async with sale:
                await host.api.Syncer(sale).run_once()
                await sale.start("phone")
                for n in range(10):
                    await sale.buy("phone", f"b{n}")
        else:
            with sale:
                host.api.Syncer(sale).run_once()
                sale.start("phone")
                for n in range(10):
                    sale.buy("phone", f"b{n}")
        made = [connection for link in sale._links for connection in link._servers._made]
        assert made == []
        with running[0].client() as client:
            counted = {
                name.decode(): int(times)
                for key in client.keys("*:stats")
                for name, times in client.hgetall(key).items()
                if b"phone" in name
            }
        assert sum(times for name, times in counted.items() if "ACCEPTED" in name or "SOLD_OUT" in name) == 10


async def test_a_server_that_is_gone_is_named_and_stops_no_other(host: Host) -> None:
    with four_servers() as running:
        sale = partitioned(host, client=[host.connect(each.port, socket_timeout=5) for each in running], timeout=4.0)
        await opened(host, 8, sale=sale)
        running[2].kill()
        for what in ("stop", "start", "pause", "resume"):
            with pytest.raises((NotExecuted, OutcomeUnknown)) as caught:
                await (getattr(sale, what)("phone") if what in {"start", "stop"} else getattr(sale, what)())
            assert caught.value.__notes__ == [f"partitions without {what}: 2"]
        with pytest.raises(NotExecuted):
            await sale.buy("phone", buyer(2))
        with pytest.raises(NotExecuted, match=r"partition 2|a partition did not answer"):
            await sale.view("phone")
        for place in (0, 1, 3):
            assert (await sale.buy("phone", buyer(place), 2)).accepted  # started again, and not paused
        with pytest.raises(NotExecuted, match=r"partition 2|a partition did not answer"):  # never SOLD_OUT
            await sale.buy("phone", buyer(0))


async def test_a_server_that_is_silent_is_not_waited_for_twice(host: Host) -> None:
    with four_servers() as running:
        sale = partitioned(host, client=[host.connect(each.port) for each in running])
        await opened(host, 4, sale=sale)
        for place in (0, 1, 3):
            assert (await sale.buy("phone", buyer(place))).accepted
        sale.real._transfers._within = 0.25
        running[2].freeze()
        try:
            with pytest.raises(NotExecuted, match=r"partition 2 does not answer|a moment ago"):
                await sale.buy("phone", buyer(0))
        finally:
            running[2].thaw()
        await until(lambda: sold(sale), "the last unit")


async def sold(sale: Awaited) -> bool:
    try:
        return bool((await sale.buy("phone", buyer(0))).accepted)
    except NotExecuted:
        return False


# -- durability -------------------------------------------------------------------------------------------------------


async def test_persisted_means_a_row_also_for_who_had_to_fetch(shop: Shop) -> None:
    sale, _ = await synced(shop, 8, settings={"durability": Durability.PERSISTED})
    receipt = await sale.buy("phone", buyer(1), 8)  # more than its partition has
    assert (receipt.outcome, receipt.state) == (ACCEPTED, PERSISTED)
    assert await rows(sale) == {receipt.order_id: PERSISTED}
    assert (await sale.buy("phone", buyer(1))).outcome is SOLD_OUT
    await work(shop, sale)
    assert (await shop.syncer(sale).audit()).ok


async def test_replicated_means_that_moves_are_replicated_first(host: Host) -> None:
    with servers.redis_server() as primary, servers.redis_server(replica_of=primary) as replica:
        host.raw = primary.client()
        settings: dict[str, Any] = {"durability": Durability.REPLICATED, "durable_within": 20.0, "timeout": 60.0}
        client = host.connect(primary.port, socket_timeout=60.0)
        sale = await opened(host, 8, sale=partitioned(host, client=client, **settings))
        receipt = await sale.buy("phone", buyer(1), 8)
        assert receipt.outcome is ACCEPTED
        stats: Any = primary.client().info("commandstats")
        moves = sum(int(host.raw.hget(keys(place).transfers("phone"), "moves") or 0) for place in range(FOUR))
        assert stats["cmdstat_wait"]["calls"] == moves + 1  # each debit and credit, and the order
        there = replica.client()
        for place in range(FOUR):
            fields = there.hgetall(keys(place).transfers("phone"))
            assert all(value.endswith(b" 0") for name, value in fields.items() if name.startswith(b"to:"))
        assert (await sale.buy("phone", buyer(1))).outcome is SOLD_OUT


async def test_a_move_that_no_replica_has_does_not_count(host: Host) -> None:
    """Its units are neither lost nor sold: they arrive once a replica answers."""
    with servers.redis_server() as primary, servers.redis_server(replica_of=primary) as replica:
        host.raw = primary.client()
        plain = await opened(host, 8, sale=partitioned(host, client=host.connect(primary.port)))
        settings: dict[str, Any] = {"durability": Durability.REPLICATED, "durable_within": 0.1, "timeout": 2.0}
        client = host.connect(primary.port, socket_timeout=2.0)
        sale = partitioned(host, client=client, **settings)
        replica.freeze()
        try:
            with pytest.raises(NotExecuted):
                await sale.buy("phone", buyer(1), 8)
        finally:
            replica.thaw()
        assert (await plain.buy("phone", buyer(1, 1), 8)).accepted
        assert (booked(host), allotted(host)) == (8, 8)


# -- transactions of the host's ---------------------------------------------------------------------------------------


async def test_orders_of_several_partitions_follow_the_hosts_commit(real_shop: Shop) -> None:
    sale, syncer = await synced(real_shop, 8)
    ids = [(await sale.buy("phone", buyer(place))).order_id for place in range(FOUR)]
    await work(real_shop, sale)
    host = HostDatabase(real_shop, f"sqlite:///{real_shop.database}")
    with contextlib.suppress(Undone):
        async with host.begin() as connection:
            assert await sale.cancel(ids[0], connection=connection) is CANCELLED
            assert await sale.confirm(ids[1], connection=connection) is CONFIRMED
            raise Undone
    for order_id in ids:
        await stays(sale, order_id, PERSISTED)
    async with host.begin() as connection:
        assert await sale.cancel(ids[0], connection=connection) is CANCELLED
        assert await sale.confirm(ids[1], connection=connection) is CONFIRMED
        assert await sale.cancel(ids[3], connection=connection) is CANCELLED
    await follows(sale, ids[0], CANCELLED)
    await follows(sale, ids[1], CONFIRMED)
    await follows(sale, ids[3], CANCELLED)
    assert booked(real_shop) == 2
    assert (await syncer.audit()).ok
