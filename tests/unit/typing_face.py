"""The whole public API, as a host's type checker sees it. Never run: `mypy --strict` reads it.

One class for each API; line by line they say the same, with `await` and without.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_type

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

import flashsale
import flashsale.aio
import flashsale.aio.stores
import flashsale.stores
from flashsale import (
    Admission,
    AlreadyLoaded,
    Claim,
    CorruptState,
    FlashSaleError,
    GateState,
    Goods,
    InvalidRequest,
    Keys,
    NotExecuted,
    NotPersisted,
    Observer,
    Order,
    OrderConflict,
    OrderState,
    OrderStore,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    PlainKeys,
    Receipt,
    RowRefused,
    Saved,
    Stock,
    StoredOrder,
    StoreError,
    StoreRequired,
    SyncReport,
    UnknownGoods,
    UnknownLayout,
)
from flashsale.aio import AsyncOrderStore
from flashsale.model import BasketReceipt  # place: these two lines belong above, once the API exports the names
from flashsale.model.reports import Audit, Disagreement, Problem, Rebuild, Repair, Units


class Metrics:
    """An observer of the host's."""

    def outcome(self, goods_id: str, outcome: Outcome) -> None: ...
    def batch(self, size: int, wait: float) -> None: ...
    def lag(self, orders: int, seconds: float) -> None: ...


def values(claim: Claim, receipt: Receipt, admission: Admission, state: GateState, stock: Stock) -> None:
    observer: Observer = Metrics()
    assert_type(Order("o-1", "phone", "alice", 1), Order)
    order = Order(order_id="o", goods_id="g", buyer_id="b", quantity=1, created_at=1.0, data={"any": ["json"]})
    assert_type((order.order_id, order.goods_id, order.buyer_id, order.quantity), tuple[str, str, str, int])
    assert_type((order.created_at, order.data), tuple[float | None, Any])
    assert_type((claim.order, claim.body, claim.attempts, claim.token), tuple[Order | None, bytes, int, str])
    assert_type((receipt.outcome, receipt.accepted, receipt.order_id), tuple[Outcome, bool, str])
    assert_type((receipt.goods_id, receipt.quantity, receipt.remaining), tuple[str, int, int])
    assert_type((receipt.replayed, receipt.state), tuple[bool, OrderState | None])
    assert_type((admission.outcome, admission.remaining), tuple[Outcome, int])
    assert_type((state.count, state.started, state.access, state.remaining), tuple[int, bool, int, int])
    assert_type((stock.total, stock.booked, stock.remaining, stock.direct), tuple[int, int, int, int])
    goods = Goods("g", 1, version=0, per_buyer=None, opens_at=None, closes_at=None, hold=None, loaded=False)
    assert_type((goods.goods_id, goods.total, goods.version), tuple[str, int, int])
    assert_type((goods.per_buyer, goods.opens_at, goods.hold), tuple[int | None, float | None, float | None])
    assert_type((goods.closes_at, goods.loaded), tuple[float | None, bool])
    saved = Saved()
    assert_type((saved.inserted, saved.refused, saved.conflicts), tuple[frozenset[str], frozenset[str], frozenset[str]])
    assert_type(saved.existing, Mapping[str, OrderState])
    stored = StoredOrder(order, OrderState.PERSISTED)
    assert_type((stored.order, stored.state), tuple[Order, OrderState])
    keys: list[Keys] = [Keys(), PlainKeys()]
    print(observer, keys)


def words(outcome: Outcome, state: OrderState) -> None:
    """Every word, so that a host's match statements can be exhaustive."""
    match outcome:
        case Outcome.ACCEPTED | Outcome.ADMITTED | Outcome.UNCERTAIN | Outcome.LIMIT_REACHED:
            as_text: str = outcome
        case Outcome.NOT_STARTED | Outcome.ENDED | Outcome.PAUSED | Outcome.SOLD_OUT | Outcome.REJECTED:
            as_text = outcome
    match state:
        case OrderState.QUEUED | OrderState.PERSISTED | OrderState.CONFIRMED | OrderState.DEAD:
            as_text = state
        case OrderState.CANCELLED | OrderState.EXPIRED | OrderState.REJECTED:
            as_text = state
    print(as_text)


