"""OpenTelemetry spans inside one process: buy -> reserve, worker -> save. Needs the extra `tracing`.

Nothing of it is in the way of a sale that is not traced: `trace` replaces methods of one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import flashsale
import flashsale.aio

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_MARK: Final = "_flashsale_traced"


def trace(
    target: flashsale.FlashSale | flashsale.aio.FlashSale | flashsale.Worker | flashsale.aio.Worker,
    *,
    tracer: Tracer | None = None,
) -> None:
    """Makes spans of what a sale or a worker does from now on; call it once the object is made.

    Of a sale: `flashsale.buy` and `flashsale.buy_basket`, and in them `flashsale.reserve`, unless the process
    remembered a refusal. Of a worker: `flashsale.worker`, and in it `flashsale.save`, once for each transaction. They
    have the names of sale and item, the outcome, the number of orders and the type of an error; never an id.

    Args:
        target: the sale, or the worker.
        tracer: whose spans; None: that of the global provider.

    Raises:
        ImportError: the extra `tracing` is not installed.
    """
    from opentelemetry.trace import get_tracer  # noqa: PLC0415 - needs the extra

    spans = _Spans(tracer or get_tracer("flashsale"), target)
    if isinstance(target, flashsale.Worker | flashsale.aio.Worker):
        for worker in target._workers():
            spans.wrap(worker, "_process", "worker", _orders)
            spans.wrap(worker._store, "save", "save", _orders)
        return
    spans.wrap(target, "buy", "buy", _item, _outcome)
    spans.wrap(target, "buy_basket", "buy_basket", _nothing, _outcome)
    for part in target._partitions():
        spans.wrap(part._purchases, "_submit", "reserve", _nothing, _outcome)
        spans.wrap(part._purchases, "_book", "reserve", _orders)


def _nothing(*_: object, **__: object) -> dict[str, Any]:
    return {}


def _item(goods_id: str, *_: object, **__: object) -> dict[str, Any]:
    return {"flashsale.goods": str(goods_id)}


def _orders(orders: Sequence[object], *_: object) -> dict[str, Any]:
    return {"flashsale.orders": len(orders)}


def _outcome(answer: Any) -> dict[str, Any]:
    outcome = getattr(answer, "outcome", None)
    return {} if outcome is None else {"flashsale.outcome": str(outcome)}


class _Spans:
    """Replaces methods by ones that make a span."""

    def __init__(self, tracer: Tracer, target: Any) -> None:
        self._tracer = tracer
        self._sale = (target if hasattr(target, "name") else target._sale).name
        self._awaits = type(target).__module__.startswith("flashsale.aio")

    def wrap(
        self,
        owner: Any,
        method: str,
        name: str,
        asked: Callable[..., dict[str, Any]],
        answered: Callable[[Any], dict[str, Any]] = _nothing,
    ) -> None:
        """Replaces a method of one object.

        Args:
            owner: the object.
            method: its name.
            name: of the span.
            asked: attributes of the arguments.
            answered: attributes of the answer.
        """
        inner = getattr(owner, method)
        if hasattr(inner, _MARK):
            return

        @wraps(inner)
        def traced(*args: Any, **kwargs: Any) -> Any:
            with self._span(name, asked(*args, **kwargs)) as span:
                answer = inner(*args, **kwargs)
                span.set_attributes(answered(answer))
                return answer

        @wraps(inner)
        async def traced_async(*args: Any, **kwargs: Any) -> Any:
            with self._span(name, asked(*args, **kwargs)) as span:
                answer = await inner(*args, **kwargs)
                span.set_attributes(answered(answer))
                return answer

        made = traced_async if self._awaits else traced
        setattr(made, _MARK, True)
        setattr(owner, method, made)

    @contextmanager
    def _span(self, name: str, attributes: dict[str, Any]) -> Iterator[Span]:
        """Opens a span; of an error it keeps the type alone, for its message may have an id."""
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        opened = self._tracer.start_as_current_span(
            f"flashsale.{name}",
            attributes={"flashsale.sale": self._sale} | attributes,
            record_exception=False,
            set_status_on_exception=False,
        )
        with opened as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
                raise
