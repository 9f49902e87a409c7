"""The ledger: the hash of every accepted order in Redis; reads records, and moves them from state to state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from flashsale._rules.batches import batches
from flashsale._rules.codes import about
from flashsale._rules.ledger_record import STATES, Record, current_state, find, read
from flashsale._rules.tally import Tally
from flashsale._rules.tokens import Held, delivery_and_lease
from flashsale.aio.transport.link import Argument, Link
from flashsale.errors import NotExecuted
from flashsale.keys import Keys
from flashsale.lua import Code
from flashsale.model import Order, OrderState, StoredOrder, by_goods
from flashsale.model.checks import check_id, is_id

PAGE: Final = 500  # records of one read
START: Final = b"0"  # the cursor before the first page
MOVES: Final = 100  # orders of one settle script: some tenths of a millisecond of Redis


class Adoption(NamedTuple):
    """What became of an order found on the list: `code` of the adopt script, and the ledger's state if it knows it."""

    code: int
    state: OrderState | None


class Look(NamedTuple):
    """A look at an order.

    Args:
        record: of it; None: the ledger has none.
        time: the Redis clock, epoch seconds.
        waits: the sale is closed, or has lost its ledger: a rebuild may bring a record back.
    """

    record: Record | None
    time: float
    waits: bool

    def require_whole(self, name: str) -> None:
        """Lets nobody be told that an order is unknown which a rebuild may bring back.

        Raises:
            NotExecuted: the sale waits for a rebuild; `reason` is CLOSED.
        """
        if self.record is None and self.waits:
            text = f"{name!r} is not found, and the sale waits for a rebuild, which may bring it back; ask again then"
            raise NotExecuted(text, reason="CLOSED")


class Move(NamedTuple):
    """What became of an order that was to move.

    Args:
        code: of the settle script.
        state: where the order is now; None when the ledger does not know it, or cannot read it.
        slots: units whose slot the gate must give back, on a Redis of its own.
    """

    code: int
    state: OrderState | None
    slots: int

    @property
    def made(self) -> bool:
        """True when this call moved the order."""
        return self.code == Code.DONE


