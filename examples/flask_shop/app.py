"""The shop in Flask: `python -m examples flask`, or `flask --app examples.flask_shop.app run`."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, session, url_for
from werkzeug import Response as AnyResponse

from examples.shop import GOODS_ID, describe, order_id, owns
from flashsale import FlashSaleError, OrderState, web
from flashsale.contrib.flask import FlaskSale, response

sales = FlaskSale()


def create_app() -> Flask:
    """Returns the app; FLASHSALE_... and SHOP_SECRET come from the environment."""
    app = Flask(__name__, template_folder="../templates", static_folder="../static", static_url_path="/static")
    app.config.update(
        SECRET_KEY=os.environ["SHOP_SECRET"],
        SEND_FILE_MAX_AGE_DEFAULT=60,  # styles, scripts and pictures: browser and CDN keep them
        SESSION_COOKIE_SAMESITE="Lax",  # a form on somebody else's page comes without the buyer
        **{name: value for name, value in os.environ.items() if name.startswith("FLASHSALE_")},
    )
    sales.init_app(app)
    app.after_request(problem_page)
    app.add_url_rule("/", view_func=product)
    app.add_url_rule(f"/sale/{GOODS_ID}", view_func=fragment)
    app.add_url_rule(f"/buy/{GOODS_ID}", view_func=buy, methods=["POST"])
    app.add_url_rule("/orders/<name>", view_func=order)
    app.add_url_rule("/orders/<name>/pay", view_func=pay, methods=["POST"])
    app.add_url_rule("/orders/<name>/cancel", view_func=cancel, methods=["POST"])
    return app


def product() -> Response:
    """The product page: the same for everybody, so browser and CDN keep it; without a cookie."""
    page = render_template("product.html").encode()
    try:
        view = sales.sale.view(GOODS_ID)
        headers = web.page_headers(page, now=view.now, opens_at=view.opens_at, closes_at=view.closes_at)
    except FlashSaleError:  # the page does without the sale; nobody keeps it for long
        headers = web.page_headers(page, now=time.time(), max_age=0, s_maxage=1, stale_while_revalidate=0)
    if web.not_modified(request.headers.get("If-None-Match"), headers):
        return Response(status=304, headers=headers)
    return Response(page, headers=headers, content_type="text/html; charset=utf-8")


def fragment() -> Response:
    """The state of the sale, for a second the same for everybody."""
    return sales.fragment(GOODS_ID)


def buy() -> AnyResponse:
    """Buys one phone for the visitor; a real shop has a login here."""
    buyer = session.setdefault("buyer", secrets.token_hex(8))
    receipt = sales.sale.buy(GOODS_ID, buyer, order_id=order_id(buyer, request.form.get("key", "")))
    answer = sales.answer(receipt, location=url_for("order", name=receipt.order_id))
    return _page(answer, url_for("order", name=receipt.order_id))


def order(name: str) -> Response:
    """The buyer's order, as a page or as JSON."""
    _check_owner(name)
    state = sales.sale.status(name)
    if state is None:
        abort(404)
    shown = describe(state)
    answer = jsonify(shown) if _wants_json() else Response(render_template("order.html", order_id=name, **shown))
    answer.cache_control.no_store = True
    return answer


def pay(name: str) -> AnyResponse:
    """Stands in for the payment provider."""
    return _settle(name, sales.sale.confirm)


def cancel(name: str) -> AnyResponse:
    """Gives the phone back."""
    return _settle(name, sales.sale.cancel)


def _settle(name: str, settle: Callable[[str], OrderState | None]) -> AnyResponse:
    _check_owner(name)
    return _page(response(web.order_status(name, settle(name))), url_for("order", name=name))


def _check_owner(name: str) -> None:
    if not owns(session.get("buyer"), name):
        abort(404)


def _page(answer: Response, onward: str) -> AnyResponse:
    """Returns the answer to a script, and a redirect to a form that was sent without one."""
    return answer if _wants_json() or answer.status_code >= 400 else redirect(onward, 303)


def problem_page(answer: Response) -> Response:
    """Makes a page of a problem, where no script asked."""
    if answer.mimetype == "application/problem+json" and not _wants_json():
        answer.set_data(render_template("problem.html", **answer.get_json()))
        answer.mimetype = "text/html"
    return answer


def _wants_json() -> bool:
    return request.accept_mimetypes.best == "application/json"
