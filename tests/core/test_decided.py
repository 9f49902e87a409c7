"""What the database has decided: no error denies it, and the syncer brings it to Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, NotExecuted, OrderState, Outcome, OutcomeUnknown, StoreError
from tests.support.helpers import settled
from tests.support.sales import active_units, booked, each_backend, overdue, rows, work

if TYPE_CHECKING:
    from tests.support.helpers import Awaited, Shop

CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED
LOST = [NotExecuted("no connection"), OutcomeUnknown("no reply")]
each_loss = pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)


async def bought(shop: Shop, *names: str, **policy: Any) -> Awaited:
    sale = await shop.open(10, store=True, **policy)
    for name in names:
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await work(shop, sale)
    return sale


def lose(shop: Shop, place: Any, name: str, error: Exception, *, first: int = 0) -> Any:
    """Lets each call fail as if the server died on the way, but for the `first` ones; returns how to end that."""
    real, made = getattr(place, name), [0]

    def passes() -> bool:
        made[0] += 1
        return made[0] <= first

    async def afail(*args: Any, **more: Any) -> Any:
        if passes():
            return await real(*args, **more)
        raise error

    def fail(*args: Any, **more: Any) -> Any:
        if passes():
            return real(*args, **more)
        raise error

    setattr(place, name, afail if shop.is_async else fail)
    return lambda: delattr(place, name)


# -- row 36 ---------------------------------------------------------------------------------------------------------


@each_loss
@each_backend
async def test_row_36_what_the_database_decided_is_returned(shop: Shop, error: Exception) -> None:
    sale = await bought(shop, "paid", "cancelled")
    mend = lose(shop, sale.real._ledger, "move", error)
    assert await sale.confirm("paid") is CONFIRMED
    assert await sale.cancel("cancelled") is CANCELLED
    assert await rows(sale) == {"paid": CONFIRMED, "cancelled": CANCELLED}
    assert [await sale.status(name) for name in ("paid", "cancelled")] == [PERSISTED] * 2
    mend()
    await shop.syncer(sale).run_once()
    assert [await sale.status(name) for name in ("paid", "cancelled")] == [CONFIRMED, CANCELLED]
    assert await booked(sale) == await active_units(sale) == 1


@each_loss
@each_backend
async def test_row_36_a_basket_says_that_a_part_of_it_has_moved(shop: Shop, error: Exception) -> None:
    sale = await shop.open(10, store=True)
    await settled(sale.store.put_goods(Goods("case", 10)))
    await sale.preload("case", 10)
    await sale.start("case")
    assert (await sale.buy_basket("ann", [("phone", 1), ("case", 1)], basket_id="b")).accepted
    await work(shop, sale)
    mend = lose(shop, sale.real._ledger, "look", error, first=1)
    with pytest.raises(OutcomeUnknown):
        await sale.cancel_basket("b")
    mend()
    mend = lose(shop, sale.real._ledger, "move", error)
    assert await sale.cancel_basket("b") == {"b#1": CANCELLED, "b#2": CANCELLED}
    mend()
    await shop.syncer(sale).run_once()
    assert await booked(sale) == await booked(sale, "case") == 0


@each_loss
@each_backend
async def test_row_36_an_expiry_is_finished_by_the_next_pass(shop: Shop, error: Exception) -> None:
    sale = await bought(shop, *"abc", hold=900)
    overdue(shop, *"abc")
    syncer = shop.syncer(sale)
    mend = lose(shop, sale.real._ledger, "move", error)
    with pytest.raises(OutcomeUnknown):
        await syncer.run_once()
    assert await rows(sale) == dict.fromkeys("abc", OrderState.EXPIRED)
    mend()
    await syncer.run_once()
    assert [await sale.status(name) for name in "abc"] == [OrderState.EXPIRED] * 3
    assert await booked(sale) == 0


@each_loss
@each_backend
async def test_row_36_a_saved_purchase_is_accepted(shop: Shop, error: Exception) -> None:
    store = await shop.store(Goods("phone", 10))
    sale = await shop.open(10, sale=shop.sale(store=store, durability="persisted"))
    mend = lose(shop, sale.real._ledger, "persisted", error)
    receipt = await sale.buy("phone", "ann", order_id="o-1")
    assert (receipt.outcome, receipt.state) == (Outcome.ACCEPTED, PERSISTED)
    mend()
    await work(shop, sale)
    assert await sale.status("o-1") is PERSISTED
    assert await booked(sale) == await active_units(sale) == 1


# -- row 54 ---------------------------------------------------------------------------------------------------------


@each_backend
async def test_row_54_an_order_that_redis_lost_is_settled_by_its_row(shop: Shop) -> None:
    sale = await bought(shop, "paid", "cancelled", "gone", "kept")
    shop.raw.hdel(shop.keys.orders, "paid", "cancelled", "gone")
    assert await sale.confirm("paid") is CONFIRMED
    assert await sale.cancel("cancelled") is CANCELLED
    assert await sale.confirm("cancelled") is CANCELLED  # too late, and it is said
    assert await sale.confirm("ghost") is None
    assert await rows(sale) == {"paid": CONFIRMED, "cancelled": CANCELLED, "gone": PERSISTED, "kept": PERSISTED}


@each_backend
async def test_row_54_a_basket_that_redis_lost(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await sale.buy("phone", "ann", order_id="kept")
    assert (await sale.buy_basket("ann", [("phone", 2)], basket_id="b")).accepted
    await work(shop, sale)
    shop.raw.hdel(shop.keys.orders, "b#1")
    assert await sale.confirm_basket("b") == {"b#1": CONFIRMED}
    assert await sale.confirm_basket("ghost") == {}


@each_backend
async def test_row_54_a_store_that_cannot_find_leaves_it_unknown(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutation too: without the look at the database a payment is answered with None."""
    sale = await bought(shop, "paid", "kept")
    shop.raw.hdel(shop.keys.orders, "paid")
    monkeypatch.setattr(type(sale.store), "find", None)
    assert await sale.confirm("paid") is None


@each_backend
async def test_row_54_a_database_that_is_away_is_an_error(shop: Shop) -> None:
    sale = await bought(shop, "paid")
    shop.raw.hdel(shop.keys.orders, "paid")
    shop.sql("ALTER TABLE flashsale_orders RENAME TO away")
    with pytest.raises(StoreError):
        await sale.confirm("paid")
    shop.sql("ALTER TABLE away RENAME TO flashsale_orders")
    assert await sale.confirm("paid") is CONFIRMED
