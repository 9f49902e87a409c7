"""What `inspect` and editors tell of a function that stands before another one. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def signed_as(other: Callable[..., Any]) -> Callable[[Function], Function]:
    """Lets a function be shown with the signature of another one.

    >>> @signed_as(lambda sale, *, batch=500: None)
    ... def make(*args, **settings): ...
    >>> import inspect
    >>> str(inspect.signature(make))
    '(sale, *, batch=500)'
    """

    def sign(function: Function) -> Function:
        function.__wrapped__ = other  # type: ignore[attr-defined]
        return function

    return sign
