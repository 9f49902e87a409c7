"""The adapters: settings are checked at start-up, answers and errors go over HTTP as `flashsale.web` says."""

from __future__ import annotations

import json
import logging
import os
import signal

import pytest
from flask import Flask
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from flashsale import Event, FlashSale, Goods, InvalidRequest, NotExecuted, Order, OrderState, PartitionMismatch
from flashsale.contrib import buyer_id, refuse
from flashsale.contrib.fastapi import FastAPISale, response, sqlalchemy_store
from flashsale.contrib.flask import FlaskSale
from flashsale.contrib.settings import Settings
from flashsale.ops.serving import serve
from flashsale.stores import SQLAlchemyStore
from flashsale.web import fragment
from tests.support import django_shop, shop_parts

django_shop.set_up()

from django.contrib.auth.decorators import login_required  # noqa: E402 - settings come first
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import CommandError, call_command  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from flashsale.contrib import django as django_api  # noqa: E402
from flashsale.contrib.django.checks import check_server, check_settings  # noqa: E402
from flashsale.contrib.django.models import SaleGoods  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402

KEY = "1" * 32
PARTS = "tests.support.shop_parts"
HINT = "buyer_id: must be a string of 1-128 printable ASCII characters without spaces; flashsale.contrib.buyer_id makes"


