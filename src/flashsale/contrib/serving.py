"""Runs a worker, a syncer or an outbox as a command: logs which sale it serves, and runs until it is stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flashsale._rules.observer import log
from flashsale._sync.sale import FlashSale
from flashsale.errors import FlashSaleError


def serve(command: str, sale: FlashSale, run: Callable[[], None]) -> None:
    """Runs until a signal stops it. Logs to stderr, unless the process has a log already."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {command} %(levelname)s %(message)s")
    if sale.store is not None:
        try:
            log.info("sale %s: %d goods in the database", sale.name, len(list(sale.store.goods())))
        except FlashSaleError as error:
            log.warning("sale %s: %s", sale.name, error)  # run() waits for it
    run()
    log.info("sale %s: stopped", sale.name)
