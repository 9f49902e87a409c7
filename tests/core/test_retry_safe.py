"""At each point of a call where a server may die: what is returned or raised is true, and asking again finishes it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import flashsale
from flashsale import FlashSaleError, Goods, NotExecuted, OrderState, Outcome, OutcomeUnknown, StoreError
from flashsale.errors import GoodsError
from flashsale.testing.crashes import async_crash_points, boundaries, crash_points
from tests.support.helpers import settled
from tests.support.sales import active_units, booked, each_backend, overdue, rows, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Awaited, Shop


class Call(NamedTuple):
    """A call, and what it returns when all is well.

    Args:
        make: makes the call about a name; each point has its own.
        answer: what is returned, of the same call made again too.
        state: where its order ends; None: in no state.
    """

    make: Callable[[Any, str], Any]
    answer: Callable[[Any, str], bool]
    state: OrderState | None


def _accepted(receipt: Any, _: str) -> bool:
    return receipt.outcome in {Outcome.ACCEPTED, Outcome.UNCERTAIN}


CALLS = {
    "restock": Call(lambda sale, name: sale.restock("phone", 1, f"r-{name}"), lambda total, _: total > 500, None),
    "cancel": Call(
        lambda sale, name: sale.cancel(name), lambda state, _: state is OrderState.CANCELLED, OrderState.CANCELLED
    ),
    "confirm": Call(
        lambda sale, name: sale.confirm(name), lambda state, _: state is OrderState.CONFIRMED, OrderState.CONFIRMED
    ),
    "extend_hold": Call(lambda sale, name: sale.extend_hold(name, 60), lambda done, _: done is True, None),
    "buy": Call(lambda sale, name: sale.buy("phone", "ann", order_id=f"new-{name}"), _accepted, None),
    "buy_basket": Call(
        lambda sale, name: sale.buy_basket("ann", [("phone", 1)], basket_id=f"b-{name}"), _accepted, None
    ),
    "cancel_basket": Call(
        lambda sale, name: sale.cancel_basket(name),
        lambda states, name: states == {f"{name}#1": OrderState.CANCELLED, f"{name}#2": OrderState.CANCELLED},
        None,
    ),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class Dying:
    """One server that dies at a request, before or after it was done, and stays dead for the rest of the call."""

    def __init__(self, shop: Shop, number: int, *, after: bool) -> None:
        self._left, self._after = number, after
        self.died: str | None = None
        self.reach = self._areach if shop.is_async else self._reach

    def _is_dead(self, name: str) -> bool:
        """True where the request meets the dead server."""
        return self.died is not None and name.startswith("store.") == self.died.startswith("store.")

    def _dies(self, name: str) -> bool:
        if self.died is not None:
            return False
        self._left -= 1
        if self._left >= 0:
            return False
        self.died = name
        return True

    @staticmethod
    def _refusal(name: str) -> FlashSaleError:
        return StoreError("down") if name.startswith("store.") else NotExecuted("down")

    def _reach(self, name: str, call: Callable[[], Any]) -> Any:
        if self._is_dead(name):
            raise self._refusal(name)
        if not self._dies(name):
            return call()
        if self._after:
            call()
            raise OutcomeUnknown("no reply")
        raise self._refusal(name)

    async def _areach(self, name: str, call: Callable[[], Any]) -> Any:
        if self._is_dead(name):
            raise self._refusal(name)
        if not self._dies(name):
            return await call()
        if self._after:
            await call()
            raise OutcomeUnknown("no reply")
        raise self._refusal(name)


async def persisted_sale(shop: Shop) -> Awaited:
    store = await shop.store(Goods("phone", 500, hold=900))
    sale = shop.sale(store=store, durability="persisted", cache_for=0)
    sale = await shop.open(500, sale=sale, hold=900)
    await shop.syncer(sale).run_once()
    await sale.inventory.load_scripts()
    return sale


async def prepare(sale: Awaited, name: str) -> None:
    """An order and a basket of this name."""
    assert (await sale.buy("phone", "ann", order_id=name)).accepted
    assert (await sale.buy_basket("ann", [("phone", 1), ("case", 1)], basket_id=name)).accepted


async def restocked_once(shop: Shop, sale: Awaited) -> None:
    """Each request counts once in the total, in the database and in Redis."""
    ((requests,),) = shop.sql("SELECT count(*) FROM flashsale_requests")
    goods = {goods.goods_id: goods.total for goods in await settled(sale.store.goods())}
    assert goods["phone"] == (await sale.inventory.stock("phone")).total == 500 + requests


async def finished(shop: Shop, sale: Awaited) -> None:
    """Ledger and rows agree, order by order, and the units are those of the rows; asked once, of all points."""
    await work(shop, sale)
    await shop.syncer(sale).run_once()
    assert (await shop.syncer(sale).audit()).ok
    assert await booked(sale) == await active_units(sale)


@each_call
@each_backend
async def test_an_error_at_each_point_says_what_is_true(shop: Shop, call: Call) -> None:
    sale = await persisted_sale(shop)
    await settled(sale.store.put_goods(Goods("case", 500)))
    await shop.syncer(sale).run_once()
    await sale.start("case")
    for half in itertools.count():
        name = f"o-{half}"
        await prepare(sale, name)
        before = await rows(sale)
        dying = Dying(shop, half // 2, after=bool(half % 2))
        answer = error = None
        with boundaries(sale.real, dying.reach):
            try:
                answer = await call.make(sale, name)
            except FlashSaleError as raised:
                error = raised
        if error is None:
            assert call.answer(answer, name), dying.died
        elif isinstance(error, NotExecuted | StoreError):
            assert await rows(sale) == before, dying.died  # nothing happened
        if error is not None:
            assert error.retry_safe, (dying.died, error)
            assert call.answer(await call.make(sale, name), name), dying.died
        elif call.state is not None:
            assert (await rows(sale))[name] is call.state, dying.died
        if dying.died is None:
            assert half > 2
            break
    await finished(shop, sale)
    await restocked_once(shop, sale)


@each_call
@each_backend
async def test_who_dies_at_any_point_asks_again(shop: Shop, call: Call) -> None:
    sale = await persisted_sale(shop)
    await settled(sale.store.put_goods(Goods("case", 500)))
    await shop.syncer(sale).run_once()
    await sale.start("case")
    number = itertools.count()
    if shop.is_async:
        async for point in async_crash_points(sale.real):
            name = f"o-{next(number)}"
            await prepare(sale, name)
            async with point:
                await call.make(sale.real, name)
            assert call.answer(await call.make(sale, name), name), point
    else:
        for point in crash_points(sale.real):
            name = f"o-{next(number)}"
            await prepare(sale, name)
            with point:
                call.make(sale.real, name)
            assert call.answer(await call.make(sale, name), name), point
    await finished(shop, sale)
    await restocked_once(shop, sale)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@each_backend
async def test_an_expiry_that_dies_at_any_point_is_finished_by_the_next_pass(shop: Shop, after: bool) -> None:
    sale = await persisted_sale(shop)
    syncer = shop.syncer(sale)
    for number in itertools.count():
        name = f"o-{number}"
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
        overdue(shop, name)
        dying = Dying(shop, number, after=after)
        with boundaries(sale.real, dying.reach):
            try:
                await syncer.run_once()
            except FlashSaleError as error:
                assert isinstance(error, NotExecuted | OutcomeUnknown | StoreError)
        shop.raw.hdel(shop.keys.meta, "leader")
        await syncer.run_once()
        assert await sale.status(name) is (await rows(sale))[name] is OrderState.EXPIRED, dying.died
        assert await booked(sale) == 0
        if dying.died is None:
            return


# -- what each kind says --------------------------------------------------------------------------------------------

SAFE = {"NotExecuted", "Overloaded", "NotPersisted", "StoreError"}


def test_each_kind_of_error_says_whether_the_same_call_may_be_made_again() -> None:
    kinds = [kind for kind in vars(flashsale).values() if isinstance(kind, type) and issubclass(kind, FlashSaleError)]
    assert GoodsError not in kinds
    assert {kind.__name__ for kind in kinds if kind.retry_safe} == SAFE


@each_backend
async def test_a_purchase_without_an_id_is_another_purchase_when_it_is_made_again(shop: Shop) -> None:
    sale = await shop.open(10)
    error = OutcomeUnknown("no reply")

    async def alost(*_: Any, **__: Any) -> Any:
        raise error

    def lost(*_: Any, **__: Any) -> Any:
        raise error

    for order_id in (None, "o-1"):
        with boundaries(sale.real, alost if shop.is_async else lost), pytest.raises(OutcomeUnknown) as caught:
            await sale.buy("phone", "ann", order_id=order_id)
        assert caught.value.retry_safe is (order_id is not None)
        assert caught.value.order_id
        error = OutcomeUnknown("no reply")
