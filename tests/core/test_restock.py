"""`FlashSale.restock`: more units, or fewer, while the sale runs; never below what is booked."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, InvalidRequest, NotExecuted, Outcome, StoreError, UnknownGoods
from tests.support.helpers import Awaited, settled, snapshot
from tests.support.sales import active_units, booked, each_backend, store_at, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop


async def opened(shop: Shop, total: int = 10, **settings: Any) -> Awaited:
    sale = shop.sale(store=await shop.store(Goods("phone", total)), cache_for=0, **settings)
    await shop.syncer(sale).run_once()
    await sale.start("phone")
    return sale


async def totals(shop: Shop, sale: Awaited) -> tuple[int, int, int, int]:
    """Units for sale by the database's request and its guard, by the stock, and by the gate."""
    ((goods,),) = [await settled(sale.store.goods())]
    gate = (await sale.gate.state("phone")).count
    return goods.total, guard(shop), (await sale.inventory.stock("phone")).total, gate


def guard(shop: Shop) -> int:
    return shop.sql("SELECT granted FROM flashsale_goods")[0][0]


@pytest.mark.parametrize("two", [False, True], ids=["one Redis", "two Redis"])
@each_backend
async def test_units_are_added_and_sold(shop: Shop, two: bool) -> None:
    sale = await opened(shop, 2, **({"gate_client": shop.client(db=1)} if two else {}))

    async def load() -> Counter[Outcome]:
        return Counter([(await sale.buy("phone", "ann")).outcome for _ in range(4)])

    assert await load() == {Outcome.ACCEPTED: 2, Outcome.SOLD_OUT: 2}
    assert await sale.restock("phone", 3) == 5
    assert await totals(shop, sale) == (5, 5, 5, 5)
    assert await load() == {Outcome.ACCEPTED: 3, Outcome.SOLD_OUT: 1}
    await work(shop, sale)
    assert await booked(sale) == await active_units(sale) == 5


@each_backend
async def test_units_are_taken_away_down_to_what_is_booked(shop: Shop) -> None:
    sale = await opened(shop, 10)
    await sale.buy("phone", "ann", 4, order_id="o-1")
    assert await sale.restock("phone", -3) == 7
    assert await totals(shop, sale) == (7, 7, 7, 7)
    assert await sale.restock("phone", -5) == 4
    assert await totals(shop, sale) == (2, 4, 4, 4)  # the request is 2; what is booked stays booked
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT
    await work(shop, sale)
    assert await active_units(sale) == 4
    await sale.cancel("o-1")
    await shop.syncer(sale).run_once()
    assert await totals(shop, sale) == (2, 2, 2, 2)
    assert await sale.restock("phone", -99) == 0
    assert await totals(shop, sale) == (0, 0, 0, 0)


@each_backend
async def test_a_process_that_knows_that_all_is_sold_asks_again(shop: Shop) -> None:
    sale = shop.sale(store=await shop.store(Goods("phone", 1)), cache_for=60)
    await shop.syncer(sale).run_once()
    await sale.start("phone")
    assert [(await sale.buy("phone", "ann")).accepted for _ in range(3)] == [True, False, False]
    await sale.restock("phone", 1)
    assert (await sale.buy("phone", "ann")).accepted


@each_backend
async def test_nothing_added_nothing_changed_but_the_version(shop: Shop) -> None:
    sale = await opened(shop)
    assert await sale.restock("phone", 0) == 10
    assert await totals(shop, sale) == (10, 10, 10, 10)


@each_backend
async def test_what_cannot_be_restocked_is_an_error_and_changes_nothing(shop: Shop) -> None:
    sale = await opened(shop)
    before, goods = snapshot(shop.raw), await settled(sale.store.goods())
    for wrong in (1.0, "1", True, None, 10**15):
        with pytest.raises(InvalidRequest):
            await sale.restock("phone", wrong)
    with pytest.raises(UnknownGoods):
        await sale.restock("ghost", 1)
    with pytest.raises(InvalidRequest):
        await sale.restock("no goods", 1)
    shop.sql("ALTER TABLE flashsale_goods RENAME TO away")
    with pytest.raises(StoreError):
        await sale.restock("phone", 1)
    shop.sql("ALTER TABLE away RENAME TO flashsale_goods")
    assert snapshot(shop.raw) == before
    assert await settled(sale.store.goods()) == goods


# -- the guard is never tighter than the stock ----------------------------------------------------------------------


def failing(shop: Shop, error: Exception) -> Any:
    async def afail(*_: Any, **__: Any) -> Any:
        raise error

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return afail if shop.is_async else fail


