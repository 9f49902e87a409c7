"""`world`, the place where a row plays."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.chaos.faults.world import World
from tests.conftest import Backend
from tests.support import django_shop
from tests.support.mutants import DJANGO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support import servers


@pytest.fixture
def case(request: pytest.FixtureRequest) -> str:
    """The name of the API, or Django's."""
    if request.param == DJANGO:
        django_shop.set_up()  # here: it refuses an event loop
    return request.param


@pytest.fixture
async def world(
    case: str, redis_server: servers.RedisServer, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    """Servers, clients and sales of this case's API."""
    with contextlib.closing(Backend("redis", decode=False, server=redis_server)) as backend:
        world = World(case, backend, redis_server, tmp_path, request.getfixturevalue)
        try:
            yield world
        finally:
            await world.close()
