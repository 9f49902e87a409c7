"""How many round trips purchases take, counted by the server."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from flashsale._sync.transport.coalescer import IN_FLIGHT
from tests.support.helpers import together

if TYPE_CHECKING:
    from tests.support.helpers import Shop


def script_calls(shop: Shop) -> int:
    stats = shop.raw.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_a_purchase_on_one_redis_is_one_round_trip(real_shop: Shop) -> None:
    sale = await real_shop.open(10)
    await sale.buy("phone", "first")  # the connection is made, and the script loaded
    before = script_calls(real_shop)
    with real_shop.raw.monitor() as monitor:
        real_shop.raw.echo("from here")
        assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
        real_shop.raw.echo("to here")
        seen = [monitor.next_command()]
        while seen[-1]["command"] != "ECHO to here":
            seen.append(monitor.next_command())
    sent = [each["command"].split()[0] for each in seen if each["client_type"] != "lua"]
    assert sent[sent.index("ECHO") :] == ["ECHO", "EVALSHA", "ECHO"]
    assert script_calls(real_shop) == before + 1


async def test_purchases_that_wait_together_share_round_trips(real_shop: Shop) -> None:
    sale = await real_shop.open(1000)
    await sale.buy("phone", "first")
    before = script_calls(real_shop)
    receipts = await asyncio.gather(*(sale.buy("phone", f"b-{n}") for n in range(500)))
    assert all(receipt.accepted for receipt in receipts)
    assert script_calls(real_shop) < before + 500


async def test_deductions_that_wait_together_are_one_call(real_shop: Shop) -> None:
    """128 fit into one call, so 300 need three."""
    shop, inventory = real_shop, real_shop.inventory(patient=True)
    await inventory.preload("phone", 250)
    await inventory.load_scripts()
    before = script_calls(shop)
    callers = IN_FLIGHT + 300
    taken = await together(shop, inventory.real._deductions, *[lambda: inventory.deduct("phone")] * callers)
    assert Counter(taken) == {1: 250, 0: callers - 250}  # of two calls that are under way, either may be the first
    calls = script_calls(shop) - before - IN_FLIGHT
    assert calls in {3, 4}  # a thread may come to lead while the one before it has not yet taken the rest along
    assert (await inventory.stock("phone")).booked == 250


async def test_an_error_reaches_every_caller_of_a_batch_and_each_can_ask_again(shop: Shop) -> None:
    sale = await shop.open(1000)
    shop.raw.set(shop.keys.orders, "not a hash")
    asked = [("phone", f"b-{n}", f"o-{n}") for n in range(50)]
    errors = await asyncio.gather(
        *(sale.buy(goods, buyer, order_id=name) for goods, buyer, name in asked), return_exceptions=True
    )
    assert {type(error).__name__ for error in errors} == {"CorruptState"}
    shop.raw.delete(shop.keys.orders)
    receipts = await asyncio.gather(*(sale.buy(goods, buyer, order_id=name) for goods, buyer, name in asked))
    assert all(receipt.accepted and not receipt.replayed for receipt in receipts)
    assert (await sale.inventory.stock("phone")).booked == 50