@pytest.mark.parametrize("units", [5, -5])
@pytest.mark.parametrize("lost", ["the guard", "the stock", "the guard at last", "the gate"])
@each_backend
async def test_wherever_it_dies_nobody_accepted_is_rejected_and_the_syncer_goes_on(
    shop: Shop, lost: str, units: int
) -> None:
    sale = await opened(shop, 10)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    real, store = sale.real, sale.store
    grant = store.grant
    calls: list[int] = []

    async def asecond(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StoreError("down")
        return await grant(*args, **more)

    def second(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StoreError("down")
        return grant(*args, **more)

    place, name, instead = {
        "the guard": (store, "grant", failing(shop, StoreError("down"))),
        "the stock": (real.inventory, "_configure", failing(shop, NotExecuted("down"))),
        "the guard at last": (store, "grant", asecond if shop.is_async else second),
        "the gate": (real.gate, "resize", failing(shop, NotExecuted("down"))),
    }[lost]
    kept = getattr(place, name)
    setattr(place, name, instead)
    try:
        await sale.restock("phone", units)
    except (StoreError, NotExecuted):
        died = True
    else:
        died = False
    setattr(place, name, kept)
    assert died or (lost == "the guard at last" and units > 0)  # raising asks the guard once
    stock = (await sale.inventory.stock("phone")).total
    assert guard(shop) >= stock  # so that every order that the stock takes finds its row
    receipts = await sale.inventory.reserve([_order(n) for n in range(20)])
    assert sum(receipt.accepted for receipt in receipts) == stock
    for _ in range(3):
        await syncer.run_once()
    await work(shop, sale)
    assert await active_units(sale) == await booked(sale) == stock
    wished = 10 + units
    assert await totals(shop, sale) == (wished, *[max(wished, stock)] * 3)


def _order(number: int) -> Any:
    from tests.support.helpers import order

    return order(f"o-{number}", buyer_id=f"b-{number}")


# -- at the same moment ---------------------------------------------------------------------------------------------


async def test_restocks_side_by_side_all_count(real_shop: Shop, fresh_postgres_url: str) -> None:
    shop = real_shop
    store = await store_at(shop, fresh_postgres_url, Goods("phone", 10))
    sale = shop.sale(store=store, cache_for=0)
    await shop.syncer(sale).run_once()
    await sale.start("phone")
    await asyncio.gather(*(sale.restock("phone", units) for units in (5, -2, 7, 3, -1, 4, 1, 1)))
    (goods,) = await settled(sale.store.goods())
    gate, stock = await sale.gate.state("phone"), await sale.inventory.stock("phone")
    assert (goods.total, stock.total, gate.count) == (28, 28, 28)
    sold = [(await sale.buy("phone", f"b-{n}")).accepted for n in range(30)]
    assert sum(sold) == 28
    await work(shop, sale)
    assert await active_units(sale) == 28


@each_backend
async def test_whoever_is_overtaken_leaves_the_gate_as_the_other_set_it(shop: Shop) -> None:
    sale, other = await opened(shop, 10), None
    other = shop.sale(store=Awaited(sale.store, shop._threads), cache_for=0)
    store, real = sale.store, sale.store.restock
    turns = iter([True])

    async def athen_the_other(*args: Any) -> Any:
        goods = await real(*args)
        if next(turns, False):
            await other.restock("phone", 20)
        return goods

    def then_the_other(*args: Any) -> Any:
        goods = real(*args)
        if next(turns, False):
            other.real.restock("phone", 20)
        return goods

    store.restock = athen_the_other if shop.is_async else then_the_other
    assert await sale.restock("phone", 5) == 35
    assert await totals(shop, sale) == (35, 35, 35, 35)


async def test_buyers_and_restocks_together_sell_exactly_what_there_is(real_shop: Shop) -> None:
    shop = real_shop
    sale = await opened(shop, 10)

    async def buy() -> int:
        return sum([(await sale.buy("phone", "ann")).accepted for _ in range(15)])

    async def restock() -> None:
        for units in (3, -4, 5, -1, 2):
            await sale.restock("phone", units)
            await asyncio.sleep(0.003)

    *sold, _ = await asyncio.gather(*(buy() for _ in range(4)), restock())
    stock = await sale.inventory.stock("phone")
    assert sum(sold) == stock.booked <= stock.total
    assert guard(shop) >= stock.booked
    await work(shop, sale)
    assert await active_units(sale) == stock.booked
    assert (await shop.syncer(sale).audit()).ok
