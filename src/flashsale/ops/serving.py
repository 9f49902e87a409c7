"""Runs a worker, a syncer or an outbox as a command: logs which sale it serves, and runs until it is stopped."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import flashsale.aio
from flashsale._rules.observer import log
from flashsale._sync.sale import FlashSale
from flashsale.errors import FlashSaleError
from flashsale.model import Goods


def serve(command: str, sale: FlashSale, run: Callable[[], None]) -> None:
    """Runs until a signal stops it. Logs to stderr, unless the process has a log already."""
    _begin(command)
    if sale.store is not None:
        try:
            _tell(sale.name, sale.store.goods(), sale.store)
        except FlashSaleError as error:
            log.warning("sale %s: %s", sale.name, error)  # run() waits for it
    run()
    log.info("sale %s: stopped", sale.name)


async def serve_async(command: str, sale: flashsale.aio.FlashSale, run: Callable[[], Awaitable[None]]) -> None:
    """Does what `serve` does, with asyncio."""
    _begin(command)
    if sale.store is not None:
        try:
            _tell(sale.name, await sale.store.goods(), sale.store)
        except FlashSaleError as error:
            log.warning("sale %s: %s", sale.name, error)
    await run()
    log.info("sale %s: stopped", sale.name)


def _begin(command: str) -> None:
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {command} %(levelname)s %(message)s")


def _tell(sale: str, goods: Iterable[Goods], store: object) -> None:
    """Logs what the database has, and the hooks and events of this process: without them it would leave steps out."""
    hooks = getattr(store, "_hooks", None)
    which = "no hooks" if hooks is None else f"hooks {type(hooks).__module__}.{type(hooks).__qualname__}"
    states = ",".join(sorted(getattr(store, "_events", ())))
    log.info("sale %s: %d goods in the database, %s, events: %s", sale, len(list(goods)), which, states or "none")
