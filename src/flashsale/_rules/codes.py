"""Turns the codes of scripts (`flashsale.lua.Code`) into outcomes and errors, and values into arguments. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from flashsale.errors import CorruptState, FlashSaleError, NotExecuted, OutcomeUnknown, UnknownGoods
from flashsale.lua import Code
from flashsale.model import Outcome

_SECONDS: Final = re.compile(rb"[0-9]+\.?[0-9]*")  # as `seconds` in lua/include/clock.lua
REFUSALS: Final[Mapping[int, Outcome]] = {
    Code.REFUSED: Outcome.SOLD_OUT,
    Code.NOT_STARTED: Outcome.NOT_STARTED,
    Code.ENDED: Outcome.ENDED,
    Code.PAUSED: Outcome.PAUSED,
    Code.LIMIT_REACHED: Outcome.LIMIT_REACHED,
}


def goods_error(code: int, sale: str, goods_id: str) -> FlashSaleError:
    """Returns the error for a script's code about one item."""
    if code == Code.UNKNOWN:
        return UnknownGoods("unknown goods", sale=sale, goods_id=goods_id)
    return CorruptState("a value in Redis is not what flashsale writes", sale=sale, goods_id=goods_id)


def basket_codes(codes: Sequence[int]) -> Sequence[int]:
    """Returns the codes of a basket as its orders are answered: those not tried fail for what stood in the way.

    >>> [int(code) for code in basket_codes([Code.NOT_TOGETHER, Code.REFUSED])]
    [0, 0]
    """
    if Code.REPLAYED in codes and set(codes) != {Code.REPLAYED}:
        return [Code.CONFLICT] * len(codes)  # a basket that was placed before had other orders
    blocker = next((code for code in codes if code in REFUSALS), Code.NOT_TOGETHER)
    return [blocker if code == Code.NOT_TOGETHER else code for code in codes]


@contextmanager
def about(order_id: str) -> Iterator[None]:
    """Puts the order's id on an error that asks to try again."""
    try:
        yield
    except (NotExecuted, OutcomeUnknown) as error:
        set_order_id(error, order_id)
        raise


def set_order_id(error: NotExecuted | OutcomeUnknown, order_id: str, *, by_caller: bool = True) -> None:
    """Puts the order's id on an error; the same call may be made again where the caller has named the order."""
    error.order_id = order_id
    if by_caller and isinstance(error, OutcomeUnknown):
        error.retry_safe = True


def unknown(what: str, error: FlashSaleError, order_id: str | None = None) -> OutcomeUnknown:
    """Returns the error for a call that failed when a part of it was done already; asking again finishes it."""
    found = OutcomeUnknown(f"{what}: {type(error).__name__}", order_id=order_id)
    found.retry_safe = True
    return found


def fail(code: int, sale: str, goods_id: str) -> NoReturn:
    """Raises the error for a script's code about one item."""
    raise goods_error(code, sale, goods_id)


def number(text: bytes | None) -> int | None:
    """Returns a canonical integer of at most 15 digits, else None."""
    if text is None or not text.isdigit() or len(text) > 15 or (text[:1] == b"0" and text != b"0"):
        return None
    return int(text)


def hold_seconds(text: bytes | None) -> float | None:
    """Returns a hold as the scripts read it: None where there is none, or no number."""
    return None if text is None or len(text) > 20 or _SECONDS.fullmatch(text) is None else float(text)


def policy(
    per_buyer: int | None, opens_at: float | None, closes_at: float | None, hold: float | None
) -> dict[str, str]:
    """Returns the policy as fields of the stock hash; empty where there is none."""
    return {
        "opens_at": seconds(opens_at),
        "closes_at": seconds(closes_at),
        "per_buyer": "" if per_buyer is None else str(per_buyer),
        "hold": seconds(hold),
    }


def seconds(value: float | None) -> str:
    """Returns epoch seconds or a duration as the scripts read it; empty for None."""
    return "" if value is None else f"{value:.6f}"


def kept(value: float | None) -> float | None:
    """Returns what of a number of the policy comes back from Redis: seconds are kept to the microsecond.

    >>> kept(1795961378.1906817), kept(2), kept(None)
    (1795961378.190682, 2, None)
    """
    return float(seconds(value)) if isinstance(value, float) else value
