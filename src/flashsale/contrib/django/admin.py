"""Admin pages: items are edited through the store, and steered by the operator's commands; the trail is viewed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.timezone import localtime

from flashsale import FlashSaleError, InvalidRequest
from flashsale._rules.rows import purged
from flashsale._sync.store import noting
from flashsale.contrib.django import database, get_sale, sale_names, steering
from flashsale.contrib.django.models import SaleGoods, SaleOrder, SaleTrail
from flashsale.contrib.django.steering import Target
from flashsale.contrib.django.store import DjangoStore
from flashsale.ops import trail


class OfTheSale(admin.ModelAdmin):
    """Shows what the database of `FLASHSALE_DATABASE` holds, of whichever sale."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Returns the rows."""
        rows: QuerySet[Any] = super().get_queryset(request).using(database())
        return rows


class ToView(OfTheSale):
    """Shows rows that nobody adds, changes or deletes here; an action only needs the permission to view."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """False for everybody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False for everybody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False for everybody: a row is a record."""
        return False


class GoodsForm(ModelForm):
    """Refuses an item of a sale that was purged."""

    def clean(self) -> dict[str, Any]:
        """Checks what the fields alone do not tell; Django calls it."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        sale = given.get("sale", self.instance.sale)
        with suppress(InvalidRequest):  # not a name of a sale: the model says so
            if DjangoStore(sale, using=database()).purged():
                raise ValidationError(str(purged(sale)))
        return given


def _not_atomic(urls: list[Any]) -> list[Any]:
    """Takes pages out of `ATOMIC_REQUESTS`: what an action writes is committed before Redis follows it."""
    for each in urls:
        transaction.non_atomic_requests(using=database())(each.callback)
    return urls


def _items(queryset: QuerySet[Any]) -> list[Target]:
    return [Target(sale, (goods_id,)) for sale, goods_id in queryset.values_list("sale", "goods_id")]


@admin.register(SaleGoods)
class GoodsAdmin(OfTheSale):
    """The policy of each item; the syncer brings it to Redis. What is done here leaves its line in the trail."""

    form = GoodsForm
    list_display = ("goods_id", "sale", "total", "granted", "booked", "per_buyer", "version", "loaded")
    list_filter = ("sale",)
    readonly_fields = ("granted", "booked", "version", "loaded")
    actions = ("start", "stop", "restock")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Writes the whole policy as `DjangoStore.put_goods` does: the version grows, and what is empty is removed.

        By the store of the sale where the settings have one, for it has the hooks.
        """
        store: Any = get_sale(obj.sale).store if obj.sale in sale_names() else DjangoStore(obj.sale, using=database())
        known = self.get_queryset(request).filter(sale=obj.sale, goods_id=obj.goods_id).first()
        goods, before = obj.to_goods(), asdict(known.to_goods()) if known else {}
        changed = {name: value for name, value in asdict(goods).items() if before.get(name) != value}
        before = {name: before.get(name) for name in changed}
        with noting(
            store, trail.entry("goods set", steering.actor(request), {"goods_id": obj.goods_id}, before, None)
        ) as note:
            store.put_goods(goods, replace=True)
            note.finish(changed)
        obj.pk = self.get_queryset(request).get(sale=obj.sale, goods_id=obj.goods_id).pk

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Shows the page again when the item was not written: most likely a hook of the shop's refused the units."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except FlashSaleError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Makes sale and id of a row that exists read-only."""
        return (*self.readonly_fields, *(("sale", "goods_id") if obj else ()))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False for everybody: orders refer to the item."""
        return False

    # -- actions ----------------------------------------------------------------------------------------------------

    @admin.action(description="Start the selected items now", permissions=["change"])
    def start(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Opens items, also before their time."""
        for target in _items(queryset):
            steering.run(self, request, "open", target)

    @admin.action(description="Stop the selected items", permissions=["change"])
    def stop(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Shuts the gates of items, after a question."""
        return steering.ask(self, request, steering.STOP, _items(queryset))

    @admin.action(description="Restock the selected items", permissions=["change"])
    def restock(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Adds units to items, or takes some away, once it was shown what that does."""
        return steering.ask(self, request, steering.RESTOCK, _items(queryset))

    # -- the sales --------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        """Adds the buttons of a whole sale."""
        steer = self.admin_site.admin_view(self.steer)
        own = [
            path(f"sale/<str:sale>/{verb}/", steer, {"verb": verb}, name=f"flashsale_sale_{verb}")
            for verb in ("pause", "resume")
        ]
        return _not_atomic([*own, *super().get_urls()])

    def steer(self, request: HttpRequest, sale: str, verb: str) -> Any:
        """Pauses or resumes a sale."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_change_permission(request):
            raise PermissionDenied
        steering.run(self, request, verb, Target(sale))
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:flashsale_salegoods_changelist"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Shows the sales as they are now above their items."""
        shown = sale_names() if request.method == "GET" else ()
        live = [steering.look(name) for name in shown if request.GET.get("sale", name) == name]
        more = {"live": live, "may_steer": self.has_change_permission(request)}
        return super().changelist_view(request, {**more, **(extra_context or {})})


@admin.register(SaleOrder)
class OrderAdmin(ToView):
    """Orders, to view and to cancel."""

    list_display = ("order_id", "goods_id", "buyer_id", "quantity", "state", "reason")
    list_filter = ("sale", "state", "goods_id")
    search_fields = ("order_id", "buyer_id")
    actions = ("cancel",)

    def get_urls(self) -> list[Any]:
        """Returns the pages."""
        return _not_atomic(super().get_urls())

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Returns whether the user may change orders, which here is to cancel them."""
        allowed: bool = request.user.has_perm(f"flashsale.{get_permission_codename('change', self.opts)}")
        return allowed

    @admin.action(description="Cancel the selected orders", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Cancels as the shop does, after a question: the database decides, then the units return, once."""
        ids: dict[str, list[str]] = {}
        for sale, order_id in queryset.values_list("sale", "order_id"):
            ids.setdefault(sale, []).append(order_id)
        targets = [Target(sale, tuple(sorted(each))) for sale, each in sorted(ids.items())]
        return steering.ask(self, request, steering.CANCEL, targets)


@admin.register(SaleTrail)
class TrailAdmin(ToView):
    """Who did what to a sale, to view."""

    list_display = ("entry_id", "sale", "time", "actor", "command", "arguments", "after", "reason")
    list_filter = ("sale",)
    search_fields = ("actor", "command", "arguments")
    ordering = ("-entry_id",)

    @admin.display(ordering="at")
    def time(self, entry: SaleTrail) -> datetime:
        """Returns when it was, in the zone of the project."""
        at: datetime = localtime(datetime.fromtimestamp(entry.at, UTC))
        return at
