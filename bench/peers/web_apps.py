"""The buy endpoint of a shop in Starlette and in Flask: with the library, with one EVALSHA per call, without Redis.

The Redis port and the script call come in the environment, as the web servers import this module.
"""

from __future__ import annotations

import contextlib
import json
import os

import redis
import redis.asyncio
from flask import Flask, request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import flashsale.aio
from bench.servers import HOST, SALE
from bench.wire import Wire
from flashsale import FlashSale

PORT, WIRE = "BENCH_REDIS_PORT", "BENCH_WIRE"


def environment(bed):
    return os.environ | {PORT: str(bed.port), WIRE: json.dumps(bed.wire)}


def _port():
    return int(os.environ[PORT])


def _wire():
    return Wire(*json.loads(os.environ[WIRE]))


def _starlette(client, sell, *, close):
    async def buy(incoming):
        sold = await sell(
            incoming.path_params["goods_id"], incoming.headers["x-buyer"], incoming.headers["idempotency-key"]
        )
        return JSONResponse({"sold": sold}, 202 if sold else 409)

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        try:
            yield
        finally:
            await close()
            await client.aclose()

    return Starlette(routes=[Route("/buy/{goods_id}", buy, methods=["POST"])], lifespan=lifespan)


def starlette_ours():
    client = redis.asyncio.Redis(host=HOST, port=_port())
    sale = flashsale.aio.FlashSale(client, SALE)

    async def sell(goods_id, buyer_id, order_id):
        return (await sale.buy(goods_id, buyer_id, order_id=order_id)).accepted

    return _starlette(client, sell, close=sale.aclose)


def starlette_script():
    client, wire = redis.asyncio.Redis(host=HOST, port=_port(), max_connections=256), _wire()

    async def sell(_goods_id, _buyer_id, order_id):
        return (await client.execute_command("EVALSHA", *wire.purchase(order_id)))[0] > 0

    async def nothing():
        pass

    return _starlette(client, sell, close=nothing)


def starlette_nothing():
    client = redis.asyncio.Redis(host=HOST, port=_port())  # never connects

    async def sell(_goods_id, _buyer_id, _order_id):
        return True

    return _starlette(client, sell, close=client.aclose)


def _flask(sell):
    app = Flask("shop")

    @app.post("/buy/<goods_id>")
    def buy(goods_id):
        sold = sell(goods_id, request.headers["X-Buyer"], request.headers["Idempotency-Key"])
        return {"sold": sold}, 202 if sold else 409

    return app


def flask_ours():
    sale = FlashSale(redis.Redis(HOST, _port()), SALE)
    return _flask(lambda goods_id, buyer_id, order_id: sale.buy(goods_id, buyer_id, order_id=order_id).accepted)


def flask_script():
    client, wire = redis.Redis(HOST, _port(), max_connections=256), _wire()
    return _flask(
        lambda _goods_id, _buyer_id, order_id: client.execute_command("EVALSHA", *wire.purchase(order_id))[0] > 0
    )


def flask_nothing():
    return _flask(lambda _goods_id, _buyer_id, _order_id: True)
