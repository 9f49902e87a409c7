"""What the crowd must know of each shop: its processes, its addresses, and its tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from flashsale import Goods

GUNICORN = [
    sys.executable,
    "-m",
    "gunicorn",
    "--workers=2",
    "--threads=24",
    "--graceful-timeout=3",
    "--log-level=error",
]


@dataclass(frozen=True)
class Shop:
    """One of the shops.

    Args:
        name: its framework.
        commands: takes a port, returns the commands of its processes by name; one is "web".
        prepare: takes the database's URL, how many customers there are and how many units; makes the tables.
        offer: puts an item on sale as the back office does, with the shop's hooks.
        orders: SQL: number, status (open, paid, cancelled) and units of each order of either channel; the numbers of
            the sale begin with F.
        stock: SQL: the units that the regular channel can sell.
        money: SQL: id, number and refund of each payment.
        environment: takes the database's URL, returns what the shop's own settings read.
        staff: returns the headers of staff who is logged in.
        has_outbox: one hands on each event.
        cancel: takes a number, returns path and form by which staff cancels.
    """

    name: str
    commands: Callable[[int], dict[str, list[str]]]
    prepare: Callable[..., None]
    offer: Callable[[Goods], None]
    orders: str
    stock: str
    money: str
    cents: int = 39900
    flash: str = "/flash/phone"
    regular: str = "/regular/phone"
    payments: str = "/payments"
    environment: Callable[[str], dict[str, str]] = lambda _: {}
    staff: Callable[[], dict[str, str]] = dict
    has_outbox: bool = False
    cancel: Callable[[str], tuple[str, dict[str, str]]] = lambda number: (
        f"/office/{number}/cancel",
        {"why": "asked to"},
    )


def flask_commands(port: int) -> dict[str, list[str]]:
    flask = [sys.executable, "-m", "flask", "--app", "examples.own_tables.flask_shop.app", "flashsale"]
    return {
        "web": [*GUNICORN, f"--bind=127.0.0.1:{port}", "examples.own_tables.flask_shop.app:create_app()"],
        "worker-1": [*flask, "worker", "--lease=3"],
        "worker-2": [*flask, "worker", "--lease=3"],
        "syncer": [*flask, "syncer"],
    }


def slow_environment(_: str) -> dict[str, str]:
    return {
        "FLASHSALE_HOOKS": "examples.own_tables.flask_shop.slow.Hooks",
        "FLASHSALE_EVENTS": "PERSISTED,CONFIRMED,CANCELLED,EXPIRED,REJECTED",
    }


def slow_commands(port: int) -> dict[str, list[str]]:
    commands = flask_commands(port)
    *gunicorn, app = commands["web"]
    outbox = [*commands["syncer"][:-1], "outbox", "--handler=examples.own_tables.flask_shop.slow.handle"]
    web = [*gunicorn, "--preload", app]  # a child that was killed comes back by a fork, without its imports
    return {**commands, "web": web, "outbox-1": [*outbox, "--interval=0.2"], "outbox-2": [*outbox, "--interval=0.2"]}


def flask_prepare(url: str, *, customers: int, units: int) -> None:
    from pathlib import Path

    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    from examples.own_tables.flask_shop.models import Customer, Price, Stock, db

    command.upgrade(Config(Path(__file__).parent / "flask_shop" / "alembic.ini"), "head")
    engine = create_engine(url)
    with db(bind=engine) as session:
        session.add_all(Customer(id=number, name=f"Customer {number}") for number in range(1, customers + 1))
        session.add(Price(sku="phone", cents=39900))
        session.flush()
        session.add(Stock(sku="phone", units=units))
        session.commit()
    engine.dispose()


def flask_offer(goods: Goods) -> None:
    from examples.own_tables.flask_shop.app import create_app, sales

    with create_app().app_context():
        sales.sale.store.put_goods(goods)


def django_environment(url: str) -> dict[str, str]:
    settings = "examples.own_tables.django_shop.settings"
    return {"SHOP_DATABASE": url, "SHOP_SECRET": "of the crowd", "DJANGO_SETTINGS_MODULE": settings}


def django_commands(port: int) -> dict[str, list[str]]:
    django = [sys.executable, "-m", "django"]
    wsgi = "examples.own_tables.django_shop.wsgi:application"
    return {
        "web": [*GUNICORN, "--preload", f"--bind=127.0.0.1:{port}", wsgi],
        "worker-1": [*django, "flashsale_worker", "--lease=3"],
        "worker-2": [*django, "flashsale_worker", "--lease=3"],
        "syncer": [*django, "flashsale_sync"],
    }


def django_prepare(url: str, *, customers: int, units: int) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    from examples.own_tables.django_shop.models import Price, Product

    Price.objects.create(product=Product.objects.create(sku="phone", stock=units), full=42000, discount=5)
    User.objects.create_superuser("staff")


def django_offer(goods: Goods) -> None:
    from flashsale.contrib.django import get_sale

    get_sale().store.put_goods(goods)


def django_staff() -> dict[str, str]:
    from django.contrib.auth.models import User
    from django.test import Client

    web, token = Client(), "t" * 32
    web.force_login(User.objects.get(username="staff"))
    session = web.cookies["sessionid"].value
    return {"Cookie": f"sessionid={session}; csrftoken={token}", "X-CSRFToken": token}


def django_cancel(number: str) -> tuple[str, dict[str, str]]:
    return "/office/shop/order/", {"action": "cancel_selected", "_selected_action": number}


FLASK = Shop(
    "flask",
    flask_commands,
    flask_prepare,
    flask_offer,
    orders="SELECT number, status, sum(quantity) AS units FROM orders JOIN items ON order_id = orders.id"
    " GROUP BY number, status",
    stock="SELECT units FROM stock WHERE sku = 'phone'",
    money="SELECT id, number, refund FROM payments",
)
SHOPS = {
    "flask": FLASK,
    "flask-slow": replace(
        FLASK, name="flask-slow", commands=slow_commands, environment=slow_environment, has_outbox=True
    ),
    "django": Shop(
        "django",
        django_commands,
        django_prepare,
        django_offer,
        orders="SELECT number, state AS status, sum(quantity) AS units FROM shop_order"
        " JOIN shop_orderline ON order_id = number GROUP BY number, state",
        stock="SELECT stock FROM shop_product WHERE sku = 'phone'",
        money="SELECT event AS id, number, NOT EXISTS (SELECT * FROM shop_order WHERE shop_order.number ="
        " shop_payment.number AND state = 'paid') AS refund FROM shop_payment",
        environment=django_environment,
        staff=django_staff,
        cancel=django_cancel,
    ),
}
