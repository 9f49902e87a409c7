"""The shop in Flask: `flask --app examples.own_tables.flask_shop.app run`, after `alembic upgrade head`.

Both channels sell the same stock: `POST /regular/<sku>` what the shop's own row has, `POST /flash/<sku>` what the back
office has given to the sale.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from uuid import uuid4

import click
from flask import Flask, abort, render_template_string, request, url_for
from sqlalchemy import create_engine, select, update
from sqlalchemy.exc import IntegrityError
from werkzeug import Response

from examples.own_tables.flask_shop.flash import backfill
from examples.own_tables.flask_shop.models import Item, Note, Order, Payment, Price, Stock, db
from flashsale import NotPersisted, OrderState
from flashsale.contrib.flask import FlaskSale

sales = FlaskSale()


def create_app() -> Flask:
    """Returns the app; FLASHSALE_... come from the environment."""
    app = Flask(__name__)
    app.config["FLASHSALE_HOOKS"] = "examples.own_tables.flask_shop.flash.Hooks"  # worker and syncer read it, too
    app.config.update({name: value for name, value in os.environ.items() if name.startswith("FLASHSALE_")})
    db.configure(bind=create_engine(app.config["FLASHSALE_DATABASE_URL"]))
    sales.init_app(app)
    app.add_url_rule("/regular/<sku>", view_func=regular, methods=["POST"])
    app.add_url_rule("/flash/<sku>", view_func=flash, methods=["POST"])
    app.add_url_rule("/orders/<number>", view_func=order)
    app.add_url_rule("/payments", view_func=payment, methods=["POST"])
    app.add_url_rule("/office", view_func=office)
    app.add_url_rule("/office/<number>/cancel", view_func=cancel, methods=["POST"])
    app.cli.add_command(backfill_command)
    return app


def customer() -> int:
    """Stands in for the shop's login."""
    return int(request.headers["X-Customer"])


# -- the shop as it was ---------------------------------------------------------------------------------------------


def regular(sku: str) -> tuple[dict[str, str], int]:
    """Sells one unit, paid by invoice."""
    with db.begin() as session:
        price = session.get(Price, sku) or abort(404)
        take = update(Stock).where(Stock.sku == sku, Stock.units >= 1).values(units=Stock.units - 1)
        if not session.execute(take).rowcount:
            return {"error": "sold out"}, 409
        item = Item(sku=sku, quantity=1, cents=price.cents)
        bought = Order(number=f"R{uuid4().hex}", customer_id=customer(), status="paid", items=[item])
        session.add(bought)
        session.flush()
        return {"number": bought.number}, 201


def office() -> str:
    """The back office, behind the login of staff: what is open or paid, with a button to cancel it."""
    with db.begin() as session:
        orders = session.scalars(select(Order).where(Order.status != "cancelled").order_by(Order.id.desc()).limit(50))
        return render_template_string(OFFICE, orders=orders.all())


OFFICE = """<!doctype html><title>Orders</title><h1>Orders</h1><ul>
{% for order in orders %}<li>{{ order.number }}: {{ order.status }}
<form method="post" action="{{ url_for('cancel', number=order.number) }}">
<input name="why" aria-label="why" required><button>Cancel</button></form></li>{% endfor %}</ul>"""


# -- the flash sale -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1000)
def price_of(sku: str, ten_seconds: int) -> int:
    """Returns the price; the crowd of a sale must not ask the database each time."""
    with db() as session:
        return session.scalar(select(Price.cents).where(Price.sku == sku)) or abort(404)


def flash(sku: str) -> Response:
    """Buys one unit; the page makes the key once, so that a double click is one order."""
    order_id = f"F{customer()}.{request.form['key']}"
    data = {"cents": price_of(sku, int(time.time() / 10))}
    receipt = sales.sale.buy(sku, str(customer()), order_id=order_id, data=data)
    return sales.answer(receipt, location=url_for("order", number=order_id))


def order(number: str) -> dict[str, str]:
    """The customer's own order, while the page waits for it."""
    if number.partition(".")[0] != f"F{customer()}":
        abort(404)
    return {"state": sales.sale.status(number) or abort(404)}


def payment() -> tuple[dict[str, object], int, dict[str, str]]:
    """The bank's webhook. Answered 200 its money has a place; answered 503 it is sent again.

    It may come early, late, twice, and twice at once.
    """
    event = request.get_json()
    try:
        with db.begin() as session:
            money = session.merge(Payment(id=event["id"], number=event["number"], cents=event["cents"]))
            state = sales.sale.confirm(money.number, connection=session)
            money.refund = state is not OrderState.CONFIRMED
    except (NotPersisted, IntegrityError):  # the worker has not saved the order yet; or the same money came just now
        return {"error": "again, please"}, 503, {"Retry-After": "1"}
    return {"state": state, "refund": state is not OrderState.CONFIRMED}, 200, {}


def cancel(number: str) -> tuple[dict[str, object], int]:
    """Staff cancels an order of either channel, and says why."""
    with db.begin() as session:
        session.add(Note(number=number, text=request.form["why"]))
        if number.startswith("F"):
            return {
                "state": sales.sale.cancel(number, connection=session) or abort(404)
            }, 200  # last: it locks the item
        ours = session.scalar(select(Order).where(Order.number == number).with_for_update()) or abort(404)
        if ours.status != "cancelled":
            ours.status = "cancelled"
            for item in ours.items:
                give = update(Stock).where(Stock.sku == item.sku).values(units=Stock.units + item.quantity)
                session.execute(give)
        return {"state": ours.status}, 200


@click.command("backfill")
def backfill_command() -> None:
    """Make the shop's orders of those that were accepted before the hooks were there."""
    click.echo(f"{backfill(sales.sale.store)} orders")