def errors(error: FlashSaleError) -> None:
    match error:
        case InvalidRequest():
            as_value_error: ValueError = error
            assert_type((error.field, error.reason), tuple[str, str])
            print(as_value_error)
        case OrderConflict():
            assert_type((error.sale, error.goods_id, error.order_id), tuple[str | None, str | None, str])
        case UnknownGoods():
            as_lookup_error: LookupError = error
            assert_type((error.sale, error.goods_id), tuple[str | None, str | None])
            print(as_lookup_error)
        case AlreadyLoaded() | CorruptState():
            assert_type((error.sale, error.goods_id), tuple[str | None, str | None])
        case UnknownLayout():
            assert_type((error.layout, error.oldest, error.newest, error.order_id), tuple[int, int, int, str | None])
        case Overloaded():
            assert_type((error.waiting, error.order_id), tuple[int, str | None])
        case NotExecuted():
            assert_type((error.reason, error.order_id), tuple[str | None, str | None])
        case OutcomeUnknown() | NotPersisted():
            assert_type(error.order_id, str | None)
        case StoreRequired():
            assert_type(error.operation, str)
        case RowRefused() | StoreError():
            print(error)


# -- sync -----------------------------------------------------------------------------------------------------------


def clients(one: redis.Redis, cluster: redis.cluster.RedisCluster) -> None:
    for client in (one, cluster):
        flashsale.FlashSale(client, "s").close()


def sale(client: redis.Redis, store: OrderStore) -> None:
    flashsale.FlashSale(client, "s").close()
    with flashsale.FlashSale(
        client,
        "s",
        gate_client=client,
        gate_replica=client,
        store=store,
        keys=PlainKeys(),
        cache_for=0.05,
        max_waiting=10_000,
        observer=Metrics(),
    ) as sale:
        assert_type(sale, flashsale.FlashSale)
        assert_type(sale.gate, flashsale.Gate)
        assert_type(sale.inventory, flashsale.Inventory)
        assert_type(sale.queue, flashsale.OrderQueue)
        assert_type(sale.store, OrderStore | None)
        assert_type(sale.keys, Keys)
        sale.preload("g", 1)
        sale.preload("g", 1, per_buyer=1, opens_at=1.0, closes_at=2.0, hold=1.0)
        sale.start("g")
        sale.stop("g")
        sale.pause()
        sale.resume()
        assert_type(sale.buy("g", "b"), Receipt)
        assert_type(sale.buy("g", "b", 2, order_id="o", data=[1, {}]), Receipt)
        assert_type(sale.status("o"), OrderState | None)
        assert_type(sale.cancel("o"), OrderState | None)
        assert_type(sale.confirm("o"), OrderState | None)
        basket = sale.buy_basket("b", [("g", 1), ("h", 2)])
        assert_type(basket, BasketReceipt)
        assert_type(basket.receipts, tuple[Receipt, ...])
        assert_type((basket.outcome, basket.accepted, basket.basket_id), tuple[Outcome, bool, str])
        assert_type(sale.buy_basket("b", {"g": 1}.items(), basket_id="b-1", data={}), BasketReceipt)
        assert_type(sale.cancel_basket("b-1"), dict[str, OrderState | None])
        assert_type(sale.confirm_basket("b-1"), dict[str, OrderState | None])
        assert_type(sale.extend_hold("o", 60.0), bool)
        assert_type(sale.restock("g", -1), int)

        flashsale.Worker(sale)
        worker = flashsale.Worker(sale, batch=500, lease=30.0)
        worker.run(threading.Event())
        worker.run()
        assert_type(worker.run_once(), int)

        flashsale.Syncer(sale)
        syncer = flashsale.Syncer(sale, interval=1.0)
        syncer.run(threading.Event())
        syncer.run()
        report = syncer.run_once()
        assert_type(report, SyncReport)
        assert_type((report.leading, report.loaded, report.missing), tuple[bool, tuple[str, ...], tuple[str, ...]])
        assert_type(report.resized, tuple[tuple[str, int], ...])
        assert_type((report.returned, report.expired, report.settled), tuple[int, int, int])
        audit = syncer.audit()
        assert_type(audit, Audit)
        assert_type(syncer.audit(expected=["o"]), Audit)
        assert_type((audit.ok, audit.moving, audit.lost, audit.unreadable), tuple[bool, bool, tuple[str, ...], int])
        assert_type((audit.goods, audit.units), tuple[Mapping[str, Units], Units])
        assert_type([found.order_id for found in audit.orders], list[str])
        assert_type([found.problem for found in audit.orders], list[Problem])
        assert_type(syncer.repair(), Repair)
        assert_type(syncer.repair(dry_run=False).mended, tuple[Disagreement, ...])
        assert_type(syncer.rebuild(), Rebuild)
        # place for syncer.settlement() and syncer.purge(), and for sale.check()


