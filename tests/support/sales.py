"""What the tests of a sale's life share: a database, a worker that finishes, and what stands where."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

import flashsale._sync.rebuilder
import flashsale.aio.rebuilder
from flashsale import Goods, OrderState
from tests.support.helpers import Awaited, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.helpers import Shop

each_backend = pytest.mark.parametrize(
    "backend", [("fakeredis", False), ("redis", True)], ids=["fakeredis", "redis"], indirect=True
)
"""The fake with bytes replies and the server with str replies: what is tested in all four mixes elsewhere."""


async def store_at(shop: Shop, url: str, *goods: Goods, **settings: Any) -> Awaited:
    """Returns a store of sale "spring" on this database, with this item."""
    stores = importlib.import_module(f"{shop.api.__name__}.stores")
    store = Awaited(stores.SQLAlchemyStore(url, "spring", **settings), shop._threads)
    shop._opened.append(store)
    await shop.create_tables(store, url)
    for each in goods:
        await store.put_goods(each)
    return store


def die() -> None:
    raise ZeroDivisionError


@contextlib.contextmanager
def meanwhile(shop: Shop, step: str, act: Callable[[], Any]) -> Iterator[None]:
    """Does something before one step of the first rebuild."""
    rebuilder = (flashsale.aio if shop.is_async else flashsale._sync).rebuilder.Rebuilder
    real, once = getattr(rebuilder, step), [act]

    def late(self: Any, *args: Any) -> Any:
        if once:
            once.pop()()
        return real(self, *args)

    with mock.patch.object(rebuilder, step, late):
        yield


def set_total(shop: Shop, units: int) -> None:
    """Lets the host change its request in the database alone; Redis has yet to hear of it."""
    shop.sql(f"UPDATE flashsale_goods SET total = {units}, version = version + 1")


async def work(shop: Shop, sale: Awaited) -> None:
    """Runs a worker until nothing is left to claim; delays and leases end at once."""
    worker = shop.worker(sale)
    while shop.raw.exists(shop.keys.order_list, shop.keys.claimed):
        shop.end_leases()
        await worker.run_once()


async def rows(sale: Awaited) -> dict[str, OrderState]:
    """Returns the states that the database has."""
    return {row.order.order_id: row.state for row in await settled(sale.store.orders())}


async def active_units(sale: Awaited, goods_id: str = "phone") -> int:
    """Returns the units that rows of the database hold."""
    final = {OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED}
    found = await settled(sale.store.orders())
    return sum(row.order.quantity for row in found if row.order.goods_id == goods_id and row.state not in final)


async def booked(sale: Awaited, goods_id: str = "phone") -> int:
    """Returns the units that Redis has booked."""
    return (await sale.inventory.stock(goods_id)).booked


async def access(sale: Awaited, goods_id: str = "phone") -> int:
    """Returns the units that passed the gate."""
    return (await sale.gate.state(goods_id)).access


def overdue(shop: Shop, *order_ids: str) -> None:
    """Lets payment deadlines pass, as time would."""
    for order_id in order_ids:
        assert shop.raw.zadd(shop.keys.holds, {order_id: 1}, xx=True, ch=True) == 1


def of_the_release_before(dialect: str) -> list[str]:
    """Returns the statements that make our tables those of the release before; their rows stay."""
    on = "" if dialect in {"sqlite", "postgresql"} else " ON flashsale_orders"
    return [
        f"DROP INDEX flashsale_orders_settled{on}",
        f"DROP INDEX flashsale_orders_buyer{on}",
        "ALTER TABLE flashsale_orders DROP COLUMN settled_at",
        "ALTER TABLE flashsale_orders DROP COLUMN reason",
        "ALTER TABLE flashsale_orders DROP COLUMN persisted_at",
        "ALTER TABLE flashsale_sales DROP COLUMN purged_at",
        "ALTER TABLE flashsale_sales DROP COLUMN partitions",
        "DROP TABLE flashsale_requests",
        "DROP TABLE flashsale_audit",
    ]
