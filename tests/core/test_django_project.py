"""A Django project's settings: stores, hooks and observers by dotted paths, several sales, signals, system checks."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import pytest

from flashsale import Goods, InvalidRequest, Order, OrderState, Syncer, Worker
from tests.support import django_shop, shop_parts
from tests.support.mutants import kills

django_shop.set_up()

from django.contrib.admin import ModelAdmin, site  # noqa: E402 - settings come first
from django.core.management import CommandError, call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client, RequestFactory, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from flashsale.contrib import django as django_api  # noqa: E402
from flashsale.contrib.django import checks, database, get_sale, set_sale, signals, steering  # noqa: E402
from flashsale.contrib.django.models import SaleGoods, SaleOrder  # noqa: E402
from flashsale.contrib.django.steering import Target  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402

PARTS = "tests.support.shop_parts"
HOOKS = f"{PARTS}.Hooks"


class Store(DjangoStore):
    """A store of the project's own."""


def without_hooks(sale: str, *, using: str) -> DjangoStore:
    return DjangoStore(sale, using=using)


@contextlib.contextmanager
def project(redis_url: str, **given: Any) -> Iterator[str]:
    """A project with these settings; its sale has a new name."""
    name = f"sale-{os.urandom(4).hex()}"
    ours = {"FLASHSALE_SALE": name, "FLASHSALE_REDIS_URL": redis_url, "FLASHSALE_CACHE_FOR": 0}
    with override_settings(**ours | given, ROOT_URLCONF=__name__):
        try:
            yield name
        finally:
            for sale in django_api._sales.values():
                sale.close()
            set_sale(None)


def found() -> dict[str, str]:
    return {
        each.id: f"{each.msg} | {each.hint}"
        for each in [*checks.check_settings(), *checks.check_names(), *checks.check_orders()]
    }


# -- dotted paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [HOOKS, f"{PARTS}.hooks", shop_parts.Hooks, shop_parts.hooks],
    ids=["class", "object", "a class", "an object"],
)
def test_hooks_are_named_or_given(redis_url: str, given: object) -> None:
    with project(redis_url, FLASHSALE_HOOKS=given):
        assert found() == {}
        assert isinstance(get_sale().store._hooks, shop_parts.Hooks)


def test_store_and_observer_are_named(redis_url: str) -> None:
    named = {"FLASHSALE_STORE": f"{__name__}.Store", "FLASHSALE_OBSERVER": f"{PARTS}.Metrics"}
    with project(redis_url, **named, FLASHSALE_EVENTS="PERSISTED"):
        sale = get_sale()
        assert isinstance(sale.store, Store)
        assert sale.store._events == {"PERSISTED"}
        sale.preload("phone", 1)
        sale.buy("phone", "ann")
        assert sale._notifier._observer.outcomes == ["NOT_STARTED"]


@pytest.mark.parametrize(
    ("given", "message", "says"),
    [
        ({"HOOKS": "nowhere.flash.Hooks"}, "E003", "FLASHSALE_HOOKS: 'nowhere.flash.Hooks' cannot be imported: "),
        ({"HOOKS": f"{PARTS}.Hook"}, "E003", "has no attribute 'Hook'"),
        ({"OBSERVER": "nowhere"}, "E003", "FLASHSALE_OBSERVER: 'nowhere' cannot be imported: no dotted path"),
        ({"STORE": f"{PARTS}.Stores"}, "E003", "FLASHSALE_STORE"),
        ({"HOOKS": f"{PARTS}.NoHooks"}, "E004", "NoHooks has none of the methods saved, settled, stock"),
        ({"HOOKS": f"{PARTS}.AsyncHooks"}, "E004", "FLASHSALE_HOOKS: saved must not be async here"),
        ({"HOOKS": f"{PARTS}.Wants"}, "E004", "Wants cannot be made without arguments"),
        ({"STORE": f"{__name__}.without_hooks", "HOOKS": HOOKS}, "E001", "FLASHSALE_STORE: cannot be called as Django"),
        ({"HOOKS": f"{PARTS}.StockHooks"}, "W005", "nothing makes orders of your own"),
        ({"DURABILTY": "persisted"}, "W004", "nothing reads FLASHSALE_DURABILTY | Did you mean FLASHSALE_DURABILITY?"),
        ({"DATABASE_URL": "sqlite://"}, "W004", "Did you mean FLASHSALE_DATABASE?"),
        ({"SALES": ["nov11"]}, "E001", "FLASHSALE_SALES: must be a dict"),
        ({"SALES": {"a b": {}}}, "E001", "sale a b: FLASHSALE_SALE: "),
        ({"SALES": {"nov11": {"REDIS_URL": "http://x"}}}, "E001", "sale nov11: FLASHSALE_REDIS_URL: "),
        ({"SALES": {"nov11": {"HOOK": HOOKS}}}, "W004", "SALES['nov11']: nothing reads HOOK | Did you mean HOOK"),
    ],
    ids=str,
)  # fmt: skip
def test_a_system_check_names_what_is_wrong(redis_url: str, given: dict[str, object], message: str, says: str) -> None:
    with project(redis_url, **{f"FLASHSALE_{name}": value for name, value in given.items()}):
        shown = found()
        assert shown.keys() == {f"flashsale.{message}"}
        assert says in shown[f"flashsale.{message}"]


