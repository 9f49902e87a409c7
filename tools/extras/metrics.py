"""A page for Prometheus is made of what a scrape read."""

from prometheus_client import CollectorRegistry, generate_latest

from flashsale.ops.exporter import Collector
from flashsale.ops.metrics import Reading

registry = CollectorRegistry(auto_describe=False)
registry.register(Collector(lambda: Reading("nov11", "0.1.0")))
assert b'flashsale_up{sale="nov11"} 0.0' in generate_latest(registry)
