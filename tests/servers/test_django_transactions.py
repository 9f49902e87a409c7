"""`confirm` and `cancel` inside `atomic`: with `connection=` or without it, Redis follows the commit, together."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support import django_shop
from tests.support.transactions import Undone

django_shop.set_up()

from django.db import connection, connections, transaction  # noqa: E402 - settings come first
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from flashsale import FlashSale, Goods, InvalidRequest, OrderState, Syncer, Worker  # noqa: E402
from flashsale.contrib.django.models import SaleOrder  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402
from flashsale.testing import crash_points  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

CANCELLED, CONFIRMED, PERSISTED = OrderState.CANCELLED, OrderState.CONFIRMED, OrderState.PERSISTED
NAMES = [f"o-{n}" for n in range(20)]


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def sale(raw: redis.Redis, request: pytest.FixtureRequest) -> Iterator[FlashSale]:
    name = f"t-{abs(hash(request.node.name))}"
    store = DjangoStore(name)
    store.put_goods(Goods("phone", 200))
    with FlashSale(raw, name, store=store, cache_for=0) as sale:
        Syncer(sale).run_once()
        sale.start("phone")
        yield sale
        SaleOrder.objects.filter(sale=name).delete()


def bought(sale: FlashSale, *names: str) -> None:
    for name in names:
        assert sale.buy("phone", "ann", order_id=name).accepted
    while Worker(sale).run_once():
        pass


@pytest.mark.parametrize("given", [{}, {"connection": connection}, {"connection": connections["default"]}])
def test_what_one_transaction_decides_redis_follows_together(
    sale: FlashSale, raw: redis.Redis, given: dict[str, Any]
) -> None:
    bought(sale, *NAMES)
    with contextlib.suppress(Undone), transaction.atomic():
        assert sale.cancel("o-1", **given) is CANCELLED
        raise Undone
    raw.config_resetstat()
    with transaction.atomic():
        for name in NAMES:
            assert sale.confirm(name, **given) is CONFIRMED
        with contextlib.suppress(Undone), transaction.atomic():
            assert sale.cancel("o-1", **given) is CANCELLED
            raise Undone
        assert sale.cancel("o-2", **given) is CANCELLED
        calls = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert raw.info("commandstats")["cmdstat_evalsha"]["calls"] == calls + 1
    assert [sale.status(name) for name in NAMES] == [CONFIRMED, CONFIRMED, CANCELLED, *[CONFIRMED] * 17]
    assert not sale._transitions._following._decisions
    assert Syncer(sale).audit().ok


def test_a_frozen_redis_holds_up_no_commit(sale: FlashSale, raw: redis.Redis) -> None:
    bought(sale, *NAMES)
    with transaction.atomic():
        for name in NAMES:
            sale.confirm(name)
        raw.client_pause(60_000, all=False)
        began = time.monotonic()
    took = time.monotonic() - began
    raw.client_unpause()
    assert took < 3  # one second is given
    Syncer(sale).run_once()
    assert [sale.status(name) for name in NAMES] == [CONFIRMED] * 20


def test_a_connection_that_cannot_be_joined_is_refused(sale: FlashSale) -> None:
    bought(sale, "o-1")
    with pytest.raises(InvalidRequest, match="not inside `atomic`"):
        sale.cancel("o-1", connection=connection)
    others: list[Any] = []
    other = threading.Thread(target=lambda: others.append(connections["default"]))
    other.start()
    other.join()
    with transaction.atomic():
        for wrong in (*others, "default", object()):
            with pytest.raises(InvalidRequest, match="of this thread"):
                sale.cancel("o-1", connection=wrong)
    assert sale.status("o-1") is PERSISTED


def test_atomic_requests(sale: FlashSale, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that fails has decided nothing; one that answers has, once the request is committed."""
    bought(sale, "o-1", "o-2")

    def view(request: HttpRequest, order_id: str) -> HttpResponse:
        state = sale.confirm(order_id, connection=connection)
        assert sale.status(order_id) is PERSISTED
        if "fail" in request.GET:
            raise Undone
        return HttpResponse(str(state))

    urls = type("urls", (), {"urlpatterns": [path("paid/<str:order_id>", view)]})
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=[]):
        client = Client(raise_request_exception=False)
        assert client.get("/paid/o-1?fail").status_code == 500
        assert sale.status("o-1") is PERSISTED
        assert client.get("/paid/o-2").content == b"CONFIRMED"
        assert sale.status("o-2") is CONFIRMED
        assert client.get("/paid/o-1").content == b"CONFIRMED"
    assert sale.status("o-1") is CONFIRMED


def test_killed_anywhere_the_same_call_ends_it(sale: FlashSale) -> None:
    def unit(number: int) -> None:
        with transaction.atomic():
            assert sale.cancel(f"{number}-cancelled", connection=connection) is CANCELLED
            assert sale.confirm(f"{number}-paid") is CONFIRMED

    for number, point in enumerate(crash_points(sale)):
        bought(sale, f"{number}-cancelled", f"{number}-paid")
        with point:
            unit(number)
        if number % 2:
            unit(number)  # the host asks again
        Syncer(sale).run_once()
        states = [sale.status(f"{number}-{name}") for name in ("cancelled", "paid")]
        stand = sale.store.states([f"{number}-{name}" for name in ("cancelled", "paid")])  # type: ignore[union-attr]
        assert states == list(stand.values())
        assert states in ([CANCELLED, CONFIRMED], [PERSISTED, PERSISTED])
    assert number >= 6
    assert Syncer(sale).audit().ok
