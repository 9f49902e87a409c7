"""The protocol `AsyncOrderStore`: what flashsale asks of the host's database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeAlias, runtime_checkable

from flashsale._rules.rows import purged
from flashsale._rules.trail import Note
from flashsale.errors import InvalidRequest, PartitionMismatch, StoreRequired, UnknownSale
from flashsale.model import Event, Goods, Order, OrderState, Saved, StoredOrder
from flashsale.model.trail import TrailEntry

States: TypeAlias = Mapping[str, OrderState]
Names: TypeAlias = Iterable[str]
ListSales: TypeAlias = Callable[[], Awaitable[Names]]
Rows: TypeAlias = Iterable[StoredOrder]
Purge: TypeAlias = Callable[[], Awaitable[int]]
IsPurged: TypeAlias = Callable[[], Awaitable[bool]]
FixPartitions: TypeAlias = Callable[[int], Awaitable[int]]
Find: TypeAlias = Callable[[Collection[str]], Awaitable[Rows]]
FindBuyer: TypeAlias = Callable[..., Awaitable[Rows]]
Noting: TypeAlias = Callable[[TrailEntry], AbstractAsyncContextManager[Note]]
Entries: TypeAlias = Sequence[TrailEntry]
Trail: TypeAlias = Callable[..., Awaitable[Entries]]
Restocked: TypeAlias = tuple[Goods, int]
RestockOnce: TypeAlias = Callable[[str, int, str], Awaitable[Restocked]]
AfterCommit: TypeAlias = Callable[[], Awaitable[object]]
OnCommit: TypeAlias = Callable[[AfterCommit], object]
Begin: TypeAlias = Callable[[list[AfterCommit]], Callable[[float], object]]
OnEnd: TypeAlias = Callable[[Begin, AfterCommit], object]
SettledPage: TypeAlias = Sequence[tuple[StoredOrder, float]]
Settled: TypeAlias = Callable[[float, str], Awaitable[SettledPage]]
Join: TypeAlias = Callable[[object], Awaitable[Any]]
SettleMany: TypeAlias = Callable[[Sequence[Order], OrderState], Awaitable[States]]


@runtime_checkable
class AsyncOrderStore(Protocol):
    """The host's database, for one sale.

    `flashsale.stores.SQLAlchemyStore` is one, and `flashsale.stores.RowStore` is the base of one on rows of your own;
    `flashsale.testing` ships the suite that it must pass.
    A method that cannot reach the database, or finds no row of the item, raises `StoreError` and has done nothing.
    Where nobody knows whether it was committed, it raises `OutcomeUnknown`, and the same call may be made again.

    Whoever was told "accepted" must hear how it ended: each order that `save` refuses and each move that `settle` makes
    (a tombstone too) writes one event in the same transaction. PERSISTED makes one where the host wants it, before the
    order's others. The `Outbox` delivers them.

    A store may have `settle_many`, `find`, `restock_once`, `settled` and `findings` beside these methods;
    `bulk_settle`, `stored`, the function `restock_once`, `settled_since` and `store_findings` say what they do. One
    that joins the host's transactions has `on_commit` and `in_transaction`; `after_commit` and the function
    `in_transaction` say why; one that can be told which, `joined`: see the function. It may have `sales`: the names of
    the sales in its database, for the error `UnknownSale`; `purge` with `purged`: see `record_purge`; `fix_partitions`,
    `find_buyer`, and `noting` with `trail`: see the functions of these names, and `orders_of`.
    """

    async def goods(self) -> Iterable[Goods]:
        """Returns the policy of every item of the sale."""
        ...

    async def grant(self, goods_id: str, units: int, *, loaded: bool = False, version: int | None = None) -> bool:
        """Records how many units Redis is given, before it is given more and after it holds fewer.

        `save` never books past it. It is kept apart from `total`, what the host decides, because lowering it must not
        reject orders that were accepted before.

        Args:
            goods_id: which item.
            units: the new grant.
            loaded: True records as well that Redis holds the item; it is never unset.
            version: of the row as the caller read it; None: whatever it is.

        Returns:
            False when the row has another version by now: nothing was changed, for whoever changed it grants as well.
        """
        ...

    async def restock(self, goods_id: str, units: int) -> Goods:
        """Adds `units` (negative: takes away) to the row's total, not below 0, and raises its version by one.

        Returns:
            The row as it now is.
        """
        ...

    async def save(self, orders: Sequence[Order]) -> Saved:
        """Writes a batch in one transaction; a second call with the same orders changes nothing.

        Inserts the orders whose id has no row, then books the units of the inserted rows under the guard
        `booked + units <= granted`, each order in its turn. Those that do not fit are written as REJECTED.

        Args:
            orders: at most a few hundred, each id once.

        Returns:
            What became of each order.

        Raises:
            RowRefused: the database refused a row; the batch can be split to find it. Any other error of your own is
                taken for the same.
        """
        ...

    async def states(self, order_ids: Collection[str]) -> Mapping[str, OrderState]:
        """Returns the state of those of `order_ids` that have a row."""
        ...

    async def settle(self, order: Order, state: OrderState) -> OrderState:
        """Moves an order to CONFIRMED, CANCELLED, EXPIRED or REJECTED, if it may go there, and returns what stands.

        One conditional update, so that of several callers one wins; leaving the active states gives the booked units
        back in the same transaction. A release of an order that has no row leaves a tombstone: a row in that state,
        without units, that `save` reports as existing.

        Args:
            order: the order; its content makes the tombstone.
            state: where to.

        Returns:
            The state that stands afterwards.

        Raises:
            NotPersisted: CONFIRMED was asked and there is no row yet.
            OrderConflict: the row has other content.
        """
        ...

    async def orders(self, *, after: str | None = None, limit: int = 1000) -> Sequence[StoredOrder]:
        """Returns the next page of rows, by order id, after the order id `after`."""
        ...

    async def events(self, *, now: float, limit: int = 100) -> Sequence[Event]:
        """Returns events that wait and are due at `now`, oldest first: of each order only the first that waits.

        A dead letter does not wait, and holds back no other. Event ids grow for each order, and none is used again.

        Args:
            now: epoch seconds of Redis TIME. A new event is due at once.
            limit: at most so many.
        """
        ...

    async def delivered(self, event_ids: Collection[int]) -> None:
        """Forgets events that the host has handled; an unknown id is no error."""
        ...

    async def postpone(self, event_id: int, due_at: float | None) -> None:
        """Counts a failed attempt, and lets the event wait until `due_at` (epoch seconds), or with None for ever: dead.

        An unknown id is no error.
        """
        ...

    async def dead_events(self, limit: int = 100) -> Sequence[Event]:
        """Returns dead letters, oldest first."""
        ...

    async def requeue_events(self) -> int:
        """Makes all dead letters due again, with no attempt counted, and returns how many."""
        ...

    async def epoch(self) -> int:
        """Returns the epoch of the sale: 1 until the first rebuild."""
        ...

    async def advance_epoch(self) -> int:
        """Raises the epoch by one, atomically, and returns it.

        A rebuild after a total loss of Redis does this first: what still works by the old epoch is refused from then.
        """
        ...


async def check_known(store: AsyncOrderStore | None, sale: str) -> None:
    """Refuses a sale that the database does not know.

    It may have `sales()` beside the protocol: the names of its sales, or the first of them.

    Raises:
        UnknownSale: it has no item of the sale, or there is no store.
    """
    if store is not None and await store.goods():
        return
    sales: ListSales | None = getattr(store, "sales", None)
    raise UnknownSale(sale, [] if sales is None else sorted(await sales()))


async def record_purge(store: AsyncOrderStore) -> int | None:
    """Records that the sale was purged, by the store's `purge`; None when it has none.

    It may have both beside the protocol: `purge()` raises the epoch by one, notes in the same transaction that the sale
    is over, and returns the epoch; `purged()` returns whether it was noted. From then `grant` raises InvalidRequest, so
    neither a syncer nor a rebuild brings the sale back. Without them only Redis knows of the purge.
    """
    purge: Purge | None = getattr(store, "purge", None)
    return None if purge is None else await purge()


async def is_purged(store: AsyncOrderStore | None) -> bool:
    """Returns whether the sale was purged, as far as the store can tell."""
    asked: IsPurged | None = getattr(store, "purged", None)
    return asked is not None and await asked()


async def refuse_purged(store: AsyncOrderStore | None, sale: str) -> None:
    """Raises InvalidRequest when the sale was purged."""
    if await is_purged(store):
        raise purged(sale)


async def fix_partitions(store: AsyncOrderStore | None, number: int) -> None:
    """Records over how many partitions the sale is spread, by the store's `fix_partitions`, beside the protocol.

    `fix_partitions(number)` records the number unless one is known, and returns the one that is. Without it only Redis
    knows.

    Raises:
        PartitionMismatch: it is another one.
    """
    fix: FixPartitions | None = getattr(store, "fix_partitions", None)
    known = number if fix is None else await fix(number)
    if known != number:
        raise PartitionMismatch(known, 1, 0)


def bulk_settle(store: AsyncOrderStore | None) -> SettleMany | None:
    """Returns the store's `settle_many`, which it may have beside the protocol; None when it has none.

    `settle_many(orders, state)` settles each of the orders as `settle` does, all in one transaction: when one of them
    raises, nothing was written. Each id stands once in `orders`. It returns the current state by order id.

    A class that changes `settle` and not `settle_many` is asked for each order: what it adds must not be passed by.
    """
    for names in (getattr(store, "__dict__", {}), *map(vars, type(store).__mro__)):
        if "settle_many" in names:
            break
        if "settle" in names:
            return None
    settle_many: SettleMany | None = getattr(store, "settle_many", None)
    return settle_many


def store_findings(store: AsyncOrderStore | None) -> list[str]:
    """Returns what the store's `findings()`, which it may have beside the protocol, says of its settings."""
    findings: Callable[[], list[str]] | None = getattr(store, "findings", None)
    return [] if findings is None else findings()


