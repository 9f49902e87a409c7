"""`Inventory.reserve`: each order once, whole, and within window, cap and stock."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import (
    CorruptState,
    InvalidRequest,
    NotExecuted,
    Order,
    OrderConflict,
    OrderState,
    Outcome,
    Receipt,
    UnknownGoods,
)
from tests.support.helpers import clock, order, snapshot
from tests.support.mutants import kills, promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop


async def outcome(inventory: Any, *orders: Any, **how: Any) -> list[Outcome]:
    return [receipt.outcome for receipt in await inventory.reserve(list(orders), **how)]


# -- one order ------------------------------------------------------------------------------------------------------


async def test_an_accepted_order_is_booked_recorded_and_queued(shop: Shop) -> None:
    sale = shop.sale()
    await sale.preload("phone", 10)
    before = clock(shop.raw)
    (receipt,) = await sale.inventory.reserve([order("o-1", quantity=3, data={"colour": "grün"})])
    assert receipt == Receipt(Outcome.ACCEPTED, "o-1", "phone", 3, 7, replayed=False, state=OrderState.QUEUED)
    assert receipt.accepted
    assert await sale.inventory.stock("phone") == (10, 3, 7, 0)
    assert await sale.status("o-1") is OrderState.QUEUED
    (body,) = shop.raw.lrange(shop.keys.order_list, 0, -1)
    wire = json.loads(body)
    assert before <= wire.pop("created_at") <= clock(shop.raw)
    assert wire == {
        "order_id": "o-1",
        "goods_id": "phone",
        "buyer_id": "ann",
        "quantity": 3,
        "data": {"colour": "grün"},
    }


async def test_ledger_and_buyers_are_tables_from_the_first_order(real_shop: Shop) -> None:
    """Redis searches a small hash from its start for each order; so the first hundreds would cost the most."""
    sale = await real_shop.open(10, per_buyer=2)
    await sale.inventory.reserve([order("o-1"), order("o-2")])
    keys = (real_shop.keys.orders, real_shop.keys.buyers("phone"))
    assert [real_shop.raw.object("encoding", key) for key in keys] == [b"hashtable", b"hashtable"]
    assert {len(real_shop.raw.hkeys(keys[0])), int(real_shop.raw.hget(keys[1], "ann"))} == {2}


@kills("a table from the first order")
async def test_without_the_table_the_first_orders_are_slow(sync_shop: Shop) -> None:
    await test_ledger_and_buyers_are_tables_from_the_first_order(sync_shop)


async def test_the_time_that_the_caller_gives_is_kept(shop: Shop) -> None:
    sale = await shop.open()
    await sale.inventory.reserve([order(created_at=1.5)])
    assert (await sale.queue.pop(0)).created_at == 1.5


async def test_the_start_flag_is_the_gates_alone(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 1)
    assert await outcome(inventory, order()) == [Outcome.ACCEPTED]


async def test_refused_orders_leave_nothing_behind(shop: Shop) -> None:
    inventory = shop.inventory()
    now = clock(shop.raw)
    await inventory.preload("phone", 3, booked=1)
    await inventory.preload("empty", 0)
    await inventory.preload("later", 5, opens_at=now + 60)
    await inventory.preload("over", 5, closes_at=now - 60)
    await inventory.preload("one-each", 5, per_buyer=1)
    before = snapshot(shop.raw)
    refusals = {
        order(1, quantity=3): (Outcome.SOLD_OUT, 2),  # fewer left than asked
        order(2, "empty"): (Outcome.SOLD_OUT, 0),
        order(3, "later"): (Outcome.NOT_STARTED, 5),
        order(4, "over"): (Outcome.ENDED, 5),
        order(5, "one-each", quantity=2): (Outcome.LIMIT_REACHED, 5),
    }
    for asked, (why, left) in refusals.items():
        (receipt,) = await inventory.reserve([asked])
        assert receipt == Receipt(why, asked.order_id, asked.goods_id, asked.quantity, left)
        assert not receipt.accepted
    assert snapshot(shop.raw) == before


async def test_the_last_unit_is_sold_and_no_other(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 3)
    found = [await outcome(inventory, order(n, quantity=2)) for n in range(2)]
    assert found == [[Outcome.ACCEPTED], [Outcome.SOLD_OUT]]
    assert await outcome(inventory, order(2)) == [Outcome.ACCEPTED]
    assert await inventory.stock("phone") == (3, 3, 0, 0)


# -- asking twice ---------------------------------------------------------------------------------------------------


async def test_a_repeat_returns_the_first_answer_and_changes_nothing(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10, per_buyer=2)
    (first,) = await inventory.reserve([order(quantity=2)])
    before = snapshot(shop.raw)
    (again,) = await inventory.reserve([order(quantity=2)])
    assert again == first._replace(replayed=True)
    assert snapshot(shop.raw) == before


async def test_other_data_is_no_other_content(shop: Shop) -> None:
    sale = await shop.open()
    await sale.inventory.reserve([order(data="first")])
    (again,) = await sale.inventory.reserve([order(data="second")])
    assert again.replayed
    assert (await sale.queue.pop(0)).data == "first"
    assert await sale.queue.size() == 0


@pytest.mark.parametrize("other", [{"goods_id": "case"}, {"buyer_id": "bob"}, {"quantity": 2}], ids=str)
async def test_an_id_with_other_content_is_a_conflict(shop: Shop, other: dict[str, Any]) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10)
    await inventory.preload("case", 10)
    await inventory.reserve([order()])
    before = snapshot(shop.raw)
    with pytest.raises(OrderConflict) as caught:
        await inventory.reserve([order(**other)])
    assert (caught.value.order_id, caught.value.sale) == ("o-1", "spring")
    assert snapshot(shop.raw) == before


async def test_a_retry_after_the_last_unit_still_finds_its_order(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 1)
    await inventory.reserve([order()])
    assert await outcome(inventory, order("o-2")) == [Outcome.SOLD_OUT]
    (again,) = await inventory.reserve([order()])
    assert (again.accepted, again.replayed) == (True, True)


async def test_a_retry_finds_its_order_after_the_end_and_in_a_pause(shop: Shop) -> None:
    sale = shop.sale()
    await sale.preload("phone", 5, closes_at=clock(shop.raw) + 60)
    await sale.inventory.reserve([order()])

    async def refused() -> Outcome:
        (receipt,) = await sale.inventory.reserve([order("late")])
        return receipt.outcome

    await sale.pause()
    assert await refused() is Outcome.PAUSED
    assert (await sale.inventory.reserve([order()]))[0].replayed
    await shop.comes("closes_at")
    assert await refused() is Outcome.ENDED
    assert (await sale.inventory.reserve([order()]))[0].replayed


async def test_a_retry_after_the_cancellation_says_so_and_books_nothing(shop: Shop) -> None:
    sale = await shop.open(store=True)
    (first,) = await sale.inventory.reserve([order()])
    assert first.state is OrderState.QUEUED
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    (again,) = await sale.inventory.reserve([order()])
    assert (again.outcome, again.replayed, again.state) == (Outcome.ACCEPTED, True, OrderState.CANCELLED)
    assert (await sale.inventory.stock("phone")).booked == 0


# -- window and cap -------------------------------------------------------------------------------------------------


async def test_the_window_opens_by_the_clock_of_redis(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 5, opens_at=clock(shop.raw) + 60)
    assert await outcome(inventory, order()) == [Outcome.NOT_STARTED]
    await shop.comes("opens_at")
    assert await outcome(inventory, order()) == [Outcome.ACCEPTED]


async def test_the_window_closes_by_the_clock_of_redis(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 5, closes_at=clock(shop.raw) + 60)
    assert await outcome(inventory, order(1)) == [Outcome.ACCEPTED]
    await shop.comes("closes_at")
    assert await outcome(inventory, order(2)) == [Outcome.ENDED]


async def test_a_buyer_holds_at_most_the_cap(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10, per_buyer=3)
    await inventory.preload("case", 10, per_buyer=1)
    assert await outcome(inventory, order(1, quantity=2)) == [Outcome.ACCEPTED]
    assert await outcome(inventory, order(2, quantity=2)) == [Outcome.LIMIT_REACHED]
    assert await outcome(inventory, order(3, quantity=1)) == [Outcome.ACCEPTED]
    assert await outcome(inventory, order(4, quantity=1)) == [Outcome.LIMIT_REACHED]
    assert await outcome(inventory, order(5, "case")) == [Outcome.ACCEPTED]  # each item has its own
    assert await outcome(inventory, order(6, buyer_id="bob", quantity=3)) == [Outcome.ACCEPTED]
    # within one batch as well
    assert await outcome(inventory, *(order(n, "case", "cleo") for n in "ab")) == [
        Outcome.ACCEPTED,
        Outcome.LIMIT_REACHED,
    ]


async def test_a_cancelled_order_gives_the_allowance_back(shop: Shop) -> None:
    sale = await shop.open(store=True, per_buyer=1)
    assert await outcome(sale.inventory, order(1)) == [Outcome.ACCEPTED]
    await sale.cancel("1")
    assert await outcome(sale.inventory, order(2), order(3)) == [Outcome.ACCEPTED, Outcome.LIMIT_REACHED]


async def test_a_cap_set_later_counts_from_then_on(shop: Shop) -> None:
    """What a buyer bought while there was no cap is not known by buyer."""
    sale = await shop.open(10)
    await sale.inventory.reserve([order(1)])
    shop.raw.hset(shop.keys.stock("phone"), "per_buyer", "1")
    assert await outcome(sale.inventory, order(2), order(3)) == [Outcome.ACCEPTED, Outcome.LIMIT_REACHED]


# -- many orders ----------------------------------------------------------------------------------------------------


async def test_a_long_batch_is_answered_one_by_one_in_its_order(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 200)
    await inventory.preload("case", 20)
    orders = [order(n, "case" if n % 5 == 0 else "phone", f"buyer-{n}") for n in range(300)]
    receipts = await inventory.reserve(orders)
    assert [receipt.order_id for receipt in receipts] == [str(n) for n in range(300)]
    sold = [receipt for receipt in receipts if receipt.accepted]
    assert [receipt.goods_id for receipt in sold].count("case") == 20
    assert [receipt.goods_id for receipt in sold].count("phone") == 200
    queued = [json.loads(body)["order_id"] for body in reversed(shop.raw.lrange(shop.keys.order_list, 0, -1))]
    assert queued == [receipt.order_id for receipt in sold]


async def test_each_order_of_a_mixed_batch_keeps_its_place_its_quantity_and_its_data(shop: Shop) -> None:
    """Neighbours that ask for the same share words of the call; nothing else of them may be shared."""
    inventory = shop.inventory()
    await inventory.preload("phone", 12)
    await inventory.preload("case", 2)
    requests = [("phone", 1, None), ("phone", 1, None), ("phone", 2, None), ("case", 1, None), ("phone", 1, None)]
    requests += [
        ("phone", 1, {"n": 1}),
        ("phone", 1, {"n": 2}),
        ("phone", 1, None),
        ("case", 1, [3]),
        ("case", 1, None),
    ]
    requests += [("phone", 9, None), ("phone", 4, None), ("phone", 1, None)]
    orders = [order(n, goods, f"b-{n}", units, data=data) for n, (goods, units, data) in enumerate(requests)]
    repeat = orders[5]
    orders.insert(6, repeat)
    receipts = await inventory.reserve(orders)
    given = [(receipt.order_id, receipt.goods_id, receipt.quantity) for receipt in receipts]
    assert given == [(asked.order_id, asked.goods_id, asked.quantity) for asked in orders]
    assert [receipt.remaining for receipt in receipts] == [11, 10, 8, 1, 7, 6, 6, 5, 4, 0, 0, 4, 0, 0]
    refused = [receipt.order_id for receipt in receipts if not receipt.accepted]
    assert (refused, [receipt.order_id for receipt in receipts if receipt.replayed]) == (["9", "10", "12"], ["5"])
    bodies = [Order.from_json(body) for body in reversed(shop.raw.lrange(shop.keys.order_list, 0, -1))]
    sold = [asked for asked in dict.fromkeys(orders) if asked.order_id not in refused]
    assert [(found.order_id, found.content, found.data) for found in bodies] == [
        (asked.order_id, asked.content, asked.data) for asked in sold
    ]


async def test_nothing_asked_nothing_done(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 1)
    before = snapshot(shop.raw)
    assert await inventory.reserve([]) == []
    assert await inventory.reserve([], together=True) == []
    assert snapshot(shop.raw) == before


async def test_one_id_twice_in_a_batch_is_one_order(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10)
    first, again = await inventory.reserve([order(), order()])
    assert (first.replayed, again.replayed) == (False, True)
    assert (await inventory.stock("phone")).booked == 1
    with pytest.raises(OrderConflict) as caught:
        await inventory.reserve([order("o-2"), order("o-2", quantity=2), order("o-3")])
    kinds = [type(answer) for answer in caught.value.answers]
    assert kinds == [Receipt, OrderConflict, Receipt]
    assert (await inventory.stock("phone")).booked == 3


async def test_orders_in_the_way_fail_alone(shop: Shop) -> None:
    """Corrupt and unknown item and conflicts: the others of the batch are answered, in the error."""
    inventory = shop.inventory()
    for goods_id in ("phone", "case", "corrupt"):
        await inventory.preload(goods_id, 10)
    await inventory.reserve([order("taken")])
    shop.raw.hset(shop.keys.stock("corrupt"), "Booked", "10.0")
    corrupt = snapshot(shop.raw)[shop.keys.stock("corrupt").encode()]
    batch = [
        order(1),
        order(2, "corrupt"),
        order(3, "case"),
        order("taken", quantity=5),
        order(4, "nothing"),
        order(5, quantity=99),
        order(6, "corrupt"),
        order("taken"),
    ]
    with pytest.raises(CorruptState) as caught:
        await inventory.reserve(batch)
    assert (caught.value.goods_id, caught.value.sale) == ("corrupt", "spring")
    answers = caught.value.answers
    assert [type(answer) for answer in answers] == [
        Receipt,
        CorruptState,
        Receipt,
        OrderConflict,
        UnknownGoods,
        Receipt,
        CorruptState,
        Receipt,
    ]
    assert [answers[n].outcome for n in (0, 2, 5, 7)] == [
        Outcome.ACCEPTED,
        Outcome.ACCEPTED,
        Outcome.SOLD_OUT,
        Outcome.ACCEPTED,
    ]
    assert answers[7].replayed
    assert snapshot(shop.raw)[shop.keys.stock("corrupt").encode()] == corrupt
    assert (await inventory.stock("phone")).booked == 2
    assert (await inventory.stock("case")).booked == 1


# -- together -------------------------------------------------------------------------------------------------------


async def basket(shop: Shop, **policy: Any) -> Any:
    """Two items, five units each."""
    inventory = shop.inventory()
    await inventory.preload("phone", 5, **policy)
    await inventory.preload("case", 5)
    return inventory


async def test_a_basket_is_booked_whole(shop: Shop) -> None:
    inventory = await basket(shop)
    asked = [order(1, "phone", quantity=2), order(2, "case", quantity=5), order(3, "phone", quantity=3)]
    receipts = await inventory.reserve(asked, together=True)
    assert [(receipt.outcome, receipt.remaining) for receipt in receipts] == [
        (Outcome.ACCEPTED, 3),
        (Outcome.ACCEPTED, 0),
        (Outcome.ACCEPTED, 0),
    ]
    assert [receipt.replayed for receipt in await inventory.reserve(asked, together=True)] == [True] * 3
    assert shop.raw.llen(shop.keys.order_list) == 3


async def test_a_basket_is_refused_whole(shop: Shop) -> None:
    inventory = await basket(shop)
    before = snapshot(shop.raw)
    receipts = await inventory.reserve([order(1), order(2, "case", quantity=6), order(3)], together=True)
    assert [receipt.outcome for receipt in receipts] == [Outcome.SOLD_OUT] * 3
    assert [receipt.remaining for receipt in receipts] == [5, 5, 5]
    assert [receipt.state for receipt in receipts] == [None] * 3
    assert snapshot(shop.raw) == before


async def test_the_same_goods_twice_in_a_basket_is_summed_for_the_stock(shop: Shop) -> None:
    inventory = await basket(shop)
    before = snapshot(shop.raw)
    asked = [order(1, quantity=3), order(2, quantity=3, buyer_id="bob")]
    assert await outcome(inventory, *asked, together=True) == [Outcome.SOLD_OUT] * 2
    assert snapshot(shop.raw) == before


async def test_the_same_goods_twice_in_a_basket_is_summed_for_the_cap(shop: Shop) -> None:
    inventory = await basket(shop, per_buyer=3)
    before = snapshot(shop.raw)
    asked = [order(1, quantity=2), order(2, "case"), order(3, quantity=2)]
    assert await outcome(inventory, *asked, together=True) == [Outcome.LIMIT_REACHED] * 3
    assert snapshot(shop.raw) == before
    assert await outcome(inventory, *asked[:2], order(4), together=True) == [Outcome.ACCEPTED] * 3


async def test_a_basket_with_unknown_goods_is_an_error_and_books_nothing(shop: Shop) -> None:
    inventory = await basket(shop)
    before = snapshot(shop.raw)
    with pytest.raises((UnknownGoods, NotExecuted)) as caught:
        await inventory.reserve([order(1), order(2, "nothing")], together=True)
    assert not any(isinstance(answer, Receipt) for answer in caught.value.answers)
    assert any(isinstance(answer, UnknownGoods) for answer in caught.value.answers)
    assert snapshot(shop.raw) == before


async def test_a_basket_that_holds_an_older_order_is_a_conflict_and_books_nothing(shop: Shop) -> None:
    """The basket as it is now was never asked before: neither replay nor half of it."""
    inventory = await basket(shop)
    await inventory.reserve([order(1)])
    before = snapshot(shop.raw)
    with pytest.raises(OrderConflict):
        await inventory.reserve([order(1), order(2, "case")], together=True)
    assert snapshot(shop.raw) == before


async def test_an_id_twice_in_a_basket_is_refused(shop: Shop) -> None:
    inventory = await basket(shop)
    with pytest.raises(InvalidRequest):
        await inventory.reserve([order(1), order(1)], together=True)


async def test_a_basket_has_an_upper_bound(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 2000)
    before = snapshot(shop.raw)
    with pytest.raises(InvalidRequest):
        await inventory.reserve([order(n) for n in range(1001)], together=True)
    assert snapshot(shop.raw) == before
    assert await outcome(inventory, *(order(n) for n in range(1000)), together=True) == [Outcome.ACCEPTED] * 1000


# -- concurrency ----------------------------------------------------------------------------------------------------


async def test_baskets_at_the_same_moment_never_share_a_unit(shop: Shop) -> None:
    inventory = await basket(shop)
    asked = [[order(f"{n}-p", "phone", quantity=2), order(f"{n}-c", "case", quantity=2)] for n in range(6)]
    answers = await asyncio.gather(*(inventory.reserve(each, together=True) for each in asked))
    whole = [{receipt.outcome for receipt in receipts} for receipts in answers]
    assert sorted(map(sorted, whole)) == [[Outcome.ACCEPTED]] * 2 + [[Outcome.SOLD_OUT]] * 4
    assert [(await inventory.stock(goods_id)).booked for goods_id in ("phone", "case")] == [4, 4]


@pytest.mark.parametrize(
    "asked",
    [order("o-1"), order('o"1'), order("o\\1", buyer_id='"'), order("o-1", data={"size": "XL"})],
    ids=["plain", "quote", "backslash", "data"],
)
async def test_the_list_holds_the_order_as_it_describes_itself(shop: Shop, asked: Order) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10)
    await inventory.reserve([asked])
    (body,) = shop.raw.lrange(shop.keys.order_list, 0, -1)
    text = body if isinstance(body, str) else body.decode()
    assert text.startswith('{"created_at":')
    assert "{" + text.partition(",")[2] == asked.to_json()


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@promises(
    {
        "the order id in the script": test_a_repeat_returns_the_first_answer_and_changes_nothing,
        "the end of the window": test_refused_orders_leave_nothing_behind,
        "the cap of a buyer": test_a_buyer_holds_at_most_the_cap,
        "the bound of the stock": test_the_last_unit_is_sold_and_no_other,
        "all or none of a basket": test_a_basket_is_refused_whole,
        "whole numbers in reserve": test_orders_in_the_way_fail_alone,
    },
    by=OrderConflict,
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


@kills("the buyer in the comparison")
async def test_without_the_buyer_in_the_comparison_an_id_is_anybodys(sync_shop: Shop) -> None:
    await test_an_id_with_other_content_is_a_conflict(sync_shop, {"buyer_id": "bob"})
