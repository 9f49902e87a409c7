"""The back office. The page of each item of the sale is flashsale's own."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from examples.own_tables.django_shop.flash import decide
from examples.own_tables.django_shop.models import Order, OrderLine, Price, Product, Voucher, take

admin.site.register([Product, Price, Voucher])


def cancel(number: str) -> None:
    """Cancels an order of either channel, in the transaction of the request."""
    ours = Order.objects.get(pk=number)
    if ours.is_flash:  # first the sale, then rows of the shop's: so do the sale's workers
        decide(number, "cancel")
    elif Order.objects.filter(pk=number).exclude(state=Order.State.CANCELLED).update(state=Order.State.CANCELLED):
        for line in ours.lines.order_by("product"):
            take(line.product_id, -line.quantity)


class Lines(admin.TabularInline):
    model = OrderLine
    can_delete = False
    extra = 0
    readonly_fields = ("product", "quantity", "cents", "returned")


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ("number", "customer", "state", "cents")
    list_filter = ("state", "is_flash")
    search_fields = ("number", "customer")
    readonly_fields = ("number", "customer", "is_flash", "cents")
    inlines = (Lines,)
    actions = ("cancel_selected",)

    @admin.action(description="Cancel the selected orders")
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        for number in queryset.order_by("number").values_list("number", flat=True):
            cancel(number)

    def save_model(self, request: HttpRequest, obj: Order, form: Any, change: bool) -> None:
        """Staff may change the state only. For an order of the sale the sale decides, and the hook writes the state."""
        if obj.state == Order.State.CANCELLED:
            cancel(obj.number)
        elif obj.is_flash and obj.state == Order.State.PAID:
            decide(obj.number, "confirm")
        elif not obj.is_flash:
            Order.objects.filter(pk=obj.pk).exclude(state=Order.State.CANCELLED).update(state=obj.state)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