def gate(client: redis.Redis) -> None:
    flashsale.Gate(client, "s")
    gate = flashsale.Gate(client, "s", replica=client, keys=Keys(), cache_for=0.05)
    gate.preload("g", 1)
    gate.start("g")
    gate.stop("g")
    assert_type(gate.resize("g", 2), int)
    gate.schedule("g")
    gate.schedule("g", opens_at=1.0, closes_at=2.0)
    assert_type(gate.enter("g"), Admission)
    assert_type(gate.enter("g", 2), Admission)
    assert_type(gate.leave("g"), int)
    assert_type(gate.leave("g", 2), int)
    assert_type(gate.state("g"), GateState)


def inventory(client: redis.Redis, orders: Sequence[Order]) -> None:
    flashsale.Inventory(client, "s")
    inventory = flashsale.Inventory(client, "s", keys=Keys())
    assert_type(inventory.load_scripts(), list[str])
    inventory.preload("g", 1)
    inventory.preload("g", 1, booked=0, per_buyer=1, opens_at=1.0, closes_at=2.0)
    assert_type(inventory.deduct("g"), int)
    assert_type(inventory.deduct("g", 2), int)
    assert_type(inventory.release("g"), int)
    assert_type(inventory.release("g", 2), int)
    assert_type(inventory.stock("g"), Stock)
    assert_type(inventory.reserve(orders), list[Receipt])
    assert_type(inventory.reserve(orders, together=True), list[Receipt])


def queue(client: redis.Redis, order: Order) -> None:
    flashsale.OrderQueue(client, "s")
    queue = flashsale.OrderQueue(client, "s", keys=Keys())
    assert_type(queue.push(order), int)
    assert_type(queue.pop(), Order | None)
    assert_type(queue.pop(0), Order | None)
    assert_type(queue.pop(timeout=1.5), Order | None)
    claims = queue.claim()
    assert_type(claims, list[Claim])
    assert_type(queue.claim(100, lease=30.0, timeout=1.0), list[Claim])
    queue.ack(claims)
    queue.nack(claims)
    queue.nack(claims, delay=1.0)
    queue.extend(claims)
    queue.extend(claims, lease=30.0)
    assert_type(queue.dead(), list[Claim])
    assert_type(queue.dead(10), list[Claim])
    assert_type(queue.requeue_dead(), int)
    assert_type(queue.size(), int)