def test_a_store_that_knows_no_hooks_is_called_without_them(redis_url: str) -> None:
    with project(redis_url, FLASHSALE_STORE=without_hooks):
        assert found() == {}


# -- several sales --------------------------------------------------------------------------------------------------


def buy(request: Any, sale: str, goods_id: str) -> HttpResponse:
    receipt = get_sale(sale).buy(goods_id, "ann", order_id="o-1")
    return django_api.answer(receipt, location="/orders/o-1", sale=sale)


def look(request: Any, sale: str, goods_id: str) -> HttpResponse:
    return django_api.fragment(goods_id, sale=sale)


urlpatterns = [path("<str:sale>/<str:goods_id>/buy", buy), path("<str:sale>/<str:goods_id>", look)]


@pytest.fixture
def two(redis_url: str, tmp_path) -> Iterator[tuple[str, str]]:
    """A project with two sales in two databases, of which the second has hooks."""
    other = f"other-{os.urandom(4).hex()}"
    own = {"DATABASE": "second", "HOOKS": HOOKS, "REDIS_URL": f"{redis_url[:-1]}1"}
    with (
        django_shop.database("second", f"sqlite:///{tmp_path}/second.db"),
        project(redis_url, FLASHSALE_SALES={other: own}) as name,
    ):
        yield name, other


def test_a_sale_takes_what_it_does_not_set_from_all(two: tuple[str, str]) -> None:
    one, other = two
    assert found() == {}
    assert get_sale() is get_sale(one)
    assert get_sale(other) is get_sale(other) is not get_sale(one)
    assert [get_sale(name).name for name in two] == [one, other]
    assert [database(name) for name in (None, *two)] == ["default", "default", "second"]
    assert get_sale(one).store._hooks is None
    assert isinstance(get_sale(other).store._hooks, shop_parts.Hooks)
    assert [django_api.read_settings(name).cache_for for name in two] == [0, 0]
    with pytest.raises(InvalidRequest, match=f"no sale 'third' in FLASHSALE_SALES; there are: {one}, {other}"):
        get_sale("third")


def test_without_a_default_every_call_names_its_sale(redis_url: str) -> None:
    with project(redis_url, FLASHSALE_SALE=None, FLASHSALE_SALES={"nov11": {}}):
        assert found() == {}
        assert get_sale("nov11").name == "nov11"
        with pytest.raises(InvalidRequest, match="FLASHSALE_SALE: is missing"):
            get_sale()