class Ledger:
    """Reads and moves the orders of one sale.

    Args:
        link: to the Redis of the stock.
        keys: of the sale.
        gate_here: True where the gate shares that Redis: a release then returns the slot in the same script.
        tally: counts the orders that move.
    """

    def __init__(self, link: Link, keys: Keys, *, gate_here: bool, tally: Tally) -> None:
        self._link = link
        self._keys = keys
        self._tally = tally
        self._gate_here = gate_here

    async def meet(self) -> None:
        """Refuses a sale that this release cannot read, for steps whose scripts do not look at `meta`.

        Raises:
            UnknownLayout: another release began it.
        """
        await self._link.run("layout", [self._keys.meta])

    async def get(self, order_id: str) -> Record | None:
        """Returns the record of an order, in one read."""
        with about(check_id("order_id", order_id)):
            text = await self._link.command("HGET", self._keys.orders, order_id)
        return None if text is None else read(text, order_id)

    async def look(self, order_id: str) -> Look:
        """Returns what Redis knows of an order that is about to move, or was not found, in one read.

        Raises:
            UnknownLayout: another release began the sale.
        """
        time, (text,), waits = await self._link.run("records", [self._keys.meta, self._keys.orders], [order_id])
        return Look(None if text is None else read(text, order_id), float(time), bool(waits))

    async def get_many(self, order_ids: Collection[str]) -> dict[str, Record]:
        """Returns the records of those of `order_ids` that the ledger knows, and of which the record can be read."""
        records: dict[str, Record] = {}
        for ids in batches(order_ids, PAGE):
            texts = await self._link.command("HMGET", self._keys.orders, *ids)
            found = {name: find(text, name) for name, text in zip(ids, texts, strict=True)}
            records |= {name: record for name, record in found.items() if record is not None}
        return records

    async def unpaid(self) -> int:
        """Returns how many orders have a payment deadline."""
        return int(await self._link.command("ZCARD", self._keys.holds))

    async def pages(self) -> AsyncIterator[dict[str, Record | None]]:
        """Yields the whole ledger in pages; an order that is there all the time is yielded at least once.

        What somebody else wrote has no record.
        """
        cursor = START
        while True:
            cursor, records = await self.page(cursor)
            yield records
            if cursor == START:
                return

    async def page(self, cursor: bytes) -> tuple[bytes, dict[str, Record | None]]:
        """Returns some records from `cursor` on, and the next cursor: `START` after the last ones."""
        cursor, flat = await self._link.command("HSCAN", self._keys.orders, cursor, "COUNT", PAGE)
        ids = [str(order_id, "ascii", "replace") for order_id in flat[::2]]
        found = zip(ids, flat[1::2], strict=True)
        return cursor, {order_id: find(text, order_id) if is_id(order_id) else None for order_id, text in found}

    async def move(self, rows: Sequence[StoredOrder]) -> list[Move]:
        """Moves orders to the states of their rows, where a way leads there; each order stands once in `rows`.

        A release gives its units back, exactly once however often it is called. What is corrupt stops only its own
        order, of which nothing was changed. The letters of DEAD orders are removed first, by a command of its own: a
        web process may not reach the dead letters, and needs that right for no other order.
        """
        moves: list[Move] = []
        for batch in batches(rows, MOVES):
            found = await self._move(batch, letters_gone=False)
            dead = [
                place
                for place, (row, move) in enumerate(zip(batch, found, strict=True))
                if move.state is OrderState.DEAD and row.state is not OrderState.DEAD
            ]
            if dead:
                again = [batch[place] for place in dead]
                await self._link.command("HDEL", self._keys.dead, *(row.order.order_id for row in again))
                for place, move in zip(dead, await self._move(again, letters_gone=True), strict=True):
                    found[place] = move
            moves += found
        return moves

    async def _move(self, rows: Sequence[StoredOrder], *, letters_gone: bool) -> list[Move]:
        reply = await self._link.run("settle", *self._settling(rows, letters_gone=letters_gone))
        moves = [
            Move(code, STATES.get(state), int(slots))
            for code, state, slots in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        ]
        self._tally.settled(row.state for row, move in zip(rows, moves, strict=True) if move.made)
        return moves

    def _settling(self, rows: Sequence[StoredOrder], *, letters_gone: bool) -> tuple[list[str], list[Argument]]:
        """Keys and arguments of the settle script."""
        keys = self._keys
        numbers = keys._number(row.order for row in rows)
        names = [keys.orders, keys.holds]
        for goods_id in numbers:
            names += (keys.stock(goods_id), keys.buyers(goods_id))
            if self._gate_here:
                names.append(keys.access(goods_id))
        arguments: list[Argument] = [int(self._gate_here), int(letters_gone)]
        for row in rows:
            arguments += (numbers[row.order.goods_id], row.order.goods_id, row.order.order_id, row.state)
        return names, arguments

    async def adopt(
        self,
        orders: Sequence[Order],
        state: OrderState = OrderState.QUEUED,
        *,
        untracked: Mapping[str, int] | None = None,
        epoch: int | None = None,
    ) -> list[Adoption]:
        """Brings orders found on the list into the ledger, when an external program pushed them there.

        From the untracked units if they suffice, else by deducting; sold out, the order is REJECTED. Most are ours:
        a look at the ledger is enough for them.

        Args:
            orders: each id once.
            state: theirs: DEAD for dead letters.
            untracked: by order id, how many of its units may be among the untracked ones; by default all or none.
            epoch: of the rebuild that asks: while the sale is closed nobody else may.
        """
        if not orders:
            return []
        records = await self._link.command("HMGET", self._keys.orders, *(order.order_id for order in orders))
        states = [current_state(record, order) for record, order in zip(records, orders, strict=True)]
        adoptions = [Adoption(Code.REPLAYED, state) for state in states]
        external = [at for at, state in enumerate(states) if state is None]
        if external:
            first = [self._keys.meta, self._keys.orders]
            most = [untracked[orders[at].order_id] if untracked else "" for at in external]
            keys, groups = self._batch(first, [orders[at] for at in external], most)
            reply = await self._link.run("adopt", keys, [state, "" if epoch is None else epoch, *groups])
            for at, code, named in zip(external, reply[::2], reply[1::2], strict=True):
                adoptions[at] = Adoption(code, STATES[named] if named else None)
        return adoptions

    async def restore(self, rows: Sequence[StoredOrder], epoch: int) -> list[int]:
        """Brings rows of the database into the ledger that Redis does not know, or released wrongly.

        Returns:
            The restore script's code for each row.
        """
        if not rows:
            return []
        first = [self._keys.meta, self._keys.orders, self._keys.holds]
        keys, groups = self._batch(first, [row.order for row in rows], [row.state for row in rows])
        return list(await self._link.run("restore", keys, [epoch, *groups]))

    async def overdue(self, limit: int = 1000) -> dict[str, Record | None]:
        """Returns the orders whose payment deadline has passed by the Redis clock, the oldest first.

        An order of which the ledger knows nothing, or nothing that can be read, has no record.
        """
        ids, texts = await self._link.run("overdue", [self._keys.holds, self._keys.orders], [limit])
        names = [str(order_id, "ascii", "replace") for order_id in ids]
        # what somebody else wrote must not keep the others waiting
        return {name: find(text, name) for name, text in zip(names, texts, strict=True) if is_id(name)}

    async def extend_hold(self, order_id: str, seconds: float) -> bool:
        """Moves a payment deadline to `seconds` from now, unless it is later; False: there is none, or it passed."""
        with about(check_id("order_id", order_id)):
            await self.meet()
            return bool(await self._link.run("hold", [self._keys.holds], [order_id, f"{seconds:.6f}"]))

    async def persisted(self, orders: Sequence[Order]) -> None:
        """Marks queued orders PERSISTED whose rows are committed; their payment deadlines start."""
        if orders:
            goods = by_goods(orders)
            names = [self._keys.orders, self._keys.holds, *map(self._keys.stock, goods)]
            order_ids = [order.order_id for group in goods.values() for order in group]
            await self._link.run("persist", names, [*map(len, goods.values()), *order_ids])

    async def time(self) -> float:
        """Returns the Redis clock, epoch seconds."""
        seconds, microseconds = await self._link.command("TIME")
        return int(seconds) + int(microseconds) / 1e6

    async def deadlines(self, order_ids: Collection[str]) -> dict[str, float]:
        """Returns the payment deadlines of those of `order_ids` that have one, epoch seconds."""
        found: dict[str, float] = {}
        for ids in batches(order_ids, PAGE):
            scores = await self._link.command("ZMSCORE", self._keys.holds, *ids)
            found |= {order_id: float(score) for order_id, score in zip(ids, scores, strict=True) if score is not None}
        return found

    async def start_hold(self, order: Order) -> bool:
        """Gives an unpaid order the payment deadline that it lacks, a whole hold from now."""
        keys = [self._keys.orders, self._keys.holds, self._keys.stock(order.goods_id)]
        return bool(await self._link.run("start_hold", keys, [order.order_id]))

    def _batch(
        self, keys: list[str], orders: Sequence[Order], sixth: Sequence[Argument]
    ) -> tuple[list[str], list[Argument]]:
        """Numbers the items of a batch, as the scripts refer to them; gives keys and the six fields of each order."""
        numbers = self._keys._number(orders)
        for goods_id in numbers:
            keys += (self._keys.stock(goods_id), self._keys.buyers(goods_id))
        groups: list[Argument] = []
        for order, last in zip(orders, sixth, strict=True):
            groups += (numbers[order.goods_id], order.goods_id, order.order_id, order.quantity, order.buyer_id, last)
        return keys, groups


async def acknowledge(link: Link, keys: Keys, claims: Held, orders: Iterable[Order]) -> tuple[int, float]:
    """Drops elements and marks queued orders PERSISTED, whose rows are committed; their payment deadlines start.

    Returns:
        How many elements were still there, and the Redis clock, epoch seconds.
    """
    goods = by_goods(orders)
    names = [keys.leases, keys.claimed, keys.orders, keys.holds, *map(keys.stock, goods)]
    order_ids = [order.order_id for group in goods.values() for order in group]
    whole, parts, tokens = claims
    deliveries = [delivery_and_lease(token)[0] for token in tokens]
    counts = (len(whole), len(parts), len(deliveries), *map(len, goods.values()))
    arguments: list[Argument] = [*counts, *whole, *parts, *deliveries, *order_ids]
    dropped, time = await link.run("ack", names, arguments)
    return dropped, float(time)