@pytest.fixture
def config(redis_url: str, tmp_path) -> dict[str, object]:
    database = f"sqlite:///{tmp_path / 'shop.db'}"
    with SQLAlchemyStore(database, "nov11") as store:
        store.create_all()
        store.put_goods(Goods("phone", 2))
    return {
        "FLASHSALE_SALE": "nov11",
        "FLASHSALE_REDIS_URL": redis_url,
        "FLASHSALE_DATABASE_URL": database,
        "FLASHSALE_CACHE_FOR": "0",
    }


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_come_as_text_or_as_values() -> None:
    read = Settings.read({"FLASHSALE_SALE": "a", "FLASHSALE_CACHE_FOR": "0.2", "FLASHSALE_MAX_WAITING": 7})
    assert (read.cache_for, read.max_waiting, read.plain_keys) == (0.2, 7, False)
    assert Settings.read({"NOV_SALE": "b", "NOV_PLAIN_KEYS": "yes"}, "NOV_").plain_keys is True
    assert Settings.read({"FLASHSALE_SALE": "a", "FLASHSALE_PLAIN_KEYS": "false"}).plain_keys is False


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "FLASHSALE_SALE"),
        ({"FLASHSALE_SALE": "a b"}, "FLASHSALE_SALE"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_MAX_WAITING": "many"}, "FLASHSALE_MAX_WAITING"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_CACHE_FOR": "-1"}, "FLASHSALE_CACHE_FOR"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_DURABILITY": "maybe"}, "FLASHSALE_DURABILITY"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_REDIS_URL": "http://x"}, "FLASHSALE_REDIS_URL"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_TICKET_SECRETS": "k:short"}, "FLASHSALE_TICKET_SECRETS"),
        (
            {"FLASHSALE_SALE": "a", "FLASHSALE_TICKET_SECRETS": f"k:{'n' * 32},k:{'o' * 32}"},
            "FLASHSALE_TICKET_SECRETS",
        ),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_TICKET_LIFETIME": "0"}, "FLASHSALE_TICKET_LIFETIME"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_TICKET_REQUIRED": "1"}, "FLASHSALE_TICKET_SECRETS"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_CACHE_FOR": [1]}, "FLASHSALE_CACHE_FOR"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_REPLICAS": float("inf")}, "FLASHSALE_REPLICAS"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_REPLICAS": 2.7}, "FLASHSALE_REPLICAS"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_MAX_WAITING": True}, "FLASHSALE_MAX_WAITING"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_REDIS_URL": "redis+sentinel://h/shop\n"}, "FLASHSALE_REDIS_URL"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_PARTITIONS": "0"}, "FLASHSALE_PARTITIONS"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_PARTITIONS": 257}, "FLASHSALE_PARTITIONS"),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_REDIS_URL": "redis://a redis://b"}, "FLASHSALE_REDIS_URL"),
        (
            {"FLASHSALE_SALE": "a", "FLASHSALE_PARTITIONS": 3, "FLASHSALE_REDIS_URL": ["redis://a", "redis://b"]},
            "FLASHSALE_PARTITIONS",
        ),
        (
            {"FLASHSALE_SALE": "a", "FLASHSALE_PARTITIONS": 2, "FLASHSALE_GATE_URL": "redis://b"},
            "FLASHSALE_GATE_URL",
        ),
        ({"FLASHSALE_SALE": "a", "FLASHSALE_PARTITIONS": 2, "FLASHSALE_PLAIN_KEYS": "1"}, "FLASHSALE_PLAIN_KEYS"),
    ],
)
def test_a_bad_setting_is_named(given: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        Settings.read(given)
    assert refusal.value.field == field


@pytest.mark.parametrize("given", ["redis://a, redis://b:7000/1", "redis://a redis://b", ["redis://a", "redis://b"]])
def test_partitions_are_spread_over_the_servers_of_the_setting(given: object) -> None:
    read = Settings.read({"FLASHSALE_SALE": "a", "FLASHSALE_PARTITIONS": "4", "FLASHSALE_REDIS_URL": given})
    with read.open(None) as sale:
        assert (sale.partitions, len(sale._links)) == (4, 2)


def test_the_nodes_of_a_cluster_are_one_url() -> None:
    given = {"FLASHSALE_PARTITIONS": 6, "FLASHSALE_REDIS_URL": "redis+cluster://a:1,b:2,c:3"}
    with Settings.read({"FLASHSALE_SALE": "a", **given}).open(None) as sale:
        assert (sale.partitions, len(sale._links)) == (6, 1)


def test_secrets_are_not_shown() -> None:
    read = Settings.read(
        {"FLASHSALE_SALE": "a", "FLASHSALE_TICKET_SECRETS": "k:" + "s" * 32, "FLASHSALE_REDIS_URL": "redis://:pw@h"}
    )
    assert "sss" not in repr(read)
    assert "pw" not in repr(read)
    assert read.tickets() is not None


@pytest.mark.parametrize("given", ["1", "0", None])
def test_tickets_may_be_required(given: str | None) -> None:
    config = {"FLASHSALE_SALE": "a", "FLASHSALE_TICKET_SECRETS": "k:" + "s" * 32, "FLASHSALE_TICKET_REQUIRED": given}
    assert Settings.read(config).tickets().required is (given == "1")


def test_a_secret_may_be_any_bytes_of_the_environment() -> None:
    given = os.fsdecode(b"\xff" * 32)
    assert Settings.read({"FLASHSALE_SALE": "a", "FLASHSALE_TICKET_SECRETS": f"k:{given}"}).tickets() is not None


# -- Flask ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def flask_app(config) -> tuple[Flask, FlaskSale]:
    app, sales = Flask("shop"), FlaskSale()
    app.config.update(config)
    sales.init_app(app)

    @app.post("/buy/<goods_id>")
    def buy(goods_id: str):
        receipt = sales.sale.buy(goods_id, "alice", order_id="o-1")
        return sales.answer(receipt, location="/orders/o-1")

    @app.get("/sale/<goods_id>")
    def look(goods_id: str):
        return sales.fragment(goods_id)

    return app, sales


def test_flask_answers(flask_app) -> None:
    app, sales = flask_app
    web = app.test_client()
    assert web.post("/buy/phone").status_code == 403  # not loaded yet
    with app.app_context():
        sales.sale.preload("phone", 1, opens_at=sales.sale._ledger.time() + 100)
    early = web.post("/buy/phone")
    assert early.status_code == 403
    assert early.content_type == "application/problem+json"
    assert 95 < int(early.headers["Retry-After"]) <= 100
    with app.app_context():
        sales.sale.gate.schedule("phone")
        sales.sale.inventory._configure(Goods("phone", 1, version=2))
        sales.sale.start("phone")
    bought = web.post("/buy/phone")
    assert (bought.status_code, bought.headers["Location"]) == (202, "/orders/o-1")
    assert web.get("/sale/phone").json["state"] == "SOLD_OUT"
    assert web.post("/buy/no%20phone").json["field"] == "goods_id"


def test_in_flask_a_user_whose_key_is_a_number_buys(flask_app) -> None:
    app, sales = flask_app

    @app.post("/bought-by/<int:user_id>")
    def bought_by(user_id: int):
        who: object = buyer_id(user_id) if user_id == 42 else user_id
        return sales.answer(sales.sale.buy("phone", who, order_id="o-1"), location="/orders/o-1")

    with app.app_context():
        sales.sale.preload("phone", 1)
        sales.sale.start("phone")
        assert HINT in app.test_client().post("/bought-by/7").json["detail"]
        assert app.test_client().post("/bought-by/42").status_code == 202
        assert sales.sale._ledger.get_many(["o-1"])["o-1"].buyer_id == "42"


def test_flask_has_commands(flask_app) -> None:
    app, sales = flask_app
    runner = app.test_cli_runner()
    shown = runner.invoke(args=["flashsale", "--help"]).output
    assert all(command in shown for command in ("worker", "syncer", "outbox", "audit", "check"))
    with app.app_context():
        sales.sale.preload("phone", 2)
        sales.sale.start("phone")
    assert runner.invoke(args=["flashsale", "audit"]).output.endswith("clean\n")
    with app.app_context():
        sales.sale.store.save([Order("o-9", "phone", "bob", 1)])  # a row that Redis does not know
    audit = runner.invoke(args=["flashsale", "audit"])
    assert audit.exit_code == 1
    assert "o-9" in audit.output
    assert "bob" not in audit.output
    bad = [["worker", "--lease", "0"], ["worker", "--batch", "0"], ["syncer", "--interval", "0"]]
    for command in (*bad, ["outbox"], ["outbox", "--handler", "math.pi"]):
        assert runner.invoke(args=["flashsale", *command]).exit_code == 2
    assert runner.invoke(args=["flashsale", "check"]).exit_code == 1  # this Redis keeps no append-only file


told: list[Event] = []


def tell(event: Event) -> None:
    """The handler of these tests; the commands go on until SIGTERM."""
    told.append(event)
    signal.raise_signal(signal.SIGTERM)


def test_flask_runs_an_outbox(config) -> None:
    app = Flask("shop")
    app.config.update(config | {"FLASHSALE_EVENTS": "PERSISTED"})
    sales = FlaskSale(app)
    with app.app_context():
        sales.sale.store.save([Order("o-1", "phone", "bob", 1)])
    told.clear()
    ran = app.test_cli_runner().invoke(args=["flashsale", "outbox", "--handler", f"{__name__}.tell"])
    assert (ran.exit_code, [event.state for event in told]) == (0, [OrderState.PERSISTED])


def test_a_forked_child_of_flask_makes_its_own_sale(flask_app) -> None:
    app, sales = flask_app
    with app.app_context():
        mine = sales.sale
        assert sales.sale is mine
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"other" if sales.sale is not mine else b"same")
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        with os.fdopen(reading, "rb") as answer:
            assert answer.read() == b"other"


