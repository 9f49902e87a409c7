"""The audit and its repair: compares ledger, queue, leases, deadlines and database, order by order, as the sale runs.

It reads in the direction in which an order moves: ledger, list, claims, database. So it finds an order that moves
meanwhile at a later place, and never misses it. It checks a disagreement again before it reports it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Final

from flashsale._rules.batches import batches
from flashsale._rules.ledger_record import Record, path
from flashsale._rules.observer import log
from flashsale.aio.ledger import PAGE, START
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.transport.runtime import sleep
from flashsale.errors import CorruptState, InvalidRequest, StoreRequired, UnknownGoods
from flashsale.model import RELEASED, Order, OrderState, StoredOrder
from flashsale.model.checks import MAX_UNITS
from flashsale.model.reports import Audit, Disagreement, Problem, Repair, Units

ATTEMPTS: Final = 3  # a disagreement must be seen this often
RECOVERED: Final = 4  # pages of the ledger that one pass of the syncer looks at
MOVES: Final = 10  # purchases during a first look: a sale that moves so fast moves during the next one, too
BETWEEN: Final = 0.1  # seconds between attempts: an ack follows its commit within that time, or the order is read again

_PLACE: Final = {
    OrderState.QUEUED: "queued",
    OrderState.PERSISTED: "held",
    OrderState.CONFIRMED: "sold",
    OrderState.DEAD: "dead",
}


_LISTED: Final = {OrderState.QUEUED: Problem.NOT_QUEUED, OrderState.DEAD: Problem.NO_LETTER}  # where it has no row
_RECOVERABLE: Final = _LISTED | {OrderState.PERSISTED: Problem.NO_DEADLINE}  # by the ledger alone


class Auditor:
    """Audits and mends one sale.

    Args:
        sale: a FlashSale with a store.
        store: None: that one.
    """

    def __init__(self, sale: FlashSale, store: AsyncOrderStore | None = None) -> None:
        store = sale.store if store is None else store
        if store is None:
            raise StoreRequired("an audit")
        self._sale = sale
        self._store = store
        self._cursor = START  # of `recover`

    async def audit(self, expected: Iterable[str] = ()) -> Audit:
        """Compares everything; see `Syncer.audit`."""
        await self._sale._check_known()
        await self._sale._ledger.meet()
        goods, suspects, corrupt, moving = await self._first_look()
        pending, unreadable = await self._pending()
        strangers = await self._strangers(corrupt)
        disagreements = await self._look_again(suspects | strangers.keys(), strangers, pending)
        lost = await self._lost(list(expected), pending)
        return Audit(
            goods=goods,
            orders=disagreements,
            lost=lost,
            pending=len(pending),
            unreadable=unreadable,
            corrupt=tuple(sorted(corrupt)),
            moving=moving,
        )

    async def repair(self, *, dry_run: bool, trust_ledger: bool) -> Repair:
        """Mends what an audit finds; see `Syncer.repair`."""
        audit = await self.audit()
        mendable = [found for found in audit.orders if trust_ledger or found.problem is not Problem.AHEAD]
        mended = [
            found
            for found in mendable
            if dry_run or await self._unless_corrupt(found.order, partial(self._mend, found))
        ]
        return Repair(audit=audit, mended=tuple(mended), dry_run=dry_run)

    async def reconcile(self, rows: Collection[StoredOrder]) -> int:
        """Makes the ledger follow one page of rows: final ones are released, active ones it does not know restored.

        The ledger is read before the database is asked again. A final state never reverts, and units are only freed on
        a final state; so a row that was read long ago frees nothing wrongly.

        Returns:
            How many orders were moved or restored.
        """
        records = await self._sale._ledger.get_many([row.order.order_id for row in rows])
        odd = [row.order for row in rows if _odd(records.get(row.order.order_id), row.state)]
        if not odd:
            return 0
        states = await self._store.states([order.order_id for order in odd])
        found = [(order, records.get(order.order_id), states.get(order.order_id)) for order in odd]
        return sum([await self._unless_corrupt(each[0], partial(self._reconcile_one, *each)) for each in found])

    async def recover(self) -> int:
        """Brings back what the next orders of the ledger lost with a key: place on the list, dead letter, deadline.

        An order may only be missing from the list while list and leases are empty. That is asked after the ledger and
        before the database: who left the list in between has a row by then.

        Returns:
            How many orders it mended.
        """
        mended = 0
        for _ in range(RECOVERED):
            self._cursor, page = await self._sale._ledger.page(self._cursor)
            suspects = await self._unplaced({name: record for name, record in page.items() if record is not None})
            if suspects:
                orders = {name: record.order(name) for name, record in suspects.items()}
                judged = await self._judge(orders, suspects, set())
                found = [each for each in judged.values() if each.problem in _RECOVERABLE.values()]
                mended += sum([await self._unless_corrupt(each.order, partial(self._mend, each)) for each in found])
            if self._cursor == START:
                break
        return mended

    # -- looking ----------------------------------------------------------------------------------------------------

    async def _first_look(self) -> tuple[dict[str, Units], set[str], set[str], bool]:
        """Sums the units and notes every order whose ledger and row differ; repeats it if the sale moved a little.

        Returns:
            The units, the ids of these orders, what is corrupt, and whether the sale still moved.
        """
        for _ in range(ATTEMPTS):
            seq = (await self._sale._meta.state()).seq  # one sold for one returned leaves the sums as they were
            corrupt = {f"goods {name}" for name in await self._sale._meta.strange_goods()}
            corrupt |= {"meta seq"} if seq is None else set()
            before = await self._stocks(corrupt)
            places: Counter[tuple[str, str]] = Counter()
            suspects: set[str] = set()
            seen: set[str] = set()
            async for page in self._sale._ledger.pages():
                corrupt |= {f"orders {order_id}" for order_id, record in page.items() if record is None}
                new = {name: record for name, record in page.items() if record is not None and name not in seen}
                seen.update(new)
                for record in new.values():
                    places[record.goods_id, _PLACE.get(record.state, "")] += record.quantity
                suspects |= await self._differing(new)
            moving, now = await self._stocks(set()) != before, (await self._sale._meta.state()).seq
            moving = moving or now != seq
            if not moving or (now or 0) - (seq or 0) >= MOVES:
                break
        units = {
            goods_id: Units(
                total=total,
                free=total - booked,
                direct=booked - ledger,
                **{place: places[goods_id, place] for place in _PLACE.values()},
            )
            for goods_id, (total, booked, ledger) in before.items()
        }
        return units, suspects, corrupt, moving

    async def _stocks(self, corrupt: set[str]) -> dict[str, tuple[int, int, int]]:
        """Returns total, booked and ledger units of every item that Redis holds; adds to `corrupt` what is."""
        stocks = {}
        names = {*await self._sale._meta.goods(), *(goods.goods_id for goods in await self._store.goods())}
        for goods_id in sorted(names):
            try:
                stock = await self._sale.inventory.stock(goods_id)
            except (UnknownGoods, CorruptState) as error:
                stocks[goods_id] = (0, 0, 0)
                corrupt |= {f"{goods_id} stock"} if isinstance(error, CorruptState) else set()
            else:
                stocks[goods_id] = (stock.total, stock.booked, stock.booked - stock.direct)
        return stocks

    async def _differing(self, records: dict[str, Record]) -> set[str]:
        states = await self._store.states(list(records)) if records else {}
        deadlines = await self._sale._ledger.deadlines(list(records))
        holds = await self._sale.inventory._holds({record.goods_id for record in records.values()})
        return {
            order_id
            for order_id, record in records.items()
            if record.state != states.get(order_id)
            or (record.state is OrderState.PERSISTED and holds[record.goods_id] and order_id not in deadlines)
        }

    async def _unplaced(self, records: Mapping[str, Record]) -> dict[str, Record]:
        """Returns those that may have lost their place: queued in an empty queue, dead, or unpaid without an end."""
        queued = any(record.state is OrderState.QUEUED for record in records.values())
        idle = queued and await self._sale.queue._is_idle()
        unpaid = {name: record for name, record in records.items() if record.state is OrderState.PERSISTED}
        holds = await self._sale.inventory._holds({record.goods_id for record in unpaid.values()})
        held = [name for name, record in unpaid.items() if holds[record.goods_id] is not None]
        endless = set(held) - (await self._sale._ledger.deadlines(held)).keys() if held else set()
        return {
            name: record
            for name, record in sorted(records.items())
            if name in endless or record.state is OrderState.DEAD or (idle and record.state is OrderState.QUEUED)
        }

    async def _strangers(self, corrupt: set[str]) -> dict[str, Order]:
        """Returns the orders with a row that the ledger does not know, but for those whose record is corrupt."""
        strangers: dict[str, Order] = {}
        after = None
        while rows := await self._store.orders(after=after):
            after = rows[-1].order.order_id
            orders = {row.order.order_id: row.order for row in rows}
            records = await self._sale._ledger.get_many(list(orders))
            strangers |= {
                order_id: order
                for order_id, order in orders.items()
                if order_id not in records and f"orders {order_id}" not in corrupt
            }
        return strangers

    async def _pending(self) -> tuple[set[str], int]:
        """Returns the order ids on the list and under a lease, and how many elements are not orders."""
        ids: set[str] = set()
        unreadable = 0
        async for bodies in self._sale.queue._pending():
            for body in bodies:
                try:
                    ids.add(Order.from_json(body).order_id)
                except InvalidRequest:
                    unreadable += 1
        return ids, unreadable

    async def _look_again(
        self, suspects: set[str], strangers: dict[str, Order], pending: set[str]
    ) -> tuple[Disagreement, ...]:
        """Returns the suspects that disagree each time they are read."""
        found: dict[str, Disagreement] = {}
        for attempt in range(ATTEMPTS):
            if not suspects:
                return ()
            if attempt:
                await sleep(BETWEEN)
            records = await self._sale._ledger.get_many(sorted(suspects))
            if attempt:
                pending, _ = await self._pending()
            orders = strangers | {order_id: record.order(order_id) for order_id, record in records.items()}
            there = sorted(suspects & orders.keys())  # a rebuild or a loss may have taken the others
            found = await self._judge(orders, {name: records.get(name) for name in there}, pending)
            suspects = set(found)
        return tuple(found[order_id] for order_id in sorted(found))

    async def _judge(
        self, orders: dict[str, Order], suspects: Mapping[str, Record | None], pending: set[str]
    ) -> dict[str, Disagreement]:
        deadlines = await self._sale._ledger.deadlines(list(suspects))
        holds = await self._sale.inventory._holds({orders[order_id].goods_id for order_id in suspects})
        states = await self._store.states(list(suspects))
        letters = await self._sale.queue._buried(
            [order_id for order_id, record in suspects.items() if record and record.state is OrderState.DEAD]
        )
        found = {}
        for order_id, record in suspects.items():
            order, ledger, row = orders[order_id], record.state if record else None, states.get(order_id)
            endless = holds[order.goods_id] is not None and order_id not in deadlines
            is_pending = order_id in pending or order_id in letters
            problem = _problem(ledger, row, is_pending=is_pending, endless=endless)
            if problem:
                found[order_id] = Disagreement(order, problem, ledger, row)
        return found

    async def _lost(self, expected: list[str], pending: set[str]) -> tuple[str, ...]:
        lost: list[str] = []
        if expected:
            letters = await self._sale.queue.dead(MAX_UNITS)
            pending = pending | {claim.order.order_id for claim in letters if claim.order}
        for batch in batches(expected, PAGE):
            records = await self._sale._ledger.get_many(batch)
            states = await self._store.states(batch)
            lost += [name for name in batch if name not in records and name not in states and name not in pending]
        return tuple(lost)

    # -- mending ----------------------------------------------------------------------------------------------------

    async def _unless_corrupt(self, order: Order, mend: Callable[[], Awaitable[bool]]) -> bool:
        """Mends one order; what is corrupt stops only this one."""
        try:
            return await mend()
        except CorruptState as error:
            log.error("order %s cannot be mended: %s", order.order_id, error)
            return False

    async def _mend(self, found: Disagreement) -> bool:
        if found.problem is Problem.NO_LETTER:  # first: on the list, a dead order is none of ours
            await self._sale._ledger.move([StoredOrder(found.order, OrderState.QUEUED)])
        if found.problem in {Problem.NOT_QUEUED, Problem.NO_ROW, Problem.NO_LETTER}:
            await self._sale.queue.push(found.order)
            return True
        if found.problem is Problem.AHEAD:
            return await self._store.settle(found.order, OrderState.CONFIRMED) is OrderState.CONFIRMED
        if found.problem is Problem.NO_DEADLINE:
            return await self._sale._ledger.start_hold(found.order)
        record = await self._sale._ledger.get(found.order_id)
        states = await self._store.states([found.order_id])
        return await self._reconcile_one(found.order, record, states.get(found.order_id))

    async def _reconcile_one(self, order: Order, record: Record | None, state: OrderState | None) -> bool:
        """Moves or restores one order.

        `record` must be older than `state`, else an order that was cancelled in between would come back.
        """
        if state is None:
            return False
        if record is not None and path(record.state, state):
            return await self._sale._transitions.follow(order, state)
        epoch = await self._store.epoch()
        return await self._sale._ledger.restore([StoredOrder(order, state)], epoch) == [1]


def _odd(record: Record | None, state: OrderState) -> bool:
    """True for a row that the ledger has not followed, does not know, or has wrongly released."""
    if record is None:
        return state not in RELEASED
    return record.state is not state and (
        state in RELEASED or record.state in RELEASED or bool(path(record.state, state))
    )


def _problem(ledger: OrderState | None, row: OrderState | None, *, is_pending: bool, endless: bool) -> Problem | None:
    """Returns how ledger and row disagree, or None when they do not. What is pending for a worker is under way."""
    if ledger is None:
        return Problem.UNKNOWN if row is not None and row not in RELEASED else None
    if row is None:
        if ledger in _LISTED:
            return None if is_pending else _LISTED[ledger]
        return Problem.NO_ROW if ledger in {OrderState.PERSISTED, OrderState.CONFIRMED} and not is_pending else None
    if ledger is row:
        return Problem.NO_DEADLINE if ledger is OrderState.PERSISTED and endless else None
    if ledger is OrderState.QUEUED and is_pending:
        return None
    if ledger in RELEASED:
        return None if row in RELEASED else Problem.RELEASED
    if ledger is OrderState.CONFIRMED and row is OrderState.PERSISTED:
        return Problem.AHEAD
    return Problem.BEHIND
