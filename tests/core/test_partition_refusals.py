"""What a sale over several partitions refuses at once, and that their number and servers are fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flashsale import (
    AlreadyLoaded,
    CorruptState,
    Durability,
    FlashSale,
    Goods,
    InvalidRequest,
    Keys,
    NotExecuted,
    PartitionMismatch,
    PlainKeys,
    StoreRequired,
    UnknownGoods,
)
from tests.support.helpers import settled, snapshot
from tests.support.mutants import kills
from tests.support.partitions import FOUR, allotted, buyer, held, keys, lose, opened, partitioned, sold_from, synced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.helpers import Awaited, Shop

ROOT = Keys("spring").meta.encode()


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [0, -1, 257, True, False, "8", 1.0, 2.0, None, [2]])
async def test_a_number_of_partitions_that_is_none(sync_shop: Shop, partitions: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^partitions: must be an int in 1\.\.256"):
        sync_shop.sale(partitions=partitions)


async def test_gate_and_layout_of_another_kind_are_refused(shop: Shop) -> None:
    for setting in ("gate_client", "gate_replica"):
        with pytest.raises(InvalidRequest, match=rf"^{setting}: .*gates beside its stocks"):
            partitioned(shop, **{setting: shop.client(db=1)})
    with pytest.raises(InvalidRequest, match=r"^keys: .*keys of its own"):
        partitioned(shop, keys=PlainKeys())
    partitioned(shop, keys=Keys())
    with pytest.raises(StoreRequired):
        partitioned(shop, durability=Durability.PERSISTED)


async def test_clients_must_share_the_partitions_evenly(shop: Shop) -> None:
    clients = [shop.client(db=db) for db in range(3)]
    with pytest.raises(InvalidRequest, match=r"^partitions: must be a multiple of the 3 clients"):
        shop.sale(client=clients, partitions=4)
    with pytest.raises(InvalidRequest, match=r"^client: is an empty list"):
        shop.make("FlashSale", [], "spring", partitions=4)
    with pytest.raises(InvalidRequest, match=r"^client: a list is for a sale over several partitions"):
        shop.sale(client=clients[:1])
    with pytest.raises(InvalidRequest, match=r"^client: a list is for a sale over several partitions"):
        shop.sale(client=(clients[0],), partitions=1)


async def test_gate_inventory_and_queue_are_of_each_partition(shop: Shop) -> None:
    sale = partitioned(shop)
    for name in ("gate", "inventory", "queue"):
        with pytest.raises(InvalidRequest, match=rf"^partitions: each of them has its own {name}"):
            getattr(sale.real, name)


async def test_classes_of_a_hosts_own_have_one_partition(sync_shop: Shop) -> None:
    class Mine(FlashSale):
        pass

    with pytest.raises(InvalidRequest, match=r"^partitions: a class of your own has one"):
        Mine(sync_shop.client(), "spring", partitions=4)
    Mine(sync_shop.client(), "spring").close()


async def test_values_that_are_none_freeze_nothing(shop: Shop) -> None:
    sale = partitioned(shop)
    for arguments, policy in (
        (("phone", -1), {}),
        (("phone", "5"), {}),
        (("a phone", 5), {}),
        (("phone", 5), {"per_buyer": 0}),
        (("phone", 5), {"opens_at": 2e9, "closes_at": 1e9}),
    ):
        with pytest.raises(InvalidRequest):
            await sale.preload(*arguments, **policy)
    assert snapshot(shop.raw) == {}


# -- the number is fixed ----------------------------------------------------------------------------------------------


def calls(shop: Shop, sale: Awaited, order_id: str | None = None) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Returns everything that a host can do with a sale."""
    name = order_id or sale.real.order_id(buyer(0), "mine")
    syncer, worker = shop.syncer(sale), shop.worker(sale)
    outbox = shop.make("Outbox", sale, lambda _: None)
    return {
        "preload": lambda: sale.preload("phone", 10),
        "preload another": lambda: sale.preload("case", 10),
        "start": lambda: sale.start("phone"),
        "stop": lambda: sale.stop("phone"),
        "pause": sale.pause,
        "resume": sale.resume,
        "buy": lambda: sale.buy("phone", buyer(0)),
        "buy by name": lambda: sale.buy("phone", buyer(0), order_id=name),
        "buy_basket": lambda: sale.buy_basket(buyer(0), [("phone", 1)]),
        "view": lambda: sale.view("phone"),
        "status": lambda: sale.status(name),
        "cancel": lambda: sale.cancel(name),
        "confirm": lambda: sale.confirm(name),
        "extend_hold": lambda: sale.extend_hold(name, 5.0),
        "cancel_basket": lambda: sale.cancel_basket(name),
        "restock": lambda: sale.restock("phone", 5),
        "worker": worker.run_once,
        "syncer": syncer.run_once,
        "outbox": outbox.run_once,
        "audit": syncer.audit,
        "repair": lambda: syncer.repair(dry_run=False),
        "rebuild": syncer.rebuild,
        "settlement": syncer.settlement,
        "purge": syncer.purge,
    }


