"""`Syncer.audit` and `.repair`: what disagrees is named and mended, order by order; a healthy sale is never accused."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

import flashsale
from flashsale import Goods, NotPersisted, OrderState
from flashsale.model.reports import Audit, Problem, Repair, Units
from tests.support.helpers import Awaited, inside, order, settled, snapshot, until
from tests.support.sales import active_units, booked, each_backend, rows, work

if TYPE_CHECKING:
    from tests.conftest import Backend
    from tests.support.helpers import Shop

QUEUED, PERSISTED, CONFIRMED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, DEAD = OrderState.CANCELLED, OrderState.DEAD


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks again at once: where nothing moves there is nothing to wait for."""
    monkeypatch.setattr("flashsale._sync.auditor.BETWEEN", 0.01)
    monkeypatch.setattr("flashsale.aio.auditor.BETWEEN", 0.01)


def adds_up(units: Units) -> bool:
    places = units.free + units.queued + units.held + units.sold + units.dead + units.direct
    return units.total == places and units.agree


def both_sides(shop: Shop) -> tuple[Any, ...]:
    """All that Redis and the database hold."""
    tables = ("goods", "orders", "sales", "events")
    return (snapshot(shop.raw), *(shop.sql(f"SELECT * FROM flashsale_{name}") for name in tables))


async def found(syncer: Awaited) -> list[tuple[str, Problem]]:
    return [(each.order_id, each.problem) for each in (await syncer.audit()).orders]


# -- a healthy sale -------------------------------------------------------------------------------------------------


@each_backend
async def test_every_unit_has_its_place(shop: Shop) -> None:
    store = await shop.store(Goods("phone", 100, hold=900), Goods("case", 7))
    sale = shop.sale(store=store)
    await shop.open(100, sale=sale, hold=900)
    await shop.open(7, sale=sale, goods_id="case")
    for n, name in enumerate(["held", "sold", "dead", "gone"], start=1):
        await sale.buy("phone", "ann", n, order_id=name)
    claims = {claim.order.order_id: claim for claim in await sale.queue.claim()}
    await sale.queue._bury([claims.pop("dead")])
    await sale.queue.nack(claims.values())
    await work(shop, sale)
    await sale.confirm("sold")
    await sale.cancel("gone")
    await sale.inventory.deduct("phone", 20)
    await sale.buy("phone", "ann", 5, order_id="queued")
    await sale.buy("case", "ann", 7, order_id="claimed")
    await sale.queue.claim(1)
    audit = await shop.syncer(sale).audit()
    assert audit.goods["phone"] == Units(total=100, free=69, queued=5, held=1, sold=2, dead=3, direct=20)
    assert audit.goods["case"] == Units(total=7, queued=7)
    assert audit.units == Units(total=107, free=69, queued=12, held=1, sold=2, dead=3, direct=20)
    assert adds_up(audit.units)
    assert (audit.ok, audit.orders, audit.lost, audit.pending, audit.unreadable, audit.moving) == (
        True,
        (),
        (),
        2,
        0,
        False,
    )


