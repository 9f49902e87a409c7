"""Sales through Sentinel and on a Cluster: elections, dead nodes, moved slots; a caller retries with the same id."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

import flashsale.aio
from flashsale import Goods, NotExecuted, OrderState, OutcomeUnknown
from flashsale.keys import PlainKeys
from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.helpers import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts import Host

UNITS = 20


async def served(sale: Any, order_id: str, **order: Any) -> Any:
    """Buys, again and again with one order id, until there is an answer: what every caller should do."""

    async def ask() -> Any:
        try:
            return await sale.buy("phone", "ann", order_id=order_id, **order)
        except (NotExecuted, OutcomeUnknown) as error:
            assert error.order_id == order_id
            return None

    return await until(ask, f"an answer for {order_id}")


# -- Sentinel -------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A primary, its replica and three Sentinels."""
    with (
        servers.redis_server() as primary,
        servers.redis_server(replica_of=primary) as replica,
        servers.sentinels(primary) as sentinels,
    ):
        yield primary, replica, sentinels


Watched = tuple[servers.RedisServer, servers.RedisServer, servers.Sentinels]


def clients(host: Host, sentinels: servers.Sentinels, **settings: Any) -> tuple[Any, Any, Any]:
    """Returns redis-py's Sentinel, and its clients for the primary and for a replica."""
    manager = sentinels.amanager(**settings) if host.is_async else sentinels.manager(**settings)
    for each in manager.sentinels:
        host.keep(each)
    return manager, host.keep(manager.master_for(sentinels.name)), host.keep(manager.slave_for(sentinels.name))


async def test_a_primary_dies(host: Host, watched: Watched) -> None:
    primary, replica, sentinels = watched
    manager, client, reader = clients(host, sentinels, decode_responses=True)
    order = list(manager.sentinels)
    sale = await host.opened(client, UNITS, gate_replica=reader)
    before = [await served(sale, f"o-{number}") for number in range(8)]
    assert await until(lambda: _count(sale), "the gate on the replica") == UNITS
    replica.catch_up(primary)  # what was acknowledged before the crash is on the replica
    buyers = [asyncio.create_task(served(sale, f"p-{number}")) for number in range(16)]
    await asyncio.to_thread(primary.kill)
    await asyncio.gather(*buyers)
    again = [await served(sale, f"p-{number}") for number in range(16)]  # some answers came from the dead one
    host.raw = replica.client()
    assert sum(receipt.accepted for receipt in [*before, *again]) == host.booked() == UNITS
    assert manager.sentinels == order  # redis-py reorders them when it asks; we ask through a copy


async def _count(sale: Any) -> int:
    return (await sale.gate.state("phone")).count


async def test_a_primary_is_switched(host: Host, watched: Watched) -> None:
    """The old primary lives on as a replica, and idle connections still lead there."""
    primary, replica, sentinels = watched
    sale = await host.opened(clients(host, sentinels)[1], UNITS)
    assert (await sale.buy("phone", "ann")).accepted
    replica.catch_up(primary)
    await until(lambda: _switched(sentinels), "a switch")
    await until(lambda: sentinels.primary_port() == replica.port, "the Sentinels to agree")
    primary.client().replicaof(servers.HOST, replica.port)  # the Sentinels would do it in some seconds
    receipts = [await served(sale, f"o-{number}") for number in range(UNITS)]
    host.raw = replica.client()
    assert sum(receipt.accepted for receipt in receipts) + 1 == host.booked() == UNITS


async def test_a_repeat_is_replicated_after_a_switch(host: Host, watched: Watched) -> None:
    """It writes nothing, so the old primary, a replica by now, answers it; only the barrier behind it fails there."""
    primary, replica, sentinels = watched
    sale = await host.opened(clients(host, sentinels)[1], UNITS, durability="replicated")
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    await until(lambda: _switched(sentinels), "a switch")
    await until(lambda: sentinels.primary_port() == replica.port, "the Sentinels to agree")
    primary.client().replicaof(servers.HOST, replica.port)
    primary.catch_up(replica)
    receipts = [await sale.buy("phone", "ann", order_id="o-1") for _ in range(3)]
    assert all(receipt.replayed for receipt in receipts)
    assert receipts[-1].accepted, "it asks the old primary for ever"


def _switched(sentinels: servers.Sentinels) -> bool:
    try:
        return bool(sentinels.servers[0].client().execute_command("SENTINEL", "FAILOVER", sentinels.name))
    except redis.ResponseError:  # no replica that is good enough, not yet
        return False


async def test_no_sentinel_answers(host: Host) -> None:
    sentinel = host.module(".sentinel").Sentinel([(servers.HOST, servers.free_port())])
    for each in sentinel.sentinels:
        host.keep(each)
    sale = host.on(host.keep(sentinel.master_for("flashsale")))
    with pytest.raises(NotExecuted) as refused:
        await sale.buy("phone", "ann", order_id="o-1")
    assert refused.value.order_id == "o-1"


