"""The shop of `tests.chaos.soak`, once with Flask and once with Starlette: it buys, takes payments and cancels.

    POST /buy      {"order_id", "goods_id", "buyer_id", "quantity"}   -> {"said": outcome}
    POST /confirm  {"order_id"}                                       -> {"said": state}
    POST /cancel   {"order_id"}                                       -> {"said": state}

503 says: ask again.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import flask
import redis
import redis.asyncio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from flashsale import FlashSale, NotExecuted, NotPersisted, OutcomeUnknown, StoreError, aio
from flashsale.aio.stores import SQLAlchemyStore as AsyncStore
from flashsale.stores import SQLAlchemyStore
from tests.support.chaos_steps import SALE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

AGAIN = (NotExecuted, NotPersisted, OutcomeUnknown, StoreError)


def _called(sale: Any, verb: str, asked: dict[str, Any]) -> Any:
    """Returns the answer, or on the asyncio API what is to be awaited for it."""
    if verb == "buy":
        return sale.buy(asked["goods_id"], asked["buyer_id"], asked["quantity"], order_id=asked["order_id"])
    return {"confirm": sale.confirm, "cancel": sale.cancel}[verb](asked["order_id"])


def _said(answer: Any) -> dict[str, Any]:
    return {"said": getattr(answer, "outcome", answer)}


def flask_app() -> flask.Flask:
    """The shop on threads."""
    client = redis.Redis.from_url(os.environ["FLASHSALE_REDIS_URL"], socket_timeout=5)
    sale = FlashSale(client, SALE, store=SQLAlchemyStore(os.environ["FLASHSALE_DATABASE_URL"], SALE))
    app = flask.Flask("shop")

    @app.post("/<verb>")
    def serve(verb: str) -> tuple[dict[str, Any], int]:
        try:
            return _said(_called(sale, verb, flask.request.get_json())), 200
        except AGAIN as error:
            return {"error": type(error).__name__}, 503

    return app


def starlette_app() -> Starlette:
    """The shop on asyncio."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        client = redis.asyncio.Redis.from_url(os.environ["FLASHSALE_REDIS_URL"], socket_timeout=5)
        store = AsyncStore(os.environ["FLASHSALE_DATABASE_URL"], SALE)
        async with client, store, aio.FlashSale(client, SALE, store=store) as app.state.sale:
            yield

    async def serve(request: Request) -> JSONResponse:
        try:
            answer = await _called(request.app.state.sale, request.path_params["verb"], await request.json())
        except AGAIN as error:
            return JSONResponse({"error": type(error).__name__}, 503)
        return JSONResponse(_said(answer))

    return Starlette(routes=[Route("/{verb}", serve, methods=["POST"])], lifespan=lifespan)
