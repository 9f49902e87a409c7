"""Layout 2: elements that come from the list in one claim share one lease, until something is asked of a part."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Order, OrderQueue, OrderState
from tests.core.test_order_queue import bought, ids
from tests.support.claims import claimed, leased
from tests.support.helpers import clock, order
from tests.support.mutants import kills, promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop


def _end_leases_before(shop: Shop, seconds: float) -> None:
    """Those end that would have ended within so many seconds."""
    now = clock(shop.raw)
    ends = shop.raw.zrange(shop.keys.leases, 0, -1, withscores=True)
    shop.raw.zadd(shop.keys.leases, {name: now - 1 for name, end in ends if end < now + seconds})


async def _claimed_by_status(sale: Any) -> int:
    seen = sale._recorder.look()
    return int((await seen if inspect.isawaitable(seen) else seen).claimed)


async def _everything(shop: Shop, sale: Any) -> list[str]:
    """Claims until nothing is left, whatever has a lease; returns the order ids, each once."""
    found: dict[str, None] = {}
    for _ in range(50):  # rounds: more than elements; what never leaves is no reason to go on for ever
        if not shop.raw.exists(shop.keys.order_list, shop.keys.claimed):
            return sorted(found)
        shop.end_leases()
        claims = await sale.queue.claim(lease=60, timeout=0)
        found |= dict.fromkeys(claim.order.order_id if claim.order else claim.body.decode() for claim in claims)
        await sale.queue.ack(claims)
    raise AssertionError("something stays for ever")


async def test_a_claim_has_one_lease_and_one_text(shop: Shop) -> None:
    sale = await bought(shop, 5)
    claims = await sale.queue.claim(lease=60)
    assert (shop.raw.hlen(shop.keys.claimed), shop.raw.zcard(shop.keys.leases)) == (1, 1)
    assert await _claimed_by_status(sale) == 5
    assert await sale.queue.extend(claims, lease=90) == 5
    assert shop.raw.zrange(shop.keys.leases, 0, -1, withscores=True)[0][1] > clock(shop.raw) + 80
    assert await sale.queue.ack(claims) == 5
    assert await sale.queue.ack(claims) == 0
    assert not shop.raw.exists(shop.keys.leases, shop.keys.claimed, shop.keys.order_list)


async def test_a_part_that_is_acknowledged_leaves_the_others_claimed(shop: Shop) -> None:
    sale = await bought(shop, 5)
    claims = await sale.queue.claim(lease=60)
    assert await sale.queue.ack([claims[1], claims[3], claims[3]]) == 2
    assert len(claimed(shop.raw, shop.keys)) == leased(shop.raw, shop.keys) == 3
    assert await sale.queue.claim(lease=60, timeout=0) == []
    assert [await sale.status(str(n)) for n in (1, 2)] == [OrderState.QUEUED, OrderState.PERSISTED]
    assert await sale.queue.extend(claims, lease=60) == 3
    assert await sale.queue.ack(claims) == 3
    assert not shop.raw.exists(shop.keys.leases, shop.keys.claimed)


async def test_a_part_that_is_refused_comes_back_alone(shop: Shop) -> None:
    sale = await bought(shop, 4)
    claims = await sale.queue.claim(lease=60)
    assert await sale.queue.nack(claims[1:3]) == 2
    again = await sale.queue.claim(lease=60, timeout=0)
    assert [(claim.order.order_id, claim.attempts) for claim in again] == [("2", 2), ("3", 2)]
    assert await sale.queue.nack(claims) == 2  # only those that nobody else holds now
    assert {claim.order.order_id: claim.attempts for claim in await sale.queue.claim(lease=60)} == {"1": 2, "4": 2}


async def test_a_part_that_is_extended_outlives_the_others(shop: Shop) -> None:
    sale = await bought(shop, 4)
    claims = await sale.queue.claim(lease=60)
    assert await sale.queue.extend(claims[:2], lease=600) == 2
    _end_leases_before(shop, 300)
    assert ids(await sale.queue.claim(lease=60)) == ["3"]  # the half of what was lost
    assert ids(await sale.queue.claim(lease=60)) == ["4"]
    assert await sale.queue.claim(lease=60, timeout=0) == []


async def test_a_part_that_is_buried_leaves_the_others_claimed(shop: Shop) -> None:
    sale = await bought(shop, 3)
    claims = await sale.queue.claim(lease=60)
    assert await sale.queue._bury(claims[:1]) == 1
    assert await sale.status("1") is OrderState.DEAD
    assert await sale.queue.ack(claims) == 2


async def test_a_commit_counts_also_after_the_lease_was_lost(shop: Shop) -> None:
    sale = await bought(shop, 4)
    stale = await sale.queue.claim(lease=60)
    shop.end_leases()
    assert len(await sale.queue.claim(lease=60)) == 2
    assert await sale.queue.ack(stale) == 4
    assert not shop.raw.exists(shop.keys.leases, shop.keys.claimed)


async def test_who_slept_longer_than_the_lease_holds_what_nobody_took(shop: Shop) -> None:
    sale = await bought(shop, 4)
    stale = await sale.queue.claim(lease=60)
    shop.end_leases()
    taken = await sale.queue.claim(lease=60)
    assert await sale.queue.extend(stale, lease=60) == 4 - len(taken) == 2
    assert await sale.queue.nack(stale) == 2
    assert await sale.queue.extend(taken, lease=60) == 2


async def test_a_body_with_a_line_break_stays_whole(shop: Shop) -> None:
    sale = await bought(shop, 1)
    shop.raw.lpush(shop.keys.order_list, "two\nlines")
    bodies = [claim.body for claim in await sale.queue.claim(lease=60)]
    assert bodies[1] == b"two\nlines"
    shop.end_leases()
    assert await _everything(shop, sale) == ["1", "two\nlines"]


async def test_long_bodies_stay_by_themselves(shop: Shop) -> None:
    """To split a text of many megabytes would keep Redis busy for seconds."""
    queue = (await bought(shop, 0)).queue
    for length, fields in ((1000, 1), (600_000, 2)):
        shop.raw.lpush(shop.keys.order_list, b"a" * length, b"b" * length)
        claims = await queue.claim(lease=60)
        assert shop.raw.hlen(shop.keys.claimed) == shop.raw.zcard(shop.keys.leases) == fields
        assert await queue.ack(claims) == 2


async def test_what_is_no_claim_overwrites_nothing(shop: Shop) -> None:
    sale = await bought(shop, 3)
    claims = await sale.queue.claim(lease=60)
    assert await sale.queue.extend(claims[:1], lease=60) == 1
    third = shop.raw.hget(shop.keys.claimed, "3")
    shop.raw.hset(shop.keys.claimed, "1+2", "not\nso\nmany")
    shop.raw.zadd(shop.keys.leases, {"1+2": 0})
    assert await sale.queue.claim(lease=60, timeout=0) == []
    assert shop.raw.hget(shop.keys.claimed, "3") == third
    assert await sale.queue.ack(claims) == 3


@pytest.mark.parametrize("name", ["12+", "+2", "0+2", "07+2", "7+0", "7+3", "1234567890123456+2", "7+2+2", "7+-2", "x"])
async def test_what_is_no_claim_holds_nothing_up(shop: Shop, name: str) -> None:
    sale = await bought(shop, 2)
    await sale.queue.claim(lease=60)
    shop.end_leases()
    shop.raw.hset(shop.keys.claimed, name, "none\nof ours")
    shop.raw.zadd(shop.keys.leases, {name: 0})
    found = [await sale.queue.claim(1, lease=60, timeout=0) for _ in range(3)]
    assert sorted(claim.order.order_id for claims in found for claim in claims) == ["1", "2"]
    assert shop.raw.hkeys(shop.keys.claimed).count(name.encode()) == 1


async def test_what_is_split_during_a_scan_is_found(real_shop: Shop) -> None:
    """The fields of its elements may lie where the scan has been."""
    shop, ids = real_shop, sorted(str(n) for n in range(2400))
    queue = (await bought(shop, 0)).queue
    shop.raw.lpush(shop.keys.order_list, *(order(name).to_json() for name in ids))
    shop.raw.hset(shop.keys.meta, "layout", 1)
    assert [len(await queue.claim(1000, lease=60)) for _ in range(2)] == [1000, 1000]
    shop.raw.hset(shop.keys.meta, "layout", 2)
    shared = [await queue.claim(20, lease=60) for _ in range(20)]
    found: list[str] = []

    def see(seen: Order) -> bool:
        if not found:
            OrderQueue(shop.raw, "spring").extend([claims[0] for claims in shared])
        found.append(seen.order_id)
        return False

    assert await queue._claims(see) == []
    assert sorted(found) == ids


async def test_a_sale_in_layout_1_stays_in_it(shop: Shop) -> None:
    """The release before reads no other."""
    sale = await bought(shop, 3)
    shop.raw.hset(shop.keys.meta, "layout", 1)
    await sale.queue.claim(lease=60)
    assert sorted(shop.raw.hkeys(shop.keys.claimed)) == [b"1", b"2", b"3"]
    assert shop.raw.zrange(shop.keys.leases, 0, -1) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("layouts", [(1, 2), (2, 1)])
async def test_both_layouts_are_drained_in_one_sale(shop: Shop, layouts: tuple[int, int]) -> None:
    sale = await bought(shop, 6)
    for layout in layouts:
        shop.raw.hset(shop.keys.meta, "layout", layout)
        assert len(await sale.queue.claim(3, lease=60)) == 3
    assert await _claimed_by_status(sale) == 6
    assert await _everything(shop, sale) == ["1", "2", "3", "4", "5", "6"]


async def test_one_claim_splits_no_more_than_it_may_take(shop: Shop) -> None:
    """However many workers died: Redis is not kept busy for long."""
    sale = await bought(shop, 9)
    for _ in range(3):
        await sale.queue.claim(3, lease=60)
    shop.end_leases()
    assert len(await sale.queue.claim(3, lease=60)) == 1
    assert sorted(len(name.split(b"+")) for name in shop.raw.hkeys(shop.keys.claimed)) == [1, 1, 1, 2, 2]
    assert await _everything(shop, sale) == [str(n) for n in range(1, 10)]


async def test_a_claim_whose_text_is_lost_is_forgotten(shop: Shop) -> None:
    sale = await bought(shop, 3)
    await sale.queue.claim(2, lease=60)
    shop.raw.delete(shop.keys.claimed)
    shop.end_leases()
    assert ids(await sale.queue.claim(lease=60)) == ["3"]
    assert shop.raw.zcard(shop.keys.leases) == 1


async def test_a_text_without_its_lease_is_worked_on_as_a_part(shop: Shop) -> None:
    sale = await bought(shop, 3)
    claims = await sale.queue.claim(lease=60)
    shop.raw.delete(shop.keys.leases)
    assert await sale.queue.ack(claims[:1]) == 1
    assert await sale.queue.claim(lease=60, timeout=0) == []  # it gives both of the others a lease
    assert leased(shop.raw, shop.keys) == 2
    assert await _everything(shop, sale) == ["2", "3"]


async def test_an_order_is_found_in_a_claim(shop: Shop) -> None:
    sale = await bought(shop, 3)
    await sale.queue.claim(lease=60)
    ((claim, ends),) = await sale.queue._claims(lambda found: found.order_id == "2")
    assert (claim.order.order_id, claim.attempts) == ("2", 1)
    assert ends == shop.raw.zrange(shop.keys.leases, 0, -1, withscores=True)[0][1]
    assert await sale.queue.nack([claim]) == 1


async def test_numbers_never_name_two_elements(shop: Shop) -> None:
    """What was split keeps its numbers, and later claims count on."""
    sale = await bought(shop, 3)
    first = await sale.queue.claim(lease=60)
    await sale.queue.nack(first[:1])
    await sale.inventory.reserve([order("4"), order("5")])
    again = await sale.queue.claim(lease=60)
    assert ids(again) == ["1", "4", "5"]
    assert len({claim.token.partition("-")[0] for claim in [*first, *again]}) == 5


@promises(
    {
        "the split of a lost claim": test_a_commit_counts_also_after_the_lease_was_lost,
        "the bound of splits": test_one_claim_splits_no_more_than_it_may_take,
        "bodies of one line": test_a_body_with_a_line_break_stays_whole,
        "the bound of a claim's text": test_long_bodies_stay_by_themselves,
        "as many lines as the name says": test_what_is_no_claim_overwrites_nothing,
        "the second scan of what is claimed": test_what_is_split_during_a_scan_is_found,
        "layout 1 where it was begun": test_a_sale_in_layout_1_stays_in_it,
        "the rest of an acknowledged claim": test_a_part_that_is_acknowledged_leaves_the_others_claimed,
        "the ack of a claim that was split": test_a_commit_counts_also_after_the_lease_was_lost,
        "the extension of a claim that was split": test_who_slept_longer_than_the_lease_holds_what_nobody_took,
        "the split before an extension": test_a_part_that_is_extended_outlives_the_others,
        "the split before a refusal": test_a_part_that_is_refused_comes_back_alone,
        "the split before a burial": test_a_part_that_is_buried_leaves_the_others_claimed,
        "claims are counted by element": test_a_claim_has_one_lease_and_one_text,
    },
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


@kills("what is no claim makes room")
async def test_without_room_what_is_no_claim_holds_all_up(sync_shop: Shop) -> None:
    await test_what_is_no_claim_holds_nothing_up(sync_shop, "7+3")
