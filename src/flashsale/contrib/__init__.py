"""Adapters for Flask, FastAPI and Django. Each needs its framework; the core imports none of them."""

from flashsale import FlashSaleError, web
from flashsale._rules.observer import log


def refuse(error: FlashSaleError) -> web.Reply:
    """Returns the answer to a call that failed, and logs it unless the caller is at fault."""
    reply = web.refuse(error)
    if reply.status >= 500:
        log.warning("answered %d: %s", reply.status, type(error).__name__)
    return reply
