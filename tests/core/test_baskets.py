"""`FlashSale.buy_basket`: several items, all or none, once; and cancelled or paid as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import (
    BasketReceipt,
    Goods,
    InvalidRequest,
    NotPersisted,
    OrderConflict,
    OrderState,
    Outcome,
    UnknownGoods,
)
from flashsale.testing.proxy import FaultProxy
from tests.support.helpers import Awaited, order, settled, snapshot
from tests.support.mutants import kills
from tests.support.sales import access, active_units, booked, each_backend, rows, work

if TYPE_CHECKING:
    from tests.support import servers
    from tests.support.helpers import Shop
    from tests.support.hosts import Host

QUEUED, CONFIRMED, CANCELLED = OrderState.QUEUED, OrderState.CONFIRMED, OrderState.CANCELLED
ACCEPTED, SOLD_OUT = Outcome.ACCEPTED, Outcome.SOLD_OUT
BOTH = [("phone", 2), ("case", 3)]


async def opened(shop: Shop, *goods: Goods, **settings: Any) -> Awaited:
    """A started sale of five phones and five cases, unless told."""
    goods = goods or (Goods("phone", 5), Goods("case", 5))
    sale = shop.sale(store=await shop.store(*goods), cache_for=0, **settings)
    await shop.syncer(sale).run_once()
    for each in goods:
        await sale.start(each.goods_id)
    return sale


async def taken(sale: Awaited) -> list[int]:
    """Units booked, and units that passed the gate, of phones and cases."""
    return [await count(sale, name) for count in (booked, access) for name in ("phone", "case")]


# -- all or none ----------------------------------------------------------------------------------------------------


@each_backend
async def test_a_basket_is_bought_whole(shop: Shop) -> None:
    sale = await opened(shop)
    basket = await sale.buy_basket("ann", BOTH, basket_id="b-1", data={"gift": True})
    assert isinstance(basket, BasketReceipt)
    assert (basket.outcome, basket.accepted, basket.basket_id) == (ACCEPTED, True, "b-1")
    assert [receipt.order_id for receipt in basket.receipts] == ["b-1#1", "b-1#2"]
    assert [(receipt.goods_id, receipt.quantity, receipt.remaining) for receipt in basket.receipts] == [
        ("case", 3, 2),
        ("phone", 2, 3),
    ]
    assert await taken(sale) == [2, 3, 2, 3]
    await work(shop, sale)
    found = {row.order.order_id: row.order for row in await settled(sale.store.orders())}
    assert found["b-1#2"].content == ("phone", "ann", 2)
    assert [found[name].data for name in ("b-1#1", "b-1#2")] == [{"gift": True}] * 2


@each_backend
async def test_a_basket_that_does_not_fit_leaves_nothing_behind(shop: Shop) -> None:
    sale = await opened(shop, Goods("phone", 5, per_buyer=2), Goods("case", 5))
    await sale.buy("case", "bob", 3, order_id="before")
    before = snapshot(shop.raw)
    for items, why in (
        ([("phone", 1), ("case", 3)], SOLD_OUT),
        ([("case", 1), ("phone", 3)], Outcome.LIMIT_REACHED),
    ):
        basket = await sale.buy_basket("ann", items, basket_id="b-1")
        assert (basket.outcome, basket.accepted) == (why, False)
        assert {receipt.outcome for receipt in basket.receipts} == {why}
        assert {receipt.state for receipt in basket.receipts} == {None}
        assert snapshot(shop.raw) == before
    assert (await sale.buy_basket("ann", [("phone", 2), ("case", 2)], basket_id="b-1")).accepted  # the id is free


@each_backend
async def test_goods_that_are_shut_shut_the_basket(shop: Shop) -> None:
    sale = await opened(shop)
    await sale.stop("case")
    before = snapshot(shop.raw)
    assert (await sale.buy_basket("ann", BOTH)).outcome is Outcome.NOT_STARTED
    assert snapshot(shop.raw) == before
    await sale.start("case")
    await sale.pause()
    before = snapshot(shop.raw)
    assert (await sale.buy_basket("ann", BOTH)).outcome is Outcome.PAUSED
    assert snapshot(shop.raw) == before


@each_backend
async def test_the_same_goods_twice_is_summed_before_stock_and_cap_are_asked(shop: Shop) -> None:
    sale = await opened(shop, Goods("phone", 5, per_buyer=4), Goods("case", 5))
    assert (await sale.buy_basket("ann", [("phone", 2), ("phone", 3)])).outcome is Outcome.LIMIT_REACHED
    assert (await sale.buy_basket("ann", [("case", 3), ("case", 3)])).outcome is SOLD_OUT
    assert await taken(sale) == [0, 0, 0, 0]
    basket = await sale.buy_basket("ann", [("phone", 1), ("case", 2), ("phone", 3)], basket_id="b-1")
    assert [(receipt.goods_id, receipt.quantity) for receipt in basket.receipts] == [("case", 2), ("phone", 4)]
    assert await taken(sale) == [4, 2, 4, 2]


async def test_baskets_at_the_same_moment_never_share_a_unit(shop: Shop) -> None:
    sale = await opened(shop)
    baskets = [[("phone", 2), ("case", 2)], [("case", 2), ("phone", 2)]] * 4
    answers = await asyncio.gather(*(sale.buy_basket(f"b-{n}", items) for n, items in enumerate(baskets)))
    outcomes = [basket.outcome for basket in answers]
    assert (outcomes.count(ACCEPTED), outcomes.count(SOLD_OUT)) == (2, 6)
    assert await taken(sale) == [4, 4, 4, 4]


# -- once -----------------------------------------------------------------------------------------------------------


@each_backend
async def test_asking_twice_is_asking_once(shop: Shop) -> None:
    sale = await opened(shop)
    first = await sale.buy_basket("ann", BOTH, basket_id="b-1")
    assert (await sale.buy("phone", "bob", 3)).accepted  # the last ones
    before = snapshot(shop.raw)
    for items in (BOTH, BOTH[::-1], [("phone", 1), ("case", 3), ("phone", 1)]):
        again = await sale.buy_basket("ann", items, basket_id="b-1")
        assert again.accepted
        assert [receipt.replayed for receipt in again.receipts] == [True, True]
        assert [receipt.order_id for receipt in again.receipts] == [receipt.order_id for receipt in first.receipts]
    assert snapshot(shop.raw) == before
    made = await sale.buy_basket("ann", [("case", 1)])
    assert made.basket_id != (await sale.buy_basket("ann", [("case", 1)])).basket_id


@each_backend
async def test_parallel_callers_of_one_basket_buy_it_once(shop: Shop) -> None:
    sale = await opened(shop)
    answers = await asyncio.gather(*(sale.buy_basket("ann", BOTH, basket_id="b-1") for _ in range(10)))
    assert all(basket.accepted for basket in answers)
    assert sum(not basket.receipts[0].replayed for basket in answers) == 1
    assert await taken(sale) == [2, 3, 2, 3]


@pytest.mark.parametrize(
    "other",
    [
        [("phone", 2), ("case", 2)],
        [("phone", 2)],
        [("case", 3)],
        [*BOTH, ("screen", 1)],
        [("screen", 1), ("phone", 2)],
        [("case", 3), ("screen", 1)],
    ],
    ids=str,
)
@each_backend
async def test_another_basket_under_the_same_id_is_a_conflict(shop: Shop, other: list[tuple[str, int]]) -> None:
    sale = await opened(shop, Goods("phone", 5), Goods("case", 5), Goods("screen", 0))
    await sale.buy_basket("ann", BOTH, basket_id="b-1")
    before = snapshot(shop.raw)
    with pytest.raises(OrderConflict):
        await sale.buy_basket("ann", other, basket_id="b-1")
    with pytest.raises(OrderConflict):
        await sale.buy_basket("bob", BOTH, basket_id="b-1")
    assert snapshot(shop.raw) == before


async def test_a_lost_reply_is_asked_for_again(host: Host, redis_server: servers.RedisServer, redis_url: str) -> None:
    host.raw = redis_server.client()
    with FaultProxy(redis_server.port) as line:
        sale = await host.opened(host.connect(line.port), 5, cache_for=0)
        await sale.preload("case", 5)
        await sale.start("case")
        await sale.buy_basket("ann", [("case", 1)])  # the scripts are loaded
        line.cut_reply(b"b-1#1")
        basket = await sale.buy_basket("ann", BOTH, basket_id="b-1")
        assert (basket.accepted, [receipt.replayed for receipt in basket.receipts]) == (True, [True, True])
        assert host.booked() == 2
        assert line.tripped == 1


# -- what is no basket ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "more"),
    [
        ([], {}),
        ([(f"goods-{n}", 1) for n in range(51)], {}),
        ([("phone", 0)], {}),
        ([("phone", -1)], {}),
        ([("phone", True)], {}),
        ([("phone", 1.0)], {}),
        ([("phone", "1")], {}),
        ([("phone", 600_000), ("phone", 600_000)], {}),
        ([("no goods", 1)], {}),
        ([(["phone"], 1)], {}),
        ([(None, 1)], {}),
        (BOTH, {"basket_id": ""}),
        (BOTH, {"basket_id": "two words"}),
        (BOTH, {"basket_id": "b" * 121}),
        (BOTH, {"basket_id": 7}),
        (BOTH, {"basket_id": "ü"}),
        (BOTH, {"data": {1, 2}}),
        (BOTH, {"data": "x" * 70_000}),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_no_basket_is_refused_before_anything_is_sent(
    real_shop: Shop, items: Any, more: dict[str, Any]
) -> None:
    sale = await opened(real_shop)
    before = snapshot(real_shop.raw)
    with pytest.raises(InvalidRequest):
        await sale.buy_basket("ann", items, **more)
    assert snapshot(real_shop.raw) == before


async def test_a_bad_buyer_or_basket_is_refused_everywhere(real_shop: Shop) -> None:
    sale = await opened(real_shop)
    with pytest.raises(InvalidRequest):
        await sale.buy_basket("", BOTH)
    for verb in (sale.cancel_basket, sale.confirm_basket):
        for wrong in ("", "a b", "b" * 121, None):
            with pytest.raises(InvalidRequest):
                await verb(wrong)


@each_backend
async def test_the_longest_id_and_the_largest_basket_are_welcome(shop: Shop) -> None:
    goods = [Goods(f"goods-{n}", 3) for n in range(50)]
    sale = await opened(shop, *goods)
    name = "b" * 120
    basket = await sale.buy_basket("ann", [(each.goods_id, 1) for each in goods], basket_id=name)
    assert basket.accepted
    assert len(await sale.cancel_basket(name)) == 50
    assert sum([await booked(sale, each.goods_id) for each in goods]) == 0


@pytest.mark.parametrize("ghost", ["ant", "zebra"])  # before and after the others, by item id
@each_backend
async def test_unknown_goods_are_named_wherever_they_stand(shop: Shop, ghost: str) -> None:
    sale = await opened(shop)
    before = snapshot(shop.raw)
    with pytest.raises(UnknownGoods) as caught:
        await sale.buy_basket("ann", [("phone", 1), (ghost, 1)], basket_id="b-1")
    assert caught.value.goods_id == ghost
    assert snapshot(shop.raw) == before


# -- afterwards -----------------------------------------------------------------------------------------------------


@each_backend
async def test_a_basket_is_cancelled_and_paid_as_one(shop: Shop) -> None:
    sale = await opened(shop, Goods("phone", 5, per_buyer=5), Goods("case", 5))
    await sale.buy_basket("ann", BOTH, basket_id="b-1")
    await sale.buy_basket("ann", [("phone", 3), ("case", 2)], basket_id="b-2")
    with pytest.raises(NotPersisted):
        await sale.confirm_basket("b-1")
    await work(shop, sale)
    assert await sale.confirm_basket("b-1") == {"b-1#1": CONFIRMED, "b-1#2": CONFIRMED}
    assert await sale.cancel_basket("b-2") == {"b-2#1": CANCELLED, "b-2#2": CANCELLED}
    assert await taken(sale) == [2, 3, 2, 3]
    for _ in range(2):
        assert await sale.cancel_basket("b-1") == {"b-1#1": CANCELLED, "b-1#2": CANCELLED}  # refunded
        assert await taken(sale) == [0, 0, 0, 0]
    assert await sale.cancel_basket("nobody") == await sale.confirm_basket("nobody") == {}
    again = await sale.buy_basket("ann", BOTH, basket_id="b-1")
    assert [(receipt.replayed, receipt.state) for receipt in again.receipts] == [(True, CANCELLED)] * 2
    assert await taken(sale) == [0, 0, 0, 0]


@each_backend
async def test_half_a_cancellation_is_finished_by_the_next(shop: Shop) -> None:
    sale = await opened(shop)
    await sale.buy_basket("ann", BOTH, basket_id="b-1")
    await sale.cancel("b-1#1")  # here the process died
    assert await taken(sale) == [2, 0, 2, 0]
    assert await sale.cancel_basket("b-1") == {"b-1#1": CANCELLED, "b-1#2": CANCELLED}
    assert await taken(sale) == [0, 0, 0, 0]
    await work(shop, sale)
    assert set((await rows(sale)).values()) == {CANCELLED}


@each_backend
async def test_a_basket_and_an_order_whose_ids_look_alike_are_two(shop: Shop) -> None:
    sale = await opened(shop)
    await sale.buy_basket("ann", [("phone", 1)], basket_id="b")
    await sale.buy_basket("ann", [("phone", 1)], basket_id="b#1")
    await sale.buy("phone", "ann", order_id="b-1")
    assert set(await sale.cancel_basket("b")) == {"b#1"}
    assert await sale.status("b#1#1") is QUEUED
    with pytest.raises(OrderConflict):
        await sale.buy("case", "ann", order_id="b#1")
    assert (await taken(sale))[:2] == [2, 0]


# -- the gate on another Redis --------------------------------------------------------------------------------------


@each_backend
async def test_on_two_redis_a_basket_that_fails_leaves_no_slot(shop: Shop) -> None:
    sale = await opened(shop, Goods("phone", 5, per_buyer=4), Goods("case", 5), gate_client=shop.client(db=1))
    assert (await sale.buy_basket("ann", BOTH, basket_id="b-1")).accepted
    assert (await sale.buy_basket("ann", BOTH, basket_id="b-1")).accepted
    assert await taken(sale) == [2, 3, 2, 3]
    refused = [
        (await sale.buy_basket("bob", [("case", 1), ("phone", 4)])).outcome,  # by the second gate
        (await sale.buy_basket("ann", [("case", 1), ("phone", 3)])).outcome,  # by the stock: the cap
    ]
    assert refused == [SOLD_OUT, Outcome.LIMIT_REACHED]
    with pytest.raises(OrderConflict):
        await sale.buy_basket("ann", [("phone", 1)], basket_id="b-1")
    with pytest.raises(UnknownGoods):
        await sale.buy_basket("ann", [("case", 1), ("ghost", 1)])
    assert await taken(sale) == [2, 3, 2, 3]
    await sale.cancel_basket("b-1")
    assert await taken(sale) == [0, 0, 0, 0]


# -- at the end -----------------------------------------------------------------------------------------------------


async def test_baskets_and_single_orders_together_sell_each_unit_once(real_shop: Shop) -> None:
    shop = real_shop
    sale = await opened(shop, Goods("phone", 40), Goods("case", 40))

    async def one(n: int) -> None:
        if n % 3 == 0:
            await sale.buy("phone", f"b-{n}", 2, order_id=f"o-{n}")
        elif (await sale.buy_basket(f"b-{n}", [("phone", 1), ("case", 1 + n % 2)], basket_id=f"b-{n}")).accepted:
            await (sale.cancel_basket(f"b-{n}") if n % 5 == 0 else asyncio.sleep(0))

    await asyncio.gather(*(one(n) for n in range(90)), work(shop, sale))
    await work(shop, sale)
    for name in ("phone", "case"):
        assert await booked(sale, name) == await access(sale, name) == await active_units(sale, name) <= 40
    assert (await shop.syncer(sale).audit()).ok


@kills("all or none of a basket")
async def test_without_all_or_none_half_a_basket_would_be_sold(sync_shop: Shop) -> None:
    await test_a_basket_that_does_not_fit_leaves_nothing_behind(sync_shop)


async def test_an_order_of_a_basket_is_an_order_like_any_other(real_shop: Shop) -> None:
    sale = await opened(real_shop)
    await sale.buy_basket("ann", BOTH, basket_id="b-1")
    (again,) = await sale.inventory.reserve([order("b-1#2", "phone", "ann", 2)])
    assert again.replayed
