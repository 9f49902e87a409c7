"""The units of a sale over its partitions: looks at all of them, moves units, and says when there are none.

A move is debit, credit, landed, with at most one open for each ordered pair of partitions. It has no owner: whoever
finds an open one finishes it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from flashsale._rules.codes import fail, goods_error
from flashsale._rules.deadline import TIMEOUT, ends_at, too_late
from flashsale._rules.durability import Guarantee
from flashsale._rules.partitions import Look, Survey, read_survey, transfer_fields
from flashsale.aio.transport.link import Argument, Link, Query, read_all
from flashsale.aio.transport.runtime import Lock, sleep, spend
from flashsale.errors import CorruptState, NotExecuted, OutcomeUnknown, UnknownGoods
from flashsale.keys import PartitionKeys
from flashsale.lua import Code

WITHIN: Final = 0.25  # seconds in which all partitions must have answered a look for which a buyer waits
DEAF: Final = 0.05  # seconds, at least, for which a partition that did not is not asked again
PAUSE: Final = 0.0005  # seconds, at most, before another try where others were quicker; it doubles
LONGEST_PAUSE: Final = 0.02
LOOKS: Final = 20  # for two that agree: a sale whose units move faster cannot be summed


class Transfers:
    """Moves units of one sale between its partitions.

    Args:
        links: to the server of each partition.
        keys: of each partition.
        guarantee: what must have happened before a step of a move counts.
        keep: seconds for which "sold out" is believed.
        within: seconds of a look for which a buyer waits.
    """

    def __init__(
        self,
        links: Sequence[Link],
        keys: Sequence[PartitionKeys],
        guarantee: Guarantee,
        *,
        keep: float,
        within: float = WITHIN,
    ) -> None:
        self._links = links
        self._keys = keys
        self._guarantee = guarantee
        self._keep = keep
        self._within = within
        self._sale = keys[0].sale
        self._fields = transfer_fields(len(keys))
        self._process = os.getpid()
        self._locks: dict[str, Lock] = {}
        self._checked: dict[str, tuple[float, int]] = {}  # item -> when its last check began, and what it found free
        self._deaf_until = float("-inf")  # monotonic seconds

    # -- looking ----------------------------------------------------------------------------------------------------

    async def look(self, goods_id: str, *, is_urgent: bool = False) -> Look:
        """Looks at an item in all partitions, each at a moment of its own.

        Args:
            goods_id: which item.
            is_urgent: a buyer waits; see `read`.

        Raises:
            UnknownGoods: a partition does not hold the item.
            CorruptState: what a partition holds of it cannot be trusted.
            NotExecuted: a partition does not answer.
        """
        names = [keys.units(goods_id) for keys in self._keys]
        replies = await self.read("survey", names, self._fields, is_urgent=is_urgent)
        return Look([self._survey(place, goods_id, reply) for place, reply in enumerate(replies)])

    async def read(
        self, name: str, keys: Sequence[Sequence[str]], args: Sequence[Argument] = (), *, is_urgent: bool
    ) -> list[Any]:
        """Runs a script that changes nothing in all partitions at once, and returns the replies.

        Args:
            name: of the script.
            keys: of the script, in each partition.
            args: of the script.
            is_urgent: buyers wait no longer than `within`, and not at all where a partition was silent a moment ago.

        Raises:
            NotExecuted: a partition does not answer.
        """
        if is_urgent and monotonic() < self._deaf_until:
            raise NotExecuted("a partition did not answer a moment ago", reason="PARTITION")
        until = ends_at(self._within if is_urgent else self._links[0].patience)
        queries = [Query(link, name, each, args) for link, each in zip(self._links, keys, strict=True)]
        replies = await spend(until, read_all, queries, until)
        return [
            await self._ask_again(place, queries[place], until) if reply is None else reply
            for place, reply in enumerate(replies)
        ]

    async def look_twice(self, goods_id: str) -> Look | None:
        """Looks until two looks agree: so it stood at one moment. None: units move too fast."""
        before = await self.look(goods_id)
        for _ in range(LOOKS):
            look = await self.look(goods_id)
            if look.stamp == before.stamp and list(look.open()) == list(before.open()):
                return look
            before = look
        return None

    async def _ask_again(self, place: int, query: Query, until: float) -> Any:
        try:
            return await spend(until, query.link.run, query.name, query.keys, query.args)
        except (NotExecuted, OutcomeUnknown) as error:
            self._deaf_until = monotonic() + max(self._keep, DEAF)
            raise NotExecuted(f"partition {place} does not answer", reason="PARTITION") from error

    def _survey(self, place: int, goods_id: str, reply: Sequence[Any]) -> Survey:
        if reply[0] == Code.UNKNOWN:
            raise UnknownGoods(f"partition {place} does not hold it", sale=self._sale, goods_id=goods_id)
        with suppress(ValueError):
            if reply[0] == Code.DONE:
                return read_survey(reply)
        raise CorruptState(f"what partition {place} holds cannot be trusted", sale=self._sale, goods_id=goods_id)

    # -- fetching ---------------------------------------------------------------------------------------------------

    def checked(self, goods_id: str) -> float | None:
        """Returns when the check began, in monotonic seconds, that found no unit anywhere; None: there is none."""
        began, free = self._checked.get(goods_id, (0.0, 1))
        return None if free else began

    def forget(self, goods_id: str | None = None) -> None:
        """Forgets what checks have found of one item, or of all: units may be free again."""
        if goods_id is None:
            self._checked.clear()
        else:
            self._checked.pop(goods_id, None)

    async def fetch(self, to: int, goods_id: str, need: int, least: int) -> int | None:
        """Brings units to a partition that has too few, or finds that there are too few in all of them.

        That is said only after two looks, one after the other, that both find fewer than `least`, nothing on its way,
        and nothing moved between them. So `least` units that were free during all this time were seen. One caller of
        this process looks at a time, and the others take the answer of a check that began after they came, or no
        longer than `keep` before.

        Args:
            to: the partition.
            goods_id: which item.
            need: units that all its callers want.
            least: units of which even one caller would be glad.

        Returns:
            None: units have come, ask the stock again. Else how many are free everywhere, fewer than `least`.

        Raises:
            NotExecuted: a partition cannot be asked for units, has lost the item, or units move too fast.
        """
        asked, until = monotonic(), ends_at(TIMEOUT)
        async with self._lock(goods_id):
            began, free = self._checked.get(goods_id, (float("-inf"), 0))
            if began > asked - self._keep and free < least:
                return free
            try:
                return await self._fetch(to, goods_id, need, least, until)
            except (UnknownGoods, CorruptState, OutcomeUnknown) as error:  # of a look or a move: no order was touched
                raise NotExecuted("another partition cannot be asked for units", reason="PARTITION") from error

    def _lock(self, goods_id: str) -> Lock:
        if self._process != os.getpid():  # a thread that the fork left behind may hold one
            self._process, self._locks = os.getpid(), {}
        return self._locks.setdefault(goods_id, Lock())

    async def _fetch(self, to: int, goods_id: str, need: int, least: int, until: float) -> int | None:
        before: Look | None = None
        began, longest = monotonic(), PAUSE
        while monotonic() < until:
            now = monotonic()
            look = await self.look(goods_id, is_urgent=True)
            self._require_open(look)
            mine = look.surveys[to].left
            if mine >= least:
                return None
            if await self._finish(goods_id, look):
                before = None
            elif look.left >= least:
                before = None
                wanted = max(need, least) - mine
                if await self._bring(goods_id, to, wanted, look, ahead=True):
                    return None
                await sleep(random.uniform(0.0, longest))  # noqa: S311
                longest = min(2 * longest, LONGEST_PAUSE)
            elif before is not None and before.stamp == look.stamp:
                self._checked[goods_id] = began, look.left
                return look.left
            else:
                before, began = look, now
        raise too_late()

    def _require_open(self, look: Look) -> None:
        if any(each.state == "closed" for each in look.surveys) or len({each.epoch for each in look.surveys}) > 1:
            raise NotExecuted("a partition waits for a rebuild, which may bring units back", reason="CLOSED")

    # -- moving -----------------------------------------------------------------------------------------------------

    async def spread(self, goods_id: str) -> None:
        """Finishes the moves that somebody has left open, and evens out the units that are free.

        Where more is booked than there is, units are brought first: else others would sell what they stand for.
        """
        look = await self.look(goods_id)
        came = 0
        for place, each in enumerate(look.surveys):
            came += await self._bring(goods_id, place, each.lacking, look, ahead=False)
        if await self._finish(goods_id, look) or came:
            look = await self.look(goods_id)
        for place, to, units in look.even():
            await self._move(goods_id, place, to, units, look)

    async def allot(self, goods_id: str, version: int, total: int, look: Look) -> int:
        """Sets the units that the whole sale has, under the version of the row; what is booked stays.

        Args:
            goods_id: which item.
            version: of the row.
            total: units that the host wants to sell.
            look: the last one.

        Returns:
            The units that it has.
        """
        until = ends_at(TIMEOUT)
        while monotonic() < until:
            self._require_open(look)
            if not await self._finish(goods_id, look):
                code, stands = await self._run("allot", goods_id, 0, [look.epoch, version, total])
                if code == Code.STALE:
                    return int(stands)
                if code == Code.DONE:
                    lack = int(stands) - total
                    if lack <= 0 or not look.gather(0, lack, ahead=False):
                        return int(stands)
                    await self._bring(goods_id, 0, lack, look, ahead=False)
                elif code != Code.PAUSED:  # that one: the epoch has ended, and the next look tells why
                    fail(code, self._sale, goods_id)
            look = await self.look(goods_id)
        raise too_late()

    async def mend(self, goods_id: str) -> int:
        """Puts in the units that a failover lost, or takes out those that it left over, as far as they are free.

        Returns:
            The units added, below 0 when taken away.

        Raises:
            NotExecuted: units move too fast to be counted.
        """
        look = await self.look_twice(goods_id)
        if look is None or look.surveys[0].allotted is None:
            raise NotExecuted("units move too fast to be counted", reason="MOVING")
        await self._finish(goods_id, look)
        lacking = look.surveys[0].allotted - look.units
        if lacking < 0:
            await self._bring(goods_id, 0, -lacking, look, ahead=False)
        if not lacking:
            return 0
        arguments: list[Argument] = [look.epoch, look.surveys[0].mended, lacking]
        code, units = await self._run("mend", goods_id, 0, arguments)
        if code in {Code.PAUSED, Code.STALE}:
            raise NotExecuted("a rebuild has begun", reason="CLOSED")
        if code < 0:
            raise goods_error(code, self._sale, goods_id)
        return int(units)

    async def _bring(self, goods_id: str, to: int, wanted: int, look: Look, *, ahead: bool) -> int:
        """Moves units to a partition, the richest give first; returns how many arrived by this call."""
        arrived = 0
        for place, units in look.gather(to, wanted, ahead=ahead):
            arrived += await self._move(goods_id, place, to, units, look)
        return arrived

    async def _finish(self, goods_id: str, look: Look) -> int:
        """Finishes what is open, by asking for no more units: the answer is then the move that is."""
        moves = list(look.open())
        for place, to, _, _ in moves:
            await self._move(goods_id, place, to, 0, look)
        return len(moves)

    async def _move(self, goods_id: str, place: int, to: int, units: int, look: Look) -> int:
        """Moves units, or finishes the move that is open; returns how many arrived by this call.

        Wherever it ends, whoever looks next goes on from there. With a guarantee, a step counts once enough replicas
        have it: a failover then loses units, and never doubles them.
        """
        arguments: list[Argument] = [look.epoch, f"{to:02x}", units, look.seen(place, to)]
        (code, seq, taken), is_met = await self._run_behind("debit", goods_id, place, arguments)
        if code not in {Code.DONE, Code.REPLAYED} or not is_met:
            return 0
        credit: list[Argument] = [look.epoch, f"{place:02x}", seq, taken]
        credited, is_met = await self._run_behind("credit", goods_id, to, credit)
        if credited not in {Code.DONE, Code.REPLAYED} or not is_met:
            return 0
        keys = self._keys[place]
        landed: list[Argument] = [look.epoch, f"{to:02x}", seq]
        await self._links[place].run("landed", [keys.meta, keys.transfers(goods_id)], landed)
        return int(taken) if credited == Code.DONE else 0

    async def _run(self, name: str, goods_id: str, place: int, arguments: Sequence[Argument]) -> Any:
        return await self._links[place].run(name, self._keys[place].units(goods_id), arguments)

    async def _run_behind(
        self, name: str, goods_id: str, place: int, arguments: Sequence[Argument]
    ) -> tuple[Any, bool]:
        """Runs a step of a move; returns its reply, and whether the guarantee was met."""
        guarantee, keys = self._guarantee, self._keys[place]
        barrier = (lambda _: guarantee.barrier(keys.meta)) if guarantee.needs_barrier else None
        reply, acknowledged = await self._links[place].run_behind(barrier, name, keys.units(goods_id), arguments)
        return reply, barrier is None or guarantee.is_met(acknowledged)
