"""`OrderQueue`: the article's LPUSH and BRPOP, and claims that survive whoever holds them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import CorruptState, InvalidRequest, NotExecuted, Order, OrderState
from flashsale.model.orders import read_orders
from tests.support import servers
from tests.support.helpers import Shop, clock, order, settled, snapshot, until
from tests.support.mutants import kills, promises

if TYPE_CHECKING:
    from pathlib import Path

    from flashsale import Claim

UNREADABLE = {
    "not UTF-8": b"\xff\xfe{}",
    "not JSON": b"hello",
    "no object": b"[1]",
    "no order": b"{}",
    "without a quantity": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann"}',
    "a bad id": b'{"order_id":"a b","goods_id":"phone","buyer_id":"ann","quantity":1}',
    "a bad quantity": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":-1}',
    "a float quantity": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":1.0}',
    "a bool quantity": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":true}',
    "NaN": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":NaN}',
    "a time past all floats": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":1,"created_at":1'
    + b"0" * 400
    + b"}",
    "a number past all ints": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":1,"data":'
    + b"1" * 10_000
    + b"}",
    "an infinite time": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":1,"created_at":1e999}',
    "1 MB": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":1,"data":"' + b"x" * 1_000_000 + b'"}',
    "100,000 brackets": b"[" * 100_000,
    "deep": b'{"order_id":"a","goods_id":"phone","buyer_id":"ann","quantity":1,"data":' + b"[" * 33 + b"]" * 33 + b"}",
    "quotes without end": b'"' + b'\\"' * 32_000,
    "a lone surrogate as id": b'{"order_id":"\\ud800","goods_id":"phone","buyer_id":"ann","quantity":1}',
    "empty": b"",
    "NUL": b"\0",
}


async def bought(shop: Shop, count: int = 3) -> Any:
    """Returns a sale with this many orders on its list: 1, 2, 3, ..."""
    sale = await shop.open(100)
    await sale.inventory.reserve([order(n + 1, buyer_id=f"buyer-{n}") for n in range(count)])
    return sale


async def wear_out(shop: Shop, queue: Any) -> None:
    """Claims what there is, again and again, until it is among the dead."""
    while shop.raw.exists(shop.keys.order_list, shop.keys.claimed):
        await queue.claim(lease=60, timeout=0)
        shop.end_leases()


def ids(claims: list[Claim]) -> list[str]:
    return [claim.order.order_id for claim in claims]


# -- LPUSH and BRPOP ------------------------------------------------------------------------------------------------


async def test_push_and_pop_are_first_in_first_out(shop: Shop) -> None:
    queue = shop.queue()
    before = clock(shop.raw)
    assert [await queue.push(order(n, data=[n])) for n in range(3)] == [1, 2, 3]
    assert await queue.size() == 3
    popped = [await queue.pop(0) for _ in range(3)]
    assert [found.order_id for found in popped] == ["0", "1", "2"]
    assert [found.data for found in popped] == [[0], [1], [2]]
    assert all(before <= found.created_at <= clock(shop.raw) for found in popped)
    assert await queue.size() == 0


async def test_push_puts_the_order_on_the_list_and_deducts_nothing(shop: Shop) -> None:
    sale = await shop.open(5)
    await sale.queue.push(order(created_at=7.25))
    assert (await sale.inventory.stock("phone")).booked == 0
    (body,) = shop.raw.lrange(shop.keys.order_list, 0, -1)
    assert json.loads(body) == {
        "created_at": 7.25,
        "order_id": "o-1",
        "goods_id": "phone",
        "buyer_id": "ann",
        "quantity": 1,
    }


async def test_ids_with_quotes_and_backslashes_come_back(shop: Shop) -> None:
    queue = shop.queue()
    odd = order('"\\|}{', buyer_id="a|b'\\\"")
    await queue.push(odd)
    found = await queue.pop(0)
    assert (found.order_id, found.buyer_id) == (odd.order_id, odd.buyer_id)


async def test_pop_answers_at_once_when_told(shop: Shop) -> None:
    assert await shop.queue().pop(0) is None
    assert await shop.queue().pop(timeout=0.05) is None


async def test_pop_waits_for_an_order(shop: Shop) -> None:
    queue, other = shop.queue(), shop.queue()
    waiting = asyncio.create_task(queue.pop())
    await asyncio.sleep(0.05)
    await other.push(order())
    assert (await waiting).order_id == "o-1"


async def test_waits_longer_than_the_socket_timeout(real_shop: Shop) -> None:
    """A blocking read past the socket's timeout would fail, and an order popped meanwhile would be lost."""
    shop = real_shop
    queue = shop.make(
        "OrderQueue", shop.client(socket_timeout=2.0), "spring"
    )  # not less: a busy machine takes its time
    assert await asyncio.gather(queue.pop(timeout=2.5), queue.claim(timeout=2.5)) == [None, []]


