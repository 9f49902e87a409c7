"""The article's own walk-through, on a real Redis with its literal keys, and programs that know only the article."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis

from flashsale import GateState, Goods, OrderState, Outcome, PlainKeys, Stock
from flashsale.lua import SCRIPTS
from tests.core.test_worker import booked, rows, work_off
from tests.support.article import SCRIPT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.helpers import Shop

pytestmark = pytest.mark.one_server


class External:
    """A service that was there before us: redis-py, the article's script and its key names, nothing of ours."""

    def __init__(self, client: redis.Redis[str]) -> None:
        self.redis = client
        self.sha: str = client.script_load(SCRIPT)

    def enter(self, goods_id: str) -> str | int:
        """The article's interception: "not started", "blocked", or what remains."""
        count, start, access = self.redis.mget(f"{goods_id}_count", f"{goods_id}_start", f"{goods_id}_access")
        if start == "0":
            return "not started"
        if int(access) >= int(count):
            return "blocked"
        return int(count) - self.redis.incr(f"{goods_id}_access")

    def deduct(self, goods_id: str, quantity: int = 1) -> int:
        taken: int = self.redis.evalsha(self.sha, 1, goods_id, quantity)
        return taken

    def push(self, order_id: str, goods_id: str, buyer_id: str, quantity: int = 1) -> None:
        order = {"order_id": order_id, "goods_id": goods_id, "buyer_id": buyer_id, "quantity": quantity}
        self.redis.lpush("orderList", json.dumps(order))

    def buy(self, order_id: str, goods_id: str, buyer_id: str, quantity: int = 1) -> bool:
        if not self.deduct(goods_id, quantity):
            return False
        self.push(order_id, goods_id, buyer_id, quantity)
        return True


@pytest.fixture
def external(redis_url: str) -> Iterator[External]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield External(client)


async def plain(shop: Shop, total: int = 100) -> Any:
    shop.keys = PlainKeys("spring")
    sale = shop.sale(keys=PlainKeys(), cache_for=0, store=await shop.store(Goods("GOODS", total)))
    await sale.preload("GOODS", total)
    return sale


async def agree(shop: Shop, sale: Any, *, direct: int = 0) -> None:
    """Redis' and the database's sums are the same, the untracked units apart."""
    stock = await sale.inventory.stock("GOODS")
    active = shop.sql("SELECT SUM(quantity) FROM flashsale_orders WHERE state IN ('PERSISTED', 'CONFIRMED')")[0][0] or 0
    assert (stock.booked - direct, stock.direct) == (active, direct)
    assert booked(shop, "GOODS") == active


# -- the walk-through -----------------------------------------------------------------------------------------------


async def test_the_articles_walk_through(real_shop: Shop, external: External) -> None:
    shop, raw = real_shop, external.redis
    # before the sale
    sale = await plain(shop)
    assert raw.mget("GOODS_count", "GOODS_start", "GOODS_access") == ["100", "0", "0"]
    assert raw.hmget("GOODS", "Total", "Booked") == ["100", "0"]
    assert external.enter("GOODS") == "not started"
    assert (await sale.gate.enter("GOODS")).outcome is Outcome.NOT_STARTED
    # the data-control module sets goodsId_start to 1
    await sale.start("GOODS")
    assert raw.get("GOODS_start") == "1"
    # accept, increment goodsId_access, remaining is count - access
    assert external.enter("GOODS") == 99
    assert (await sale.gate.enter("GOODS")).remaining == 98
    assert raw.get("GOODS_access") == "2"
    for _ in range(98):
        assert (await sale.gate.enter("GOODS")).admitted
    # access has reached count: blocked
    assert external.enter("GOODS") == "blocked"
    assert (await sale.gate.enter("GOODS")).outcome is Outcome.SOLD_OUT
    assert await sale.gate.state("GOODS") == GateState(count=100, started=True, access=100, remaining=0)
    # SCRIPT LOAD, EVALSHA <sha> 1 goodsId 1: ours answers like the article's
    await sale.inventory.load_scripts()
    assert external.deduct("GOODS") == await sale.inventory.deduct("GOODS") == 1
    assert await sale.inventory.deduct("GOODS", 97) == 97
    assert (external.deduct("GOODS", 2), await sale.inventory.deduct("GOODS", 2)) == (0, 0)
    assert external.deduct("GOODS") == 1
    assert (external.deduct("GOODS"), await sale.inventory.deduct("GOODS")) == (0, 0)
    assert raw.hmget("GOODS", "Total", "Booked") == ["100", "100"]
    assert await sale.inventory.stock("GOODS") == Stock(total=100, booked=100, remaining=0, direct=100)
    # LPUSH orderList, BRPOP orderList 0
    external.push("theirs", "GOODS", "ann")
    assert (await sale.queue.pop()).order_id == "theirs"
    await sale.queue.push(shop.api.Order("ours", "GOODS", "bob", 2))
    name, body = raw.brpop("orderList", 0)
    assert (name, json.loads(body)["order_id"]) == ("orderList", "ours")


