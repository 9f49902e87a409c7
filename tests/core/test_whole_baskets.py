"""The orders of a basket are claimed, saved and given up together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from flashsale import Goods, Order, OrderState
from flashsale._rules.batches import halves
from tests.core.test_order_queue import ids, wear_out
from tests.support.claims import claimed
from tests.support.helpers import order, settled
from tests.support.mutants import promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop


async def queued(shop: Shop, *names: str, **settings: Any) -> Any:
    """A sale whose list has these orders; `b3` stands for the basket `b` of three."""
    sale = await shop.open(100, sale=shop.sale(**settings))
    for name in names:
        together = name[1:].isdigit()
        order_ids = [f"{name[0]}#{n + 1}" for n in range(int(name[1:]))] if together else [name]
        orders = [order(each, buyer_id=name) for each in order_ids]
        await sale.inventory.reserve(orders, together=together)
    return sale


@pytest.mark.parametrize(
    ("order_id", "basket_id"),
    [("b#1", "b"), ("b#50", "b"), ("a#1#2", "a#1"), ("b#0", None), ("b#51", None), ("b#01", None), ("#1", None),
     ("b", None), ("b#", None), ("b#1x", None)],
)  # fmt: skip
def test_an_order_knows_its_basket(order_id: str, basket_id: str | None) -> None:
    assert Order(order_id, "phone", "ann", 1).basket_id == basket_id


async def test_a_claim_cuts_no_basket(shop: Shop) -> None:
    sale = await queued(shop, "a3", "x", "b3", "c2", "y")
    assert ids(await sale.queue.claim(5)) == ["a#1", "a#2", "a#3", "x"]
    assert ids(await sale.queue.claim(1)) == ["b#1", "b#2", "b#3"]  # a basket that is longer, all the same
    assert ids(await sale.queue.claim(100)) == ["c#1", "c#2", "y"]


async def test_a_basket_with_data_is_known(shop: Shop) -> None:
    sale = await shop.open(100)
    both = [order(f'a"\\#{n}', buyer_id="ann", data={"order_id": "x#1"}) for n in (1, 2)]
    await sale.inventory.reserve(both, together=True)
    assert ids(await sale.queue.claim(1)) == [each.order_id for each in both]


async def test_a_lost_basket_comes_back_whole(shop: Shop) -> None:
    """Also over the end of a page of digits: deliveries are sorted as text."""
    sale = await queued(shop, *"uvwxyz", "a4", "b4")
    await sale.queue.ack(await sale.queue.claim(6))
    assert len(await sale.queue.claim(8, lease=60)) == 8  # deliveries 7 to 14
    shop.end_leases()
    seen = [ids(await sale.queue.claim(8, lease=60, timeout=0)) for _ in range(3)]
    assert sorted(seen) == [[], [f"a#{n}" for n in (1, 2, 3, 4)], [f"b#{n}" for n in (1, 2, 3, 4)]]


async def test_a_basket_waits_for_what_is_leased(shop: Shop) -> None:
    sale = await queued(shop, "a3")
    claims = await sale.queue.claim(lease=60)
    await sale.queue.nack(claims[:1])
    assert await sale.queue.claim(timeout=0) == []
    await sale.queue.nack(claims[1:])
    assert ids(await sale.queue.claim(1, timeout=0)) == ["a#1", "a#2", "a#3"]


async def test_a_basket_that_kills_its_worker_is_buried_as_one(shop: Shop) -> None:
    sale = await queued(shop, "a3", "x")
    rounds = 0
    while shop.raw.exists(shop.keys.order_list, shop.keys.claimed):
        await sale.queue.claim(lease=60, timeout=0)
        shop.end_leases()
        rounds += 1
        assert rounds < 30
    assert sorted(ids(await sale.queue.dead())) == ["a#1", "a#2", "a#3", "x"]
    assert await sale.queue.requeue_dead() == 4
    (basket,) = [claims for claims in [ids(await sale.queue.claim(1)) for _ in range(2)] if len(claims) > 1]
    assert sorted(basket) == ["a#1", "a#2", "a#3"]


async def test_a_split_cuts_no_basket(shop: Shop) -> None:
    """The database refuses one order: its basket waits with it, and everybody else is saved."""
    sale = await queued(shop, "x", "a3", "b3", "y", store=await shop.store(Goods("phone", 100), Goods("case", 5)))
    save, seen = sale.store.save, []

    def look(orders: Any) -> None:
        seen.append([each.order_id for each in orders])
        if "a#2" in seen[-1]:
            raise ValueError

    async def aio(orders: Any) -> Any:
        look(orders)
        return await save(orders)

    def sync(orders: Any) -> Any:
        look(orders)
        return save(orders)

    sale.store.save = aio if shop.is_async else sync
    worker = shop.worker(sale)
    await worker.run_once()
    assert [names for names in seen for name in "ab" if 0 < sum(n.startswith(name) for n in names) < 3] == []
    saved = {"x", "y", "b#1", "b#2", "b#3"}
    assert await settled(sale.store.states(saved | {"a#1", "a#2", "a#3"})) == dict.fromkeys(saved, OrderState.PERSISTED)
    for _ in range(4):
        shop.end_leases()
        await worker.run_once()
    await wear_out(shop, sale.queue)
    assert sorted(ids(await sale.queue.dead())) == ["a#1", "a#2", "a#3"]


async def test_a_basket_waits_for_an_item_that_cannot_be_trusted(shop: Shop) -> None:
    """Nothing of it is saved: what the host makes of a basket, it makes of all of it."""
    sale = await queued(shop, "x", store=await shop.store(Goods("phone", 100), Goods("case", 5)))
    await sale.preload("case", 5)
    both = [order("a#1", goods_id="case", buyer_id="ann"), order("a#2", buyer_id="ann")]
    await sale.inventory.reserve(both, together=True)
    shop.raw.hdel(shop.keys.orders, "a#1")
    shop.raw.hset(shop.keys.stock("case"), "Total", "many")
    await shop.worker(sale).run_once()
    assert (await settled(sale.store.states(["x", "a#1", "a#2"]))).keys() == {"x"}
    assert len(claimed(shop.raw, shop.keys)) == 2


async def test_dead_baskets_are_queued_again_as_a_whole(shop: Shop) -> None:
    """A worker may claim between two scripts of a call for many."""
    sale = await shop.open(1000)
    for n in range(40):
        orders = [order(f"basket-{n}#{place}", buyer_id=f"b-{n}") for place in (1, 2, 3)]
        await sale.inventory.reserve(orders, together=True)
    await wear_out(shop, sale.queue)
    link, seen = type(sale.queue.real._link), []
    run = link.run

    def noted(self: Any, script: str, *args: Any) -> Any:
        if script == "requeue":
            seen.append(shop.raw.llen(shop.keys.order_list))
        return run(self, script, *args)

    with mock.patch.object(link, "run", noted):
        assert await sale.queue.requeue_dead() == 120
    assert seen == [0, 102]
    found = ids(await sale.queue.claim(1000))
    assert [name.partition("#")[0] for name in found[::3]] == [name.partition("#")[0] for name in found[2::3]]


def test_one_basket_has_no_halves() -> None:
    orders = [order(name) for name in ("a#1", "x", "a#2")]
    assert [[each.order_id for each in half] for half in halves(orders)] == [["a#1", "a#2"], ["x"]]
    assert halves([order("x")]) == ([order("x")], [])


@promises(
    {
        "a claim cuts no basket": test_a_claim_cuts_no_basket,
        "lost baskets are claimed whole": test_a_lost_basket_comes_back_whole,
        "a basket waits for what is leased": test_a_basket_waits_for_what_is_leased,
        "a basket is alone as one": test_a_basket_that_kills_its_worker_is_buried_as_one,
        "a requeue cuts no basket": test_dead_baskets_are_queued_again_as_a_whole,
        "a split cuts no basket": test_a_split_cuts_no_basket,
    },
    by=(ValueError,),
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
