"""A key of a living sale is lost: it is noticed, nothing is sold twice, and it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from flashsale import Goods, OrderState, Outcome, UnknownGoods
from tests.support.helpers import order, settled
from tests.support.mutants import kills, promises
from tests.support.sales import active_units, booked, rows, work

if TYPE_CHECKING:
    from tests.support.helpers import Awaited, Shop

PERSISTED, PAUSED = OrderState.PERSISTED, Outcome.PAUSED


async def living(shop: Shop, total: int = 10, **policy: Any) -> tuple[Awaited, Awaited]:
    """A sale with an order in each place: `saved` has a row, `claimed` a lease, `listed` is on the list."""
    sale = shop.sale(store=await shop.store(Goods("phone", total, **policy)), cache_for=0)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    await sale.buy("phone", "ann", order_id="saved")
    await work(shop, sale)
    await sale.buy("phone", "bob", order_id="claimed")
    await sale.queue.claim(lease=3600)
    await sale.buy("phone", "cleo", order_id="listed", data={"colour": "red"})
    return sale, syncer


async def ends_well(shop: Shop, sale: Awaited, syncer: Awaited, names: tuple[str, ...], total: int = 10) -> None:
    """Sells what is left, saves everything, and finds every unit and every order."""
    late = [await sale.buy("phone", f"late-{n}") for n in range(total)]
    await work(shop, sale)
    assert [each.accepted for each in late].count(True) == total - len(names)
    assert {name: await sale.status(name) for name in names} == dict.fromkeys(names, PERSISTED)
    assert (await rows(sale)).keys() >= set(names)
    assert await booked(sale) == await active_units(sale) == total
    audit = await syncer.audit(names)
    assert audit.ok, audit


# -- the ledger -----------------------------------------------------------------------------------------------------

ALL = ("saved", "claimed", "listed")


async def no_ledger(shop: Shop) -> None:
    sale, syncer = await living(shop)
    shop.raw.delete(shop.keys.orders)
    for _ in range(2):
        assert (await sale.buy("phone", "dora", order_id="new")).outcome is PAUSED
        assert (await sale.buy("phone", "ann", order_id="saved")).outcome is PAUSED
        assert [each.outcome for each in await sale.inventory.reserve([order("past")])] == [PAUSED]
        await sale.queue.push(order("external"))
        for _ in range(7):  # no attempt counts
            shop.end_leases()
            await shop.worker(sale).run_once()
        assert not shop.raw.exists(shop.keys.orders)  # neither a worker nor the syncer fills a part of it
        report = await syncer.run_once()
        assert report.closed
    assert shop.raw.hget(shop.keys.meta, "state") == b"closed"
    assert await sale.queue.dead() == []
    assert (await syncer.rebuild()).orders == 1
    await work(shop, sale)
    await ends_well(shop, sale, syncer, (*ALL, "external"))


async def test_a_lost_ledger_stops_the_sale_until_the_rebuild(real_shop: Shop) -> None:
    await no_ledger(real_shop)


async def test_the_syncer_says_once_which_key_was_lost_and_closes_before_it_restores(real_shop: Shop) -> None:
    sale, syncer = await living(real_shop)
    real_shop.raw.delete(real_shop.keys.orders)
    first, second = await syncer.run_once(), await syncer.run_once()
    assert (first.lost, first.closed, first.settled) == ("orders", True, 0)
    assert (second.lost, second.closed) == (None, True)
    assert not real_shop.raw.exists(real_shop.keys.orders)
    assert (await sale.buy("phone", "dora")).outcome is PAUSED


async def test_a_repair_does_not_fill_a_part_of_a_lost_ledger(real_shop: Shop) -> None:
    _, syncer = await living(real_shop)
    real_shop.raw.delete(real_shop.keys.orders)
    assert (await syncer.repair(dry_run=False)).mended == ()
    assert not real_shop.raw.exists(real_shop.keys.orders)


async def test_a_ledger_that_was_never_filled_is_not_lost(real_shop: Shop) -> None:
    shop = real_shop
    sale = shop.sale(store=await shop.store(Goods("phone", 3)), cache_for=0)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    assert not (await syncer.run_once()).closed
    for name in ("o-1", "o-2"):
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
        shop.raw.delete(shop.keys.order_list)
        await syncer.rebuild()  # restores no row
        assert not (await syncer.run_once()).closed
    await settled(sale.real._forget())
    await syncer.rebuild()
    await sale.start("phone")
    assert (await sale.buy("phone", "ann", order_id="o-3")).accepted


@promises(
    {
        "a purchase asks for the ledger": no_ledger,
        "an adoption asks for the ledger": no_ledger,
        "the syncer asks for the ledger": no_ledger,
        "a restore asks for the ledger": test_a_repair_does_not_fill_a_part_of_a_lost_ledger,
        "the numbers begin anew": test_a_ledger_that_was_never_filled_is_not_lost,
    }
)
async def test_without_the_look_at_the_ledger_a_lost_one_goes_unnoticed(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


# -- every other key ------------------------------------------------------------------------------------------------


async def read(sale: Awaited, syncer: Awaited) -> tuple[str, ...]:
    """What a buyer reads, before the syncer's next pass and after it; and what the pass and an audit find."""
    before = (await sale.buy("phone", "dora")).outcome if not await is_unknown(sale) else "UnknownGoods"
    report = await syncer.run_once()
    after = (await sale.buy("phone", "eve")).outcome if not await is_unknown(sale) else "UnknownGoods"
    found = [report.lost or "", *report.missing, *{each.problem for each in (await syncer.audit()).orders}]
    return (str(before), str(after), " ".join(filter(None, found)))


