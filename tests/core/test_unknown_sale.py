"""A misspelt sale: neither Redis nor the database knows it, and whoever asks for it is told so."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import FlashSaleError, Goods, OrderState, UnknownGoods, UnknownSale
from tests.support.helpers import order, settled, until

if TYPE_CHECKING:
    from tests.support.helpers import Awaited, Shop

Act = Callable[["Awaited", "Awaited"], Awaitable[Any]]

ASKED: dict[str, Act] = {
    "status": lambda sale, _: sale.status("o-1"),
    "cancel": lambda sale, _: sale.cancel("o-1"),
    "confirm": lambda sale, _: sale.confirm("o-1"),
    "extend_hold": lambda sale, _: sale.extend_hold("o-1", 60),
    "restock": lambda sale, _: sale.restock("phone", 1),
    "pause": lambda sale, _: sale.pause(),
    "resume": lambda sale, _: sale.resume(),
    "audit": lambda _, syncer: syncer.audit(),
    "repair": lambda _, syncer: syncer.repair(),
    "settlement": lambda _, syncer: syncer.settlement(),
    "purge": lambda _, syncer: syncer.purge(),
    "rebuild": lambda _, syncer: syncer.rebuild(),
}


async def misspelt(shop: Shop) -> tuple[Awaited, Awaited]:
    """The database has sales autumn and winter; this is `spring`."""
    store = await shop.store()
    for name in ("winter", "autumn"):
        shop.sql(f"INSERT INTO flashsale_goods VALUES ('{name}', 'phone', 1, 1, 0, 1, NULL, NULL, NULL, NULL, 0)")
    sale = shop.sale(store=store)
    return sale, shop.syncer(sale)


@pytest.mark.parametrize("what", ASKED)
async def test_whoever_asks_for_a_misspelt_sale_is_told_which_there_are(real_shop: Shop, what: str) -> None:
    sale, syncer = await misspelt(real_shop)
    with pytest.raises(UnknownSale, match="'spring'; the database has autumn, winter") as caught:
        await ASKED[what](sale, syncer)
    assert (caught.value.sale, caught.value.known) == ("spring", ("autumn", "winter"))
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, FlashSaleError)
    assert real_shop.raw.keys("*") == []
    assert real_shop.sql("SELECT * FROM flashsale_sales") == []


@pytest.mark.parametrize("where", ["Redis", "the database"])
async def test_one_of_both_is_enough_to_know_it(real_shop: Shop, where: str) -> None:
    shop = real_shop
    sale = shop.sale(store=await shop.store(*([Goods("phone", 1)] if where == "the database" else [])))
    if where == "Redis":
        await sale.preload("phone", 1)
    assert await sale.status("o-1") is None
    assert await sale.cancel("o-1") is None
    assert (await shop.syncer(sale).audit()).ok
    if where == "the database":
        with pytest.raises(UnknownGoods) as caught:
            await sale.restock("phone", 1)
        assert not isinstance(caught.value, UnknownSale)


async def test_a_sale_without_a_store_is_asked_of_redis_alone(real_shop: Shop) -> None:
    with pytest.raises(UnknownSale, match=r"knows sale 'spring'$"):
        await real_shop.sale().status("o-1")


@pytest.mark.parametrize("who", ["worker", "syncer", "outbox"])
async def test_what_runs_waits_for_a_sale_and_says_so_once(
    real_shop: Shop, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    shop = real_shop
    sale, syncer = await misspelt(shop)
    stop = asyncio.Event() if shop.is_async else threading.Event()
    told: list[Any] = []
    runner = {"worker": shop.worker(sale), "outbox": shop.make("Outbox", sale, told.append), "syncer": syncer}[who]
    with caplog.at_level(logging.WARNING, "flashsale"):
        running = asyncio.create_task(runner.run(stop))

        def said_so() -> list[str]:
            return [line for line in caplog.messages if "waits: UnknownSale" in line]

        await until(said_so, "it says so")
        await asyncio.sleep(0.7)  # it has looked again, most likely
        assert shop.raw.keys("*") == []  # not even a lease, by which it would be known
        said = said_so()
        assert len(said) == 1
        assert "the database has autumn, winter" in said[0]
    try:
        await settled(sale.store.put_goods(Goods("phone", 5)))
        if who == "syncer":
            await until(lambda: shop.raw.exists(shop.keys.stock("phone")), "the goods")
        elif who == "outbox":
            await settled(sale.store.settle(order("o-1"), OrderState.CANCELLED))
            await until(lambda: told, "the event")
        else:
            await sale.preload("phone", 5)
            await sale.inventory.reserve([order("o-1")])
            await until(lambda: shop.sql("SELECT * FROM flashsale_orders"), "the row")
    finally:
        stop.set()
        await running
