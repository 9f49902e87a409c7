"""HTTP answers for any framework: status codes, problem bodies (RFC 9457), cache headers. Pure.

The article's first layer: browser and CDN keep the page, and only small dynamic calls reach the shop. Three kinds of
answer follow: the page (`page_headers`), the status fragment (`fragment`), and the buy call (`answer`, `refuse`), which
must not be cached.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from flashsale.errors import (
    CorruptState,
    FlashSaleError,
    InvalidRequest,
    InvalidTicket,
    NotExecuted,
    NotPersisted,
    OrderConflict,
    OutcomeUnknown,
    Overloaded,
    StoreError,
    UnknownGoods,
)
from flashsale.model import Admission, GateState, OrderState, Outcome, Receipt

PROBLEMS: Final = "/problems/"  # where the problem types live, unless the host says otherwise


class Reply(NamedTuple):
    """A whole HTTP answer; each framework makes its own response of it.

    Args:
        status: the status code.
        headers: by name, `Content-Type` and `Cache-Control` among them.
        body: JSON, as bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class _Kind(NamedTuple):
    status: int
    slug: str
    title: str
    retry_after: int | None = None  # seconds


_OUTCOMES: Final[Mapping[Outcome, _Kind]] = {
    Outcome.NOT_STARTED: _Kind(403, "not-started", "The sale has not started yet."),
    Outcome.ENDED: _Kind(410, "ended", "The sale has ended."),
    Outcome.PAUSED: _Kind(503, "paused", "The sale is paused.", 5),
    Outcome.SOLD_OUT: _Kind(409, "sold-out", "Sold out."),
    Outcome.REJECTED: _Kind(409, "rejected", "The shop did not take this order."),
    Outcome.LIMIT_REACHED: _Kind(429, "limit-reached", "This buyer has as many units as one buyer may have."),
}
# The first class that fits decides: subclasses come first.
_ERRORS: Final[Mapping[type[FlashSaleError], _Kind]] = {
    InvalidTicket: _Kind(403, "invalid-ticket", "The ticket is not valid for this purchase."),
    InvalidRequest: _Kind(400, "invalid-request", "The request breaks the rules of the call."),
    UnknownGoods: _Kind(404, "unknown-goods", "This item is not in the sale."),
    OrderConflict: _Kind(409, "order-conflict", "This order id is taken by another order."),
    NotPersisted: _Kind(409, "not-persisted", "The order is not in the database yet.", 1),
    Overloaded: _Kind(503, "overloaded", "Too many buyers are waiting; nothing has happened.", 1),
    NotExecuted: _Kind(503, "unavailable", "The sale cannot be reached; nothing has happened.", 1),
    OutcomeUnknown: _Kind(503, "outcome-unknown", "No answer came; ask again with the same order id.", 1),
    StoreError: _Kind(503, "unavailable", "The sale cannot be reached.", 5),
    CorruptState: _Kind(503, "unavailable", "The sale cannot be reached.", 5),
    FlashSaleError: _Kind(500, "misconfigured", "The shop is not set up for this call."),
}


def status_code(answer: Outcome | FlashSaleError) -> int:
    """Returns the HTTP status of an outcome or an error.

    >>> status_code(Outcome.SOLD_OUT)
    409
    """
    if answer in {Outcome.ACCEPTED, Outcome.UNCERTAIN}:
        return 202
    return 200 if answer == Outcome.ADMITTED else _kind(answer).status


def answer(receipt: Receipt, *, location: str, opens_in: float | None = None, problems: str = PROBLEMS) -> Reply:
    """Returns the answer to a purchase: 202 with a `Location`, or a problem when it was refused.

    Args:
        receipt: what `buy` returned. UNCERTAIN is answered 202 too: the units are booked.
        location: URL of the order's status.
        opens_in: seconds until the opening, for a receipt that says NOT_STARTED.
        problems: where the host documents the problem types.
    """
    if receipt.outcome not in {Outcome.ACCEPTED, Outcome.UNCERTAIN}:
        return _refusal(receipt.outcome, receipt.remaining, opens_in, problems)
    body = {
        "outcome": receipt.outcome,
        "order_id": receipt.order_id,
        "goods_id": receipt.goods_id,
        "quantity": receipt.quantity,
        "state": receipt.state,
        "replayed": receipt.replayed,
    }
    return _json(202, body, "no-store", {"Location": location})


def admit(admission: Admission, *, opens_in: float | None = None, problems: str = PROBLEMS) -> Reply:
    """Returns the answer to `enter`: 200 with a ticket and its order id, or a problem when it was refused.

    Args:
        admission: what `FlashSale.enter` returned.
        opens_in: seconds until the opening, for an admission that says NOT_STARTED.
        problems: where the host documents the problem types.
    """
    if not admission.admitted:
        return _refusal(admission.outcome, admission.remaining, opens_in, problems)
    body = {"outcome": admission.outcome, "order_id": admission.order_id, "ticket": admission.ticket}
    return _json(200, body, "no-store")


