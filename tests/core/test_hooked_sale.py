"""Hooks in a running sale: what the buyer, the worker, the outbox and the syncer make of them."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import NoResultFound

from flashsale import Durability, Goods, InvalidRequest, Order, OrderHooks, OrderState, Outcome, Refuse, StoreError
from flashsale.aio import AsyncOrderHooks
from flashsale.aio.stores import SQLAlchemyStore as AsyncSQLAlchemyStore
from flashsale.stores import SQLAlchemyStore
from tests.support.helpers import order, settled
from tests.support.mutants import promises
from tests.support.sales import access, booked, each_backend, rows, store_at, work

if TYPE_CHECKING:
    from tests.support.helpers import Shop

PERSISTED, CANCELLED, REJECTED = OrderState.PERSISTED, OrderState.CANCELLED, OrderState.REJECTED
NOTE = text("INSERT INTO notes VALUES (:order_id)")


def _note(one: Order) -> Any:
    return {"no": "text"} if one.data == "kind" else one.order_id


class Host:
    """Hooks that note what is saved in a table, and refuse or fail as the order's data say."""

    def __init__(self, stock: int = 100) -> None:
        self.stock_left = stock
        self.batches: list[list[str]] = []
        self.moves: list[tuple[str, OrderState, OrderState]] = []
        self.broken: Exception | None = None
        self.closed: set[str] = set()

    def write(self, connection: Any, orders: Any) -> Any:
        self.batches.append([one.order_id for one in orders])
        return connection.execute(NOTE, [{"order_id": _note(one)} for one in orders])

    def judge(self, orders: Any) -> dict[str, str]:
        for one in orders:
            if one.data == "raise":
                raise Refuse(one.order_id, "no " * 300)
            if one.data == "fail":
                raise ValueError(one.buyer_id)
            if one.data == "none":
                raise NoResultFound(one.buyer_id)
        return {one.order_id: "überzeugt nicht ☹\0" for one in orders if one.data == "return"}

    def move(self, one: Order, before: OrderState, after: OrderState) -> None:
        self.moves.append((one.order_id, before, after))
        if self.broken:
            raise self.broken

    def take(self, goods_id: str, units: int) -> None:
        if goods_id in self.closed:
            raise LookupError
        if units > self.stock_left:
            raise LookupError
        self.stock_left -= units


class Hooks(Host):
    def saved(self, connection: Any, orders: Any) -> dict[str, str]:
        self.write(connection, orders)
        return self.judge(orders)

    def settled(self, connection: Any, *move: Any) -> None:
        self.move(*move)

    def stock(self, connection: Any, goods_id: str, units: int) -> None:
        self.take(goods_id, units)


class AsyncHooks(Host):
    async def saved(self, connection: Any, orders: Any) -> dict[str, str]:
        await self.write(connection, orders)
        return self.judge(orders)

    async def settled(self, connection: Any, *move: Any) -> None:
        self.move(*move)

    async def stock(self, connection: Any, goods_id: str, units: int) -> None:
        self.take(goods_id, units)


async def hooked(shop: Shop, *goods: Goods, **settings: Any) -> tuple[Any, Any]:
    """A started sale with hooks, and these."""
    goods = goods or (Goods("phone", 10),)
    hooks = AsyncHooks() if shop.is_async else Hooks()
    store = await store_at(shop, f"sqlite:///{shop.database}", *goods, hooks=hooks)
    shop.sql("CREATE TABLE IF NOT EXISTS notes (order_id TEXT PRIMARY KEY)")
    sale = shop.sale(store=store, cache_for=0, **settings)
    await shop.syncer(sale).run_once()
    for each in goods:
        await sale.start(each.goods_id)
    return sale, hooks


def notes(shop: Shop) -> set[str]:
    return {order_id for (order_id,) in shop.sql("SELECT order_id FROM notes")}


# -- refusals -------------------------------------------------------------------------------------------------------


