"""Adapters for Flask, FastAPI and Django. Each needs its framework; the core imports none of them."""

from flashsale import FlashSaleError, PartitionMismatch, web
from flashsale._rules.observer import log
from flashsale.model.checks import check_id


def buyer_id(primary_key: int | str) -> str:
    """Returns a user's primary key as a buyer id: it is an int in most databases, and a purchase wants a string.

    >>> buyer_id(42)
    '42'

    Raises:
        InvalidRequest: it is neither, or no buyer id.
    """
    return check_id("buyer_id", str(primary_key) if type(primary_key) is int else primary_key)


def refuse(error: FlashSaleError) -> web.Reply:
    """Returns the answer to a call that failed, and logs it unless the caller is at fault."""
    reply = web.refuse(error)
    if reply.status >= 500:
        why = f": {error}" if isinstance(error, PartitionMismatch) else ""  # a setting of this process is wrong
        log.warning("answered %d: %s%s", reply.status, type(error).__name__, why)
    return reply
