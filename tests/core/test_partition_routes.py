"""Which partition has a buyer, an order, a basket, a ticket: the id says so, and a wrong id is refused at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import (
    Goods,
    InvalidRequest,
    InvalidTicket,
    OrderConflict,
    OrderState,
    Outcome,
    StoreRequired,
    Tickets,
)
from flashsale._rules.partitions import Routes
from flashsale.model import Order
from tests.support.helpers import settled, snapshot
from tests.support.mutants import kills
from tests.support.partitions import FOUR, booked, buyer, held, keys, opened, partitioned, rows, synced, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop

SECRETS = {"k1": b"0123456789abcdef" * 2}


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 16, 256])
def test_an_order_id_begins_with_the_partition_of_its_buyer(count: int) -> None:
    routes = Routes(count)
    for place in {0, 1, count - 1}:
        who = buyer(place, count=count)
        for name in (None, "invoice-7"):
            order_id = routes.order_id(who, name)
            assert order_id[:2] == f"{place:02x}"
            assert routes.of_order(order_id) == routes.of_buyer(who) == place


async def test_ids_that_a_host_asks_for(shop: Shop) -> None:
    sale = await opened(shop)
    who = buyer(3)
    assert sale.real.order_id(who, "invoice-7") == "03invoice-7"
    made = {sale.real.order_id(who) for _ in range(5)}
    assert len(made) == 5
    assert {(len(order_id), order_id[:2]) for order_id in made} == {(32, "03")}
    receipt = await sale.buy("phone", who, order_id=sale.real.order_id(who, "invoice-7"))
    assert (receipt.accepted, receipt.order_id) == (True, "03invoice-7")


async def test_with_one_partition_a_host_asks_for_ids_likewise(shop: Shop) -> None:
    sale = await shop.open()
    assert sale.real.order_id("ann", "invoice-7") == "invoice-7"
    assert len({sale.real.order_id("ann") for _ in range(5)}) == 5


@pytest.mark.parametrize("partitions", [1, FOUR])
@pytest.mark.parametrize("name", [7, "", "a b", "é", "x" * 129, b"x"])
async def test_names_that_make_no_order_id(sync_shop: Shop, partitions: int, name: Any) -> None:
    sale = sync_shop.sale(partitions=partitions)
    with pytest.raises(InvalidRequest, match=r"^name: "):
        sale.real.order_id("ann", name)


async def test_a_name_must_leave_room_for_the_partition(sync_shop: Shop) -> None:
    sale = sync_shop.sale(partitions=FOUR)
    assert len(sale.real.order_id("ann", "x" * 126)) == 128
    with pytest.raises(InvalidRequest, match=r"^name: "):
        sale.real.order_id("ann", "x" * 127)


async def test_ids_that_we_make_name_the_partition_too(shop: Shop) -> None:
    sale = await opened(shop, 6)
    for place in range(FOUR):
        assert (await sale.buy("phone", buyer(place))).order_id[:2] == f"{place:02x}"
        basket = await sale.buy_basket(buyer(place), [("phone", 1)])
        assert basket.basket_id[:2] == f"{place:02x}"
    for _ in range(2):
        await sale.buy("phone", buyer(0))
    sold_out = await sale.buy("phone", buyer(3))
    assert (sold_out.outcome, sold_out.order_id[:2]) == (Outcome.SOLD_OUT, "03")


async def test_a_remembered_refusal_has_an_id_of_its_buyer_too(sync_shop: Shop) -> None:
    sale = await opened(sync_shop, 0, sale=partitioned(sync_shop, cache_for=60))
    for place in range(FOUR):
        receipt = await sale.buy("phone", buyer(place))
        assert (receipt.outcome, receipt.order_id[:2]) == (Outcome.SOLD_OUT, f"{place:02x}")


# -- wrong ids --------------------------------------------------------------------------------------------------------


async def test_the_id_of_another_partition_is_a_conflict(shop: Shop) -> None:
    sale = await opened(shop)
    before = snapshot(shop.raw)
    for call in (
        lambda: sale.buy("phone", buyer(1), order_id="02mine"),
        lambda: sale.enter("phone", buyer(1), order_id="02mine"),
        lambda: sale.buy_basket(buyer(1), [("phone", 1)], basket_id="02mine"),
    ):
        with pytest.raises(OrderConflict) as caught:
            await call()
        assert caught.value.order_id == "02mine"
        assert "begins with another partition than its buyer's" in str(caught.value)
    assert snapshot(shop.raw) == before


async def test_the_id_of_a_neighbour_in_the_partition_is_a_conflict(shop: Shop) -> None:
    sale = await opened(shop)
    await sale.buy("phone", buyer(1), order_id="01mine")
    with pytest.raises(OrderConflict):
        await sale.buy("phone", buyer(1, 1), order_id="01mine")
    assert booked(shop) == 1


NO_PARTITION = ["o-1", "04mine", "0Amine", "ffmine", "01", "1", "-1mine", "+1mine", "0xmine"]


@pytest.mark.parametrize("order_id", [*NO_PARTITION, 7, None, b"01mine", "", "01 mine", ["01"], "01" + "x" * 127])
async def test_an_id_of_no_partition_is_refused(sync_shop: Shop, order_id: Any) -> None:
    sale, _ = await synced(sync_shop)
    before = snapshot(sync_shop.raw)
    for call in (sale.status, sale.cancel, sale.confirm, lambda name: sale.extend_hold(name, 5.0)):
        with pytest.raises(InvalidRequest, match=r"^order_id: "):
            await call(order_id)
    for call in (sale.cancel_basket, sale.confirm_basket):
        with pytest.raises(InvalidRequest, match=r"^basket_id: "):
            await call(order_id)
    if order_id is not None:
        for place in range(FOUR):
            with pytest.raises(InvalidRequest, match=r"^order_id: "):
                await sale.buy("phone", buyer(place), order_id=order_id)
        with pytest.raises(InvalidRequest, match=r"^basket_id: "):
            await sale.buy_basket(buyer(0), [("phone", 1)], basket_id=order_id)
    assert snapshot(sync_shop.raw) == before


@pytest.mark.parametrize("order_id", NO_PARTITION)
async def test_the_refusal_says_how_to_get_an_id(sync_shop: Shop, order_id: str) -> None:
    sale = sync_shop.sale(partitions=FOUR)
    with pytest.raises(InvalidRequest, match=r"00 to 03: sale\.order_id\(buyer_id\)"):
        await sale.status(order_id)


class Strange:
    """What cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("buyer_id", [7, None, b"ann", "", "a b", "é", "\ud800", ["ann"], 1.5, "x" * 129, Strange()])
