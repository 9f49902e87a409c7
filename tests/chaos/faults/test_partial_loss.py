"""Rows 45 to 47, 55, 58 and 59: a part of a sale is lost, spoilt, misspelt or purged."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

from flashsale import FlashSaleError, Keys, OrderState, UnknownSale
from tests.chaos.faults.catalogue import fault
from tests.core import test_bad_values, test_lost_keys, test_purged_sale, test_unknown_sale
from tests.support import servers
from tests.support.helpers import eventually, order

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import redis

    from tests.chaos.faults.world import World


async def play(world: World, scenario: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Plays a scenario on a Redis and a database that are empty."""
    world.raw.flushall()
    world.database = world.folder / f"{len(list(world.folder.iterdir()))}.db"
    try:
        await scenario(world, *args)
    except FlashSaleError as error:
        raise AssertionError(f"T: {error!r}") from error


@fault(
    45,
    "the ledger is lost",
    "DEL orders; buyers, workers, external orders, a syncer and repair go on",
    holds="O E L",
    mechanism="orders were numbered and there is no ledger: PAUSED, and nothing is written to it before the rebuild",
    without=(
        "a purchase asks for the ledger",
        "an adoption asks for the ledger",
        "the syncer asks for the ledger",
        "a restore asks for the ledger",
        "the numbers begin anew",
    ),
)
async def test_row_45_the_ledger_is_lost(world: World) -> None:
    await play(world, test_lost_keys.no_ledger)
    await play(world, test_lost_keys.test_a_repair_does_not_fill_a_part_of_a_lost_ledger)
    await play(world, test_lost_keys.test_a_ledger_that_was_never_filled_is_not_lost)


@fault(
    46,
    "any other key of the sale is lost",
    "DEL of each in turn, on a living sale",
    holds="O E L",
    mechanism="for each key somebody notices, and something brings it back: docs/operating.md",
    without=(
        "the syncer asks for meta",
        "the mark of the buyers",
        "the syncer asks for the buyers",
        "lost names of items return",
        "new deliveries when meta is lost",
    ),
)
async def test_row_46_a_key_is_lost(world: World) -> None:
    for name in test_lost_keys.KEYS:
        await play(world, test_lost_keys.loses, name)


# -- a node that dies in a slot move ----------------------------------------------------------------------------------

CLOSED = {  # what stays on the node that dies; the rest had moved
    "ledger": ("orders",),
    "meta": ("meta",),
    "both": ("meta", "orders"),
    "stock": ("stock",),
    "buyers": ("buyers",),
}
OPEN = {"queue": ("order_list", "claimed"), "gate": ("count", "access", "start", "window")}


@fault(
    47,
    "a node dies in a slot move",
    "MIGRATE of some keys, kill -9, then the slot goes to the node that has these, as `redis-cli --cluster fix` does",
    holds="O E L",
    mechanism="ledger and meta each show that the other is lost, the items that both are; PAUSED until the rebuild",
    without=(
        "a purchase asks for the ledger",
        "items tell that ledger and meta are lost",
        "the syncer asks for the ledger",
        "the syncer asks for meta",
        "the mark of the buyers",
    ),
)
async def test_row_47_a_node_dies_in_a_slot_move(world: World) -> None:
    cluster = world.enter(servers.cluster(cluster_require_full_coverage="no"))
    target, source = cluster.nodes[0], cluster.nodes[2]
    names = (name for number in itertools.count() if cluster.node_of(f"{{{(name := f's{number}')}}}") is source)
    client = world.keep(world.redis.RedisCluster(host=servers.HOST, port=target.port))
    sales = {
        what: (name, await _living(world, client, name)) for what, name in zip([*CLOSED, *OPEN], names, strict=False)
    }
    for what, (name, _) in sales.items():
        _move_but(Keys(name), (CLOSED | OPEN)[what], source, target)
    await asyncio.to_thread(source.kill)
    await asyncio.to_thread(_fix, [name for name, _ in sales.values()], target, cluster.nodes[1])
    world.raw = target.client()
    for what, (name, sale) in sales.items():
        world.keys = Keys(name)
        await _ends_well(world, sale, closed=what in CLOSED)


async def _living(world: World, client: Any, name: str) -> Any:
    """A sale with an order in the database, one under a lease and one on the list."""
    world.keys, world.raw = Keys(name), client if not world.is_async else None
    sale = await world.sell(client, 9, name=name, per_buyer=2)
    for order_id in ("saved", "claimed", "listed"):
        assert (await sale.buy("phone", f"buyer-{order_id}", order_id=order_id)).accepted
        if order_id == "saved":
            assert await world.worker(sale).run_once() == 1
        elif order_id == "claimed":
            assert len(await sale.queue.claim(lease=3600)) == 1
    return sale


