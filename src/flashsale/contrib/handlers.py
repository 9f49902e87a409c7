"""Finds the handler of an outbox by the name that a command was given."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flashsale.errors import InvalidRequest
from flashsale.model import Event


def handler(path: str) -> Callable[[Event], object]:
    """Returns the function that a dotted path names; like `python -m`, it looks into the current folder first.

    Raises:
        InvalidRequest: nothing of that name can be imported, or it is no function, or an async one.
    """
    module, dot, name = path.rpartition(".")
    if not dot or not module:
        raise InvalidRequest("handler", f"must be a dotted path like shop.orders.handle, not {path!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:  # an installed command has its own folder there
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the host's module raises
        raise InvalidRequest("handler", f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found) or inspect.isclass(found):
        raise InvalidRequest("handler", f"{path} is no function: {type(found).__name__}")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004
        raise InvalidRequest("handler", f"{path} is async: this command has threads; run flashsale.aio.Outbox yourself")
    handle: Callable[[Event], object] = found
    return handle
