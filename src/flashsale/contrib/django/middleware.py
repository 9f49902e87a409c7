"""Answers the sale's errors as problem bodies (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from flashsale import FlashSaleError, web
from flashsale.contrib.django import response
from flashsale.observer import log


class FlashSaleMiddleware:
    """Put it last in MIDDLEWARE: nearest to the views."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Passes on."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answers what a view raised, if it came from the sale."""
        if not isinstance(error, FlashSaleError):
            return None
        reply = web.refuse(error)
        if reply.status >= 500:
            log.warning("answered %d: %s", reply.status, type(error).__name__)
        return response(reply)
