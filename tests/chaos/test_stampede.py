"""Crowds: exactly as many units are sold as there are, however many come at once."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, OrderState, Outcome
from tests.core.test_worker import booked, rows, work_off
from tests.support.mutants import promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop

UNITS, BUYERS = 100, 1000
RUNS = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 4  # of each API


async def crowd(sale: Any, buyers: int = BUYERS, **settings: Any) -> Counter[Outcome]:
    """Everybody wants one, at the same moment: threads on one API, tasks on the other."""
    receipts = await asyncio.gather(*(sale.buy("phone", f"b-{n}", **settings) for n in range(buyers)))
    assert len({receipt.order_id for receipt in receipts}) == buyers
    return Counter(receipt.outcome for receipt in receipts)


async def sold_exactly(shop: Shop, sale: Any, units: int) -> None:
    """Stock, gate, ledger and list agree on what was sold."""
    assert (await sale.inventory.stock("phone")).booked == units
    assert (await sale.gate.state("phone")).access == units
    ledger = shop.raw.hkeys(shop.keys.orders)
    queued = [json.loads(body)["order_id"].encode() for body in shop.raw.lrange(shop.keys.order_list, 0, -1)]
    assert len(ledger) == units
    assert sorted(queued) == sorted(ledger)


@pytest.mark.parametrize("run", range(RUNS))
async def test_a_thousand_buyers_on_a_hundred_units(real_shop: Shop, run: int) -> None:
    sale = await real_shop.open(UNITS, sale=real_shop.sale(cache_for=0.05 if run % 2 else 0))
    assert await crowd(sale) == {Outcome.ACCEPTED: UNITS, Outcome.SOLD_OUT: BUYERS - UNITS}
    await sold_exactly(real_shop, sale, UNITS)


async def test_a_thousand_buyers_at_a_gate_on_another_redis(real_shop: Shop) -> None:
    sale = await real_shop.open(UNITS, sale=real_shop.sale(gate_client=real_shop.client(db=1)))
    assert await crowd(sale) == {Outcome.ACCEPTED: UNITS, Outcome.SOLD_OUT: BUYERS - UNITS}
    await sold_exactly(real_shop, sale, UNITS)


async def test_a_crowd_from_several_processes_worth_of_sales(real_shop: Shop) -> None:
    """Each has connections and a queue of its own, as processes have."""
    await real_shop.open(UNITS)
    sales = [real_shop.sale() for _ in range(5)]
    counts = await asyncio.gather(*(crowd(sale, 200) for sale in sales))
    assert sum((count for count in counts), Counter()) == {Outcome.ACCEPTED: UNITS, Outcome.SOLD_OUT: BUYERS - UNITS}
    await sold_exactly(real_shop, sales[0], UNITS)


async def test_a_small_crowd_on_every_backend(shop: Shop) -> None:
    sale = await shop.open(10)
    assert await crowd(sale, 60) == {Outcome.ACCEPTED: 10, Outcome.SOLD_OUT: 50}
    await sold_exactly(shop, sale, 10)


async def test_a_hundred_calls_with_one_id_are_one_order(shop: Shop) -> None:
    sale = await shop.open(10)
    receipts = await asyncio.gather(*(sale.buy("phone", "ann", 3, order_id="o-1") for _ in range(100)))
    first, *others = sorted(receipts, key=lambda receipt: receipt.replayed)
    assert first.accepted
    assert set(others) == {first._replace(replayed=True)}
    assert (await sale.inventory.stock("phone")).booked == 3
    assert (await sale.gate.state("phone")).access == 3
    assert await sale.queue.size() == 1


async def test_a_hundred_parallel_callers_never_pass_the_count(shop: Shop) -> None:
    gate = shop.gate(cache_for=0)
    await gate.preload("phone", 30)
    await gate.start("phone")
    admissions = await asyncio.gather(*(gate.enter("phone") for _ in range(100)))
    assert sum(admission.admitted for admission in admissions) == 30
    assert sorted(admission.remaining for admission in admissions if admission.admitted) == list(range(30))
    assert int(shop.raw.get(shop.keys.access("phone"))) == 30


async def test_a_crowd_with_different_requests(real_shop: Shop) -> None:
    """Quantities, caps and items of all kinds: no item is oversold, no cap is passed, every answer is true."""
    shop, chance = real_shop, random.Random(7)
    sale = await shop.open(150, per_buyer=4)
    await shop.open(40, sale=sale, goods_id="case")
    requests = [
        (chance.choice(["phone", "case"]), f"b-{chance.randrange(60)}", chance.randint(1, 3)) for _ in range(800)
    ]
    receipts = await asyncio.gather(*(sale.buy(*request) for request in requests))
    held: Counter[tuple[str, str]] = Counter()
    for (goods_id, buyer, quantity), receipt in zip(requests, receipts, strict=True):
        if receipt.accepted:
            held[goods_id, buyer] += quantity
    for goods_id, total in (("phone", 150), ("case", 40)):
        units = sum(count for (of, _), count in held.items() if of == goods_id)
        assert units == (await sale.inventory.stock(goods_id)).booked <= total
    assert max(count for (of, _), count in held.items() if of == "phone") <= 4
    for (of, buyer), count in held.items():
        if of == "phone":
            assert shop.raw.hget(shop.keys.buyers("phone"), buyer) == b"%d" % count


async def test_scripts_lost_again_and_again_are_no_trouble(shop: Shop) -> None:
    sale = await shop.open(50)
    selling = True

    async def flush() -> None:
        while selling:
            shop.raw.script_flush()
            await asyncio.sleep(0)

    flushing = asyncio.create_task(flush())
    counts = Counter()
    for wave in range(5):
        receipts = await asyncio.gather(*(sale.buy("phone", f"b-{wave}-{n}") for n in range(20)))
        counts.update(receipt.outcome for receipt in receipts)
    selling = False
    await flushing
    assert counts == {Outcome.ACCEPTED: 50, Outcome.SOLD_OUT: 50}
    await sold_exactly(shop, sale, 50)


async def test_a_crowd_while_the_worker_saves_and_buyers_cancel(real_shop: Shop) -> None:
    """Units come back and are sold again; in the end all systems agree."""
    shop = real_shop
    sale = await shop.open(sale=shop.sale(store=await shop.store(Goods("phone", 30)), cache_for=0), total=30)
    worker = shop.worker(sale, batch=10)
    sold: dict[str, bool] = {}

    async def buyer(name: str) -> None:
        receipt = await sale.buy("phone", name, order_id=name)
        if receipt.accepted:
            sold[name] = True
            if len(sold) % 3 == 0:
                assert await sale.cancel(name) is OrderState.CANCELLED
                sold[name] = False

    async def work() -> None:
        for _ in range(5):
            await worker.run_once()

    await asyncio.gather(work(), *(buyer(f"b-{n}") for n in range(80)))
    await work_off(shop, worker)
    states = await rows(sale)
    active = {name for name, kept in sold.items() if kept}
    assert {name for name, state in states.items() if state is OrderState.PERSISTED} == active
    assert {name for name, state in states.items() if state is OrderState.CANCELLED} == sold.keys() - active
    assert booked(shop) == (await sale.inventory.stock("phone")).booked == len(active)
    assert (await sale.gate.state("phone")).access == len(active)


async def on_the_last_units(shop: Shop) -> None:
    """Gate and stock are two bounds: past the gate, only the stock is left."""
    await test_a_thousand_buyers_on_a_hundred_units(shop, 0)


@promises(
    {
        "the bound of the stock": on_the_last_units,
        "the order id in the script": test_a_hundred_calls_with_one_id_are_one_order,
        "the bound of the gate": test_a_hundred_parallel_callers_never_pass_the_count,
    }
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
