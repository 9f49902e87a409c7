"""Spans of a sale and of a worker: nested, without ids, and nothing of them where nobody traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from flashsale import OrderConflict, StoreError
from flashsale.contrib.tracing import trace
from tests.support.partitions import buyer as buyer_of
from tests.support.partitions import synced

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer

    from tests.support.helpers import Awaited, Shop


class Spans:
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer: Tracer = provider.get_tracer("shop")

    def trace(self, target: Awaited) -> None:
        trace(target.real, tracer=self.tracer)

    def take(self) -> dict[str, ReadableSpan]:
        """Returns those that ended since the last time, by name: each once."""
        spans = self._kept.get_finished_spans()
        self._kept.clear()
        named = {span.name: span for span in spans}
        assert len(named) == len(spans)
        return named


def parent(spans: dict[str, ReadableSpan], name: str) -> str | None:
    inside = {span.context.span_id: span.name for span in spans.values()}
    above = spans[name].parent
    return None if above is None else inside[above.span_id]


async def test_a_purchase_is_a_span_with_the_reservation_in_it(shop: Shop) -> None:
    sale, spans = await shop.open(), Spans()
    spans.trace(sale)
    assert (await sale.buy("phone", "ann-the-buyer", order_id="o-secret", data={"to": "home"})).accepted
    found = spans.take()
    assert found.keys() == {"flashsale.buy", "flashsale.reserve"}
    assert parent(found, "flashsale.reserve") == "flashsale.buy"
    assert parent(found, "flashsale.buy") is None
    assert found["flashsale.buy"].attributes == {
        "flashsale.sale": "spring",
        "flashsale.goods": "phone",
        "flashsale.outcome": "ACCEPTED",
    }
    said = "".join(span.to_json() for span in found.values())
    assert not any(word in said for word in ("ann-the-buyer", "o-secret", "home"))


async def test_a_remembered_refusal_has_no_reservation(shop: Shop) -> None:
    sale, spans = await shop.open(1, sale=shop.sale(cache_for=60.0)), Spans()
    await sale.buy("phone", "ann")
    await sale.buy("phone", "bob")
    spans.trace(sale)
    await sale.buy("phone", "eve")
    found = spans.take()
    assert found.keys() == {"flashsale.buy"}
    assert found["flashsale.buy"].attributes["flashsale.outcome"] == "SOLD_OUT"


async def test_a_basket_is_a_span_with_the_reservation_in_it(shop: Shop) -> None:
    sale, spans = await shop.open(), Spans()
    spans.trace(sale)
    assert (await sale.buy_basket("ann", [("phone", 1)])).accepted
    found = spans.take()
    assert parent(found, "flashsale.reserve") == "flashsale.buy_basket"


async def test_a_batch_of_a_worker_is_a_span_with_the_save_in_it(shop: Shop) -> None:
    sale, spans = await shop.open(store=True), Spans()
    for buyer in ("ann", "bob"):
        await sale.buy("phone", buyer)
    worker = shop.worker(sale)
    spans.trace(worker)
    assert await worker.run_once() == 2
    found = spans.take()
    assert found.keys() == {"flashsale.worker", "flashsale.save"}
    assert parent(found, "flashsale.save") == "flashsale.worker"
    assert found["flashsale.save"].attributes == {"flashsale.sale": "spring", "flashsale.orders": 2}


async def test_of_an_error_only_the_type_is_kept(shop: Shop) -> None:
    sale, spans = await shop.open(), Spans()
    await sale.buy("phone", "ann", order_id="o-secret")
    spans.trace(sale)
    with pytest.raises(OrderConflict):
        await sale.buy("phone", "bob", order_id="o-secret")
    span = spans.take()["flashsale.buy"]
    assert span.attributes["error.type"] == "OrderConflict"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert "o-secret" not in span.to_json()


async def test_a_database_that_fails_is_seen_in_the_save(shop: Shop) -> None:
    sale, spans = await shop.open(store=True), Spans()
    await sale.buy("phone", "ann")
    worker = shop.worker(sale)
    spans.trace(worker)
    shop.sql("DROP TABLE flashsale_orders")
    with pytest.raises(StoreError):
        await worker.run_once()
    found = spans.take()
    assert found["flashsale.save"].attributes["error.type"] == "StoreError"
    assert found["flashsale.worker"].status.status_code is StatusCode.ERROR


async def test_tracing_twice_is_tracing_once(shop: Shop) -> None:
    sale, spans = await shop.open(), Spans()
    spans.trace(sale)
    spans.trace(sale)
    await sale.buy("phone", "ann")
    assert len(spans.take()) == 2


async def test_a_sale_that_is_not_traced_is_untouched(shop: Shop) -> None:
    traced, other = await shop.open(), shop.sale()
    Spans().trace(traced)
    assert "buy" not in vars(other.real)
    assert other.real._purchases._submit == other.real.inventory._reservations.singles.submit


async def test_a_sale_over_several_partitions_has_the_same_spans(shop: Shop) -> None:
    (sale, _), spans = await synced(shop), Spans()
    worker = shop.worker(sale)
    for target in (sale, worker):
        spans.trace(target)
    assert (await sale.buy("phone", buyer_of(2))).accepted
    assert parent(spans.take(), "flashsale.reserve") == "flashsale.buy"
    assert (await sale.buy_basket(buyer_of(2), [("phone", 1)])).accepted
    assert parent(spans.take(), "flashsale.reserve") == "flashsale.buy_basket"
    assert await worker.run_once() == 2
    assert parent(spans.take(), "flashsale.save") == "flashsale.worker"
