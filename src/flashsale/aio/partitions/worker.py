"""The worker of a sale over several partitions: one for each of them, in one process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from typing_extensions import override

from flashsale._rules.activity import SharedActivity
from flashsale._rules.observer import log
from flashsale.aio.partitions.partition import Partition
from flashsale.aio.partitions.sale import PartitionedSale
from flashsale.aio.sale import FlashSale
from flashsale.aio.transport.runtime import StopEvent, new_stop, pause, together
from flashsale.aio.worker import Worker
from flashsale.errors import FlashSaleError, StoreRequired
from flashsale.model import Claim


class PartitionWorker(Worker):
    """Drains the queue of one partition, and buries what is no order of its buyers: no purchase put that there."""

    def __init__(self, part: Partition, *, batch: int, lease: float) -> None:
        super().__init__(part, batch=batch, lease=lease)
        self._part = part

    @override
    async def _claim(self, timeout: float) -> Sequence[Claim]:
        await self._part.meet()
        return await super()._claim(timeout)

    @override
    async def _process(self, claims: Sequence[Claim]) -> int:
        ours = [claim for claim in claims if claim.order is None or self._part.has(claim.order)]
        if len(ours) < len(claims):
            await self._bury_strange([claim for claim in claims if claim not in ours])
        return await super()._process(ours)

    async def _bury_strange(self, claims: Sequence[Claim]) -> None:
        text = "%d elements of the queue of partition %d are no orders of its buyers; they are among the dead"
        log.error(text, len(claims), self._part.place)
        await self._queue._bury([replace(claim, order=None) for claim in claims])


class PartitionedWorker(Worker):
    """Drains the queue of each partition; one that does not answer stops no other."""

    def __init__(self, sale: FlashSale, *, batch: int = 500, lease: float = 30.0) -> None:
        if sale.store is None:
            raise StoreRequired("a worker")
        assert isinstance(sale, PartitionedSale)
        self._sale: PartitionedSale = sale
        self._each = [PartitionWorker(part, batch=batch, lease=lease) for part in sale._parts]
        self._activity = SharedActivity("worker", [worker._activity for worker in self._each])

    @override
    async def run(self, stop: StopEvent | None = None) -> None:
        await self._sale._meet_all()
        await super().run(stop)

    @override
    def _workers(self) -> Sequence[Worker]:
        return self._each

    @override
    async def _work(self, stop: StopEvent) -> None:
        ours = new_stop()

        async def drain(worker: Worker) -> None:
            try:
                await worker._work(ours)
            finally:
                ours.set()  # an error of the host's ends all of them, and is raised

        async def follow() -> None:
            while not (stop.is_set() or ours.is_set()):
                await pause(stop, 0.5)
            ours.set()

        parts: list[Callable[[], Awaitable[None]]] = [follow, *(partial(drain, worker) for worker in self._each)]
        await together(parts, stop=ours)

    @override
    async def run_once(self) -> int:
        """Processes one batch of each partition; see `Worker.run_once`."""
        answers = await together([worker.run_once for worker in self._each])
        for answer in answers:
            if isinstance(answer, FlashSaleError):
                raise answer
        return sum(answer for answer in answers if not isinstance(answer, FlashSaleError))


Worker._PARTITIONED = PartitionedWorker
