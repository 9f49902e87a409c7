"""Every error that flashsale raises, under one root.

The branch says what the caller may do next:

- `InvalidRequest`, `UnknownGoods`, `OrderConflict`: the request is wrong; asking again changes nothing.
- `NotExecuted`: nothing happened; it is safe to try again.
- `OutcomeUnknown`: it was sent, and no answer came; try again *with the same order id*.

No message carries buyers' data, and Redis's own errors are chained, never quoted with their arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, TypeVar

_Error = TypeVar("_Error", bound="FlashSaleError")


class FlashSaleError(Exception):
    """The root of all errors of this package.

    Attributes:
        answers: from `Inventory.reserve` of several orders: the `Receipt` or error of each, in their order.
        retry_safe: True: the same call, with the same arguments, may be made again: it does nothing twice. Each kind
            has its default; an error that knows better has its own.
    """

    answers: list[Any]
    retry_safe: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets an error be pickled with all its attributes, whatever its constructor takes."""
        return _new, (type(self), self.args), self.__dict__

    def _copy(self) -> Self:
        """Returns a copy for one more caller of a shared request; this error becomes its cause."""
        twin = _new(type(self), self.args)
        twin.__dict__.update(self.__dict__)
        twin.__cause__ = self
        return twin


def _new(kind: type[_Error], args: tuple[Any, ...]) -> _Error:
    return kind.__new__(kind, *args)


class InvalidRequest(FlashSaleError, ValueError):
    """An argument breaks the contract; nothing was sent.

    Attributes:
        field: name of the argument.
        reason: the rule that it breaks.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class InvalidTicket(InvalidRequest):
    """The admission ticket was not signed by us, has expired, or is for another purchase; nothing was sent.

    `FlashSale.enter` gives the buyer a new one.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("ticket", reason)


class GoodsError(FlashSaleError):
    """An error about one item of the sale.

    Attributes:
        sale: name of the sale, or None when the error concerns no single item.
        goods_id: id of the item, or None likewise.
    """

    def __init__(self, message: str, *, sale: str | None = None, goods_id: str | None = None) -> None:
        super().__init__(message if goods_id is None else f"{message} (sale {sale!r}, item {goods_id!r})")
        self.sale = sale
        self.goods_id = goods_id


class UnknownGoods(GoodsError, LookupError):
    """Redis does not hold this item: it was never preloaded, or it was lost."""


class UnknownSale(UnknownGoods):
    """Neither Redis nor the database knows the sale: is its name misspelt?

    Attributes:
        sale: the name.
        known: the sales that the database has, as far as the store can tell.
    """

    def __init__(self, sale: str, known: Iterable[str] = ()) -> None:
        self.known = tuple(known)
        has = f"; the database has {', '.join(self.known)}" if self.known else ""
        super().__init__(f"neither Redis nor the database knows sale {sale!r}{has}", sale=sale)


class AlreadyLoaded(GoodsError):
    """The item was preloaded before, with other values; nothing was changed."""


class CorruptState(GoodsError):
    """A value in Redis is not what flashsale writes there; nothing was changed."""


class OrderConflict(GoodsError):
    """The order id belongs to an order with other content: another item, buyer or quantity.

    Or it begins with another partition than its buyer's, so it can only be another buyer's.

    Attributes:
        order_id: the id that was used twice.
    """

    def __init__(self, *, sale: str, goods_id: str, order_id: str, reason: str = "exists with other content") -> None:
        super().__init__(f"order {order_id!r} {reason}", sale=sale, goods_id=goods_id)
        self.order_id = order_id


class OrderError(FlashSaleError):
    """An error about one order.

    Attributes:
        order_id: the order, or None.
    """

    def __init__(self, message: str, *, order_id: str | None = None) -> None:
        super().__init__(message)
        self.order_id = order_id


class NotPersisted(OrderError):
    """The order's row is not in the database yet: confirm again in a moment."""

    retry_safe = True


