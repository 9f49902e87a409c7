"""The gate: the article's traffic interception on a read/write-split Redis.

Start flag, access counter, bounded entry. It admits only as many units as are for sale.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from time import monotonic
from typing import Any, Final, TypeAlias

from typing_extensions import override

from flashsale._rules.codes import REFUSALS, fail, goods_error, seconds
from flashsale._rules.refusal_cache import OPEN, Refusal, RefusalCache
from flashsale._rules.tally import Tally
from flashsale.aio.clients import Client
from flashsale.aio.transport.coalescer import BATCH, Coalescer
from flashsale.aio.transport.component import MAX_WAITING, Component
from flashsale.aio.transport.link import Argument, Link
from flashsale.errors import AlreadyLoaded, FlashSaleError
from flashsale.keys import Keys
from flashsale.lua import SCRIPTS, Code
from flashsale.model import Admission, GateState, Outcome, admission_of
from flashsale.model.checks import check_goods_id, check_int, check_policy, check_quantity, check_seconds

ONE: Final = 1  # unit: what a caller who says nothing asks for
_ADMITTED: Final = Outcome.ADMITTED  # looking it up in its enum takes time for each
SWEPT: Final = 500  # tickets of one page: some tenths of a millisecond of Redis

_Entry: TypeAlias = tuple[str, int]  # item id, units


class Gate(Component):
    """Lets as many units pass as are for sale, once the sale has started.

    Keys, per item: `count`, `start`, `access` (the article's `goodsId_count`, `goodsId_start`, `goodsId_access`),
    `window` and `tickets`.

    Args:
        client: a redis-py asyncio client; we copy its settings and leave it alone.
        sale: name of the sale.
        replica: a client of a replica, asked where a second's delay does no harm.
        keys: the key layout; `PlainKeys()` for the article's bare names.
        cache_for: seconds for which a refusal is answered from the process; 0: never.
        max_waiting: callers that may wait in this process before `Overloaded` is raised.
    """

    def __init__(
        self,
        client: Client | Link,
        sale: str,
        *,
        replica: Client | None = None,
        keys: Keys | None = None,
        cache_for: float = 0.05,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        super().__init__(client, sale, keys, max_waiting)
        self._tally = Tally()
        self._refusals = RefusalCache(check_seconds("cache_for", cache_for), self._tally)
        self._remembered = self._refusals.by_goods
        self._group = lru_cache(1024)(self.keys.gate)  # every call needs them, and they cost more than the lookup
        link = self._link
        self._timeout = link.timeout
        self._replica = None if replica is None else Link(replica, link.callers, timeout=link.timeout)
        self._entries = Coalescer[_Entry, Admission](
            self._enter,
            callers=link.callers,
            time=link.timeout,
            last=link.patience,
            abandon=self._abandon,
            worth_a_call=BATCH,  # Redis is done with one before another could be written
        )
        self._ask = self._entries.submit  # the primary: for whom no remembered refusal may answer, or has

    def _remember(self, refusals: RefusalCache) -> None:
        """Remembers and counts where other gates do, too."""
        self._refusals, self._remembered, self._tally = refusals, refusals.by_goods, refusals.tally

    # -- setting up -------------------------------------------------------------------------------------------------

    async def load_scripts(self) -> list[str]:
        """SCRIPT LOADs every script and returns the SHA1s."""
        return await self._link.load(list(SCRIPTS.values()))

    async def preload(
        self,
        goods_id: str,
        count: int,
        *,
        opens_at: float | None = None,
        closes_at: float | None = None,
        per_buyer: int | None = None,
    ) -> None:
        """Creates the gate of one item, shut; the same call again changes nothing, not even the window.

        Args:
            goods_id: which item.
            count: units that may pass.
            opens_at: as in `schedule`.
            closes_at: as in `schedule`.
            per_buyer: most units of one ticket; `enter` here does not ask who comes.

        Raises:
            AlreadyLoaded: it exists with another count.
        """
        if await self._create(goods_id, count, opens_at, closes_at, per_buyer) == Code.DIFFERENT:
            raise AlreadyLoaded("the gate exists with another count", sale=self.sale, goods_id=goods_id)

    async def _ensure(
        self,
        goods_id: str,
        count: int,
        *,
        opens_at: float | None = None,
        closes_at: float | None = None,
        per_buyer: int | None = None,
    ) -> None:
        """Creates the gate if it is not there, whatever count it has, and sets its window if that differs.

        Setting the same window again would let the clock start an item that somebody has stopped.
        """
        await self._create(goods_id, count, opens_at, closes_at, per_buyer)
        state = await self._read(self._link, goods_id)
        if (seconds(state.opens_at), seconds(state.closes_at)) != (seconds(opens_at), seconds(closes_at)):
            await self.schedule(goods_id, opens_at=opens_at, closes_at=closes_at)

    async def start(self, goods_id: str) -> None:
        """Sets the start flag to 1; `opens_at` and `closes_at` still hold.

        Raises:
            UnknownGoods: never preloaded.
        """
        await self._flag(goods_id, 1)

    async def stop(self, goods_id: str) -> None:
        """Sets the start flag to 0 at once, for every process within `cache_for`.

        Raises:
            UnknownGoods: never preloaded.
        """
        await self._flag(goods_id, 0)

    async def resize(self, goods_id: str, count: int) -> int:
        """Changes how many units may pass; below `access` it stops at `access`.

        Returns:
            The count that stands.

        Raises:
            UnknownGoods: never preloaded.
        """
        check_int("count", count, 0)
        keys = [self.keys.count(goods_id), self.keys.access(goods_id)]
        return self._units(goods_id, await self._link.run("resize", keys, [count]))

    async def schedule(self, goods_id: str, *, opens_at: float | None = None, closes_at: float | None = None) -> None:
        """Sets the window; the Redis server's clock decides.

        Args:
            goods_id: which item.
            opens_at: epoch seconds; from then on the start flag is 1. None: the flag moves only by hand.
            closes_at: epoch seconds; from then on the answer is ENDED. None: never.

        Raises:
            UnknownGoods: never preloaded.
        """
        check_policy(None, opens_at, closes_at)
        keys = [self.keys.count(goods_id), self.keys.window(goods_id)]
        self._done(goods_id, await self._link.run("schedule", keys, [seconds(opens_at), seconds(closes_at)]))

    async def _mirror_pause(self, goods_id: str, *, paused: bool) -> None:
        """Mirrors the sale's pause, to refuse early; the stock decides."""
        await self._link.command("HSET", self.keys.window(goods_id), "pause", int(paused))
        self._refusals.forget(goods_id)

    async def _forget(self, goods_ids: Iterable[str]) -> None:
        """Removes the gates of these items."""
        for goods_id in goods_ids:
            await self._link.command("UNLINK", *self.keys.gate(goods_id), self.keys.tickets(goods_id))
            self._refusals.forget(goods_id)

    async def _mirror(
        self,
        goods_id: str,
        count: int,
        booked: int,
        *,
        access: int | None = None,
        paused: bool = False,
        per_buyer: int | None = None,
        stock_here: bool = False,
    ) -> tuple[int, int]:
        """Makes the gate follow the stock; the Syncer's call.

        Args:
            goods_id: which item.
            count: the stock's total, in units.
            booked: the stock's booked units.
            access: what `access` was at the last look, if the stock has not moved since: then whatever lies above
                `booked` has leaked and is given back.
            paused: the sale is paused.
            per_buyer: the cap, in units.
            stock_here: the stock shares this Redis: its booked units are read in the same script.

        Returns:
            The access that stands, and the slots given back, in units.

        Raises:
            UnknownGoods: never preloaded.
        """
        arguments = [count, booked, _given(access), int(paused), _given(per_buyer)]
        keys = [*self.keys.gate(goods_id), *([self.keys.stock(goods_id)] if stock_here else [])]
        code, access_now, returned = await self._link.run("mirror", keys, arguments)
        self._done(goods_id, code)
        return int(access_now), int(returned)

    async def _sweep(self, goods_id: str, cursor: str, *, orders_here: bool) -> str:
        """Removes dead tickets of one page, and returns where the next one begins; "0" after the last.

        Args:
            goods_id: which item.
            cursor: where the page begins; "0" at first.
            orders_here: the ledger shares this Redis: used tickets are removed as well as expired ones.
        """
        keys = [self.keys.tickets(goods_id), *([self.keys.orders] if orders_here else [])]
        following, _ = await self._link.run("sweep", keys, [cursor, SWEPT])
        return str(following, "ascii")

    # -- the hot path -----------------------------------------------------------------------------------------------

    async def enter(self, goods_id: str, quantity: int = ONE) -> Admission:
        """Asks to pass with `quantity` units.

        Callers of one process share round trips. A refusal is remembered for `cache_for` seconds.

        Returns:
            The outcome (ADMITTED, NOT_STARTED, ENDED, PAUSED, SOLD_OUT) and the units that may still pass.

        Raises:
            UnknownGoods: never preloaded.
            OutcomeUnknown: sent, no reply: a slot may be taken; the Syncer gives it back.
            NotExecuted: nothing happened.
        """
        try:
            refusal = self._remembered[goods_id]
        except (KeyError, TypeError):
            check_goods_id(goods_id)
            refusal = OPEN
        if quantity is ONE and type(goods_id) is str and monotonic() < refusal.fresh_until:
            refusal.given += 1
            return refusal.admission
        until = monotonic() + self._timeout
        if type(goods_id) is not str:  # equal to one that is remembered
            check_goods_id(goods_id)
        if quantity is not ONE:
            check_quantity(quantity)
        if refusal is not OPEN and (admission := await self._refused(goods_id, refusal)):
            return admission
        return await self._ask((goods_id, quantity), until)

    async def leave(self, goods_id: str, quantity: int = 1) -> int:
        """Gives back the slot of an admitted buyer who failed.

        Returns:
            The units given back, never more than had passed.

        Raises:
            UnknownGoods: never preloaded.
        """
        check_quantity(quantity)
        returned = self._units(goods_id, await self._link.run("leave", [self.keys.access(goods_id)], [quantity]))
        self._refusals.forget(goods_id)
        return returned

    async def state(self, goods_id: str) -> GateState:
        """Returns the gate's counters, and what it would tell a buyer; from the replica where there is one.

        Raises:
            UnknownGoods: never preloaded.
        """
        return await self._read(self._replica or self._link, goods_id)

    # -- life -------------------------------------------------------------------------------------------------------

    @override
    async def aclose(self) -> None:
        """Closes our connections; the host's stay."""
        try:
            await super().aclose()
        finally:
            if self._replica is not None:
                await self._replica.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _refused(self, goods_id: str, refusal: Refusal) -> Admission | None:
        """Returns the answer that a remembered refusal still gives, or None when the primary must be asked."""
        admission = self._refusals.give(refusal)
        if admission is None and self._replica is not None and self._refusals.may_ask_replica(goods_id):
            admission = await self._ask_replica(goods_id)
        return admission

    async def _enter(self, entries: list[_Entry]) -> list[Admission | FlashSaleError]:
        """Sends one batch; callers in a row who ask for the same are one run of the script."""
        runs = [(goods_id, units, len(list(callers))) for (goods_id, units), callers in groupby(entries)]
        goods = dict.fromkeys(goods_id for goods_id, _, _ in runs)
        numbers = {goods_id: number for number, goods_id in enumerate(goods, start=1)}
        keys = [key for goods_id in goods for key in self._group(goods_id)]
        arguments = [value for goods_id, units, callers in runs for value in (numbers[goods_id], units, callers)]
        reply = await self._link.run("enter", keys, arguments)
        answers: list[Admission | FlashSaleError] = []
        for place, run in enumerate(runs):
            answers += self._answer(*run, *reply[3 * place : 3 * place + 3])
        return answers

    async def _abandon(self, entry: _Entry, admission: Admission) -> None:
        """A caller was cancelled while the answer was under way: its slot returns."""
        if admission.admitted:
            await self.leave(*entry)

    def _answer(
        self, goods_id: str, units: int, callers: int, code: int, admitted: int, left: int, *, ticketless: bool = False
    ) -> list[Admission | FlashSaleError]:
        """Returns the answers of one run: the first callers were admitted, `code` says why the others were not."""
        answers: list[Admission | FlashSaleError] = []
        if admitted:
            self._refusals.forget(goods_id)  # it is open: the others may ask as well
            before = left + units * admitted
            admissions = range(before - units, left - 1, -units)
            answers += [admission_of((_ADMITTED, remaining, None, None)) for remaining in admissions]
        others = callers - admitted
        if others and code in REFUSALS:
            refusal = Admission(REFUSALS[code], left)
            self._refusals.note(goods_id, refusal, others, ticketless=ticketless)
            answers += [refusal] * others
        elif others:
            answers += [goods_error(code, self.sale, goods_id) for _ in range(others)]
        return answers

    async def _ask_replica(self, goods_id: str) -> Admission | None:
        assert self._replica is not None
        try:
            state = await self._read(self._replica, goods_id)
        except FlashSaleError:
            return None  # the primary answers this caller
        if state.outcome is Outcome.ADMITTED:
            return None
        self._refusals.renew(goods_id)
        return Admission(state.outcome, state.remaining)

    async def _create(
        self, goods_id: str, count: int, opens_at: float | None, closes_at: float | None, per_buyer: int | None
    ) -> int:
        check_policy(per_buyer, opens_at, closes_at)
        check_int("count", count, 0)
        arguments: list[Argument] = [count, seconds(opens_at), seconds(closes_at), _given(per_buyer)]
        return int(await self._link.run("open_gate", self.keys.gate(goods_id), arguments))

    async def _read(self, link: Link, goods_id: str) -> GateState:
        return self._state(goods_id, await link.run("gate_state", self.keys.gate(goods_id)))

    def _state(self, goods_id: str, reply: Any) -> GateState:
        if reply[0] in {Code.UNKNOWN, Code.CORRUPT}:
            fail(reply[0], self.sale, goods_id)
        remaining = int(reply[3])
        opens_at, closes_at = (float(at) if at else None for at in reply[4:6])
        return GateState(
            count=int(reply[1]),
            started=reply[0] == Code.DONE,
            access=int(reply[2]),
            remaining=remaining,
            outcome=REFUSALS.get(reply[0], Outcome.ADMITTED if remaining else Outcome.SOLD_OUT),
            now=float(reply[7]),
            opens_at=opens_at,
            closes_at=closes_at,
        )

    async def _flag(self, goods_id: str, flag: int) -> None:
        keys = [self.keys.count(goods_id), self.keys.start(goods_id), self.keys.window(goods_id)]
        self._done(goods_id, await self._link.run("flag", keys, [flag]))

    def _done(self, goods_id: str, code: int) -> None:
        self._refusals.forget(goods_id)
        if code != Code.DONE:
            fail(code, self.sale, goods_id)

    def _units(self, goods_id: str, reply: int) -> int:
        self._refusals.forget(goods_id)
        return reply if reply >= 0 else fail(reply, self.sale, goods_id)


def _given(value: int | None) -> Argument:
    return "" if value is None else value
