"""A key of a living sale is lost: it is noticed, nothing is sold twice, and it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, OrderState, Outcome
from tests.support.helpers import mutate, order, settled
from tests.support.sales import active_units, booked, rows, work

if TYPE_CHECKING:
    from tests.support.helpers import Part, Shop

PERSISTED, PAUSED = OrderState.PERSISTED, Outcome.PAUSED


async def living(shop: Shop, total: int = 10, **policy: Any) -> tuple[Part, Part]:
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


async def ends_well(shop: Shop, sale: Part, syncer: Part, names: tuple[str, ...], total: int = 10) -> None:
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
        await sale.queue.push(order("foreign"))
        for _ in range(7):  # no attempt is burned
            shop.end_leases()
            await shop.worker(sale).run_once()
        assert not shop.raw.exists(shop.keys.orders)  # neither a worker nor the syncer fills a part of it
        report = await syncer.run_once()
        assert report.closed
    assert shop.raw.hget(shop.keys.meta, "state") == b"closed"
    assert await sale.queue.dead() == []
    assert (await syncer.rebuild()).orders == 1
    await work(shop, sale)
    await ends_well(shop, sale, syncer, (*ALL, "foreign"))


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


LOST = {  # what each of them alone keeps from happening
    "reserve": ('(meta[1] or "open") ~= "open" or lost(seq)', '(meta[1] or "open") ~= "open"'),
    "adopt": ('meta[2] == "closed" or lost(seq)', 'meta[2] == "closed"'),
    "restore": ("or lost(seq) and -5 or nil", "or nil"),
    "notice": ("(orphans or lost(sequence(meta[3])))", "orphans"),
    "wipe": ('redis.call("HDEL", KEYS[1], "seq")', ""),
}


@pytest.mark.parametrize("script", LOST)
async def test_without_the_look_at_the_ledger_a_lost_one_goes_unnoticed(
    real_shop: Shop, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    mutate(monkeypatch, script, *LOST[script])
    with pytest.raises(AssertionError):
        if script == "restore":
            await test_a_repair_does_not_fill_a_part_of_a_lost_ledger(real_shop)
        elif script == "wipe":
            await test_a_ledger_that_was_never_filled_is_not_lost(real_shop)
        else:
            await no_ledger(real_shop)
