"""The admin of Django steers a sale as the command does: actions, what they show first, rights, and the trail."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import FlashSale, Goods, Order, OrderState, Syncer
from tests.core.test_django_project import project
from tests.support import django_shop

django_shop.set_up()

from django.contrib.admin import site  # noqa: E402 - settings come first
from django.contrib.auth.models import Permission, User  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from flashsale.contrib.django import get_sale  # noqa: E402
from flashsale.contrib.django.models import SaleGoods, SaleOrder  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flashsale.model.trail import TrailEntry

GOODS, ORDERS = "/admin/flashsale/salegoods/", "/admin/flashsale/saleorder/"


class Admin:
    """A user of the admin, and the sale: ten phones, three of them booked."""

    def __init__(self, sale: FlashSale, *rights: str) -> None:
        self.sale, self.user = sale, User.objects.create_user(f"zoe-{sale.name}-{len(rights)}", is_staff=True)
        self.user.user_permissions.set(Permission.objects.filter(codename__in=rights))
        self.client = Client()
        self.client.force_login(self.user)

    def see(self, url: str = GOODS) -> str:
        return self._text(self.client.get(url))

    def act(self, action: str, *rows: Any, url: str = GOODS, **given: object) -> str:
        """Chooses an action for rows, or fills in its page; returns the page that comes then."""
        data = {"action": action, "_selected_action": [row.pk for row in rows], **given}
        return self._text(self.client.post(url, data, follow=True))

    def confirm(self, page: str, **given: object) -> str:
        """Says yes to what a page shows."""
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
        data: dict[str, Any] = {}
        for name, value in hidden:
            data.setdefault(name, []).append(value)
        url = ORDERS if data["action"] == ["cancel"] else GOODS
        return self._text(self.client.post(url, {**data, "step": "do", **given}, follow=True))

    def press(self, verb: str) -> str:
        return self._text(self.client.post(f"{GOODS}sale/{self.sale.name}/{verb}/", follow=True))

    def trail(self) -> list[TrailEntry]:
        return list(self.sale.store.trail())

    def phone(self) -> SaleGoods:
        return SaleGoods.objects.get(sale=self.sale.name, goods_id="phone")

    def order(self, order_id: str) -> SaleOrder:
        return SaleOrder.objects.get(sale=self.sale.name, order_id=order_id)

    def _text(self, answer: Any) -> str:
        assert answer.status_code == 200, answer.status_code
        return answer.content.decode().replace("&gt;", ">").replace("&#x27;", "'")


RIGHTS = ("view_salegoods", "change_salegoods", "view_saleorder", "change_saleorder")


@pytest.fixture
def admin(redis_url: str) -> Iterator[Admin]:
    with project(redis_url), override_settings(ROOT_URLCONF=(path("admin/", site.urls),)):
        sale = get_sale()
        sale.store.put_goods(Goods("phone", 10))
        Syncer(sale).run_once()
        sale.start("phone")
        for number in range(3):
            assert sale.buy("phone", "ann", order_id=f"o-{number}").accepted
        yield Admin(sale, *RIGHTS)


# -- looking --------------------------------------------------------------------------------------------------------


def test_the_items_stand_below_the_sale_as_it_is_now(admin: Admin) -> None:
    admin.sale.store.put_goods(Goods("ghost", 1))
    page = admin.see()
    assert f"Sale {admin.sale.name}: SELLING" in page
    assert '<th scope="row">phone</th><td>10</td><td>3</td><td>7</td>' in page
    assert re.search(r"queued 3 \(oldest [\d.]+ s\),\s+claimed 0, dead 0, unpaid 0\.", page)
    assert "<strong>NO SYNCER</strong> nothing opens by the clock" in page
    assert "ghost" in page  # a row that Redis does not have yet


def test_without_redis_the_page_says_so_and_the_items_can_still_be_edited(admin: Admin) -> None:
    with override_settings(FLASHSALE_REDIS_URL="redis://127.0.0.1:1"):
        page = admin.see()
        assert "Nobody can tell how it is: " in page
        assert "field-goods_id" in page
        assert "Server Error" not in admin.act("start", admin.phone())
        changed = {"total": 12, "per_buyer": "", "opens_at": "", "closes_at": "", "hold": ""}
        admin.client.post(f"{GOODS}{admin.phone().pk}/change/", changed)
    assert admin.phone().total == 12


def test_a_sale_of_another_project_is_shown_and_not_steered(admin: Admin) -> None:
    other = SaleGoods.objects.create(sale="elsewhere", goods_id="phone", total=5)
    try:
        assert "there is no sale 'elsewhere' in FLASHSALE_SALES" in admin.act("start", other)
        page = admin.act("restock", other, step="look", units=1, reason="more")
        assert "there is no sale 'elsewhere'" in page
        admin.confirm(page, units=1, reason="more")
        other.refresh_from_db()
        assert other.total == 5
    finally:
        other.delete()


# -- items ----------------------------------------------------------------------------------------------------------


def test_an_item_is_stopped_after_a_question_and_started_at_once(admin: Admin) -> None:
    page = admin.act("stop", admin.phone())
    assert "phone  open -> shut, until: open phone" in page
    assert admin.sale.buy("phone", "bob").accepted, "nothing is done before the answer"
    assert "pause lets nobody buy" in admin.confirm(page, reason="a wrong price")
    assert admin.sale.buy("phone", "bob").outcome == "NOT_STARTED"
    assert "phone  shut -> open" in admin.act("start", admin.phone())
    assert admin.sale.buy("phone", "bob").accepted
    stopped, started = admin.trail()
    assert (stopped.command, stopped.actor, stopped.host) == ("stop", admin.user.username, socket.gethostname())
    assert (stopped.reason, stopped.after) == ("a wrong price", {"started": False})
    assert (started.command, started.before, started.after) == ("open", {"started": False}, {"started": True})


def test_a_restock_is_shown_before_it_is_done(admin: Admin) -> None:
    first = admin.act("restock", admin.phone())
    assert 'name="units"' in first
    shown = admin.act("restock", admin.phone(), step="look", units=5, reason="second delivery")
    assert "phone  total 10 -> 15 (+5, +50 %)" in shown
    assert "phone  free 7 -> 12, booked 3" in shown
    assert admin.phone().total == 10, "nothing is done before the answer"
    said = admin.confirm(shown, reason="second delivery")
    assert "phone now has 15 units for sale" in said
    assert (admin.phone().total, admin.sale.inventory.stock("phone").total) == (15, 15)
    (entry,) = admin.trail()
    assert (entry.command, entry.actor, entry.reason) == ("restock", admin.user.username, "second delivery")
    assert (entry.before, entry.after) == ({"total": 10, "booked": 3}, {"total": 15})


def test_a_restock_that_is_sent_twice_is_done_once(admin: Admin) -> None:
    shown = admin.act("restock", admin.phone(), step="look", units=-2, reason="broken ones")
    for _ in range(2):
        said = admin.confirm(shown, reason="broken ones")
    assert "was done before" in said
    assert admin.phone().total == 8


def test_a_restock_is_done_only_as_it_was_shown(admin: Admin) -> None:
    shown = admin.act("restock", admin.phone(), step="look", units=5, reason="second delivery")
    admin.sale.restock("phone", 1)
    assert "total is 11, not 10: nothing was changed" in admin.confirm(shown, reason="second delivery")
    assert admin.phone().total == 11


@pytest.mark.parametrize("given", [{"units": 5}, {"reason": "more"}, {"units": 0, "reason": "more"}], ids=str)
def test_a_restock_wants_units_and_a_reason(admin: Admin, given: dict[str, object]) -> None:
    page = admin.act("restock", admin.phone(), step="do", **given)
    assert "errorlist" in page
    assert (admin.phone().total, admin.trail()) == (10, [])


def test_the_form_of_an_item_leaves_its_line_in_the_trail(admin: Admin) -> None:
    changed = {"total": 12, "per_buyer": "2", "opens_at": "", "closes_at": "", "hold": ""}
    admin.client.post(f"{GOODS}{admin.phone().pk}/change/", changed)
    (entry,) = admin.trail()
    assert (entry.command, entry.actor, entry.arguments) == ("goods set", admin.user.username, {"goods_id": "phone"})
    assert (entry.before, entry.after) == ({"total": 10, "per_buyer": None}, {"total": 12, "per_buyer": 2})


# -- the sale -------------------------------------------------------------------------------------------------------


def test_a_button_pauses_the_sale_and_another_resumes_it(admin: Admin) -> None:
    assert f"sale {admin.sale.name}  open -> paused" in admin.press("pause")
    assert admin.sale.buy("phone", "bob").outcome == "PAUSED"
    assert "<strong>PAUSED</strong>" in admin.see()
    admin.press("resume")
    assert admin.sale.buy("phone", "bob").accepted
    assert [(entry.command, entry.actor) for entry in admin.trail()] == [
        ("pause", admin.user.username),
        ("resume", admin.user.username),
    ]


def test_a_link_pauses_nothing(admin: Admin) -> None:
    assert admin.client.get(f"{GOODS}sale/{admin.sale.name}/pause/").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin.user)
    assert strict.post(f"{GOODS}sale/{admin.sale.name}/pause/").status_code == 403
    assert admin.sale.buy("phone", "bob").accepted


# -- orders ---------------------------------------------------------------------------------------------------------


def test_orders_are_cancelled_for_a_reason_after_a_question(admin: Admin) -> None:
    admin.sale.store.save([Order(f"o-{number}", "phone", "ann", 1) for number in range(3)])
    rows = [admin.order("o-0"), admin.order("o-1")]
    page = admin.act("cancel", *rows, url=ORDERS)
    assert "o-0  PERSISTED -> CANCELLED" in page
    assert "This field is required" in admin.confirm(page, reason="")
    assert admin.trail() == []
    said = admin.confirm(page, reason="the buyer called")
    assert "o-0 is CANCELLED; o-1 is CANCELLED" in said
    assert [admin.order(f"o-{number}").state for number in range(3)] == ["CANCELLED", "CANCELLED", "PERSISTED"]
    assert admin.sale.inventory.stock("phone").booked == 1
    (entry,) = admin.trail()
    assert (entry.command, entry.reason) == ("orders cancel", "the buyer called")
    assert entry.after == {"o-0": OrderState.CANCELLED, "o-1": OrderState.CANCELLED}


# -- rights ---------------------------------------------------------------------------------------------------------


def test_who_may_only_look_steers_nothing(admin: Admin) -> None:
    admin.sale.store.save([Order("o-0", "phone", "ann", 1)])
    guest = Admin(admin.sale, "view_salegoods", "view_saleorder")
    page = guest.see()
    assert "SELLING" in page
    assert "Pause" not in page
    assert 'value="stop"' not in page
    for action in ("start", "stop", "restock"):
        guest.act(action, admin.phone(), step="do", units=5, reason="none")
    guest.act("cancel", admin.order("o-0"), url=ORDERS, step="do", reason="none")
    assert guest.client.post(f"{GOODS}sale/{admin.sale.name}/pause/").status_code == 403
    assert (admin.trail(), admin.order("o-0").state, admin.phone().total) == ([], "PERSISTED", 10)
    assert admin.sale.buy("phone", "bob").accepted


@pytest.mark.parametrize("atomic", [False, True])
def test_redis_follows_what_is_committed_also_where_each_request_is_a_transaction(admin: Admin, atomic: bool) -> None:
    from django.db import connections

    connections["default"].settings_dict["ATOMIC_REQUESTS"] = atomic
    seen: list[bool] = []
    bring = admin.sale._transitions._bring_or_log

    def watched(goods: Goods) -> int:
        seen.append(connections["default"].in_atomic_block)
        return bring(goods)

    admin.sale._transitions._bring_or_log = watched  # type: ignore[method-assign]
    try:
        page = admin.act("restock", admin.phone(), step="look", units=5, reason="more")
        admin.confirm(page, reason="more")
    finally:
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False
    assert seen == [False]
    assert admin.sale.inventory.stock("phone").total == 15
