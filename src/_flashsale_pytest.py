"""Fixtures for a host's tests, in a module of its own: pytest imports it in every run, but `flashsale` when it is used.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from flashsale import FlashSale, aio
    from flashsale.testing._plugin_redis import Server
    from flashsale.testing.sales import AsyncStoreMaker, SaleGoods, StoreMaker


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--flashsale-redis`."""
    parser.getgroup("flashsale").addoption(
        "--flashsale-redis",
        metavar="URL|own",
        help="the Redis of the fixtures: yours, of which only the tests' own sales are removed, or `own`: one started "
        "for this run; default: fakeredis",
    )


@pytest.fixture(scope="session")
def _flashsale_redis_url(pytestconfig: pytest.Config) -> Iterator[str | None]:
    chosen: str | None = pytestconfig.getoption("--flashsale-redis")
    if chosen != "own":
        yield chosen
        return
    from flashsale.testing._plugin_redis import running_redis

    with running_redis() as url:
        yield url


@pytest.fixture
def _flashsale_server(_flashsale_redis_url: str | None, pytestconfig: pytest.Config) -> Server:
    from flashsale.testing._plugin_redis import Server

    server = Server(_flashsale_redis_url)
    if pytestconfig.getoption("--flashsale-redis") == "own":
        with server.client() as client:
            client.flushall()
    return server


@pytest.fixture
def flashsale_client(_flashsale_server: Server) -> Iterator[redis.Redis]:
    """A redis-py client of a Redis that is empty, unless it is yours (`--flashsale-redis=URL`)."""
    with _flashsale_server.client() as client:
        yield client


@pytest.fixture
def flashsale_async_client(_flashsale_server: Server) -> redis.asyncio.Redis:
    """An asyncio client of the same Redis. Close it, or use it with `async with`, where you send commands yourself."""
    return _flashsale_server.async_client()


@pytest.fixture
def make_flashsale(flashsale_client: redis.Redis) -> Iterator[Callable[..., FlashSale]]:
    """Makes sales that are open now, and gone after the test; the arguments are those of `temporary_sale`."""
    from flashsale.testing.sales import temporary_sale

    with ExitStack() as stack:

        def make(
            goods: SaleGoods, *, store: StoreMaker | None = None, started: bool = True, **settings: Any
        ) -> FlashSale:
            return stack.enter_context(
                temporary_sale(flashsale_client, goods, store=store, started=started, **settings)
            )

        yield make


@pytest.fixture
def make_async_flashsale(
    flashsale_async_client: redis.asyncio.Redis,
) -> Callable[..., AbstractAsyncContextManager[aio.FlashSale]]:
    """Makes asyncio sales, for `async with`: so they end in the loop of the test, whichever plugin runs it."""
    from flashsale.testing.sales import temporary_async_sale

    def make(
        goods: SaleGoods, *, store: AsyncStoreMaker | None = None, started: bool = True, **settings: Any
    ) -> AbstractAsyncContextManager[aio.FlashSale]:
        return temporary_async_sale(flashsale_async_client, goods, store=store, started=started, **settings)

    return make
