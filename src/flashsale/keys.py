"""The Redis keys of a sale (docs/design.md): the layout that operators and other programs read.

`Keys` puts everything under one literal hash tag, so that a sale lives in one Redis Cluster slot.
`PlainKeys` uses the article's bare names for what the article names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from flashsale.errors import InvalidRequest
from flashsale.model import Order
from flashsale.model.checks import check_goods_id, check_sale


@dataclass(frozen=True)
class Keys:
    """The key names of one sale: `flashsale:{sale}:...`. Whatever takes the keys fills in the sale."""

    sale: str = ""

    def of(self, sale: str) -> Self:
        """Returns the keys of `sale`; refuses keys that already belong to another."""
        check_sale(sale)
        if self.sale not in {"", sale}:
            raise InvalidRequest("keys", f"these are the keys of sale {self.sale!r}, not of {sale!r}")
        return replace(self, sale=sale)

    def _goods(self, goods_id: str, name: str) -> str:
        return f"flashsale:{{{self.sale}}}:{check_goods_id(goods_id)}:{name}"

    def _sale(self, name: str) -> str:
        return f"flashsale:{{{self.sale}}}:{name}"

    def _of_sale(self) -> tuple[str, ...]:
        """Every key of the stock that belongs to the whole sale, not to one item."""
        return (
            self.meta,
            self.goods,
            self.orders,
            self.order_list,
            self.wakeup,
            self.leases,
            self.claimed,
            self.dead,
            self.holds,
            self.processes,
            self.minutes,
            self.stats,
            self.trail,
        )

    @staticmethod
    def _number(orders: Iterable[Order]) -> dict[str, int]:
        """Numbers the items of a batch from 1, as the scripts refer to them."""
        goods = dict.fromkeys(order.goods_id for order in orders)
        return {goods_id: place for place, goods_id in enumerate(goods, start=1)}

    # -- gate ---------------------------------------------------------------------------------------------------

    def count(self, goods_id: str) -> str:
        """String: units that may pass (the article's `goodsId_count`)."""
        return self._goods(goods_id, "count")

    def start(self, goods_id: str) -> str:
        """String 0/1: the start flag (`goodsId_start`)."""
        return self._goods(goods_id, "start")

    def access(self, goods_id: str) -> str:
        """String: units that passed (`goodsId_access`), never above count."""
        return self._goods(goods_id, "access")

    def window(self, goods_id: str) -> str:
        """Hash: opens_at, closes_at, pause, per_buyer: the gate's copy of what the stock says."""
        return self._goods(goods_id, "window")

    def tickets(self, goods_id: str) -> str:
        """Hash: buyer id -> `end|units|order id` of the buyer's ticket, of an item that has a cap."""
        return self._goods(goods_id, "tickets")

    def gate(self, goods_id: str) -> tuple[str, str, str, str]:
        """The gate's four keys without the tickets, in the order in which its scripts take them."""
        return (self.count(goods_id), self.start(goods_id), self.access(goods_id), self.window(goods_id))

    # -- stock --------------------------------------------------------------------------------------------------

    def stock(self, goods_id: str) -> str:
        """Hash: Total, Booked (the article's `goodsId`), Ledger, window, cap, version."""
        return self._goods(goods_id, "stock")

    def buyers(self, goods_id: str) -> str:
        """Hash: units of each buyer, of an item that has a cap."""
        return self._goods(goods_id, "buyers")

    @property
    def order_list(self) -> str:
        """List: JSON orders, LPUSH in, taken from the right (`orderList`)."""
        return self._sale("orderList")

    @property
    def orders(self) -> str:
        """Hash, the ledger: order id -> `state|quantity|gated|goods|seq|buyer`."""
        return self._sale("orders")

    @property
    def meta(self) -> str:
        """Hash: epoch, state (open, paused, closed), layout, seq."""
        return self._sale("meta")

    @property
    def goods(self) -> str:
        """Set: the `goods_id` of every item that was preloaded."""
        return self._sale("goods")

    @property
    def wakeup(self) -> str:
        """List: at most one element, that wakes a waiting worker."""
        return self._sale("bell")

    @property
    def leases(self) -> str:
        """Sorted set: delivery -> lease end in Redis TIME, seconds."""
        return self._sale("leases")

    @property
    def claimed(self) -> str:
        """Hash: delivery -> `attempts|lease|body`."""
        return self._sale("claimed")

    @property
    def dead(self) -> str:
        """Hash: order id (or a blank and the delivery) -> `attempts|lease|body`."""
        return self._sale("dead")

    @property
    def holds(self) -> str:
        """Sorted set: order id -> payment deadline in Redis TIME, seconds."""
        return self._sale("holds")

    # -- recorder -----------------------------------------------------------------------------------------------

    @property
    def processes(self) -> str:
        """Hash: kind, host and process id -> `beat|since|JSON`, the last heartbeat of each process."""
        return self._sale("processes")

    @property
    def minutes(self) -> str:
        """Sorted set: the minutes, counted from the epoch, of which there are counts."""
        return self._sale("minutes")

    @property
    def stats(self) -> str:
        """Hash: `item|outcome`, and other names -> how often since the sale began."""
        return self._sale("stats")

    def stats_of(self, minute: int) -> str:
        """Hash: the same of one minute."""
        return self._sale(f"stats:{minute}")

    @property
    def trail(self) -> str:
        """List: JSON entries of the trail that the database has yet to take, oldest on the right."""
        return self._sale("trail")

    def samples(self, goods_id: str) -> str:
        """List: `time|total|booked|access|queued|claimed|dead|lag` at each pass of the syncer, oldest first."""
        return self._goods(goods_id, "samples")


@dataclass(frozen=True)
class PartitionKeys(Keys):
    """The keys of one partition of a sale: `flashsale:{sale~8.03}:...`, in the fourth of eight equal ranges of slots.

    Args:
        sale: name of the sale.
        tag: the hash tag: a blank tag is filled in by nobody.
    """

    tag: str = ""

    def _goods(self, goods_id: str, name: str) -> str:
        return f"flashsale:{{{self.tag}}}:{check_goods_id(goods_id)}:{name}"

    def _sale(self, name: str) -> str:
        return f"flashsale:{{{self.tag}}}:{name}"

    def transfers(self, goods_id: str) -> str:
        """Hash: units on their way from and to other partitions, and how often units have moved."""
        return self._goods(goods_id, "transfers")

    def units(self, goods_id: str) -> tuple[str, str, str, str, str]:
        """What a script about the units of a partition takes, in its order."""
        return (self.meta, self.stock(goods_id), self.transfers(goods_id), self.count(goods_id), self.access(goods_id))


@dataclass(frozen=True)
class PlainKeys(Keys):
    """The article's bare layout, to share with services that already use it.

    One sale per Redis database, no Redis Cluster. Goods ids that collide with a name of the layout are refused.
    """

    _SUFFIXES = ("_count", "_start", "_access")

    def _goods(self, goods_id: str, name: str) -> str:
        check_goods_id(goods_id)
        if goods_id == "orderList" or goods_id.endswith(self._SUFFIXES):
            raise InvalidRequest("goods_id", f"{goods_id!r} collides with a key of the plain layout")
        if name == "stock":
            return goods_id
        if name in {"count", "start", "access"}:
            return f"{goods_id}_{name}"
        return super()._goods(goods_id, name)

    @property
    def order_list(self) -> str:
        """List `orderList`."""
        return "orderList"
