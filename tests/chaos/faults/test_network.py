"""Rows 1 to 6: between the caller and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flashsale import NotExecuted, OutcomeUnknown
from tests.chaos.faults.catalogue import fault
from tests.chaos.faults.world import SHORT

if TYPE_CHECKING:
    from tests.chaos.faults.world import World


async def _bought_once(world: World, sale: Any, order_id: str, booked: int) -> None:
    """The caller asks again with the id, and so many units are booked in all."""
    receipt = await world.answer(sale.buy("phone", "ann", order_id=order_id))
    assert getattr(receipt, "accepted", False), f"T: {receipt!r}"
    assert world.booked() == booked, f"O: {world.booked()} units are booked for {booked} orders"
    assert await sale.queue.size() == booked


@fault(
    1,
    "reply lost",
    "a TCP proxy closes after forwarding the request",
    holds="O E",
    mechanism="the order id is asked for in the script",
    without=("the order id in the script",),
)
async def test_row_01_reply_lost(world: World) -> None:
    proxy = world.proxy()
    sale = await world.sell(proxy.port)
    proxy.cut_reply(b"EVALSHA")
    receipt = await sale.buy("phone", "ann", order_id="one-lost")
    assert world.booked() == 1, "O: one order was booked twice"
    assert (receipt.accepted, receipt.replayed) == (True, True)
    proxy.cut_reply(b"EVALSHA", times=None)
    unknown = await world.answered(OutcomeUnknown, sale.buy("phone", "ann"))
    proxy.clear()
    await _bought_once(world, sale, unknown.order_id, 2)
    await world.holds(sale, ["one-lost", unknown.order_id], total=10)


@fault(
    2,
    "half a reply",
    "the proxy forwards the first half of the reply",
    holds="O T",
    mechanism="the same; `OutcomeUnknown` once it was sent",
    without=("the order id in the script", "the side of the send"),
)
async def test_row_02_half_a_reply(world: World) -> None:
    proxy = world.proxy()
    sale = await world.sell(proxy.port)
    proxy.half_reply(b"EVALSHA", times=None)
    unknown = await world.answered(OutcomeUnknown, sale.buy("phone", "ann"))
    await world.answered(OutcomeUnknown, sale.inventory.deduct("phone"))
    proxy.clear()
    await sale.inventory.release("phone")
    await _bought_once(world, sale, unknown.order_id, 1)


@fault(
    3,
    "black hole",
    "the proxy swallows requests, then replies",
    holds="O T",
    mechanism="a timeout, then the same id",
    without=("the timeout", "the order id in the script"),
)
async def test_row_03_black_hole(world: World) -> None:
    proxy = world.proxy()
    sale = await world.sell(world.connect(proxy.port, socket_timeout=SHORT))
    proxy.swallow_request(b"EVALSHA", times=None)
    first = await world.answered(OutcomeUnknown, sale.buy("phone", "ann"))
    proxy.clear()
    proxy.swallow_reply(b"EVALSHA", times=None)
    second = await world.answered(OutcomeUnknown, sale.buy("phone", "ann"))
    assert first.order_id != second.order_id
    proxy.clear()
    await _bought_once(world, sale, second.order_id, 1)
    await _bought_once(world, sale, first.order_id, 2)


@fault(
    4,
    "server frozen",
    "SIGSTOP; DEBUG SLEEP",
    holds="O T",
    mechanism="a timeout, then the same id",
    without=("the timeout", "the order id in the script"),
)
async def test_row_04_server_frozen(world: World) -> None:
    has_switch = int(world.raw.info("server")["redis_version"].partition(".")[0]) >= 7
    server = world.server(**({"enable_debug_command": "local"} if has_switch else {}))
    sale = await world.sell(world.connect(server.port, socket_timeout=SHORT))
    server.freeze()
    world.at_end(server.thaw)  # whoever still waits is heard
    unknown = await world.answered(OutcomeUnknown, sale.buy("phone", "ann"))
    server.thaw()  # what was sent meanwhile is executed now
    await _bought_once(world, sale, unknown.order_id, 1)

    with contextlib.suppress(redis.TimeoutError):
        server.client(socket_timeout=0.1, retry=Retry(NoBackoff(), 0)).execute_command("DEBUG", "SLEEP", 2)
    answer = await world.answer(sale.buy("phone", "ann", order_id="asleep"))
    assert isinstance(answer, OutcomeUnknown) or answer.accepted, f"T: {answer!r}"  # it may wake up in time
    await asyncio.to_thread(world.raw.ping)
    await _bought_once(world, sale, "asleep", 2)


@fault(
    5,
    "writes paused",
    "CLIENT PAUSE WRITE",
    holds="T",
    mechanism="a timeout, then the same id",
    without=("the timeout",),
)
async def test_row_05_writes_paused(world: World) -> None:
    server = world.server()
    sale = await world.sell(world.connect(server.port, socket_timeout=SHORT))
    world.raw.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    unknown = await world.answered(OutcomeUnknown, sale.buy("phone", "ann"))
    world.raw.client_unpause()
    await _bought_once(world, sale, unknown.order_id, 1)


@fault(
    6,
    "script cache lost",
    "SCRIPT FLUSH in a loop",
    holds="T",
    mechanism="NOSCRIPT: EVAL once",
    without=("EVAL",),
)
async def test_row_06_script_cache_lost(world: World) -> None:
    server = world.server()
    sale = await world.sell(server.port, 50)
    stop = threading.Event()

    def flush() -> None:
        with redis.Redis(port=server.port) as client:
            while not stop.is_set():
                client.script_flush()

    flusher = threading.Thread(target=flush)
    flusher.start()
    try:
        answers = [await world.answer(sale.buy("phone", "ann", order_id=f"o-{number}")) for number in range(60)]
    finally:
        stop.set()
        flusher.join()
    refused = [answer for answer in answers if isinstance(answer, NotExecuted)]
    assert not refused, f"T: {len(refused)} purchases were not made"
    assert sum(answer.accepted for answer in answers) == world.booked() == 50
