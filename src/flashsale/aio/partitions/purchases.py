"""Purchases of one partition, which fetches units from the others before it says that an item is sold out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from time import monotonic

from flashsale._rules.deadline import ends_at
from flashsale.aio.partitions.transfers import PAUSE, Transfers
from flashsale.aio.purchases import Purchases
from flashsale.aio.reservations import Answers, Mode
from flashsale.aio.transport.runtime import sleep
from flashsale.errors import FlashSaleError
from flashsale.model import Order, Outcome, Receipt, by_goods


class PartitionPurchases(Purchases):
    """Takes purchases through gate and stock of one partition.

    Attributes:
        transfers: of the sale.
        place: of this partition.
    """

    transfers: Transfers
    place: int

    async def _finish(self, orders: Sequence[Order], mode: Mode, answers: Answers, began: float) -> Answers:
        if any(_is_short(answer, {}) for answer in answers):
            answers = await self._fetched(orders, mode, list(answers))
        return await super()._finish(orders, mode, answers, began)

    async def _fetched(self, orders: Sequence[Order], mode: Mode, answers: Answers) -> Answers:
        """Fetches units for orders that are sold out here, and books these again, until a check finds too few.

        A basket is booked again as a whole, or not at all. What goes wrong belongs to those orders alone. Between two
        tries it waits for a while, which grows: else two baskets could take the last units from each other for ever.
        """
        longest = 0.0
        plain = Mode(mode.slot, together=mode.together, guarantee=mode.guarantee)
        free: dict[str, int] = {}  # units of an item in all partitions, where a check has found too few
        while short := [place for place, answer in enumerate(answers) if _is_short(answer, free)]:
            if mode.together:
                await sleep(max(0.0, ends_at(random.uniform(0.0, longest)) - monotonic()))  # noqa: S311
                longest = 2 * longest or PAUSE
            try:
                await self._fetch([orders[place] for place in short], free)
                again = [place for place in short if orders[place].goods_id not in free]
                if mode.together:
                    again = [] if free else list(range(len(orders)))
                if not again:
                    break
                booked = await self._book([orders[place] for place in again], plain)
            except FlashSaleError as error:
                for place in short:
                    if orders[place].goods_id not in free:
                        answers[place] = error._copy()
                break
            for place, answer in zip(again, booked, strict=True):
                answers[place] = answer
        return [_counted(answer, free) for answer in answers]

    async def _fetch(self, orders: Sequence[Order], free: dict[str, int]) -> None:
        """Fetches units of each item that these orders want; those of which there are too few go to `free`."""
        for goods_id, wanted in by_goods(orders).items():
            units = [order.quantity for order in wanted]
            left = await self.transfers.fetch(self.place, goods_id, sum(units), min(units))
            if left is not None:
                free[goods_id] = left


def _is_short(answer: Receipt | FlashSaleError, free: Mapping[str, int]) -> bool:
    """Returns whether an order was refused for want of units here, and not yet for want of units everywhere.

    An order of a basket that has enough units here was refused for another one's sake.
    """
    return (
        isinstance(answer, Receipt)
        and answer.outcome is Outcome.SOLD_OUT
        and answer.state is None
        and answer.remaining < answer.quantity
        and answer.goods_id not in free
    )


def _counted(answer: Receipt | FlashSaleError, free: Mapping[str, int]) -> Receipt | FlashSaleError:
    """Returns an answer that tells how many units are left everywhere, where a check has counted them."""
    if isinstance(answer, Receipt) and answer.outcome is Outcome.SOLD_OUT and answer.goods_id in free:
        return answer._replace(remaining=free[answer.goods_id])
    return answer
