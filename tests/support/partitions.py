"""What the tests of a sale over several partitions share: buyers of a partition, its keys, and what stands where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flashsale import Goods
from flashsale._rules.partitions import Routes, tag_of
from flashsale.keys import PartitionKeys
from tests.support.helpers import settled

if TYPE_CHECKING:
    from tests.support.helpers import Awaited, Shop

FOUR = 4


def keys(place: int, count: int = FOUR) -> PartitionKeys:
    """Returns the keys of a partition of sale "spring"."""
    return PartitionKeys("spring", tag_of("spring", place, count))


def buyer(place: int, number: int = 0, count: int = FOUR) -> str:
    """Returns a buyer of this partition, another one for each number."""
    routes, found = Routes(count), -1
    for n in range(100_000):
        found += routes.of_buyer(f"b{n}") == place
        if found == number:
            return f"b{n}"
    raise AssertionError("no such buyer")


def held(shop: Shop, count: int = FOUR, goods_id: str = "phone") -> list[tuple[int, int]]:
    """Returns total and booked units of each partition."""
    found = [shop.raw.hmget(keys(place, count).stock(goods_id), "Total", "Booked") for place in range(count)]
    return [(int(total or 0), int(booked or 0)) for total, booked in found]


def booked(shop: Shop, count: int = FOUR) -> int:
    """Returns the units that all partitions have booked."""
    return sum(units for _, units in held(shop, count))


def allotted(shop: Shop, count: int = FOUR, goods_id: str = "phone") -> int:
    """Returns the units that the whole sale has."""
    return int(shop.raw.hget(keys(0, count).stock(goods_id), "Allotted") or -1)


def sold_from(shop: Shop, count: int = FOUR) -> list[int]:
    """Returns how many units each partition has at its gate: those that may pass, and those that have."""
    return [int(shop.raw.get(keys(place, count).count("phone")) or 0) for place in range(count)]


def partitioned(shop: Shop, count: int = FOUR, **settings: Any) -> Awaited:
    """Returns a sale over so many partitions, whose looks have as long as a busy machine needs."""
    sale = shop.sale(partitions=count, **{"cache_for": 0, **settings})
    sale.real._transfers._within = 8.0
    return sale


async def opened(
    shop: Shop, total: int = 10, count: int = FOUR, *, sale: Awaited | None = None, **policy: Any
) -> Awaited:
    """Returns a sale over so many partitions without a database, started."""
    sale = sale or partitioned(shop, count)
    await sale.preload("phone", total, **policy)
    await sale.start("phone")
    return sale


async def synced(
    shop: Shop, total: int = 10, count: int = FOUR, *, settings: dict[str, Any] | None = None, **policy: Any
) -> tuple[Awaited, Awaited]:
    """Returns a sale that its syncer has loaded from a database, started, and the syncer."""
    store = await shop.store(Goods("phone", total, **policy))
    sale = partitioned(shop, count, store=store, **(settings or {}))
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    return sale, syncer


def end_leases(shop: Shop, count: int = FOUR) -> None:
    """Lets all leases and delays of claims end at once, as time would."""
    for place in range(count):
        ends = shop.raw.zrange(keys(place, count).leases, 0, -1, withscores=True)
        if ends:
            shop.raw.zadd(keys(place, count).leases, {delivery: end - 1e9 for delivery, end in ends}, xx=True)


def is_queued(shop: Shop, count: int = FOUR) -> bool:
    """Returns whether an order waits in the queue of a partition, or is claimed."""
    names = [name for place in range(count) for name in (keys(place, count).order_list, keys(place, count).claimed)]
    return any(shop.raw.exists(name) for name in names)


async def work(shop: Shop, sale: Awaited, count: int = FOUR) -> None:
    """Runs a worker until nothing is left to claim; delays and leases end at once."""
    worker = shop.worker(sale)
    while is_queued(shop, count):
        end_leases(shop, count)
        await worker.run_once()


async def rows(sale: Awaited) -> dict[str, Any]:
    """Returns the states that the database has."""
    return {row.order.order_id: row.state for row in await settled(sale.store.orders())}


def lose(shop: Shop, place: int, count: int = FOUR) -> None:
    """Deletes every key of a partition, as a server that lost its data would have."""
    tag = f"{{{keys(place, count).tag}}}".encode()
    found = [key for key in shop.raw.keys("*") if tag in key]
    assert found
    shop.raw.delete(*found)
