"""Tickets in a sale: the gate is counted once, the ticket's order is placed once, and nobody else's is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, InvalidRequest, InvalidTicket, OrderConflict, OrderState, Outcome, Tickets, UnknownGoods
from tests.core.test_sale import slots
from tests.core.test_worker import units
from tests.support.helpers import inside, snapshot

if TYPE_CHECKING:
    import redis

    from tests.support.helpers import Shop

SECRETS = {"a": b"s" * 32}


async def ticketed(shop: Shop, total: int = 2, **settings: Any) -> Any:
    return await shop.open(total, sale=shop.sale(tickets=Tickets(SECRETS), **settings))


@pytest.mark.parametrize("redis_count", [1, 2])
async def test_a_ticket_counts_at_the_gate_once(shop: Shop, redis_count: int) -> None:
    elsewhere = {"gate_client": shop.client(db=1)} if redis_count == 2 else {}
    sale = await ticketed(shop, store=await shop.store(Goods("phone", 2)), **elsewhere)
    entry = await sale.enter("phone", "ann")
    assert (entry.outcome, entry.remaining, entry.admitted) == (Outcome.ADMITTED, 1, True)
    assert (await slots(sale), await units(sale)) == (1, 0)
    receipt = await sale.buy("phone", "ann", ticket=entry.ticket)
    assert (receipt.accepted, receipt.order_id) == (True, entry.order_id)
    assert (await slots(sale), await units(sale)) == (1, 1)
    again = await sale.buy("phone", "ann", ticket=entry.ticket)
    assert (again.accepted, again.replayed) == (True, True)
    assert (await slots(sale), await units(sale)) == (1, 1)
    assert await sale.cancel(entry.order_id) is OrderState.CANCELLED
    assert (await slots(sale), await units(sale)) == (0, 0)  # the slot returns with the unit, once
    assert await sale.cancel(entry.order_id) is OrderState.CANCELLED
    assert await slots(sale) == 0


async def test_no_ticket_before_the_start_or_after_the_last_unit(shop: Shop, raw: redis.Redis) -> None:
    sale = shop.sale(tickets=Tickets(SECRETS), cache_for=0)
    await sale.preload("phone", 1)
    before = snapshot(raw)
    early = await sale.enter("phone", "ann")
    assert (early.outcome, early.ticket, early.order_id) == (Outcome.NOT_STARTED, None, None)
    assert snapshot(raw) == before
    await sale.start("phone")
    assert (await sale.enter("phone", "ann")).admitted
    assert (await sale.enter("phone", "bob")).outcome is Outcome.SOLD_OUT


async def test_a_ticket_is_for_one_sale_goods_buyer_and_order(shop: Shop, raw: redis.Redis) -> None:
    sale = await ticketed(shop)
    entry = await sale.enter("phone", "ann", 2, order_id="o-1")
    assert entry.order_id == "o-1"
    other = shop.sale(tickets=Tickets({"a": b"t" * 32}))
    before = snapshot(raw)
    for attempt in (
        sale.buy("phone", "bob", ticket=entry.ticket),
        sale.buy("case", "ann", ticket=entry.ticket),
        sale.buy("phone", "ann", 3, ticket=entry.ticket),
        sale.buy("phone", "ann", order_id="o-2", ticket=entry.ticket),
        sale.buy("phone", "ann", ticket=entry.ticket + "x"),
        sale.buy("phone", "ann", ticket=""),
        other.buy("phone", "ann", ticket=entry.ticket),
    ):
        with pytest.raises(InvalidTicket):
            await attempt
    assert snapshot(raw) == before
    assert (await sale.buy("phone", "ann", 2, order_id="o-1", ticket=entry.ticket)).accepted
    with pytest.raises(OrderConflict):
        await sale.buy("phone", "ann", 1, ticket=entry.ticket)


async def test_a_ticket_ends_with_the_epoch(shop: Shop, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside(shop.api, "ticketing"), "EPOCH_EVERY", 0.0)
    sale = await ticketed(shop)
    entry = await sale.enter("phone", "ann")
    raw.hincrby(shop.keys.meta, "epoch", 1)
    with pytest.raises(InvalidTicket, match="rebuilt"):
        await sale.buy("phone", "ann", ticket=entry.ticket)


async def test_who_was_too_early_does_not_spoil_the_first_tickets(shop: Shop) -> None:
    sale = shop.sale(tickets=Tickets(SECRETS))
    with pytest.raises(UnknownGoods):
        await sale.enter("phone", "ann")
    await shop.open(2, sale=sale)
    entry = await sale.enter("phone", "ann")
    sale.real._ticketing._epoch_at -= 1000  # a second later
    assert (await sale.buy("phone", "ann", ticket=entry.ticket)).accepted


async def test_one_caller_asks_for_the_epoch(real_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside(real_shop.api, "ticketing"), "EPOCH_EVERY", 1000.0)
    sale = await ticketed(real_shop, 40)
    entries = [await sale.enter("phone", f"b-{n}") for n in range(20)]
    control, asked = sale.real._meta, []
    ask = control.state
    monkeypatch.setattr(control, "state", lambda: (asked.append(1), ask())[1])
    sale.real._ticketing._epoch_at -= 1000
    real_shop.raw.client_pause(300)
    buys = [sale.buy("phone", f"b-{n}", ticket=entry.ticket) for n, entry in enumerate(entries)]
    assert all(receipt.accepted for receipt in await asyncio.gather(*buys))
    assert 1 <= len(asked) < 5  # threads may look at the same moment


async def test_a_pause_stops_tickets_that_are_out(shop: Shop) -> None:
    sale = await ticketed(shop)
    entry = await sale.enter("phone", "ann")
    await sale.pause()
    assert (await sale.buy("phone", "ann", ticket=entry.ticket)).outcome is Outcome.PAUSED
    await sale.resume()
    assert (await sale.buy("phone", "ann", ticket=entry.ticket)).accepted


async def test_a_sale_without_tickets_says_so(shop: Shop) -> None:
    sale = await shop.open()
    with pytest.raises(InvalidRequest, match="tickets"):
        await sale.enter("phone", "ann")
    with pytest.raises(InvalidRequest, match="tickets"):
        await sale.buy("phone", "ann", ticket="x")


@pytest.mark.parametrize(
    ("goods_id", "buyer_id", "quantity"), [("a b", "ann", 1), ("phone", "a b", 1), ("phone", "ann", 0)]
)
async def test_bad_input_takes_no_slot(
    shop: Shop, raw: redis.Redis, goods_id: str, buyer_id: str, quantity: int
) -> None:
    sale = await ticketed(shop)
    before = snapshot(raw)
    with pytest.raises(InvalidRequest):
        await sale.enter(goods_id, buyer_id, quantity)
    assert snapshot(raw) == before


@pytest.mark.parametrize(
    "bad", [{"quantity": "2"}, {"quantity": None}, {"quantity": 0}, {"order_id": ["o-1"]}], ids=str
)
async def test_bad_input_beside_a_ticket_is_a_typed_error(shop: Shop, raw: redis.Redis, bad: dict[str, Any]) -> None:
    sale = await ticketed(shop)
    entry = await sale.enter("phone", "ann", 2)
    before = snapshot(raw)
    with pytest.raises(InvalidRequest):
        await sale.buy("phone", "ann", ticket=entry.ticket, **bad)
    assert snapshot(raw) == before


# -- the shop window ------------------------------------------------------------------------------------------------


async def test_the_window_shows_the_whole_life_of_a_sale(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 1, hold=100))
    sale = shop.sale(store=store, cache_for=0)
    await sale.preload("phone", 1, hold=100)
    view = await sale.view("phone")
    assert (view.outcome, view.remaining, view.may_return) == (Outcome.NOT_STARTED, 1, False)
    assert abs(view.now - await sale._ledger.time()) < 5
    await sale.start("phone")
    assert (await sale.view("phone")).outcome is Outcome.ADMITTED
    await sale.buy("phone", "ann", order_id="o-1")
    await shop.worker(sale).run_once()
    view = await sale.view("phone")
    assert (view.outcome, view.remaining, view.may_return) == (Outcome.SOLD_OUT, 0, True)
    await sale.confirm("o-1")
    assert (await sale.view("phone")).may_return is False
    await sale.pause()
    assert (await sale.view("phone")).outcome is Outcome.PAUSED


async def test_one_look_serves_many_visitors(shop: Shop) -> None:
    sale = shop.sale(cache_for=1)
    await sale.preload("phone", 5)
    first = await sale.view("phone")
    await sale.start("phone")
    second = await sale.view("phone")
    assert second.outcome is Outcome.NOT_STARTED  # remembered
    assert second.now >= first.now
