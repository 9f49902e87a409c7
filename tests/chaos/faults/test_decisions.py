"""Faults after the database has decided: no error denies it, and asking twice is asking once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from django.db import transaction

from flashsale import InvalidRequest, NotExecuted, OrderState, StoredOrder, StoreError
from flashsale.lua import SCRIPTS
from tests.chaos.faults.catalogue import EVERYWHERE, fault
from tests.chaos.faults.world import DATABASES
from tests.support.helpers import order, settled
from tests.support.mutants import DJANGO
from tests.support.transactions import HostDatabase, Undone, follows, stays

if TYPE_CHECKING:
    from flashsale import FlashSale
    from tests.chaos.faults.world import World

CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED


def named(script: str) -> bytes:
    """What a call of this script has in it."""
    return SCRIPTS[script].sha.encode()


@fault(
    36,
    "Redis dies after the decision",
    "the proxy loses the script behind the database's answer",
    holds="O L T",
    mechanism="the state that stands is returned; the syncer carries it to the ledger",
    without=("the state that stands", "the syncer's look at the rows"),
)
async def test_row_36_redis_dies_after_the_decision(world: World) -> None:
    proxy = world.proxy()
    sale = await world.sell(proxy.port)
    for name in ("o-1", "o-2", "o-3"):
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await world.drain(sale)
    proxy.lose_request(named("settle"), times=None)
    assert await world.answer(sale.cancel("o-1")) is CANCELLED
    assert await world.answer(sale.confirm("o-2")) is CONFIRMED
    proxy.clear()
    proxy.cut_reply(named("settle"))
    assert await world.answer(sale.cancel("o-3")) is CANCELLED
    await world.syncer(sale).run_once()
    assert [await sale.status(name) for name in ("o-1", "o-2", "o-3")] == [CANCELLED, CONFIRMED, CANCELLED], "L"
    await world.holds(sale, ["o-1", "o-2", "o-3"], total=10)


@fault(
    37,
    "a restock asked twice",
    "Redis dies after the database has the total; the same request id again",
    holds="O T",
    mechanism="a row for each request id, in the restock's transaction",
    without=("the row of a request", "the state that stands"),
)
async def test_row_37_a_restock_asked_twice(world: World) -> None:
    proxy = world.proxy()
    sale = await world.sell(proxy.port)
    proxy.lose_request(named("configure"), times=None)
    for _ in range(2):
        assert await world.answer(sale.restock("phone", 5, "r-1")) == 15
    proxy.clear()
    assert await world.answer(sale.restock("phone", 5, "r-1")) == 15
    (goods,) = await settled(sale.real.store.goods())
    assert goods.total == (await sale.inventory.stock("phone")).total == 15, "O: units were added twice"
    await world.holds(sale, [], total=15)


@fault(
    54,
    "a webhook for an order that Redis lost",
    "Redis goes back to before the purchase",
    holds="O E T",
    mechanism="the database is asked before None",
    without=("the look at the database",),
)
async def test_row_54_a_webhook_for_an_order_that_redis_lost(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    before = {key: world.raw.dump(key) for key in world.raw.keys("*")}
    for name in ("paid", "undone"):
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await world.drain(sale)
    world.raw.flushdb()
    for key, value in before.items():
        world.raw.restore(key, 0, value)
    assert await sale.status("paid") is None
    assert await world.answer(sale.confirm("paid")) is CONFIRMED, "T"
    assert await world.answer(sale.cancel("undone")) is CANCELLED, "T"
    assert await world.answer(sale.confirm("ghost")) is None
    await world.syncer(sale).run_once()
    assert await sale.status("paid") is CONFIRMED
    await world.holds(sale, ["paid", "undone"], total=10)


def _views(sale: FlashSale, strict: FlashSale) -> None:
    """What a host's views do inside `atomic`: one of them fails."""
    using = sale.store._using

    def stands() -> Any:
        stock = sale.inventory.stock("phone")
        return sale.status("o-1"), sale.status("o-2"), stock.booked, stock.total

    with contextlib.suppress(Undone), transaction.atomic(using=using):
        assert (sale.cancel("o-1"), sale.confirm("o-2")) == (CANCELLED, CONFIRMED)
        assert sale.restock("phone", 5, "r-1") == 15
        raise Undone
    assert stands() == (PERSISTED, PERSISTED, 2, 10), "E: Redis follows what was rolled back"
    for call in (lambda: strict.buy("phone", "ann"), lambda: strict.buy_basket("ann", [("phone", 1)])):
        with transaction.atomic(using=using):
            try:
                call()
            except NotExecuted as error:
                assert (error.reason, error.retry_safe) == ("TRANSACTION", False)
            else:
                raise AssertionError("E: a purchase is PERSISTED that may be rolled back")
    assert sale.inventory.stock("phone").booked == 2
    with transaction.atomic(using=using):
        assert sale.buy("phone", "ann", order_id="o-3").accepted  # promises no row
        assert (sale.cancel("o-1"), sale.confirm("o-2")) == (CANCELLED, CONFIRMED)
        assert sale.restock("phone", 5, "r-1") == 15
        assert stands() == (PERSISTED, PERSISTED, 3, 10), "E: Redis follows before the commit"
    assert stands() == (CANCELLED, CONFIRMED, 2, 15), "L: Redis does not follow the commit"
    assert sale.gate.state("phone").count == 15
    assert strict.buy("phone", "ann", order_id="o-4").accepted


