"""The shop's own tests: what the sale does stands in the shop's tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from io import StringIO
from typing import Any

import django
import pytest
from django.contrib.admin.utils import quote
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext, setup_test_environment, teardown_test_environment

from flashsale import FlashSale, Goods, OrderState, Outbox, StoreError, Syncer, Worker

ANN = {"X-Customer": "ann"}
BOB = {"X-Customer": "bob"}


@pytest.fixture(scope="module", autouse=True)
def _django() -> Iterator[None]:
    django.setup()
    setup_test_environment()
    call_command("migrate", verbosity=0)
    yield
    connection.close()
    teardown_test_environment()


@pytest.fixture
def make_sale(make_flashsale: Any) -> Iterator[Any]:
    """A shop with ten phones, ten cases and a voucher; called, it lends four phones and four cases to the sale."""
    from examples.own_tables.django_shop.models import Price, Product, Voucher
    from flashsale.contrib.django import set_sale
    from flashsale.contrib.django.store import DjangoStore

    for sku, full, discount in (("phone", 40000, 10), ("case", 2000, 0)):
        Price.objects.create(product=Product.objects.create(sku=sku, stock=10), full=full, discount=discount)
    Voucher.objects.create(code="TEN", cents=1000)

    def make(hooks: object) -> FlashSale:
        goods = [Goods("phone", 4, hold=600), Goods("case", 4)]
        sale = make_flashsale(goods, store=partial(DjangoStore, hooks=hooks))
        set_sale(sale)
        return sale

    yield make
    set_sale(None)
    call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def sale(make_sale: Any) -> FlashSale:
    from examples.own_tables.django_shop.flash import Hooks

    return make_sale(Hooks())


@pytest.fixture
def staff() -> Client:
    from django.contrib.auth.models import User

    web = Client()
    web.force_login(User.objects.create_superuser("staff"))
    return web


def buy(key: str = "1", **form: str) -> str:
    answer = Client().post("/flash/phone", {"key": key, **form}, headers=ANN)
    assert answer.status_code == 202, answer.content
    return answer.json()["order_id"]


def buy_basket(key: str = "1", **form: str) -> str:
    answer = Client().post("/basket", {"key": key, "sku": ["phone", "case"], **form}, headers=ANN)
    assert answer.status_code == 202, answer.content
    return answer.json()["number"]


def work(sale: FlashSale) -> None:
    while Worker(sale).run_once():
        pass


def pay(number: str, event: str = "m-1", cents: int = 36000) -> int:
    event_body = {"id": event, "number": number, "cents": cents}
    return Client().post("/payments", event_body, content_type="application/json").status_code


def shown(number: str) -> Any:
    return Client().get(f"/orders/{number}", headers=ANN).json()


def stock(sku: str = "phone") -> tuple[int, int]:
    from examples.own_tables.django_shop.models import Product

    return Product.objects.values_list("stock", "lent").get(sku=sku)


def refunds() -> dict[str, int]:
    from examples.own_tables.django_shop.models import refunds_due

    return refunds_due()


def used_by() -> str:
    from examples.own_tables.django_shop.models import Voucher

    return Voucher.objects.get(code="TEN").used_by


def test_an_accepted_order_becomes_the_shops_at_the_price_that_was_shown(sale: FlashSale) -> None:
    from examples.own_tables.django_shop.models import OrderLine, Price

    number = buy()
    assert buy() == number  # a double click
    Price.objects.filter(pk="phone").update(discount=0)  # too late for this buyer
    assert shown(number) == {"state": "QUEUED", "reason": None}
    work(sale)
    assert shown(number) == {"state": "open", "cents": 36000}
    assert list(OrderLine.objects.values_list("order__number", "product", "quantity", "cents")) == [
        (number, "phone", 1, 36000)
    ]
    assert Client().get(f"/orders/{number}", headers=BOB).status_code == 404


def test_one_order_of_the_shop_from_a_basket(sale: FlashSale) -> None:
    from examples.own_tables.django_shop.models import Order

    number = buy_basket(voucher="TEN")
    work(sale)
    ours = Order.objects.get()
    assert (ours.number, ours.cents, ours.lines.count()) == (number, 37000, 2)
    assert pay(number) == 200
    assert shown(number)["state"] == "paid"
    sale.cancel(f"{number}#1")  # one line of two goes back
    assert (shown(number)["state"], used_by()) == ("paid", number)
    sale.cancel(f"{number}#2")
    assert (shown(number)["state"], used_by()) == ("cancelled", "")


def test_a_batch_costs_as_many_statements_as_an_order(sale: FlashSale) -> None:
    def statements(*keys: str) -> int:
        for key in keys:
            buy(key)
        with CaptureQueriesContext(
            connection,
        ) as said:
            work(sale)
        return len(said)

    assert statements("1") == statements("2", "3", "4")


def test_a_voucher_is_good_for_one_order(sale: FlashSale) -> None:
    first, again, basket = buy("1", voucher="TEN"), buy("2", voucher="TEN"), buy_basket("3", voucher="TEN")
    work(sale)
    assert used_by() in {first, again}
    late = again if used_by() == first else first
    assert shown(used_by()) == {"state": "open", "cents": 35000}
    for number in (late, basket):  # of a basket each order
        assert shown(number) == {"state": "REJECTED", "reason": "the voucher is used up"}
    assert sale.inventory.stock("phone").remaining == 3
    assert sale.inventory.stock("case").remaining == 4
    assert buy("1" if used_by() == first else "2", voucher="TEN") == used_by()  # a double click
    too_late = Client().post("/flash/phone", {"key": "4", "voucher": "TEN"}, headers=BOB)
    assert (too_late.status_code, too_late.json()) == (409, {"error": "the voucher is used up"})
    sale.cancel(used_by())
    work(sale)
    assert used_by() == ""


def test_a_voucher_may_be_worth_more_than_the_order(sale: FlashSale) -> None:
    from examples.own_tables.django_shop.models import Voucher

    Voucher.objects.create(code="ALL", cents=1_000_000)
    number = buy(voucher="ALL")
    work(sale)
    assert shown(number) == {"state": "open", "cents": 0}


def test_money_that_comes_early_twice_late_and_goes_back(sale: FlashSale) -> None:
    number = buy()
    assert (pay(number), refunds()) == (503, {})  # the worker has not saved the order: the bank asks again
    assert (pay(buy_basket()), refunds()) == (503, {})
    work(sale)
    for _ in range(2):
        assert pay(number) == 200
    assert (shown(number)["state"], sale.status(number), refunds()) == ("paid", "CONFIRMED", {})
    for _ in range(2):
        assert pay(number, "m-2", -36000) == 200
    assert pay(number) == 200  # an old one again
    assert (shown(number)["state"], sale.status(number), refunds()) == ("cancelled", "CANCELLED", {})
    assert pay(number, "m-3") == 200
    assert refunds() == {number: 36000}
    assert sale.inventory.stock("phone").remaining == 3  # and one in the basket


def test_money_for_a_basket_of_which_a_part_has_gone(sale: FlashSale) -> None:
    number = buy_basket()
    work(sale)
    sale.cancel(f"{number}#2")
    assert pay(number) == 200
    assert (shown(number)["state"], refunds()) == ("cancelled", {number: 36000})
    assert pay("Bann.unknown", "m-9", 1) == 200
    assert refunds()["Bann.unknown"] == 1


def test_staff_cancels_in_the_back_office(sale: FlashSale, staff: Client) -> None:
    from examples.own_tables.django_shop.models import Order

    numbers = [buy("1"), buy("2"), buy_basket("3")]
    work(sale)
    first = Client().post("/regular/phone", headers=ANN).json()["number"]
    assert stock() == (5, 4)
    ids = list(Order.objects.exclude(number=numbers[0]).values_list("number", flat=True))
    chosen = {"action": "cancel_selected", "_selected_action": ids}
    for _ in range(2):
        assert staff.post("/office/shop/order/", chosen).status_code == 302
    assert {shown(number)["state"] for number in numbers} == {"open", "cancelled"}
    assert Order.objects.get(number=first).state == "cancelled"
    assert (stock(), sale.inventory.stock("phone").remaining, sale.inventory.stock("case").remaining) == ((6, 4), 3, 4)

    page = f"/office/shop/order/{quote(numbers[0])}/change/"
    lines = {"lines-TOTAL_FORMS": 0, "lines-INITIAL_FORMS": 0}
    for state in ("paid", "cancelled", "paid"):
        assert staff.post(page, {"state": state, **lines}).status_code == 302
        last = "paid" if state == "paid" and sale.status(numbers[0]) == "CONFIRMED" else "cancelled"
        assert Order.objects.get(number=numbers[0]).state == last
    assert sale.status(numbers[0]) == "CANCELLED"
    assert sale.inventory.stock("phone").remaining == 4


def test_what_staff_rolls_back_never_happened(sale: FlashSale) -> None:
    from examples.own_tables.django_shop.admin import cancel

    number = buy()
    work(sale)
    with transaction.atomic():
        cancel(number)
        transaction.set_rollback(True)
    assert (shown(number)["state"], sale.status(number), sale.inventory.stock("phone").remaining) == (
        "open",
        "PERSISTED",
        3,
    )


def test_one_stock_and_two_channels(sale: FlashSale, staff: Client) -> None:
    assert stock() == (6, 4)
    regular = [Client().post("/regular/phone", headers=ANN).status_code for _ in range(7)]
    assert regular == [201] * 6 + [409]
    with pytest.raises(StoreError):
        sale.restock("phone", 1)  # there is none left to lend
    assert stock() == (0, 4)
    sale.restock("phone", -3)
    Syncer(sale).run_once()
    assert stock() == (3, 1)
    assert sale.inventory.stock("phone").remaining == 1
    number = buy()
    work(sale)
    sale.stop("phone")
    sale.stop("case")
    Syncer(sale).run_once()
    sale.confirm(number)
    Syncer(sale).purge()
    assert (stock(), stock("case")) == ((3, 1), (10, 0))  # what was not sold is the shop's again
    staff.post("/office/shop/order/", {"action": "cancel_selected", "_selected_action": [number]})
    assert (shown(number)["state"], stock()) == ("cancelled", (4, 0))


def test_orders_from_before_the_hooks(make_sale: Any) -> None:
    from examples.own_tables.django_shop.flash import Hooks
    from examples.own_tables.django_shop.models import Order
    from flashsale.contrib.django.store import DjangoStore

    sale = make_sale(None)
    paid, cancelled, basket = buy("1"), buy("2"), buy_basket("3", voucher="TEN")
    work(sale)
    sale.confirm(paid)
    sale.cancel(cancelled)
    assert (stock(), Order.objects.count()) == ((10, 0), 0)
    for said in ("2 orders\n", "0 orders\n"):
        out = StringIO()
        call_command("backfill", stdout=out)
        assert out.getvalue() == said
        assert dict(Order.objects.values_list("number", "state")) == {paid: "paid", basket: "open"}
        assert (stock(), used_by()) == ((6, 4), basket)
    DjangoStore(sale.name, hooks=Hooks()).settle(
        next(row.order for row in sale.store.orders() if row.order.order_id == f"{basket}#1"), OrderState.CANCELLED
    )
    assert Order.objects.get(number=basket).lines.filter(returned=True).count() == 1


def test_the_buyer_is_told_how_the_order_ended(sale: FlashSale) -> None:
    from django.core import mail

    from examples.own_tables.django_shop.mails import tell

    buy("1", voucher="TEN"), buy("2", voucher="TEN")
    work(sale)
    Outbox(sale, tell).run_once()
    [told] = mail.outbox
    assert told.to == ["ann@shop.example"]
    assert "Sorry: the voucher is used up." in told.body


def test_the_migrations_make_what_the_models_say() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
