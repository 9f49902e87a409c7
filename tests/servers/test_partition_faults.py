"""One sale over several primaries: one is killed, frozen or emptied, or its slots move, and the others sell on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import redis

from flashsale import (
    Durability,
    FlashSale,
    Goods,
    NotExecuted,
    OrderState,
    Outcome,
    OutcomeUnknown,
    Tickets,
    UnknownGoods,
)
from flashsale._rules.partitions import tag_of
from flashsale._rules.redispy import slot_of
from flashsale.aio.partitions.part_link import AWAY
from tests.support import servers
from tests.support.crowds import Crowd, patiently
from tests.support.helpers import eventually, until
from tests.support.hosts import ON_AIO, ON_SYNC
from tests.support.mutants import kills
from tests.support.partitions import buyer
from tests.support.sales import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.hosts import Host

UNITS = 600
VICTIM = 1  # the server that has the partitions 1 and 5


@pytest.fixture
def four(request: pytest.FixtureRequest) -> Iterator[list[servers.RedisServer]]:
    """Four primaries that know nothing of each other; they keep what they have, unless told otherwise."""
    aof = getattr(request, "param", True)
    # no rewriting: its child process would outlive the server that we kill
    config = {"auto_aof_rewrite_percentage": 0} if aof else {}
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(servers.redis_server(aof=aof, **config)) for _ in range(4)]


async def opened(
    host: Host, client: Any, units: int = UNITS, *, name: str = "spring", hold: float | None = None, **how: Any
) -> Crowd:
    """Returns the buyers of a started sale over eight partitions."""
    store = await host.store_of(name, Goods("phone", units, hold=hold))
    how = {"partitions": 8, "timeout": 2.0, **how}
    sale = host.on(client, name, store=store, **how)
    await patiently(host.syncer(sale).run_once)
    await patiently(lambda: sale.start("phone"))
    return Crowd(host, sale)


def clients(host: Host, four: list[servers.RedisServer]) -> list[Any]:
    return [host.connect(server.port) for server in four]


def split(crowd: Crowd) -> tuple[list[int], list[int]]:
    """Returns the partitions of the victim among four, and those of the others."""
    return [place for place in crowd.places if place % 4 == VICTIM], [p for p in crowd.places if p % 4 != VICTIM]


@ON_SYNC
async def test_one_of_four_is_killed_and_started_again(
    host: Host, four: list[servers.RedisServer], record_property: Any
) -> None:
    crowd = await opened(host, clients(host, four))
    victims, others = split(crowd)
    async with crowd.staff(), crowd.selling(hot=0):
        await crowd.sold_since(time.monotonic(), crowd.places)
        killed_at = time.monotonic()
        four[VICTIM].kill()
        took = await crowd.sold_since(killed_at + 0.3, others)
        assert not any(asked > killed_at for place in victims for asked, _ in crowd.sold_at[place])
        started_at = time.monotonic()
        await asyncio.to_thread(four[VICTIM].start)
        back = await crowd.sold_since(started_at, victims)
        await crowd.sold_since(time.monotonic(), crowd.places)
    sold = await crowd.end(UNITS)
    tell(record_property, crowd, sold=sold, others=took, back=back)


async def test_one_of_four_is_frozen_and_goes_on(
    host: Host, four: list[servers.RedisServer], record_property: Any
) -> None:
    crowd = await opened(host, clients(host, four))
    victims, others = split(crowd)
    async with crowd.staff(), crowd.selling(hot=0):
        await crowd.sold_since(time.monotonic(), crowd.places)
        frozen_at = time.monotonic()
        four[VICTIM].freeze()
        took = await crowd.sold_since(frozen_at + 0.3, others)
        await asyncio.sleep(2)  # so that callers there have waited for all of their time
        thawed_at = time.monotonic()
        four[VICTIM].thaw()
        back = await crowd.sold_since(thawed_at, victims)
        await crowd.sold_since(time.monotonic(), crowd.places)
    sold = await crowd.end(UNITS)
    tell(record_property, crowd, sold=sold, others=took, back=back)


async def test_who_is_dry_beside_a_frozen_one_is_not_told_sold_out(host: Host, four: list[servers.RedisServer]) -> None:
    crowd = await opened(host, clients(host, four), 16, cache_for=0.0)
    await crowd.sells(0, 0)
    four[VICTIM].freeze()
    try:
        for _ in range(3):
            with pytest.raises(NotExecuted) as caught:
                await crowd.buy(0)
            assert caught.value.reason == "PARTITION"
        again = host.on(clients(host, four), store=crowd.sale.real.store, partitions=8, timeout=2.0)
        fresh = Crowd(host, again, name="c")  # a process that starts now
        await fresh.sells(2, 4)  # they have some of their own
        crowd.told |= fresh.told
        with pytest.raises((NotExecuted, OutcomeUnknown)):
            await crowd.buy(VICTIM)
        with pytest.raises((NotExecuted, OutcomeUnknown)) as caught:
            await crowd.sale.pause()
        assert caught.value.__notes__ == ["partitions without pause: 1, 5"]
    finally:
        four[VICTIM].thaw()
    await patiently(crowd.sale.resume)
    await crowd.sells(0)
    await crowd.end(16)


async def test_who_comes_to_a_frozen_one_is_told_at_once(host: Host, four: list[servers.RedisServer]) -> None:
    crowd = await opened(host, clients(host, four), 80, timeout=1.0)
    four[VICTIM].freeze()
    try:
        with pytest.raises((NotExecuted, OutcomeUnknown)):
            await crowd.buy(VICTIM)
        answers = await asyncio.gather(*(crowd.buy(VICTIM) for _ in range(10)), return_exceptions=True)
    finally:
        four[VICTIM].thaw()
    assert "PARTITION" in {getattr(answer, "reason", None) for answer in answers}  # but for one, which found out
    await crowd.sells(VICTIM, VICTIM)
    await crowd.end(80)


async def test_whatever_a_buyer_asks_a_frozen_one_the_answer_comes_at_once(
    host: Host, four: list[servers.RedisServer]
) -> None:
    crowd = await opened(host, clients(host, four), 80, timeout=1.0, tickets=Tickets({"k1": b"secret" * 6}))
    name, sale = buyer(VICTIM, count=8), crowd.sale
    order_id = (await patiently(lambda: crowd.buy(VICTIM))).order_id
    ticket = (await patiently(lambda: sale.enter("phone", name))).ticket
    calls = {
        "status": lambda: sale.status(order_id),
        "cancel": lambda: sale.cancel(order_id),
        "extend_hold": lambda: sale.extend_hold(order_id, 9.0),
        "enter": lambda: sale.enter("phone", name),
        "buy": lambda: sale.buy("phone", name, ticket=ticket),
    }
    four[VICTIM].freeze()
    told = {}
    try:
        with pytest.raises((NotExecuted, OutcomeUnknown)):
            await crowd.buy(VICTIM)
        for what, call in calls.items():
            answers = await asyncio.gather(*(call() for _ in range(10)), return_exceptions=True)
            told[what] = "PARTITION" in {getattr(answer, "reason", None) for answer in answers}
    finally:
        four[VICTIM].thaw()
    assert told == dict.fromkeys(calls, True)


@ON_AIO
async def test_who_is_cancelled_while_finding_out_keeps_nobody_away(
    host: Host, four: list[servers.RedisServer]
) -> None:
    crowd = await opened(host, clients(host, four), 80)
    link = crowd.sale.real._parts[VICTIM]._link
    link._deaf_until = 0.0  # it was silent, long ago
    four[VICTIM].freeze()
    try:
        asking = asyncio.create_task(crowd.buy(VICTIM))
        await until(lambda: link._deaf_until, "who finds out")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert link._deaf_until <= time.monotonic() + AWAY
    finally:
        four[VICTIM].thaw()


async def test_who_waits_for_a_frozen_one_takes_no_room_from_others(
    host: Host, four: list[servers.RedisServer]
) -> None:
    crowd = await opened(host, clients(host, four), 200, max_waiting=80, timeout=60.0)  # nobody gives up meanwhile
    _, others = split(crowd)
    four[VICTIM].freeze()
    waiting = [asyncio.create_task(crowd.served(VICTIM)) for _ in range(120)]
    try:
        await until(lambda: crowd.troubles[VICTIM]["Overloaded"], "more callers than may wait")
        receipts = await asyncio.gather(*(crowd.buy(place) for place in others for _ in "1234"))
        assert all(receipt.accepted for receipt in receipts)
        assert not all(each.done() for each in waiting)
    finally:
        four[VICTIM].thaw()
        await asyncio.gather(*waiting)
    await crowd.end(200)


@pytest.mark.parametrize("four", [False], indirect=True, ids=["empty"])
@ON_AIO
async def test_one_of_four_comes_back_empty(host: Host, four: list[servers.RedisServer], record_property: Any) -> None:
    crowd = await opened(host, clients(host, four), 80)
    victims, others = split(crowd)
    await crowd.sells(*crowd.places, *crowd.places, *crowd.places)
    await crowd.quiet()
    before = crowd.accepted
    await crowd.sells(*victims)
    unsaved = crowd.accepted - before
    await asyncio.to_thread(four[VICTIM].restart)
    await crowd.sells(*others)
    for place in victims:
        with pytest.raises(UnknownGoods):
            await crowd.buy(place)
    answers = Counter[str]()
    for _ in range(10):  # what partition 0 has left, and then the first who would need another one's
        try:
            answers[(await crowd.buy(0)).outcome] += 1
        except NotExecuted as error:
            answers[str(error.reason)] += 1
    assert answers.keys() == {Outcome.ACCEPTED, "PARTITION"}
    syncer = host.syncer(crowd.sale)
    report = await patiently(syncer.run_once)
    assert report.missing == ("phone",)
    rebuilt = await patiently(syncer.rebuild)
    await patiently(lambda: crowd.sale.start("phone"))
    sold = await crowd.end(80, lost=unsaved)
    tell(record_property, crowd, sold=sold, rebuilt=rebuilt.orders, lost=len(unsaved))


async def test_worker_and_syncer_pass_by_a_frozen_one(host: Host, four: list[servers.RedisServer]) -> None:
    crowd = await opened(host, clients(host, four), 32, hold=0.1, timeout=0.5)
    worker, syncer = host.worker(crowd.sale), host.syncer(crowd.sale)
    four[0].freeze()  # it has the first partition, whose recorder all use, and where units come in
    try:
        await crowd.sells(*(place for place in crowd.places if place % 4))

        async def drained() -> bool:
            with pytest.raises((NotExecuted, OutcomeUnknown)):
                await worker.run_once()
            return (await rows(crowd.sale)).keys() == crowd.accepted

        async def expired() -> bool:
            with pytest.raises((NotExecuted, OutcomeUnknown)):
                await syncer.run_once()
            return set((await rows(crowd.sale)).values()) == {OrderState.EXPIRED}

        await until(drained, "all orders in the database")
        await until(expired, "the end of unpaid orders")
    finally:
        four[0].thaw()
    audit = await crowd.quiet()
    assert audit.ok
    assert audit.goods["phone"].free == 32


# -- a Cluster of three primaries with a replica each ---------------------------------------------------------------


@pytest.fixture
def six() -> Iterator[servers.Cluster]:
    """Three primaries with a replica each; a part that is down leaves the others open."""
    config = {"cluster_require_full_coverage": "no", "cluster_node_timeout": 1000}
    with servers.cluster(replicas=True, **config) as cluster:
        yield cluster


async def opened_on(host: Host, six: servers.Cluster, name: str = "spring", **how: Any) -> Crowd:
    """Returns the buyers of a started sale over six partitions."""
    client = host.keep(host.redis.RedisCluster(host=servers.HOST, port=six.nodes[0].port))
    return await opened(host, client, name=name, partitions=6, durable_within=0.5, **how)


def slot(crowd: Crowd, place: int) -> int:
    return slot_of(crowd.sale.real._parts[place].keys.meta)


def owner(six: servers.Cluster, wanted: int) -> int:
    """Returns the port of the primary that has a slot, as the first node knows."""
    ranges: Any = six.nodes[0].client().execute_command("CLUSTER SLOTS")
    return next(port for low, high, (_, port, *_), *_ in ranges if low <= wanted <= high)


def move(wanted: int, source: servers.RedisServer, target: servers.RedisServer, felt: Callable[[], Any]) -> None:
    """Moves a slot key by key, as `redis-cli --cluster reshard` does, and takes its time, until somebody feels it."""
    client = source.client()
    servers.begin_move(wanted, source, target)
    while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", wanted, 1):
        client.execute_command("MIGRATE", servers.HOST, target.port, keys[0], 0, 5000)
        with contextlib.suppress(TimeoutError):  # a key that no purchase needs is not missed
            eventually(felt, "a purchase whose keys are at two nodes", within=0.3)
    servers.end_move(wanted, source, target)


@pytest.mark.parametrize("partitions", [6, 12])
def test_partitions_lie_evenly_on_the_primaries_of_a_cluster(partitions: int) -> None:
    """Its slots are split as `redis-cli --cluster create` does."""
    for name in ("spring", "sale-1", "x"):
        client = redis.Redis(port=1)  # nobody is asked
        sale = FlashSale(client, name, partitions=partitions)
        slots = [slot_of(part.keys.meta) for part in sale._parts]
        nodes = Counter(next(n for n, (_, high) in enumerate(servers._SLOTS) if each <= high) for each in slots)
        assert nodes == dict.fromkeys(range(3), partitions // 3)


@ON_SYNC
async def test_slots_move_while_people_buy(host: Host, six: servers.Cluster, record_property: Any) -> None:
    crowd = await opened_on(host, six)
    async with crowd.staff(), crowd.selling(hot=0):
        await crowd.sold_since(time.monotonic(), crowd.places)
        for place in (0, 3):
            source = next(node for node in six.nodes if node.port == owner(six, slot(crowd, place)))
            target = six.nodes[(six.nodes.index(source) + 1) % 3]
            felt = partial(crowd.troubles[place].__getitem__, "TRYAGAIN")
            moving_at = time.monotonic()
            await asyncio.to_thread(move, slot(crowd, place), source, target, felt)
            assert felt()
            took = time.monotonic() - moving_at
            back = await crowd.sold_since(time.monotonic(), crowd.places)
            assert owner(six, slot(crowd, place)) == target.port
    sold = await crowd.end(UNITS)
    tell(record_property, crowd, sold=sold, took=took, back=back)


@ON_AIO
async def test_a_primary_is_added_in_mid_sale(host: Host, six: servers.Cluster, record_property: Any) -> None:
    names = (f"sale-{number}" for number in itertools.count())
    name = next(name for name in names if all(slot_of(f"{{{tag}}}") < low + 200 for tag, low in early(name)))
    crowd = await opened_on(host, six, name)
    first = f"{servers.HOST}:{six.nodes[0].port}"
    with servers.redis_server(cluster_enabled="yes", cluster_node_timeout=1000) as fourth:
        async with crowd.staff(), crowd.selling(hot=0):
            await crowd.sold_since(time.monotonic(), crowd.places)
            began = time.monotonic()
            await cluster_do("add-node", f"{servers.HOST}:{fourth.port}", first)
            await until(lambda: has_joined(six, fourth), "a Cluster with the new node")
            # so few slots that it takes no time: the first 200 of each primary, about
            few = f"{servers.node_id(fourth)}=0.12"
            await cluster_do("rebalance", first, "--cluster-use-empty-masters", "--cluster-weight", few)
            took = time.monotonic() - began
            back = await crowd.sold_since(time.monotonic(), crowd.places)
        there = [place for place in crowd.places if owner(six, slot(crowd, place)) == fourth.port]
        assert there, "no partition has moved"
        sold = await crowd.end(UNITS)
        tell(record_property, crowd, sold=sold, there=there, took=took, back=back)


async def cluster_do(*words: object) -> None:
    await asyncio.to_thread(servers.redis_cli, "--cluster", *words)


def early(name: str) -> Iterator[tuple[str, int]]:
    """Yields the tags of the first partition of two primaries, and the first slot that each of these has."""
    for place, node in ((0, 0), (4, 2)):
        yield tag_of(name, place, 6), servers._SLOTS[node][0]


def has_joined(six: servers.Cluster, node: servers.RedisServer) -> bool:
    known = all(str(node.port) in str(each.client().execute_command("CLUSTER NODES")) for each in six.nodes)
    return known and node.client().cluster("INFO")["cluster_state"] == "ok"


@ON_SYNC
async def test_a_primary_hands_over_to_its_replica(host: Host, six: servers.Cluster, record_property: Any) -> None:
    """The operator's way, in which nothing is lost: CLUSTER FAILOVER."""
    crowds = [
        await opened_on(host, six, str(each), durability=each) for each in (Durability.ACCEPTED, Durability.REPLICATED)
    ]
    async with contextlib.AsyncExitStack() as stack:
        for crowd in crowds:
            await stack.enter_async_context(crowd.staff())
            await stack.enter_async_context(crowd.selling(hot=0, pause=0.1))
        for crowd in crowds:
            await crowd.sold_since(time.monotonic(), crowd.places)
        began = time.monotonic()
        six.replicas[VICTIM].client().execute_command("CLUSTER FAILOVER")
        await until(lambda: six.replicas[VICTIM].client().role()[0] == b"master", "a promotion")
        took = time.monotonic() - began
        back = [await crowd.sold_since(time.monotonic(), crowd.places) for crowd in crowds]
    for crowd in crowds:
        tell(record_property, crowd, sold=await crowd.end(UNITS), took=took, back=back)


