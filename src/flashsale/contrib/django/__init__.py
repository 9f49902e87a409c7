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

A test puts its own sale in: `set_sale(sale)`.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.http import HttpResponse

from flashsale import FlashSale, Outcome, Receipt, web
from flashsale.contrib.settings import PREFIX, Settings

_lock = threading.Lock()
_sales: dict[int, FlashSale] = {}  # process id -> sale: a child of a server that forks makes its own
_chosen: list[FlashSale] = []  # by `set_sale`: of this process, and of children that it forks


def read_settings() -> Settings:
    """Returns the `FLASHSALE_...` settings.

    Raises:
        InvalidRequest: one is missing or not valid.
    """
    named: dict[str, Any] = {name: getattr(settings, name) for name in dir(settings) if name.startswith(PREFIX)}
    return Settings.read(named)


def database() -> str:
    """Returns the alias of the database that holds the sale: `FLASHSALE_DATABASE`."""
    alias: str = getattr(settings, PREFIX + "DATABASE", DEFAULT_DB_ALIAS)
    return alias


def get_sale() -> FlashSale:
    """Returns the sale of this process: that of `set_sale`, else one with a `DjangoStore`."""
    from flashsale.contrib.django.store import DjangoStore  # noqa: PLC0415 - models need the apps to be ready

    process = os.getpid()
    with _lock:
        if _chosen:
            return _chosen[0]
        if process not in _sales:
            chosen = read_settings()
            observer = getattr(settings, PREFIX + "OBSERVER", None)
            _sales[process] = chosen.open(DjangoStore(chosen.sale, using=database(), events=chosen.events), observer)
        return _sales[process]


def set_sale(sale: FlashSale | None) -> None:
    """Makes `sale` the sale of this process, and of children that it forks; with None, `get_sale` opens a new one."""
    with _lock:
        _sales.clear()
        _chosen[:] = [sale] if sale is not None else []


def answer(receipt: Receipt, *, location: str) -> HttpResponse:
    """Returns the response to a purchase; one that came too early gets a `Retry-After`."""
    opens_in = None
    if receipt.outcome is Outcome.NOT_STARTED:
        opens_in = get_sale().view(receipt.goods_id).opens_in
    return response(web.answer(receipt, location=location, opens_in=opens_in))


def fragment(goods_id: str) -> HttpResponse:
    """Returns the status fragment of one item."""
    return response(web.fragment(get_sale().view(goods_id)))


def response(reply: web.Reply) -> HttpResponse:
    """Returns the reply as a response of Django."""
    return HttpResponse(reply.body, status=reply.status, headers=reply.headers)
