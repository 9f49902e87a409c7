"""What a setting gives, or names by a dotted path: hooks, an observer, a store, a handler."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from flashsale import Event, InvalidRequest
from flashsale._rules.hooks import is_awaited


def imported(field: str, given: object) -> Any:
    """Returns what a dotted path such as "shop.flash.Hooks" leads to; anything but a string is returned as it is.

    Raises:
        InvalidRequest: it leads nowhere.
    """
    if not isinstance(given, str):
        return given
    module, _, name = given.rpartition(".")
    try:
        if not module:
            raise ImportError("no dotted path such as shop.orders.handle")
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(field, f"{given!r} cannot be imported: {error}") from error


def made(field: str, given: object) -> Any:
    """Returns the object that is given or named; of a class, an object made without arguments.

    Raises:
        InvalidRequest: the path leads nowhere, or the class wants arguments.
    """
    found = imported(field, given)
    try:
        return found() if isinstance(found, type) else found
    except TypeError as error:
        raise InvalidRequest(field, f"{found.__qualname__} cannot be made without arguments: {error}") from error


def function(field: str, path: str) -> Callable[..., Any]:
    """Returns the function that a dotted path leads to.

    Raises:
        InvalidRequest: it leads nowhere, or to something else.
    """
    found: Any = imported(field, path)
    if not callable(found) or isinstance(found, type):
        raise InvalidRequest(field, f"{path!r} is no function")
    call: Callable[..., Any] = found
    return call


def handler(path: str) -> Callable[[Event], object]:
    """Returns the handler of an outbox, for a command that has threads.

    Raises:
        InvalidRequest: the path leads to no function, or to an async one.
    """
    found = function("handler", path)
    if is_awaited(found):
        raise InvalidRequest("handler", f"{path!r} is async: run a flashsale.aio.Outbox yourself")
    return found