def store(url: str, engine: Engine, order: Order) -> None:
    flashsale.stores.SQLAlchemyStore(engine, "s")
    ours = flashsale.stores.SQLAlchemyStore(url, "s")
    ours.create_all()
    ours.put_goods(Goods("g", 1))
    ours.close()
    store: OrderStore = ours
    assert_type(store.goods(), Iterable[Goods])
    assert_type(store.save([order]), Saved)
    assert_type(store.states(["o"]), Mapping[str, OrderState])
    assert_type(store.settle(order, OrderState.CANCELLED), OrderState)
    assert_type(store.orders(), Sequence[StoredOrder])
    assert_type(store.orders(after="o", limit=10), Sequence[StoredOrder])
    store.grant("g", 1)
    store.grant("g", 1, loaded=True)
    assert_type(store.restock("g", -1), Goods)
    assert_type(store.epoch(), int)
    assert_type(store.advance_epoch(), int)


# -- asyncio --------------------------------------------------------------------------------------------------------


async def async_clients(one: redis.asyncio.Redis, cluster: redis.asyncio.cluster.RedisCluster) -> None:
    for client in (one, cluster):
        await flashsale.aio.FlashSale(client, "s").aclose()


async def async_sale(client: redis.asyncio.Redis, store: AsyncOrderStore) -> None:
    await flashsale.aio.FlashSale(client, "s").aclose()
    async with flashsale.aio.FlashSale(
        client,
        "s",
        gate_client=client,
        gate_replica=client,
        store=store,
        keys=PlainKeys(),
        cache_for=0.05,
        max_waiting=10_000,
        observer=Metrics(),
    ) as sale:
        assert_type(sale, flashsale.aio.FlashSale)
        assert_type(sale.gate, flashsale.aio.Gate)
        assert_type(sale.inventory, flashsale.aio.Inventory)
        assert_type(sale.queue, flashsale.aio.OrderQueue)
        assert_type(sale.store, AsyncOrderStore | None)
        assert_type(sale.keys, Keys)
        await sale.preload("g", 1)
        await sale.preload("g", 1, per_buyer=1, opens_at=1.0, closes_at=2.0, hold=1.0)
        await sale.start("g")
        await sale.stop("g")
        await sale.pause()
        await sale.resume()
        assert_type(await sale.buy("g", "b"), Receipt)
        assert_type(await sale.buy("g", "b", 2, order_id="o", data=[1, {}]), Receipt)
        assert_type(await sale.status("o"), OrderState | None)
        assert_type(await sale.cancel("o"), OrderState | None)
        assert_type(await sale.confirm("o"), OrderState | None)
        assert_type(await sale.buy_basket("b", [("g", 1), ("h", 2)]), BasketReceipt)
        assert_type(await sale.buy_basket("b", {"g": 1}.items(), basket_id="b-1", data={}), BasketReceipt)
        assert_type(await sale.cancel_basket("b-1"), dict[str, OrderState | None])
        assert_type(await sale.confirm_basket("b-1"), dict[str, OrderState | None])
        assert_type(await sale.extend_hold("o", 60.0), bool)
        assert_type(await sale.restock("g", -1), int)

        flashsale.aio.Worker(sale)
        worker = flashsale.aio.Worker(sale, batch=500, lease=30.0)
        await worker.run(asyncio.Event())
        await worker.run()
        assert_type(await worker.run_once(), int)

        flashsale.aio.Syncer(sale)
        syncer = flashsale.aio.Syncer(sale, interval=1.0)
        await syncer.run(asyncio.Event())
        await syncer.run()
        assert_type(await syncer.run_once(), SyncReport)
        assert_type(await syncer.audit(), Audit)
        assert_type(await syncer.audit(expected=["o"]), Audit)
        assert_type(await syncer.repair(), Repair)
        assert_type((await syncer.repair(dry_run=False)).mended, tuple[Disagreement, ...])
        assert_type(await syncer.rebuild(), Rebuild)
        # place for syncer.settlement() and syncer.purge(), and for sale.check()


