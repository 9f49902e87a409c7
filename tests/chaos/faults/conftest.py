"""`world`, the place where a row plays; and the judge of mutations: without its mechanism a scenario must fail."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.faults.world import World
from tests.conftest import Backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from pathlib import Path

    from tests.chaos.faults.catalogue import Case
    from tests.support import servers

BROKEN = (AssertionError, pytest.fail.Exception)  # the second one is what `pytest.raises` says


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """The face, and what is taken out."""
    return request.param


@pytest.fixture
async def world(
    case: Case, redis_server: servers.RedisServer, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """Servers, clients and sales of this case's face, with its mechanism taken out."""
    with contextlib.closing(Backend("redis", decode=False, server=redis_server)) as backend:
        world = World(case.face, backend, redis_server, tmp_path)
        if case.mutation:
            case.mutation.take_out(monkeypatch, world)
        try:
            yield world
        finally:
            await world.close()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """A scenario that succeeds without a mechanism has not shown that it is needed."""
    case = pyfuncitem.callspec.params.get("case") if hasattr(pyfuncitem, "callspec") else None
    if case is None or case.mutation is None:
        return (yield)
    try:
        yield
    except BROKEN as broken:
        print(broken)
        return True
    pytest.fail(f"nothing misses {case.mutation.name}")