async def test_what_pop_cannot_read_is_an_error_and_gone(shop: Shop) -> None:
    shop.raw.lpush(shop.keys.order_list, b"\xff")
    queue = shop.queue()
    with pytest.raises(InvalidRequest):
        await queue.pop(0)
    assert await queue.pop(0) is None


# -- claims ---------------------------------------------------------------------------------------------------------


async def test_claims_come_oldest_first_and_stay_with_their_holder(shop: Shop) -> None:
    sale = await bought(shop)
    claims = await sale.queue.claim(2)
    assert ids(claims) == ["1", "2"]
    assert [claim.attempts for claim in claims] == [1, 1]
    assert [Order.from_json(claim.body) for claim in claims] == [claim.order for claim in claims]
    assert ids(await sale.queue.claim(2)) == ["3"]
    assert await sale.queue.claim(timeout=0) == []
    assert await sale.queue.size() == 0  # claims are not on the list


async def test_an_acknowledged_order_is_persisted_and_gone(shop: Shop) -> None:
    sale = await bought(shop)
    claims = await sale.queue.claim()
    assert await sale.queue.ack(claims) == 3
    assert await sale.queue.ack(claims) == 0
    assert [await sale.status(str(n)) for n in (1, 2, 3)] == [OrderState.PERSISTED] * 3
    assert not shop.raw.exists(shop.keys.leases, shop.keys.claimed, shop.keys.order_list)


async def test_a_record_that_became_corrupt_is_not_made_persisted(shop: Shop) -> None:
    sale = await shop.open()
    await sale.inventory.reserve([order("a")])
    claims = await sale.queue.claim()
    shop.raw.hset(shop.keys.orders, "a", "QUEUED|1.0|0|phone|1|ann")
    assert await sale.queue.ack(claims) == 1
    assert shop.raw.hget(shop.keys.orders, "a") == b"QUEUED|1.0|0|phone|1|ann"


def ends_soon(shop: Shop, seconds: float) -> None:
    """The one lease or delay is of so many seconds; its end is brought near, so that nobody waits that long."""
    ((delivery, end),) = shop.raw.zrange(shop.keys.leases, 0, -1, withscores=True)
    now = clock(shop.raw)
    assert now + seconds - 30 < end <= now + seconds
    shop.raw.zadd(shop.keys.leases, {delivery: now + 0.02})


async def test_a_lease_ends_by_the_clock_of_redis(shop: Shop) -> None:
    sale = await bought(shop, 1)
    (first,) = await sale.queue.claim(lease=60)
    assert await sale.queue.claim(timeout=0) == []
    ends_soon(shop, 60)
    (again,) = await until(lambda: sale.queue.claim(timeout=0), "the end of the lease")
    assert (again.order, again.attempts) == (first.order, 1)  # nobody refused it
    assert again.token != first.token