def test_two_sales_in_one_flask_app(config) -> None:
    app = Flask("shop")
    app.config.update(config | {f"OTHER_{name.removeprefix('FLASHSALE_')}": value for name, value in config.items()})
    app.config["OTHER_SALE"] = "dec12"
    one, other = FlaskSale(app), FlaskSale(app, prefix="OTHER_")
    with app.app_context():
        assert (one.sale.name, other.sale.name) == ("nov11", "dec12")


@pytest.mark.parametrize("how", ["argument", "path", "object"])
def test_flask_gives_its_hooks_to_shop_and_commands(config, how: str, caplog) -> None:
    hooks: object = shop_parts.hooks if how == "object" else f"{PARTS}.Hooks"
    config |= {"FLASHSALE_OBSERVER": f"{PARTS}.Metrics"} | ({} if how == "argument" else {"FLASHSALE_HOOKS": hooks})
    app = Flask("shop")
    app.config.update(config)
    sales = FlaskSale(app, hooks=hooks if how == "argument" else None)
    with app.app_context():
        assert isinstance(sales.sale.store._hooks, shop_parts.Hooks)
        assert isinstance(sales.sale._notifier._observer, shop_parts.Metrics)
        with caplog.at_level(logging.INFO):
            serve("worker", sales.sale, lambda: None)
        assert f"sale nov11: 1 goods in the database, hooks {PARTS}.Hooks" in caplog.text
        sales.sale.close()


def test_flask_takes_a_store_by_its_path(config) -> None:
    app = Flask("shop")
    app.config.update(config | {"FLASHSALE_STORE": f"{__name__}.own_store", "FLASHSALE_HOOKS": shop_parts.hooks})
    sales = FlaskSale(app)
    with app.app_context(), sales.sale as sale, sale.store as store:
        assert (store.sale, store._hooks) == ("nov11", shop_parts.hooks)


