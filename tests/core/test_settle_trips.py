"""How many trips a cancellation, a payment and an expiry cost: a trip is one reply that somebody waits for.

Redis counts the reads of its sockets, the database its transactions. Scripts are loaded before.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy import event

from flashsale import FlashSale, Goods, Keys, Order, OrderConflict, OrderState, RowRefused, StoredOrder, StoreError
from flashsale.lua import Code
from tests.support.helpers import settled, snapshot
from tests.support.mutants import kills
from tests.support.sales import access, active_units, booked, each_backend, overdue, rows, work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flashsale import FlashSaleError
    from tests.conftest import Backend
    from tests.support.helpers import Awaited, Shop

PERSISTED, CONFIRMED = OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, EXPIRED = OrderState.CANCELLED, OrderState.EXPIRED


class Trips(NamedTuple):
    redis: int
    database: int


class Count:
    """What happened so far."""

    def __init__(self, shop: Shop, sale: Awaited) -> None:
        self._raw = shop.raw
        self._transactions = 0
        engine = sale.store._engine
        event.listen(getattr(engine, "sync_engine", engine), "begin", self._begun)
        self._own = -self._reads() + self._reads()  # of the server, to tell us

    def _begun(self, _: Any) -> None:
        self._transactions += 1

    def _reads(self) -> int:
        return int(self._raw.info("stats")["total_reads_processed"])

    async def of(self, call: Any) -> Trips:
        """Waits for the call, and returns its trips."""
        transactions, reads = self._transactions, self._reads()
        await settled(call)
        reads = self._reads() - reads - self._own
        return Trips(reads, self._transactions - transactions)


async def selling(shop: Shop, *, two: bool = False, **policy: Any) -> Awaited:
    """Returns a sale of phones on a real Redis, or on two, with every script loaded."""
    apart = {"gate_client": shop.client(db=1)} if two else {}
    sale = shop.sale(store=await shop.store(Goods("phone", 500, **policy)), cache_for=0, **apart)
    await shop.open(500, sale=sale, **policy)
    await sale.inventory.load_scripts()
    await sale.status("nobody")
    return sale


async def bought(shop: Shop, sale: Awaited, *names: str) -> None:
    for name in names:
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await work(shop, sale)


@pytest.mark.one_server
async def test_a_cancellation_is_two_trips_and_one_transaction(real_shop: Shop) -> None:
    sale = await selling(real_shop, hold=900, per_buyer=9)
    await bought(real_shop, sale, "unpaid", "paid")
    await sale.confirm("paid")
    await sale.buy("phone", "ann", order_id="queued")
    count = Count(real_shop, sale)
    for name in ("unpaid", "paid", "queued", "queued"):
        assert await count.of(sale.cancel(name)) == (2, 1), name
    assert await rows(sale) == dict.fromkeys(("unpaid", "paid", "queued"), CANCELLED)
    assert await booked(sale) == await access(sale) == 0


@pytest.mark.one_server
async def test_a_confirmation_is_two_trips_and_one_transaction(real_shop: Shop) -> None:
    """Also where it overtakes the worker's ack: a way of two steps is gone in one script."""
    sale = await selling(real_shop, hold=900)
    await bought(real_shop, sale, "o-1")
    await sale.buy("phone", "ann", order_id="early")
    claims = await sale.queue.claim()
    await settled(sale.store.save([claim.order for claim in claims]))
    count = Count(real_shop, sale)
    for name in ("o-1", "o-1", "early"):
        assert await count.of(sale.confirm(name)) == (2, 1), name
    assert [await sale.status(name) for name in ("o-1", "early")] == [CONFIRMED] * 2
    assert not real_shop.raw.exists(real_shop.keys.holds)


@pytest.mark.one_server
async def test_an_unknown_order_is_one_trip_and_one_look_at_the_database(real_shop: Shop) -> None:
    """Whether the sale itself is known is asked once in a process."""
    sale = await selling(real_shop)
    count = Count(real_shop, sale)
    assert await count.of(sale.cancel("ghost")) == await count.of(sale.confirm("ghost")) == (1, 1)
    assert await count.of(sale.status("ghost")) == (1, 0)