def _move_but(keys: Keys, left: tuple[str, ...], source: servers.RedisServer, target: servers.RedisServer) -> None:
    client = source.client()
    slot = client.execute_command("CLUSTER", "KEYSLOT", keys.meta)
    stay = {key if isinstance(key := getattr(keys, name), str) else key("phone") for name in left}
    servers.begin_move(slot, source, target)
    for key in client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        if key.decode() not in stay:
            client.execute_command("MIGRATE", servers.HOST, target.port, key, 0, 5000)


def _fix(names: list[str], target: servers.RedisServer, other: servers.RedisServer) -> None:
    """Gives the slots of these sales to the node that has the rest of their keys."""
    client = target.client()
    slots = [client.execute_command("CLUSTER", "KEYSLOT", f"{{{name}}}") for name in names]
    for slot in slots:
        pipe = client.pipeline(transaction=True)
        for words in (("DELSLOTS", slot), ("ADDSLOTS", slot), ("SETSLOT", slot, "STABLE"), ("BUMPEPOCH",)):
            pipe.execute_command("CLUSTER", *words)
        pipe.execute()
    asked = other.client()
    eventually(lambda: all(_owner(asked, slot) == target.port for slot in slots), "the others to know")


def _owner(client: redis.Redis, slot: int) -> int | None:
    client.set_response_callback("CLUSTER SLOTS", lambda reply, **_: reply)
    ranges = client.execute_command("CLUSTER SLOTS")
    return next((entry[2][1] for entry in ranges if entry[0] <= slot <= entry[1]), None)


async def _ends_well(world: World, sale: Any, *, closed: bool) -> None:
    early = [await world.answer(sale.inventory.reserve([order(f"early-{n}", buyer_id="eve")])) for n in range(2)]
    syncer = world.syncer(sale)
    report = await syncer.run_once()
    late = await world.answer(sale.inventory.reserve([order("late", buyer_id="eve")]))
    accepted = [
        each[0].order_id for each in (*early, late) if not isinstance(each, FlashSaleError) and each[0].accepted
    ]
    if closed:
        assert not accepted, f"O: sold while the sale must be closed: {accepted}"
        assert report.closed or report.missing, "E: nobody noticed"
        await syncer.rebuild()
    else:
        assert len(accepted) == 2, "T: a sale that needs none waits for a rebuild"  # of two that the buyer may have
        await syncer.repair(dry_run=False)
    await sale.start("phone")
    again = await world.answer(sale.buy("phone", "buyer-saved", order_id="saved"))
    assert getattr(again, "replayed", False), f"E: a repeat does not find its order: {again!r}"
    await world.drain(sale)
    names = {"saved", "claimed", "listed", *accepted}
    assert (await world.orders(sale)) == dict.fromkeys(names, OrderState.PERSISTED), "E"
    assert await world.active_units(sale) == (await sale.inventory.stock("phone")).booked == len(names), "L"
    audit = await syncer.audit(names)
    assert audit.ok, f"L: {audit}"


# -- bad values, names, and the end of a sale -------------------------------------------------------------------------


@fault(
    55,
    "a bad value in a shared Redis",
    "a record, a number or a name that is none; a sequence number that is none, or huge",
    holds="E L T",
    mechanism="only what is named is refused; a rebuild mends it",
    without=("the end of the numbers", "the numbers begin anew", "a rebuild sweeps names"),
)
async def test_row_55_a_bad_value(world: World) -> None:
    for what in test_bad_values.BAD:
        await play(world, test_bad_values.one_bad_value, what)


@fault(
    58,
    "a misspelt sale",
    "status, settlement, audit and every change; a worker and a syncer run on it",
    holds="T",
    mechanism="who asks is told `UnknownSale`, with the names that there are; who runs waits",
    without=("the look for the sale", "the wait for the sale"),
)
async def test_row_58_a_misspelt_sale(world: World) -> None:
    sale, syncer = await test_unknown_sale.misspelt(world)
    for act in test_unknown_sale.ASKED.values():
        error = await world.answered(UnknownSale, act(sale, syncer))
        assert error.known == ("autumn", "winter")
    stop: Any = asyncio.Event() if world.is_async else threading.Event()
    running = [asyncio.create_task(each.run(stop)) for each in (syncer, world.worker(sale))]
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*running)
    assert world.raw.keys("*") == [], "T: somebody works on nothing"


@fault(
    59,
    "a purged sale",
    "a syncer, a worker, a late order, preload, rebuild and put_goods; a purge that dies half way, or meets a rebuild",
    holds="O E",
    mechanism="the database records the purge and grants no unit any more",
    without=("the record of a purge", "the closed gap of a purge", "a purged sale is granted nothing"),
)
async def test_row_59_a_purged_sale(world: World) -> None:
    await play(world, test_purged_sale.stays_away)
    await play(world, test_purged_sale.died_half_way)
    await play(world, test_purged_sale.rebuild_meets_purge)
    await play(world, test_purged_sale.test_an_order_that_comes_late_is_a_dead_letter_and_sells_nothing)
    await play(world, test_purged_sale.test_a_refund_after_a_purge_is_the_databases)
