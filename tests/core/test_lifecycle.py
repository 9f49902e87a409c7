"""The lifecycle of an order, from the click to payment, cancellation or expiry: its units come back once, or never."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest

import flashsale
from flashsale import Goods, NotPersisted, OrderState, StoredOrder, StoreRequired
from flashsale.lua import SCRIPTS, Code
from flashsale.model import TRANSITIONS
from tests.support.helpers import clock, order, settled, snapshot
from tests.support.mutants import kills, promises
from tests.support.sales import access, active_units, booked, each_backend, overdue, rows, work

if TYPE_CHECKING:
    import redis

    from tests.conftest import Backend
    from tests.support.helpers import Shop

QUEUED, PERSISTED, CONFIRMED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, EXPIRED, REJECTED, DEAD = OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED, OrderState.DEAD

CONTRACT = {  # word for word
    QUEUED: {PERSISTED, CANCELLED, EXPIRED, REJECTED, DEAD},
    PERSISTED: {CONFIRMED, CANCELLED, EXPIRED},
    CONFIRMED: {CANCELLED},
    DEAD: {QUEUED, CANCELLED},
    CANCELLED: set(),
    EXPIRED: set(),
    REJECTED: set(),
}
RELEASED = {CANCELLED, EXPIRED, REJECTED}


# -- states ---------------------------------------------------------------------------------------------------------


def test_model_and_script_have_the_transitions_of_the_contract() -> None:
    assert TRANSITIONS == CONTRACT
    table = re.search(r"local AHEAD = \{(.*?)\n\}", SCRIPTS["settle"].text, re.DOTALL)[1]
    written = {OrderState(start): set(ends.split()) for start, ends in re.findall(r'(\w+) = "([A-Z ]*)"', table)}
    assert written == {start: {*map(str, ahead(start))} for start in CONTRACT}
    assert flashsale.model.RELEASED == RELEASED


def ahead(start: OrderState) -> set[OrderState]:
    """The states that steps of the contract lead to from `start`."""
    found: set[OrderState] = set()
    while new := {end for state in {start} | found for end in CONTRACT[state]} - found:
        found |= new
    return found - {start}


def put(raw: redis.Redis, keys: flashsale.Keys, order_id: str, state: OrderState) -> None:
    """Writes an order of two phones into the ledger, with all that belongs to its state."""
    raw.hset(keys.orders, order_id, f"{state}|2|3|phone|1|ann")
    if state is PERSISTED:
        raw.zadd(keys.holds, {order_id: 2e9})
    if state is DEAD:
        raw.hset(keys.dead, order_id, "6|1|{}")
    if state not in RELEASED:
        raw.hincrby(keys.stock("phone"), "Booked", 2)
        raw.hincrby(keys.stock("phone"), "Ledger", 2)
        raw.hincrby(keys.buyers("phone"), "ann", 2)
        raw.incrby(keys.access("phone"), 2)


def units_of(raw: redis.Redis, keys: flashsale.Keys) -> list[int]:
    """Booked, Ledger, what Ann holds, and what passed the gate."""
    found = [*raw.hmget(keys.stock("phone"), "Booked", "Ledger"), raw.hget(keys.buyers("phone"), "ann")]
    return [int(value or 0) for value in (*found, raw.get(keys.access("phone")))]


@each_backend
def test_every_way_that_is_allowed_is_gone_whole_and_no_other(backend: Backend) -> None:
    raw, keys = backend.raw(), flashsale.Keys("spring")
    with flashsale.FlashSale(backend.client(), "spring") as sale:
        sale.preload("phone", 500, per_buyer=500, hold=60)
        for start, end in itertools.product(OrderState, OrderState):
            order_id = f"{start}-{end}"
            put(raw, keys, order_id, start)
            before, units = snapshot(raw), units_of(raw, keys)
            (move,) = sale._ledger.move([StoredOrder(order(order_id, quantity=2), end)])
            assert move.made == (end in ahead(start)), order_id
            assert move.state is (end if move.made else start), order_id
            if not move.made:
                assert snapshot(raw) == before, order_id
                continue
            assert sale.status(order_id) is end
            back = 2 if end in RELEASED else 0
            assert units_of(raw, keys) == [value - back for value in units], order_id
            assert (raw.zscore(keys.holds, order_id) is not None) == (end is PERSISTED), order_id
            assert not raw.hexists(keys.dead, order_id), order_id


@each_backend
def test_a_step_of_an_order_that_is_unknown_or_corrupt_changes_nothing(backend: Backend) -> None:
    raw, keys = backend.raw(), flashsale.Keys("spring")
    with flashsale.FlashSale(backend.client(), "spring") as sale:
        sale.preload("phone", 10, per_buyer=5)
        sale.preload("case", 10)
        put(raw, keys, "o-1", PERSISTED)
        names = [keys.orders, keys.holds, keys.dead, keys.stock("phone"), keys.buyers("phone"), keys.access("phone")]

        def code(order_id: str, goods_id: str = "phone") -> int:
            before = snapshot(raw)
            answer = sale._link.run("settle", names, [1, 1, goods_id, order_id, CANCELLED])[0]
            assert snapshot(raw) == before
            return answer

        assert code("nobody") == Code.UNKNOWN
        assert code("o-1", "case") == Code.UNKNOWN
        for key, field, value in (("stock", "Booked", "2.0"), ("stock", "Booked", "1"), ("buyers", "ann", "x")):
            name = keys.stock("phone") if key == "stock" else keys.buyers("phone")
            kept = raw.hget(name, field)
            raw.hset(name, field, value)
            assert code("o-1") == Code.CORRUPT, (field, value)
            raw.hset(name, field, kept)
        raw.hset(keys.orders, "o-1", "PERSISTED|2|9|phone|1|ann")
        assert code("o-1") == Code.CORRUPT


# -- cancel ---------------------------------------------------------------------------------------------------------


@each_backend
async def test_the_quantity_that_returns_is_the_ledgers(shop: Shop) -> None:
    sale = await shop.open(10, store=True, per_buyer=9)
    await sale.buy("phone", "ann", 3, order_id="o-1")
    await sale.buy("phone", "bob", 2, order_id="o-2")
    await work(shop, sale)
    assert await sale.cancel("o-1") is CANCELLED
    assert [await sale.cancel("o-1") for _ in range(3)] == [CANCELLED] * 3
    assert await booked(sale) == await access(sale) == await active_units(sale) == 2
    assert shop.raw.hgetall(shop.keys.buyers("phone")) == {b"ann": b"0", b"bob": b"2"}


@each_backend
async def test_an_order_that_came_past_the_gate_returns_no_slot(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await sale.buy("phone", "ann", order_id="through")
    await sale.inventory.reserve([order("past")])
    assert await sale.cancel("past") is CANCELLED
    assert (await booked(sale), await access(sale)) == (1, 1)


@each_backend
async def test_an_id_that_nobody_knows_plants_nothing(shop: Shop) -> None:
    sale = await shop.open(store=True)
    before = snapshot(shop.raw)
    assert [await sale.cancel("ghost"), await sale.confirm("ghost"), await sale.status("ghost")] == [None] * 3
    assert not await sale.extend_hold("ghost", 60)
    assert await rows(sale) == {}
    assert snapshot(shop.raw) == before


@each_backend
async def test_a_dead_order_that_is_cancelled_gives_its_units_back_and_its_letter_is_gone(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", 2, order_id="o-1")
    await sale.queue._bury(await sale.queue.claim())
    assert await sale.status("o-1") is DEAD
    assert await booked(sale) == 2
    assert await sale.cancel("o-1") is CANCELLED
    assert await booked(sale) == await access(sale) == 0
    assert await sale.queue.dead() == []
    assert await sale.queue.requeue_dead() == 0
    assert await rows(sale) == {"o-1": CANCELLED}


@each_backend
async def test_a_requeued_order_is_written_after_all(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.queue._bury(await sale.queue.claim())
    with pytest.raises(NotPersisted):
        await sale.confirm("o-1")
    assert await sale.status("o-1") is DEAD
    assert await sale.queue.requeue_dead() == 1
    assert await sale.status("o-1") is QUEUED
    await work(shop, sale)
    assert await sale.confirm("o-1") is CONFIRMED


# -- confirm and refund ---------------------------------------------------------------------------------------------


@each_backend
async def test_confirming_before_the_row_is_not_persisted_and_plants_nothing(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    before = snapshot(shop.raw)
    with pytest.raises(NotPersisted) as caught:
        await sale.confirm("o-1")
    assert caught.value.order_id == "o-1"
    assert snapshot(shop.raw) == before
    assert await rows(sale) == {}
    await work(shop, sale)
    assert await sale.confirm("o-1") is CONFIRMED


@each_backend
async def test_a_paid_order_can_be_refunded_and_is_for_sale_again(shop: Shop) -> None:
    sale = await shop.open(1, store=True, hold=60)
    await sale.buy("phone", "ann", order_id="o-1")
    await work(shop, sale)
    assert [await sale.confirm("o-1") for _ in range(2)] == [CONFIRMED] * 2
    assert not shop.raw.exists(shop.keys.holds)  # nobody expires what is paid
    assert (await shop.syncer(sale).run_once()).expired == 0
    assert await booked(sale) == 1
    assert await sale.cancel("o-1") is CANCELLED
    assert [await sale.confirm("o-1"), await sale.status("o-1")] == [CANCELLED] * 2
    assert (await sale.buy("phone", "bob")).accepted
    assert await booked(sale) == 1


@each_backend
async def test_confirming_between_commit_and_ack_stands(shop: Shop) -> None:
    """The worker is slow, or dies: the row is there, the ledger says queued."""
    sale = await shop.open(store=True, hold=60)
    await sale.buy("phone", "ann", order_id="o-1")
    claims = await sale.queue.claim()
    await settled(sale.store.save([claim.order for claim in claims]))
    assert await sale.confirm("o-1") is CONFIRMED
    assert await sale.status("o-1") is CONFIRMED
    await sale.queue.ack(claims)
    assert await sale.status("o-1") is CONFIRMED
    assert not shop.raw.exists(shop.keys.holds)


@each_backend
def test_an_ack_in_the_midst_of_confirming_does_not_leave_the_ledger_behind(backend: Backend, tmp_path) -> None:
    from flashsale.stores import SQLAlchemyStore

    with (
        SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "spring") as store,
        flashsale.FlashSale(backend.client(), "spring", store=store) as sale,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 5))
        sale.preload("phone", 5)
        sale.start("phone")
        sale.buy("phone", "ann", order_id="o-1")
        claims = sale.queue.claim()
        store.save([claim.order for claim in claims])
        move = sale._ledger.move

        def after_the_ack(*args: Any) -> Any:
            sale.queue.ack(claims)
            return move(*args)

        sale._ledger.move = after_the_ack
        assert sale.confirm("o-1") is CONFIRMED
        assert sale.status("o-1") is CONFIRMED


# -- deadlines ------------------------------------------------------------------------------------------------------


@each_backend
async def test_the_time_to_pay_starts_when_the_order_is_persisted(shop: Shop) -> None:
    sale = await shop.open(store=True, hold=60)
    await sale.buy("phone", "ann", order_id="o-1")
    assert not shop.raw.exists(shop.keys.holds)  # however slow the worker is
    claims = await sale.queue.claim()
    await settled(sale.store.save([claim.order for claim in claims]))
    before = clock(shop.raw)
    await sale.queue.ack(claims)
    assert before + 60 - 0.001 <= shop.raw.zscore(shop.keys.holds, "o-1") <= clock(shop.raw) + 60 + 0.001


@each_backend
async def test_goods_without_a_hold_are_paid_whenever(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    await work(shop, sale)
    assert not shop.raw.exists(shop.keys.holds)
    assert not await sale.extend_hold("o-1", 60)


@each_backend
async def test_the_syncer_expires_what_was_not_paid_in_time_and_nothing_else(shop: Shop) -> None:
    sale = await shop.open(10, store=True, hold=900, per_buyer=4)
    for name in ("late", "paying", "paid", "gone"):
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    await sale.buy("phone", "bob", order_id="queued")
    await sale.confirm("paid")
    overdue(shop, "late", "gone")
    await sale.cancel("gone")
    syncer = shop.syncer(sale)
    assert [(await syncer.run_once()).expired for _ in range(2)] == [1, 0]
    wanted = {"late": EXPIRED, "paying": PERSISTED, "paid": CONFIRMED, "gone": CANCELLED}
    assert await rows(sale) == wanted
    assert {name: await sale.status(name) for name in wanted} == wanted
    assert await sale.status("queued") is QUEUED
    assert await booked(sale) == await access(sale) == 3
    assert shop.raw.hget(shop.keys.buyers("phone"), "ann") == b"2"
    assert await sale.confirm("late") is EXPIRED
    assert (await sale.buy("phone", "ann", order_id="late")).state is EXPIRED


@each_backend
async def test_what_the_database_paid_is_not_expired_by_a_ledger_that_is_behind(shop: Shop) -> None:
    sale = await shop.open(store=True, hold=900)
    await sale.buy("phone", "ann", order_id="o-1")
    await work(shop, sale)
    await settled(sale.store.settle(order(), CONFIRMED))  # and then the process died
    overdue(shop, "o-1")
    assert (await shop.syncer(sale).run_once()).expired == 0
    assert await sale.status("o-1") is CONFIRMED
    assert not shop.raw.exists(shop.keys.holds)


@each_backend
async def test_an_order_that_cannot_be_expired_stops_no_other(shop: Shop) -> None:
    sale = await shop.open(store=True, hold=900)
    for name in "abc":
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    overdue(shop, *"abc")
    shop.raw.hset(shop.keys.orders, "a", "PERSISTED|2|1|phone|1|ann")  # other content than the row's
    shop.raw.hset(shop.keys.orders, "b", "no record")
    syncer = shop.syncer(sale)
    assert (await syncer._expire() if shop.is_async else await asyncio.to_thread(syncer.real._expire)) == 1
    assert await sale.status("c") is EXPIRED


@each_backend
async def test_more_time_is_given_until_it_is_too_late(shop: Shop) -> None:
    sale = await shop.open(store=True, hold=60)
    await sale.buy("phone", "ann", order_id="o-1")
    assert not await sale.extend_hold("o-1", 600)  # not persisted: no deadline yet
    await work(shop, sale)
    first = shop.raw.zscore(shop.keys.holds, "o-1")
    assert await sale.extend_hold("o-1", 5)  # an earlier one never takes time away
    assert shop.raw.zscore(shop.keys.holds, "o-1") == first
    before = clock(shop.raw)
    assert await sale.extend_hold("o-1", 600)
    assert before + 599.9 < shop.raw.zscore(shop.keys.holds, "o-1") < clock(shop.raw) + 600.1
    overdue(shop, "o-1")
    before = snapshot(shop.raw)
    assert not await sale.extend_hold("o-1", 600)  # over, though nobody has expired it yet
    assert snapshot(shop.raw) == before
    assert (await shop.syncer(sale).run_once()).expired == 1
    assert not await sale.extend_hold("o-1", 600)
    await sale.buy("phone", "ann", order_id="o-2")
    await work(shop, sale)
    await sale.confirm("o-2")
    assert not await sale.extend_hold("o-2", 600)
    for wrong in (0, -1, float("nan"), "60", True, None):
        with pytest.raises(flashsale.InvalidRequest):
            await sale.extend_hold("o-2", wrong)


# -- crashes between database and Redis -----------------------------------------------------------------------------

HALF = {
    "cancelled": (CANCELLED, 0, lambda shop, sale: sale.cancel("o-1")),
    "paid": (CONFIRMED, 2, lambda shop, sale: sale.confirm("o-1")),
    "expired": (EXPIRED, 0, lambda shop, sale: sale.cancel("o-1")),
    "cancelled, seen by the syncer": (CANCELLED, 0, lambda shop, sale: shop.syncer(sale).run_once()),
    "paid, seen by the syncer": (CONFIRMED, 2, lambda shop, sale: shop.syncer(sale).run_once()),
    "expired, seen by the syncer": (EXPIRED, 0, lambda shop, sale: shop.syncer(sale).run_once()),
}


@pytest.mark.parametrize("half", HALF)
@each_backend
async def test_what_a_crash_left_half_done_is_finished_once(shop: Shop, half: str) -> None:
    state, left, finish = HALF[half]
    sale = await shop.open(10, store=True, per_buyer=5, hold=60)
    await sale.buy("phone", "ann", 2, order_id="o-1")
    await sale.buy("phone", "ann", 3, order_id="o-2")
    await work(shop, sale)
    await settled(sale.store.settle(order("o-1", quantity=2), state))  # here the process died
    assert await sale.status("o-1") is PERSISTED
    for _ in range(3):
        await finish(shop, sale)
        assert await sale.status("o-1") is state
        assert await booked(sale) == await access(sale) == await active_units(sale) == left + 3
        assert int(shop.raw.hget(shop.keys.buyers("phone"), "ann")) == left + 3
    assert (await shop.syncer(sale).run_once()).settled == 0


@each_backend
async def test_a_slot_that_was_lost_on_its_way_back_is_found_by_the_syncer(shop: Shop) -> None:
    """Gate and stock on two Redis: the process dies between the two."""
    apart = {"gate_client": shop.client(db=1)}
    sale = shop.sale(store=await shop.store(Goods("phone", 10)), **apart)
    await shop.open(10, sale=sale)
    await sale.buy("phone", "ann", 2, order_id="o-1")
    (move,) = await settled(sale.real._ledger.move([StoredOrder(order("o-1", quantity=2), CANCELLED)]))
    assert move.slots == 2
    assert (await booked(sale), await access(sale)) == (0, 2)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    assert (await syncer.run_once()).returned == 2
    assert await access(sale) == 0


async def test_a_store_is_required(shop: Shop) -> None:
    sale = await shop.open()
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.buy_basket("ann", [("phone", 1)], basket_id="b-1")
    for verb, name in (("cancel", "o-1"), ("confirm", "o-1"), ("cancel_basket", "b-1"), ("confirm_basket", "b-1")):
        with pytest.raises(StoreRequired):
            await getattr(sale, verb)(name)
    with pytest.raises(StoreRequired):
        await sale.restock("phone", 1)
    for name in ("Syncer", "Worker"):
        with pytest.raises(StoreRequired):
            shop.make(name, sale)
    assert await sale.status("o-1") is QUEUED


# -- status ---------------------------------------------------------------------------------------------------------


async def test_status_is_one_read_and_never_the_database(real_shop: Shop) -> None:
    shop = real_shop
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.status("o-1")  # connected
    shop.sql("DROP TABLE flashsale_orders")
    shop.sql("DROP TABLE flashsale_goods")
    shop.raw.config_resetstat()
    assert [await sale.status("o-1") for _ in range(5)] == [QUEUED] * 5
    stats: Any = shop.raw.info("commandstats")
    ours = {name: stat["calls"] for name, stat in stats.items() if "config" not in name and "info" not in name}
    assert ours == {"cmdstat_hget": 5}


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@promises(
    {
        "the units that come back": test_a_paid_order_can_be_refunded_and_is_for_sale_again,
        "the allowance that comes back": test_the_quantity_that_returns_is_the_ledgers,
        "the slot that comes back": test_the_quantity_that_returns_is_the_ledgers,
        "a slot is its own": test_an_order_that_came_past_the_gate_returns_no_slot,
        "the end of a letter": test_a_dead_order_that_is_cancelled_gives_its_units_back_and_its_letter_is_gone,
        "the deadline of a saved order": test_the_syncer_expires_what_was_not_paid_in_time_and_nothing_else,
        "the end of a deadline": test_a_paid_order_can_be_refunded_and_is_for_sale_again,
        "more time comes too late": test_more_time_is_given_until_it_is_too_late,
        "never less time": test_more_time_is_given_until_it_is_too_late,
    },
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


@kills("a state is left once")
@each_backend
def test_without_its_table_the_script_would_make_every_step(backend: Backend) -> None:
    test_every_way_that_is_allowed_is_gone_whole_and_no_other(backend)