async def test_a_buyer_that_is_none_is_refused(shop: Shop, buyer_id: Any) -> None:
    sale = await opened(shop, sale=partitioned(shop, cache_for=60))
    before = snapshot(shop.raw)
    for call in (
        lambda: sale.buy("phone", buyer_id),
        lambda: sale.buy("phone", buyer_id, order_id="01mine"),
        lambda: sale.buy_basket(buyer_id, [("phone", 1)]),
        lambda: sale.enter("phone", buyer_id),
        lambda: settled(sale.real.order_id(buyer_id)),
    ):
        with pytest.raises(InvalidRequest, match=r"^(buyer_id: |tickets?)"):
            await call()
    assert snapshot(shop.raw) == before


# -- along the id -----------------------------------------------------------------------------------------------------


async def test_an_order_lives_in_the_partition_that_its_id_names(shop: Shop) -> None:
    sale, _ = await synced(shop, hold=60.0)
    orders = [(await sale.buy("phone", buyer(place), data={"n": place})).order_id for place in range(FOUR)]
    for place, order_id in enumerate(orders):
        assert shop.raw.hexists(keys(place).orders, order_id)
        assert await sale.status(order_id) is OrderState.QUEUED
    await work(shop, sale)
    assert {row.order.order_id: row.order.data for row in await settled(sale.store.orders())} == {
        order_id: {"n": place} for place, order_id in enumerate(orders)
    }
    assert await sale.extend_hold(orders[0], 600.0)
    assert shop.raw.zscore(keys(0).holds, orders[0]) > shop.raw.zscore(keys(1).holds, orders[1]) + 500
    assert await sale.cancel(orders[1]) is OrderState.CANCELLED
    assert await sale.confirm(orders[2]) is OrderState.CONFIRMED
    assert [await sale.status(order_id) for order_id in orders] == [
        OrderState.PERSISTED,
        OrderState.CANCELLED,
        OrderState.CONFIRMED,
        OrderState.PERSISTED,
    ]
    assert await rows(sale) == {
        orders[0]: OrderState.PERSISTED,
        orders[1]: OrderState.CANCELLED,
        orders[2]: OrderState.CONFIRMED,
        orders[3]: OrderState.PERSISTED,
    }
    assert [units for _, units in held(shop)] == [1, 0, 1, 1]