async def refused(shop: Shop, sale: Awaited, but: frozenset[str] = frozenset()) -> PartitionMismatch:
    """Asserts that a sale refuses everything, but for what is named, before it changes anything."""
    mismatch = None
    for name, call in calls(shop, sale).items():
        if name in but:
            continue
        before, sql = snapshot(shop.raw), shop.sql("SELECT * FROM flashsale_goods ORDER BY 1, 2")
        try:
            answer = await call()
        except PartitionMismatch as error:
            mismatch = error
        else:
            pytest.fail(f"{name} was not refused: {answer}")
        assert snapshot(shop.raw) == before, name
        assert shop.sql("SELECT * FROM flashsale_goods ORDER BY 1, 2") == sql, name
    assert mismatch is not None
    assert not mismatch.retry_safe
    return mismatch


async def test_another_number_of_partitions_is_refused(shop: Shop) -> None:
    sale, _ = await synced(shop)
    error = await refused(shop, partitioned(shop, 8, store=sale.store))
    assert (error.partitions, error.servers, error.place) == (4, 1, 0)
    assert "begun with 4 partitions: give this process as many partitions, and one client" in str(error)
    with pytest.raises(PartitionMismatch):
        await shop.worker(partitioned(shop, 8, store=sale.store)).run()
    assert (await sale.buy("phone", buyer(0))).accepted


async def test_a_sale_with_one_partition_gets_no_more(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await shop.syncer(sale).run_once()
    error = await refused(shop, partitioned(shop, store=sale.store))
    assert (error.partitions, error.servers, error.place) == (1, 1, 0)
    assert "begun with 1 partition: give this process as many partitions, and one client" in str(error)
    assert (await sale.buy("phone", "ann")).accepted


READS_NOTHING = frozenset({"start", "stop", "view", "cancel_basket", "restock"})
"""What finds no such item, or order, under the names of a sale with one partition: nothing is changed."""


async def test_a_process_without_partitions_is_refused(shop: Shop) -> None:
    sale, _ = await synced(shop)
    plain = shop.sale(store=sale.store)
    error = await refused(shop, plain, READS_NOTHING)
    assert (error.partitions, error.servers, error.place) == (4, 1, 0)
    before = snapshot(shop.raw)
    for name in READS_NOTHING:
        with pytest.raises((UnknownGoods, PartitionMismatch)):
            await calls(shop, plain)[name]()
    assert snapshot(shop.raw) == before


async def two(shop: Shop, count: int = 4, **settings: Any) -> Awaited:
    """A sale on two servers, as far as keys go."""
    return partitioned(shop, count, client=[shop.client(db=0), shop.client(db=1)], **settings)


@pytest.mark.one_server
async def test_servers_in_another_order_are_refused(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 10))
    sale = await two(shop, store=store)
    await shop.syncer(sale).run_once()
    await sale.start("phone")
    others = [shop.raw, shop.backend.raw(db=1)]
    assert [len([key for key in each.keys("*") if key.endswith(b"phone:stock")]) for each in others] == [2, 2]
    swapped = partitioned(shop, client=[shop.client(db=1), shop.client(db=0)], store=store)
    error = await refused(shop, swapped)
    assert (error.partitions, error.servers) == (4, 2)
    assert "on 2 servers, of which this one is number" in str(error)
    assert str(error).endswith("give this process as many partitions, and those 2 servers in the same order")
    for client in (shop.client(db=0), shop.client(db=1)):
        assert (await refused(shop, partitioned(shop, client=client, store=store))).servers == 2
    assert (await sale.buy("phone", buyer(0), 10)).accepted


@pytest.mark.one_server
async def test_one_server_twice_is_refused(shop: Shop) -> None:
    sale = partitioned(shop, client=[shop.client(), shop.client()])
    with pytest.raises(PartitionMismatch, match="this one is number 0"):
        await sale.preload("phone", 10)
    assert set(snapshot(shop.raw)) == {ROOT}


async def test_the_number_is_fixed_with_the_first_item(shop: Shop) -> None:
    for count in (4, 8):  # nothing was loaded: each may ask
        with pytest.raises(UnknownGoods):
            await partitioned(shop, count).buy("phone", buyer(0, count=count))
    assert snapshot(shop.raw) == {}
    await partitioned(shop).preload("phone", 10)
    assert shop.raw.hgetall(ROOT) == {b"layout": b"partitions", b"partitions": b"4 1 0"}
    with pytest.raises(PartitionMismatch):
        await partitioned(shop, 8).preload("phone", 10)


