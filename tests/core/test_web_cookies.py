"""No cookie on what a shared cache may keep: it would hand one visitor's session, and their orders, to the next."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from flask import Flask, Response, session
from httpx import ASGITransport, AsyncClient
from starlette import responses
from starlette.applications import Starlette
from starlette.routing import Route

from flashsale import web
from flashsale.contrib.fastapi import FastAPISale
from flashsale.contrib.flask import FlaskSale
from tests.support import django_shop

django_shop.set_up()

from django.http import HttpRequest, HttpResponse  # noqa: E402 - settings come first
from django.test import override_settings  # noqa: E402

from flashsale.contrib.django.checks import NO_SHARED_COOKIES, check_middleware  # noqa: E402
from flashsale.contrib.django.middleware import NoSharedCookiesMiddleware  # noqa: E402

if TYPE_CHECKING:
    from starlette.requests import Request

SHARED = ["public", "Public, max-age=60", "max-age=60", "s-maxage=1", "max-age=0,s-maxage=1", "public, no-cache"]
KEPT_BY_NOBODY = ["", "no-store", "private", "private, max-age=60", "max-age=0", "no-cache", "no-store, public"]
HEADERS = [*((header, True) for header in SHARED), *((header, False) for header in KEPT_BY_NOBODY)]
CONFIG = {"FLASHSALE_SALE": "nov11", "SECRET_KEY": "test"}


@pytest.mark.parametrize(("header", "shared"), HEADERS)
def test_what_a_shared_cache_may_keep(header: str, *, shared: bool) -> None:
    assert web.is_shared(header or None) is shared


def test_our_own_answers_are_told_apart() -> None:
    page = web.page_headers(b"page", now=1.0)
    gone = web.page_headers(b"page", now=1.0, max_age=0, s_maxage=1, stale_while_revalidate=0)
    assert all(web.is_shared(each["Cache-Control"]) for each in (page, gone))
    assert not web.is_shared(web.order_status("o-1", None).headers["Cache-Control"])


@pytest.mark.parametrize(("header", "shared"), HEADERS)
def test_flask(header: str, *, shared: bool) -> None:
    app = Flask("shop")
    app.config.update(CONFIG)
    FlaskSale(app)

    @app.get("/")
    def page() -> Response:
        session["buyer"] = "ann"
        return Response("page", headers={"Cache-Control": header} if header else {})

    answer = app.test_client().get("/")
    assert ("Set-Cookie" not in answer.headers) is shared
    assert answer.headers.get("Cache-Control", "") == header


@pytest.mark.parametrize(("header", "shared"), HEADERS)
async def test_starlette(header: str, *, shared: bool) -> None:
    async def page(_: Request) -> responses.Response:
        answer = responses.Response("page", headers={"Cache-Control": header} if header else {})
        answer.set_cookie("session", "of ann")
        answer.set_cookie("basket", "of ann")
        return answer

    app = Starlette(routes=[Route("/", page)])
    FastAPISale(CONFIG).install(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as visitor:
        answer = await visitor.get("/")
    assert len(answer.headers.get_list("Set-Cookie")) == (0 if shared else 2)
    assert answer.headers.get("Cache-Control", "") == header


@pytest.mark.parametrize(("header", "shared"), HEADERS)
def test_django(header: str, *, shared: bool) -> None:
    def page(_: HttpRequest) -> HttpResponse:
        answer = HttpResponse("page", headers={"Cache-Control": header} if header else {})
        answer.set_cookie("session", "of ann")
        return answer

    assert (not NoSharedCookiesMiddleware(page)(HttpRequest()).cookies) is shared


def test_django_checks_that_the_middleware_is_outermost() -> None:
    other = "django.contrib.sessions.middleware.SessionMiddleware"
    assert check_middleware() == []
    for wrong in ([], [other], *itertools.permutations([other, NO_SHARED_COOKIES])):
        with override_settings(MIDDLEWARE=list(wrong)):
            found = [message.id for message in check_middleware()]
        assert found == ([] if wrong[:1] == (NO_SHARED_COOKIES,) else ["flashsale.W002"])