async def test_an_order_that_is_not_there(shop: Shop) -> None:
    sale, _ = await synced(shop)
    before = snapshot(shop.raw)
    assert [await ask("02nobody") for ask in (sale.status, sale.cancel, sale.confirm)] == [None] * 3
    assert not await sale.extend_hold("02nobody", 5.0)
    assert [await ask("02nobody") for ask in (sale.cancel_basket, sale.confirm_basket)] == [{}, {}]
    assert snapshot(shop.raw) == before
    assert await rows(sale) == {}


async def test_a_basket_lies_in_one_partition(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 8), Goods("case", 8))
    sale = partitioned(shop, store=store)
    await shop.syncer(sale).run_once()
    for goods_id in ("phone", "case"):
        await sale.start(goods_id)
    who = buyer(2)
    asked = {"basket_id": "02basket", "data": {"gift": True}}
    basket = await sale.buy_basket(who, [("phone", 7), ("case", 1)], **asked)  # 7: more than its partition has
    assert (basket.accepted, [each.order_id for each in basket.receipts]) == (True, ["02basket#1", "02basket#2"])
    again = await sale.buy_basket(who, [("phone", 7), ("case", 1)], **asked)
    assert all(each.replayed for each in again.receipts)
    assert await sale.status("02basket#2") is OrderState.QUEUED
    with pytest.raises(OrderConflict):
        await sale.buy_basket(who, [("phone", 1)], **asked)
    await work(shop, sale)
    assert await sale.confirm_basket("02basket") == dict.fromkeys(["02basket#1", "02basket#2"], OrderState.CONFIRMED)
    assert await sale.cancel_basket("02basket") == dict.fromkeys(["02basket#1", "02basket#2"], OrderState.CANCELLED)
    assert booked(shop) == 0


async def test_a_basket_is_all_or_nothing_over_all_partitions(shop: Shop) -> None:
    sale = await opened(shop, 8)
    await sale.preload("case", 3)
    await sale.start("case")
    refused = await sale.buy_basket(buyer(1), [("phone", 2), ("case", 4)])
    assert (refused.outcome, booked(shop)) == (Outcome.SOLD_OUT, 0)
    assert {each.goods_id: each.remaining for each in refused.receipts}["case"] == 3  # counted everywhere
    taken = await sale.buy_basket(buyer(1), [("phone", 8), ("case", 3)])
    assert (taken.accepted, booked(shop)) == (True, 8)


async def test_two_baskets_do_not_take_the_last_units_from_each_other_for_ever(real_shop: Shop) -> None:
    sale = await opened(real_shop, 1)
    await sale.preload("case", 1)
    await sale.start("case")
    wanted = [("phone", 1), ("case", 1)]  # both lie in the first partition
    baskets = await asyncio.gather(*(sale.buy_basket(buyer(place), wanted) for place in (1, 2)))
    assert sorted(basket.outcome for basket in baskets) == [Outcome.ACCEPTED, Outcome.SOLD_OUT]


async def test_a_retry_finds_its_order_after_the_last_unit(shop: Shop) -> None:
    sale = await opened(shop, 5)
    first = await sale.buy("phone", buyer(1), 3, order_id="01mine", data=[1])
    rest = await sale.buy("phone", buyer(2), 2, order_id="02mine")
    assert first.accepted
    assert rest.accepted
    for who, units, order_id in ((buyer(1), 3, "01mine"), (buyer(2), 2, "02mine")):
        again = await sale.buy("phone", who, units, order_id=order_id)
        assert (again.accepted, again.replayed) == (True, True)
    refused = await sale.buy("phone", buyer(1), 1, order_id="01other")
    assert (refused.outcome, refused.remaining) == (Outcome.SOLD_OUT, 0)
    assert booked(shop) == 5


async def test_a_refused_order_id_is_decided_anew(shop: Shop) -> None:
    sale, _ = await synced(shop, 1)
    first = await sale.buy("phone", buyer(1))
    assert (await sale.buy("phone", buyer(2), order_id="02mine")).outcome is Outcome.SOLD_OUT
    await work(shop, sale)
    await sale.cancel(first.order_id)
    assert (await sale.buy("phone", buyer(2), order_id="02mine")).accepted


