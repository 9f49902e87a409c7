"""The shop in FastAPI: `python -m examples fastapi`, or `uvicorn examples.fastapi_shop.app:app`."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.middleware.sessions import SessionMiddleware

from examples.shop import GOODS_ID, describe, order_id, owns
from flashsale import FlashSaleError, OrderState, web
from flashsale.aio import FlashSale
from flashsale.contrib.fastapi import FastAPISale, NoSharedCookies, response

HERE = Path(__file__).parent.parent

sales = FastAPISale(os.environ)
app = FastAPI(lifespan=sales.lifespan)
app.add_middleware(SessionMiddleware, secret_key=os.environ["SHOP_SECRET"], same_site="lax")
app.add_middleware(NoSharedCookies)  # last, so outermost: no session in the CDN's copy of a page


class Static(StaticFiles):
    """Styles, scripts and pictures, which are the same for everybody."""

    def file_response(self, *args: Any, **named: Any) -> Response:
        """Returns a file that browser and CDN keep for a while."""
        answer = super().file_response(*args, **named)
        answer.headers["Cache-Control"] = "public, max-age=60"
        return answer


app.mount("/static", Static(directory=HERE / "static"))
templates = Jinja2Templates(HERE / "templates")

Sale = Annotated[FlashSale, Depends(sales)]


async def the_buyer(request: Request) -> str | None:
    """Returns whose session it is; a real shop has a login here."""
    buyer: str | None = request.session.get("buyer")
    return buyer


Buyer = Annotated[str | None, Depends(the_buyer)]


async def own_order(name: str, buyer: Buyer) -> str:
    """Returns the order id in the path, if the order is the buyer's."""
    if not owns(buyer, name):
        raise HTTPException(404)
    return name


OwnOrder = Annotated[str, Depends(own_order)]


@app.exception_handler(FlashSaleError)
async def closed(request: Request, error: FlashSaleError) -> Response:
    """What `sales.install(app)` does, but as a page where no script asked."""
    return _page(request, await sales.refuse(error))


@app.get("/")
async def product(request: Request, sale: Sale) -> Response:
    """The product page: the same for everybody, so browser and CDN keep it; without a cookie."""
    page = templates.TemplateResponse(request, "product.html")
    body = bytes(page.body)
    try:
        view = await sale.view(GOODS_ID)
        headers = web.page_headers(body, now=view.now, opens_at=view.opens_at, closes_at=view.closes_at)
    except FlashSaleError:  # the page does without the sale; nobody keeps it for long
        headers = web.page_headers(body, now=time.time(), max_age=0, s_maxage=1, stale_while_revalidate=0)
    if web.not_modified(request.headers.get("If-None-Match"), headers):
        return Response(status_code=304, headers=headers)
    page.headers.update(headers)
    return page


@app.get(f"/sale/{GOODS_ID}")
async def fragment(sale: Sale) -> Response:
    """The state of the sale, for a second the same for everybody."""
    return response(web.fragment(await sale.view(GOODS_ID)))


@app.post(f"/buy/{GOODS_ID}")
async def buy(request: Request, sale: Sale, buyer: Buyer, key: Annotated[str, Form()] = "") -> Response:
    """Buys one phone for the visitor."""
    if buyer is None:
        buyer = request.session["buyer"] = secrets.token_hex(8)
    receipt = await sale.buy(GOODS_ID, buyer, order_id=order_id(buyer, key))
    where = f"/orders/{receipt.order_id}"
    return _page(request, await sales.answer(receipt, location=where), where)


@app.get("/orders/{name}")
async def order(request: Request, name: OwnOrder, sale: Sale) -> Response:
    """The buyer's order, as a page or as JSON."""
    state = await sale.status(name)
    if state is None:
        raise HTTPException(404)
    shown = describe(state)
    headers = {"Cache-Control": "no-store"}
    if _wants_json(request):
        return JSONResponse(shown, headers=headers)
    return templates.TemplateResponse(request, "order.html", {"order_id": name, **shown}, headers=headers)


@app.post("/orders/{name}/pay")
async def pay(request: Request, name: OwnOrder, sale: Sale) -> Response:
    """Stands in for the payment provider."""
    return await _settle(request, name, sale.confirm)


@app.post("/orders/{name}/cancel")
async def cancel(request: Request, name: OwnOrder, sale: Sale) -> Response:
    """Gives the phone back."""
    return await _settle(request, name, sale.cancel)


async def _settle(request: Request, name: str, settle: Callable[[str], Awaitable[OrderState | None]]) -> Response:
    return _page(request, response(web.order_status(name, await settle(name))), f"/orders/{name}")


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("Accept", "")


def _page(request: Request, answer: Response, onward: str = "/") -> Response:
    """Returns the answer to a script; to a form that was sent without one a redirect, or the problem as a page."""
    if _wants_json(request):
        return answer
    if answer.status_code < 400:
        return RedirectResponse(onward, 303)
    headers = {name: answer.headers[name] for name in ("Cache-Control", "Retry-After") if name in answer.headers}
    problem = json.loads(bytes(answer.body))
    return templates.TemplateResponse(request, "problem.html", problem, answer.status_code, headers)
