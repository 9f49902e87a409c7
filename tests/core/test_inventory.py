"""`Inventory`: the article's deduction, hardened, and the stock it works on."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import AlreadyLoaded, CorruptState, Stock, UnknownGoods
from flashsale._sync.transport.coalescer import IN_FLIGHT
from flashsale.lua import SCRIPTS
from tests.support.helpers import order, snapshot, together, until
from tests.support.mutants import promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop


async def test_preload_writes_the_articles_hash(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 100, booked=30)
    assert shop.raw.hmget(shop.keys.stock("phone"), "Total", "Booked") == [b"100", b"30"]
    assert await inventory.stock("phone") == Stock(total=100, booked=30, remaining=70, direct=30)


async def test_preload_only_creates(shop: Shop) -> None:
    inventory = shop.inventory()
    policy = {"booked": 1, "per_buyer": 2, "opens_at": 1.5, "closes_at": 2e9}
    await inventory.preload("phone", 10, **policy)
    await inventory.reserve([order()])
    before = snapshot(shop.raw)
    await inventory.preload("phone", 10, **policy)
    for other in ({"booked": 2}, {"per_buyer": 3}, {"opens_at": 1.25}, {"closes_at": 3e9}, {"per_buyer": None}):
        with pytest.raises(AlreadyLoaded) as caught:
            await inventory.preload("phone", 10, **policy | other)
        assert (caught.value.sale, caught.value.goods_id) == ("spring", "phone")
    with pytest.raises(AlreadyLoaded):
        await inventory.preload("phone", 11, **policy)
    assert snapshot(shop.raw) == before


async def test_preload_at_the_same_moment_creates_once(shop: Shop) -> None:
    inventory = shop.inventory()
    answers = await asyncio.gather(*(inventory.preload("phone", 10 + n % 2) for n in range(10)), return_exceptions=True)
    failed = [answer for answer in answers if answer is not None]
    assert len(failed) == 5
    assert {type(answer) for answer in failed} == {AlreadyLoaded}


async def test_a_stock_that_a_external_program_made_is_taken_as_it_is(shop: Shop) -> None:
    """The same total and no policy of ours: that is what preload was to reach."""
    sale = shop.sale()
    shop.raw.hset(shop.keys.stock("phone"), mapping={"Total": 100, "Booked": 7})
    await sale.preload("phone", 100)
    await sale.preload("phone", 100)
    assert await sale.inventory.stock("phone") == Stock(100, 7, 93, 7)
    with pytest.raises(AlreadyLoaded):
        await sale.preload("phone", 101)
    await sale.start("phone")
    await sale.pause()  # it belongs to the sale now
    assert not (await sale.buy("phone", "ann")).accepted
    await sale.resume()
    assert (await sale.buy("phone", "ann")).accepted


async def test_deduct_takes_what_is_asked_or_nothing(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 5)
    assert await inventory.deduct("phone") == 1
    assert await inventory.deduct("phone", 3) == 3
    before = snapshot(shop.raw)
    assert await inventory.deduct("phone", 2) == 0
    assert snapshot(shop.raw) == before
    assert await inventory.deduct("phone", 1) == 1
    assert await inventory.deduct("phone", 1) == 0
    assert await inventory.stock("phone") == Stock(5, 5, 0, 5)


async def test_deduct_looks_at_units_only(shop: Shop) -> None:
    """As in the article: neither flag nor window nor pause nor cap."""
    sale = shop.sale()
    await sale.preload("phone", 5, per_buyer=1, closes_at=1.0)
    await sale.pause()
    assert await sale.inventory.deduct("phone", 5) == 5


async def test_release_gives_untracked_units_back_and_no_others(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10, booked=1)
    await inventory.deduct("phone", 3)
    await inventory.reserve([order(quantity=2)])
    assert await inventory.stock("phone") == Stock(10, 6, 4, 4)
    assert await inventory.release("phone", 3) == 3
    assert await inventory.release("phone", 3) == 1
    before = snapshot(shop.raw)
    assert await inventory.release("phone") == 0
    assert snapshot(shop.raw) == before
    assert await inventory.stock("phone") == Stock(10, 2, 8, 0)


async def test_parallel_deductions_take_each_unit_once(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 20)
    taken = await asyncio.gather(*(inventory.deduct("phone", 1 + n % 2) for n in range(40)))
    assert sum(taken) == (await inventory.stock("phone")).booked == 20


async def test_more_booked_than_total_leaves_nothing(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 5)
    shop.raw.hset(shop.keys.stock("phone"), mapping={"Booked": 9, "Ledger": 9})
    assert await inventory.stock("phone") == Stock(5, 9, 0, 0)
    assert await inventory.deduct("phone") == 0
    (receipt,) = await inventory.reserve([order()])
    assert (receipt.accepted, receipt.remaining) == (False, 0)


async def test_goods_never_preloaded_are_unknown(shop: Shop) -> None:
    inventory = shop.inventory()
    for call in (
        lambda: inventory.deduct("phone"),
        lambda: inventory.release("phone"),
        lambda: inventory.stock("phone"),
        lambda: inventory.reserve([order()]),
    ):
        with pytest.raises(UnknownGoods) as caught:
            await call()
        assert isinstance(caught.value, LookupError)
        assert (caught.value.sale, caught.value.goods_id) == ("spring", "phone")
    assert shop.raw.keys("*") == []


async def test_sales_of_one_redis_do_not_meet(shop: Shop) -> None:
    client = shop.client()
    ours, theirs = (shop.make("Inventory", client, sale) for sale in ("spring", "autumn"))
    await ours.preload("phone", 5)
    with pytest.raises(UnknownGoods):
        await theirs.deduct("phone")
    await theirs.preload("phone", 7)
    await ours.reserve([order()])
    (receipt,) = await theirs.reserve([order(quantity=2)])  # the same order id
    assert (receipt.accepted, receipt.replayed, receipt.remaining) == (True, False, 5)


async def test_load_scripts_puts_every_script_on_the_server(shop: Shop) -> None:
    shop.raw.script_flush()
    shas = await shop.inventory().load_scripts()
    assert sorted(shas) == sorted(script.sha for script in SCRIPTS.values())
    assert all(shop.raw.script_exists(*shas))


async def deductions(shop: Shop, inventory: Any, *requests: tuple[str, int]) -> list[Any]:
    """Deducts for callers who wait together, in this order, while others are under way."""
    await inventory.preload("early", 10)
    calls = [functools.partial(inventory.deduct, *request) for request in [("early", 1)] * IN_FLIGHT + [*requests]]
    return (await together(shop, inventory.real._deductions, *calls))[IN_FLIGHT:]


async def test_callers_of_one_call_are_answered_in_their_order(real_shop: Shop) -> None:
    inventory = real_shop.inventory(patient=True)
    await inventory.preload("phone", 5)
    await inventory.preload("case", 2)
    requests = ("phone", 3), ("case", 1), ("phone", 3), ("phone", 2), ("case", 2), ("case", 1), ("phone", 1)
    answers = await deductions(real_shop, inventory, *requests)
    if real_shop.is_async:  # of two threads that lead a batch each, either may be the first
        assert answers == [3, 1, 0, 2, 0, 1, 0]
    for goods_id, units in (("phone", 5), ("case", 2)):
        taken = [answer for (goods, _), answer in zip(requests, answers, strict=True) if goods == goods_id]
        assert sum(taken) == units
    assert all(answer in {0, quantity} for (_, quantity), answer in zip(requests, answers, strict=True))
    assert ((await inventory.stock("phone")).booked, (await inventory.stock("case")).booked) == (5, 2)


async def test_bad_goods_fail_only_their_own_callers(real_shop: Shop) -> None:
    shop, inventory = real_shop, real_shop.inventory(patient=True)
    for goods_id in ("phone", "broken", "other"):
        await inventory.preload(goods_id, 5)
    shop.raw.hset(shop.keys.stock("broken"), "Booked", "many")
    shop.raw.delete(shop.keys.stock("other"))
    shop.raw.set(shop.keys.stock("other"), "not a hash")
    goods = ["broken", "phone", "unknown", "phone", "other", "broken"]
    answers = await deductions(shop, inventory, *((goods_id, 1) for goods_id in goods))
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    assert [type(error) for error in errors] == [CorruptState, UnknownGoods, CorruptState, CorruptState]
    assert [error.goods_id for error in errors] == ["broken", "unknown", "other", "broken"]
    assert [answers[1], answers[3], (await inventory.stock("phone")).booked] == [1, 1, 2]
    assert shop.raw.hget(shop.keys.stock("broken"), "Booked") == b"many"


async def test_cancelled_callers_keep_no_units(real_shop: Shop) -> None:
    if not real_shop.is_async:
        pytest.skip("a thread cannot be cancelled")
    inventory = real_shop.inventory()
    await inventory.preload("phone", 60)
    for hops in range(8):
        tasks = [asyncio.create_task(inventory.deduct("phone", 2)) for _ in range(20)]
        for _ in range(hops):  # later and later on the way
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        kept = sum(answer for answer in answers if isinstance(answer, int))
        stock = real_shop.keys.stock("phone")
        await until(lambda: int(real_shop.raw.hget(stock, "Booked")) == kept, "the units back")  # noqa: B023
        if kept:
            assert await inventory.release("phone", kept) == kept


async def test_every_call_survives_the_loss_of_the_script_cache(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10)
    for call in (lambda: inventory.deduct("phone"), lambda: inventory.release("phone")):
        shop.raw.script_flush()
        assert await call() == 1
    shop.raw.script_flush()
    assert (await inventory.reserve([order()]))[0].accepted
    assert (await inventory.stock("phone")).booked == 1


@promises(
    {
        "the bound of a deduction": test_deduct_takes_what_is_asked_or_nothing,
        "the bound of a release": test_release_gives_untracked_units_back_and_no_others,
        "the one preload": test_preload_only_creates,
    },
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