# -- Cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Iterator[servers.Cluster]:
    """Three primaries."""
    with servers.cluster(cluster_require_full_coverage="no", aof=True) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: servers.Cluster, host: Host) -> servers.Cluster:
    """The three, emptied."""
    for node in nodes.nodes:
        node.client().flushall()
    host.raw = nodes.client()
    return nodes


def connect(host: Host, cluster: servers.Cluster, **settings: Any) -> Any:
    settings = servers.SPOKEN | settings
    return host.keep(host.redis.RedisCluster(host=servers.HOST, port=cluster.nodes[0].port, **settings))


def on(cluster: servers.Cluster, node: int) -> str:
    """Returns the name of a sale whose keys are on this node."""
    names = (f"sale-{number}" for number in range(1000))
    return next(name for name in names if cluster.node_of(f"{{{name}}}") is cluster.nodes[node])


async def test_buy_and_worker_on_every_node(host: Host, cluster: servers.Cluster) -> None:
    client = connect(host, cluster, decode_responses=True)
    before = dict(client.nodes_manager.nodes_cache)
    for node in range(3):
        name = on(cluster, node)
        store = await host.store_of(name, Goods("phone", 3))
        sale = await host.opened(client, 3, name=name, store=store)
        await sale.inventory.load_scripts()
        receipts = [await sale.buy("phone", "ann") for _ in range(4)]
        assert [receipt.accepted for receipt in receipts] == [True, True, True, False]
        assert await host.worker(sale).run_once() == 3
        assert await sale.status(receipts[0].order_id) is OrderState.PERSISTED
        assert await sale.cancel(receipts[0].order_id) is OrderState.CANCELLED
        assert (await sale.buy("phone", "bob")).accepted
        await sale.pause()
        await sale.resume()
        assert await sale.queue.dead() == []
        assert await sale.queue.pop(0.01)
        assert host.booked(name) == 3
        assert cluster.nodes[node].client().exists(f"flashsale:{{{name}}}:orders")
    if not host.is_async:  # the asyncio client was never used: it has not even looked at the cluster
        assert dict(client.nodes_manager.nodes_cache) == before


@contextlib.contextmanager
def behind_proxies(cluster: servers.Cluster) -> Iterator[tuple[dict[int, FaultProxy], Any]]:
    """A proxy in front of each node, by its port, and the settings that lead there."""
    with contextlib.ExitStack() as stack:
        proxies = {node.port: stack.enter_context(FaultProxy(node.port)) for node in cluster.nodes}
        ports = {port: proxy.port for port, proxy in proxies.items()}
        yield proxies, {"address_remap": lambda address: (address[0], ports.get(address[1], address[1]))}


async def test_a_reply_cut_by_a_node(host: Host, cluster: servers.Cluster) -> None:
    name = on(cluster, 1)
    with behind_proxies(cluster) as (proxies, settings):
        sale = await host.opened(connect(host, cluster, **settings), 2, name=name)
        await sale.inventory.load_scripts()
        proxy = proxies[cluster.nodes[1].port]
        proxy.cut_reply(b"EVALSHA")
        with pytest.raises(OutcomeUnknown):
            await sale.inventory.deduct("phone")
        assert (proxy.tripped, host.booked(name)) == (1, 1)
        proxy.cut_reply(b"EVALSHA", times=None)
        with pytest.raises(OutcomeUnknown) as unknown:
            await sale.buy("phone", "ann")
        assert host.booked(name) == 2
        proxy.clear()
        receipt = await sale.buy("phone", "ann", order_id=unknown.value.order_id)
        assert (receipt.accepted, receipt.replayed, host.booked(name)) == (True, True, 2)


async def test_a_dead_node_and_its_return(host: Host, cluster: servers.Cluster) -> None:
    client = connect(host, cluster)
    dead, alive = [await host.opened(client, 2, name=on(cluster, node)) for node in (2, 1)]
    assert (await dead.buy("phone", "ann")).accepted
    cluster.nodes[2].kill()
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises((NotExecuted, OutcomeUnknown)) as refused:
            await dead.buy("phone", "ann", order_id="o-1")
        assert refused.value.order_id == "o-1"
        assert (await alive.buy("phone", "ann")).accepted
    with pytest.raises(NotExecuted):  # by now it is known that nobody is there
        await dead.inventory.deduct("phone")
    await asyncio.to_thread(cluster.nodes[2].start)
    receipt = await served(dead, "o-1")
    assert (receipt.accepted, host.booked(on(cluster, 2))) == (True, 2)


async def test_the_bare_layout_is_for_one_server(host: Host, cluster: servers.Cluster) -> None:
    sale = host.make("FlashSale", connect(host, cluster), "spring", keys=PlainKeys())
    with pytest.raises(NotExecuted) as refused:
        await sale.preload("phone", 1)
    assert refused.value.reason == "CROSSSLOT"


async def test_nobody_of_a_cluster_answers() -> None:
    client = redis.asyncio.RedisCluster(host=servers.HOST, port=servers.free_port())  # the sync one would look at once
    async with flashsale.aio.FlashSale(client, "spring") as sale:
        with pytest.raises(NotExecuted) as refused:
            await sale.buy("phone", "ann")
        assert refused.value.order_id
