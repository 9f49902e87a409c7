"""System checks: of the settings, and with `check --deploy` of the Redis server too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's name

from flashsale import FlashSaleError, InvalidRequest
from flashsale.contrib.django import get_sale, read_settings

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
