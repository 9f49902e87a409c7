"""The admin's actions: each is a command of the operator, with its trail; what may do harm is shown first."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest
from django.template.response import TemplateResponse

from flashsale.contrib.django.program import call
from flashsale.model.checks import MAX_UNITS
from flashsale.ops.command import Called
from flashsale.ops.frame import DONE

PAGE = "flashsale/ask.html"
LOOK, DO = "look", "do"  # what the page's buttons ask for


class WhyOrNot(forms.Form):
    """A reason, if there is one."""

    reason = forms.CharField(required=False, max_length=1000, help_text="why, for the trail")


class Why(forms.Form):
    """A reason."""

    reason = forms.CharField(max_length=1000, help_text="why, for the trail")


class Units(Why):
    """Units, and a reason."""

    units = forms.IntegerField(
        min_value=-MAX_UNITS, max_value=MAX_UNITS, help_text="how many to add; with a minus, to take away"
    )
    field_order = ("units", "reason")

    def clean_units(self) -> int:
        """Refuses a change by nothing."""
        units: int = self.cleaned_data["units"]
        if not units:
            raise forms.ValidationError("Must not be 0.")
        return units


@dataclass(frozen=True)
class Target:
    """What one command is about.

    Args:
        sale: name of the sale.
        names: the item, or the orders; none: the sale itself.
    """

    sale: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{', '.join(self.names)} of {self.sale}" if self.names else self.sale


@dataclass(frozen=True)
class Question:
    """A command of which the admin first shows what it would change.

    Args:
        verb: the command.
        title: of the page.
        form: what is to be filled in.
    """

    verb: str
    title: str
    form: type[forms.Form]


STOP = Question("stop", "Stop items", WhyOrNot)
RESTOCK = Question("restock", "Restock items", Units)
CANCEL = Question("orders cancel", "Cancel orders", Why)


def ask(
    admin: ModelAdmin, request: HttpRequest, question: Question, targets: Sequence[Target]
) -> TemplateResponse | None:
    """Asks before a command, or runs it once it was confirmed; None: the list is shown again."""
    step = request.POST.get("step")
    form = question.form(request.POST) if step else question.form()
    wants_units = "units" in form.fields
    if wants_units and (step is None or not form.is_valid()):
        return _page(admin, request, question, targets, form, {})
    if step == DO and form.is_valid():
        for target in targets:
            tell(admin, request, str(target), _done(request, question, target, form))
        return None
    units = form.cleaned_data["units"] if wants_units else None
    shown = {target: _called(question, target, units, dry_run=True) for target in targets}
    if wants_units:
        form.fields["units"].widget = forms.HiddenInput()
    return _page(admin, request, question, targets, form, shown)


def _called(question: Question, target: Target, units: int | None, **options: Any) -> Called:
    words = target.names if units is None else (*target.names, f"{units:+}")
    return call(question.verb, *words, sale=target.sale, **options)


def _done(request: HttpRequest, question: Question, target: Target, form: forms.Form) -> Called:
    given: dict[str, Any] = {"as": actor(request), "reason": form.cleaned_data["reason"], "yes": True}
    units = form.cleaned_data.get("units")
    if units is not None:  # what was shown is what is done, and done once
        given["expect"] = f"total={request.POST.get(_seen(target), '')}"
        given["request_id"] = f"{request.POST.get('token', '')}-{target.names[0]}"
    return _called(question, target, units, **given)


def _seen(target: Target) -> str:
    """Returns the name of the hidden field that has the total which was shown."""
    return f"total-{target.sale}-{target.names[0]}"


def _page(
    admin: ModelAdmin,
    request: HttpRequest,
    question: Question,
    targets: Sequence[Target],
    form: forms.Form,
    shown: Mapping[Target, Called],
) -> TemplateResponse:
    seen = {_seen(target): called.outcome.data.get("before", {}).get("total") for target, called in shown.items()}
    context = {
        **admin.admin_site.each_context(request),
        "title": question.title,
        "opts": admin.model._meta,
        "media": admin.media,
        "form": form,
        "targets": targets,
        "shown": [(target, called.shown, called.outcome.data.get("error")) for target, called in shown.items()],
        "step": DO if shown else LOOK,
        "action": request.POST.get("action"),
        "across": request.POST.get("select_across", "0"),
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "checkbox": ACTION_CHECKBOX_NAME,
        "seen": {name: total for name, total in seen.items() if total is not None},
        "token": f"admin-{secrets.token_hex(8)}",
    }
    return TemplateResponse(request, PAGE, context)


# -- at once --------------------------------------------------------------------------------------------------------


def run(admin: ModelAdmin, request: HttpRequest, verb: str, target: Target) -> None:
    """Runs a command that asks nothing, and says how it went."""
    called = call(verb, *target.names, sale=target.sale, **{"as": actor(request)})
    tell(admin, request, str(target), called)


def tell(admin: ModelAdmin, request: HttpRequest, what: str, called: Called) -> None:
    """Tells the user how a command went."""
    error = called.outcome.data.get("error")
    said = "; ".join([*called.shown, *called.outcome.lines, *([error] if error else [])])
    level = messages.ERROR if error else messages.SUCCESS if called.outcome.code == DONE else messages.WARNING
    admin.message_user(request, f"{what}: {said}", level)


def actor(request: HttpRequest) -> str:
    """Returns who it is that the trail names."""
    name: str = request.user.get_username()
    return name


# -- looking --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Live:
    """What a sale is like at this moment.

    Args:
        sale: its name.
        error: why that cannot be told; empty: it can.
        state: in one word.
        goods: name, total, booked and free units of each item.
        counts: of orders, by where they are.
        oldest: seconds that the oldest order has waited; None: none waits.
        attention: what needs it.
    """

    sale: str
    error: str = ""
    state: str = ""
    goods: Sequence[tuple[str, int, int, int]] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    oldest: float | None = None
    attention: Sequence[Mapping[str, str]] = ()


def look(sale: str) -> Live:
    """Looks at a sale, as `status` does."""
    data = call("status", sale=sale).outcome.data
    if "look" not in data:
        return Live(sale, str(data["error"]))
    seen = data["look"]
    goods = [
        (each["goods_id"], each["total"], each["booked"], each["total"] - each["booked"]) for each in seen["goods"]
    ]
    counts = {name: seen[name] for name in ("queued", "claimed", "dead", "unpaid")}
    oldest = None if seen["oldest"] is None else max(0.0, seen["time"] - seen["oldest"])
    return Live(sale, "", data["state"], goods, counts, oldest, data["attention"])
