"""Admin pages: items are edited through the store, which counts their versions; orders and the trail are viewed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponseRedirect
from django.utils.timezone import localtime

from flashsale import FlashSaleError, InvalidRequest
from flashsale._rules.rows import purged
from flashsale.contrib.django import database, get_sale, sale_names
from flashsale.contrib.django.models import SaleGoods, SaleOrder, SaleTrail
from flashsale.contrib.django.store import DjangoStore


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


@admin.register(SaleGoods)
class GoodsAdmin(OfTheSale):
    """The policy of each item; the syncer brings it to Redis."""

    form = GoodsForm
    list_display = ("goods_id", "sale", "total", "granted", "booked", "per_buyer", "version", "loaded")
    list_filter = ("sale",)
    readonly_fields = ("granted", "booked", "version", "loaded")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Writes the whole policy as `DjangoStore.put_goods` does: the version grows, and what is empty is removed.

        By the store of the sale where the settings have one, for it has the hooks.
        """
        store: Any = get_sale(obj.sale).store if obj.sale in sale_names() else DjangoStore(obj.sale, using=database())
        store.put_goods(obj.to_goods(), replace=True)
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


@admin.register(SaleOrder)
class OrderAdmin(ToView):
    """Orders, to view and to cancel."""

    list_display = ("order_id", "goods_id", "buyer_id", "quantity", "state", "reason")
    list_filter = ("sale", "state", "goods_id")
    search_fields = ("order_id", "buyer_id")
    actions = ("cancel",)

    @admin.action(description="Cancel the selected orders")
    def cancel(self, request: HttpRequest, queryset: Any) -> None:
        """Cancels as the shop does: the database decides, then the units return, once."""
        for order in queryset:
            if order.sale not in sale_names():
                self.message_user(request, f"{order} belongs to a sale that the settings do not have", messages.ERROR)
                continue
            try:
                self.message_user(request, f"{order}: {get_sale(order.sale).cancel(order.order_id)}")
            except FlashSaleError as error:
                self.message_user(request, f"{order}: {error}", messages.ERROR)


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
