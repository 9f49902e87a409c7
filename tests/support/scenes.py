"""Small sales to play a scenario on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from flashsale import FlashSale, Goods, Syncer, Worker
from flashsale.model import RELEASED
from flashsale.stores import SQLAlchemyStore
from tests.support.machine import database

if TYPE_CHECKING:
    from tests.conftest import Backend


class Scene:
    """A sale of two units of one goods, loaded and started.

    Args:
        backend: the Redis.
        mutant: of the store.
        total: units.
        two: the gate has a Redis of its own.
    """

    def __init__(
        self, backend: Backend, mutant: type[SQLAlchemyStore] = SQLAlchemyStore, total: int = 2, *, two: bool = False
    ) -> None:
        self.raw = backend.raw("s")
        self.raw.flushall()
        gate = {"gate_client": backend.client(db=1)} if two else {}
        self.store = mutant(database(), "s")
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
