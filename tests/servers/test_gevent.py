"""Under gevent the sync API works: its locks and sockets are the standard library's, and those gevent replaces."""

from __future__ import annotations

import subprocess
import sys

CROWD = """
from gevent import monkey; monkey.patch_all()
import sys, gevent, redis
from flashsale import FlashSale

sale = FlashSale(redis.Redis.from_url(sys.argv[1]), "gevent")
sale.preload("phone", 100)
sale.start("phone")
crowd = [gevent.spawn(sale.buy, "phone", f"buyer-{number}") for number in range(1000)]
again = [gevent.spawn(sale.buy, "phone", "double", order_id="click") for _ in range(100)]
gevent.joinall(crowd + again, timeout=60, raise_error=True)
receipts = [job.value for job in crowd + again]
orders = {receipt.order_id for receipt in receipts if receipt.accepted}
print(len(orders), sale.inventory.stock("phone").booked, sale.queue.size())
"""


def test_a_thousand_greenlets_get_what_there_is(redis_url):
    run = subprocess.run(
        [sys.executable, "-c", CROWD, redis_url], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["100", "100", "100"]