async def async_gate(client: redis.asyncio.Redis) -> None:
    flashsale.aio.Gate(client, "s")
    async with flashsale.aio.Gate(client, "s", replica=client, keys=Keys(), cache_for=0.05) as gate:
        await gate.preload("g", 1)
        await gate.start("g")
        await gate.stop("g")
        assert_type(await gate.resize("g", 2), int)
        await gate.schedule("g")
        await gate.schedule("g", opens_at=1.0, closes_at=2.0)
        assert_type(await gate.enter("g"), Admission)
        assert_type(await gate.enter("g", 2), Admission)
        assert_type(await gate.leave("g"), int)
        assert_type(await gate.leave("g", 2), int)
        assert_type(await gate.state("g"), GateState)


async def async_inventory(client: redis.asyncio.Redis, orders: Sequence[Order]) -> None:
    flashsale.aio.Inventory(client, "s")
    async with flashsale.aio.Inventory(client, "s", keys=Keys()) as inventory:
        assert_type(await inventory.load_scripts(), list[str])
        await inventory.preload("g", 1)
        await inventory.preload("g", 1, booked=0, per_buyer=1, opens_at=1.0, closes_at=2.0)
        assert_type(await inventory.deduct("g"), int)
        assert_type(await inventory.deduct("g", 2), int)
        assert_type(await inventory.release("g"), int)
        assert_type(await inventory.release("g", 2), int)
        assert_type(await inventory.stock("g"), Stock)
        assert_type(await inventory.reserve(orders), list[Receipt])
        assert_type(await inventory.reserve(orders, together=True), list[Receipt])


async def async_queue(client: redis.asyncio.Redis, order: Order) -> None:
    flashsale.aio.OrderQueue(client, "s")
    async with flashsale.aio.OrderQueue(client, "s", keys=Keys()) as queue:
        assert_type(await queue.push(order), int)
        assert_type(await queue.pop(), Order | None)
        assert_type(await queue.pop(0), Order | None)
        assert_type(await queue.pop(timeout=1.5), Order | None)
        claims = await queue.claim()
        assert_type(claims, list[Claim])
        assert_type(await queue.claim(100, lease=30.0, timeout=1.0), list[Claim])
        await queue.ack(claims)
        await queue.nack(claims)
        await queue.nack(claims, delay=1.0)
        await queue.extend(claims)
        await queue.extend(claims, lease=30.0)
        assert_type(await queue.dead(), list[Claim])
        assert_type(await queue.dead(10), list[Claim])
        assert_type(await queue.requeue_dead(), int)
        assert_type(await queue.size(), int)


def own_stores(ours: flashsale.stores.RowStore[Any], theirs: flashsale.aio.stores.RowStore[Any]) -> None:
    store: OrderStore = ours
    async_store: AsyncOrderStore = theirs
    sqlalchemy: type[flashsale.stores.RowStore[Any]] = flashsale.stores.SQLAlchemyStore
    ours.put_goods(Goods("g", 1))
    print(store, async_store, sqlalchemy)


async def async_store(url: str, engine: AsyncEngine, order: Order) -> None:
    flashsale.aio.stores.SQLAlchemyStore(engine, "s")
    ours = flashsale.aio.stores.SQLAlchemyStore(url, "s")
    await ours.create_all()
    await ours.put_goods(Goods("g", 1))
    await ours.aclose()
    store: AsyncOrderStore = ours
    assert_type(await store.goods(), Iterable[Goods])
    assert_type(await store.save([order]), Saved)
    assert_type(await store.states(["o"]), Mapping[str, OrderState])
    assert_type(await store.settle(order, OrderState.CANCELLED), OrderState)
    assert_type(await store.orders(), Sequence[StoredOrder])
    assert_type(await store.orders(after="o", limit=10), Sequence[StoredOrder])
    await store.grant("g", 1)
    await store.grant("g", 1, loaded=True)
    assert_type(await store.restock("g", -1), Goods)
    assert_type(await store.epoch(), int)
    assert_type(await store.advance_epoch(), int)