async def test_a_commit_counts_also_after_the_lease(shop: Shop) -> None:
    sale = await bought(shop, 1)
    stale = await sale.queue.claim(lease=60)
    shop.end_leases()
    await sale.queue.claim(lease=60)
    assert await sale.queue.ack(stale) == 1
    assert await sale.status("1") is OrderState.PERSISTED
    shop.end_leases()
    assert await sale.queue.claim(timeout=0) == []


async def test_extended_claims_stay_with_their_holder(shop: Shop) -> None:
    sale = await bought(shop, 1)
    claims = await sale.queue.claim(lease=5)
    assert await sale.queue.extend(claims, lease=60) == 1
    ends = shop.raw.zrange(shop.keys.leases, 0, -1, withscores=True)[0][1]
    assert ends > clock(shop.raw) + 50


async def test_a_claim_let_go_comes_back_after_its_delay(shop: Shop) -> None:
    sale = await bought(shop, 1)
    claims = await sale.queue.claim()
    assert await sale.queue.nack(claims, delay=90) == 1
    assert await sale.queue.claim(timeout=0) == []
    ends_soon(shop, 90)
    (again,) = await until(lambda: sale.queue.claim(timeout=0), "the delay")
    assert again.attempts == 2


async def test_an_attempt_that_was_nobodys_fault_does_not_count(shop: Shop) -> None:
    sale = await bought(shop, 1)
    for _ in range(10):
        (claim,) = await sale.queue.claim()
        assert claim.attempts == 1
        assert await sale.queue.nack([claim], count_attempt=False) == 1


async def test_a_zombie_can_neither_let_go_nor_hold_on(shop: Shop) -> None:
    """Its lease ended and another one has the claim."""
    sale = await bought(shop, 1)
    zombies = await sale.queue.claim(lease=60)
    shop.end_leases()
    (ours,) = await sale.queue.claim(lease=60)
    before = snapshot(shop.raw)
    assert await sale.queue.nack(zombies) == 0
    assert await sale.queue.extend(zombies, lease=600) == 0
    assert await sale.queue._bury(zombies) == 0
    assert snapshot(shop.raw) == before
    assert await sale.queue.nack([ours]) == 1


async def test_a_claim_let_go_is_nobodys_to_let_go_again(shop: Shop) -> None:
    sale = await bought(shop, 1)
    claims = await sale.queue.claim()
    await sale.queue.nack(claims, delay=60)
    before = snapshot(shop.raw)
    assert await sale.queue.nack(claims) == 0
    assert await sale.queue.extend(claims) == 0
    assert snapshot(shop.raw) == before


async def test_a_waiting_worker_is_woken(shop: Shop) -> None:
    queue, other = shop.queue(), shop.queue()
    waiting = asyncio.create_task(queue.claim(timeout=15))
    await asyncio.sleep(0.05)
    await other.push(order())
    assert ids(await waiting) == ["o-1"]


async def test_what_a_external_program_pushed_is_claimed_without_a_bell(shop: Shop) -> None:
    queue = shop.queue()
    waiting = asyncio.create_task(queue.claim(timeout=15))
    await asyncio.sleep(0.05)
    shop.raw.lpush(shop.keys.order_list, order().to_json())
    assert ids(await waiting) == ["o-1"]


async def test_the_bell_never_grows(shop: Shop) -> None:
    sale = await bought(shop, 3)
    for n in range(3):
        await sale.queue.push(order(f"p-{n}"))
    await sale.queue.claim(1)
    assert shop.raw.llen(shop.keys.wakeup) == 1


async def test_many_consumers_share_the_list_without_overlap(shop: Shop) -> None:
    sale = await bought(shop, 100)
    batches = await asyncio.gather(*(sale.queue.claim(15, timeout=0) for _ in range(10)))
    assert sorted(int(order_id) for batch in batches for order_id in ids(batch)) == list(range(1, 101))


