"""Small faults at the edges: odd arguments, odd bodies, a clock set back, items that are announced and not loaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from httpx import ASGITransport, AsyncClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from flashsale import FlashSale, Goods, InvalidRequest, Order, OrderState, Syncer, web
from flashsale.contrib import buyer_id
from flashsale.contrib.fastapi import FastAPISale, response
from flashsale.contrib.flask import FlaskSale
from flashsale.model.checks import MAX_BODY, MAX_DEPTH, check_body, check_goods_id
from flashsale.stores import SQLAlchemyStore
from tests.support import django_shop
from tests.support.helpers import settled
from tests.support.mutants import kills
from tests.support.sales import each_backend, work

django_shop.set_up()

from django.http import HttpRequest  # noqa: E402 - settings come first

from flashsale.contrib import django as django_api  # noqa: E402
from flashsale.contrib.django.middleware import FlashSaleMiddleware  # noqa: E402

if TYPE_CHECKING:
    import redis

    from tests.support.helpers import Shop

NO_BASKETS = (None, 5, [None], ["phone"], [("phone",)], [("phone", 1, 2)], [5], {"phone": 1}, [([], 1)])


# -- arguments ------------------------------------------------------------------------------------------------------


@each_backend
async def test_what_is_no_item_or_no_basket_is_an_invalid_request(shop: Shop) -> None:
    sale = await shop.open()
    for bad in ([], {}, None, 5, b"phone", ""):
        with pytest.raises(InvalidRequest):
            await sale.view(bad)
    for bad in NO_BASKETS:
        with pytest.raises(InvalidRequest):
            await sale.buy_basket("ann", bad)


@pytest.mark.parametrize("sku", ["A/B", "A#B", "A+B"])
def test_a_sku_is_refused_with_the_rule(sku: str) -> None:
    with pytest.raises(InvalidRequest, match=r"A-Z a-z 0-9 _ \. -; map a SKU") as refused:
        check_goods_id(sku)
    assert "map a SKU" in json.loads(web.refuse(refused.value).body)["detail"]


def test_a_primary_key_is_a_buyer_id() -> None:
    assert (buyer_id(42), buyer_id("ann")) == ("42", "ann")
    for bad in (None, True, 1.5, "two words", ""):
        with pytest.raises(InvalidRequest):
            buyer_id(bad)


# -- bodies ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\é,:a', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}"\\', max_size=2), inner),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(JSON, st.integers(0, 40), st.booleans())
def test_the_depth_is_that_of_the_value(value: Any, more: int, as_text: bool) -> None:
    for _ in range(more):
        value = [value]
    text = json.dumps(value, ensure_ascii=as_text)
    try:
        check_body(text)
    except InvalidRequest:
        assert depth(value) > MAX_DEPTH
    else:
        assert depth(value) <= MAX_DEPTH


def test_the_look_at_a_body_of_brackets_is_cheap() -> None:
    """Cheaper by far than a step of Python for each bracket, and so no way to keep a process busy."""
    wide = "[" + ",".join(["[]"] * 20_000) + "]"
    assert 60_000 <= len(wide) <= MAX_BODY

    def step_by_step(text: str) -> None:
        level = 0
        for each in text:
            level += (each == "[") - (each == "]")

    assert best_of(check_body, wide) * 3 < best_of(step_by_step, wide)


def best_of(call: Any, text: str) -> float:
    times = []
    for _ in range(7):
        began = time.perf_counter()
        call(text)
        times.append(time.perf_counter() - began)
    return min(times)


# -- the recursion limit --------------------------------------------------------------------------------------------

DEEP = """
import sys
from flashsale._sync.transport.link import _pack

def down(frames):
    return down(frames - 1) if frames else _pack("EVALSHA", "sha", 3, "key", 1.5)

outcomes = set()
for frames in range(sys.getrecursionlimit()):
    try:
        outcomes.add(down(frames))
    except RecursionError:
        outcomes.add("too deep")
