"""A slow Redis and many callers: the line has an end, everybody hears something, and nobody keeps the others back."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import redis

from flashsale import FlashSale, NotExecuted, OutcomeUnknown, Overloaded
from flashsale._sync.transport.coalescer import IN_FLIGHT
from tests.support import servers
from tests.support.helpers import eventually, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.hosts import Host

CALLERS, MAX_WAITING = 60, 10
PATIENCE = 2.0  # seconds of socket timeout: long enough to see who is turned away before it, also on a busy machine


@pytest.fixture
def own() -> Iterator[servers.RedisServer]:
    """A Redis that a test may freeze."""
    with servers.redis_server() as server:
        yield server


CALLS = {
    "buy": lambda sale: sale.buy("phone", "ann"),
    "enter": lambda sale: sale.gate.enter("phone"),
    "deduct": lambda sale: sale.inventory.deduct("phone"),
}


async def test_behind_a_frozen_server_each_line_has_an_end(host: Host, own: servers.RedisServer) -> None:
    host.raw = own.client()
    sales = {}
    for way, call in CALLS.items():
        client = host.connect(own.port, socket_timeout=PATIENCE)
        sales[way] = await host.opened(client, 1000, name=way, max_waiting=MAX_WAITING)
        await call(sales[way])
    own.freeze()
    turned_away = await asyncio.gather(*(crowd(partial(CALLS[way], sale)) for way, sale in sales.items()))
    own.thaw()
    for (way, sale), early in zip(sales.items(), turned_away, strict=True):
        await CALLS[way](sale)
        gate, stock = await sale.gate.state("phone"), await sale.inventory.stock("phone")
        taken = gate.access if way == "enter" else stock.booked
        assert taken <= 2 + CALLERS - early  # nothing was sent for those turned away


async def crowd(call: Callable[[], Any]) -> int:
    """Makes many calls at once, and returns how many were turned away."""
    callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
    room = MAX_WAITING + IN_FLIGHT  # a task that is about to leave still waits
    await until(lambda: sum(caller.done() for caller in callers) >= CALLERS - room, "those turned away")
    early = [caller for caller in callers if caller.done()]
    assert {type(caller.exception()) for caller in early} == {Overloaded}  # before anybody was given up
    assert len(early) <= CALLERS - MAX_WAITING
    late = await asyncio.gather(*(caller for caller in callers if caller not in early), return_exceptions=True)
    assert {type(answer) for answer in late} <= {OutcomeUnknown, NotExecuted, Overloaded}
    return len(early)


class Interrupt(Exception):
    """Out of nowhere, as a task queue's time limit is."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may strike in a weak reference
def test_interrupted_threads_leave_no_gap_in_the_line(redis_url: str) -> None:
    """While they wait for their answer: those behind them in the batch are woken all the same."""
    with redis.Redis.from_url(redis_url) as raw, FlashSale(raw, "spring") as sale:
        sale.preload("phone", 1000)
        sale.start("phone")
        sale.buy("phone", "first")
        answers: dict[int, Any] = {}

        def buy(number: int) -> None:
            try:
                answers[number] = sale.buy("phone", f"b-{number}", order_id=f"o-{number}")
            except BaseException as error:
                answers[number] = error

        for crowd in range(0, 100, 20):
            raw.client_pause(60_000, all=False)
            threads = [threading.Thread(target=buy, args=(crowd + n,), daemon=True) for n in range(20)]
            for thread in threads:
                thread.start()
            line = sale.inventory._reservations.singles
            eventually(lambda: line._in_flight + len(line._waiting) == 20, "all in line")  # noqa: B023
            for thread in threads[::3]:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupt))
            raw.client_unpause()
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive(), "somebody was never woken"
        interrupted = {number for number, answer in answers.items() if isinstance(answer, Interrupt)}
        assert interrupted  # those who waited; one that led may have been told OutcomeUnknown
        assert all(answers[number].accepted for number in range(100) if number % 20 % 3)
        assert sale.buy("phone", "last").accepted
        assert (line._in_flight, line._waking, len(line._waiting)) == (0, 0, 0)
