"""The checks of all arguments that come from outside. Pure.

Each returns what it was given, or raises `InvalidRequest` with the name of the argument and the rule.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

from flashsale.errors import InvalidRequest

MAX_QUANTITY: Final = 1_000_000
MAX_UNITS: Final = 10**15 - 1  # 15 digits: exact in a Lua double, and printed in full by %.0f
MAX_BODY: Final = 64 * 1024  # bytes of one order as JSON
MAX_DEPTH: Final = 32  # nested objects or arrays in one order
MAX_TIME: Final = 10**11  # epoch seconds; anything above is milliseconds by mistake

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ID = re.compile(r"[!-~]{1,128}")
_PLAIN = re.compile(r"[!#-\[\]-~]{1,128} [A-Za-z0-9_.-]{1,64} [!#-\[\]-~]{1,128}")  # no quote and no backslash


def check_sale(sale: object) -> str:
    """Returns `sale` if it is 1-64 of `A-Z a-z 0-9 _ . -`, else raises InvalidRequest."""
    return _checked("sale", sale, _NAME, "1-64 of A-Z a-z 0-9 _ . -")


def check_goods_id(goods_id: object) -> str:
    """Returns `goods_id` if it is 1-64 of `A-Z a-z 0-9 _ . -`, else raises InvalidRequest."""
    return _checked("goods_id", goods_id, _NAME, "1-64 of A-Z a-z 0-9 _ . -; map a SKU with other characters to one")


def check_id(name: str, value: object) -> str:
    """Returns a buyer or order id if it is 1-128 printable ASCII characters without spaces."""
    if type(value) is str and _ID.fullmatch(value):
        return value
    more = "; flashsale.contrib.buyer_id makes one of a number" if type(value) is int else ""
    raise InvalidRequest(name, f"must be a string of 1-128 printable ASCII characters without spaces{more}")


def is_goods_id(value: str) -> bool:
    """Returns whether `check_goods_id` would accept it."""
    return _NAME.fullmatch(value) is not None


def is_id(value: str) -> bool:
    """Returns whether `check_id` would accept it."""
    return _ID.fullmatch(value) is not None


def are_plain(order_id: object, goods_id: object, buyer_id: object, quantity: object) -> bool:
    """Returns whether all are valid and the ids need no escaping in JSON: one match, because every purchase pays it."""
    return (
        type(order_id) is str
        and type(goods_id) is str
        and type(buyer_id) is str
        and type(quantity) is int
        and 1 <= quantity <= MAX_QUANTITY
        and _PLAIN.fullmatch(f"{order_id} {goods_id} {buyer_id}") is not None
    )


def _checked(name: str, value: object, pattern: re.Pattern[str], rule: str) -> str:
    if type(value) is not str or pattern.fullmatch(value) is None:
        raise InvalidRequest(name, f"must be a string of {rule}")
    return value


def check_pairs(name: str, value: Any) -> list[tuple[Any, Any]]:
    """Returns `value` as a list if it can be iterated and holds pairs; what is in them is not checked."""
    try:
        return [(first, second) for first, second in value]
    except (TypeError, ValueError) as error:
        raise InvalidRequest(name, "must be pairs of goods id and quantity") from error


def check_quantity(quantity: object) -> int:
    """Returns `quantity` if it is an int, not a bool, in 1..1,000,000."""
    return check_int("quantity", quantity, 1, MAX_QUANTITY)


def check_int(name: str, value: object, low: int, high: int = MAX_UNITS) -> int:
    """Returns `value` if it is an int, not a bool, in low..high."""
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(name, f"must be an int in {low}..{high}")
    return value


def check_seconds(name: str, value: object, *, low: float = 0.0, high: float = MAX_TIME) -> float:
    """Returns `value` as float if it is a finite number (not a bool) in low..high."""
    if type(value) not in {int, float} or not low <= value <= high:  # type: ignore[operator]  # NaN is in no range
        raise InvalidRequest(name, f"must be seconds in {low:g}..{high:g}")
    return float(value)  # type: ignore[arg-type]


def check_optional_seconds(name: str, value: object) -> float | None:
    """Like `check_seconds`, and None stays None."""
    return None if value is None else check_seconds(name, value)


def new_order_id() -> str:
    """Returns an order id that nobody can guess: 128 random bits from the operating system."""
    while True:
        try:
            return _ORDER_IDS.pop()
        except IndexError:  # many at once: the system call costs more than the rest of a refusal
            _ORDER_IDS.extend(os.urandom(16 * 128).hex(" ", 16).split())


_ORDER_IDS: Final[list[str]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ORDER_IDS.clear)  # parent and child must not make the same ids


def check_policy(per_buyer: object, opens_at: float | None, closes_at: float | None, hold: float | None = None) -> None:
    """Raises InvalidRequest unless cap, window (epoch seconds) and hold (seconds) are valid together."""
    if per_buyer is not None:
        check_int("per_buyer", per_buyer, 1)
    check_optional_seconds("opens_at", opens_at)
    check_optional_seconds("closes_at", closes_at)
    if hold is not None:
        check_seconds("hold", hold, low=0.001)
    if opens_at is not None and closes_at is not None and closes_at <= opens_at:
        raise InvalidRequest("closes_at", "must be after opens_at")


def dump_json(value: Any) -> str:
    """Returns compact ASCII JSON; raises InvalidRequest for what JSON cannot express."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest("data", f"not JSON: {type(error).__name__}") from error


def check_body(text: str) -> None:
    """Raises InvalidRequest for a body past 64 KiB or nested past 32 levels; before it is parsed."""
    if len(text) > MAX_BODY:
        raise InvalidRequest("data", f"the order is longer than {MAX_BODY} bytes")
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub("", text).translate(_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace("[]", "")  # the innermost ones: a level less
        if not brackets:
            return
        if "[" * (MAX_DEPTH + 1) in brackets:
            break
    raise InvalidRequest("data", f"the order is nested deeper than {MAX_DEPTH}, or its brackets do not match")


# The closing quote is optional: a string without end would be searched anew from each of its characters.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKETS: Final = dict.fromkeys(range(128)) | {ord(each): "[]"[at % 2] for at, each in enumerate("[]{}")}