async def both(host: Host, six: servers.Cluster) -> list[Crowd]:
    """Returns the buyers of two sales, of which the second one waits for replicas."""
    return [
        await opened_on(host, six, str(each), durability=each) for each in (Durability.ACCEPTED, Durability.REPLICATED)
    ]


@pytest.mark.parametrize(
    ("host", "fault"), [("flashsale", "killed"), ("flashsale.aio", "frozen")], indirect=["host"], ids=["sync", "aio"]
)
async def test_a_primary_fails_and_its_replica_takes_over(
    host: Host, six: servers.Cluster, record_property: Any, fault: str
) -> None:
    fast, safe = crowds = await both(host, six)
    primary, replica = six.nodes[VICTIM], six.replicas[VICTIM]
    async with contextlib.AsyncExitStack() as stack:
        for crowd in crowds:
            await stack.enter_async_context(crowd.staff())
            await stack.enter_async_context(crowd.selling(hot=0, pause=0.1))
        for crowd in crowds:
            await crowd.sold_since(time.monotonic(), crowd.places)
        victims, others = split_by(six, fast)
        failed_at = time.monotonic()
        primary.kill() if fault == "killed" else primary.freeze()
        took = [await crowd.sold_since(failed_at + 0.2, others) for crowd in crowds]
        await until(lambda: replica.client().role()[0] == b"master", "a promotion", within=60)
        back = [await fast.sold_since(failed_at, victims)]
        await asyncio.to_thread(primary.start if fault == "killed" else primary.thaw)  # now a replica
        back += [await safe.sold_since(failed_at, victims)]
        for crowd in crowds:
            await crowd.sold_since(time.monotonic(), crowd.places)
    for crowd in crowds:
        lost, adrift = await crowd.mended()
        assert crowd is fast or (not lost and adrift >= 0)  # units are lost on their way, and never doubled
        sold = await crowd.end(UNITS, lost=lost)
        tell(record_property, crowd, sold=sold, lost=len(lost), adrift=adrift, others=took, back=back)