@each_backend
async def test_an_audit_changes_nothing(shop: Shop) -> None:
    sale = await shop.open(store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    shop.raw.delete(shop.keys.order_list)
    before = both_sides(shop)
    await shop.syncer(sale).audit(["o-1", "o-2"])
    assert both_sides(shop) == before


async def test_a_sale_without_orders_is_in_order(shop: Shop) -> None:
    sale = shop.sale(store=await shop.store(Goods("phone", 0)))
    audit = await shop.syncer(sale).audit()
    assert (audit.ok, audit.units) == (True, Units())


async def test_a_live_sale_is_never_accused(real_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buyers, a worker, payments, cancellations and a syncer at full speed, and one audit after the other."""
    monkeypatch.setattr(inside(real_shop.api, "auditor"), "BETWEEN", 0.2)  # a step may take long on a slow machine
    shop = real_shop
    total = 100_000
    sale = shop.sale(store=await shop.store(Goods("phone", total, hold=900)), cache_for=0)
    await shop.open(total, sale=sale, hold=900)
    syncer, auditor = shop.syncer(sale, interval=0.05), shop.syncer(sale)
    stop = asyncio.Event() if shop.is_async else threading.Event()
    acknowledged: list[str] = []
    numbers = itertools.count()

    async def buy() -> None:
        while not stop.is_set():
            name = f"o-{next(numbers)}"
            assert (await sale.buy("phone", f"buyer-{name}", order_id=name)).accepted
            acknowledged.append(name)
            await asyncio.sleep(0.002)

    async def decide(verb: str) -> None:
        dice = random.Random(verb)
        while not stop.is_set():
            await asyncio.sleep(0.005)
            if acknowledged:
                with contextlib.suppress(NotPersisted):
                    await getattr(sale, verb)(dice.choice(acknowledged))

    crowd = [buy() for _ in range(4)] + [decide("confirm"), decide("cancel"), decide("cancel")]
    crowd += [shop.worker(sale, batch=20).run(stop), syncer.run(stop)]
    running = [asyncio.ensure_future(each) for each in crowd]
    try:
        looks = 0
        while looks < 5 or len(acknowledged) < 400:
            told = list(acknowledged)
            audit = await auditor.audit(told)
            assert (audit.orders, audit.lost, audit.unreadable) == ((), (), 0)
            assert audit.moving or adds_up(audit.units)
            looks += 1
    finally:
        stop.set()
        for each in running:
            await each
    await work(shop, sale)
    audit = await auditor.audit(acknowledged)
    assert audit.ok
    assert not audit.moving
    assert adds_up(audit.units)
    states = await rows(sale)
    assert (audit.units.total, audit.units.queued, audit.pending) == (total, 0, 0)
    counts = Counter(states.values())
    assert (audit.units.held, audit.units.sold) == (counts[PERSISTED], counts[CONFIRMED])
    assert await booked(sale) == await active_units(sale) == audit.units.held + audit.units.sold


@each_backend
def test_one_sold_for_one_returned_in_the_midst_is_seen(backend: Backend, tmp_path) -> None:
    """The stock is as before, and the units that were counted are not the units that are there."""
    with (
        flashsale.stores.SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "spring") as store,
        flashsale.FlashSale(backend.client(), "spring", store=store) as sale,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 9))
        sale.preload("phone", 9)
        sale.start("phone")
        sale.buy("phone", "ann", order_id="o-1")
        pages = sale._ledger.pages
        turns = iter("x")

        def pages_of_a_sale_that_goes_on() -> Any:
            yield from pages()
            for _ in turns:
                sale.cancel("o-1")
                sale.buy("phone", "bob", order_id="o-2")
                yield from pages()

        sale._ledger.pages = pages_of_a_sale_that_goes_on
        audit = flashsale.Syncer(sale).audit()
        assert audit.moving or adds_up(audit.units)
        assert audit.ok


@pytest.mark.parametrize(("bought", "looks"), [(0, 1), (3, 2), (12, 1)])
def test_a_sale_that_moves_fast_is_summed_once(backend: Backend, tmp_path, bought: int, looks: int) -> None:
    """After a few purchases the second look may find it still; after many there is no hope."""
    with (
        flashsale.stores.SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "spring") as store,
        flashsale.FlashSale(backend.client(), "spring", store=store) as sale,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 99))
        sale.preload("phone", 99)
        sale.start("phone")
        pages, ids = sale._ledger.pages, iter(f"o-{number}" for number in range(bought))
        begun: list[str] = []

        def pages_of_a_sale_that_goes_on() -> Any:
            begun.append("a look")
            yield from pages()
            for order_id in ids:
                sale.buy("phone", "bob", order_id=order_id)

        sale._ledger.pages = pages_of_a_sale_that_goes_on
        audit = flashsale.Syncer(sale).audit()
        assert (len(begun), audit.moving, audit.ok) == (looks, bought == 12, True)


@each_backend
async def test_what_a_worker_has_in_hand_is_no_problem(shop: Shop) -> None:
    sale = await shop.open(store=True)
    for name in ("listed", "claimed", "committed"):
        await sale.buy("phone", "ann", order_id=name)
    claims = await sale.queue.claim(3)
    await settled(sale.store.save([claims[2].order]))
    await sale.queue.nack(claims[:1])
    assert (await shop.syncer(sale).audit()).ok


# -- each problem ---------------------------------------------------------------------------------------------------

Break = Callable[["Shop", Awaited], Awaitable[Any]]


async def bought(shop: Shop, sale: Awaited, *, persisted: bool = True) -> None:
    await sale.buy("phone", "ann", 2, order_id="o-1")
    if persisted:
        await work(shop, sale)


async def not_queued(shop: Shop, sale: Awaited) -> None:
    await bought(shop, sale, persisted=False)
    shop.raw.delete(shop.keys.order_list)


async def no_row(shop: Shop, sale: Awaited) -> None:
    await bought(shop, sale)
    shop.sql("DELETE FROM flashsale_orders WHERE order_id = 'o-1'")
    shop.sql("UPDATE flashsale_goods SET booked = booked - 2")


async def behind(shop: Shop, sale: Awaited) -> None:
    await bought(shop, sale)
    await settled(sale.store.settle(order("o-1", quantity=2), CANCELLED))


async def behind_and_dead(shop: Shop, sale: Awaited) -> None:
    """The row was written, but the worker never said so, five times."""
    await bought(shop, sale, persisted=False)
    claims = await sale.queue.claim()
    await settled(sale.store.save([claim.order for claim in claims]))
    await sale.queue._bury(claims)


async def ahead(shop: Shop, sale: Awaited) -> None:
    await bought(shop, sale)
    await sale.confirm("o-1")
    shop.sql("UPDATE flashsale_orders SET state = 'PERSISTED' WHERE order_id = 'o-1'")  # a backup was played back


async def unknown(shop: Shop, sale: Awaited) -> None:
    await settled(sale.store.save([order("o-1", quantity=2)]))


async def released(shop: Shop, sale: Awaited) -> None:
    await bought(shop, sale)
    await sale.cancel("o-1")
    shop.sql("UPDATE flashsale_orders SET state = 'PERSISTED' WHERE order_id = 'o-1'")
    shop.sql("UPDATE flashsale_goods SET booked = booked + 2")


async def no_letter(shop: Shop, sale: Awaited) -> None:
    await bought(shop, sale, persisted=False)
    await sale.queue._bury(await sale.queue.claim())
    shop.raw.delete(shop.keys.dead)


async def no_deadline(shop: Shop, sale: Awaited) -> None:
    await bought(shop, sale)
    shop.raw.zrem(shop.keys.holds, "o-1")


PROBLEMS: dict[str, tuple[Break, Problem, OrderState | None, OrderState | None, int]] = {
    "an element of the list was removed": (not_queued, Problem.NOT_QUEUED, QUEUED, None, 2),
    "a row was deleted": (no_row, Problem.NO_ROW, PERSISTED, None, 2),
    "the ledger is behind": (behind, Problem.BEHIND, PERSISTED, CANCELLED, 0),
    "dead, but written": (behind_and_dead, Problem.BEHIND, DEAD, PERSISTED, 2),
    "the ledger is ahead": (ahead, Problem.AHEAD, CONFIRMED, PERSISTED, 2),
    "a row of a stranger": (unknown, Problem.UNKNOWN, None, PERSISTED, 2),
    "released but active": (released, Problem.RELEASED, CANCELLED, PERSISTED, 2),
    "a dead letter was deleted": (no_letter, Problem.NO_LETTER, DEAD, None, 2),
    "no deadline": (no_deadline, Problem.NO_DEADLINE, PERSISTED, PERSISTED, 2),
}


def test_every_problem_is_made_here() -> None:
    assert {problem for _, problem, *_ in PROBLEMS.values()} == set(Problem)


@pytest.mark.parametrize("name", PROBLEMS)
@each_backend
async def test_a_problem_is_found_named_and_mended(shop: Shop, name: str) -> None:
    make, problem, ledger, row, units = PROBLEMS[name]
    sale = await shop.open(10, store=True, hold=900, per_buyer=9)
    await sale.buy("phone", "bob", 3, order_id="healthy")
    await work(shop, sale)
    syncer = shop.syncer(sale)
    assert (await syncer.audit()).ok
    await make(shop, sale)
    broken = both_sides(shop)

    audit = await syncer.audit()
    ((disagreement),) = audit.orders
    assert (disagreement.order_id, disagreement.problem) == ("o-1", problem)
    assert (disagreement.ledger, disagreement.database) == (ledger, row)
    assert disagreement.order.content == ("phone", "ann", 2)
    assert not audit.ok

    trust = {"trust_ledger": True} if problem is Problem.AHEAD else {}
    if trust:  # the ledger is no proof of a payment
        assert (await syncer.repair()).mended == (await syncer.repair(dry_run=False)).mended == ()
        assert both_sides(shop) == broken
    dry = await syncer.repair(**trust)
    assert (dry.dry_run, [each.order_id for each in dry.mended]) == (True, ["o-1"])
    assert both_sides(shop) == broken

    mended = await syncer.repair(dry_run=False, **trust)
    assert isinstance(mended, Repair)
    assert (mended.dry_run, mended.mended, mended.audit.orders) == (False, (disagreement,), (disagreement,))
    assert (await syncer.audit()).ok
    await work(shop, sale)
    audit = await syncer.audit(["o-1", "healthy"])
    assert audit.ok
    assert adds_up(audit.units)
    assert await booked(sale) == await active_units(sale) == units + 3
    assert shop.sql("SELECT booked FROM flashsale_goods") == [(units + 3,)]
    assert int(shop.raw.hget(shop.keys.buyers("phone"), "ann") or 0) == units
    assert await sale.status("o-1") is (await rows(sale))["o-1"]
    assert (await sale.status("healthy"), (await rows(sale))["healthy"]) == (PERSISTED, PERSISTED)
    assert (await sale.status("o-1") is PERSISTED) == (shop.raw.zscore(shop.keys.holds, "o-1") is not None)
    assert (await syncer.repair(dry_run=False)).mended == ()


@each_backend
async def test_a_paid_order_without_a_row_takes_two_repairs(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await bought(shop, sale)
    await sale.confirm("o-1")
    shop.sql("DELETE FROM flashsale_orders")
    shop.sql("UPDATE flashsale_goods SET booked = 0")
    syncer = shop.syncer(sale)
    assert await found(syncer) == [("o-1", Problem.NO_ROW)]
    await syncer.repair(dry_run=False)
    await work(shop, sale)
    assert await found(syncer) == [("o-1", Problem.AHEAD)]
    await syncer.repair(dry_run=False, trust_ledger=True)
    assert (await syncer.audit()).ok
    assert await rows(sale) == {"o-1": CONFIRMED}
    assert await booked(sale) == 2


@each_backend
async def test_many_problems_are_all_named_and_only_they_are_touched(shop: Shop) -> None:
    sale = await shop.open(50, store=True)
    for n in range(20):
        await sale.buy("phone", "ann", order_id=f"o-{n:02}")
    await work(shop, sale)
    for n in (3, 7):
        await settled(sale.store.settle(order(f"o-{n:02}"), CANCELLED))
    await settled(sale.store.save([order("stranger")]))
    await sale.confirm("o-11")
    syncer = shop.syncer(sale)
    assert await found(syncer) == [
        ("o-03", Problem.BEHIND),
        ("o-07", Problem.BEHIND),
        ("stranger", Problem.UNKNOWN),
    ]
    before = shop.raw.hgetall(shop.keys.orders)
    assert len((await syncer.repair(dry_run=False)).mended) == 3
    after = shop.raw.hgetall(shop.keys.orders)
    assert {name for name in after if after[name] != before.get(name)} == {b"o-03", b"o-07", b"stranger"}
    assert (await syncer.audit()).ok


@each_backend
async def test_what_a_repair_cannot_mend_is_not_called_mended(shop: Shop) -> None:
    """Redis lost the item: only a rebuild brings them back."""
    sale = await shop.open(10, store=True)
    await shop.syncer(sale).run_once()
    await bought(shop, sale)
    shop.raw.flushall()
    syncer = shop.syncer(sale)
    audit = await syncer.audit()
    assert [(each.order_id, each.problem) for each in audit.orders] == [("o-1", Problem.UNKNOWN)]
    before = snapshot(shop.raw)
    assert (await syncer.repair(dry_run=False)).mended == ()
    assert snapshot(shop.raw) == before


@each_backend
async def test_units_that_no_order_holds_are_found(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await bought(shop, sale)
    syncer = shop.syncer(sale)
    shop.raw.hincrby(shop.keys.stock("phone"), "Ledger", 1)
    shop.raw.hincrby(shop.keys.stock("phone"), "Booked", 1)
    audit = await syncer.audit()
    assert (audit.ok, audit.orders, audit.moving) == (False, (), False)
    assert not audit.goods["phone"].agree
    assert not adds_up(audit.units)


@each_backend
async def test_more_booked_than_for_sale_shows_as_less_than_nothing_free(shop: Shop) -> None:
    sale = await shop.open(2, store=True)
    await bought(shop, sale)
    shop.sql("UPDATE flashsale_goods SET granted = 10")
    await settled(sale.store.save([order("stranger", quantity=3)]))
    await shop.syncer(sale).repair(dry_run=False)
    audit = await shop.syncer(sale).audit()
    assert audit.units == Units(total=2, free=-3, held=5)
    assert audit.ok


@each_backend
async def test_elements_that_are_no_orders_are_counted(shop: Shop) -> None:
    sale = await shop.open(store=True)
    shop.raw.lpush(shop.keys.order_list, b"\xff", b"{}", b"[1]")
    await sale.queue.claim(1)
    audit = await shop.syncer(sale).audit()
    assert (audit.unreadable, audit.orders, audit.ok) == (3, (), False)


# -- acknowledged orders --------------------------------------------------------------------------------------------


@each_backend
async def test_acknowledged_orders_that_no_system_holds_are_named(shop: Shop) -> None:
    sale = await shop.open(20, store=True)
    for name in ("persisted", "cancelled", "dead", "claimed", "listed"):
        await sale.buy("phone", "ann", order_id=name)
    claims = {claim.order.order_id: claim for claim in await sale.queue.claim()}
    await sale.queue._bury([claims["dead"]])
    await settled(sale.store.save([claims["persisted"].order]))
    await sale.queue.ack([claims["persisted"]])
    await sale.cancel("cancelled")
    await sale.queue.nack([claims["listed"]])
    await sale.queue.push(order("external"))
    told = ["persisted", "cancelled", "dead", "claimed", "listed", "external", "lost-1", "lost-2"]
    syncer = shop.syncer(sale)
    audit = await syncer.audit(told)
    assert (audit.lost, audit.orders, audit.ok) == (("lost-1", "lost-2"), (), False)
    shop.raw.delete(shop.keys.orders)  # the letter, the claims, the list and the rows still hold theirs
    assert (await syncer.audit(iter(told))).lost == ("lost-1", "lost-2")
    shop.raw.delete(shop.keys.dead, shop.keys.claimed)
    assert (await syncer.audit(told)).lost == ("dead", "claimed", "listed", "lost-1", "lost-2")


@each_backend
async def test_thousands_of_expected_ids_are_asked_for_in_parts(shop: Shop) -> None:
    sale = await shop.open(3000, store=True)
    await sale.inventory.reserve([order(f"o-{n}") for n in range(1300)])
    audit = await shop.syncer(sale).audit(f"o-{n}" for n in range(1302))
    assert audit.lost == ("o-1300", "o-1301")
    assert (audit.units.queued, audit.pending) == (1300, 1300)


# -- rows that were read long ago -----------------------------------------------------------------------------------


@each_backend
async def test_a_page_that_was_read_long_ago_frees_nothing_and_brings_nothing_back(shop: Shop) -> None:
    sale = await shop.open(10, store=True, hold=60)
    for name in ("paid", "gone", "here"):
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    page = list(await settled(sale.store.orders()))
    await sale.confirm("paid")
    await sale.cancel("gone")
    assert await settled(shop.syncer(sale).real._auditor.reconcile(page)) == 0
    wanted = {"paid": CONFIRMED, "gone": CANCELLED, "here": PERSISTED}
    assert {name: await sale.status(name) for name in wanted} == wanted
    assert await booked(sale) == 2


@each_backend
def test_an_order_cancelled_while_it_is_settled_does_not_come_back(backend: Backend, tmp_path) -> None:
    """It was committed and not acknowledged when the syncer looked, and cancelled before the syncer acted."""
    with (
        flashsale.stores.SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "spring") as store,
        flashsale.FlashSale(backend.client(), "spring", store=store) as sale,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 9))
        sale.preload("phone", 9)
        sale.start("phone")
        sale.buy("phone", "ann", order_id="o-1")
        store.save([claim.order for claim in sale.queue.claim()])
        syncer = flashsale.Syncer(sale)
        states = store.states

        def then_the_buyer_cancels(names: Any) -> Any:
            answer = dict(states(names))
            assert sale.cancel("o-1") is CANCELLED
            return answer

        store.states = then_the_buyer_cancels
        syncer._auditor.reconcile(store.orders())
        store.states = states
        assert sale.status("o-1") is CANCELLED
        assert sale.inventory.stock("phone").booked == 0


@each_backend
async def test_an_audit_outlives_a_loss_in_its_midst(shop: Shop) -> None:
    """Everything that it was about to look at again is gone."""
    sale = await shop.open(10, store=True)
    await bought(shop, sale, persisted=False)
    shop.raw.delete(shop.keys.order_list)
    syncer = shop.syncer(sale)
    judge = syncer.real._auditor._judge
    flushed = []

    def flush() -> None:
        if not flushed:
            flushed.append(shop.raw.flushall())

    if shop.is_async:

        async def judged(*args: Any) -> Any:
            answer = await judge(*args)
            flush()
            return answer
    else:

        def judged(*args: Any) -> Any:
            answer = judge(*args)
            flush()
            return answer

    syncer.real._auditor._judge = judged
    assert isinstance(await syncer.audit(), Audit)
    assert flushed


@each_backend
async def test_corrupt_records_are_named(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await bought(shop, sale)
    shop.raw.hset(shop.keys.orders, "o-1", "nonsense")
    audit = await shop.syncer(sale).audit()
    assert (audit.corrupt, audit.orders, audit.ok) == (("orders o-1",), (), False)


@each_backend
async def test_a_hold_that_is_no_number_stops_no_audit(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await bought(shop, sale)
    shop.raw.hset(shop.keys.stock("phone"), "hold", "soon")
    assert (await shop.syncer(sale).audit()).ok


# -- page by page ---------------------------------------------------------------------------------------------------


@each_backend
async def test_the_syncer_settles_page_by_page_and_round_and_round(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    for name in "abcde":
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    real = sale.store.orders
    sale.real.store.orders = lambda *, after=None, limit=1000: real(after=after, limit=2)
    sale.real.store.settled = None  # of a store that does not tell when an order moved
    syncer = shop.syncer(sale)

    async def passes(count: int) -> list[int]:
        return [(await syncer.run_once()).settled for _ in range(count)]

    await settled(sale.store.settle(order("b"), CANCELLED))
    await settled(sale.store.settle(order("e"), CONFIRMED))
    assert await passes(4) == [1, 0, 1, 0]  # the last page is empty, then it begins anew
    await settled(sale.store.settle(order("a"), CANCELLED))
    assert await passes(4) == [1, 0, 0, 0]
    assert await booked(sale) == 3


async def test_the_syncer_mends_by_itself_while_it_runs(real_shop: Shop) -> None:
    shop = real_shop
    sale = await shop.open(10, store=True)
    await bought(shop, sale)
    stop = asyncio.Event() if shop.is_async else threading.Event()
    running = asyncio.create_task(shop.syncer(sale, interval=0.01).run(stop))
    await settled(sale.store.settle(order("o-1", quantity=2), CANCELLED))
    await settled(sale.store.save([order("stranger")]))
    await until(lambda: shop.raw.hget(shop.keys.stock("phone"), "Booked") == b"1", "the ledger follows")
    stop.set()
    await running
    assert (await shop.syncer(sale).audit()).ok
