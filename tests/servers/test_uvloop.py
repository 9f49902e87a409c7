"""On uvloop a connection that has ended says so with a RuntimeError: to a caller it is like any other lost one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio
import uvloop

from flashsale import NotExecuted, OutcomeUnknown, aio
from flashsale.aio.transport import link as scripts

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def ending_with(monkeypatch: pytest.MonkeyPatch, url: str, new_loop: Any, when: str) -> BaseException:
    """Returns what a caller gets whose connection ended just before `when`; asserts that the next call works."""
    place, name = {"send": (scripts, "send"), "read": (redis.asyncio.Connection, "read_response")}[when]
    real = getattr(place, name)
    armed = False

    async def ended(connection: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal armed
        if armed:
            armed = False
            connection._writer.transport.abort()
            await asyncio.sleep(0.01)
        return await real(connection, *args, **kwargs)

    async def play() -> BaseException:
        nonlocal armed
        async with redis.asyncio.Redis.from_url(url) as client, aio.Inventory(client, "spring") as inventory:
            await inventory.preload("phone", 5)
            armed = True
            with pytest.raises((NotExecuted, OutcomeUnknown)) as failed:
                await inventory.deduct("phone")
            assert await inventory.deduct("phone") == 1
            return failed.value

    monkeypatch.setattr(place, name, ended)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(play())


@LOOPS
def test_a_connection_that_ends_before_the_send(redis_url: str, monkeypatch: pytest.MonkeyPatch, new_loop: Any) -> None:
    failure = ending_with(monkeypatch, redis_url, new_loop, "send")
    causes: list[BaseException] = [failure]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert isinstance(causes[-1], RuntimeError) == (new_loop is uvloop.new_event_loop)


async def test_any_other_runtime_error_is_the_hosts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong_loop(*_: Any, **__: Any) -> None:
        raise RuntimeError("got Future attached to a different loop")

    async with redis.asyncio.Redis.from_url(redis_url) as client, aio.Inventory(client, "spring") as inventory:
        await inventory.preload("phone", 5)
        monkeypatch.setattr(scripts, "send", wrong_loop)
        with pytest.raises(RuntimeError, match="different loop"):
            await inventory.deduct("phone")
