"""The end of a sale: the proof that every unit is accounted for, and only then its keys are removed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, NotSettled, OrderState, Outcome, PlainKeys, StoreError
from flashsale.model.reports import Settlement, Units
from tests.support.helpers import Awaited, order, settled, snapshot
from tests.support.sales import active_units, booked, each_backend, rows, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop

QUEUED, PERSISTED, CONFIRMED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, REJECTED = OrderState.CANCELLED, OrderState.REJECTED


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsale._sync.auditor.BETWEEN", 0.01)
    monkeypatch.setattr("flashsale.aio.auditor.BETWEEN", 0.01)


async def opened(shop: Shop, **settings: Any) -> tuple[Awaited, Awaited]:
    """A started sale of four phones, and its syncer."""
    sale = shop.sale(store=await shop.store(Goods("phone", 4, hold=900)), cache_for=60, **settings)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    return sale, syncer


async def finished(shop: Shop, sale: Awaited) -> None:
    """Two units paid, one cancelled, one that the guard refused, and two refusals."""
    for name, units in {"a": 1, "b": 1, "c": 1, "d": 1}.items():
        await sale.buy("phone", "ann", units, order_id=name)
    for _ in range(2):
        assert (await sale.buy("phone", "late")).outcome is Outcome.SOLD_OUT
    shop.sql("UPDATE flashsale_goods SET granted = 3")
    await work(shop, sale)
    shop.sql("UPDATE flashsale_goods SET granted = 4")
    states = await rows(sale)
    paid = [name for name in "abcd" if states[name] is PERSISTED]
    for name in paid[:2]:
        await sale.confirm(name)
    await sale.cancel(paid[2])


# -- the proof ------------------------------------------------------------------------------------------------------


@each_backend
async def test_a_sale_that_is_over_is_settled(shop: Shop) -> None:
    sale, syncer = await opened(shop)
    await finished(shop, sale)
    before = snapshot(shop.raw)
    settlement = await syncer.settlement()
    assert isinstance(settlement, Settlement)
    assert settlement.ok
    assert settlement.audit.units == Units(total=4, free=2, sold=2)
    assert settlement.orders == {CONFIRMED: 2, CANCELLED: 1, REJECTED: 1}
    assert (settlement.gate["phone"].count, settlement.gate["phone"].access) == (4, 2)
    assert settlement.refused == {"phone": 2}
    assert snapshot(shop.raw) == before


@each_backend
async def test_a_sale_in_which_nobody_bought_is_settled(shop: Shop) -> None:
    _, syncer = await opened(shop)
    settlement = await syncer.settlement()
    assert (settlement.ok, settlement.orders, settlement.audit.units.free) == (True, {}, 4)


@each_backend
async def test_units_that_another_program_sold_are_accounted_for(shop: Shop) -> None:
    sale, syncer = await opened(shop)
    await sale.inventory.deduct("phone", 3)
    settlement = await syncer.settlement()
    assert (settlement.ok, settlement.audit.units) == (True, Units(total=4, free=1, direct=3))


# -- what is not over -----------------------------------------------------------------------------------------------


async def queued(shop: Shop, sale: Awaited) -> None:
    await sale.buy("phone", "ann", order_id="open")


async def held(shop: Shop, sale: Awaited) -> None:
    await sale.buy("phone", "ann", order_id="open")
    await work(shop, sale)


async def dead(shop: Shop, sale: Awaited) -> None:
    await sale.buy("phone", "ann", order_id="open")
    await sale.queue._bury(await sale.queue.claim())


async def pushed(shop: Shop, sale: Awaited) -> None:
    """By an external program, and not adopted yet."""
    body = {"order_id": "external", "goods_id": "phone", "buyer_id": "ann", "quantity": 1}
    shop.raw.lpush(shop.keys.order_list, json.dumps(body))


async def claimed(shop: Shop, sale: Awaited) -> None:
    await pushed(shop, sale)
    assert await sale.queue.claim(lease=60)


async def unreadable(shop: Shop, sale: Awaited) -> None:
    shop.raw.lpush(shop.keys.order_list, b"\xff\x00")


async def behind(shop: Shop, sale: Awaited) -> None:
    await held(shop, sale)
    await settled(sale.store.settle(order("open"), CANCELLED))


async def unknown(shop: Shop, sale: Awaited) -> None:
    await settled(sale.store.save([order("stranger")]))


async def lost(shop: Shop, sale: Awaited) -> None:
    await held(shop, sale)
    await sale.confirm("open")
    shop.raw.flushall()


async def closed(shop: Shop, sale: Awaited) -> None:
    await settled(sale.real._meta.close(2))
    await queued(shop, sale)
    shop.raw.hset(shop.keys.orders, "open", "QUEUED|1|1|phone|1|ann")


UNFINISHED: dict[str, Callable[[Shop, Awaited], Awaitable[None]]] = {
    made.__name__: made for made in (queued, held, dead, pushed, claimed, unreadable, behind, unknown, lost, closed)
}


@pytest.mark.parametrize("why", UNFINISHED)
@each_backend
async def test_a_sale_that_is_not_over_is_not_purged(shop: Shop, why: str) -> None:
    sale, syncer = await opened(shop)
    await UNFINISHED[why](shop, sale)
    before = snapshot(shop.raw)
    assert not (await syncer.settlement()).ok
    with pytest.raises(NotSettled) as caught:
        await syncer.purge()
    assert not caught.value.settlement.ok
    assert snapshot(shop.raw) == before
    assert "ann" not in str(caught.value)


# -- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.one_server  # that has the neighbours
@pytest.mark.parametrize("two", [False, True], ids=["one Redis", "two Redis"])
@each_backend
async def test_a_purge_removes_every_key_of_the_sale_and_no_other(shop: Shop, two: bool) -> None:
    sale, syncer = await opened(shop, **({"gate_client": shop.client(db=1)} if two else {}))
    gate = shop.backend.raw(db=1)
    neighbours = [
        "flashsale:{spring2}:meta",
        "flashsale:{sprin}:phone:stock",
        "flashsale:{spring}",
        "phone",
        "orderList",
    ]
    for raw in (shop.raw, gate):
        for key in neighbours:
            raw.set(key, "theirs")
    await finished(shop, sale)
    assert len(shop.raw.keys("flashsale:{spring}:*")) >= 5
    rows_before = await settled(sale.store.orders())
    settlement = await syncer.purge()
    assert settlement.ok
    for raw in (shop.raw, gate):
        assert sorted(key.decode() for key in raw.keys("*")) == sorted(neighbours)
    assert await settled(sale.store.orders()) == rows_before  # the database keeps everything
    assert (await syncer.run_once()).missing == ("phone",)  # and nobody loads it a second time
    with pytest.raises(NotSettled):
        await syncer.purge()


@pytest.mark.one_server
@each_backend
async def test_the_articles_keys_are_purged_as_well(shop: Shop) -> None:
    keys = PlainKeys()
    store = await shop.store(Goods("phone", 4))
    sale = shop.sale(store=store, keys=keys)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await sale.start("phone")
    await sale.buy("phone", "ann", order_id="o-1")
    worker = shop.worker(sale)
    while await worker.run_once():
        pass
    await sale.confirm("o-1")
    shop.raw.set("other", 1)
    assert shop.raw.exists("phone", "phone_count") == 2
    await syncer.purge()
    assert shop.raw.keys("*") == [b"other"]


@each_backend
async def test_a_purge_that_died_half_way_is_finished_by_the_next(shop: Shop) -> None:
    sale, syncer = await opened(shop)
    await finished(shop, sale)
    await settled(sale.real.gate._forget(["phone"]))
    assert (await syncer.purge()).ok
    assert shop.raw.keys("*") == []


@each_backend
async def test_nobody_buys_between_the_proof_and_the_removal(shop: Shop) -> None:
    sale, syncer = await opened(shop)
    outcomes: list[Outcome] = []
    settlement, forget = syncer.real.settlement, sale.real._forget
    buyers = iter(["first"])

    async def aproof() -> Any:
        proof = await settlement()
        for name in buyers:
            outcomes.append((await sale.real.buy("phone", "ann", order_id=name)).outcome)
        return proof

    def proof_() -> Any:
        proof = settlement()
        for name in buyers:
            outcomes.append(sale.real.buy("phone", "ann", order_id=name).outcome)
        return proof

    syncer.real.settlement = aproof if shop.is_async else proof_
    with pytest.raises(NotSettled):
        await syncer.purge()
    assert outcomes == [Outcome.ACCEPTED]
    assert await sale.status("first") is QUEUED
    assert (await sale.buy("phone", "bob", order_id="goes-on")).accepted  # the sale goes on

    async def aremoval() -> None:
        outcomes.append((await sale.real.buy("phone", "ann", order_id="second")).outcome)
        await forget()

    def removal() -> None:
        outcomes.append(sale.real.buy("phone", "ann", order_id="second").outcome)
        forget()

    await work(shop, sale)
    for name in ("first", "goes-on"):
        await sale.confirm(name)
    sale.real._forget = aremoval if shop.is_async else removal
    await syncer.purge()
    assert outcomes == [Outcome.ACCEPTED, Outcome.PAUSED]
    assert shop.raw.keys("*") == []


@each_backend
async def test_a_purge_that_fails_leaves_the_sale_open(shop: Shop) -> None:
    sale, syncer = await opened(shop)
    await finished(shop, sale)
    looks = [syncer.real.settlement]

    def look() -> Any:
        if not looks:
            raise StoreError("the database is away")
        return looks.pop()()

    syncer.real.settlement = look
    with pytest.raises(StoreError):
        await syncer.purge()
    assert (await sale.buy("phone", "bob")).outcome is not Outcome.PAUSED


@each_backend
async def test_a_sale_that_was_paused_is_purged_or_stays_paused(shop: Shop) -> None:
    sale, syncer = await opened(shop)
    await sale.buy("phone", "ann", order_id="o-1")
    await sale.pause()
    with pytest.raises(NotSettled):
        await syncer.purge()
    assert (await sale.buy("phone", "bob")).outcome is Outcome.PAUSED
    await sale.cancel("o-1")
    await work(shop, sale)
    await syncer.purge()
    assert shop.raw.keys("*") == []


@each_backend
async def test_forgetting_asks_nobody(shop: Shop) -> None:
    sale, _ = await opened(shop)
    await sale.buy("phone", "ann")
    await sale._forget()
    assert shop.raw.keys("*") == []
    await sale._forget()


# -- two sales ------------------------------------------------------------------------------------------------------


@pytest.mark.one_server
@each_backend
async def test_two_sales_with_the_same_order_ids_do_not_disturb_each_other(shop: Shop) -> None:
    """One Redis, one database, the same item and the same ids in both."""
    stores = shop.api.stores if hasattr(shop.api, "stores") else __import__(f"{shop.api.__name__}.stores").stores
    await shop.store()
    sales: dict[str, Awaited] = {}
    for name in ("spring", "autumn"):
        store = Awaited(stores.SQLAlchemyStore(f"sqlite:///{shop.database}", name), shop._threads)
        shop._opened.append(store)
        await store.put_goods(Goods("phone", 5, per_buyer=3))
        sales[name] = shop.make("FlashSale", shop.client(), name, store=store, cache_for=0)
        await shop.syncer(sales[name]).run_once()
        await sales[name].start("phone")
    spring, autumn = sales.values()
    for sale, units in ((spring, 1), (autumn, 2)):
        for name in ("o-1", "o-2"):
            receipt = await sale.buy("phone", "ann", units if name == "o-1" else 1, order_id=name)
            assert (receipt.accepted, receipt.replayed) == (True, False)
    await shop.worker(spring).run_once()

    async def seen(sale: Awaited) -> tuple[Any, ...]:
        return [await sale.status(name) for name in ("o-1", "o-2")], await booked(sale), await active_units(sale)

    assert await seen(spring) == ([PERSISTED, PERSISTED], 2, 2)
    assert await seen(autumn) == ([QUEUED, QUEUED], 3, 0)
    await spring.cancel("o-1")
    await spring.confirm("o-2")
    await spring.pause()
    assert await seen(autumn) == ([QUEUED, QUEUED], 3, 0)
    await shop.worker(autumn).run_once()
    assert await autumn.cancel("o-2") is CANCELLED
    assert await seen(spring) == ([CANCELLED, CONFIRMED], 1, 1)
    assert await seen(autumn) == ([PERSISTED, CANCELLED], 2, 2)
    await spring.resume()
    await shop.syncer(spring).rebuild()
    assert await seen(autumn) == ([PERSISTED, CANCELLED], 2, 2)
    assert await seen(spring) == ([CANCELLED, CONFIRMED], 1, 1)
    assert int(shop.raw.hget("flashsale:{autumn}:meta", "epoch")) == 1
    for sale in sales.values():
        assert (await shop.syncer(sale).audit(["o-1", "o-2"])).ok
    assert (await shop.syncer(spring).purge()).orders == {CANCELLED: 1, CONFIRMED: 1}
    assert {key.decode().split(":")[1] for key in shop.raw.keys("*")} == {"{autumn}"}
    assert await seen(autumn) == ([PERSISTED, CANCELLED], 2, 2)
    assert (await autumn.buy("phone", "bob", 3)).accepted
