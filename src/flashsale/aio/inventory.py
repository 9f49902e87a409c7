"""The inventory: the article's atomic deduction in Lua on a primary/replica Redis, and the purchase built on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from flashsale._rules.batches import batches
from flashsale._rules.codes import about, fail, goods_error, hold_seconds, number, policy, set_order_id
from flashsale.aio.clients import Client
from flashsale.aio.reservations import Answers, Mode, Reservations
from flashsale.aio.transport.coalescer import BATCH, Coalescer
from flashsale.aio.transport.component import MAX_WAITING, Component
from flashsale.aio.transport.link import Argument, Link
from flashsale.errors import AlreadyLoaded, FlashSaleError, InvalidRequest, NotExecuted, OutcomeUnknown
from flashsale.keys import Keys
from flashsale.lua import SCRIPTS, Code, Slot
from flashsale.model import Goods, Order, Receipt, Stock
from flashsale.model.checks import check_int, check_policy, check_quantity

MAX_TOGETHER: Final = 1000  # orders of one script call: Lua's unpack ends near 8,000 values

_EACH: Final = Mode(Slot.NONE)
_TOGETHER: Final = Mode(Slot.NONE, together=True)


class _Deduction(NamedTuple):
    goods_id: str
    quantity: int
    stock: str


class Inventory(Component):
    """Holds the stock of each item and the ledger of orders; never sells a unit twice.

    Keys: per item `stock` (hash with the article's `Total` and `Booked`) and `buyers`; per sale `orders` (the ledger),
    `orderList`, `meta`.

    Args:
        client: a redis-py asyncio client; we copy its settings and leave it alone.
        sale: name of the sale.
        keys: the key layout; `PlainKeys()` for the article's bare names.
        max_waiting: callers that may wait in this process before `Overloaded` is raised.
    """

    def __init__(
        self, client: Client | Link, sale: str, *, keys: Keys | None = None, max_waiting: int = MAX_WAITING
    ) -> None:
        super().__init__(client, sale, keys, max_waiting)
        link = self._link
        self._reservations = Reservations(link, self.keys)
        self._deductions = Coalescer[_Deduction, int](
            self._deduct, callers=link.callers, time=link.timeout, last=link.patience, abandon=self._abandon
        )

    # -- setting up -------------------------------------------------------------------------------------------------

    async def load_scripts(self) -> list[str]:
        """SCRIPT LOADs every script and returns the SHA1s. Not needed: calls load what is missing."""
        return await self._link.load(list(SCRIPTS.values()))

    async def preload(
        self,
        goods_id: str,
        total: int,
        *,
        booked: int = 0,
        per_buyer: int | None = None,
        opens_at: float | None = None,
        closes_at: float | None = None,
        hold: float | None = None,
        version: int = 0,
    ) -> None:
        """Creates the stock of one item; the same call again changes nothing.

        Args:
            goods_id: which item.
            total: units for sale.
            booked: units of them already sold elsewhere.
            per_buyer: most units one buyer may hold.
            opens_at: epoch seconds before which `reserve` answers NOT_STARTED.
            closes_at: epoch seconds from which `reserve` answers ENDED.
            hold: seconds to pay after the order was persisted.
            version: of the database row that this comes from.

        Raises:
            AlreadyLoaded: it exists with other values.
        """
        check_policy(per_buyer, opens_at, closes_at, hold)
        await self._load(goods_id, total, policy(per_buyer, opens_at, closes_at, hold), booked=booked, version=version)

    async def _load(
        self,
        goods_id: str,
        total: int,
        fields: Mapping[str, str],
        *,
        booked: int = 0,
        version: int = 0,
        allotted: int | None = None,
    ) -> None:
        """Creates the stock of one item; see `preload`.

        Args:
            goods_id: which item.
            total: units here.
            fields: the policy.
            booked: units of them already sold elsewhere.
            version: of the database row that this comes from.
            allotted: units of the whole sale, in the partition where they arrive.
        """
        check_int("total", total, 0)
        check_int("booked", booked, 0, total)
        check_int("version", version, 0)
        request = "|".join([str(total), str(booked), *fields.values()])
        given: list[Argument] = [item for field in fields.items() if field[1] for item in field]
        if allotted is not None:
            given += ("Allotted", allotted)
        keys = [self.keys.meta, self.keys.stock(goods_id), self.keys.goods]
        arguments: list[Argument] = [goods_id, total, booked, request, *given, "version", version]
        if await self._link.run("load", keys, arguments) == Code.DIFFERENT:
            raise AlreadyLoaded("the stock exists with other values", sale=self.sale, goods_id=goods_id)

    async def _configure(self, goods: Goods, *, keep_total: bool = False) -> int:
        """Sets total and policy, unless Redis has the row in a newer version; `Booked` is never touched.

        `Total` stops at `Booked`; it stays, where only the policy is to be set.

        Returns:
            The total that stands, in units.

        Raises:
            UnknownGoods: not in Redis.
        """
        fields = policy(goods.per_buyer, goods.opens_at, goods.closes_at, goods.hold)
        total = "" if keep_total else goods.total
        arguments: list[Argument] = [goods.version, total, *(item for field in fields.items() for item in field)]
        code, stands = await self._link.run("configure", [self.keys.stock(goods.goods_id)], arguments)
        if code not in {Code.DONE, Code.STALE}:
            fail(code, self.sale, goods.goods_id)
        return int(stands)

    # -- units ------------------------------------------------------------------------------------------------------

    async def deduct(self, goods_id: str, quantity: int = 1) -> int:
        """Takes units by the article's script, past the ledger. Not idempotent, so never retried.

        Callers of one process share round trips. The units of a caller cancelled meanwhile are given back; of those
        whose reply was lost as well, nobody knows.

        Returns:
            `quantity`, or 0 when fewer units are left.

        Raises:
            UnknownGoods: never preloaded.
            OutcomeUnknown: sent, no reply: the units may be taken.
            NotExecuted: nothing happened.
        """
        check_quantity(quantity)
        return await self._deductions.submit(_Deduction(goods_id, quantity, self.keys.stock(goods_id)))

    async def release(self, goods_id: str, quantity: int = 1) -> int:
        """Gives back units taken by `deduct`, never more than there are.

        Returns:
            The units given back.

        Raises:
            UnknownGoods: never preloaded.
        """
        check_quantity(quantity)
        return self._units(goods_id, await self._link.run("release", [self.keys.stock(goods_id)], [quantity]))

    async def stock(self, goods_id: str) -> Stock:
        """Returns total, booked, remaining and untracked units.

        Raises:
            UnknownGoods: never preloaded.
        """
        fields = await self._link.command("HMGET", self.keys.stock(goods_id), "Total", "Booked", "Ledger")
        if fields[0] is None and fields[1] is None:
            fail(Code.UNKNOWN, self.sale, goods_id)
        total, booked, ledger = number(fields[0]), number(fields[1]), number(b"0" if fields[2] is None else fields[2])
        if total is None or booked is None or ledger is None:
            fail(Code.CORRUPT, self.sale, goods_id)
        return Stock(total=total, booked=booked, remaining=max(0, total - booked), direct=max(0, booked - ledger))

    async def _holds(self, goods_ids: Iterable[str]) -> dict[str, float | None]:
        """Returns the seconds to pay, of each item; None where there is no deadline."""
        holds = {}
        for goods_id in goods_ids:
            hold = await self._link.command("HGET", self.keys.stock(goods_id), "hold")
            holds[goods_id] = hold_seconds(hold)
        return holds

    # -- orders -----------------------------------------------------------------------------------------------------

    async def reserve(self, orders: Sequence[Order], *, together: bool = False) -> list[Receipt]:
        """Books orders: one script consults the ledger, checks window, cap and stock, deducts, records and enqueues.

        Idempotent by order id: repeating an accepted order returns its receipt with `replayed=True`; a refused one is
        decided anew. The start flag is the gate's.

        Args:
            orders: any number; with `together` at most 1,000. Each is answered on its own.
            together: all or nothing, as for a basket. The same item twice is summed. Refused, every receipt carries an
                outcome that is not ACCEPTED: its own, or that of the first order in the way.

        Returns:
            One receipt per order, in their order.

        Raises:
            OrderConflict: an order id is taken by other content.
            UnknownGoods: the item was never preloaded.
            CorruptState: what Redis holds of this item cannot be trusted.
            OutcomeUnknown: sent, no reply: ask again with the same order ids.
            NotExecuted: nothing happened.
            The first three concern single orders: the others are answered all the same, in the error's `answers`.
        """
        if len(orders) == 1:
            return [await self._reserve_one(orders[0])]
        answers = await self._reserve(orders, _TOGETHER if together else _EACH)
        for answer in answers:
            if isinstance(answer, FlashSaleError):
                answer.answers = answers
                raise answer
        return [answer for answer in answers if isinstance(answer, Receipt)]

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _reserve_one(self, order: Order) -> Receipt:
        """Concurrent callers with one order each share a script call."""
        try:
            return await self._reservations.singles.submit((order, _EACH))
        except FlashSaleError as error:
            if isinstance(error, (NotExecuted, OutcomeUnknown)):
                set_order_id(error, order.order_id)
            error.answers = [error]
            raise

    async def _reserve(self, orders: Sequence[Order], mode: Mode) -> Answers:
        """Reserves many orders by as few calls as they fit in; the errors of single orders stand in their places."""
        if mode.together and len(orders) > MAX_TOGETHER:
            raise InvalidRequest("orders", f"at most {MAX_TOGETHER} together")
        if mode.together and len({order.order_id for order in orders}) < len(orders):
            raise InvalidRequest("orders", "an order id stands twice")
        answers: Answers = []
        for part in batches(orders, MAX_TOGETHER if mode.together else BATCH):
            try:
                with about(part[0].order_id):
                    answers += await self._reservations.book(part, mode)
            except (NotExecuted, OutcomeUnknown) as error:
                if not answers:
                    raise
                half = OutcomeUnknown("only the first part of the orders was answered", order_id=part[0].order_id)
                half.answers = [*answers, *[error] * (len(orders) - len(answers))]
                raise half from error
        return answers

    async def _deduct(self, batch: Sequence[_Deduction]) -> list[int | FlashSaleError]:
        stocks, quantities = [each.stock for each in batch], [each.quantity for each in batch]
        reply = await self._link.run("deduct", stocks, quantities)
        taken = [reply] if len(batch) == 1 else reply
        return [
            units if units >= 0 else goods_error(units, self.sale, each.goods_id)
            for each, units in zip(batch, taken, strict=True)
        ]

    async def _abandon(self, deduction: _Deduction, taken: int) -> None:
        if taken:
            await self.release(deduction.goods_id, taken)

    def _units(self, goods_id: str, reply: int) -> int:
        return int(reply) if reply >= 0 else fail(reply, self.sale, goods_id)