def refuse(error: FlashSaleError, *, problems: str = PROBLEMS) -> Reply:
    """Returns the answer to a call that raised an error.

    The body names the field of an invalid request and the order id to ask again with, and nothing else of the error.
    """
    members: dict[str, Any] = {}
    if isinstance(error, InvalidRequest):
        members = {"field": error.field, "detail": f"{error.field}: {error.reason}"}
    order_id = getattr(error, "order_id", None)
    if order_id is not None:
        members["order_id"] = order_id
    return _problem(_kind(error), problems, **members)


def not_loaded(total: int, *, problems: str = PROBLEMS) -> Reply:
    """Returns the answer about an item that the database has and Redis does not have yet: not started."""
    return _refusal(Outcome.NOT_STARTED, total, 5.0, problems)


def order_status(order_id: str, state: OrderState | None, *, problems: str = PROBLEMS) -> Reply:
    """Returns the answer to `status`, `cancel` and `confirm`; 404 for an unknown order."""
    if state is None:
        return _problem(_Kind(404, "unknown-order", "There is no such order."), problems)
    return _json(200, {"order_id": order_id, "state": state}, "no-store")


def fragment(state: GateState) -> Reply:
    """Returns the status fragment of one item: small, the same for everybody, cached by the CDN for a second."""
    body = {
        "state": state.outcome,
        "remaining": state.remaining,
        "may_return": state.may_return,
        "now": round(state.now, 3),
        "opens_at": state.opens_at,
        "closes_at": state.closes_at,
    }
    return _json(200, body, "public, max-age=0, s-maxage=1")


def page_headers(
    page: bytes,
    *,
    now: float,
    opens_at: float | None = None,
    closes_at: float | None = None,
    max_age: int = 60,
    s_maxage: int = 300,
    stale_while_revalidate: int = 60,
) -> dict[str, str]:
    """Returns the headers of the product page, which is the same for everybody, so that browsers and the CDN cache it.

    No cache serves it past the opening or the closing: the time until then bounds all three lifetimes.

    Args:
        page: the body.
        now: epoch seconds.
        opens_at: of the sale, epoch seconds, or None.
        closes_at: likewise.
        max_age: seconds in a browser.
        s_maxage: seconds at the CDN.
        stale_while_revalidate: seconds for which either may still serve it while it fetches a new one.

    >>> page_headers(b"<h1>Phone</h1>", now=1000.0, opens_at=1100.0)["Cache-Control"]
    'public, max-age=60, s-maxage=100, stale-while-revalidate=0'
    """
    ahead = [at - now for at in (opens_at, closes_at) if at is not None and at > now]
    left = math.floor(min(ahead, default=math.inf)) if ahead else max_age + s_maxage + stale_while_revalidate
    max_age, s_maxage = min(max_age, left), min(s_maxage, left)
    stale = max(0, min(stale_while_revalidate, left - max(max_age, s_maxage)))
    return {
        "Cache-Control": f"public, max-age={max_age}, s-maxage={s_maxage}, stale-while-revalidate={stale}",
        "ETag": f'"{hashlib.sha256(page).hexdigest()[:32]}"',
    }


def not_modified(if_none_match: str | None, headers: Mapping[str, str]) -> bool:
    """True when the client's copy is still good: answer 304, with `headers` and without a body (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or headers["ETag"] in tags


def is_shared(cache_control: str | None) -> bool:
    """True when a shared cache may keep an answer with this `Cache-Control`: then it must carry no cookie.

    A cookie in it would be given to every visitor, and a visitor with somebody else's session has their orders.

    >>> is_shared("public, max-age=60"), is_shared("private, max-age=60"), is_shared(None)
    (True, False, False)
    """
    parts = [part.strip().lower().partition("=") for part in (cache_control or "").split(",")]
    directives = {name: value.strip('"') for name, _, value in parts}
    if directives.keys() & {"private", "no-store"}:
        return False
    return "public" in directives or any(directives.get(name, "0") != "0" for name in ("s-maxage", "max-age"))


def _refusal(outcome: Outcome, remaining: int, opens_in: float | None, problems: str) -> Reply:
    members: dict[str, Any] = {"remaining": remaining}
    if outcome is Outcome.SOLD_OUT and remaining > 0:
        members["detail"] = "Fewer units are left than were asked for."
    return _problem(_kind(outcome), problems, opens_in=opens_in, **members)


def _kind(answer: Outcome | FlashSaleError) -> _Kind:
    if isinstance(answer, Outcome):
        return _OUTCOMES[answer]
    return next(kind for error, kind in _ERRORS.items() if isinstance(answer, error))


def _problem(kind: _Kind, problems: str, *, opens_in: float | None = None, **members: Any) -> Reply:
    body = {"type": problems + kind.slug, "title": kind.title, "status": kind.status, **members}
    retry_after = kind.retry_after
    if opens_in is not None and kind.slug == "not-started":
        retry_after = max(1, math.ceil(opens_in))
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return _json(kind.status, body, "no-store", headers, "application/problem+json")


def _json(
    status: int,
    body: Mapping[str, Any],
    cache: str,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> Reply:
    text = json.dumps(body, separators=(",", ":"))
    return Reply(status, {"Content-Type": content_type, "Cache-Control": cache, **(headers or {})}, text.encode())