@pytest.mark.one_server
@pytest.mark.parametrize("two", [False, True], ids=["one Redis", "two Redis"])
async def test_a_hundred_overdue_orders_are_a_handful_of_trips(real_shop: Shop, two: bool) -> None:
    shop = real_shop
    sale = await selling(shop, two=two, hold=900, per_buyer=500)
    names = [f"o-{n}" for n in range(100)]
    await bought(shop, sale, *names, "paying")
    syncer = shop.syncer(sale)
    for _ in range(3):  # the first passes set up the gate, and meet the rows
        await syncer.run_once()
    count = Count(shop, sale)
    idle = max([await count.of(syncer.run_once()) for _ in range(2)])  # every other pass reads a page of rows
    overdue(shop, *names)
    busy = await count.of(syncer.run_once())
    assert busy.redis - idle.redis <= 10
    assert busy.database - idle.database <= 2
    assert await rows(sale) == {name: await sale.status(name) for name in (*names, "paying")}
    assert await rows(sale) == {**dict.fromkeys(names, EXPIRED), "paying": PERSISTED}
    assert await booked(sale) == await access(sale) == await active_units(sale) == 1
    assert shop.raw.hgetall(shop.keys.buyers("phone")) == {b"ann": b"1"}
    assert shop.raw.zrange(shop.keys.holds, 0, -1) == [b"paying"]


async def overdue_at(shop: Shop, store: dict[str, Any]) -> Awaited:
    """Returns a sale with overdue orders a, b and c, at a store that has these attributes besides."""
    sale = await shop.open(10, store=True, hold=900)
    await bought(shop, sale, *"abc")
    overdue(shop, *"abc")
    sale.store.__class__ = type("Mine", (type(sale.store),), store)
    return sale


@pytest.mark.parametrize("bulk", [{}, {"settle_many": None}], ids=["changes settle alone", "has no settle_many"])
@each_backend
async def test_a_store_without_a_bulk_of_its_own_is_asked_for_each_order(shop: Shop, bulk: dict[str, Any]) -> None:
    """`settle_many` is no part of the protocol; and what a subclass adds to `settle` is not passed by."""
    asked: list[str] = []

    def settle(store: Any, order: Order, state: OrderState) -> Any:
        asked.append(order.order_id)
        return super(type(store), store).settle(order, state)

    sale = await overdue_at(shop, {"settle": settle, **bulk})
    assert (await shop.syncer(sale).run_once()).expired == 3
    assert asked == list("abc")
    assert await rows(sale) == dict.fromkeys("abc", EXPIRED)
    assert await booked(sale) == await access(sale) == 0


async def expire(shop: Shop, sale: Awaited) -> int:
    """One step of the syncer's pass."""
    step = shop.syncer(sale).real._expire
    return await (step() if shop.is_async else asyncio.to_thread(step))