def own_store(settings: Settings) -> SQLAlchemyStore:
    return SQLAlchemyStore("sqlite://", settings.sale, hooks=settings.load_hooks())


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere.flash.Hooks", "cannot be imported: No module named 'nowhere'"),
        (f"{PARTS}.NoHooks", "has none of the methods saved, settled, stock"),
        (f"{PARTS}.AsyncHooks", "must not be async"),
    ],
)
def test_flask_says_which_hooks_do_not_suit(config, path: str, says: str) -> None:
    app = Flask("shop")
    app.config.update(config | {"FLASHSALE_HOOKS": path})
    sales = FlaskSale(app)  # nothing is imported yet: the hooks' module may import the app's
    with app.app_context(), pytest.raises(InvalidRequest, match=says):
        sales.sale  # noqa: B018


def test_only_what_is_not_the_callers_fault_is_logged(caplog) -> None:
    assert refuse(InvalidRequest("goods_id", "no")).status == 400
    assert not caplog.records
    assert refuse(NotExecuted("no connection to Redis: ConnectionError")).status == 503
    assert [(each.name, each.getMessage()) for each in caplog.records] == [("flashsale", "answered 503: NotExecuted")]


def test_a_wrong_number_of_partitions_is_logged_with_the_right_one(caplog) -> None:
    assert refuse(PartitionMismatch(4, 2, 1)).status == 503
    assert "answered 503: PartitionMismatch: the sale was begun with 4 partitions on 2 servers" in caplog.text


# -- FastAPI and Starlette ------------------------------------------------------------------------------------------


async def test_starlette_answers(config) -> None:
    sales = FastAPISale(config)

    async def buy(request: Request):
        sale = await sales(request)
        receipt = await sale.buy(request.path_params["goods_id"], "alice", order_id="o-1")
        return await sales.answer(receipt, location="/orders/o-1")

    async def look(request: Request):
        return response(fragment(await (await sales(request)).view("phone")))

    routes = [Route("/buy/{goods_id}", buy, methods=["POST"]), Route("/sale", look)]
    app = Starlette(routes=routes, lifespan=sales.lifespan)
    sales.install(app)
    with pytest.raises(RuntimeError, match="lifespan"):
        await sales(Request({"type": "http"}))
    async with sales.lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://shop") as web:
        assert (await web.post("/buy/phone")).status_code == 403  # not loaded yet
        sale = await sales(Request({"type": "http"}))
        await sale.preload("phone", 1, opens_at=await sale._ledger.time() + 100)
        early = await web.post("/buy/phone")
        assert early.status_code == 403
        assert 95 < int(early.headers["Retry-After"]) <= 100
        await sale.gate.schedule("phone")
        await sale.inventory._configure(Goods("phone", 1, version=2))
        await sale.start("phone")
        bought = await web.post("/buy/phone")
        assert (bought.status_code, bought.headers["Location"]) == (202, "/orders/o-1")
        assert (await web.get("/sale")).json()["state"] == "SOLD_OUT"
        assert (await web.post("/buy/no%20phone")).json()["field"] == "goods_id"


async def test_in_starlette_a_user_whose_key_is_a_number_buys(config) -> None:
    sales = FastAPISale(config)

    async def bought_by(request: Request):
        user_id = request.path_params["user_id"]
        who: object = buyer_id(user_id) if user_id == 42 else user_id
        receipt = await (await sales(request)).buy("phone", who, order_id="o-1")
        return await sales.answer(receipt, location="/orders/o-1")

    routes = [Route("/bought-by/{user_id:int}", bought_by, methods=["POST"])]
    app = Starlette(routes=routes, lifespan=sales.lifespan)
    sales.install(app)
    async with sales.lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://shop") as web:
        await sales.sale.preload("phone", 1)
        await sales.sale.start("phone")
        assert HINT in (await web.post("/bought-by/7")).json()["detail"]
        assert (await web.post("/bought-by/42")).status_code == 202
        assert (await sales.sale._ledger.get_many(["o-1"]))["o-1"].buyer_id == "42"


async def test_the_app_closes_what_it_has_opened(config) -> None:
    stores = []

    def make(settings: Settings):
        stores.append(sqlalchemy_store(settings))
        return stores[-1]

    sales = FastAPISale(config, store=make)
    with pytest.raises(ZeroDivisionError):
        async with sales.lifespan(Starlette()):
            assert [goods.goods_id for goods in await sales.sale.store.goods()] == ["phone"]
            assert stores[0]._engine.pool.checkedin() == 1
            raise ZeroDivisionError
    assert sales.sale is None
    assert stores[0]._engine.pool.checkedin() == 0