async def test_a_process_that_came_first_learns_of_another_number(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for api in ("_sync", "aio"):
        monkeypatch.setattr(f"flashsale.{api}.partitions.sale.AGAIN", 0.0)
    early = partitioned(shop, 8)
    with pytest.raises(UnknownGoods):
        await early.buy("phone", buyer(0, count=8))
    await opened(shop)
    with pytest.raises(PartitionMismatch):
        await early.buy("phone", buyer(0, count=8))


async def test_a_number_that_somebody_else_wrote_is_not_trusted(shop: Shop) -> None:
    sale, _ = await synced(shop)
    for text in ("", "4", "a b c", "4 1 0 0", "9" * 30, "\xe9"):
        shop.raw.hset(ROOT, "partitions", text.encode("latin1"))
        with pytest.raises(CorruptState):
            await partitioned(shop).buy("phone", buyer(0))
        with pytest.raises(CorruptState):
            await shop.sale().buy("phone", "ann")
    shop.raw.hset(ROOT, "partitions", "4 1 0")
    assert (await sale.buy("phone", buyer(0))).accepted


# -- preload ----------------------------------------------------------------------------------------------------------


async def test_preload_only_creates(shop: Shop) -> None:
    sale = partitioned(shop)
    policy = {"per_buyer": 2, "opens_at": 2e9, "closes_at": 3e9, "hold": 600.5}
    await sale.preload("phone", 10, **policy)
    before = snapshot(shop.raw)
    await sale.preload("phone", 10, **policy)
    await partitioned(shop).preload("phone", 10, **policy)
    assert snapshot(shop.raw) == before
    for total, other in ((11, policy), (10, policy | {"per_buyer": 3}), (10, policy | {"hold": None})):
        with pytest.raises(AlreadyLoaded):
            await sale.preload("phone", total, **other)
    assert snapshot(shop.raw) == before


@pytest.mark.parametrize(("total", "count"), [(0, 4), (3, 16), (10, 4), (4, 4), (1, 2), (1000, 3)])
async def test_units_are_spread_evenly(shop: Shop, total: int, count: int) -> None:
    sale = partitioned(shop, count)
    await sale.preload("phone", total)
    totals = [units for units, _ in held(shop, count)]
    assert sum(totals) == total == allotted(shop, count)
    assert max(totals) - min(totals) <= 1
    assert sold_from(shop, count) == totals
    state = await sale.view("phone")
    assert (state.count, state.remaining, state.access) == (total, total, 0)


async def test_a_preload_that_was_cut_off_is_finished_by_the_next(shop: Shop) -> None:
    sale = partitioned(shop)
    real = sale.real._parts[1]
    load, real.load = real.load, lambda _: (_ for _ in ()).throw(NotExecuted("cut off"))
    with pytest.raises(NotExecuted, match="cut off"):
        await sale.preload("phone", 10)
    assert sum(units for units, _ in held(shop)) == 0
    real.load = load
    await sale.preload("phone", 10)
    assert sum(units for units, _ in held(shop)) == 10


async def test_an_item_that_a_partition_does_not_hold(shop: Shop) -> None:
    sale = await opened(shop)
    for call in (sale.start, sale.stop, sale.view):
        with pytest.raises(UnknownGoods):
            await call("case")
    with pytest.raises(UnknownGoods):
        await sale.buy("case", buyer(0))
    lose(shop, 2)
    with pytest.raises(UnknownGoods, match="unknown goods") as caught:
        await sale.start("phone")
    assert caught.value.__notes__ == ["partitions without start: 2"]
    with pytest.raises(UnknownGoods):
        await sale.view("phone")
    assert (await sale.buy("phone", buyer(0))).accepted  # the others go on


async def test_the_first_partition_alone_knows_how_many_units_the_sale_has(shop: Shop) -> None:
    await opened(shop)
    assert [shop.raw.hexists(keys(place).stock("phone"), "Allotted") for place in range(FOUR)] == [
        True,
        False,
        False,
        False,
    ]


async def test_a_check_looks_at_each_server(real_shop: Shop) -> None:
    """A server without persistence is found once for each client that leads there."""
    one = await real_shop.sale().check()
    several = await two(real_shop)
    assert await several.check() == one * 2
    assert await settled(partitioned(real_shop).check()) == one


@kills("partitions are met", by=UnknownGoods)
async def test_without_a_look_another_number_is_not_seen(sync_shop: Shop) -> None:
    await test_another_number_of_partitions_is_refused(sync_shop)
