"""A sale over the real Redis is traced; without a provider its spans go nowhere."""

import os

import redis

from flashsale import FlashSale
from flashsale.contrib.tracing import trace

with redis.Redis.from_url(os.environ["FLASHSALE_REDIS_URL"]) as client, FlashSale(client, "traced") as sale:
    trace(sale)
    sale.preload("phone", 1)
    sale.start("phone")
    assert sale.buy("phone", "ann").accepted
