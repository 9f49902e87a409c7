"""System checks: of the settings, and with `check --deploy` of the Redis server too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register  # noqa: A004 - Django's name
from django.db import connections

from flashsale import Durability, FlashSaleError, InvalidRequest, OrderHooks, OrderState
from flashsale._rules.hooks import methods_of
from flashsale._rules.rows import check_events
from flashsale.contrib.django import database, get_sale, read_settings, sale_names
from flashsale.contrib.settings import PREFIX, Settings

NO_SHARED_COOKIES: Final = "flashsale.contrib.django.middleware.NoSharedCookiesMiddleware"
OF_ONE_SALE: Final = {each.name.upper() for each in fields(Settings)} - {"SALE", "DATABASE_URL"} | {"DATABASE"}
OF_PROJECT: Final = {PREFIX + name for name in OF_ONE_SALE | {"SALE", "SALES"}}


@register("flashsale")
def check_settings(**_: Any) -> Sequence[CheckMessage]:
    """Reads the settings of each sale, and makes its clients, store and hooks: nothing talks to a server."""
    try:
        names: list[str | None] = [*sale_names()]
    except InvalidRequest as error:
        return [Error(str(error), id="flashsale.E001")]
    return [found for name in names or [None] for found in _problems(name)]


def _problems(sale: str | None) -> Iterator[CheckMessage]:
    try:
        read_settings(sale)
        get_sale(sale)
    except (InvalidRequest, ValueError) as error:
        message, field = f"{_of(sale)}{error}", getattr(error, "field", "")
        if isinstance(error.__cause__, ImportError | AttributeError):
            yield Error(message, hint="A dotted path, such as 'shop.flash.Hooks'.", id="flashsale.E003")
        elif field == PREFIX + "HOOKS":
            hint = "Give it one of the methods of flashsale.OrderHooks, with def."
            yield Error(message, hint=hint, id="flashsale.E004")
        else:
            yield Error(message, id="flashsale.E001")


@register("flashsale")
def check_names(**_: Any) -> Sequence[CheckMessage]:
    """Finds settings that nothing reads."""
    given = {name for name in dir(settings) if name.startswith(PREFIX)}
    several = getattr(settings, PREFIX + "SALES", None)
    own = several if isinstance(several, Mapping) else {}
    return [
        *_unread(given, OF_PROJECT, ""),
        *(found for sale in own for found in _unread(own[sale], OF_ONE_SALE, f"{PREFIX}SALES[{sale!r}]: ")),
    ]


def _unread(given: Any, known: set[str], where: str) -> Iterator[CheckMessage]:
    for name in sorted(set(map(str, given)) - known):
        near = get_close_matches(name, known, 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(known))}."
        yield Warning(f"{where}nothing reads {name}", hint=hint, id="flashsale.W004")


@register("flashsale")
def check_middleware(**_: Any) -> Sequence[CheckMessage]:
    """Wants `NoSharedCookiesMiddleware` outside of whatever sets cookies."""
    if list(settings.MIDDLEWARE[:1]) == [NO_SHARED_COOKIES]:
        return []
    return [Warning(f"{NO_SHARED_COOKIES} is not the first in MIDDLEWARE", id="flashsale.W002")]


@register("flashsale")
def check_transactions(**_: Any) -> Sequence[CheckMessage]:
    """Says what `ATOMIC_REQUESTS` changes: a request's rows are committed after its view has answered."""
    if check_settings():
        return []
    found: list[CheckMessage] = []
    for sale in sale_names():
        if not connections[database(sale)].settings_dict["ATOMIC_REQUESTS"]:
            continue
        if get_sale(sale)._guarantee.durability is Durability.PERSISTED:
            what = "with ATOMIC_REQUESTS a purchase that must be PERSISTED is refused"
            hint = "Decorate the view with non_atomic_requests."
            found.append(Warning(_of(sale) + what, hint=hint, id="flashsale.W003"))
        else:
            what = (
                "with ATOMIC_REQUESTS what cancel, confirm and restock decide reaches Redis after the request's commit"
            )
            found.append(Info(_of(sale) + what, id="flashsale.I001"))
    return found


@register("flashsale")
def check_orders(**_: Any) -> Sequence[CheckMessage]:
    """Finds hooks that make no orders of the shop's, where no outbox would make them either."""
    if check_settings():
        return []
    found: list[CheckMessage] = []
    for sale in sale_names():
        chosen = read_settings(sale)
        saves = chosen.hooks is None or methods_of(chosen.load_hooks(), OrderHooks).saved is not None
        if not saves and OrderState.PERSISTED not in check_events(chosen.events):
            what = "the hooks have no saved, and EVENTS has no PERSISTED: nothing makes orders of your own"
            found.append(Warning(_of(sale) + what, id="flashsale.W005"))
    return found


@register("flashsale", deploy=True)
def check_server(**_: Any) -> Sequence[CheckMessage]:
    """Checks the Redis servers' settings, and loads the scripts."""
    return [] if check_settings() else [found for sale in sale_names() for found in _of_server(sale)]


def _of_server(name: str) -> Iterator[CheckMessage]:
    sale = get_sale(name)
    try:
        for part in sale._partitions():
            part.inventory.load_scripts()
        findings = sale.check()
    except FlashSaleError as error:
        yield Error(f"{_of(name)}the sale's Redis cannot be used: {error}", id="flashsale.E002")
    else:
        yield from (Warning(f"{_of(name)}{finding}", id="flashsale.W001") for finding in findings)


def _of(sale: str | None) -> str:
    """Returns how a message begins: with the sale's name, where there are several."""
    return f"sale {sale}: " if len(sale_names()) > 1 else ""