outcomes.remove("too deep")
assert [each.split()[4:] for each in outcomes] == [[b"sha", b"$1", b"3", b"$3", b"key", b"$3", b"1.5"]], outcomes
"""


def test_no_depth_of_the_stack_crashes_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# -- a clock that was set back --------------------------------------------------------------------------------------


@each_backend
async def test_a_lease_of_a_clock_that_was_set_back_is_none(shop: Shop) -> None:
    sale = await shop.open(store=True)
    now = await settled(sale.real._ledger.time())
    for until, leads in ((now + 20, False), (now + 3602, True)):
        shop.raw.hset(shop.keys.meta, mapping={"leader": "another", "leader_until": f"{until:.6f}"})
        assert (await shop.syncer(sale).run_once()).leading is leads


@kills("the longest lease")
async def test_without_the_bound_nobody_leads_for_an_hour(sync_shop: Shop) -> None:
    await test_a_lease_of_a_clock_that_was_set_back_is_none(sync_shop)


# -- tombstones -----------------------------------------------------------------------------------------------------


@each_backend
async def test_an_order_cancelled_before_it_was_saved_has_a_time(shop: Shop) -> None:
    sale = await shop.open(store=True)
    before = await settled(sale.real._ledger.time())
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    (row,) = await settled(sale.real.store.orders())
    assert row.order.created_at is not None
    assert before - 1 <= row.order.created_at <= await settled(sale.real._ledger.time()) + 1


@each_backend
async def test_a_tombstone_gets_the_time_and_the_data_of_its_order(shop: Shop) -> None:
    """The worker meets it, with what only the queue knew."""
    sale = await shop.open(store=True)
    await sale.inventory.reserve([Order("o-1", "phone", "ann", 1, created_at=1.5, data={"size": "M"})])
    await sale.inventory.reserve([Order("o-2", "phone", "ann", 1, created_at=2.5)])
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    await work(shop, sale)
    assert await sale.cancel("o-2") is OrderState.CANCELLED
    early, late = await settled(sale.real.store.orders())
    assert (early.order.created_at, early.order.data, early.persisted_at) == (1.5, {"size": "M"}, None)
    assert (late.order.created_at, late.order.data) == (2.5, None)


@kills("the time of its order")
async def test_without_the_workers_look_a_tombstone_has_another_time(sync_shop: Shop) -> None:
    await test_a_tombstone_gets_the_time_and_the_data_of_its_order(sync_shop)


# -- announced, and not loaded --------------------------------------------------------------------------------------


class Counts(SQLAlchemyStore):
    """Counts the looks at the item."""

    looks = 0

    def goods(self) -> Any:
        Counts.looks += 1
        return super().goods()


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> dict[str, Any]:
    database = f"sqlite:///{tmp_path / 'shop.db'}"
    with SQLAlchemyStore(database, "nov11") as store:
        store.create_all()
        store.put_goods(Goods("phone", 2))
    return {"FLASHSALE_SALE": "nov11", "FLASHSALE_REDIS_URL": redis_url, "FLASHSALE_DATABASE_URL": database}


def test_flask_says_not_started_of_goods_that_redis_has_not_yet(config: dict[str, Any]) -> None:
    app = Flask("shop")
    app.config.update(config)
    sales = FlaskSale(app, store=lambda settings: Counts(settings.database_url, settings.sale))
    app.add_url_rule("/<goods_id>", view_func=sales.fragment)
    visitor = app.test_client()
    Counts.looks = 0
    began = time.monotonic()
    for _ in range(20):
        early = visitor.get("/phone")
        assert (early.status_code, early.json["type"]) == (403, "/problems/not-started")
        assert int(early.headers["Retry-After"]) > 0
        assert visitor.get("/ghost").status_code == 404
    assert Counts.looks <= 1 + (time.monotonic() - began)
    with app.app_context():
        Syncer(sales.sale).run_once()
    assert visitor.get("/phone").status_code == 200


def test_what_redis_has_lost_has_not_just_not_started(config: dict[str, Any], redis_server: Any) -> None:
    app = Flask("shop")
    app.config.update(config)
    sales = FlaskSale(app)
    app.add_url_rule("/<goods_id>", view_func=sales.fragment)
    with app.app_context():
        Syncer(sales.sale).run_once()
    redis_server.client().flushall()
    assert app.test_client().get("/phone").status_code == 404


async def test_fastapi_says_not_started_of_goods_that_redis_has_not_yet(config: dict[str, Any]) -> None:
    sales = FastAPISale(config)

    async def look(request: Request) -> Any:
        return response(web.fragment(await (await sales(request)).view(request.path_params["goods_id"])))

    app = Starlette(routes=[Route("/{goods_id}", look)], lifespan=sales.lifespan)
    sales.install(app)
    async with sales.lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://shop") as visitor:
        assert [(await visitor.get(f"/{name}")).status_code for name in ("phone", "ghost")] == [403, 404]
        await sales.sale.preload("phone", 2)
        assert (await visitor.get("/phone")).status_code == 200


def test_django_says_not_started_of_goods_that_redis_has_not_yet(client: redis.Redis, config: dict[str, Any]) -> None:
    with (
        SQLAlchemyStore(config["FLASHSALE_DATABASE_URL"], "nov11") as store,
        FlashSale(client, "nov11", store=store) as sale,
    ):
        django_api.set_sale(sale)
        try:
            middleware = FlashSaleMiddleware(lambda _: django_api.fragment("phone"))
            for name, status in (("phone", 403), ("ghost", 404)):
                with pytest.raises(LookupError) as unknown:
                    sale.view(name)
                assert middleware.process_exception(HttpRequest(), unknown.value).status_code == status
        finally:
            django_api.set_sale(None)


PAGE = Path(__file__).parent.parent.parent / "docs" / "django.md"


@pytest.mark.parametrize("headers", [{}, {"HTTP_X_BUYER": "ann"}, {"HTTP_IDEMPOTENCY_KEY": "1"}], ids=str)
def test_the_view_on_djangos_page_answers_400_without_its_headers(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    (code,) = re.findall(r"```python\n# shop/views.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    views: dict[str, Any] = {}
    exec(code, views)
    middleware = FlashSaleMiddleware(lambda _: None)
    request = HttpRequest()
    request.method = "POST"
    request.META = headers
    with FlashSale(client, "nov11") as sale:
        monkeypatch.setitem(views, "get_sale", lambda: sale)
        with pytest.raises(InvalidRequest) as refused:
            views["buy"](request, "phone")
    assert middleware.process_exception(request, refused.value).status_code == 400


def test_without_a_database_goods_are_unknown(redis_url: str) -> None:
    app = Flask("shop")
    app.config.update(FLASHSALE_SALE=f"sale-{os.urandom(4).hex()}", FLASHSALE_REDIS_URL=redis_url)
    sales = FlaskSale(app)
    app.add_url_rule("/", view_func=lambda: sales.fragment("phone"))
    assert app.test_client().get("/").status_code == 404


# -- kept as it was -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"[" * 100_000, b"]" * 60, b'{"a":' * 100, b"[}" * 40, '["é"]é'.encode() * 40])
def test_a_body_whose_brackets_do_not_match_is_no_order(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        Order.from_json(body)