async def test_a_claim_begins_at_the_right_end_of_a_long_list(real_shop: Shop) -> None:
    """On Redis 6.2, a range of the list and several elements at once are looked for from the left end."""
    sale = await real_shop.open(10_000)
    await sale.inventory.reserve([order(n + 1, buyer_id=f"buyer-{n}") for n in range(2000)])

    async def calls(limit: int) -> list[int]:
        real_shop.raw.config_resetstat()
        assert len(await sale.queue.claim(limit)) == limit
        stats: Any = real_shop.raw.info("commandstats")
        return [stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("lrange", "rpop")]

    real_shop.raw.config_resetstat()
    assert (await settled(sale._recorder.look())).oldest is not None
    assert "cmdstat_lrange" not in real_shop.raw.info("commandstats")
    assert await calls(4) == [0, 4]
    assert await calls(100) == [0, 1]
    assert ids(await sale.queue.claim(3)) == ["105", "106", "107"]
    assert ids(await sale.queue.claim(200)) == [str(n) for n in range(108, 308)]


# -- the dead -------------------------------------------------------------------------------------------------------


async def test_after_five_attempts_an_order_is_dead_and_keeps_its_units(shop: Shop) -> None:
    sale = await bought(shop, 1)
    for attempt in range(1, 6):
        (claim,) = await sale.queue.claim(lease=60)
        assert claim.attempts == attempt
        await sale.queue.nack([claim])
    assert await sale.queue.claim(timeout=0) == []
    (dead,) = await sale.queue.dead()
    assert (dead.order, dead.body) == (claim.order, claim.body)
    assert await sale.status("1") is OrderState.DEAD
    assert (await sale.inventory.stock("phone")).booked == 1
    shop.end_leases()
    assert await sale.queue.claim(timeout=0) == []


async def test_the_dead_rise_again_with_new_attempts(shop: Shop) -> None:
    sale = await bought(shop, 2)
    await wear_out(shop, sale.queue)
    assert await sale.queue.requeue_dead() == 2
    assert await sale.queue.dead() == []
    assert [await sale.status(str(n)) for n in (1, 2)] == [OrderState.QUEUED] * 2
    claims = await sale.queue.claim()
    assert sorted(ids(claims)) == ["1", "2"]
    assert [claim.attempts for claim in claims] == [1, 1]
    assert await sale.queue.requeue_dead() == 0
    await sale.queue.ack(claims)
    assert [await sale.status(str(n)) for n in (1, 2)] == [OrderState.PERSISTED] * 2
    assert (await sale.inventory.stock("phone")).booked == 2


async def test_chosen_dead_letters_are_queued_again_and_no_others(shop: Shop) -> None:
    sale = await bought(shop, 3)
    await wear_out(shop, sale.queue)
    assert list(await sale.queue._dead_letters(["3", "1", "4"])) == ["1", "3"]
    assert await sale.queue.requeue_dead(["3", "4"]) == 1
    assert sorted(ids(await sale.queue.dead())) == ["1", "2"]
    assert [await sale.status(str(n)) for n in (1, 2, 3)] == ["DEAD", "DEAD", "QUEUED"]
    assert await sale.queue.requeue_dead([]) == 0


async def test_a_dead_order_can_be_cancelled_and_returns_its_units_once(shop: Shop) -> None:
    sale = await shop.open(5, store=True)
    await sale.inventory.reserve([order(quantity=2)])
    await wear_out(shop, sale.queue)
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    assert (await sale.inventory.stock("phone")).booked == 0
    assert await sale.queue.dead() == []
    assert await sale.queue.requeue_dead() == 0
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    assert (await sale.inventory.stock("phone")).booked == 0


