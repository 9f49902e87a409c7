"""The time that a public call has: one deadline for all that it waits for, its retry and the database among it.

It travels in a context variable. A coroutine cannot put one back for certain when an exception strikes, so an entry
names the coroutine that it is for, and counts only while that one runs.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic
from types import CoroutineType
from typing import Any, Final, NamedTuple

from flashsale.errors import NotExecuted

TIMEOUT: Final = 10.0  # seconds of a public call
SHARE: Final = 0.45  # of that time is one request's: who waits for a place waits no longer than the rest
TOO_LATE: Final = "TIME"  # the reason of a `NotExecuted` that came before anything was sent


class Budget(NamedTuple):
    """The time of a call.

    Args:
        until: monotonic seconds.
        call: whose time it is; None: of whatever runs in this context.
        has_place: it is a batch, that waits for no place beside those of its coalescer.
        outer: the budget of the call around it, if there is one.
    """

    until: float
    call: CoroutineType[Any, Any, Any] | None = None
    has_place: bool = False
    outer: Budget | None = None


BUDGET: Final[ContextVar[Budget | None]] = ContextVar("flashsale_budget", default=None)


def current() -> Budget | None:
    """Returns the budget of the call that runs here; None: there is none."""
    budget = BUDGET.get()
    while budget is not None and budget.call is not None and not budget.call.cr_running:
        budget = budget.outer
    return budget


def too_late() -> NotExecuted:
    """Returns the error of a call whose time was over before anything was sent."""
    return NotExecuted("its time was over before anything was sent", reason=TOO_LATE)


def ends_at(seconds: float) -> float:
    """Returns when that which begins now must be over, in monotonic seconds: in `seconds`, or sooner with its call."""
    budget, end = current(), monotonic() + seconds
    return end if budget is None else min(budget.until, end)
