"""Faults after the database has decided: no error denies it, and asking twice is asking once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashsale import OrderState, StoredOrder
from flashsale.lua import SCRIPTS
from tests.chaos.faults.catalogue import fault
from tests.support.helpers import order, settled

if TYPE_CHECKING:
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


@fault(
    56,
    "a payment that was rolled back",
    "the ledger says CONFIRMED, the row does not; `repair`",
    holds="E T",
    mechanism="the ledger is no proof of a payment: only `trust_ledger=True` confirms",
    without=("the distrust of the ledger",),
)
async def test_row_56_a_payment_that_was_rolled_back(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
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