@pytest.mark.parametrize("count", [2, 3, 16])
async def test_more_units_than_any_partition_has(shop: Shop, count: int) -> None:
    sale = await opened(shop, 2 * count, count)
    assert max(total for total, _ in held(shop, count)) == 2
    receipt = await sale.buy("phone", buyer(1, count=count), 2 * count)
    assert (receipt.accepted, receipt.remaining) == (True, 0)
    assert held(shop, count)[1] == (2 * count, 2 * count)
    too_many = await opened(shop, 2 * count, count, sale=sale)
    refused = await too_many.buy("phone", buyer(0, count=count), 2 * count + 1)
    assert (refused.outcome, refused.remaining) == (Outcome.SOLD_OUT, 0)


async def test_too_many_units_leave_the_others_for_sale(shop: Shop) -> None:
    sale = await opened(shop, 7)
    refused = await sale.buy("phone", buyer(1), 8)
    assert (refused.outcome, refused.remaining) == (Outcome.SOLD_OUT, 7)  # exact: everywhere
    assert (await sale.buy("phone", buyer(1), 7)).accepted


async def test_the_cap_counts_what_a_buyer_has_everywhere(shop: Shop) -> None:
    """A buyer has one partition, so the cap is as exact as with one."""
    sale = await opened(shop, 8, per_buyer=3)
    assert (await sale.buy("phone", buyer(1), 3)).accepted
    refused = await sale.buy("phone", buyer(1))
    assert (refused.outcome, refused.remaining) == (Outcome.LIMIT_REACHED, 0)
    assert (await sale.buy("phone", buyer(1, 1), 3)).accepted  # another one of this partition


# -- tickets ----------------------------------------------------------------------------------------------------------


async def test_a_ticket_is_used_in_the_partition_of_its_buyer(shop: Shop) -> None:
    sale = partitioned(shop, tickets=Tickets(SECRETS, required=True))
    await opened(shop, 5, sale=sale)
    who = buyer(2)
    admission = await sale.enter("phone", who, 4)  # more than its partition has
    assert (admission.admitted, admission.order_id[:2]) == (True, "02")
    refused = await sale.enter("phone", buyer(0), 2)
    assert (refused.outcome, refused.remaining) == (Outcome.SOLD_OUT, 1)
    other = await sale.enter("phone", buyer(0), order_id="00mine")
    assert (other.admitted, other.order_id) == (True, "00mine")
    assert not (await sale.enter("phone", buyer(3))).admitted
    with pytest.raises(InvalidTicket):
        await sale.buy("phone", buyer(2, 1), 4, ticket=admission.ticket)
    with pytest.raises(InvalidTicket):
        await sale.buy("phone", who, 4)
    with pytest.raises(InvalidTicket):
        await sale.buy_basket(who, [("phone", 1)])
    receipt = await sale.buy("phone", who, 4, ticket=admission.ticket)
    assert (receipt.accepted, receipt.order_id) == (True, admission.order_id)
    assert (await sale.buy("phone", buyer(0), ticket=other.ticket)).accepted
    assert booked(shop) == 5


async def test_units_that_tickets_promise_do_not_move(shop: Shop) -> None:
    sale = await opened(shop, 4, sale=partitioned(shop, tickets=Tickets(SECRETS)))
    tickets = [(await sale.enter("phone", buyer(place))).ticket for place in range(3)]
    refused = await sale.buy("phone", buyer(3), 2)
    assert (refused.outcome, refused.remaining) == (Outcome.SOLD_OUT, 1)
    assert (await sale.buy("phone", buyer(3))).accepted
    for place, ticket in enumerate(tickets):
        assert (await sale.buy("phone", buyer(place), ticket=ticket)).accepted


async def test_a_sale_without_tickets_or_a_store_says_so(shop: Shop) -> None:
    sale = await opened(shop)
    with pytest.raises(InvalidRequest, match="ticket"):
        await sale.enter("phone", buyer(1))
    order_id = (await sale.buy("phone", buyer(1))).order_id
    for call in (sale.cancel, sale.confirm):
        with pytest.raises(StoreRequired):
            await call(order_id)
    with pytest.raises(StoreRequired):
        await sale.restock("phone", 1)
    for part in ("Worker", "Syncer"):
        with pytest.raises(StoreRequired):
            shop.make(part, sale)


def test_orders_of_one_buyer_have_one_partition_whoever_makes_the_id() -> None:
    routes = Routes(16)
    for name in ("ann", "b7", "42", "~"):
        order = Order(routes.order_id(name), "phone", name, 1)
        assert routes.of_order(order.order_id) == routes.of_buyer(order.buyer_id)


@kills("the partition of an id", by=OrderConflict)
async def test_without_its_partition_an_id_is_of_anybody(sync_shop: Shop) -> None:
    await test_an_id_of_no_partition_is_refused(sync_shop, "o-1")