@each_backend
@pytest.mark.parametrize("way", ["raise", "return"])
async def test_with_persisted_the_buyer_hears_of_the_refusal(shop: Shop, way: str) -> None:
    sale, _ = await hooked(shop, durability=Durability.PERSISTED)
    assert (await sale.buy("phone", "ann", 2, order_id="a")).accepted
    for replayed in (False, True):
        receipt = await sale.buy("phone", "bob", 3, order_id="b", data=way)
        assert (receipt.outcome, receipt.state, receipt.replayed) == (Outcome.REJECTED, REJECTED, replayed)
        assert await booked(sale) == await access(sale) == 2
    assert shop.sql("SELECT booked FROM flashsale_goods") == [(2,)]
    assert notes(shop) == ({"a"} if way == "raise" else {"a", "b"})
    (row,) = await settled(sale.store.find(["b"]))
    assert row.reason == (("no " * 300)[:500] if way == "raise" else "überzeugt nicht ☹")
    assert (await shop.syncer(sale).audit("ab")).ok


@each_backend
async def test_a_basket_of_which_a_hook_refuses_an_order_is_given_back(shop: Shop) -> None:
    sale, hooks = await hooked(shop, Goods("phone", 5), Goods("case", 5), durability=Durability.PERSISTED)
    for replayed in (False, True):
        basket = await sale.buy_basket("bob", [("phone", 1), ("case", 1)], basket_id="b", data="raise")
        assert (basket.outcome, {receipt.replayed for receipt in basket.receipts}) == (Outcome.REJECTED, {replayed})
        assert [await booked(sale, name) for name in ("phone", "case")] == [0, 0]
    assert hooks.batches == [["b#1", "b#2"], ["b#2"]]


@each_backend
async def test_the_worker_gives_back_who_is_refused(shop: Shop) -> None:
    """And the outbox tells why."""
    sale, hooks = await hooked(shop)
    for name, data in (("a", None), ("b", "raise"), ("c", "return"), ("d", "raise"), ("e", None)):
        assert (await sale.buy("phone", "ann", order_id=name, data=data)).accepted
    await work(shop, sale)
    assert await rows(sale) == {"a": PERSISTED, "b": REJECTED, "c": REJECTED, "d": REJECTED, "e": PERSISTED}
    assert await booked(sale) == await access(sale) == 2
    assert hooks.batches == [["a", "b", "c", "d", "e"], ["a", "c", "d", "e"], ["a", "c", "e"]]
    assert notes(shop) == {"a", "c", "e"}
    assert [(name, before) for name, before, _ in hooks.moves] == [(name, OrderState.QUEUED) for name in "bdc"]
    events = await settled(sale.store.events(now=1e10))
    assert {event.order.order_id: event.reason[:2] for event in events} == {"b": "no", "c": "üb", "d": "no"}
    assert (await shop.syncer(sale).audit("abcde")).ok


# -- what a hook raises ---------------------------------------------------------------------------------------------


async def _one_bad(shop: Shop, data: str, reason: str) -> None:
    sale, _ = await hooked(shop)
    for name in "abcd":
        await sale.buy("phone", "the-buyer", order_id=name, data=data if name == "b" else None)
    await work(shop, sale)
    assert await rows(sale) == dict.fromkeys("acd", PERSISTED)
    (letter,) = await sale.queue.dead()
    assert (letter.order.order_id, notes(shop)) == ("b", set("acd"))
    assert reason in letter.reason


