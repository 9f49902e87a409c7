"""Tools to test your shop: temporary sales, a state machine around your view, crash points, lost replies.

Each name is imported when it is first asked for: the suites need pytest, the state machine needs Hypothesis.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flashsale.testing.async_machine import AsyncSaleMachine
    from flashsale.testing.crashes import AsyncCrashPoint, Crash, CrashPoint, async_crash_points, crash_points
    from flashsale.testing.hooks import AsyncOrderHooksSuite, OrderHooksSuite
    from flashsale.testing.machine import SaleMachine
    from flashsale.testing.proxy import FaultProxy
    from flashsale.testing.sales import (
        memory_async_store,
        memory_store,
        temporary_async_sale,
        temporary_sale,
    )
    from flashsale.testing.stores import AsyncOrderStoreSuite, OrderStoreSuite

_HOMES: Final = {
    "AsyncCrashPoint": "crashes",
    "AsyncOrderHooksSuite": "hooks",
    "AsyncOrderStoreSuite": "stores",
    "AsyncSaleMachine": "async_machine",
    "Crash": "crashes",
    "CrashPoint": "crashes",
    "FaultProxy": "proxy",
    "OrderHooksSuite": "hooks",
    "OrderStoreSuite": "stores",
    "SaleMachine": "machine",
    "async_crash_points": "crashes",
    "crash_points": "crashes",
    "memory_async_store": "sales",
    "memory_store": "sales",
    "temporary_async_sale": "sales",
    "temporary_sale": "sales",
}

__all__ = [
    "AsyncCrashPoint",
    "AsyncOrderHooksSuite",
    "AsyncOrderStoreSuite",
    "AsyncSaleMachine",
    "Crash",
    "CrashPoint",
    "FaultProxy",
    "OrderHooksSuite",
    "OrderStoreSuite",
    "SaleMachine",
    "async_crash_points",
    "crash_points",
    "memory_async_store",
    "memory_store",
    "temporary_async_sale",
    "temporary_sale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