FAILURES = [
    OrderConflict(sale="spring", goods_id="phone", order_id="b"),
    RowRefused("a constraint of the host's"),
    StoreError("no row of the goods"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@each_backend
async def test_a_row_that_fails_stops_no_other_row_of_its_page(shop: Shop, error: FlashSaleError) -> None:
    def settle(store: Any, order: Order, state: OrderState) -> Any:
        if order.order_id == "b":
            raise error
        return super(type(store), store).settle(order, state)

    def settle_many(store: Any, orders: Sequence[Order], state: OrderState) -> Any:
        raise error

    sale = await overdue_at(shop, {"settle": settle, "settle_many": settle_many})
    syncer = shop.syncer(sale)
    assert [(await syncer.run_once()).expired for _ in range(2)] == [2, 0]
    assert await rows(sale) == {"a": EXPIRED, "b": PERSISTED, "c": EXPIRED}
    assert await booked(sale) == await access(sale) == 1


@each_backend
async def test_goods_that_are_corrupt_stop_no_other_order_of_a_page(shop: Shop) -> None:
    sale = await shop.open(10, store=True, hold=900)
    await settled(sale.store.put_goods(Goods("case", 10, hold=900)))
    await sale.preload("case", 10, hold=900)
    await sale.start("case")
    await bought(shop, sale, *"ab")
    assert (await sale.buy("case", "ann", order_id="c")).accepted
    await work(shop, sale)
    overdue(shop, *"abc")
    booked_units = shop.raw.hget(shop.keys.stock("case"), "Booked")
    shop.raw.hset(shop.keys.stock("case"), "Booked", "1.0")
    assert await expire(shop, sale) == 2
    assert [await sale.status(name) for name in "abc"] == [EXPIRED, EXPIRED, PERSISTED]
    assert (await booked(sale), await access(sale)) == (0, 0)
    shop.raw.hset(shop.keys.stock("case"), "Booked", booked_units)
    assert await expire(shop, sale) == 1
    assert (await booked(sale, "case"), await sale.status("c")) == (0, EXPIRED)


@each_backend
def test_many_orders_move_in_one_script_as_each_would_alone(backend: Backend) -> None:
    raw, keys = backend.raw(), Keys("spring")
    with FlashSale(backend.client(), "spring") as sale:
        for goods_id, cap in (("phone", 9), ("case", None)):
            sale.preload(goods_id, 20, per_buyer=cap, hold=60)
            sale.start(goods_id)
        for order_id, goods_id, buyer_id in (("a", "phone", "ann"), ("b", "case", "ann"), ("c", "phone", "ann")):
            assert sale.buy(goods_id, buyer_id, 2, order_id=order_id).accepted
        sale.buy("phone", "bob", 3, order_id="d")
        raw.hset(keys.orders, "bad", "no record")
        before = {name: raw.hget(keys.orders, name) for name in ("b", "bad")}
        wanted = [
            ("a", "phone", CANCELLED, Code.DONE, CANCELLED),
            ("b", "phone", CANCELLED, Code.UNKNOWN, None),  # it is of another item
            ("c", "phone", EXPIRED, Code.DONE, EXPIRED),
            ("d", "phone", CONFIRMED, Code.DONE, CONFIRMED),
            ("bad", "case", CANCELLED, Code.CORRUPT, None),
            ("ghost", "case", CANCELLED, Code.UNKNOWN, None),
        ]
        asked = [StoredOrder(Order(name, goods_id, "ann", 2), state) for name, goods_id, state, *_ in wanted]
        assert [move[:2] for move in sale._ledger.move(asked)] == [(code, state) for *_, code, state in wanted]
        assert {name: raw.hget(keys.orders, name) for name in before} == before
        assert raw.hmget(keys.stock("phone"), "Booked", "Ledger") == [b"3", b"3"]
        assert raw.hmget(keys.stock("case"), "Booked", "Ledger") == [b"2", b"2"]
        assert raw.hgetall(keys.buyers("phone")) == {b"ann": b"0", b"bob": b"3"}
        assert [raw.get(keys.access(goods_id)) for goods_id in ("phone", "case")] == [b"3", b"2"]
        now = snapshot(raw)
        again = sale._ledger.move(asked)
        assert [move.made for move in again] == [False] * len(asked)
        assert snapshot(raw) == now


# -- each promise has its mechanism ---------------------------------------------------------------------------------


@pytest.mark.one_server
@kills("one call for a page of overdue orders")
async def test_without_the_bulk_each_overdue_order_would_cost_its_own_trips(real_shop: Shop) -> None:
    await test_a_hundred_overdue_orders_are_a_handful_of_trips(real_shop, two=False)


@pytest.mark.one_server
@kills("no look at Redis before a move")
async def test_one_more_look_at_redis_would_be_a_third_trip(real_shop: Shop) -> None:
    await test_a_cancellation_is_two_trips_and_one_transaction(real_shop)


ON_A_PAGE = ("a page counts an allowance on", "a page counts the gate on", "the goods of an order that moves")


@pytest.mark.parametrize("mutant", [pytest.param(name, marks=kills(name)) for name in ON_A_PAGE])
@each_backend
def test_without_its_mechanism_a_page_is_not_as_each_alone(backend: Backend, mutant: str) -> None:
    test_many_orders_move_in_one_script_as_each_would_alone(backend)
