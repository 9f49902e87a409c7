"""The recorder of a sale over several partitions: processes and counts are told to the first, all are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

from typing_extensions import override

from flashsale._rules.looks import merged
from flashsale.aio.recorder import Recorder, gate_keys, look_keys, read_gates, read_look
from flashsale.aio.transport.link import Link, Query, read_all
from flashsale.aio.transport.runtime import spend, together
from flashsale.errors import FlashSaleError, NotExecuted
from flashsale.keys import Keys
from flashsale.model.checks import is_goods_id
from flashsale.model.snapshot import Snapshot

WITHIN: Final = 0.25  # seconds that all partitions have to answer; who has not is asked once more, as long


class PartitionedRecorder(Recorder):
    """Writes to the first partition, and reads all of them.

    Attributes:
        links: to the server of each partition.
        names: the keys of each.
    """

    links: Sequence[Link]
    names: Sequence[Keys]

    @override
    async def look(self) -> Snapshot:
        """Returns the sum of one look at each partition; one that does not answer is named, and not in the sums.

        Raises:
            NotExecuted: none answers.
        """
        places = list(range(len(self.links)))
        items = await self._ask("items", places, lambda keys: [keys.goods])
        goods = sorted({name for reply in items.values() for name in _names(reply) if is_goods_id(name)})
        replies = await self._ask("look", list(items), partial(look_keys, goods=goods))
        gates: dict[int, Any] = dict.fromkeys(replies, ())
        if goods:
            gates = await self._ask("gates", list(replies), partial(gate_keys, goods=goods))
        if not gates:
            raise NotExecuted("no partition answers", reason="PARTITION")
        looks = {place: read_look(goods, replies[place], read_gates(gates[place])) for place in gates}
        return merged([looks.get(place) for place in places])

    @override
    async def _sample(self, look: Snapshot) -> None:
        if not look.away:  # a sum without one of them would tell of units that came and went
            await super()._sample(look)

    async def _ask(self, script: str, places: list[int], keys: Callable[[Keys], Sequence[str]]) -> dict[int, Any]:
        """Returns the reply of each of these partitions that answers, by their places."""
        queries = {place: Query(self.links[place], script, keys(self.names[place])) for place in places}
        replies = await read_all(list(queries.values()), monotonic() + WITHIN)
        found = {place: reply for place, reply in zip(places, replies, strict=True) if reply is not None}
        late = [place for place in places if place not in found]
        if late:  # its server may lack the script
            until = monotonic() + WITHIN
            again = await together([partial(_run, queries[place], until) for place in late])
            found |= {
                place: reply for place, reply in zip(late, again, strict=True) if not isinstance(reply, FlashSaleError)
            }
        return {place: found[place] for place in places if place in found}


async def _run(query: Query, until: float) -> Any:
    return await spend(until, query.link.run, query.name, query.keys)


def _names(reply: Sequence[Any]) -> list[str]:
    return [str(name, "ascii", "replace") for name in reply]