async def test_starlette_gives_its_hooks_to_the_sale(config) -> None:
    given = config | {"FLASHSALE_HOOKS": f"{PARTS}.AsyncHooks", "FLASHSALE_OBSERVER": f"{PARTS}.Metrics"}
    for sales in (FastAPISale(given), FastAPISale(config, hooks=shop_parts.AsyncHooks)):
        async with sales.lifespan(Starlette()):
            assert isinstance(sales.sale.store._hooks, shop_parts.AsyncHooks)
    for unfit in ("Hooks", "MixedHooks"):
        sales = FastAPISale(config, hooks=f"{PARTS}.{unfit}")
        with pytest.raises(InvalidRequest, match="must be async def here"):
            async with sales.lifespan(Starlette()):
                pass


# -- Django ---------------------------------------------------------------------------------------------------------


def buy(request, goods_id):
    return django_api.answer(django_api.get_sale().buy(goods_id, "alice", order_id="o-1"), location="/orders/o-1")


def look(request):
    return django_api.fragment("phone")


def fail(request) -> HttpResponse:
    raise ZeroDivisionError


@login_required
def bought_by(request, how):
    who = buyer_id(request.user.pk) if how == "buyer_id" else request.user.pk
    return django_api.answer(django_api.get_sale().buy("phone", who, order_id="o-1"), location="/orders/o-1")


urlpatterns = [
    path("buy/<str:goods_id>", buy),
    path("bought-by/<str:how>", bought_by),
    path("sale", look),
    path("fail", fail),
]


@pytest.fixture
def django_sale(redis_url: str) -> FlashSale:
    """The sale of a Django project; its items are those of this test."""
    name = f"sale-{os.urandom(4).hex()}"
    with override_settings(
        FLASHSALE_SALE=name,
        FLASHSALE_REDIS_URL=redis_url,
        FLASHSALE_CACHE_FOR=0,
        ROOT_URLCONF="tests.core.test_contrib",
    ):
        django_api.set_sale(None)
        sale = django_api.get_sale()
        yield sale
        sale.close()
        django_api.set_sale(None)


def test_django_answers(django_sale: FlashSale) -> None:
    web = Client()
    assert web.post("/buy/phone").status_code == 404
    DjangoStore(django_sale.name).put_goods(Goods("phone", 1, opens_at=django_sale._ledger.time() + 100))
    call_command("flashsale_sync", "--once", verbosity=0)
    early = web.post("/buy/phone")
    assert early.status_code == 403
    assert 95 < int(early.headers["Retry-After"]) <= 100
    DjangoStore(django_sale.name).put_goods(Goods("phone", 1), replace=True)
    call_command("flashsale_sync", "--once", verbosity=0)
    django_sale.start("phone")
    bought = web.post("/buy/phone")
    assert (bought.status_code, bought.headers["Location"]) == (202, "/orders/o-1")
    assert web.get("/sale").json()["state"] == "SOLD_OUT"
    assert web.post("/buy/no%20phone").json()["field"] == "goods_id"
    with pytest.raises(ZeroDivisionError):
        web.get("/fail")  # not ours


def test_in_django_a_user_whose_key_is_a_number_buys(django_sale: FlashSale) -> None:
    user = User.objects.create(username=django_sale.name)
    web = Client()
    web.force_login(user)
    django_sale.preload("phone", 1)
    django_sale.start("phone")
    assert HINT in web.post("/bought-by/pk").json()["detail"]
    assert web.post("/bought-by/buyer_id").status_code == 202
    assert django_sale._ledger.get_many(["o-1"])["o-1"].buyer_id == str(user.pk)


def test_django_audits(django_sale: FlashSale, capsys) -> None:
    store = DjangoStore(django_sale.name)
    store.put_goods(Goods("phone", 3))
    call_command("flashsale_sync", "--once", verbosity=0)
    call_command("flashsale_audit")
    assert capsys.readouterr().out.endswith("clean\n")
    store.save([Order("o-9", "phone", "bob", 1)])
    with pytest.raises(CommandError):
        call_command("flashsale_audit")
    said = capsys.readouterr().out
    assert "o-9" in said
    assert "bob" not in said