class NotExecuted(OrderError):
    """Nothing happened: there was no connection, or the server refused before the first write. Safe to try again.

    A call of several steps (`preload`, `requeue_dead`, `nack` of many claims, `repair`, `rebuild`, `purge`, a pass of
    worker or syncer) may have made the steps before; made again, it makes the rest.

    Attributes:
        order_id: set by `buy` and `reserve`, also when flashsale made the id.
        reason: the server's error code, such as `READONLY` or `OOM`, or None.
    """

    retry_safe = True

    def __init__(self, message: str, *, order_id: str | None = None, reason: str | None = None) -> None:
        super().__init__(message, order_id=order_id)
        self.reason = reason


class OutcomeUnknown(OrderError):
    """The request was sent, and no complete reply came: it may or may not have run.

    Attributes:
        order_id: try again with this id; set also when flashsale made it.
        retry_safe: True when the call named what it is about by an id: an order, a basket, a request.
    """


class Overloaded(NotExecuted):
    """More callers of one operation wait in this process than `max_waiting`; nothing was sent.

    Attributes:
        waiting: how many callers wait.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} callers are waiting in this process")
        self.waiting = waiting


class UnknownLayout(NotExecuted):
    """Another release of flashsale began this sale, in a layout that this one does not read; nothing was changed.

    Attributes:
        layout: number of the sale's layout; 0 when it is not a number.
        oldest: the oldest layout that this release reads.
        newest: the newest.
    """

    retry_safe = False

    def __init__(self, layout: int, oldest: int, newest: int) -> None:
        advice = "use a newer release" if layout > newest else "finish the sale with the release that began it"
        super().__init__(
            f"the sale has layout {layout}, and this release of flashsale reads {oldest} to {newest}: {advice}",
            reason="LAYOUT",
        )
        self.layout = layout
        self.oldest = oldest
        self.newest = newest


class PartitionMismatch(NotExecuted):
    """The sale was begun with another number of partitions, or on other servers; nothing was changed.

    Attributes:
        partitions: how many the sale has.
        servers: how many clients they are spread over.
        place: which of those the server is that said so, from 0.
    """

    retry_safe = False

    def __init__(self, partitions: int, servers: int, place: int) -> None:
        where = f" on {servers} servers, of which this one is number {place}, counted from 0" if servers > 1 else ""
        clients = f"those {servers} servers in the same order" if servers > 1 else "one client"
        super().__init__(
            f"the sale was begun with {partitions} partition{'s' * (partitions != 1)}{where}: "
            f"give this process as many partitions, and {clients}",
            reason="PARTITIONS",
        )
        self.partitions = partitions
        self.servers = servers
        self.place = place


class NotSettled(FlashSaleError):
    """The sale is not over: units are queued, unpaid or dead, or something disagrees. Nothing was removed.

    Attributes:
        settlement: shows what is left to do.
    """

    def __init__(self, settlement: Any) -> None:
        super().__init__("the sale is not settled")
        self.settlement = settlement


class UnsafeServer(FlashSaleError):
    """The Redis server's settings do not suit a sale.

    Attributes:
        findings: what was found, each with its remedy.
    """

    def __init__(self, findings: tuple[Any, ...]) -> None:
        super().__init__("; ".join(str(finding) for finding in findings))
        self.findings = findings


class StoreRequired(FlashSaleError):
    """The operation needs a database: `FlashSale(..., store=...)`."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"{operation} needs a store: FlashSale(..., store=...)")
        self.operation = operation


class StoreError(FlashSaleError):
    """The database did not answer, or it has no row for the item; surely nothing was written.

    Where the answer to COMMIT was lost, it is `OutcomeUnknown`: the same call may be made again.
    """

    retry_safe = True


class RowRefused(StoreError):
    """The database refused a row, and nothing of the batch was written. Splitting the batch finds the row."""

    retry_safe = False
