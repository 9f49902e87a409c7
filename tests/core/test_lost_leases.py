"""Claims whose lease ended: they go to the back of the queue, halved, and only what is alone can be to blame."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import OrderState, StoreError
from flashsale._rules import rate_limited_log
from tests.core.test_order_queue import bought, ids
from tests.core.test_worker import before_each_save, full_batches
from tests.support.claims import leased
from tests.support.helpers import order
from tests.support.mutants import promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop


async def _push(sale: Any, name: object) -> None:
    await sale.inventory.reserve([order(name)])


async def test_what_lost_its_lease_comes_after_what_waits_and_halved(shop: Shop) -> None:
    sale = await bought(shop, 9)
    assert len(await sale.queue.claim(8, lease=60)) == 8
    shop.end_leases()
    assert ids(await sale.queue.claim(lease=60)) == ["9"]
    sizes = [len(await sale.queue.claim(lease=60, timeout=0)) for _ in range(5)]
    assert sizes == [4, 2, 1, 1, 0]


async def test_what_lost_its_lease_waits_for_no_more_than_waited_before(shop: Shop) -> None:
    """However many orders come after it."""
    sale = await bought(shop, 1)
    await sale.queue.claim(lease=60)
    shop.end_leases()
    for n in range(2, 6):
        await _push(sale, n)
    claimed = []
    for n in range(6, 12):
        await _push(sale, n)
        claimed += ids(await sale.queue.claim(1, lease=60))
    assert claimed.index("1") == 5  # after four that waited, and one that came before it was first passed over


async def test_what_was_refused_comes_first_and_whole(shop: Shop) -> None:
    sale = await bought(shop, 4)
    claims = await sale.queue.claim(lease=60)
    await sale.queue.nack(claims, count_attempt=False)
    await _push(sale, "new")
    again = await sale.queue.claim(lease=60)
    assert ids(again) == ["1", "2", "3", "4", "new"]
    assert {claim.attempts for claim in again} == {1}


async def test_five_leases_that_ended_alone_bury_an_order(shop: Shop) -> None:
    sale = await bought(shop, 2)
    assert len(await sale.queue.claim(lease=60)) == 2
    seen: list[str] = []
    while shop.raw.exists(shop.keys.claimed):
        shop.end_leases()
        seen += ids(await sale.queue.claim(lease=60, timeout=0))
    assert sorted(seen) == ["1"] * 5 + ["2"] * 5
    assert sorted(ids(await sale.queue.dead())) == ["1", "2"]
    assert {claim.attempts for claim in await sale.queue.dead()} == {1}
    assert await sale.status("1") is OrderState.DEAD


async def test_a_refusal_begins_the_count_of_lost_leases_anew(shop: Shop) -> None:
    sale = await bought(shop, 1)
    for _ in range(4):
        await sale.queue.claim(lease=60)
        shop.end_leases()
    await sale.queue.nack(await sale.queue.claim(lease=60))
    for _ in range(5):
        assert [claim.attempts for claim in await sale.queue.claim(lease=60)] == [2]
        shop.end_leases()
    assert await sale.queue.claim(timeout=0) == []
    assert len(await sale.queue.dead()) == 1


async def test_claims_of_the_release_before_are_taken_over(shop: Shop) -> None:
    """It wrote plain numbers as leases, and counts an ended lease as an attempt."""
    sale = await bought(shop, 2)
    shop.raw.hset(shop.keys.meta, "layout", 1)
    claims = await sale.queue.claim(lease=60)
    for claim in claims:
        delivery = claim.token.partition("-")[0]
        shop.raw.hset(shop.keys.claimed, delivery, b"3|17|" + claim.body)
    shop.end_leases()
    (claim,) = await sale.queue.claim(lease=60)
    assert (claim.attempts, claim.order) == (3, claims[0].order)
    assert await sale.queue.extend([claim], lease=60) == 1
    shop.end_leases()
    assert await sale.queue.ack(await sale.queue.claim(lease=60)) == 1


@pytest.mark.parametrize("layout", [1, 2])
async def test_bodies_without_a_lease_get_one(shop: Shop, layout: int) -> None:
    sale = await shop.open(700)
    shop.raw.hset(shop.keys.meta, "layout", layout)
    await sale.inventory.reserve([order(n) for n in range(700)])  # more than a page
    await sale.queue.claim(700, lease=60)
    shop.raw.delete(shop.keys.leases)
    assert await sale.queue.claim(lease=60, timeout=0) == []
    assert leased(shop.raw, shop.keys) == 700
    shop.end_leases()
    assert len(await sale.queue.claim(700, lease=60)) == 350


async def test_a_long_save_extends_its_leases_and_those_claimed_ahead(shop: Shop) -> None:
    sale, stop = await full_batches(shop)
    taken: list[Any] = []

    async def slow() -> None:
        if not stop.is_set():
            stop.set()
            await asyncio.sleep(1.5)
            taken.extend(await shop.queue().claim(2, timeout=0))

    before_each_save(shop, sale, slow)
    await shop.worker(sale, batch=2, lease=0.6).run(stop)
    assert ids(taken) == ["4"]  # the one that nobody had claimed


async def test_a_save_without_end_is_left_to_others(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's hook that hangs must not keep its orders for ever."""
    for module in ("flashsale.aio.worker", "flashsale._sync.worker"):
        monkeypatch.setattr(f"{module}._EXTENSIONS", 3)
    sale = await shop.open(store=True)
    await _push(sale, "1")
    taken: list[Any] = []

    async def hangs() -> None:
        taken.extend(await shop.queue().claim(timeout=5))
        raise StoreError("at last")

    before_each_save(shop, sale, hangs)
    with pytest.raises(StoreError):
        await shop.worker(sale, lease=0.3).run_once()
    assert ids(taken) == ["1"]


@promises(
    {
        "the turn of lost claims": test_what_lost_its_lease_waits_for_no_more_than_waited_before,
        "refused ones are not lost": test_what_was_refused_comes_first_and_whole,
        "every page of new leases": partial(test_bodies_without_a_lease_get_one, layout=1),
        "the count of lost leases": test_five_leases_that_ended_alone_bury_an_order,
        "a lease of the release before": test_claims_of_the_release_before_are_taken_over,
    },
    by=(TimeoutError, ValueError),
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    async with asyncio.timeout(5):
        await promise(sync_shop)


def test_a_report_is_told_once_a_minute_and_counts_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(rate_limited_log, "time", type("Clock", (), {"monotonic": lambda: now[0]}))
    told = rate_limited_log.RateLimitedLog()
    for now[0] in (0.0, 1.0, 59.0, 60.0, 61.0):
        told.tell("cause", "order %s waits", f"o-{now[0]:.0f}")
    told.tell("another", "all of it")
    assert caplog.messages == [
        "order o-0 waits",
        "order o-60 waits (and 2 times more since it was told last)",
        "all of it",
    ]
