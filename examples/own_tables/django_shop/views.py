"""The shop in Django, under ATOMIC_REQUESTS: each view is one transaction, but for those that buy in the flash sale.

Both channels sell the same stock: `POST /regular/<sku>` what the product's row has, `POST /flash/<sku>` and
`POST /basket` what the back office has lent to the sale.
"""

from __future__ import annotations

import json
from uuid import uuid4

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from examples.own_tables.django_shop.flash import USED_UP, decide, offer
from examples.own_tables.django_shop.models import Order, OrderLine, Payment, Price, take
from flashsale import NotPersisted, OrderState
from flashsale.contrib.django import answer, get_sale


def customer(request: HttpRequest) -> str:
    """Stands in for the shop's login: `buyer_id(request.user.pk)`, behind `login_required`."""
    return request.headers["X-Customer"]


@csrf_exempt  # so that a script may post; a page has a token
@require_POST
def regular(request: HttpRequest, sku: str) -> HttpResponse:
    """The regular channel, as it was: it sells one unit, paid by invoice."""
    price = get_object_or_404(Price, pk=sku)
    if not take(sku, 1):
        return JsonResponse({"error": "sold out"}, status=409)
    number, paid = f"R{uuid4().hex}", Order.State.PAID
    new = Order.objects.create(number=number, customer=customer(request), state=paid, cents=price.cents)
    OrderLine.objects.create(order=new, product_id=sku, quantity=1, cents=price.cents)
    return JsonResponse({"number": number}, status=201)


@csrf_exempt
@require_POST
@transaction.non_atomic_requests  # Redis does not roll back
def flash(request: HttpRequest, sku: str) -> HttpResponse:
    """Buys one unit. The page makes the key, once: so a double click is one order."""
    number, code = f"F{customer(request)}.{request.POST['key']}", request.POST.get("voucher", "")
    data = offer(number, [sku], code)
    if code and not data["voucher"]:
        return JsonResponse({"error": USED_UP}, status=409)
    receipt = get_sale().buy(sku, customer(request), order_id=number, data=data)
    return answer(receipt, location=reverse("order", args=[number]))


@csrf_exempt
@require_POST
@transaction.non_atomic_requests
def basket(request: HttpRequest) -> HttpResponse:
    """Buys one unit of each, all or none."""
    number, code = f"B{customer(request)}.{request.POST['key']}", request.POST.get("voucher", "")
    skus = request.POST.getlist("sku")
    data = offer(number, skus, code)
    if code and not data["voucher"]:
        return JsonResponse({"error": USED_UP}, status=409)
    receipt = get_sale().buy_basket(customer(request), [(sku, 1) for sku in skus], basket_id=number, data=data)
    return JsonResponse({"outcome": receipt.outcome, "number": number}, status=202 if receipt.accepted else 409)


@require_GET
def order(request: HttpRequest, number: str) -> HttpResponse:
    """The buyer's order: the sale's state until the shop has one, and why there never will be one."""
    if number.partition(".")[0][1:] != customer(request):
        raise Http404
    ours = Order.objects.filter(pk=number).first()
    if ours is not None:
        return JsonResponse({"state": ours.state, "cents": ours.cents})
    first = f"{number}#1" if number.startswith("B") else number
    state = get_sale().status(first)
    if state is None:
        raise Http404
    reason = [row.reason for row in get_sale().store.find([first])] if state is OrderState.REJECTED else []
    return JsonResponse({"state": state, "reason": reason[0] if reason else None})


@csrf_exempt  # a real bank signs what it sends
@require_POST
def payment(request: HttpRequest) -> HttpResponse:
    """The bank's webhook: answered 200, the money has its place; answered anything else, the bank sends it again.

    It may come early, late, twice, and twice at once. Negative cents went back to the buyer. `refunds_due` finds what
    must go back: it is not written down here, where it might be wrong later.
    """
    event = json.loads(request.body)
    cents, number = event["cents"], event["number"]
    try:
        if cents < 0 or decide(number, "confirm") != {OrderState.CONFIRMED}:
            decide(number, "cancel")
        Payment.objects.get_or_create(event=event["id"], defaults={"number": number, "cents": cents})
    except NotPersisted:  # the worker has not saved the order yet; of a basket, perhaps one of its orders
        transaction.set_rollback(True)  # who answers without raising commits
        return JsonResponse({"error": "again, please"}, status=503, headers={"Retry-After": "1"})
    return JsonResponse({"number": number})