@pytest.mark.parametrize(
    ("host", "to", "saved"),
    [
        ("flashsale", "others", True),
        ("flashsale", "victim", False),
        ("flashsale.aio", "victim", True),
    ],
    indirect=["host"],
)
async def test_units_that_a_failover_loses_or_doubles_are_mended(
    host: Host, six: servers.Cluster, record_property: Any, to: str, *, saved: bool
) -> None:
    """They moved while the replica was behind a broken link; the sale does not wait for it."""
    crowd = await opened_on(host, six, units=60)
    victims, others = split_by(six, crowd)
    await crowd.quiet()
    await break_link(six)
    if to == "others":
        await crowd.sells(*others * 10, others[0])
    else:
        await crowd.sells(*victims[:1] * 11)
    if saved:
        await crowd.quiet()
    await asyncio.to_thread(six.nodes[VICTIM].kill)
    await until(lambda: six.replicas[VICTIM].client().role()[0] == b"master", "a promotion", within=60)
    lost, adrift = await crowd.mended()
    assert lost == (set() if saved or to == "others" else crowd.accepted)
    assert (adrift < 0) is (to == "others")
    assert adrift
    sold = await crowd.end(60, lost=lost, among=others)
    tell(record_property, crowd, sold=sold, lost=len(lost), adrift=adrift)


