"""What the three shops share: the item, the words for the buyer, and who owns an order."""

from __future__ import annotations

import re
import secrets
from typing import Any

from flashsale import InvalidRequest, OrderState
from flashsale.model import RELEASED

GOODS_ID = "phone"
_KEY = re.compile(r"[0-9a-f]{32}")

SAID = {
    OrderState.QUEUED: "Your order is placed. It is being saved.",
    OrderState.PERSISTED: "The phone is yours: please pay.",
    OrderState.CONFIRMED: "Paid. Thank you!",
    OrderState.CANCELLED: "This order is cancelled. The phone is on sale again.",
    OrderState.EXPIRED: "This order was not paid in time. The phone is on sale again.",
    OrderState.REJECTED: "We are sorry: the last phone went to somebody else. You pay nothing.",
    OrderState.DEAD: "We are looking after this order by hand. You need do nothing.",
}


def order_id(buyer_id: str, key: str) -> str:
    """Returns the order id of a buyer's request: it begins with the buyer. A page without JavaScript sends no key."""
    if key and _KEY.fullmatch(key) is None:
        raise InvalidRequest("key", "must be 32 hexadecimal digits")
    return f"{buyer_id}.{key or secrets.token_hex(16)}"


def owns(buyer_id: str | None, order_id: str) -> bool:
    """True when the order is this buyer's: asked before any order is shown, paid or cancelled."""
    return buyer_id is not None and order_id.partition(".")[0] == buyer_id


def describe(state: OrderState) -> dict[str, Any]:
    """Returns what the order page shows."""
    return {
        "state": state,
        "said": SAID[state],
        "may_pay": state is OrderState.PERSISTED,
        "may_cancel": state in {OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED},
        "released": state in RELEASED,
    }
