"""Small sales to play a scenario on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import flashsale.stores
from flashsale import FlashSale, Goods, Syncer, Worker
from flashsale.model import RELEASED
from tests.support.machine import database

if TYPE_CHECKING:
    from tests.conftest import Backend


class SmallSale:
    """A sale of two units of one item, loaded and started.

    Args:
        backend: the Redis.
        total: units.
        two: the gate has a Redis of its own.
    """

    def __init__(self, backend: Backend, total: int = 2, *, two: bool = False) -> None:
        self.raw = backend.raw("s")
        self.raw.flushall()
        gate = {"gate_client": backend.client(db=1)} if two else {}
        self.store = flashsale.stores.SQLAlchemyStore(database(), "s")  # perhaps a mutant
        self.sale = FlashSale(backend.client(), "s", store=self.store, cache_for=0, **gate)
        self.worker, self.syncer = Worker(self.sale), Syncer(self.sale)
        self.store.put_goods(Goods("a", total))
        self.syncer.run_once()
        self.sale.start("a")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sale.close()
        self.store._engine.dispose()

    def booked(self) -> int:
        return self.sale.inventory.stock("a").booked

    def no_delays(self) -> None:
        """All leases and delays end."""
        for delivery in self.raw.hkeys(self.sale.keys.claimed):
            self.raw.zadd(self.sale.keys.leases, {delivery: 0})

    def row_units(self) -> int:
        active = (row.order.quantity for row in self.store.orders() if row.state not in RELEASED)
        return sum(active)
