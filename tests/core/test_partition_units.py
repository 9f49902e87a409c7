"""Units go where buyers want them; sold out is said only where no partition has one; threads need no threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import NotExecuted, Order, Outcome, Overloaded
from tests.support.helpers import inside, settled, until
from tests.support.partitions import (
    FOUR,
    allotted,
    booked,
    buyer,
    held,
    keys,
    lose,
    opened,
    partitioned,
    rows,
    synced,
    work,
)

if TYPE_CHECKING:
    from tests.support.helpers import Awaited, Shop

ACCEPTED, SOLD_OUT = Outcome.ACCEPTED, Outcome.SOLD_OUT


async def crowd(sale: Awaited, names: list[str], quantity: int = 1) -> Counter[Outcome]:
    receipts = await asyncio.gather(*(sale.buy("phone", name, quantity) for name in names))
    return Counter(receipt.outcome for receipt in receipts)


# -- everything sells, and nothing twice ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 8])
async def test_a_crowd_buys_every_unit_once(real_shop: Shop, count: int) -> None:
    sale = await opened(real_shop, 100, count)
    found = await crowd(sale, [f"b{n}" for n in range(300)])
    assert found == {ACCEPTED: 100, SOLD_OUT: 200}
    assert (booked(real_shop, count), allotted(real_shop, count)) == (100, 100)


async def test_buyers_of_one_partition_buy_what_all_have(real_shop: Shop) -> None:
    sale = await opened(real_shop, 60)
    names = [buyer(2, n) for n in range(100)]
    assert await crowd(sale, names) == {ACCEPTED: 60, SOLD_OUT: 40}
    assert held(real_shop)[2] == (60, 60)


async def test_two_processes_share_the_last_units(real_shop: Shop) -> None:
    sale = await opened(real_shop, 30)
    other = partitioned(real_shop)
    names = [f"b{n}" for n in range(60)]
    first, second = await asyncio.gather(crowd(sale, names[:30], 2), crowd(other, names[30:], 2))
    assert first + second == {ACCEPTED: 15, SOLD_OUT: 45}


async def test_a_buyer_who_wants_less_gets_what_is_too_little_for_another(shop: Shop) -> None:
    sale = await opened(shop, 5)
    refused, taken = await asyncio.gather(sale.buy("phone", buyer(1), 6), sale.buy("phone", buyer(1, 1), 5))
    assert (refused.outcome, taken.outcome) == (SOLD_OUT, ACCEPTED)


async def test_what_a_buyer_gives_back_is_for_sale_at_once(shop: Shop) -> None:
    """A remembered "sold out" is forgotten where a refusal is."""
    sale, _ = await synced(shop, 1, settings={"cache_for": 60})
    receipt = await sale.buy("phone", buyer(1))
    await work(shop, sale)
    for place in range(FOUR):
        assert (await sale.buy("phone", buyer(place))).outcome is SOLD_OUT
    await sale.cancel(receipt.order_id)
    assert (await sale.buy("phone", buyer(3))).accepted


async def test_sold_out_is_answered_from_the_process_for_a_while(shop: Shop) -> None:
    sale = await opened(shop, 0, sale=partitioned(shop, cache_for=60))
    looks = watched(shop, sale)
    for n in range(5):
        receipt = await sale.buy("phone", f"b{n}")
        assert (receipt.outcome, receipt.remaining) == (SOLD_OUT, 0)
    assert len(looks) == 2  # one check, of two looks


def watched(shop: Shop, sale: Awaited) -> list[str]:
    """Returns a list that grows with each look of a sale at its partitions."""
    looks: list[str] = []
    transfers = sale.real._transfers
    look = transfers.look

    async def alooked(goods_id: str, **kwargs: Any) -> Any:
        looks.append(goods_id)
        return await look(goods_id, **kwargs)

    def looked(goods_id: str, **kwargs: Any) -> Any:
        looks.append(goods_id)
        return look(goods_id, **kwargs)

    transfers.look = alooked if shop.is_async else looked
    return looks


async def test_a_few_units_left_are_not_remembered_as_none(shop: Shop) -> None:
    sale = await opened(shop, 3, sale=partitioned(shop, cache_for=60))
    assert (await sale.buy("phone", buyer(1), 4)).outcome is SOLD_OUT
    assert (await sale.buy("phone", buyer(2), 3)).accepted


async def test_units_that_move_meanwhile_are_seen(shop: Shop) -> None:
    """The first look finds nothing, since a unit was on its way; a second one that differs is not believed either."""
    sale = await opened(shop, 4)
    for place in (1, 2, 3):
        assert (await sale.buy("phone", buyer(place))).accepted
    transfers, looks = sale.real._transfers, [0]
    read = transfers.read

    def hide() -> None:
        looks[0] += 1
        if looks[0] == 1:  # taken away just before the first look, and brought back just after it
            shop.raw.hincrby(keys(0).stock("phone"), "Total", -1)
            shop.raw.incrby(keys(0).count("phone"), -1)

    def show() -> None:
        if looks[0] == 1:
            shop.raw.hincrby(keys(2).stock("phone"), "Total", 1)
            shop.raw.incrby(keys(2).count("phone"), 1)
            shop.raw.hincrby(keys(2).transfers("phone"), "moves", 1)

    async def aread(*args: Any, **kwargs: Any) -> Any:
        hide()
        answer = await read(*args, **kwargs)
        show()
        return answer

    def sread(*args: Any, **kwargs: Any) -> Any:
        hide()
        answer = read(*args, **kwargs)
        show()
        return answer

    transfers.read = aread if shop.is_async else sread
    assert (await sale.buy("phone", buyer(1, 1))).accepted


# -- what goes wrong --------------------------------------------------------------------------------------------------


async def test_an_error_of_a_look_is_not_that_of_who_was_served(shop: Shop) -> None:
    """Two orders of one batch: one has its unit, the other one looks for one where the item is lost."""
    sale = await opened(shop, 4)
    lose(shop, 3)
    place = sale.real._parts[1]
    orders = [
        order_of(sale, buyer(1), 1),
        order_of(sale, buyer(1, 1), 2),
    ]
    purchases = place._purchases
    modes = purchases._modes[inside(shop.api, "sale")._TAKE]
    answers = await settled(await in_thread(purchases._book, orders, modes))
    first, second = answers
    assert (first.accepted, type(second)) == (True, NotExecuted)


def order_of(sale: Awaited, name: str, quantity: int) -> Any:
    return Order(sale.real.order_id(name), "phone", name, quantity)


async def in_thread(method: Any, *args: Any) -> Any:
    """Calls what only one of the two APIs awaits."""
    if asyncio.iscoroutinefunction(method):
        return await method(*args)
    return await asyncio.to_thread(method, *args)


async def test_what_a_partition_holds_must_be_sound(shop: Shop) -> None:
    sale = await opened(shop, 4)
    shop.raw.hset(keys(3).stock("phone"), "Total", "1.5")
    assert (await sale.buy("phone", buyer(1))).accepted
    with pytest.raises(NotExecuted, match="another partition cannot be asked for units") as caught:
        await sale.buy("phone", buyer(1))
    assert "partition 3 holds cannot be trusted" in str(caught.value.__cause__.__cause__)


async def test_a_crowd_is_bounded_over_all_partitions(sync_shop: Shop) -> None:
    sale = await opened(sync_shop, 200, sale=partitioned(sync_shop, max_waiting=20, timeout=60.0))
    most = 20 + FOUR * inside(sync_shop.api, "transport.coalescer").IN_FLIGHT  # who is in flight does not wait
    sync_shop.raw.client_pause(60_000, all=False)
    try:
        tasks = [asyncio.create_task(sale.buy("phone", f"b{n}")) for n in range(200)]
        await until(lambda: sum(task.done() for task in tasks) >= 200 - most, "the refusals")
    finally:
        sync_shop.raw.client_unpause()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    refused = sum(isinstance(answer, Overloaded) for answer in answers)
    assert refused >= 200 - most
    assert booked(sync_shop) == 200 - refused


async def test_cancelled_callers_lose_no_unit(real_shop: Shop) -> None:
    if not real_shop.is_async:
        pytest.skip("threads cannot be cancelled")
    sale, syncer = await synced(real_shop, 40)
    for turn in range(6):
        tasks = [asyncio.create_task(sale.buy("phone", f"b{turn}-{n}", 2)) for n in range(30)]
        await asyncio.sleep(0.002 * turn)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    audit = await syncer.audit()
    assert (audit.adrift, audit.orders) == ({}, ())
    rest = 0
    while (await sale.buy("phone", f"c{rest}")).accepted:
        rest += 1
    assert booked(real_shop) == 40
    await work(real_shop, sale)
    audit = await syncer.audit()
    assert (audit.ok, audit.units.held) == (True, 40)
    assert len(await rows(sale)) >= 20


# -- threads ----------------------------------------------------------------------------------------------------------


async def test_a_look_needs_no_thread_of_its_own(real_shop: Shop) -> None:
    if real_shop.is_async:
        pytest.skip("it has none")
    sale = await opened(real_shop, 4, sale=partitioned(real_shop))
    began: list[threading.Thread] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        began.append(thread)
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", counted)
        for n in range(6):
            sale.real.buy("phone", f"b{n}")  # the last ones fetch, and check
        sale.real.view("phone")
    assert [thread.name for thread in began if "later" not in thread.name] == []
    assert booked(real_shop) == 4


# -- forks, ends ------------------------------------------------------------------------------------------------------


async def test_a_child_buys_although_a_thread_of_its_parent_looked(real_shop: Shop) -> None:
    if real_shop.is_async:
        pytest.skip("a loop is not forked")
    sale = await opened(real_shop, 8)
    real = sale.real
    assert (await sale.buy("phone", buyer(1), 3)).accepted
    with real._transfers._lock("phone"):  # as a thread does that fetches just now
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if real.buy("phone", buyer(1, 1), 5).accepted else 2
            os._exit(code)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert booked(real_shop) == 8
