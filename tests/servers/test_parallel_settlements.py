"""Buyers, hosts and syncers who decide on one order at once, on PostgreSQL: one wins, and units come back once."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from flashsale import Goods, OrderState, Outcome
from tests.support.sales import access, active_units, booked, overdue, rows, store_at, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop

PERSISTED, CONFIRMED = OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, EXPIRED = OrderState.CANCELLED, OrderState.EXPIRED


@pytest.mark.parametrize(
    ("real_shop", "two", "persisted"),
    [
        pytest.param("flashsale", False, False, id="sync-one Redis-queued"),
        pytest.param("flashsale", True, True, id="sync-two Redis-persisted"),
        pytest.param("flashsale.aio", True, False, id="aio-two Redis-queued"),
        pytest.param("flashsale.aio", False, True, id="aio-one Redis-persisted"),
    ],
    indirect=["real_shop"],
)
async def test_a_hundred_orders_cancelled_by_four_callers_each_are_sold_once_more(
    real_shop: Shop, fresh_postgres_url: str, persisted: bool, two: bool
) -> None:
    shop = real_shop
    policy = {"per_buyer": 1, "hold": 900.0}
    store = await store_at(shop, fresh_postgres_url, Goods("phone", 100, **policy), timeout=60)
    apart = {"gate_client": shop.client(db=1)} if two else {}
    sale = shop.sale(store=store, cache_for=0, timeout=100.0, **apart)  # four hundred wait for few connections
    await shop.open(100, sale=sale, **policy)

    async def load(name: str) -> Counter[Outcome]:
        asked = (sale.buy("phone", f"buyer-{n}", order_id=f"{name}-{n}") for n in range(100))
        return Counter([receipt.outcome for receipt in await asyncio.gather(*asked)])

    assert await load("first") == {Outcome.ACCEPTED: 100}
    if persisted:
        await work(shop, sale)
    answers = await asyncio.gather(*(sale.cancel(f"first-{n}") for n in range(100) for _ in range(4)))
    assert set(answers) == {CANCELLED}
    assert await booked(sale) == await access(sale) == 0
    assert set(shop.raw.hvals(shop.keys.buyers("phone"))) == {b"0"}
    assert not shop.raw.exists(shop.keys.holds)

    again = await sale.buy("phone", "buyer-0", order_id="first-0")  # a released id never buys again
    assert (again.replayed, again.state) == (True, CANCELLED)
    assert await booked(sale) == await access(sale) == 0
    assert await load("second") == {Outcome.ACCEPTED: 100}
    assert (await sale.buy("phone", "somebody")).outcome is Outcome.SOLD_OUT
    await work(shop, sale)
    assert Counter((await rows(sale)).values()) == {CANCELLED: 100, PERSISTED: 100}
    assert await booked(sale) == await active_units(sale) == await access(sale) == 100


async def test_confirming_and_cancelling_in_parallel_leave_one_story(real_shop: Shop, fresh_postgres_url: str) -> None:
    """Cancelling always stands in the end: it refunds what was paid. Units come back once."""
    shop = real_shop
    store = await store_at(shop, fresh_postgres_url, Goods("phone", 40, hold=900), timeout=60)
    sale = shop.sale(store=store, timeout=100.0)  # a hundred and sixty wait for few connections
    await shop.open(40, sale=sale, hold=900)
    names = [f"o-{n}" for n in range(40)]
    await asyncio.gather(*(sale.buy("phone", "ann", order_id=name) for name in names))
    await work(shop, sale)

    async def both(name: str, first: str) -> list[OrderState]:
        verbs = sorted(["cancel", "confirm"], reverse=first == "confirm")
        return await asyncio.gather(*(getattr(sale, verb)(name) for verb in verbs for _ in range(2)))

    answers = await asyncio.gather(*(both(name, ["cancel", "confirm"][n % 2]) for n, name in enumerate(names)))
    assert set(itertools.chain(*answers)) <= {CONFIRMED, CANCELLED}
    assert await rows(sale) == {name: await sale.status(name) for name in names} == dict.fromkeys(names, CANCELLED)
    assert await booked(sale) == await active_units(sale) == await access(sale) == 0


async def test_paying_against_expiring_has_one_winner(real_shop: Shop, fresh_postgres_url: str) -> None:
    shop = real_shop
    store = await store_at(shop, fresh_postgres_url, Goods("phone", 60, hold=900), timeout=60)
    apart = {"gate_client": shop.client(db=1), "timeout": 100.0}
    sale, other = shop.sale(store=store, **apart), shop.sale(store=store, **apart)
    await shop.open(60, sale=sale, hold=900)
    names = [f"o-{n:02}" for n in range(60)]
    await asyncio.gather(*(sale.buy("phone", "ann", order_id=name) for name in names))
    await work(shop, sale)
    overdue(shop, *names)
    ours = [name for n, name in enumerate(reversed(names)) if n % 2]  # the syncer begins with the others
    syncers = [shop.syncer(sale), shop.syncer(other)]
    *answers, first, second = await asyncio.gather(
        *(sale.confirm(name) for name in ours), *(syncer.run_once() for syncer in syncers)
    )
    await syncers[0].run_once()
    final = await rows(sale)
    assert {name: final[name] for name in ours} == dict(zip(ours, answers, strict=True))  # nobody was told two things
    assert {name: await sale.status(name) for name in names} == final
    paid = sum(state is CONFIRMED for state in final.values())
    assert set(final.values()) <= {CONFIRMED, EXPIRED}
    assert await booked(sale) == await active_units(sale) == await access(sale) == paid
    assert first.expired + second.expired <= 60 - paid