@pytest.mark.parametrize("command", [("worker", "--lease=0"), ("worker", "--batch=0"), ("sync", "--interval=nan")])
def test_bad_options_are_errors_of_djangos_commands(django_sale: FlashSale, command) -> None:
    name, option = command
    with pytest.raises(CommandError, match="must be"):
        call_command(f"flashsale_{name}", option)


def test_django_runs_an_outbox(django_sale: FlashSale) -> None:
    store = DjangoStore(django_sale.name, events="PERSISTED")
    store.put_goods(Goods("phone", 3))
    store.save([Order("o-9", "phone", "bob", 1)])
    told.clear()
    call_command("flashsale_outbox", f"--handler={__name__}.tell")
    assert [event.state for event in told] == [OrderState.PERSISTED]
    with override_settings(FLASHSALE_EVENTS="PERSISTED"):
        django_api.set_sale(None)
        assert django_api.get_sale().store._events == {OrderState.PERSISTED}
    for options in (["--handler=math.pi"], [f"--handler={__name__}.tell", "--interval=nan"]):
        with pytest.raises(CommandError, match=r"is no function|must be"):
            call_command("flashsale_outbox", *options)


def test_django_checks_its_settings_and_the_server(django_sale: FlashSale) -> None:
    assert check_settings() == []
    assert {message.id for message in check_server()} == {"flashsale.W001"}  # this Redis keeps no append-only file
    django_api.set_sale(None)
    with override_settings(FLASHSALE_REDIS_URL="http://nowhere"):
        assert [message.id for message in check_settings()] == ["flashsale.E001"]
        assert check_server() == []
    with override_settings(FLASHSALE_REDIS_URL="redis://127.0.0.1:1"):
        assert [message.id for message in check_server()] == ["flashsale.E002"]
        django_api.get_sale().close()


@pytest.mark.parametrize(
    "wrong", [{}, {"goods_id": "a b"}, {"total": "-1"}, {"closes_at": "1"}, {"hold": "0"}, {"sale": "a b"}], ids=str
)
def test_the_admins_form_knows_the_rules(wrong) -> None:
    from django.contrib.admin import site

    data = {"sale": "nov11", "goods_id": "phone", "total": "5", "opens_at": "2"}
    form = site._registry[SaleGoods].get_form(None)(data | wrong)
    assert form.is_valid() is (not wrong)


def test_the_admin_looks_where_the_sale_is(tmp_path) -> None:
    from django.contrib.admin import site

    admin = site._registry[SaleGoods]
    with (
        django_shop.database("elsewhere", f"sqlite:///{tmp_path / 'other.db'}") as alias,
        override_settings(FLASHSALE_DATABASE=alias),
    ):
        admin.save_model(
            django_shop.request_of_admin(), SaleGoods(sale="moved", goods_id="phone", total=5), None, change=False
        )
        assert [row.total for row in admin.get_queryset(None)] == [5]
        assert [goods.total for goods in DjangoStore("moved", using=alias).goods()] == [5]
    assert not SaleGoods.objects.filter(sale="moved").exists()


def test_the_admin_edits_goods_through_the_store(django_sale: FlashSale) -> None:
    from django.contrib.admin import site

    admin = site._registry[SaleGoods]
    row = SaleGoods(sale=django_sale.name, goods_id="phone", total=5)
    admin.save_model(django_shop.request_of_admin(), row, None, change=False)
    row = SaleGoods.objects.get(sale=django_sale.name)
    assert (row.total, row.granted, row.version) == (5, 5, 0)
    row.total = 9
    admin.save_model(django_shop.request_of_admin(), row, None, change=True)
    row = SaleGoods.objects.get(sale=django_sale.name)
    assert (row.total, row.granted, row.version) == (9, 5, 1)
    row.per_buyer, row.opens_at, row.hold = 2, 1.5, 900.0
    admin.save_model(django_shop.request_of_admin(), row, None, change=True)
    row.per_buyer = row.opens_at = row.hold = None  # what the form leaves empty
    admin.save_model(django_shop.request_of_admin(), row, None, change=True)
    row = SaleGoods.objects.get(sale=django_sale.name)
    assert (row.per_buyer, row.opens_at, row.hold, row.version) == (None, None, None, 3)
    assert json.dumps(sorted(admin.get_readonly_fields(None, row))) == json.dumps(
        ["booked", "goods_id", "granted", "loaded", "sale", "version"]
    )