@each_backend
@pytest.mark.parametrize(
    ("data", "reason"), [("fail", "ValueError"), ("none", "NoResultFound"), ("kind", "refused a row")]
)
async def test_an_order_that_a_hook_cannot_take_stops_only_itself(
    shop: Shop, data: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also a query of the host's that finds nothing, and a value that the driver cannot send."""
    await _one_bad(shop, data, reason)
    assert "the-buyer" not in caplog.text


@each_backend
async def test_with_persisted_an_order_that_a_hook_cannot_take_is_uncertain(shop: Shop) -> None:
    """Its units are booked: whoever is told that nothing happened may order a second time."""
    sale, _ = await hooked(shop, durability=Durability.PERSISTED)
    receipt = await sale.buy("phone", "ann", order_id="a", data="fail")
    assert (receipt.outcome, await booked(sale)) == (Outcome.UNCERTAIN, 1)


@each_backend
@pytest.mark.parametrize("error", [ValueError(), ConnectionResetError(), Refuse("a", "no")], ids=repr)
async def test_what_settled_raises_moves_nothing(shop: Shop, error: Exception) -> None:
    sale, hooks = await hooked(shop)
    await sale.buy("phone", "ann", order_id="a")
    await work(shop, sale)
    hooks.broken = error
    with pytest.raises(StoreError, match=f"the hook settled raised {type(error).__name__}$") as caught:
        await sale.cancel("a")
    assert caught.value.__cause__ is error
    assert (await rows(sale), await booked(sale)) == ({"a": PERSISTED}, 1)
    hooks.broken = None
    assert await sale.cancel("a") is CANCELLED
    assert hooks.moves == [("a", PERSISTED, CANCELLED)] * 2


async def test_the_databases_own_error_in_a_hook_blames_the_row(shop: Shop) -> None:
    sale, _ = await hooked(shop)
    shop.sql("INSERT INTO notes VALUES ('b')")
    for name in "abc":
        await sale.buy("phone", "ann", order_id=name)
    await work(shop, sale)
    assert await rows(sale) == dict.fromkeys("ac", PERSISTED)
    (letter,) = await sale.queue.dead()
    assert "refused a row" in letter.reason


@pytest.mark.parametrize("answer", [{"other": "no"}, ["a"], {"a": None}, Refuse("other", "no")], ids=repr)
def test_what_saved_may_not_say_is_its_own_fault(answer: Any) -> None:
    class Wrong:
        def saved(self, connection: Any, orders: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    with SQLAlchemyStore("sqlite://", "spring", hooks=Wrong()) as store:
        store.create_all()
        store.put_goods(Goods("phone", 3))
        with pytest.raises((TypeError, ValueError)):
            store.save([order("a")])
        assert store.orders() == []


@each_backend
async def test_a_move_that_a_hook_cannot_take_stops_only_itself(shop: Shop) -> None:
    """An order of an external program, for which there is no unit: the worker tells the database."""
    sale, hooks = await hooked(shop)
    await sale.buy("phone", "ann", 10, order_id="a")
    await work(shop, sale)
    for name in "bc":
        await sale.queue.push(order(name))
    await sale.cancel("a")
    await sale.buy("phone", "ann", 10, order_id="d")
    hooks.broken = ValueError()
    worker = shop.worker(sale)
    await worker.run_once()
    assert (await rows(sale))["d"] is PERSISTED
    hooks.broken = None
    await work(shop, sale)
    assert (await rows(sale)) == {"a": CANCELLED, "b": REJECTED, "c": REJECTED, "d": PERSISTED}


# -- stock ----------------------------------------------------------------------------------------------------------


@each_backend
async def test_a_raise_that_the_shop_cannot_give_is_refused(shop: Shop) -> None:
    sale, hooks = await hooked(shop)
    assert hooks.stock_left == 90
    with pytest.raises(StoreError, match="the hook stock raised LookupError"):
        await sale.restock("phone", 91)
    with pytest.raises(StoreError, match="LookupError"):
        await sale.store.put_goods(Goods("phone", 200))
    assert ((await sale.inventory.stock("phone")).total, hooks.stock_left) == (10, 90)
    assert await sale.restock("phone", 90) == 100
    assert await sale.restock("phone", -40) == 60
    assert hooks.stock_left == 40


async def test_a_raise_that_was_taken_back_before_redis_had_it_returns(shop: Shop) -> None:
    sale, hooks = await hooked(shop)
    syncer = shop.syncer(sale)
    await syncer.run_once()
    await settled(sale.store.restock("phone", 5))
    assert hooks.stock_left == 85
    await settled(sale.store.restock("phone", -5))
    await syncer.run_once()
    assert hooks.stock_left == 90


async def test_a_hook_that_takes_nothing_back_stops_only_its_item(shop: Shop) -> None:
    sale, hooks = await hooked(shop, Goods("a-phone", 10), Goods("b-case", 10))
    hooks.closed.add("a-phone")
    for name in ("a-phone", "b-case"):
        await settled(sale.store.put_goods(Goods(name, 4)))
    syncer = shop.syncer(sale)
    assert ("b-case", 4) in (await syncer.run_once()).resized
    assert hooks.stock_left == 86
    hooks.closed.clear()
    await syncer.run_once()
    assert hooks.stock_left == 92


async def test_the_shop_gets_back_what_a_purged_sale_did_not_sell(shop: Shop) -> None:
    sale, hooks = await hooked(shop, Goods("phone", 10), Goods("case", 4))
    await sale.buy("phone", "ann", 3, order_id="a")
    await work(shop, sale)
    await sale.confirm("a")
    assert hooks.stock_left == 86
    await shop.syncer(sale).purge()
    assert hooks.stock_left == 97
    with pytest.raises(InvalidRequest, match="was purged"):
        await settled(sale.store.restock("phone", 5))  # it was on its way
    assert await sale.cancel("a") is CANCELLED
    assert hooks.stock_left == 100


async def test_a_purge_that_a_hook_refuses_leaves_the_sale_open(shop: Shop) -> None:
    sale, hooks = await hooked(shop)
    hooks.closed.add("phone")
    with pytest.raises(StoreError, match="LookupError"):
        await shop.syncer(sale).purge()
    assert (await sale.buy("phone", "ann", order_id="a")).accepted
    hooks.closed.clear()
    await work(shop, sale)
    await sale.confirm("a")
    await shop.syncer(sale).purge()
    assert hooks.stock_left == 99


# -- which objects are hooks ----------------------------------------------------------------------------------------


class Inherits(OrderHooks):
    def stock(self, connection: Any, goods_id: str, units: int) -> None:
        """The only one."""


class AsyncInherits(AsyncOrderHooks):
    async def stock(self, connection: Any, goods_id: str, units: int) -> None:
        """The only one."""


@pytest.mark.parametrize(
    ("make", "own", "others"),
    [(SQLAlchemyStore, Inherits, AsyncInherits), (AsyncSQLAlchemyStore, AsyncInherits, Inherits)],
    ids=["sync", "aio"],
)
async def test_hooks_are_checked_when_the_store_is_made(make: Any, own: Any, others: Any) -> None:
    store = make("sqlite://", "spring", hooks=own())
    assert [name for name, method in store._called._asdict().items() if method] == ["stock"]
    for wrong in (own, others(), object(), "shop.Hooks"):
        with pytest.raises(InvalidRequest, match=r"^hooks: "):
            make("sqlite://", "spring", hooks=wrong)
    closed = store.close() if make is SQLAlchemyStore else store.aclose()
    assert not isawaitable(closed) or await closed is None


def test_hooks_work_on_the_hosts_own_engine(tmp_path: Any) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db")
    with SQLAlchemyStore(engine, "spring", hooks=Hooks()) as store, engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (order_id TEXT PRIMARY KEY)"))
    store.create_all()
    store.put_goods(Goods("phone", 5))
    assert store.save([order("a"), order("b", data="raise")]).inserted == {"a"}
    with engine.begin() as connection:
        assert connection.execute(text("SELECT order_id FROM notes")).scalars().all() == ["a"]


async def _none(shop: Shop) -> None:
    await _one_bad(shop, "none", "NoResultFound")


async def _kind(shop: Shop) -> None:
    await _one_bad(shop, "kind", "refused a row")


async def _raise(shop: Shop) -> None:
    await test_with_persisted_the_buyer_hears_of_the_refusal(shop, "raise")


@promises(
    {
        "the savepoint of saved": _raise,
        "units of a refused order return": _raise,
        "saved is called again": test_the_worker_gives_back_who_is_refused,
        "a raise is granted at once": test_a_raise_that_the_shop_cannot_give_is_refused,
        "a purged sale grants what is booked": test_the_shop_gets_back_what_a_purged_sale_did_not_sell,
        "a purged sale gives back what is released": test_the_shop_gets_back_what_a_purged_sale_did_not_sell,
        "a hook stops only its order": test_a_move_that_a_hook_cannot_take_stops_only_itself,
        "a hook stops only its item": test_a_hook_that_takes_nothing_back_stops_only_its_item,
        "what a query of a hook's finds": _none,
        "what a driver cannot send": _kind,
        "nothing is restocked after the purge": test_the_shop_gets_back_what_a_purged_sale_did_not_sell,
        "a raise that was taken back": test_a_raise_that_was_taken_back_before_redis_had_it_returns,
    },
    by=(ValueError, StoreError, KeyError, pytest.fail.Exception),
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
