"""Rows 27, 34 and 35: many at once."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from flashsale import FlashSaleError, OrderState
from tests.chaos.faults.catalogue import fault
from tests.support.helpers import Awaited

if TYPE_CHECKING:
    from tests.chaos.faults.world import World


@fault(
    27,
    "double click",
    "100 callers with one id, in two processes' worth of sales",
    holds="O",
    mechanism="the order id is asked for in the script",
    without=("the order id in the script",),
)
async def test_row_27_double_click(world: World) -> None:
    sale = await world.sell(world.redis_server.port, 200)
    other = world.beside(world.redis_server.port, sale.store)
    calls = (each.buy("phone", "ann", order_id="o-1") for _ in range(50) for each in (sale, other))
    receipts = await asyncio.gather(*calls)
    assert all(receipt.accepted for receipt in receipts)
    assert sum(not receipt.replayed for receipt in receipts) == world.booked() == 1, "O: one order was booked twice"
    await world.holds(sale, ["o-1"], total=200)


@fault(
    34,
    "pay against expire",
    "in parallel",
    holds="O L",
    mechanism="a conditional update: one winner",
    without=("the conditional update",),
)
async def test_row_34_pay_against_expire(world: World) -> None:
    sale = await world.sell(world.redis_server.port, 40, hold=60)
    names = [f"o-{number}" for number in range(40)]
    for name in names:
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await world.drain(sale)
    other = world.beside(world.redis_server.port, sale.store)
    syncers = Awaited(other.real._transitions, world._threads)

    async def both(name: str) -> tuple[Any, Any]:
        calls = [sale.confirm(name), syncers.settle(name, OrderState.EXPIRED)]
        if int(name[2:]) % 2:
            calls.reverse()
        answers = await asyncio.gather(*calls)
        return answers[0], answers[1]

    told = dict(zip(names, await asyncio.gather(*map(both, names)), strict=True))
    rows = await world.orders(sale)
    assert told == {name: (state, state) for name, state in rows.items()}, "L: paid, and its unit was given away"
    assert {*rows.values()} <= {OrderState.CONFIRMED, OrderState.EXPIRED}
    await world.holds(sale, names, total=40)
    assert world.booked() == await world.active_units(sale)


@fault(
    35,
    "fork, threads, task.cancel",
    "a preloaded server forks workers with threads; storms of cancelled tasks",
    holds="O T",
    mechanism="connections of each process' own; none is used again in the midst of a reply",
    without=(
        "connections of a process' own",
        "the end of a connection in the midst of a reply",
    ),
)
async def test_row_35_fork_threads_cancel(world: World) -> None:
    if world.is_async:
        await _storm(world)
        return
    await world.sell(world.redis_server.port, 1000)
    wrong = await world.process("preloaded", world.redis_server.port).result()
    assert wrong == [0, 0, 0], f"T: workers were told of others' orders: {wrong}"
    assert world.booked() == 301


async def _storm(world: World) -> None:
    """Calls are cancelled while their replies are on the way: whoever reads such a reply is told of another order."""
    proxy = world.proxy()
    sale = await world.sell(proxy.port, 1000)
    dice = random.Random(1)
    for storm in range(20):
        names = [f"{storm}-{number}" for number in range(20)]
        proxy.hold()
        sent = proxy.count(b"EVALSHA")
        calls = [asyncio.create_task(world.answer(sale.buy("phone", name, order_id=name))) for name in names]
        calls += [asyncio.create_task(world.answer(sale.inventory.stock("phone"))) for _ in names]
        await asyncio.to_thread(proxy.wait_for, b"EVALSHA", count=sent + 1)
        for call in {calls[0], *dice.sample(calls, 20)}:  # the first one left alone, in its caller's own task
            call.cancel()
        await asyncio.sleep(0)
        proxy.release()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        broken = [answer for answer in answers if isinstance(answer, AssertionError | FlashSaleError)]
        assert not broken, f"T: {broken[0]!r}"
        for name, answer in zip(names, answers, strict=False):
            assert isinstance(answer, asyncio.CancelledError) or answer.order_id == name, "T: another's receipt"
        for name in names:
            receipt = await world.answer(sale.buy("phone", name, order_id=name))
            assert getattr(receipt, "accepted", False), f"T: {receipt!r}"
    assert world.booked() == 400, "O: a retry was booked again"