async def is_unknown(sale: Awaited) -> bool:
    try:
        await sale.gate.state("phone")
        await sale.inventory.stock("phone")
    except UnknownGoods:
        return True
    return False


class Lost(NamedTuple):
    """What becomes of a sale that lost a key.

    Args:
        before: what a buyer reads until the syncer's next pass.
        after: and after that.
        found: what the syncer's pass or an audit says.
        back: what brings it back: the syncer by itself, start or rebuild.
    """

    before: str
    after: str
    found: str
    back: str


KEYS = {
    "meta": Lost("PAUSED", "PAUSED", "meta", "rebuild"),
    "orders": Lost("PAUSED", "PAUSED", "orders UNKNOWN", "rebuild"),
    "stock": Lost("UnknownGoods", "UnknownGoods", "phone", "rebuild"),
    "buyers": Lost("PAUSED", "PAUSED", "phone", "rebuild"),
    "goods": Lost("ACCEPTED", "ACCEPTED", "", "syncer"),
    "count": Lost("UnknownGoods", "ACCEPTED", "", "syncer"),
    "access": Lost("ACCEPTED", "ACCEPTED", "", "syncer"),
    "window": Lost("ACCEPTED", "ACCEPTED", "", "syncer"),
    "start": Lost("NOT_STARTED", "NOT_STARTED", "", "start"),
    "order_list": Lost("ACCEPTED", "ACCEPTED", "NOT_QUEUED", "syncer"),
    "claimed": Lost("ACCEPTED", "ACCEPTED", "NOT_QUEUED", "syncer"),
    "dead": Lost("ACCEPTED", "ACCEPTED", "", "syncer"),
    "holds": Lost("ACCEPTED", "ACCEPTED", "", "syncer"),
}


async def loses(shop: Shop, name: str) -> None:
    lost = KEYS[name]
    sale, syncer = await living(shop, 20, per_buyer=2, hold=3600)
    await sale.buy("phone", "fay", order_id="dead")
    (_, letter) = await sale.queue.claim(lease=3600)  # `listed` and `dead`
    await sale.queue._bury([letter])
    await sale.buy("phone", "gil", order_id="listed-2")
    key = getattr(shop.keys, name)
    shop.raw.delete(key if isinstance(key, str) else key("phone"))
    if name == "meta":  # its counter of claims is gone: a new claim must not take an old one's number
        for n in range(4):
            await sale.queue.push(order(f"external-{n}"))
        await shop.worker(sale).run_once()
    assert await read(sale, syncer) == (lost.before, lost.after, lost.found)
    if lost.back == "rebuild":
        await syncer.rebuild()
    await sale.start("phone")
    await sale.queue.requeue_dead()
    await work(shop, sale)
    await syncer.run_once()  # the queue is empty: what is still queued has no place in it
    await work(shop, sale)
    names = ("saved", "claimed", "listed", "dead", "listed-2")
    assert {each: await sale.status(each) for each in names} == dict.fromkeys(names, PERSISTED)
    assert (await sale.buy("phone", "ann", 2)).outcome is Outcome.LIMIT_REACHED
    for n in range(20):
        await sale.buy("phone", f"late-{n}")
    await work(shop, sale)
    assert await booked(sale) == await active_units(sale) == 20
    audit = await syncer.audit(names)
    assert audit.ok, audit
    assert shop.raw.smembers(shop.keys.goods) == {b"phone"}
    assert shop.raw.zcard(shop.keys.holds) == len(await rows(sale))


@pytest.mark.parametrize("name", KEYS)
async def test_a_lost_key_is_noticed_and_comes_back(real_shop: Shop, name: str) -> None:
    await loses(real_shop, name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(key, marks=kills(mechanism))
        for mechanism, key in {
            "the mark of the buyers": "buyers",
            "the syncer asks for the buyers": "buyers",
            "the syncer asks for meta": "meta",
            "lost names of items return": "goods",
            "new deliveries when meta is lost": "meta",
            "the syncer recovers places": "order_list",
        }.items()
    ],
)
async def test_without_its_mechanism_a_lost_key_does_harm(sync_shop: Shop, name: str) -> None:
    await loses(sync_shop, name)


async def test_the_syncer_queues_nothing_that_is_under_way(real_shop: Shop) -> None:
    """Neither what is listed or claimed, nor in a sale whose orders are only popped: they are another program's."""
    sale, syncer = await living(real_shop)
    assert (await syncer.run_once()).recovered == 0
    assert await sale.queue.size() == 1
    real_shop.raw.delete(real_shop.keys.order_list, real_shop.keys.claimed)
    real_shop.raw.hdel(real_shop.keys.meta, "deliveries")
    assert (await syncer.run_once()).recovered == 0
    assert await sale.queue.size() == 0


@kills("a busy queue loses nothing")
async def test_without_the_look_at_the_queue_orders_would_be_queued_twice(sync_shop: Shop) -> None:
    await test_the_syncer_queues_nothing_that_is_under_way(sync_shop)


async def test_meta_that_is_lost_before_the_first_order_closes_the_sale(real_shop: Shop) -> None:
    sale = real_shop.sale(store=await real_shop.store(Goods("phone", 5)), cache_for=0)
    syncer = real_shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    await sale.pause()
    real_shop.raw.delete(real_shop.keys.meta)
    assert [each.outcome for each in await sale.inventory.reserve([order("early")])] == [PAUSED]
    report = await syncer.run_once()
    assert (report.lost, report.closed) == ("meta", True)
    await syncer.rebuild()
    assert (await sale.buy("phone", "ann")).accepted