@ON_AIO
async def test_units_are_not_doubled_where_moves_wait_for_replicas(host: Host, six: servers.Cluster) -> None:
    crowd = await opened_on(host, six, units=60, durability=Durability.REPLICATED)
    _, others = split_by(six, crowd)
    await break_link(six)
    await crowd.sells(*others * 10)
    with pytest.raises(NotExecuted):  # the units of the others do not leave before a replica knows
        await crowd.buy(others[0])
    await asyncio.to_thread(six.nodes[VICTIM].kill)
    await until(lambda: six.replicas[VICTIM].client().role()[0] == b"master", "a promotion", within=60)
    await asyncio.to_thread(six.nodes[VICTIM].start)  # now a replica
    await crowd.end(60)


async def break_link(six: servers.Cluster) -> None:
    """From now on the victim's replica gets nothing."""
    primary, replica = six.nodes[VICTIM], six.replicas[VICTIM]
    replica.catch_up(primary)
    raw = primary.client()
    raw.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
    raw.client_kill_filter(_type="replica")
    await until(lambda: raw.info("replication")["connected_slaves"] == 0, "a broken link")


def split_by(six: servers.Cluster, crowd: Crowd) -> tuple[list[int], list[int]]:
    """Returns the partitions of the victim among three, and those of the others."""
    victims = [place for place in crowd.places if owner(six, slot(crowd, place)) == six.nodes[VICTIM].port]
    return victims, [place for place in crowd.places if place not in victims]


# -- mutants --------------------------------------------------------------------------------------------------------


@ON_SYNC
@kills("the room of each partition", by=NotExecuted)
async def test_without_room_of_its_own_a_partition_stops_the_others(
    host: Host, four: list[servers.RedisServer]
) -> None:
    await test_who_waits_for_a_frozen_one_takes_no_room_from_others(host, four)


@ON_SYNC
@kills("what a deaf partition tells at once")
async def test_without_a_word_at_once_all_wait_for_a_frozen_one(host: Host, four: list[servers.RedisServer]) -> None:
    await test_who_comes_to_a_frozen_one_is_told_at_once(host, four)


@ON_SYNC
@kills("the answer of WAIT behind a move")
async def test_without_wait_behind_a_move_units_are_doubled(host: Host, six: servers.Cluster) -> None:
    await test_units_are_not_doubled_where_moves_wait_for_replicas(host, six)


def tell(record_property: Any, crowd: Crowd, **figures: Any) -> None:
    troubles = {place: dict(found) for place, found in sorted(crowd.troubles.items())}
    record_property("figures", figures | {"troubles": troubles})
    print(figures, troubles)