def restock_once(store: AsyncOrderStore, goods_id: str, units: int, request_id: str) -> Awaitable[Restocked]:
    """Restocks by the store's `restock_once`, which it may have beside the protocol; see `MovedRowStore`.

    Raises:
        InvalidRequest: the store has none: it cannot tell a request from its repetition.
    """
    once: RestockOnce | None = getattr(store, "restock_once", None)
    if once is None:
        raise InvalidRequest("request_id", f"{type(store).__name__} has no restock_once")
    return once(goods_id, units, request_id)


def settled_since(store: AsyncOrderStore) -> Settled | None:
    """Returns the store's `settled`, which it may have beside the protocol; None when it has none.

    `settled(moment, order_id)` returns a page of the orders that have moved since, as `MovedRowStore` does. Without it
    a move that Redis has not followed is found when the syncer comes to its row, page by page.
    """
    settled: Settled | None = getattr(store, "settled", None)
    return settled


def after_commit(store: AsyncOrderStore | None, call: AfterCommit) -> object:
    """Lets `call` be made after the commit of the host's open transaction; False: none is open, `call` is not kept.

    By `on_commit(call)` of the store, which it may have beside the protocol: one that joins the host's transactions. It
    returns True, or what all calls of that transaction have in common.
    """
    on_commit: OnCommit | None = getattr(store, "on_commit", None)
    return on_commit is not None and on_commit(call)


