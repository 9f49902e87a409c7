"""Restocks that are asked twice, and moves that Redis has not followed: what the tables of this release add."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine

from flashsale import Goods, InvalidRequest, NotExecuted, Order, OrderState, OutcomeUnknown, StoreError
from flashsale._sql.tables import METADATA, buyer_query
from flashsale.model.trail import TrailEntry
from tests.core.test_decided import bought, lose
from tests.servers.test_restock import opened, totals
from tests.support.helpers import Awaited, inside, settled
from tests.support.sales import booked, each_backend, of_the_release_before, rows, store_at, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop

CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED
DATABASES = ["sqlite", "postgres", "mysql"]


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, real_shop: Shop) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{real_shop.database}"
    url: str = request.getfixturevalue(f"fresh_{request.param}_url")
    return url


# -- row 37 ---------------------------------------------------------------------------------------------------------


@each_backend
async def test_row_37_the_same_request_restocks_once(shop: Shop) -> None:
    sale = await opened(shop, 100)
    assert [await sale.restock("phone", 50, "r-1") for _ in range(3)] == [150] * 3
    assert await sale.restock("phone", 5, request_id="r-2") == 155
    assert await sale.restock("phone", 50, "r-1") == 150  # the same answer, whatever came after it
    assert await totals(shop, sale) == (155, 155, 155, 155)
    for other in (("phone", 51), ("case", 50)):
        await settled(sale.store.put_goods(Goods("case", 5)))
        await shop.syncer(sale).run_once()
        with pytest.raises(InvalidRequest, match="request_id"):
            await sale.restock(*other, "r-1")
    for wrong in ("", "two words", 7):
        with pytest.raises(InvalidRequest):
            await sale.restock("phone", 1, wrong)
    assert (await sale.inventory.stock("phone")).total == 155


async def test_row_37_requests_side_by_side_restock_once(real_shop: Shop, database_url: str) -> None:
    shop = real_shop
    sale = shop.sale(store=await store_at(shop, database_url, Goods("phone", 100)), cache_for=0)
    await shop.syncer(sale).run_once()
    await sale.start("phone")
    for number in range(1, 11):  # on MySQL, equal inserts at once deadlock where nothing keeps them apart
        calls = [sale.restock("phone", 50, f"r-{number}") for _ in range(8)]
        assert await asyncio.gather(*calls) == [100 + 50 * number] * 8
    (goods,) = await settled(sale.store.goods())
    assert goods.total == (await sale.inventory.stock("phone")).total == 600


@pytest.mark.parametrize("request_id", [None, "r-1"])
@pytest.mark.parametrize("error", [NotExecuted("down"), OutcomeUnknown("no reply")], ids=["unsent", "unknown"])
@each_backend
async def test_row_37_redis_dies_when_the_database_has_the_total(
    shop: Shop, error: Exception, request_id: str | None
) -> None:
    sale = await opened(shop, 100)
    mends = [
        lose(shop, sale.real.inventory, "_configure", error),
        lose(shop, sale.real.gate, "resize", error),
    ]
    assert await sale.restock("phone", 50, request_id) == 150
    for mend in mends:
        mend()
    assert (await sale.inventory.stock("phone")).total == 100
    await shop.syncer(sale).run_once()
    if request_id:
        assert await sale.restock("phone", 50, request_id) == 150
    assert await totals(shop, sale) == (150, 150, 150, 150)


@pytest.mark.parametrize("request_id", [None, "r-1"])
@each_backend
async def test_row_37_a_reply_that_the_database_lost(shop: Shop, request_id: str | None) -> None:
    sale = await opened(shop, 100)
    method = "restock_once" if request_id else "restock"
    mend = lose(shop, sale.store, method, OutcomeUnknown("the reply of COMMIT was lost"))
    with pytest.raises(OutcomeUnknown) as caught:
        await sale.restock("phone", 50, request_id)
    mend()
    assert caught.value.retry_safe is (request_id is not None)


@each_backend
async def test_row_37_a_store_without_requests_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sale = await opened(shop, 100)
    monkeypatch.setattr(type(sale.store), "restock_once", None)
    with pytest.raises(InvalidRequest, match="request_id"):
        await sale.restock("phone", 50, "r-1")
    assert await sale.restock("phone", 50) == 150


# -- moves are followed ---------------------------------------------------------------------------------------------

MANY = 200_000


async def with_many_rows(shop: Shop) -> Awaited:
    """A sale whose table has 200,000 old rows, and two orders at its end."""
    sale = await bought(shop, "z-1", "z-2")
    values = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})".format(MANY)  # noqa: UP032
    shop.sql(
        "INSERT INTO flashsale_orders (sale, order_id, goods_id, buyer_id, quantity, state, settled_at) "
        f"{values} SELECT 'spring', 'a-' || i, 'phone', 'ann', 1, 'CANCELLED', 1.0 FROM n"
    )
    return sale


async def passes_until_followed(shop: Shop, sale: Awaited) -> float:
    """Seconds of the syncer's passes until Redis has the cancellation and the payment."""
    mend = lose(shop, sale.real._ledger, "move", NotExecuted("down"))
    assert (await sale.cancel("z-1"), await sale.confirm("z-2")) == (CANCELLED, CONFIRMED)
    mend()
    syncer, began = shop.syncer(sale), time.monotonic()
    for _ in range(3):
        await syncer.run_once()
    assert [await sale.status(name) for name in ("z-1", "z-2")] == [CANCELLED, CONFIRMED]
    return time.monotonic() - began