def test_views_commands_and_admin_name_their_sale(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    one, other = two
    web = Client()
    for name in two:
        get_sale(name).store.put_goods(Goods("phone", 1 if name == one else 2))
    assert web.post(f"/{other}/phone/buy").status_code == 403  # the database has it
    assert web.post(f"/{one}/ghost/buy").status_code == 404
    call_command("flashsale_sync", "--once", f"--sale={other}", verbosity=0)
    assert web.get(f"/{other}/phone").json()["state"] == "NOT_STARTED"
    assert web.get(f"/{one}/phone").json().get("state") != "SOLD_OUT"
    get_sale(other).start("phone")
    assert web.post(f"/{other}/phone/buy").status_code == 202
    Worker(get_sale(other)).run_once()
    call_command("flashsale_audit", f"--sale={other}", verbosity=0)
    get_sale(other).store.save([Order("o-9", "phone", "bob", 1)])
    with pytest.raises(CommandError, match="not clean"):
        call_command("flashsale_audit", f"--sale={other}", verbosity=0)
    for command in ("audit", "sync", "worker"):
        with pytest.raises(CommandError, match="no sale 'third'"):
            call_command(f"flashsale_{command}", "--sale=third")
    capsys.readouterr()
    said: list[str] = []
    admin, request = site._registry[SaleOrder], django_shop.request_of_admin(step="do", reason="the buyer called")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(admin, "message_user", lambda request, text, *level: said.append(text))
        steering.ask(admin, request, steering.CANCEL, [Target(name, ("o-1",)) for name in (other, "third")])
    assert said[0] == f"o-1 of {other}: o-1  PERSISTED -> CANCELLED; o-1 is CANCELLED"
    assert "there is no sale 'third'" in said[1]


def test_the_admins_item_is_written_by_the_store_of_its_sale(redis_url: str) -> None:
    written: list[str] = []

    class Told(DjangoStore):
        def put_goods(self, goods: Goods, *, replace: bool = False) -> None:
            written.append(self.sale)
            super().put_goods(goods, replace=replace)

    with project(redis_url, FLASHSALE_STORE=Told) as name:
        request = django_shop.request_of_admin()
        row = SaleGoods(sale=name, goods_id="phone", total=5)
        site._registry[SaleGoods].save_model(request, row, None, change=False)
        assert written == [name]


def test_the_admin_says_what_a_hook_refuses(redis_url: str) -> None:
    events = ["PERSISTED", "CANCELLED"]  # as a list, too
    with project(redis_url, FLASHSALE_HOOKS=f"{PARTS}.StockHooks", FLASHSALE_EVENTS=events) as name:
        assert found() == {}
        said: list[str] = []
        admin = site._registry[SaleGoods]
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(admin, "message_user", lambda request, text, *level: said.append(text))
            monkeypatch.setattr(
                ModelAdmin,
                "changeform_view",
                lambda *_: get_sale().store.put_goods(Goods("phone", 6)),
            )
            assert admin.changeform_view(RequestFactory().post("/admin/")).status_code == 302
        assert said == ["the hook stock raised LookupError: the shop has fewer than 6 of phone"]
        assert list(get_sale(name).store.goods()) == []


def test_a_test_puts_sales_of_its_own_in(two: tuple[str, str]) -> None:
    one, other = two
    with django_api.read_settings(other).open(None) as mine, django_api.read_settings(one).open(None) as second:
        set_sale(mine)
        assert get_sale() is get_sale(other) is mine
        assert get_sale(one).store is not None  # of the settings
        set_sale(second)
        assert (get_sale(), get_sale(one), get_sale(other)) == (second, second, mine)
        set_sale(None)
        assert get_sale() is get_sale(one) is not second


def test_an_overridden_setting_makes_a_new_sale(redis_url: str) -> None:
    with project(redis_url):
        before = get_sale()
        with override_settings(FLASHSALE_HOOKS=HOOKS):
            assert get_sale().store._hooks is not None
            get_sale().close()
        assert get_sale().store._hooks is None
        before.close()


# -- signals --------------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> Iterator[list[tuple[Any, ...]]]:
    """What the signals tell, and one receiver that always raises."""
    told: list[tuple[Any, ...]] = []

    def on_saved(sender: type, *, sale: str, order: Order, **_: Any) -> None:
        told.append((sender, sale, order.order_id, order.data))

    def on_settled(sender: type, *, sale: str, order: Order, before: OrderState, after: OrderState, **_: Any) -> None:
        told.append((sale, order.order_id, order.data, before, after))

    def broken(**_: Any) -> None:
        raise ZeroDivisionError

    for signal, receiver in ((signals.order_saved, on_saved), (signals.order_settled, on_settled)):
        signal.connect(broken)
        signal.connect(receiver)
    yield told
    for signal, receiver in ((signals.order_saved, on_saved), (signals.order_settled, on_settled)):
        signal.disconnect(broken)
        signal.disconnect(receiver)


def test_signals_tell_what_was_committed(redis_url: str, told: list[tuple[Any, ...]], caplog: Any) -> None:
    with project(redis_url) as name:
        sale = get_sale()
        sale.store.put_goods(Goods("phone", 2))
        Syncer(sale).run_once()
        sale.start("phone")
        for number in (1, 2):
            assert sale.buy("phone", "ann", order_id=f"o-{number}", data=number).accepted
        sale.store.save([Order("o-0", "phone", "bob", 1)])
        assert told == [(DjangoStore, name, "o-0", None)]
        assert Worker(sale).run_once() == 2
        rejected = next(order_id for _, order_id, *more in told[1:] if more[-1] is OrderState.REJECTED)
        kept = {"o-1": "o-2", "o-2": "o-1"}[rejected]
        assert sorted(told[1:], key=len) == [
            (DjangoStore, name, kept, int(kept[-1])),
            (name, rejected, int(rejected[-1]), OrderState.QUEUED, OrderState.REJECTED),
        ]
        told.clear()
        assert [sale.cancel(kept) for _ in range(2)] == [OrderState.CANCELLED] * 2
        assert told == [(name, kept, int(kept[-1]), OrderState.PERSISTED, OrderState.CANCELLED)]
        assert "ZeroDivisionError" in caplog.text


def test_signals_wait_for_the_hosts_commit(told: list[tuple[Any, ...]]) -> None:
    store = DjangoStore(f"sale-{os.urandom(4).hex()}")
    store.put_goods(Goods("phone", 9))
    order = Order("o-1", "phone", "ann", 1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        store.save([order])
        store.settle(order, OrderState.CONFIRMED)
        raise ZeroDivisionError
    assert told == []
    with transaction.atomic():
        store.save([order])
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            store.settle(order, OrderState.CONFIRMED)
            raise ZeroDivisionError
        store.settle_many([order], OrderState.CANCELLED)
        assert told == []
    assert [each[1:] for each in told] == [
        (store.sale, "o-1", None), ("o-1", None, OrderState.PERSISTED, OrderState.CANCELLED)
    ]  # fmt: skip


@kills("a signal after the commit")
def test_without_the_wait_for_the_commit_signals_tell_what_never_was(told: list[tuple[Any, ...]]) -> None:
    test_signals_wait_for_the_hosts_commit(told)


def test_checks_run_as_a_project_runs_them(two: tuple[str, str]) -> None:
    said = io.StringIO()
    call_command("check", stdout=said, stderr=said)
    assert "flashsale.E" not in said.getvalue()