async def _inside_transactions(world: World, url: str) -> None:
    sale = await world.sell(world.redis_server.port, url=url)
    strict = world.beside(world.redis_server.port, sale.real.store, durability="persisted")
    for name in ("o-1", "o-2"):
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await world.drain(sale)
    await world.in_thread(lambda: _views(sale.real, strict.real))
    await world.holds(sale, ["o-1", "o-2", "o-3", "o-4"], total=15)


async def _on_the_hosts_connection(world: World, url: str) -> None:
    sale = await world.sell(world.redis_server.port, url=url)
    names = [f"o-{n}" for n in range(1, 6)]
    for name in names:
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await world.drain(sale)
    host = HostDatabase(world, url)
    with contextlib.suppress(Undone):
        async with host.begin() as connection:
            assert await world.answer(sale.cancel("o-1", connection=connection)) is CANCELLED
            assert await world.answer(sale.confirm("o-2", connection=connection)) is CONFIRMED
            raise Undone
    for name in ("o-1", "o-2"):
        await stays(sale, name, PERSISTED)
    async with host.session() as session:
        assert await world.answer(sale.confirm("o-1", connection=session)) is CONFIRMED
        with contextlib.suppress(Undone):
            async with host.savepoint(session):
                assert await world.answer(sale.cancel("o-1", connection=session)) is CANCELLED
                assert await world.answer(sale.cancel("o-2", connection=session)) is CANCELLED
                raise Undone
    await follows(sale, "o-1", CONFIRMED)
    await stays(sale, "o-2", PERSISTED)
    async with host.begin() as connection:
        await host.run(connection, "UPDATE flashsale_goods SET booked = 0")
        await world.answered(StoreError, sale.cancel("o-2", connection=connection))
        await host.run(connection, "UPDATE flashsale_goods SET booked = 5")
    if not url.startswith("sqlite"):
        async with host.begin() as connection:
            await host.run(connection, "SELECT COUNT(*) FROM flashsale_orders")  # at REPEATABLE READ a snapshot
            assert await world.answer(sale.cancel("o-3")) is CANCELLED
            assert await world.answer(sale.confirm("o-3", connection=connection)) is CANCELLED
    careless = HostDatabase(world, url, isolation_level="AUTOCOMMIT")
    async with careless.connect() as connection:
        await world.answered(InvalidRequest, sale.cancel("o-4", connection=connection))
    assert [(await world.orders(sale))[name] for name in ("o-1", "o-2", "o-4")] == [CONFIRMED, PERSISTED, PERSISTED]
    await world.holds(sale, names, total=10)


@fault(
    56,
    "a payment that was rolled back",
    "a view of Django's fails inside `atomic`; a transaction or savepoint of SQLAlchemy's is rolled back; the ledger"
    " says CONFIRMED, the row does not; `repair`",
    holds="E L T",
    mechanism="Redis follows after the commit; the ledger is no proof of a payment: only `trust_ledger=True` confirms",
    without=(
        "the distrust of the ledger",
        "the wait for the host's commit",
        "the look at the host's transaction",
        "the wait for the end of the host's transaction",
        "the second look at what was decided",
        "the savepoint in the host's transaction",
        "the lock of what is decided by",
        "the look for a transaction",
    ),
    on=EVERYWHERE,
)
async def test_row_56_a_payment_that_was_rolled_back(world: World) -> None:
    inside = _inside_transactions if world.case == DJANGO else _on_the_hosts_connection
    for url in world.databases(*DATABASES):
        await inside(world, url)
    world.raw.flushall()
    sale = await world.sell(world.redis_server.port, url=world.url("sqlite"))
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    await world.drain(sale)
    await sale._ledger.move([StoredOrder(order("o-1"), CONFIRMED)])
    syncer = world.syncer(sale)
    await syncer.run_once()
    assert (await syncer.repair(dry_run=False)).mended == (), "E: nobody paid"
    assert await world.orders(sale) == {"o-1": PERSISTED}, "E: nobody paid"
    assert len((await syncer.audit()).orders) == 1
    assert len((await syncer.repair(dry_run=False, trust_ledger=True)).mended) == 1
    assert await world.orders(sale) == {"o-1": CONFIRMED}
    await world.holds(sale, ["o-1"], total=10)
