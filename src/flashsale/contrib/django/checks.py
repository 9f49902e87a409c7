"""System checks: of the settings, and with `check --deploy` of the Redis server too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register  # noqa: A004 - Django's name
from django.db import connections

from flashsale import Durability, FlashSaleError, InvalidRequest
from flashsale.contrib.django import database, get_sale, read_settings

NO_SHARED_COOKIES: Final = "flashsale.contrib.django.middleware.NoSharedCookiesMiddleware"


@register("flashsale")
def check_settings(**_: Any) -> Sequence[CheckMessage]:
    """Reads the settings, and makes the sale's clients: neither talks to a server."""
    try:
        read_settings()
        get_sale()
    except (InvalidRequest, ValueError) as error:
        return [Error(str(error), id="flashsale.E001")]
    return []


@register("flashsale")
def check_middleware(**_: Any) -> Sequence[CheckMessage]:
    """Wants `NoSharedCookiesMiddleware` outside of whatever sets cookies."""
    if list(settings.MIDDLEWARE[:1]) == [NO_SHARED_COOKIES]:
        return []
    return [Warning(f"{NO_SHARED_COOKIES} is not the first in MIDDLEWARE", id="flashsale.W002")]


@register("flashsale")
def check_transactions(**_: Any) -> Sequence[CheckMessage]:
    """Says what `ATOMIC_REQUESTS` changes: a request's rows are committed after its view has answered."""
    if check_settings() or not connections[database()].settings_dict["ATOMIC_REQUESTS"]:
        return []
    if get_sale()._guarantee.durability is Durability.PERSISTED:
        what = "with ATOMIC_REQUESTS a purchase that must be PERSISTED is refused"
        return [Warning(what, hint="Decorate the view with non_atomic_requests.", id="flashsale.W003")]
    what = "with ATOMIC_REQUESTS what cancel, confirm and restock decide reaches Redis after the request's commit"
    return [Info(what, id="flashsale.I001")]


@register("flashsale", deploy=True)
def check_server(**_: Any) -> Sequence[CheckMessage]:
    """Checks the Redis server's settings, and loads the scripts."""
    if check_settings():
        return []
    sale = get_sale()
    try:
        sale.inventory.load_scripts()
        findings = sale.check()
    except FlashSaleError as error:
        return [Error(f"the sale's Redis cannot be used: {error}", id="flashsale.E002")]
    return [Warning(str(finding), id="flashsale.W001") for finding in findings]
