"""The middleware: answers the sale's errors as problem bodies (RFC 9457), and keeps cookies out of shared caches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from flashsale import FlashSaleError, UnknownGoods, web
from flashsale.contrib import refuse
from flashsale.contrib.announced import Announced
from flashsale.contrib.django import get_sale, response, sale_names


class NoSharedCookiesMiddleware:
    """Takes cookies off answers that a shared cache may keep. Put it first in MIDDLEWARE: outside all that set cookies.

    With SESSION_SAVE_EVERY_REQUEST, or a token in a form, the public page would carry one visitor's cookie to the next.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Passes on."""
        response = self._get_response(request)
        if web.is_shared(response.headers.get("Cache-Control")):
            response.cookies.clear()
        return response


class FlashSaleMiddleware:
    """Put it last in MIDDLEWARE: nearest to the views."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._announced: dict[str | None, Announced] = defaultdict(Announced)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Calls the view."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Returns the answer to an error of the sale that a view raised; None for other errors."""
        if not isinstance(error, FlashSaleError):
            return None
        if not isinstance(error, UnknownGoods):
            return response(refuse(error))
        sale = error.sale if error.sale in sale_names() else None
        return response(self._announced[sale].refuse(error, get_sale(sale).store))