async def test_a_whole_purchase_writes_the_articles_keys(real_shop: Shop, external: External) -> None:
    sale = await plain(real_shop)
    await sale.start("GOODS")
    assert (await sale.buy("GOODS", "ann", 3)).accepted
    assert external.redis.get("GOODS_access") == "3"
    assert external.redis.hmget("GOODS", "Total", "Booked") == ["100", "3"]
    assert external.redis.llen("orderList") == 1
    ours = {key for key in external.redis.keys("*") if not key.startswith("flashsale:{spring}:")}
    assert ours == {"GOODS", "GOODS_count", "GOODS_start", "GOODS_access", "orderList"}


async def test_a_sale_that_others_laid_out_is_taken_over(real_shop: Shop, external: External) -> None:
    """Their keys are there already, with the same total; some units are sold."""
    raw = external.redis
    raw.mset({"GOODS_count": 100, "GOODS_start": 1, "GOODS_access": 40})
    raw.hset("GOODS", mapping={"Total": 100, "Booked": 40})
    sale = await plain(real_shop)
    assert await sale.inventory.stock("GOODS") == Stock(100, 40, 60, 40)
    receipt = await sale.buy("GOODS", "ann", 60)
    assert (receipt.accepted, receipt.remaining) == (True, 0)
    assert external.deduct("GOODS") == 0
    assert external.enter("GOODS") == "blocked"


async def test_the_articles_flag_moves_our_sale(real_shop: Shop, external: External) -> None:
    sale = await plain(real_shop)
    external.redis.set("GOODS_start", 1)
    assert (await sale.buy("GOODS", "ann")).accepted
    external.redis.set("GOODS_start", 0)
    assert (await sale.buy("GOODS", "ann")).outcome is Outcome.NOT_STARTED


# -- side by side ---------------------------------------------------------------------------------------------------


async def test_external_orders_are_adopted_from_the_untracked_units(real_shop: Shop, external: External) -> None:
    sale = await plain(real_shop)
    await sale.start("GOODS")
    assert external.buy("theirs", "GOODS", "ann", 5)
    assert (await sale.buy("GOODS", "bob", 2, order_id="ours")).accepted
    assert await sale.inventory.stock("GOODS") == Stock(100, 7, 93, 5)
    await work_off(real_shop, real_shop.worker(sale))
    assert await rows(sale) == {"theirs": OrderState.PERSISTED, "ours": OrderState.PERSISTED}
    assert await sale.status("theirs") is OrderState.PERSISTED
    await agree(real_shop, sale)
    assert await sale.cancel("theirs") is OrderState.CANCELLED  # an order like every other now
    await agree(real_shop, sale)
    assert (await sale.inventory.stock("GOODS")).booked == 2


async def test_external_orders_that_deducted_nothing_are_deducted(real_shop: Shop, external: External) -> None:
    sale = await plain(real_shop)
    external.push("theirs", "GOODS", "ann", 5)
    await work_off(real_shop, real_shop.worker(sale))
    assert await sale.inventory.stock("GOODS") == Stock(100, 5, 95, 0)
    await agree(real_shop, sale)