async def test_a_move_is_followed_within_seconds_in_a_large_table(real_shop: Shop) -> None:
    sale = await with_many_rows(real_shop)
    assert await passes_until_followed(real_shop, sale) < 5
    assert await booked(sale) == 1


async def test_without_settled_at_a_move_waits_for_the_walk(real_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of a host's may lack it: the walk finds the move, later."""
    sale = await with_many_rows(real_shop)
    monkeypatch.setattr(type(sale.store), "settled", None)
    with pytest.raises(AssertionError):
        await passes_until_followed(real_shop, sale)


@each_backend
async def test_moves_are_read_page_by_page_and_again_for_late_commits(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = await bought(shop, *(f"o-{n}" for n in range(7)))
    real = sale.store.settled
    pages: list[tuple[float, str]] = []

    async def athree(moment: float, order_id: str) -> Any:
        pages.append((moment, order_id))
        return await real(moment, order_id, limit=3)

    def three(moment: float, order_id: str) -> Any:
        pages.append((moment, order_id))
        return real(moment, order_id, limit=3)

    monkeypatch.setattr(sale.store, "settled", athree if shop.is_async else three)
    syncer = shop.syncer(sale)
    mend = lose(shop, sale.real._ledger, "move", NotExecuted("down"))
    orders = [row.order for row in await settled(sale.store.orders())]
    await settled(sale.store.settle_many(orders, CANCELLED))  # one moment for all
    mend()
    await syncer.run_once()
    assert [await sale.status(order.order_id) for order in orders] == [CANCELLED] * 7
    assert len(pages) == 4
    await syncer.run_once()
    assert len(pages) == 8  # those of the last seconds again
    assert await booked(sale) == 0


async def test_a_write_tells_when_an_order_moved(real_shop: Shop, database_url: str) -> None:
    shop = real_shop
    sale = shop.sale(store=await store_at(shop, database_url, Goods("phone", 2)), cache_for=0)
    sale = await shop.open(9, sale=sale)
    before = time.time()
    for name in ("kept", "paid", "refused"):
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await work(shop, sale)
    await sale.confirm("paid")
    assert (await sale.buy("phone", "ann", order_id="early")).accepted
    await sale.cancel("early")
    moved = {row.order.order_id: at for row, at in await settled(sale.store.settled(before - 1))}
    assert moved.keys() == (await rows(sale)).keys() - {"kept"}
    assert all(before - 1 <= at <= time.time() + 1 for at in moved.values())
    assert await settled(sale.store.settled(time.time() + 60)) == []


async def test_a_row_tells_when_it_was_saved(real_shop: Shop, database_url: str) -> None:
    shop = real_shop
    store = await store_at(shop, database_url, Goods("phone", 2))
    before = time.time()
    orders = [Order(f"o-{n}", "phone", "ann", 1) for n in range(3)]
    assert (await store.save(orders)).refused == {"o-2"}
    early = Order("early", "phone", "ann", 1)
    assert await store.settle(early, CANCELLED) is CANCELLED
    first = {row.order.order_id: row for row in await store.find(["o-0", "o-1", "o-2", "early"])}
    assert await store.settle(orders[0], CONFIRMED) is CONFIRMED
    await store.save([*orders, early])
    then = {row.order.order_id: row for row in await store.orders()}
    assert {name: row.persisted_at for name, row in then.items()} == {
        name: row.persisted_at for name, row in first.items()
    }  # a move does not change it, nor does a batch that comes again
    assert then["early"].persisted_at is None
    assert all(before - 1 <= then[each.order_id].persisted_at <= time.time() + 1 for each in orders)
    assert [name for name in sorted(then) if then[name].settled_at is None] == ["o-1"]
    assert all(row.settled_at == at for row, at in await store.settled(0.0))


async def test_the_orders_of_a_buyer_are_found(real_shop: Shop, database_url: str) -> None:
    store = await store_at(real_shop, database_url, Goods("phone", 9))
    orders = [Order(f"o-{n}", "phone", "ann" if n % 2 else "Ann", 1, 9.5 - n, [n]) for n in range(6)]
    await store.save(orders)
    await store.settle(orders[1], CANCELLED)
    found = await store.find_buyer("ann")
    assert [(row.order, row.state) for row in found] == [
        (orders[1], CANCELLED), (orders[3], PERSISTED), (orders[5], PERSISTED)
    ]  # fmt: skip
    assert [row.order for row in await store.find_buyer("ann", limit=1)] == [orders[1]]
    assert await store.find_buyer("bob") == await store.find_buyer("ANN") == []
    orders_of = inside(real_shop.api, "store").orders_of
    assert await settled(orders_of(store.real, "ann", limit=2)) == found[:2]
    assert await settled(orders_of(object(), "ann")) is None


def test_a_buyer_is_found_by_an_index() -> None:
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    query = buyer_query("spring", "ann", 100).compile(engine, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert "flashsale_orders_buyer" in str(plan)


async def test_the_number_of_partitions_is_recorded_once(real_shop: Shop, database_url: str) -> None:
    store = await store_at(real_shop, database_url, Goods("phone", 9))
    assert len(set(await asyncio.gather(store.fix_partitions(4), store.fix_partitions(8)))) == 1
    known = await store.fix_partitions(2)
    assert known in {4, 8}
    await store.advance_epoch()
    assert (await store.fix_partitions(1), await store.epoch()) == (known, 2)


async def test_a_sale_that_was_loaded_before_partitions_has_one(real_shop: Shop, database_url: str) -> None:
    store = await store_at(real_shop, database_url, Goods("phone", 9))
    await store.grant("phone", 9, loaded=True)
    assert [await store.fix_partitions(number) for number in (8, 1, 2)] == [1, 1, 1]


# -- tables of the release before -----------------------------------------------------------------------------------


async def test_tables_of_the_release_before_are_upgraded_and_still_serve_it(real_shop: Shop, database_url: str) -> None:
    shop = real_shop
    store = await store_at(shop, database_url, Goods("phone", 9))
    engine = getattr(store.real._engine, "sync_engine", store.real._engine)

    async def run(*statements: str) -> None:
        def in_one(connection: Any) -> None:
            for statement in statements:
                connection.exec_driver_sql(statement)

        if shop.is_async:
            async with store.real._engine.begin() as connection:
                await connection.run_sync(in_one)
        else:
            with engine.begin() as connection:
                in_one(connection)

    await run(
        *of_the_release_before(engine.dialect.name),
        "INSERT INTO flashsale_orders (sale, order_id, goods_id, buyer_id, quantity, state) "
        "VALUES ('spring', 'before', 'phone', 'ann', 1, 'REJECTED')",
        "INSERT INTO flashsale_orders (sale, order_id, goods_id, buyer_id, quantity, state, created_at, data) "
        "VALUES ('spring', 'old', 'phone', 'ann', 1, 'PERSISTED', NULL, NULL)",
        "UPDATE flashsale_goods SET booked = 1",
    )
    await store.create_all()
    with pytest.raises(StoreError):
        await store.settled(0.0)  # create_all adds no columns
    await asyncio.gather(store.upgrade(), store.upgrade())
    await store.upgrade()
    await run(  # as the release before writes
        "INSERT INTO flashsale_orders (sale, order_id, goods_id, buyer_id, quantity, state, created_at, data) "
        "VALUES ('spring', 'later', 'phone', 'ann', 1, 'PERSISTED', NULL, NULL)",
        "UPDATE flashsale_goods SET booked = 2",
    )
    assert await store.settled(0.0) == []
    assert [(row.state, row.reason) for row in await store.find(["before"])] == [(OrderState.REJECTED, None)]
    assert [row.persisted_at for row in await store.find_buyer("ann")] == [None] * 3
    for row in await store.find(["later", "old"]):
        assert await store.settle(row.order, CANCELLED) is CANCELLED
    assert [moved.order.order_id for moved, _ in await store.settled(0.0)] == ["later", "old"]
    assert (await store.restock_once("phone", 1, "r-1"))[1] == 10
    assert (await store.note(TrailEntry("restock", "Zoë", "shop-1", 1.0)), len(await store.trail())) == (1, 1)
    assert (await store.fix_partitions(3), await store.fix_partitions(4)) == (3, 3)
    assert not await store.purged()
    assert (await store.purge(), await store.purged(), await store.epoch()) == (2, True, 2)
