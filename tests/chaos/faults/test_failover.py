"""Rows 11, 13, 14, 18 and 19: more than one server, and who of them is right."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import redis

from flashsale import Durability, NotExecuted, Order, OrderState, Outcome, OutcomeUnknown, StoredOrder
from tests.chaos.faults.catalogue import fault
from tests.support import servers
from tests.support.helpers import eventually, until

if TYPE_CHECKING:
    from tests.chaos.faults.world import World

LINK = {"repl_diskless_sync_delay": 0}


def _replica(world: World, through: int) -> servers.RedisServer:
    """A replica of the primary that is reached through this port, in step with it."""
    raw = world.raw
    replica = world.server(replicaof=f"{servers.HOST} {through}", **LINK)
    client, world.raw = world.raw, raw
    eventually(lambda: client.info("replication")["master_link_status"] == "up", "a replica in step")
    return replica


@fault(
    11,
    "failover loses writes",
    "block the replica's link, kill, REPLICAOF NO ONE",
    holds="O",
    mechanism="the guard in the database; WAIT with `durability=REPLICATED`",
    without=("the guard in the database", "WAIT"),
)
async def test_row_11_failover_loses_writes(world: World) -> None:
    primary = world.server(repl_timeout=60)
    link = world.proxy(primary)
    replica = _replica(world, link.port)
    sale = await world.sell(primary.port, 4)
    waits = {"durability": Durability.REPLICATED, "durable_within": 2.0}
    safe = await world.sell(primary.port, 4, name="safe", **waits)
    for each in (sale, safe):
        assert (await each.buy("phone", "ann", order_id="o-0")).accepted
    replica.catch_up(primary)

    link.hold()
    answers = [await each.buy("phone", "ann", 3, order_id="o-1") for each in (sale, safe)]
    assert [answer.outcome for answer in answers] == [Outcome.ACCEPTED, Outcome.UNCERTAIN], "O: accepted, and lost"
    await world.drain(sale)
    await asyncio.to_thread(primary.kill)
    world.raw = replica.client()
    world.raw.replicaof("NO", "ONE")

    after = world.beside(replica.port, sale.store)
    assert (await after.buy("phone", "bob", 3, order_id="o-2")).accepted  # the new primary cannot know better
    await world.drain(after)
    assert await world.active_units(after) == 4, "O: oversold"
    assert (await world.orders(after))["o-2"] is OrderState.REJECTED
    assert await world.beside(replica.port, safe.store, name="safe").status("o-0") is OrderState.QUEUED


# -- Sentinel -------------------------------------------------------------------------------------------------------


def _client(world: World, sentinels: servers.Sentinels, **settings: Any) -> Any:
    manager = sentinels.amanager(**settings) if world.is_async else sentinels.manager(**settings)
    for each in manager.sentinels:
        world.keep(each)
    return world.keep(manager.master_for(sentinels.name))


@fault(
    13,
    "Sentinel election",
    "kill the primary",
    holds="T",
    mechanism="one retry at the server that Sentinel names now, with the same id",
    without=(
        "the second look at the Sentinels",
        "the order id in the script",
    ),
)
async def test_row_13_sentinel_election(world: World) -> None:
    primary = world.server()
    replica = _replica(world, primary.port)
    sentinels = world.enter(servers.sentinels(primary))
    sale = await world.sell(_client(world, sentinels), 100)
    assert (await sale.buy("phone", "ann", order_id="before")).accepted
    replica.catch_up(primary)
    await asyncio.to_thread(primary.kill)
    world.raw = replica.client()
    accepted = ["before"]
    for number in itertools.count():
        if sentinels.primary_port() == replica.port and world.raw.info("replication")["role"] == "master":
            break
        answer = await world.answer(sale.buy("phone", "ann", order_id=f"during-{number}"))
        if not isinstance(answer, NotExecuted | OutcomeUnknown):
            assert answer.accepted
            accepted.append(answer.order_id)
        await asyncio.sleep(0.05)
    receipt = await world.answer(sale.buy("phone", "ann", order_id="after"))
    assert getattr(receipt, "accepted", False), f"T: {receipt!r}"
    again = await world.answer(sale.buy("phone", "ann", order_id="before"))
    assert (again.accepted, again.replayed, world.booked()) == (True, True, len(accepted) + 1)
    await world.holds(sale, [*accepted, "after"], total=100)


@fault(
    14,
    "split brain",
    "a proxy cuts replication and Sentinel; clients reach both sides",
    holds="O",
    mechanism="the guard in the database; whoever acts for an older epoch is refused",
    without=("the guard in the database", "the epoch of a restore"),
)
async def test_row_14_split_brain(world: World) -> None:
    primary = world.server()
    line = world.proxy(primary)
    replica = _replica(world, line.port)
    here = await world.sell(primary.port, 4)
    assert (await here.buy("phone", "ann", order_id="o-0")).accepted
    await world.drain(here)
    replica.catch_up(primary)
    monitored: Any = SimpleNamespace(port=line.port, client=primary.client)
    sentinels = world.enter(servers.sentinels(monitored))  # last: half a second of silence, and they elect
    await asyncio.to_thread(line.refuse)
    await until(lambda: sentinels.primary_port() == replica.port, "an election")
    await until(lambda: replica.client().info("replication")["role"] == "master", "the promotion")

    there = world.beside(_client(world, sentinels), here.store)
    for side, name in ((here, "here"), (there, "there")):  # each side sells what is left
        assert (await side.buy("phone", "bob", 3, order_id=name)).accepted
    await world.drain(here)
    world.raw = replica.client()
    await world.drain(there)
    assert await world.active_units(there) == 4, "O: both sides sold the same units"
    assert (await world.orders(there)) == {
        "o-0": OrderState.PERSISTED,
        "here": OrderState.PERSISTED,
        "there": OrderState.REJECTED,
    }
    read = [StoredOrder(Order("o-0", "phone", "ann", 1), OrderState.PERSISTED)], 1  # by a syncer of that time
    assert (await world.syncer(there).rebuild()).epoch == 2
    await there.cancel("o-0")
    await there._ledger.restore(*read)
    await world.holds(there, ["o-0", "here", "there"], total=4)
    assert world.booked() == 3, "O: an order of an older epoch was booked again"


# -- Cluster --------------------------------------------------------------------------------------------------------


def _sale_on(cluster: servers.Cluster, node: int) -> str:
    """Returns the name of a sale whose keys are on this node."""
    names = (f"sale-{number}" for number in range(1000))
    return next(name for name in names if cluster.node_of(f"{{{name}}}") is cluster.nodes[node])


def _connect(world: World, cluster: servers.Cluster) -> Any:
    client: Any = world.redis.RedisCluster(host=servers.HOST, port=cluster.nodes[0].port)
    return world.keep(client)


@fault(
    18,
    "slot migrating",
    "SETSLOT, MIGRATE",
    holds="O T",
    mechanism="TRYAGAIN is `NotExecuted`; ASK and MOVED are followed",
    without=(
        "the server's word for a refusal",
        "the redirect",
        "the order id in the script",
    ),
)
async def test_row_18_slot_migrating(world: World) -> None:
    cluster = world.enter(servers.cluster())
    name = _sale_on(cluster, 0)
    source, target = cluster.nodes[:2]
    client = source.client()
    slot = client.execute_command("CLUSTER", "KEYSLOT", f"{{{name}}}")
    sale = world.on(_connect(world, cluster), name)
    await sale.preload("phone", 100)
    await sale.start("phone")
    assert (await sale.buy("phone", "ann", order_id="before")).accepted

    servers.begin_move(slot, source, target)
    asked = []
    for key in client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        answer = await world.answer(sale.buy("phone", "ann", order_id=f"while-{len(asked)}"))
        refused = isinstance(answer, NotExecuted) and answer.reason == "TRYAGAIN"
        assert refused or getattr(answer, "accepted", False), f"T: {answer!r}"
        asked.append(f"while-{len(asked)}")
        client.execute_command("MIGRATE", servers.HOST, target.port, key, 0, 5000)
    queued = await world.answer(sale.queue.size())  # one key, by ASK
    assert not isinstance(queued, Exception), f"T: {queued!r}"
    servers.end_move(slot, source, target)
    for order_id in [*asked, "before"]:
        receipt = await world.answer(sale.buy("phone", "ann", order_id=order_id))
        assert getattr(receipt, "accepted", False), f"T: {receipt!r}"
    world.raw = target.client()
    assert world.booked(name) == len(asked) + 1, "O: a retry was booked again"


@fault(
    19,
    "cluster primary dead",
    "kill; a replica takes over",
    holds="T",
    mechanism="one retry at the server that has the slot now, with the same id",
    without=("the second look at the Cluster",),
)
async def test_row_19_cluster_primary_dead(world: World) -> None:
    cluster = world.enter(servers.cluster(cluster_require_full_coverage="no"))
    primary = cluster.nodes[2]
    replica = world.server(cluster_enabled="yes")
    _join(world.raw, cluster, primary)
    name = _sale_on(cluster, 2)
    client = _connect(world, cluster)
    sale, other = world.on(client, name), world.on(client, _sale_on(cluster, 1))
    for each in (sale, other):
        await each.preload("phone", 3)
        await each.start("phone")
    assert (await sale.buy("phone", "ann", order_id="before")).accepted
    replica.catch_up(primary)
    await asyncio.to_thread(primary.kill)
    for _ in range(2):
        await world.answered((NotExecuted, OutcomeUnknown), sale.buy("phone", "ann", order_id="during"))
        assert (await other.buy("phone", "ann")).accepted
    world.raw.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    others = [node.client() for node in cluster.nodes[:2]]
    port = str(replica.port).encode()
    await until(lambda: all(port in _holders(node) for node in others), "the others to know")
    for order_id, replayed in (("before", True), ("during", False)):
        receipt = await world.answer(sale.buy("phone", "ann", order_id=order_id))
        assert getattr(receipt, "accepted", False), f"T: {receipt!r}"
        assert receipt.replayed is replayed
    assert world.booked(name) == 2


def _holders(client: redis.Redis) -> set[bytes]:
    """Returns the ports that own slots, as this node sees it."""
    client.set_response_callback("CLUSTER SLOTS", lambda reply, **_: reply)
    return {str(entry[2][1]).encode() for entry in client.execute_command("CLUSTER SLOTS")}


def _join(raw: redis.Redis, cluster: servers.Cluster, primary: servers.RedisServer) -> None:
    """Makes a node the replica of this primary, in step with it."""
    raw.execute_command("CLUSTER", "MEET", servers.HOST, cluster.nodes[0].port)
    node_id = primary.client().execute_command("CLUSTER", "MYID").decode()

    def replicates() -> bool:
        try:
            return bool(raw.execute_command("CLUSTER", "REPLICATE", node_id))
        except redis.ResponseError:  # not yet known
            return False

    eventually(replicates, "a replica")
    eventually(lambda: raw.info("replication").get("master_link_status") == "up", "a replica in step")
    eventually(lambda: raw.cluster("INFO")["cluster_state"] == "ok", "a replica that knows the slots")
