"""The state of a whole sale (hash `meta`): open, paused or closed, its epoch, and which syncer leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from flashsale._rules.codes import number, policy
from flashsale.aio.transport.link import Argument, Link
from flashsale.errors import CorruptState, InvalidRequest, PartitionMismatch, UnknownGoods
from flashsale.keys import Keys
from flashsale.lua import Code
from flashsale.model import Goods
from flashsale.model.checks import is_goods_id

LAST: Final = 9 * 10**14  # as `sequence` in lua/include/lost.lua


class SaleState(NamedTuple):
    """`state` is open, paused or closed. When Redis holds nothing of the sale, `epoch` is None and `seq` is 0.

    `seq` is None when it is not what flashsale writes: then nothing is accepted until a rebuild.
    """

    state: str
    epoch: int | None
    seq: int | None


class Loss(NamedTuple):
    """What Redis has lost of a sale.

    Args:
        key: `orders` or `meta`, when it was found lost just now; from then on only a rebuild opens the sale.
        closed: True while the sale is closed.
        goods: items of which nobody knows any more what each buyer holds; they sell nothing until a rebuild.
    """

    key: str | None
    closed: bool
    goods: tuple[str, ...]


class SaleMeta:
    """Reads and sets the state of one sale.

    Args:
        link: to the Redis of the stock.
        keys: of the sale.
    """

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def state(self) -> SaleState:
        """Returns state, epoch and the ledger's sequence number."""
        state, epoch, seq = await self._link.command("HMGET", self._keys.meta, "state", "epoch", "seq")
        known, last = number(epoch), number(seq or b"0")
        if epoch is not None and known is None:
            raise CorruptState(f"the epoch of sale {self._keys.sale!r} is not a number")
        if last is not None and last >= LAST:
            last = None
        return SaleState(str(state or b"open", "ascii", "replace"), known, last)

    async def is_known(self) -> bool:
        """Returns whether Redis holds a sale that was begun; a syncer's lease alone begins none.

        Raises:
            PartitionMismatch: it was begun with partitions.
        """
        layout, *others = await self._link.command(
            "HMGET", self._keys.meta, "layout", "seq", "deliveries", "partitions"
        )
        if layout == b"partitions":
            raise PartitionMismatch(*map(int, others[-1].split()))
        return any((layout, *others[:2]))

    async def notice(self, loaded: Sequence[str]) -> Loss:
        """Closes the sale if its ledger, or `meta`, is lost; names in the set `goods` that are lost return.

        Args:
            loaded: `goods_id` of the items that Redis held once.
        """
        keys = [self._keys.meta, self._keys.orders, self._keys.goods]
        for goods_id in loaded:
            keys += (self._keys.stock(goods_id), self._keys.buyers(goods_id))
        lost, state, *goods = await self._link.run("notice", keys, loaded)
        return Loss(str(lost, "ascii") or None, state == b"closed", tuple(str(name, "ascii") for name in goods))

    async def goods(self) -> list[str]:
        """Returns the `goods_id` of every item that was preloaded; what somebody else wrote there is left out."""
        return [name for name in await self._names() if is_goods_id(name)]

    async def strange_goods(self) -> list[str]:
        """Returns what stands among the items and is no `goods_id`."""
        return [name for name in await self._names() if not is_goods_id(name)]

    async def _names(self) -> list[str]:
        return sorted(str(name, "ascii", "replace") for name in await self._link.command("SMEMBERS", self._keys.goods))

    async def pause(self, *, paused: bool) -> None:
        """Pauses or resumes the sale.

        Raises:
            UnknownGoods: no item was ever preloaded.
            InvalidRequest: the sale is closed for a rebuild.
        """
        code = await self._link.run("pause", [self._keys.meta], ["paused" if paused else "open"])
        if code == Code.UNKNOWN:
            raise UnknownGoods(f"no item of sale {self._keys.sale!r} was ever preloaded")
        if code == Code.REFUSED:
            raise InvalidRequest("sale", "it is closed; only a rebuild opens it")

    async def lead(self, token: str, lease: float) -> int:
        """Takes or renews the lease of the syncers for `lease` seconds, or gives it up with 0; 0: another one leads."""
        return int(await self._link.run("lead", [self._keys.meta], [token, f"{lease:.6f}"]))

    async def share(self, token: str, lease: float, slots: int, *, busy: bool = False) -> list[int]:
        """Takes or renews a fair share of the outbox's slots for `lease` seconds, or gives them up with 0.

        Args:
            token: names this process.
            lease: seconds.
            slots: how many there are.
            busy: an event is being handled: the slots stay as they are.

        Returns:
            For each slot 0 when it is not this process's; 2 when it was before and no other has had it since; else 1.
        """
        wanted: list[Argument] = [token, f"{lease:.6f}", slots, int(busy)]
        return [int(code) for code in await self._link.run("share", [self._keys.meta], wanted)]

    async def close(self, epoch: int) -> None:
        """Begins an epoch, closed: nothing is sold until `open`."""
        self._in_epoch(await self._link.run("close", [self._keys.meta], [epoch]))

    async def open(self, goods: Iterable[Goods], epoch: int) -> None:
        """Ends the rebuild of this epoch."""
        keys = [self._keys.meta, *(self._keys.stock(each.goods_id) for each in goods)]
        self._in_epoch(await self._link.run("open", keys, [epoch]))

    async def wipe(self, goods: Sequence[Goods], epoch: int) -> Counter[str]:
        """Empties ledger, deadlines and stocks for a rebuild, in one step; the queue and its claims stay.

        Total is 0 from then until `Inventory._configure`.

        Returns:
            The units of each item that the ledger had, before this rebuild or one that it repeats.
        """
        keys = [self._keys.meta, self._keys.orders, self._keys.holds, self._keys.goods]
        arguments: list[Argument] = [epoch]
        for each in goods:
            keys += (self._keys.stock(each.goods_id), self._keys.buyers(each.goods_id))
            fields = policy(each.per_buyer, each.opens_at, each.closes_at, each.hold)
            arguments += (each.goods_id, each.version, *fields.values())
        code, *tracked = await self._link.run("wipe", keys, arguments)
        self._in_epoch(code)
        return Counter({each.goods_id: int(units) for each, units in zip(goods, tracked, strict=True)})

    def _in_epoch(self, code: int) -> None:
        if code != Code.DONE:
            raise CorruptState(f"another rebuild of sale {self._keys.sale!r} has begun")