async def test_external_orders_past_the_stock_are_rejected(real_shop: Shop, external: External) -> None:
    sale = await plain(real_shop, 5)
    await sale.start("GOODS")
    await sale.buy("GOODS", "bob", 4, order_id="ours")
    external.push("too-many", "GOODS", "ann", 2)
    external.push("fits", "GOODS", "ann", 1)
    await work_off(real_shop, real_shop.worker(sale))
    assert await rows(sale) == {
        "ours": OrderState.PERSISTED,
        "fits": OrderState.PERSISTED,
        "too-many": OrderState.REJECTED,
    }
    await agree(real_shop, sale)
    assert (await sale.inventory.stock("GOODS")).remaining == 0


async def test_units_that_external_programs_hold_stay_theirs(real_shop: Shop, external: External) -> None:
    """They deducted and push later, or never: until then the units are booked, and nobody else gets them."""
    sale = await plain(real_shop, 5)
    await sale.start("GOODS")
    assert external.deduct("GOODS", 3) == 3
    assert (await sale.buy("GOODS", "bob", 3)).outcome is Outcome.SOLD_OUT
    assert (await sale.buy("GOODS", "bob", 2)).accepted
    for _ in range(3):
        await real_shop.syncer(sale).run_once()
    await work_off(real_shop, real_shop.worker(sale))
    await agree(real_shop, sale, direct=3)
    assert await sale.inventory.release("GOODS", 3) == 3  # they gave up
    await agree(real_shop, sale)


async def test_both_kinds_sell_at_once_and_the_sums_agree(real_shop: Shop, external: External, redis_url: str) -> None:
    """Threads of an external program beside our own buyers, our worker and our syncer."""
    shop = real_shop
    sale = await plain(shop, 100)
    await sale.start("GOODS")
    theirs: list[str] = []

    def sell(number: int) -> None:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            program = External(client)
            for n in range(30):
                if program.buy(f"f-{number}-{n}", "GOODS", f"fb-{number}", 1 + n % 2):
                    theirs.append(f"f-{number}-{n}")

    threads = [threading.Thread(target=sell, args=(number,)) for number in range(4)]
    worker, syncer = shop.worker(sale, batch=20), shop.syncer(sale)

    async def ours(n: int) -> str | None:
        receipt = await sale.buy("GOODS", f"b-{n}", 1 + n % 2, order_id=f"o-{n}")
        return receipt.order_id if receipt.accepted else None

    async def background() -> None:
        for _ in range(6):
            await worker.run_once()
            await syncer.run_once()

    for thread in threads:
        thread.start()
    accepted = await asyncio.gather(background(), *(ours(n) for n in range(120)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await work_off(shop, worker)
    states = await rows(sale)
    assert states.keys() == {*theirs, *(order_id for order_id in accepted if order_id)}
    assert set(states.values()) == {OrderState.PERSISTED}
    assert (await sale.inventory.stock("GOODS")).booked in {99, 100}
    await agree(shop, sale)


async def test_a_external_consumer_may_take_our_orders(real_shop: Shop, external: External) -> None:
    sale = await plain(real_shop)
    await sale.start("GOODS")
    await sale.buy("GOODS", "ann", 2, order_id="o-1", data={"size": "L"})
    _, body = external.redis.brpop("orderList", 1)
    order = json.loads(body)
    assert order.pop("created_at") > 0
    assert order == {"order_id": "o-1", "goods_id": "GOODS", "buyer_id": "ann", "quantity": 2, "data": {"size": "L"}}
    assert await real_shop.worker(sale).run_once() == 0
    assert await sale.status("o-1") is OrderState.QUEUED  # from now on it is the host's


@pytest.mark.parametrize(("quantity", "taken"), [("-3", -3), ("0x10", 16), ("1e1", 10), (" 5 ", 5)])
async def test_what_the_articles_script_lets_through_ours_refuses(
    real_shop: Shop, external: External, quantity: str, taken: int
) -> None:
    """The reason why ours is not the article's text."""
    sale = await plain(real_shop)
    ours = external.redis.script_load(SCRIPTS["deduct"].text)
    assert external.redis.evalsha(ours, 1, "GOODS", quantity) == 0
    assert (await sale.inventory.stock("GOODS")).booked == 0
    assert external.redis.evalsha(external.sha, 1, "GOODS", quantity) == taken  # -3 is "success", and the stock grows
    assert external.redis.hget("GOODS", "Booked") == str(taken)
