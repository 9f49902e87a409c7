"""Hooks: which methods of the host's the store calls, and what they may refuse. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple

from flashsale.errors import InvalidRequest, StoreError
from flashsale.model import Order

MAX_REASON: Final = 500  # characters


class Refuse(Exception):
    """Raised by `saved`: this order must not be. The units return, and its state is REJECTED.

    What the hook has written in this call is undone, and `saved` is called again with the rest. To refuse many, return
    `{order_id: reason}` instead.

    Args:
        order_id: of one of the orders that the hook was called with.
        reason: in the host's words, for `StoredOrder.reason` and `Event.reason`; at most 500 characters, the rest is
            cut off.
    """

    def __init__(self, order_id: str, reason: str) -> None:
        super().__init__(order_id, reason)
        self.order_id = order_id
        self.reason = reason


class HookFailed(StoreError):
    """A hook raised something of its own; nothing was written.

    The message has the text of what `stock` raised, which is about units; that of the others may hold a buyer's data.

    Attributes:
        raised: what it raised.
    """

    def __init__(self, name: str, raised: Exception) -> None:
        text = f": {raised}" if name == "stock" and str(raised) else ""
        super().__init__(f"the hook {name} raised {type(raised).__name__}{text}")
        self.raised = raised


class Hooks(NamedTuple):
    """The methods that a host's hooks have."""

    saved: Callable[..., Any] | None = None
    settled: Callable[..., Any] | None = None
    stock: Callable[..., Any] | None = None


def is_awaited(call: object) -> bool:
    """Returns whether it is an `async def`, or an object that is called as one."""
    return iscoroutinefunction(call) or iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


def are_awaited(hooks: object) -> bool:
    """Returns whether hooks are for asyncio, as far as one method tells; a store checks them all."""
    return any(is_awaited(getattr(hooks, name, None)) for name in Hooks._fields)


def methods_of(hooks: object, protocol: type) -> Hooks:
    """Returns the methods of a host's hooks; none when there are no hooks.

    Args:
        hooks: the host's object, or None.
        protocol: `OrderHooks`, or `AsyncOrderHooks`, whose methods are awaited.

    Raises:
        InvalidRequest: it has none of them, or of the other kind.
    """
    if hooks is None:
        return Hooks()
    if isinstance(hooks, type):
        raise InvalidRequest("hooks", "must be an object, not its class")
    found: dict[str, Callable[..., Any]] = {}
    for name in Hooks._fields:
        method, default = getattr(hooks, name, None), getattr(protocol, name)
        if method is None or getattr(type(hooks), name, None) is default:
            continue
        if is_awaited(method) is not is_awaited(default):
            kind = "not be async" if is_awaited(method) else "be async def"
            raise InvalidRequest("hooks", f"{name} must {kind} here")
        found[name] = method
    if not found:
        raise InvalidRequest("hooks", f"{type(hooks).__name__} has none of the methods {', '.join(Hooks._fields)}")
    return Hooks(**found)


def refusals(answer: object, orders: Iterable[Order]) -> dict[str, str]:
    """Returns whom `saved` refuses, and why, as the database can keep it.

    Raises:
        TypeError: it returned something else.
        ValueError: it refuses an order that it was not called with.
    """
    if answer is None:
        return {}
    if not isinstance(answer, Mapping):
        raise TypeError(f"saved returned {type(answer).__name__}, not a mapping of order ids to reasons")
    if answer.keys() - {order.order_id for order in orders}:
        raise ValueError("saved refused an order that it was not called with")
    return {order_id: _kept(reason) for order_id, reason in answer.items()}


def _kept(reason: object) -> str:
    if not isinstance(reason, str):
        raise TypeError(f"a reason must be text, not {type(reason).__name__}")
    return reason.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:MAX_REASON]
