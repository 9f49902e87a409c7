"""One bad value that somebody else wrote: only what is named is refused; the rest goes on, and a rebuild mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flashsale import CorruptState, Goods, OrderState, Outcome
from tests.support.helpers import order, settled
from tests.support.mutants import kills
from tests.support.sales import active_units, booked, rows, work

if TYPE_CHECKING:
    from tests.support.helpers import Awaited, Shop

CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED

BAD: dict[str, tuple[Any, tuple[str, ...]]] = {  # what is written, and what an audit names
    "a record": (lambda shop: shop.raw.hset(shop.keys.orders, "bad", "nonsense"), ("orders bad",)),
    "a record of no order": (lambda shop: shop.raw.hset(shop.keys.orders, "a b", "x"), ("orders a b",)),
    "a name of goods": (lambda shop: shop.raw.sadd(shop.keys.goods, "a/b"), ("goods a/b",)),
    "units of a buyer": (lambda shop: shop.raw.hset(shop.keys.buyers("phone"), "bob", "1.0"), ()),
    "a sequence number": (lambda shop: shop.raw.hset(shop.keys.meta, "seq", "many"), ("meta seq",)),
    "a huge sequence number": (lambda shop: shop.raw.hset(shop.keys.meta, "seq", "9" * 15), ("meta seq",)),
    "a negative sequence number": (lambda shop: shop.raw.hset(shop.keys.meta, "seq", "-1"), ("meta seq",)),
    "units of other goods": (lambda shop: shop.raw.hset(shop.keys.stock("case"), "Booked", "x"), ("case stock",)),
}


async def one_bad_value(shop: Shop, what: str) -> None:
    write, named = BAD[what]
    goods = (Goods("phone", 10, per_buyer=9), Goods("case", 5))
    sale = shop.sale(store=await shop.store(*goods), cache_for=0)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    for name, buyer in {"bad": "bob", "good": "ann", "paid": "ann"}.items():
        assert (await sale.buy("phone", buyer, order_id=name)).accepted
    await work(shop, sale)
    write(shop)
    await the_rest_goes_on(shop, sale, syncer, what, named)
    await syncer.rebuild()
    assert (await sale.buy("phone", "bob", order_id="new")).accepted
    await work(shop, sale)
    assert await booked(sale) == await active_units(sale) == 2
    assert (await sale.status("bad"), await sale.status("new")) == (PERSISTED, PERSISTED)
    audit = await syncer.audit(["bad", "good", "paid", "new"])
    assert audit.ok, audit
    await sale.pause()
    await sale.resume()


async def the_rest_goes_on(shop: Shop, sale: Awaited, syncer: Awaited, what: str, named: tuple[str, ...]) -> None:
    await settled(sale.store.settle(order("good", buyer_id="ann"), CANCELLED))  # the ledger has yet to follow
    await sale.confirm("paid")
    audit = await syncer.audit()
    assert audit.corrupt == named
    assert audit.ok is False
    assert [each.order_id for each in audit.orders] == ["good"]
    assert (await syncer.settlement()).ok is False
    assert [each.order_id for each in (await syncer.repair(dry_run=False)).mended] == ["good"]
    assert await sale.status("good") is CANCELLED
    await settled(sale.store.settle(order("paid", buyer_id="ann"), CANCELLED))
    await syncer.run_once()
    assert await sale.status("paid") is CANCELLED
    if "sequence" in what:
        with pytest.raises(CorruptState):
            await sale.buy("phone", "cleo", order_id="other")
    else:
        assert (await sale.buy("phone", "cleo", order_id="other")).outcome is Outcome.ACCEPTED
    await work(shop, sale)
    assert len(await rows(sale)) == (3 if "sequence" in what else 4)
    await sale.cancel("other")


@pytest.mark.parametrize("what", BAD)
async def test_one_bad_value_stops_only_what_it_names(real_shop: Shop, what: str) -> None:
    await one_bad_value(real_shop, what)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=kills(mechanism, by=CorruptState))
        for mechanism, what in {
            "the end of the numbers": "a huge sequence number",
            "the numbers begin anew": "a sequence number",
            "a rebuild sweeps names": "a name of goods",
        }.items()
    ],
)
async def test_without_its_mechanism_one_bad_value_stops_more(sync_shop: Shop, what: str) -> None:
    await one_bad_value(sync_shop, what)


async def test_a_bad_order_does_not_stop_the_others_of_its_page(real_shop: Shop) -> None:
    shop = real_shop
    sale = await shop.open(10, store=True, per_buyer=5)
    syncer = shop.syncer(sale)
    for name, buyer in {"a": "ann", "b": "bob"}.items():
        await sale.buy("phone", buyer, order_id=name)
    await work(shop, sale)
    for name, buyer in {"a": "ann", "b": "bob"}.items():
        await settled(sale.store.settle(order(name, buyer_id=buyer), CANCELLED))
    shop.raw.hset(shop.keys.buyers("phone"), "ann", "many")
    assert (await syncer.run_once()).settled == 1
    assert (await sale.status("a"), await sale.status("b")) == (PERSISTED, CANCELLED)
    assert [each.order_id for each in (await syncer.repair(dry_run=False)).mended] == []
