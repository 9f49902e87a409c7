"""The shop in Django: `python -m examples django`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from examples.shop import GOODS_ID, describe, order_id, owns
from flashsale import FlashSaleError, OrderState, web
from flashsale.contrib import django as shop
from flashsale.contrib.django import get_sale


@require_GET
def product(request: HttpRequest) -> HttpResponse:
    """The product page: the same for everybody, so browser and CDN keep it; without a cookie."""
    page = render_to_string("product.html").encode()
    try:
        view = get_sale().view(GOODS_ID)
        headers = web.page_headers(page, now=view.now, opens_at=view.opens_at, closes_at=view.closes_at)
    except FlashSaleError:  # the page does without the sale; nobody keeps it for long
        headers = web.page_headers(page, now=time.time(), max_age=0, s_maxage=1, stale_while_revalidate=0)
    if web.not_modified(request.headers.get("If-None-Match"), headers):
        return HttpResponse(status=304, headers=headers)
    return HttpResponse(page, headers=headers)


@require_GET
def fragment(request: HttpRequest) -> HttpResponse:
    """The state of the sale, for a second the same for everybody."""
    return shop.fragment(GOODS_ID)


@require_POST
def buy(request: HttpRequest) -> HttpResponseBase:
    """Buys one phone for the visitor; a real shop has a login here."""
    buyer = request.session.setdefault("buyer", secrets.token_hex(8))
    receipt = get_sale().buy(GOODS_ID, buyer, order_id=order_id(buyer, request.POST.get("key", "")))
    where = reverse("order", args=[receipt.order_id])
    return _page(request, shop.answer(receipt, location=where), where)


@require_GET
@never_cache
def order(request: HttpRequest, name: str) -> HttpResponse:
    """The buyer's order, as a page or as JSON."""
    _check_owner(request, name)
    state = get_sale().status(name)
    if state is None:
        raise Http404
    shown = describe(state)
    return JsonResponse(shown) if _wants_json(request) else render(request, "order.html", {"order_id": name, **shown})


@require_POST
def pay(request: HttpRequest, name: str) -> HttpResponseBase:
    """Stands in for the payment provider."""
    return _settle(request, name, get_sale().confirm)


@require_POST
def cancel(request: HttpRequest, name: str) -> HttpResponseBase:
    """Gives the phone back."""
    return _settle(request, name, get_sale().cancel)


def _settle(request: HttpRequest, name: str, settle: Callable[[str], OrderState | None]) -> HttpResponseBase:
    _check_owner(request, name)
    answer = shop.response(web.order_status(name, settle(name)))
    return _page(request, answer, reverse("order", args=[name]))


def _check_owner(request: HttpRequest, name: str) -> None:
    if not owns(request.session.get("buyer"), name):
        raise Http404


def _wants_json(request: HttpRequest) -> bool:
    return "application/json" in request.headers.get("Accept", "")


def _page(request: HttpRequest, answer: HttpResponse, onward: str) -> HttpResponseBase:
    """Returns the answer to a script, and a redirect to a form that was sent without one."""
    if _wants_json(request) or answer.status_code >= 400:
        return answer
    redirect = HttpResponseRedirect(onward)
    redirect.status_code = 303
    return redirect


def problem_pages(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Makes a page of a problem, where no script asked: a middleware."""

    def answered(request: HttpRequest) -> HttpResponse:
        answer = get_response(request)
        if answer.headers.get("Content-Type") == "application/problem+json" and not _wants_json(request):
            answer.content = render_to_string("problem.html", json.loads(answer.content)).encode()
            answer.headers["Content-Type"] = "text/html; charset=utf-8"
        return answer

    return answered
