"""Rows 48 to 50 and 62: a greedy buyer, a web process that was taken over, a shared cache, and small ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis
from flask import Flask, Response, session
from httpx import ASGITransport, AsyncClient
from starlette import responses
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Route

from flashsale import InvalidRequest, OrderState, Outcome, Tickets, web
from flashsale.contrib.fastapi import FastAPISale
from flashsale.contrib.flask import FlaskSale
from tests.chaos.faults.catalogue import AIO, fault
from tests.support import acl, servers
from tests.support.helpers import settled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from tests.chaos.faults.world import World

CONFIG = {"FLASHSALE_SALE": "spring", "SECRET_KEY": "of the shop"}
PAGE = b"<h1>Phone</h1>"


@fault(
    48,
    "one buyer enters again and again",
    "more than the cap; 20 callers at a time; gate and stock on one Redis, and on two",
    holds="L T",
    mechanism="the gate has the cap, and keeps one live ticket of a buyer, until it is used or has expired",
    without=(
        "the cap of a ticket",
        "one live ticket",
        "the end of a ticket",
        "a used ticket blocks nobody",
        "dead tickets are removed",
    ),
)
async def test_row_48_one_buyer_enters_again_and_again(world: World) -> None:
    gate = world.enter(servers.redis_server())
    await _greedy(world, world.redis_server, gate)
    await _greedy(world, world.server())


async def _greedy(world: World, server: servers.RedisServer, gate: servers.RedisServer | None = None) -> None:
    """Four units and four buyers, one of whom is greedy."""
    settings = {} if gate is None else {"gate_client": world.connect(gate.port)}
    url = f"sqlite:///{world.folder}/{server.port}.db"
    sale = await world.sell(server.port, 4, url=url, per_buyer=1, tickets=Tickets({"a": b"s" * 32}), **settings)
    syncer, at_the_gate, tickets = world.syncer(sale), (gate or server).client(), world.keys.tickets("phone")
    for units in (2, 4, 100):
        greedy = await world.answer(sale.enter("phone", "greedy", units))
        assert greedy.outcome is Outcome.LIMIT_REACHED, "L: more than the cap"
    entries = await asyncio.gather(*(sale.enter("phone", "greedy") for _ in range(20)))
    assert len({each.order_id for each in entries}) == 1, "L: one buyer has many tickets"
    await world.answered(InvalidRequest, sale.enter("phone", "greedy", order_id="another"))
    bought = [await sale.buy("phone", "greedy", ticket=entries[0].ticket)]
    for buyer in ("ann", "bob"):
        entry = await sale.enter("phone", buyer)
        assert entry.admitted, "L: an honest buyer finds no slot"
        bought.append(await sale.buy("phone", buyer, ticket=entry.ticket))
    assert all(each.accepted for each in bought)

    late = await sale.enter("phone", "cleo")
    assert late.admitted
    _, _, rest = at_the_gate.hget(tickets, "cleo").partition(b"|")
    at_the_gate.hset(tickets, "cleo", b"1.000000|" + rest)  # time passes
    early = await sale.enter("phone", "cleo")
    assert early.outcome is Outcome.SOLD_OUT, "L: a ticket never expires"  # its slot has not returned yet
    for _ in range(2):  # a slot has leaked when it was there in two looks
        await syncer.run_once()
    assert not at_the_gate.hexists(tickets, "cleo"), "L: dead tickets stay for ever"
    entry = await sale.enter("phone", "cleo")
    assert entry.order_id != late.order_id
    assert (await sale.buy("phone", "cleo", ticket=entry.ticket)).accepted

    await world.drain(sale)
    assert await sale.cancel(bought[0].order_id) is OrderState.CANCELLED
    entry = await sale.enter("phone", "greedy")
    assert entry.order_id != bought[0].order_id, "L: a cancelled order blocks its buyer"
    assert (await sale.buy("phone", "greedy", ticket=entry.ticket)).accepted
    await world.drain(sale)
    assert await world.active_units(sale) == 4
    assert (await syncer.audit()).ok


@fault(
    49,
    "a web process that was taken over",
    "its user reads and removes what workers have claimed, by their numbers",
    holds="E",
    mechanism="the user reaches the keys of a purchase alone, and calls nothing that replaces a key",
    without=("the names of a shop's keys", "no command of a shop replaces a key"),
)
async def test_row_49_web_process_taken_over(world: World) -> None:
    server = world.server()
    for command in acl.users():
        server.client().execute_command(*command)
    back = await world.sell(world.connect(server.port, **acl.LIBRARY))
    front = world.beside(world.connect(server.port, **acl.SHOP), back.store)
    for number in range(3):
        assert (await front.buy("phone", "ann", order_id=f"o-{number}")).accepted
    assert await back.queue.claim(1)
    keys, stolen = world.keys, server.client(**acl.SHOP)
    for words in (
        ("hget", keys.claimed, "1"),
        ("hmget", keys.claimed, "1"),
        ("eval", "return redis.call('HGET', KEYS[1], '1')", "1", keys.claimed),
        ("eval", f"return redis.call('HGET', '{keys.claimed}', '1')", "0"),
        ("hset", keys.claimed, "1", ""),
        ("hdel", keys.claimed, "1"),
        ("zrem", keys.leases, "1"),
        ("hget", keys.dead, "o-0"),
        ("set", keys.order_list, ""),
        ("rpop", keys.order_list),
    ):
        with pytest.raises(redis.ResponseError):
            stolen.execute_command(*words)
    assert await front.cancel("o-1") is OrderState.CANCELLED
    await world.holds(back, ["o-0", "o-1", "o-2"], total=10)


@fault(
    50,
    "a public page and a framework's session",
    "a shared cache keeps the page that the first visitor was given, and gives it to the second",
    holds="E",
    mechanism="no cookie on an answer that a shared cache may keep",
    without=("no cookie in a shared cache",),
)
async def test_row_50_public_page_and_session(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    headers = await (_starlette if world.api.__name__ == AIO else _flask)(sale.real)
    assert web.is_shared(headers["Cache-Control"]) or "public" in headers["Cache-Control"]
    assert "Set-Cookie" not in headers, "E: the next visitor has this one's session, and may cancel their orders"


async def _flask(sale: Any) -> Mapping[str, str]:
    """Returns the headers of the page for a visitor with a session."""
    app = Flask("shop")
    app.config.update(CONFIG)
    sales = FlaskSale(app)

    @app.get("/")
    def page() -> Response:
        session["buyer"] = "ann"
        return Response(PAGE, headers=web.page_headers(PAGE, now=sales.sale.view("phone").now))

    with app.app_context():
        sales.sale = sale
    return app.test_client().get("/").headers


async def _starlette(sale: Any) -> Mapping[str, str]:
    sales = FastAPISale(CONFIG)
    sales.sale = sale

    async def page(request: Request) -> responses.Response:
        request.session["buyer"] = "ann"
        return responses.Response(PAGE, headers=web.page_headers(PAGE, now=(await sale.view("phone")).now))

    app = Starlette(routes=[Route("/", page)])
    app.add_middleware(SessionMiddleware, secret_key="of the shop")
    sales.install(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as visitor:
        return (await visitor.get("/")).headers


@fault(
    62,
    "small ones",
    "`view([])`, `buy_basket(None)`; Redis' clock set back by an hour; cancelled before it was saved",
    holds="L T",
    mechanism="checks of every argument; a lease that ends too late is none; the ledger's read brings the time",
    without=("the check of an item", "the check of a basket", "the longest lease", "the time of a tombstone"),
)
async def test_row_62_small_ones(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    await world.answered(InvalidRequest, sale.view([]))
    await world.answered(InvalidRequest, sale.buy_basket("ann", None))

    ahead = await settled(sale.real._ledger.time()) + 3602
    world.raw.hset(world.keys.meta, mapping={"leader": "another", "leader_until": f"{ahead:.6f}"})
    assert (await world.syncer(sale).run_once()).leading, "L: nobody leads for an hour"

    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    (row,) = await settled(sale.real.store.orders())
    assert row.order.created_at, "T: nobody knows when this was"
    await world.holds(sale, ["o-1"], total=10)
