"""A shop of one view sells a phone over the real Redis: lifespan and route, without a server or an HTTP client."""

import asyncio
import os
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.responses import Response

from flashsale.aio import FlashSale
from flashsale.contrib.fastapi import FastAPISale

sales = FastAPISale({"FLASHSALE_SALE": "fastapi", "FLASHSALE_REDIS_URL": os.environ["FLASHSALE_REDIS_URL"]})
app = FastAPI(lifespan=sales.lifespan)
sales.install(app)


@app.post("/buy")
async def buy(sale: Annotated[FlashSale, Depends(sales)]) -> Response:
    return await sales.answer(await sale.buy("phone", "ann"), location="/order")


async def post() -> int:
    said: list[dict[str, object]] = []

    async def hear() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def say(message: dict[str, object]) -> None:
        said.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/buy", "raw_path": b"/buy"}
    await app(scope | {"query_string": b"", "headers": [], "scheme": "http", "root_path": ""}, hear, say)
    return int(str(said[0]["status"]))


async def play() -> None:
    async with app.router.lifespan_context(app):
        assert sales.sale is not None
        await sales.sale.preload("phone", 1)
        await sales.sale.start("phone")
        statuses = [await post() for _ in range(2)]
        assert statuses == [202, 409], statuses


asyncio.run(play())
