"""The adapter for Django: an app with models, `DjangoStore`, checks, commands and admin pages.

Settings::

    INSTALLED_APPS = [..., "flashsale.contrib.django"]
    MIDDLEWARE = [..., "flashsale.contrib.django.middleware.FlashSaleMiddleware"]
    FLASHSALE_SALE = "nov11"
    FLASHSALE_REDIS_URL = "redis://localhost:6379"

A view::

    from flashsale.contrib import buyer_id
    from flashsale.contrib.django import answer, get_sale

    @login_required
    def buy(request, goods_id):
        receipt = get_sale().buy(goods_id, buyer_id(request.user.pk), order_id=request.POST["order_id"])
        return answer(receipt, location=reverse("order", args=[receipt.order_id]))

Several sales in one project have a name each; what a sale does not set, it takes from the settings above::

    FLASHSALE_SALES = {"nov11": {}, "dec12": {"REDIS_URL": "redis://other:6379", "HOOKS": "shop.flash.Hooks"}}
    get_sale("dec12")

A test puts its own sale in: `set_sale(sale)`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.http import HttpResponse

from flashsale import FlashSale, InvalidRequest, Outcome, Receipt, web
from flashsale._rules.rows import EVENT_STATES
from flashsale.contrib.settings import PREFIX, Settings
from flashsale.ops.named import imported

_lock = threading.Lock()
_sales: dict[tuple[int, str], FlashSale] = {}  # by process id and name: a child of a server that forks makes its own
_chosen: dict[str, FlashSale] = {}  # by name, of `set_sale`: of this process, and of children that it forks


def sale_names() -> list[str]:
    """Returns the names that `get_sale` takes: of `FLASHSALE_SALE`, of `FLASHSALE_SALES`, and of `set_sale`.

    Raises:
        InvalidRequest: `FLASHSALE_SALES` is not valid.
    """
    default: str | None = getattr(settings, PREFIX + "SALE", None)
    return list(dict.fromkeys([*([default] if default else []), *_several(), *_chosen]))


def read_settings(sale: str | None = None) -> Settings:
    """Returns the settings of one sale.

    Args:
        sale: its name; without one, the sale is that of `FLASHSALE_SALE`.

    Raises:
        InvalidRequest: one is missing or not valid, or there is no sale of this name.
    """
    return Settings.read(_given(sale))


def database(sale: str | None = None) -> str:
    """Returns the alias of the database that holds the sale: `FLASHSALE_DATABASE`."""
    alias: str = _given(sale).get(PREFIX + "DATABASE") or DEFAULT_DB_ALIAS
    return alias


def get_sale(sale: str | None = None) -> FlashSale:
    """Returns a sale of this process: that of `set_sale`, else one of the settings.

    Args:
        sale: its name; without one, the sale is the last that `set_sale` was given, or that of `FLASHSALE_SALE`.

    Raises:
        InvalidRequest: a setting is not valid, or there is no sale of this name.
    """
    with _lock:
        if sale is None and _chosen:
            return next(reversed(_chosen.values()))
        name = sale or getattr(settings, PREFIX + "SALE", None)
        if name in _chosen:
            return _chosen[name]
        this = (os.getpid(), str(name))
        if this not in _sales:
            _sales[this] = _open(read_settings(sale))
        return _sales[this]


def set_sale(sale: FlashSale | None) -> None:
    """Makes `sale` the sale of its name, and the one without a name, in this process and in children that it forks.

    With None, all are forgotten: `get_sale` opens them anew.
    """
    with _lock:
        _sales.clear()
        if sale is None:
            _chosen.clear()
        else:
            _chosen.pop(sale.name, None)
            _chosen[sale.name] = sale


def _forget(*, setting: str, **_: Any) -> None:
    """Forgets the sales that were made of settings which a test now overrides."""
    if setting.startswith(PREFIX):
        with _lock:
            _sales.clear()


def answer(receipt: Receipt, *, location: str, sale: str | None = None) -> HttpResponse:
    """Returns the response to a purchase; one that came too early gets a `Retry-After`."""
    opens_in = None
    if receipt.outcome is Outcome.NOT_STARTED:
        opens_in = get_sale(sale).view(receipt.goods_id).opens_in
    return response(web.answer(receipt, location=location, opens_in=opens_in))


def fragment(goods_id: str, *, sale: str | None = None) -> HttpResponse:
    """Returns the status fragment of one item."""
    return response(web.fragment(get_sale(sale).view(goods_id)))


def response(reply: web.Reply) -> HttpResponse:
    """Returns the reply as a response of Django."""
    return HttpResponse(reply.body, status=reply.status, headers=reply.headers)


def _given(sale: str | None) -> dict[str, Any]:
    """Returns the settings of one sale by their full names: its own, else those that all share."""
    given: dict[str, Any] = {name: getattr(settings, name) for name in dir(settings) if name.startswith(PREFIX)}
    if sale is not None and sale not in sale_names():
        raise InvalidRequest(
            "sale", f"there is no sale {sale!r} in FLASHSALE_SALES; there are: {', '.join(sale_names())}"
        )
    name = sale or given.get(PREFIX + "SALE")
    own = _several().get(name, {}) if name else {}
    return given | {PREFIX + key: value for key, value in own.items()} | {PREFIX + "SALE": name}


def _several() -> Mapping[str, Mapping[str, Any]]:
    several: Any = getattr(settings, PREFIX + "SALES", {})
    if not isinstance(several, Mapping) or not all(isinstance(own, Mapping) for own in several.values()):
        raise InvalidRequest(PREFIX + "SALES", "must be a dict: of each sale's name to a dict of its settings")
    return several


def _open(chosen: Settings) -> FlashSale:
    from flashsale.contrib.django.store import DjangoStore  # noqa: PLC0415 - models need the apps to be ready

    try:
        make = imported("store", chosen.store) if chosen.store else DjangoStore
        given: dict[str, Any] = {}  # what is set: a store of the host's need not know the others
        if (hooks := chosen.load_hooks()) is not None:
            given["hooks"] = hooks
        if chosen.events != EVENT_STATES:
            given["events"] = chosen.events
        try:
            store = make(chosen.sale, using=database(chosen.sale), **given)
        except TypeError as error:
            raise InvalidRequest("store", f"cannot be called as DjangoStore is: {error}") from error
        return chosen.open(store)
    except InvalidRequest as error:
        raise InvalidRequest(PREFIX + error.field.upper(), error.reason) from error.__cause__
