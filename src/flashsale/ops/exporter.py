"""Serves the metrics of a sale to Prometheus. Needs the extra `metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Final

from flashsale._sync.transport.runtime import StopEvent, stop_on_signals
from flashsale.ops.metrics import Metric, Reading, Shown, Values, buckets, values

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

PORT: Final = 9642


class Collector:
    """What a registry of prometheus_client asks for the metrics of one sale; one scrape after the other.

    Args:
        collect: reads the sale.
    """

    def __init__(self, collect: Callable[[], Reading]) -> None:
        self._read = collect
        self._shown = Shown()
        self._lock = Lock()

    def collect(self) -> Iterator[Family]:
        """Returns all metrics, read now."""
        with self._lock:
            reading = self._read()
            yield from [family(metric, found, reading.sale) for metric, found in values(reading, self._shown)]


def family(metric: Metric, found: Values, sale: str) -> Family:
    """Returns a metric and its values as prometheus_client has them."""
    from prometheus_client import Metric as Family  # noqa: PLC0415 - needs the extra

    made = Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
    names = ("sale", *metric.labels)
    for labels, value in found:
        labelled = dict(zip(names, (sale, *labels), strict=True))
        if isinstance(value, float):
            made.add_sample(metric.name, labelled, value)
            continue
        for bound, count in buckets(value):
            made.add_sample(f"{metric.name}_bucket", labelled | {"le": bound}, count)
        made.add_sample(f"{metric.name}_sum", labelled, value.seconds)
        made.add_sample(f"{metric.name}_count", labelled, float(sum(value.counts)))
    return made


def serve(
    collect: Callable[[], Reading], port: int = PORT, address: str = "127.0.0.1", *, stop: StopEvent | None = None
) -> None:
    """Answers Prometheus until `stop` is set; without one, until SIGTERM or SIGINT.

    Args:
        collect: reads the sale, such as `lambda: scrape(sale)`; called for each scrape.
        port: to listen on.
        address: likewise. The page is for everybody who reaches it.
        stop: ends it.

    Raises:
        ImportError: the extra `metrics` is not installed.
        OSError: somebody else listens there.
    """
    from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - needs the extra

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(collect))
    server, thread = start_http_server(port, address, registry)
    try:
        with stop_on_signals(stop) as event:
            event.wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
