"""Several sales on a Cluster at once, while a slot moves and a primary dies; `--cluster` plays the others there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Durability, Goods, NotExecuted, OrderState, Outcome, OutcomeUnknown
from tests.support import servers
from tests.support.helpers import eventually, until
from tests.support.hosts import ON_AIO, ON_SYNC
from tests.support.load import Load
from tests.support.sales import active_units, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.hosts import Host

UNITS = 150


@pytest.fixture
def six() -> Iterator[servers.Cluster]:
    """Three primaries with a replica each; a part that is down leaves the others open."""
    with servers.cluster(replicas=True, cluster_require_full_coverage="no", cluster_node_timeout=1000) as cluster:
        yield cluster


@ON_AIO
async def test_sales_go_on_while_a_slot_moves_and_a_primary_dies(
    host: Host, six: servers.Cluster, record_property: Any
) -> None:
    client = host.keep(host.redis.RedisCluster(host=servers.HOST, port=six.nodes[0].port))
    moved, bereaved, quiet = [await load(host, client, name_on(six, node)) for node in (0, 1, 2)]
    async with moved.staff(), bereaved.staff(), quiet.staff():
        buyers = [asyncio.create_task(each.buy_all()) for each in (moved, bereaved, quiet)]
        await asyncio.sleep(0.2)
        felt = partial(moved.troubles.__getitem__, "TRYAGAIN")
        await asyncio.to_thread(move, six, moved.sale.real.inventory.sale, felt)
        assert felt()
        killed_at = time.monotonic()
        six.nodes[1].kill()
        outage = await until(lambda: bereaved.outage(killed_at), "an order after the kill", within=60)
        print(f"the replica sold {outage:.2f} s after the kill")
        record_property("outage", outage)
        for each in (moved, bereaved, quiet):
            each.pause = 0
        await asyncio.gather(*buyers)
    assert six.replicas[1].client().role()[0] == b"master"
    assert not quiet.troubles
    for each in (moved, bereaved, quiet):
        sold = {name for name, state in (await rows(each.sale)).items() if state is OrderState.PERSISTED}
        assert sold == each.accepted
        assert len(sold) == await active_units(each.sale) == UNITS


def names_on(cluster: servers.Cluster, node: int) -> Iterator[str]:
    """Yields names of sales whose keys are on this node."""
    names = (f"sale-{number}" for number in range(1000))
    return (name for name in names if cluster.node_of(f"{{{name}}}") is cluster.nodes[node])


def name_on(cluster: servers.Cluster, node: int) -> str:
    return next(names_on(cluster, node))


async def load(host: Host, client: Any, name: str, durability: Durability = Durability.PERSISTED) -> Load:
    store = await host.store_of(name, Goods("phone", UNITS), timeout=60)  # the database is nobody's trouble here
    sale = host.on(client, name, store=store, cache_for=0, durability=durability, durable_within=0.5)
    await host.syncer(sale).run_once()
    await sale.start("phone")
    return Load(host, sale, pause=0.4)


@ON_SYNC
async def test_a_replicated_sale_loses_nothing_with_its_primary(host: Host, six: servers.Cluster) -> None:
    """Under load; while there is no replica, buyers read UNCERTAIN and ask again."""
    client = host.keep(host.redis.RedisCluster(host=servers.HOST, port=six.nodes[0].port))
    safe = await load(host, client, name_on(six, 1), Durability.REPLICATED)
    async with safe.staff():
        buyers = asyncio.create_task(safe.buy_all())
        await until(lambda: len(safe.accepted) >= 10, "the first orders")
        await asyncio.to_thread(six.nodes[1].kill)
        promoted = six.replicas[1].client()
        await until(lambda: promoted.info("replication")["role"] == "master", "a promotion", within=60)
        await asyncio.to_thread(six.nodes[1].start)  # now a replica
        safe.pause = 0
        await buyers
    sold = {name for name, state in (await rows(safe.sale)).items() if state is OrderState.PERSISTED}
    assert sold == safe.accepted
    assert len(sold) == await active_units(safe.sale) == UNITS


@ON_AIO
async def test_behind_a_broken_link_nobody_is_told_replicated(host: Host, six: servers.Cluster) -> None:
    """What a sale that does not wait has accepted there is lost with the primary."""
    client = host.keep(host.redis.RedisCluster(host=servers.HOST, port=six.nodes[0].port))
    primary, replica = six.nodes[1], six.replicas[1]
    names = names_on(six, 1)
    fast, safe = [
        await host.opened(client, name=next(names), durability=durability, durable_within=2)
        for durability in (Durability.ACCEPTED, Durability.REPLICATED)
    ]
    for each in (fast, safe):
        assert (await each.buy("phone", "ann", order_id="before")).accepted
    replica.catch_up(primary)
    raw = primary.client()
    raw.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
    raw.client_kill_filter(_type="replica")
    await until(lambda: raw.info("replication")["connected_slaves"] == 0, "a broken link")
    answers = [await each.buy("phone", "bob", order_id="behind") for each in (fast, safe)]
    assert [answer.outcome for answer in answers] == [Outcome.ACCEPTED, Outcome.UNCERTAIN]
    await asyncio.to_thread(primary.kill)
    await until(lambda: replica.client().info("replication")["role"] == "master", "a promotion", within=60)
    for each in (fast, safe):

        async def known(each: Any = each) -> bool:
            with contextlib.suppress(NotExecuted, OutcomeUnknown):
                return await each.status("before") is OrderState.QUEUED
            return False

        await until(known, "an answer of the new primary")
        assert await each.status("behind") is None


def move(cluster: servers.Cluster, name: str, felt: Callable[[], Any]) -> None:
    """Moves the slot of a sale from the first node to the third, key by key, as `redis-cli --cluster reshard` does.

    It takes its time, until somebody has `felt` it.
    """
    source, target = cluster.nodes[0], cluster.nodes[2]
    client = source.client()
    slot = client.execute_command("CLUSTER", "KEYSLOT", f"{{{name}}}")
    servers.begin_move(slot, source, target)
    while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
        client.execute_command("MIGRATE", servers.HOST, target.port, keys[0], 0, 5000)
        time.sleep(0.05)
        with contextlib.suppress(TimeoutError):  # a key that no purchase needs is not missed
            eventually(felt, "a purchase whose keys are at two nodes", within=1)
    servers.end_move(slot, source, target)
