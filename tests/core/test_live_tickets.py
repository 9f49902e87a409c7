"""One live ticket of a buyer and an item with a cap, whatever the buyer asks for, and however often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Admission, CorruptState, Goods, InvalidRequest, InvalidTicket, Outcome, Tickets
from tests.core.test_sale import slots
from tests.support.helpers import inside, settled, snapshot, until
from tests.support.mutants import promises
from tests.support.sales import work

if TYPE_CHECKING:
    import redis

    from tests.support.helpers import Shop

TICKETS = Tickets({"a": b"s" * 32})


async def capped(shop: Shop, total: int = 10, *, redis_count: int = 1, cap: int | None = 1, **settings: Any) -> Any:
    """A sale with tickets, loaded by its syncer and started."""
    elsewhere = {"gate_client": shop.client(db=1)} if redis_count == 2 else {}
    settings = {"cache_for": 0, "store": await shop.store(Goods("phone", total, per_buyer=cap))} | elsewhere | settings
    sale = shop.sale(tickets=TICKETS, **settings)
    await shop.syncer(sale).run_once()
    await sale.start("phone")
    return sale


def kept(shop: Shop, *, redis_count: int = 1) -> dict[bytes, bytes]:
    """The tickets at the gate."""
    return gate(shop, redis_count).hgetall(shop.keys.tickets("phone"))


def gate(shop: Shop, redis_count: int) -> redis.Redis:
    return shop.raw if redis_count == 1 else shop.backend.raw(db=1)


def expire(shop: Shop, *buyers: str) -> None:
    """Lets tickets expire, as time would."""
    key = shop.keys.tickets("phone")
    for buyer in buyers:
        _, _, rest = shop.raw.hget(key, buyer).partition(b"|")
        shop.raw.hset(key, buyer, b"1.000000|" + rest)


# -- the cap --------------------------------------------------------------------------------------------------------


async def more_than_the_cap(shop: Shop) -> None:
    sale = await capped(shop, 3)
    for _ in range(3):
        greedy = await sale.enter("phone", "greedy", 3)
        assert (greedy.outcome, greedy.remaining, greedy.ticket) == (Outcome.LIMIT_REACHED, 3, None)
        assert not (await sale.enter("phone", "greedy", 100)).admitted
    assert await slots(sale) == 0
    assert [(await sale.enter("phone", buyer)).admitted for buyer in ("ann", "bob", "cleo")] == [True] * 3


async def test_more_than_the_cap_is_refused(shop: Shop) -> None:
    await more_than_the_cap(shop)


async def test_the_cap_comes_by_preload_and_changes_with_the_row(shop: Shop) -> None:
    sale = await shop.open(9, sale=shop.sale(tickets=TICKETS, cache_for=0), per_buyer=1)
    assert (await sale.enter("phone", "ann", 2)).outcome is Outcome.LIMIT_REACHED
    store = await shop.store(Goods("phone", 9, per_buyer=2))
    synced = shop.sale(tickets=TICKETS, cache_for=0, store=store)
    await shop.syncer(synced).run_once()
    assert (await sale.enter("phone", "ann", 2)).admitted
    assert (await sale.enter("phone", "bob", 3)).outcome is Outcome.LIMIT_REACHED
    await store.put_goods(Goods("phone", 9), replace=True)
    await shop.syncer(synced).run_once()
    assert (await sale.enter("phone", "bob", 3)).admitted


async def test_a_rebuild_and_a_lost_window_bring_the_cap_back(shop: Shop) -> None:
    sale = await capped(shop)
    syncer = shop.syncer(sale)
    await syncer.rebuild()
    await sale.start("phone")
    assert (await sale.enter("phone", "ann", 2)).outcome is Outcome.LIMIT_REACHED
    shop.raw.delete(shop.keys.window("phone"))
    await syncer.run_once()
    assert (await sale.enter("phone", "ann", 2)).outcome is Outcome.LIMIT_REACHED


async def test_without_a_cap_there_is_no_limit_and_nothing_is_kept(shop: Shop) -> None:
    sale = await capped(shop, cap=None)
    entries = [await sale.enter("phone", "ann", units) for units in (1, 1, 5)]
    assert len({entry.order_id for entry in entries}) == 3
    assert (await slots(sale), kept(shop)) == (7, {})
    assert (await sale.buy("phone", "ann", 5, ticket=entries[2].ticket)).accepted


# -- one ticket -----------------------------------------------------------------------------------------------------


async def the_same_ticket(shop: Shop, redis_count: int = 1) -> None:
    sale = await capped(shop, cap=3, redis_count=redis_count)
    first = await sale.enter("phone", "ann", 2)
    for order_id in (None, first.order_id):
        again = await sale.enter("phone", "ann", 2, order_id=order_id)
        assert (again.admitted, again.order_id, TICKETS.read(again.ticket).quantity) == (True, first.order_id, 2)
    for field, quantity, order_id in (("quantity", 1, None), ("quantity", 3, None), ("order_id", 2, "another")):
        with pytest.raises(InvalidRequest) as caught:
            await sale.enter("phone", "ann", quantity, order_id=order_id)
        assert caught.value.field == field
    assert await slots(sale) == 2
    assert (await sale.enter("phone", "bob")).order_id != first.order_id
    assert (await sale.buy("phone", "ann", 2, ticket=again.ticket)).order_id == first.order_id
    assert (await sale.buy("phone", "ann", 2, ticket=first.ticket)).replayed
    assert await slots(sale) == 3


@pytest.mark.parametrize("redis_count", [1, 2])
async def test_entering_again_returns_the_same_ticket_and_takes_no_slot(shop: Shop, redis_count: int) -> None:
    await the_same_ticket(shop, redis_count)


async def a_used_one(shop: Shop, redis_count: int = 1) -> None:
    sale = await capped(shop, cap=2, redis_count=redis_count)
    first = await sale.enter("phone", "ann", order_id="o-1")
    assert (await sale.buy("phone", "ann", ticket=first.ticket)).accepted
    assert (await sale.enter("phone", "ann", order_id="o-1")).order_id == "o-1"  # a double click: the order replays
    second = await sale.enter("phone", "ann")
    assert (second.order_id != "o-1", await slots(sale)) == (True, 2)
    assert (await sale.enter("phone", "ann")).order_id == second.order_id
    assert (await sale.buy("phone", "ann", ticket=second.ticket)).accepted
    for order_id in ("o-1", second.order_id) * 2:  # an order that exists gets no slot, in turns neither
        shown = (await sale.enter("phone", "ann", order_id=order_id)).ticket
        assert (await sale.buy("phone", "ann", ticket=shown)).replayed
    assert await slots(sale) == 2
    third = await sale.enter("phone", "ann")
    assert (await sale.buy("phone", "ann", ticket=third.ticket)).outcome is Outcome.LIMIT_REACHED
    await work(shop, sale)
    await sale.cancel("o-1")
    again = await sale.enter("phone", "ann")
    assert again.order_id == third.order_id  # what the stock refused is not used
    assert (await sale.buy("phone", "ann", ticket=again.ticket)).accepted


@pytest.mark.parametrize("redis_count", [1, 2])
async def test_a_used_ticket_makes_room_for_a_new_one_also_when_its_order_was_cancelled(
    shop: Shop, redis_count: int
) -> None:
    await a_used_one(shop, redis_count)


async def an_expired_one(shop: Shop) -> None:
    sale = await capped(shop)
    first = await sale.enter("phone", "ann")
    ends = float(kept(shop)[b"ann"].split(b"|")[0])
    assert 100 < ends - await settled(sale.real._ledger.time()) <= 120
    expire(shop, "ann")
    second = await sale.enter("phone", "ann")
    assert second.admitted and second.order_id != first.order_id
    assert (await sale.enter("phone", "ann")).order_id == second.order_id


async def test_an_expired_ticket_makes_room_for_a_new_one(shop: Shop) -> None:
    await an_expired_one(shop)


async def test_a_ticket_that_is_given_again_expires_when_it_would_have(shop: Shop) -> None:
    sale = await capped(shop)
    first = TICKETS.read((await sale.enter("phone", "ann")).ticket)
    key = shop.keys.tickets("phone")
    ends, _, rest = shop.raw.hget(key, "ann").partition(b"|")
    shop.raw.hset(key, "ann", b"%.6f|%b" % (float(ends) - 60, rest))
    again = TICKETS.read((await sale.enter("phone", "ann")).ticket)
    assert first.expires_at - 61 <= again.expires_at < first.expires_at


async def the_last_unit(shop: Shop) -> None:
    sale = await capped(shop, 1, cache_for=1000)
    first = await sale.enter("phone", "ann")
    assert (await sale.enter("phone", "bob")).outcome is Outcome.SOLD_OUT
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT  # remembered
    assert (await sale.enter("phone", "ann")).order_id == first.order_id


async def test_the_ticket_for_the_last_unit_is_given_again(shop: Shop) -> None:
    await the_last_unit(shop)


async def test_a_refusal_is_remembered_for_buyers_too_while_nobody_has_a_ticket(shop: Shop) -> None:
    sale = await capped(shop, 1, cache_for=1000)
    refusals = sale.real.gate._refusals
    assert (await sale.gate.enter("phone")).admitted
    for _ in range(3):
        assert (await sale.enter("phone", "bob")).outcome is Outcome.SOLD_OUT
    assert refusals.of("phone").given == 2
    await sale.stop("phone")
    for _ in range(3):
        assert (await sale.enter("phone", "bob")).outcome is Outcome.NOT_STARTED
    assert refusals.of("phone").given == 2


async def test_callers_at_the_same_time_get_one_ticket(real_shop: Shop) -> None:
    sale = await capped(real_shop, 100)
    buyers = [f"b-{number % 5}" for number in range(100)]
    entries = await asyncio.gather(*(sale.enter("phone", buyer) for buyer in buyers))
    given = {(buyer, entry.order_id) for buyer, entry in zip(buyers, entries, strict=True)}
    assert (len(given), await slots(sale)) == (5, 5)


async def test_a_buyer_who_goes_away_keeps_the_ticket_of_an_item_with_a_cap(real_shop: Shop) -> None:
    """Without a cap nobody else could use it: its slot returns. A thread cannot be cancelled."""
    if not real_shop.is_async:
        pytest.skip("a thread cannot be cancelled")
    for cap in (1, None):
        real_shop.raw.flushdb()
        sale = await real_shop.open(50, sale=real_shop.sale(tickets=TICKETS, cache_for=0), per_buyer=cap)
        held = 0
        for hops in range(1, 20):
            task = asyncio.create_task(sale.enter("phone", "ann"))
            for _ in range(hops):
                await asyncio.sleep(0)
            task.cancel()
            held += isinstance((await asyncio.gather(task, return_exceptions=True))[0], Admission)
        if cap is not None:
            held = int((await sale.enter("phone", "ann")).admitted)
        await until(lambda: int(real_shop.raw.get(real_shop.keys.access("phone"))) == held, "the slots back")  # noqa: B023


# -- what is kept ---------------------------------------------------------------------------------------------------


async def swept(shop: Shop) -> None:
    sale = await capped(shop)
    syncer = shop.syncer(sale)
    tickets = {buyer: await sale.enter("phone", buyer) for buyer in ("used", "late", "alive")}
    assert (await sale.buy("phone", "used", ticket=tickets["used"].ticket)).accepted
    expire(shop, "late")
    shop.raw.hset(shop.keys.tickets("phone"), "garbage", "garbage")
    await syncer.run_once()
    assert set(kept(shop)) == {b"alive"}
    assert (await sale.enter("phone", "alive")).order_id == tickets["alive"].order_id


async def test_the_syncer_removes_dead_tickets(shop: Shop) -> None:
    await swept(shop)


async def test_a_used_ticket_at_another_redis_is_removed_when_it_expires(shop: Shop) -> None:
    sale = await capped(shop, redis_count=2)
    syncer, key = shop.syncer(sale), shop.keys.tickets("phone")
    assert (await sale.buy("phone", "ann", ticket=(await sale.enter("phone", "ann")).ticket)).accepted
    await syncer.run_once()
    assert kept(shop, redis_count=2)
    gate(shop, 2).hset(key, "ann", "1.000000|1|o-1")
    await syncer.run_once()
    assert not kept(shop, redis_count=2)


async def test_a_pass_looks_at_so_many_tickets_and_the_next_one_goes_on(
    real_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside(real_shop.api, "syncer"), "SWEEPS", 1)
    sale = await capped(real_shop)
    syncer, key = real_shop.syncer(sale), real_shop.keys.tickets("phone")
    real_shop.raw.hset(key, mapping={f"b-{number}": f"1.000000|1|o-{number}" for number in range(2000)})
    left = []
    while not left or left[-1]:
        await syncer.run_once()
        left.append(real_shop.raw.hlen(key))
    assert left[0] > 1000
    assert len(left) < 10


async def test_a_lost_key_is_one_more_ticket_for_a_buyer(shop: Shop) -> None:
    sale = await capped(shop)
    first = await sale.enter("phone", "ann")
    shop.raw.delete(shop.keys.tickets("phone"))
    second = await sale.enter("phone", "ann")
    assert second.order_id != first.order_id
    assert (await sale.buy("phone", "ann", ticket=first.ticket)).accepted
    assert (await sale.buy("phone", "ann", ticket=second.ticket)).outcome is Outcome.LIMIT_REACHED


async def test_what_somebody_else_wrote_stops_only_its_item(shop: Shop) -> None:
    sale = await capped(shop)
    await shop.open(5, goods_id="case", sale=sale, per_buyer=1)
    shop.raw.hset(shop.keys.window("phone"), "per_buyer", "many")
    for found in ((), ("phone",)):
        asked = (sale.enter(goods_id, "ann") for goods_id in ("phone", "case"))
        broken, other = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(broken, CorruptState)
        assert other.admitted
        assert (await shop.syncer(sale).run_once()).corrupt == found
        shop.raw.set(shop.keys.tickets("phone"), "no hash")
    shop.raw.delete(shop.keys.tickets("phone"))
    assert (await sale.enter("phone", "ann")).admitted


async def test_a_purge_removes_the_tickets(shop: Shop) -> None:
    sale = await capped(shop)
    await sale.enter("phone", "ann")
    await shop.syncer(sale).purge()
    assert shop.raw.keys("*") == []


# -- nobody without a ticket ----------------------------------------------------------------------------------------


async def a_ticket_is_required(shop: Shop) -> None:
    sale = await shop.open(5, sale=shop.sale(tickets=Tickets({"a": b"s" * 32}, required=True)))
    before = snapshot(shop.raw)
    for attempt in (
        lambda: sale.buy("phone", "ann"),
        lambda: sale.buy("phone", "ann", order_id="o-1"),
        lambda: sale.buy_basket("ann", [("phone", 1)]),
    ):
        with pytest.raises(InvalidTicket, match="missing"):
            await attempt()
    assert snapshot(shop.raw) == before
    assert (await sale.buy("phone", "ann", ticket=(await sale.enter("phone", "ann")).ticket)).accepted


async def test_where_tickets_are_required_nobody_buys_without_one(shop: Shop) -> None:
    await a_ticket_is_required(shop)


@promises(
    {
        "the cap of a ticket": more_than_the_cap,
        "the cap that the gate has": test_the_cap_comes_by_preload_and_changes_with_the_row,
        "one live ticket": the_same_ticket,
        "the end of a ticket": an_expired_one,
        "a used ticket blocks nobody": a_used_one,
        "an order has one slot": a_used_one,
        "a ticket outlives the last unit": the_last_unit,
        "dead tickets are removed": swept,
        "a purchase takes a ticket": a_ticket_is_required,
    }
)
async def test_without_its_mechanism_a_buyer_gets_more_or_nothing(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