async def joined(store: AsyncOrderStore | None, connection: object) -> AsyncOrderStore:
    """Returns the store in the host's transaction on `connection`, by the store's `joined`, beside the protocol.

    `joined(connection)` returns a store like it, whose writes are committed with that transaction, or never; it raises
    InvalidRequest for a connection that it cannot use. That store may have `on_end`; see `after_end`.

    Raises:
        InvalidRequest: the store has no `joined`.
        StoreRequired: there is no store.
    """
    if store is None:
        raise StoreRequired("to settle an order")
    join: Join | None = getattr(store, "joined", None)
    if join is None:
        raise InvalidRequest("connection", f"{type(store).__name__} has no joined")
    return await join(connection)  # type: ignore[no-any-return]


def after_end(store: AsyncOrderStore, begin: Begin, call: AfterCommit) -> object:
    """Lets `begin` begin `call` after the end of the transaction that the store has joined; False: it has no `on_end`.

    By its `on_end(begin, call)`, where only the end can be seen, and not that there was a commit. `begin` gets all
    calls of that transaction together, and returns a function that waits for them, so many seconds at most. `on_end`
    returns what all calls of that transaction have in common.
    """
    on_end: OnEnd | None = getattr(store, "on_end", None)
    return on_end is not None and on_end(begin, call)


def in_transaction(store: AsyncOrderStore | None) -> bool:
    """Returns whether what the store writes now is committed later, with the host's transaction."""
    is_open: Callable[[], bool] | None = getattr(store, "in_transaction", None)
    return is_open is not None and is_open()


async def stored(store: AsyncOrderStore, order_ids: Collection[str]) -> Sequence[StoredOrder]:
    """Returns the rows of those orders by the store's `find`, which it may have beside the protocol; else none.

    `find(order_ids)` returns the orders that have a row, each with its state. Without it an order that Redis lost is
    unknown until the syncer has brought it back.
    """
    find: Find | None = getattr(store, "find", None)
    return [] if find is None else list(await find(order_ids))


async def orders_of(store: AsyncOrderStore, buyer_id: str, *, limit: int = 100) -> Sequence[StoredOrder] | None:
    """Returns orders of a buyer by the store's `find_buyer`, which it may have beside the protocol; None: it has none.

    `find_buyer(buyer_id, limit=)` returns the last `limit` rows of the buyer's orders, newest first.
    """
    find: FindBuyer | None = getattr(store, "find_buyer", None)
    return None if find is None else list(await find(buyer_id, limit=limit))


def noting(store: AsyncOrderStore | None, entry: TrailEntry) -> AbstractAsyncContextManager[Note]:
    """Returns a context that writes what a command does to the trail; it gives the `Note`, which is told the outcome.

    By the store's `noting(entry)`, which it may have beside the protocol, as `TrailedRowStore` does: the row is
    committed with what the command writes. Without it the entry is logged at the end.
    """
    of_store: Noting | None = getattr(store, "noting", None)
    return _logging(entry) if of_store is None else of_store(entry)


@asynccontextmanager
async def _logging(entry: TrailEntry) -> AsyncIterator[Note]:
    note = Note(entry)
    try:
        with note.watched():
            yield note
    finally:
        note.log()


async def trail(
    store: AsyncOrderStore | None, *, after: int = 0, limit: int = 100, last: bool = False
) -> Entries | None:
    """Returns entries by the store's `trail`, which it may have beside the protocol, oldest first; None: it has none.

    `trail(after=, limit=, last=)` returns the first or the last `limit` entries, of those after the number `after`.
    """
    of_store: Trail | None = getattr(store, "trail", None)
    return None if of_store is None else await of_store(after=after, limit=limit, last=last)
