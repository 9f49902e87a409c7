"""The one way of a reservation: whoever reserves shares calls with those of the same mode, and keeps their own slot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import flashsale.aio
from bench.hops import Hops
from flashsale import FlashSale, NotExecuted, Receipt, Tickets
from flashsale._sync.transport.coalescer import IN_FLIGHT
from flashsale.lua import Slot
from tests.support import servers
from tests.support.helpers import inside, order, settled, together

if TYPE_CHECKING:
    from tests.support.helpers import Backend, Shop

TICKETS = Tickets({"a": b"s" * 32})


def script_calls(shop: Shop) -> int:
    return int(shop.raw.info("commandstats")["cmdstat_evalsha"]["calls"])


def slots(shop: Shop) -> dict[str, bool]:
    """Order id -> the ledger says that the order holds a slot."""
    return {
        name.decode(): text.split(b"|")[2] in {b"1", b"3"} for name, text in shop.raw.hgetall(shop.keys.orders).items()
    }


async def test_orders_of_every_mode_wait_in_one_line_and_keep_their_slots(real_shop: Shop) -> None:
    """Buyers, holders of tickets and the stock's own callers: a call for each mode, however they are mixed."""
    shop = real_shop
    sale = await shop.open(100, sale=shop.sale(tickets=TICKETS, timeout=120.0))
    await sale.inventory.load_scripts()
    entries = [await sale.enter("phone", f"t-{n}") for n in range(4)]
    calls: list[Any] = [lambda n=n: sale.buy("phone", "early", order_id=f"early-{n}") for n in range(IN_FLIGHT)]
    for n, entry in enumerate(entries):
        calls.append(lambda n=n: sale.buy("phone", f"b-{n}", order_id=f"plain-{n}"))
        calls.append(lambda n=n, entry=entry: sale.buy("phone", f"t-{n}", ticket=entry.ticket))
        calls.append(lambda n=n: sale.inventory.reserve([order(f"direct-{n}")]))
    before = script_calls(shop)
    answers = await together(shop, sale.real.inventory._reservations.singles, *calls)
    receipts = [answer[0] if isinstance(answer, list) else answer for answer in answers]
    assert all(isinstance(receipt, Receipt) and receipt.accepted for receipt in receipts)
    asked = [f"early-{n}" for n in range(IN_FLIGHT)]
    asked += [name for n, entry in enumerate(entries) for name in (f"plain-{n}", entry.order_id, f"direct-{n}")]
    assert [receipt.order_id for receipt in receipts] == asked
    assert slots(shop) == {name: not name.startswith("direct") for name in asked}
    state = await sale.gate.state("phone")
    assert state.access == IN_FLIGHT + 8  # who held a ticket took no second slot
    assert script_calls(shop) - 1 - before - IN_FLIGHT in {3, 4, 5}  # threads may lead before the line is complete


async def test_a_call_that_fails_fails_its_own_mode_alone(real_shop: Shop) -> None:
    """They left together, by two calls: who may not touch the gate is told so, and the others are answered."""
    shop = real_shop
    with servers.redis_server() as server:
        client = shop.keep(server.aclient()) if shop.is_async else server.client()
        sale = await shop.open(10, sale=shop.make("FlashSale", client, "spring"))
        reservations, taking = sale.real.inventory._reservations, sale.real._purchases._modes[Slot.TAKE]
        passing = inside(shop.api, "reservations").Mode(Slot.NONE)
        requests = [(order(n), passing if n % 2 else taking) for n in range(4)]
        keys = ["meta", "orders", "orderList", "bell", "phone:stock", "phone:buyers"]
        server.client().execute_command("ACL", "SETUSER", "default", "resetkeys", *(f"~*:{key}" for key in keys))
        answers = await settled(reservations._send(requests))
        assert [type(answer) for answer in answers] == [NotExecuted, Receipt] * 2
        assert (answers[0].reason, answers[0] is answers[2]) == ("NOPERM", False)
        assert [answer.accepted for answer in answers[1::2]] == [True, True]


@pytest.mark.parametrize("backend", [("redis", False)], ids=["redis"], indirect=True)
def test_a_purchase_takes_few_hops(backend: Backend) -> None:
    """One that is named by nobody, at an open gate, with nobody else about; `python -m bench.hops` shows them."""
    with FlashSale(backend.client(), "spring") as sale:
        sale.preload("phone", 10)
        sale.start("phone")
        sale.buy("phone", "ann")
        with (hops := Hops()):
            receipt = sale.buy("phone", "ann")
    assert receipt.accepted
    assert hops.calls <= 32
    assert hops.depth <= 11

    async def awaited() -> Hops:
        client = backend.aclient()
        async with client, flashsale.aio.FlashSale(client, "spring") as sale:
            await sale.buy("phone", "ann")
            with (hops := Hops()):
                assert await sale.buy("phone", "ann")
        return hops

    hops = asyncio.run(awaited())
    assert hops.calls <= 40
    assert hops.depth <= 10