async def test_the_dead_are_listed_up_to_a_limit(shop: Shop) -> None:
    sale = await bought(shop, 5)
    await wear_out(shop, sale.queue)
    assert len(await sale.queue.dead(3)) == 3
    assert sorted(ids(await sale.queue.dead())) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_unreadable_element_is_claimed_without_an_order(shop: Shop, body: bytes) -> None:
    queue = shop.queue()
    shop.raw.lpush(shop.keys.order_list, body)
    (claim,) = await queue.claim()
    assert (claim.order, claim.body) == (None, body)
    assert await queue._bury([claim]) == 1
    assert [dead.body for dead in await queue.dead()] == [body]
    assert await queue.requeue_dead() == 1
    assert shop.raw.lrange(shop.keys.order_list, 0, -1) == [body]


def _plain(order_id: str = "o-1", goods_id: str = "phone", quantity: str = "1", created_at: str = "7.25") -> bytes:
    ids = f'"order_id":"{order_id}","goods_id":"{goods_id}","buyer_id":"ann"'
    return f'{{"created_at":{created_at},{ids},"quantity":{quantity}}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        _plain(),
        _plain(order_id="o" * 128, goods_id="g" * 64, quantity="1000000", created_at="99999999999.999999"),
        _plain(order_id="o" * 129),
        _plain(goods_id="g" * 65),
        _plain(goods_id="a:b"),
        _plain(order_id="a b"),
        _plain(order_id="\\u0041"),
        _plain(order_id='\\"'),
        _plain(order_id="\u00e9"),
        _plain(order_id=""),
        _plain(quantity="0"),
        _plain(quantity="01"),
        _plain(quantity="1000001"),
        _plain(quantity="\u0661"),
        _plain(quantity="1.0"),
        _plain(created_at="100000000000.5"),
        _plain(created_at="1e5"),
        _plain(created_at="1e400"),
        _plain(created_at="-1.5"),
        _plain(created_at="00.5"),
        _plain(created_at="0.5"),
        _plain(created_at="7."),
        _plain(created_at="7." + "1" * 70_000),
        _plain(created_at="7"),
        _plain() + b"\n",
        b" " + _plain(),
        _plain()[:-1] + b',"quantity":2}',
        _plain()[:-1] + b',"data":null}',
    ],
)
def test_the_short_way_to_read_a_body_judges_as_the_long_one(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> Order | None:
        try:
            return Order.from_json(body)
        except InvalidRequest:
            return None

    short, whole = read(), Order.from_json(_plain())
    assert read_orders([body]) == [short]
    assert read_orders([_plain(), body, _plain()]) == [whole, short, whole]
    monkeypatch.setattr("flashsale.model.orders._PLAIN", re.compile("nothing"))
    assert short == read()


def test_two_orders_in_one_element_are_none() -> None:
    """Together with what is no line of ours they are as many lines as there are elements."""
    assert read_orders([_plain() + b"\n" + _plain(), b"junk"]) == [None, None]
    assert read_orders([]) == []


# -- what is not ours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["meta", "order_list", "wakeup", "leases", "claimed"])
async def test_a_key_of_a_wrong_type_stops_a_claim_before_the_first_write(shop: Shop, key: str) -> None:
    sale = await bought(shop, 2)
    await sale.queue.claim(1, lease=60)
    shop.end_leases()
    shop.raw.delete(getattr(shop.keys, key))
    shop.raw.set(getattr(shop.keys, key), "7")
    before = snapshot(shop.raw)
    with pytest.raises(CorruptState):
        await sale.queue.claim()
    assert snapshot(shop.raw) == before


@pytest.mark.parametrize("key", ["leases", "claimed", "orders", "holds"])
async def test_a_key_of_a_wrong_type_stops_an_ack_before_the_first_write(shop: Shop, key: str) -> None:
    sale = await bought(shop, 1)
    claims = await sale.queue.claim()
    shop.raw.delete(getattr(shop.keys, key))
    shop.raw.set(getattr(shop.keys, key), "7")
    before = snapshot(shop.raw)
    with pytest.raises(CorruptState):
        await sale.queue.ack(claims)
    assert snapshot(shop.raw) == before


async def test_a_full_redis_still_drains(tmp_path: Path) -> None:
    """Nothing more is sold, and nothing is half sold; claim, nack and ack go on."""
    from tests.conftest import Backend

    with servers.redis_server(maxmemory_policy="noeviction") as server:
        backend = Backend("redis", decode=False, server=server)
        for api in ("flashsale", "flashsale.aio"):
            shop = Shop(api, backend, tmp_path)
            shop.raw.flushall()
            sale = await bought(shop, 20)
            shop.raw.config_set("maxmemory", 1)
            before = snapshot(shop.raw)
            with pytest.raises(NotExecuted) as caught:
                await sale.buy("phone", "bob", order_id="late")
            assert (caught.value.reason, caught.value.order_id) == ("OOM", "late")
            for refused in (sale.inventory.deduct("phone"), sale.queue.push(order("late")), sale.gate.enter("phone")):
                with pytest.raises(NotExecuted):
                    await refused
            assert snapshot(shop.raw) == before
            claims = await sale.queue.claim(10)
            assert await sale.queue.ack(claims) == 10
            assert await sale.queue.nack(await sale.queue.claim(5)) == 5
            claims = await sale.queue.claim(20)
            assert len(claims) == 10
            assert await sale.queue.ack(claims) == 10
            assert not shop.raw.exists(shop.keys.order_list, shop.keys.claimed)
            shop.raw.config_set("maxmemory", 0)
            assert (await sale.buy("phone", "bob", order_id="late")).accepted
            await shop.close()
        backend.close()


async def test_a_full_redis_extends_leases(tmp_path: Path) -> None:
    """Else whoever saves slowly would be taken for dead; five times, and the order would be a dead letter."""
    from tests.conftest import Backend

    with servers.redis_server(maxmemory_policy="noeviction") as server:
        backend = Backend("redis", decode=False, server=server)
        shop = Shop("flashsale", backend, tmp_path)
        sale = await bought(shop, 20)
        shop.raw.config_set("maxmemory", 1)
        claims = await sale.queue.claim(lease=60)
        for part in (claims, claims[:5], claims):  # with one lease; then each has its own
            assert await sale.queue.extend(part, lease=90) == len(part)
        await shop.close()
        backend.close()


@kills("an extension in a full Redis", by=NotExecuted)
async def test_without_the_first_removal_a_full_redis_extends_nothing(tmp_path: Path) -> None:
    await test_a_full_redis_extends_leases(tmp_path)


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@promises(
    {
        "several elements from the right end": test_a_claim_begins_at_the_right_end_of_a_long_list,
        "the oldest element from the right end": test_a_claim_begins_at_the_right_end_of_a_long_list,
        "the last element from the right end": test_a_claim_begins_at_the_right_end_of_a_long_list,
        "the lease of a claim": test_claims_come_oldest_first_and_stay_with_their_holder,
        "leases are looked at": test_a_lease_ends_by_the_clock_of_redis,
        "the lease of nack": test_a_zombie_can_neither_let_go_nor_hold_on,
        "the lease of extend": test_a_zombie_can_neither_let_go_nor_hold_on,
        "the count of attempts": test_after_five_attempts_an_order_is_dead_and_keeps_its_units,
        "nobody's attempt": test_an_attempt_that_was_nobodys_fault_does_not_count,
        "the delay of an order let go": test_a_claim_let_go_comes_back_after_its_delay,
        "the record of a dead order": test_after_five_attempts_an_order_is_dead_and_keeps_its_units,
    },
    by=(TimeoutError, ValueError),
)
async def test_without_its_mechanism_the_promise_fails(
    sync_shop: Shop, monkeypatch: pytest.MonkeyPatch, promise: Any
) -> None:
    monkeypatch.setattr("tests.support.helpers.PATIENCE", 1.0)
    await promise(sync_shop)
