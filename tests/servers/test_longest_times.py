"""The longest time of every call, as docs/operating.md states it: with Redis frozen, the database frozen, and both."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import flashsale.aio
from flashsale import FlashSale, FlashSaleError, Gate, Goods, Inventory, OrderQueue, OrderState, Outbox, Syncer, Worker
from flashsale.stores import SQLAlchemyStore
from tests.support import servers
from tests.support.database_proxy import frozen
from tests.support.helpers import Awaited, inside, order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.hosts import Host

SALE, STORE = 3.0, 2.0  # seconds of `FlashSale(timeout=)` and `SQLAlchemyStore(timeout=)`
SLOW = 6.0  # seconds that a busy machine may add
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"

CALLS: dict[str, Callable[[Any, int], Any]] = {
    "buy": lambda sale, n: sale.buy("phone", f"b-{n}"),
    "buy_basket": lambda sale, n: sale.buy_basket(f"b-{n}", [("phone", 1)]),
    "enter": lambda sale, _: sale.gate.enter("phone"),
    "deduct": lambda sale, _: sale.inventory.deduct("phone"),
    "status": lambda sale, n: sale.status(f"o-{n % 40}"),
    "unknown": lambda sale, n: sale.status(f"no-{n}"),
    "cancel": lambda sale, n: sale.cancel(f"o-{n % 40}"),
    "confirm": lambda sale, n: sale.confirm(f"o-{n % 40}"),
    "cancel_basket": lambda sale, _: sale.cancel_basket("basket"),
    "restock": lambda sale, n: sale.restock("phone", 1, f"r-{n}"),
    "extend_hold": lambda sale, n: sale.extend_hold(f"o-{n % 40}", 1.0),
    "pause": lambda sale, _: sale.pause(),
    "push": lambda sale, n: sale.queue.push(order(f"p-{n}")),
    "claim": lambda sale, _: sale.queue.claim(1, timeout=0.5),
}
OF_THE_DATABASE = {"cancel", "confirm", "cancel_basket", "restock"}


@contextlib.contextmanager
def silent(server: servers.RedisServer, url: str, who: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if who != "Redis":
            stack.enter_context(frozen(url))
        if who != "database":
            server.freeze()
            stack.callback(server.thaw)
        yield


async def sale_of(host: Host, server: servers.RedisServer, url: str) -> Any:
    real = inside(host.api, "stores.sqlalchemy").SQLAlchemyStore(url, "spring", timeout=STORE)
    store = Awaited(host.keep(real), host._threads)
    await store.create_all()
    await store.put_goods(Goods("phone", 10_000))
    sale = await host.opened(host.connect(server.port, socket_timeout=None), 10_000, store=store, timeout=SALE)
    await host.syncer(sale).run_once()
    await sale.inventory.reserve([order(f"o-{number}") for number in range(40)])
    await sale.buy_basket("ann", [("phone", 1)], basket_id="basket")
    while await host.worker(sale).run_once():
        pass
    return sale


@pytest.mark.parametrize("who", ["Redis", "database", "both"])
async def test_every_call_of_a_thousand_callers_ends_in_time(host: Host, fresh_postgres_url: str, who: str) -> None:
    longest = dict.fromkeys(CALLS, 0.0)
    wrong: dict[str, Any] = {}

    async def timed(name: str, number: int) -> None:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(SALE + 3 * SLOW):
                answer = await CALLS[name](sale, number)
        except FlashSaleError:
            pass
        except Exception as error:
            wrong[name] = error
        else:
            if who != "database" or name in OF_THE_DATABASE:
                wrong[name] = answer
        longest[name] = max(longest[name], time.monotonic() - begun)

    with servers.redis_server() as server:
        sale = await sale_of(host, server, fresh_postgres_url)
        names = [name for name in CALLS if who != "database" or name != "pause"]  # or the others read PAUSED
        with silent(server, fresh_postgres_url, who):
            number = 1000 if host.is_async else 300
            await asyncio.gather(*(timed(names[each % len(names)], each) for each in range(number)))
    print(who, {name: round(seconds, 1) for name, seconds in longest.items()})
    assert not {name: answer for name, answer in wrong.items() if not _is_decided(name, answer)}
    assert max(longest.values()) < SALE + SLOW, longest


def _is_decided(name: str, answer: Any) -> bool:
    """A state that the ledger knows to be final needs no database."""
    return name in OF_THE_DATABASE and isinstance(answer, OrderState)


@pytest.mark.parametrize("role", ["Worker", "Syncer", "Outbox"])
async def test_what_runs_ends_in_time_when_it_is_told_to(host: Host, fresh_postgres_url: str, role: str) -> None:
    with servers.redis_server() as server:
        sale = await sale_of(host, server, fresh_postgres_url)
        await sale.inventory.reserve([order(f"q-{number}") for number in range(5)])
        handler = [_handle if host.is_async else print] if role == "Outbox" else []
        runs = host.make(role, sale, *handler)
        stop = asyncio.Event() if host.is_async else threading.Event()
        running = asyncio.create_task(runs.run(stop))
        with silent(server, fresh_postgres_url, "both"):
            await asyncio.sleep(1.0)
            stop.set()
            begun = time.monotonic()
            await asyncio.wait_for(running, SALE + STORE + 3 * SLOW)
            assert time.monotonic() - begun < SALE + STORE + SLOW


async def _handle(_: Any) -> None: ...


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_page_states_a_time_for_every_public_call() -> None:
    table = PAGE.read_text("utf-8").partition("## How long a call takes at most")[2].partition("\n## ")[0]
    stated = set(re.findall(r"`([a-z_]+)`", table))
    public = {
        name
        for part in (FlashSale, Gate, Inventory, OrderQueue, Worker, Syncer, Outbox)
        for name, each in vars(part).items()
        if inspect.isfunction(each) and not name.startswith("_")
    }
    assert public <= stated, public - stated


def test_the_defaults_are_those_of_the_page() -> None:
    def default(call: Any) -> float:
        return inspect.signature(call).parameters["timeout"].default

    assert (default(FlashSale), default(flashsale.aio.FlashSale), default(SQLAlchemyStore)) == (10.0, 10.0, 7.0)
