"""The middleware: answers the sale's errors as problem bodies (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from flashsale import FlashSaleError
from flashsale.contrib import refuse
from flashsale.contrib.django import response


class FlashSaleMiddleware:
    """Put it last in MIDDLEWARE: nearest to the views."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Calls the view."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Returns the answer to an error of the sale that a view raised; None for other errors."""
        if not isinstance(error, FlashSaleError):
            return None
        return response(refuse(error))
