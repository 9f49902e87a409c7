"""The overview: what an operator's commands ask of a sale, whether it has one partition or several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from flashsale._rules.activity import apart
from flashsale._rules.ledger_record import Record
from flashsale._rules.looks import state_of
from flashsale.aio.sale import FlashSale
from flashsale.aio.sale_state import SaleState
from flashsale.aio.transport.link import Link
from flashsale.aio.transport.runtime import together
from flashsale.aio.transport.topology import Topology
from flashsale.errors import FlashSaleError, NotExecuted, OutcomeUnknown
from flashsale.model import Claim, GateState, Goods, Order, Stock

Answer = TypeVar("Answer")
Wanted: TypeAlias = Callable[[Order], bool]


class Overview:
    """Asks all partitions of a sale; one has one.

    Args:
        sale: a FlashSale.

    Attributes:
        away: the partitions that did not answer the last time that the others were enough.
    """

    def __init__(self, sale: FlashSale) -> None:
        self._sale = sale
        self._parts = sale._partitions()
        self.away: tuple[int, ...] = ()

    # -- the sale -----------------------------------------------------------------------------------------------------

    async def state(self) -> SaleState:
        """Returns the state of the sale: closed, or paused, where a partition is. One that is away is left out."""
        found = await self._of_those_there(lambda part: part._meta.state())
        return SaleState(
            state_of({each.state for each in found}, found[0].state),
            next((each.epoch for each in found if each.epoch is not None), None),
            None if any(each.seq is None for each in found) else sum(each.seq or 0 for each in found),
        )

    @property
    def key(self) -> str:
        """A key of the sale."""
        return self._parts[0].keys.meta

    async def layout_and_lead(self) -> tuple[str, float]:
        """Returns the layout in which the sale was begun, and until when a syncer led last: epoch seconds, or 0."""
        layout, until = await self._parts[0]._link.command("HMGET", self.key, "layout", "leader_until")
        return (layout or b"?").decode(), float(until or 0)

    def servers(self) -> dict[str, Link]:
        """Returns a link to each server, by the partitions that it has; without a name where it has all."""
        places: dict[Topology, list[int]] = {}
        for place, part in enumerate(self._parts):
            places.setdefault(part._link._servers, []).append(place)
        if len(places) == 1:
            return {"": self._parts[0]._link}
        return {f"partitions {', '.join(map(str, each))}": self._parts[each[0]]._link for each in places.values()}

    async def infos(self) -> dict[str, dict[str, str]]:
        """Returns INFO of each server that answers, by the names of `servers`.

        Empty where a server has none, or where there is no one server, as on a Cluster.
        """
        servers = self.servers()
        if len(servers) == 1:
            return {"": await servers[""].info()}
        infos = await together([link.info for link in servers.values()])
        return {name: info for name, info in zip(servers, infos, strict=True) if not isinstance(info, FlashSaleError)}

    # -- items --------------------------------------------------------------------------------------------------------

    async def goods(self) -> list[str]:
        """Returns the `goods_id` of every item that was preloaded; a partition that is away is left out."""
        found = await self._of_those_there(lambda part: part._meta.goods())
        return sorted({name for names in found for name in names})

    async def goods_everywhere(self) -> set[str]:
        """Returns the `goods_id` of the items that no partition has lost."""
        first, *others = await self._of_all(lambda part: part._meta.goods())
        return set(first).intersection(*others)

    async def stock(self, goods_id: str) -> Stock:
        """Returns the stock of one item; the sum, not of one moment.

        Raises:
            UnknownGoods: a partition does not hold the item.
        """
        stocks = await self._of_all(lambda part: part.inventory.stock(goods_id))
        return Stock(*(sum(units) for units in zip(*stocks, strict=True)))

    async def gate(self, goods_id: str) -> GateState:
        """Returns the gate of one item; a partition that is away is left out.

        Raises:
            UnknownGoods: a partition does not hold the item.
        """
        return self._sale._gate_of(await self._of_those_there(lambda part: part.gate.state(goods_id)))

    async def policy(self, goods_id: str, names: Sequence[str]) -> list[bytes | None]:
        """Returns fields of an item's stock: where partitions differ, of one that differs from the first."""
        found = await self._of_those_there(lambda part: part._link.command("HMGET", part.keys.stock(goods_id), *names))
        return [next((each[i] for each in found if each[i] != found[0][i]), found[0][i]) for i in range(len(names))]

    async def bring(self, goods: Goods) -> int:
        """Brings the row of an item to Redis, as the syncer does; returns the total that stands there, in units."""
        return await self._sale._bring_row(goods)

    # -- orders -------------------------------------------------------------------------------------------------------

    async def record(self, order_id: str) -> Record | None:
        """Returns what the ledger has of an order; None: nothing."""
        return await (await self._sale._of_order(order_id))._ledger.get(order_id)

    async def records(self, order_ids: Collection[str]) -> dict[str, Record]:
        """Returns the records of those orders that a ledger knows."""
        found = await self._of_all(lambda part: part._ledger.get_many(order_ids))
        return {name: record for each in found for name, record in each.items()}

    async def deadlines(self, order_ids: Collection[str]) -> dict[str, float]:
        """Returns the payment deadlines, epoch seconds, of those orders that have one."""
        found = await self._of_all(lambda part: part._ledger.deadlines(order_ids))
        return {name: due for each in found for name, due in each.items()}

    async def places(self, wanted: Wanted) -> list[tuple[Order, int]]:
        """Returns the orders on the lists that are wanted, each with how many leave its list before."""
        return [pair for each in await self._of_all(lambda part: part.queue._places(wanted)) for pair in each]

    async def claims(self, wanted: Wanted) -> list[tuple[Claim, float | None]]:
        """Returns the claims that are wanted, to look at, each with the end of its lease: epoch seconds, or None."""
        found = await self._of_all(lambda part: part.queue._claims(wanted))
        return [(apart(claim, place), ends) for place, claims in enumerate(found) for claim, ends in claims]

    # -- dead letters -------------------------------------------------------------------------------------------------

    async def dead_letters(self, names: Collection[str] | None = None) -> dict[str, Claim]:
        """Returns dead letters by name, oldest first in each partition.

        A name is that of the order; of what is no order a blank and a number, where there are several partitions that
        of its partition before: ` 3.17`.

        Args:
            names: those alone; None: all.
        """
        found = await self._of_each(lambda place, part: part.queue._dead_letters(self._own(place, names)))
        return {self._named(place, name): claim for place, each in enumerate(found) for name, claim in each.items()}

    async def requeue_dead(self, names: Collection[str]) -> int:
        """Puts dead letters back on the lists, and returns how many went back."""
        back = await self._of_each(lambda place, part: part.queue.requeue_dead(self._own(place, names) or ()))
        return sum(back)

    async def remove_dead(self, names: Collection[str]) -> int:
        """Removes dead letters that are no orders, and returns how many there were."""
        gone = await self._of_each(lambda place, part: part.queue._remove_dead(self._own(place, names) or ()))
        return sum(gone)

    def _named(self, place: int, name: str) -> str:
        several = len(self._parts) > 1 and name.startswith(" ")
        return f" {place}.{name[1:]}" if several else name

    def _own(self, place: int, names: Collection[str] | None) -> Collection[str] | None:
        """Returns the names that a partition may have, as it has them."""
        if names is None or len(self._parts) == 1:
            return names
        mine = f" {place}."
        return [f" {name[len(mine) :]}" if name.startswith(mine) else name for name in names]

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _of_all(self, call: Callable[[FlashSale], Awaitable[Answer]]) -> list[Answer]:
        """Returns the answers of all partitions.

        Raises:
            As the call, of the first partition that failed, which is named.
        """
        return await self._of_each(lambda _, part: call(part))

    async def _of_each(self, call: Callable[[int, FlashSale], Awaitable[Answer]]) -> list[Answer]:
        answers = await self._asked(call)
        self._refuse([answer if isinstance(answer, FlashSaleError) else None for answer in answers])
        return [answer for answer in answers if not isinstance(answer, FlashSaleError)]

    async def _of_those_there(self, call: Callable[[FlashSale], Awaitable[Answer]]) -> list[Answer]:
        """Returns the answers of the partitions that can be reached, one at least."""
        answers = await self._asked(lambda _, part: call(part))
        failed = [answer if isinstance(answer, FlashSaleError) else None for answer in answers]
        away = [isinstance(error, NotExecuted | OutcomeUnknown) for error in failed]
        if not all(away):
            failed = [None if is_away else error for error, is_away in zip(failed, away, strict=True)]
        self._refuse(failed)
        self.away = tuple(place for place, is_away in enumerate(away) if is_away)
        return [answer for answer in answers if not isinstance(answer, FlashSaleError)]

    def _refuse(self, failed: Sequence[FlashSaleError | None]) -> None:
        """Raises the first error, if there is one; it is noted which partitions failed alike, unless all did."""
        first = next((error for error in failed if error is not None), None)
        if first is not None:
            places = [place for place, error in enumerate(failed) if type(error) is type(first)]
            if len(places) < len(failed):
                first.add_note(f"partition{'s' * (len(places) > 1)} {', '.join(map(str, places))}")
            raise first

    async def _asked(self, call: Callable[[int, FlashSale], Awaitable[Answer]]) -> list[Answer | FlashSaleError]:
        if len(self._parts) == 1:
            return [await call(0, self._parts[0])]
        return await together([partial(call, place, part) for place, part in enumerate(self._parts)])
