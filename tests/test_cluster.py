"""Several sales on a Cluster at once, while a slot moves and a primary dies; `--cluster` plays the others there."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Durability, Goods, OrderState
from tests import servers
from tests.helpers import until
from tests.rush import Rush
from tests.sales import active_units, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts import Host

UNITS = 150


@pytest.fixture
def six() -> Iterator[servers.Cluster]:
    """Three primaries with a replica each; a part that is down leaves the others open."""
    with servers.cluster(replicas=True, cluster_require_full_coverage="no", cluster_node_timeout=1000) as cluster:
        yield cluster


async def test_sales_go_on_while_a_slot_moves_and_a_primary_dies(
    host: Host, six: servers.Cluster, record_property: Any
) -> None:
    client = host.keep(host.redis.RedisCluster(host=servers.HOST, port=six.nodes[0].port))
    moved, bereaved, quiet = [await rush(host, client, name_on(six, node)) for node in (0, 1, 2)]
    async with moved.staff(), bereaved.staff(), quiet.staff():
        buyers = [asyncio.create_task(each.buy_all()) for each in (moved, bereaved, quiet)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(move, six, moved.sale.real.inventory.sale)
        assert moved.troubles["TRYAGAIN"]
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


def name_on(cluster: servers.Cluster, node: int) -> str:
    """Returns the name of a sale whose keys are on this node."""
    names = (f"sale-{number}" for number in range(1000))
    return next(name for name in names if cluster.node_of(f"{{{name}}}") is cluster.nodes[node])


async def rush(host: Host, client: Any, name: str) -> Rush:
    store = await host.books(name, Goods("phone", UNITS))
    sale = host.on(client, name, store=store, cache_for=0, durability=Durability.PERSISTED)
    await host.syncer(sale).run_once()
    await sale.start("phone")
    return Rush(host, sale, pause=0.4)


def move(cluster: servers.Cluster, name: str) -> None:
    """Moves the slot of a sale from the first node to the third, key by key, as `redis-cli --cluster reshard` does."""
    nodes = cluster.nodes[0], cluster.nodes[2]
    source, target = (node.client() for node in nodes)
    ids = [servers.node_id(node) for node in nodes]
    slot = source.execute_command("CLUSTER", "KEYSLOT", f"{{{name}}}")
    target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    while keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
        source.execute_command("MIGRATE", servers.HOST, nodes[1].port, keys[0], 0, 5000)
        time.sleep(0.05)
    for client in (target, source):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
