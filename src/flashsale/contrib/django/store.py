"""The store on Django's ORM. It joins the host's transaction where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, Self

from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    IntegrityError,
    InterfaceError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet
from django.dispatch import Signal

from flashsale._rules.batches import batches
from flashsale._rules.observer import log
from flashsale._rules.rows import CHUNK, EVENT_STATES, KEYS, Row, TableName
from flashsale._rules.sqlstates import blames_row, is_rolled_back
from flashsale._rules.trail import TRAIL_COLUMNS
from flashsale._sql.deadlines import TIMEOUT, Deadline
from flashsale._sync.stores.trailed import TrailedRowStore
from flashsale.contrib.django.models import Sale, SaleEvent, SaleGoods, SaleOrder, SaleRequest, SaleTrail
from flashsale.contrib.django.signals import order_saved, order_settled
from flashsale.errors import FlashSaleError, InvalidRequest, OutcomeUnknown, RowRefused, StoreError
from flashsale.model import Order, OrderState, Saved
from flashsale.model.checks import check_seconds

_MODELS: Final[Mapping[TableName, type[Model]]] = {
    "sales": Sale,
    "goods": SaleGoods,
    "orders": SaleOrder,
    "events": SaleEvent,
    "requests": SaleRequest,
    "audit": SaleTrail,
}


_aliases: Final[set[str]] = set()  # of the databases of our stores
_inherited: Final[list[object]] = []


def _leave_parent() -> None:
    """Lets a child that was forked connect for itself: two processes must not speak on one connection.

    The parent's are kept here: collected as garbage, a driver might end them for the parent, too.
    """
    for connection in connections.all(initialized_only=True):
        if connection.alias in _aliases and connection.connection is not None and not connection.in_atomic_block:
            _inherited.append(connection.connection)
            connection.connection = None


os.register_at_fork(after_in_child=_leave_parent)


class DjangoStore(TrailedRowStore[BaseDatabaseWrapper]):
    """The `OrderStore` of one sale, in Django's database.

    Args:
        sale: name of the sale.
        using: alias of the database in Django's settings.
        hooks: an `OrderHooks`: your own code in the store's transactions, inside `atomic` of this database.
        events: the states that leave an event for the `Outbox`, also as a text with commas; with PERSISTED among them,
            each order that is saved. The same in every process of the sale.
        timeout: seconds after which a database that does not answer is given up, with `StoreError` or, at its COMMIT,
            `OutcomeUnknown`; half of it at most goes by in connecting, where OPTIONS have no `connect_timeout`. Hooks
            count, too.

    Raises:
        InvalidRequest: not a name of a sale, no hooks of this kind, or not states.
    """

    def __init__(
        self,
        sale: str,
        *,
        using: str = DEFAULT_DB_ALIAS,
        hooks: object = None,
        events: str | Iterable[str] = EVENT_STATES,
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(sale, hooks, (DatabaseError, InterfaceError), events=events)
        self._using = using
        self._timeout = check_seconds("timeout", timeout, low=1.0)
        _aliases.add(using)

    def in_transaction(self) -> bool:
        """Returns whether the host's transaction is open: what this store writes is committed with it, or never."""
        return bool(connections[self._using].in_atomic_block)

    def on_commit(self, call: Callable[[], object]) -> object:
        """Lets `call` be made after the commit of the host's transaction; False: none is open."""
        if not self.in_transaction():
            return False
        transaction.on_commit(call, using=self._using)
        return connections[self._using]

    def joined(self, connection: object) -> Self:
        """Returns this store: it joins a transaction that is open anyway.

        Args:
            connection: `django.db.connection`, or one of `django.db.connections`.

        Raises:
            InvalidRequest: it is not this thread's connection to the store's database, or has no transaction.
        """
        ours = connections[self._using]
        if getattr(connection, "alias", None) != self._using or connection != ours:
            raise InvalidRequest("connection", f"is not Django's connection {self._using!r} of this thread")
        if not ours.in_atomic_block:
            raise InvalidRequest("connection", "has no transaction to join: it is not inside `atomic`")
        return self

    def sales(self) -> list[str]:
        """Returns the names of the sales that have items in this database: the first hundred."""
        with self._reading():
            names = SaleGoods.objects.using(self._using).order_by("sale").values_list("sale", flat=True)
            return list(names.distinct()[:100])

    # -- signals --------------------------------------------------------------------------------------------------

    def save(self, orders: Sequence[Order]) -> Saved:
        """Writes a batch; see `RowStore.save`. Sends `order_saved` after the commit."""
        saved = super().save(orders)
        if saved.inserted and order_saved.has_listeners(type(self)):
            tell = partial(self._send, order_saved, saved.inserted)
            if not self.on_commit(tell):
                tell()
        return saved

    def _moved(
        self, connection: BaseDatabaseWrapper, orders: Iterable[Order], state: OrderState, previous: OrderState
    ) -> None:
        moved = list(orders)
        super()._moved(connection, moved, state, previous)
        if order_settled.has_listeners(type(self)):
            ids = [order.order_id for order in moved]
            self.on_commit(partial(self._send, order_settled, ids, before=previous, after=state))

    def _send(self, signal: Signal, order_ids: Collection[str], **more: Any) -> None:
        """Sends a signal for each order, as its row has it."""
        try:
            for row in self.find(order_ids):
                signal.send_robust(type(self), sale=self.sale, order=row.order, **more)
        except FlashSaleError as error:  # what was committed stands
            log.warning("%d signals are not sent: %s", len(order_ids), error)

    # -- the primitives of `RowStore` -----------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[BaseDatabaseWrapper]:
        """Gives the connection within `atomic`: a savepoint in the host's transaction; see `RowStore.transaction`."""
        connection = connections[self._using]
        outermost, committing = not connection.in_atomic_block, False
        with Deadline(self._timeout) as deadline, _limited(connection, deadline, self._timeout / 2):
            try:
                deadline.watch(connection.connection)
                if outermost:  # as Django does between requests: a worker has none
                    connection.close_if_unusable_or_obsolete()
                connection.ensure_connection()
                deadline.watch(connection.connection)
                with transaction.atomic(using=self._using):
                    if outermost:  # whatever is called after the commit takes its time
                        transaction.on_commit(deadline.__exit__, using=self._using)
                    yield connection
                    committing = outermost
            except (DatabaseError, InterfaceError) as error:
                raise _store_error(error, committing=committing) from error

    def savepoint(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[object]:
        """Returns a savepoint; see `HookedRowStore.savepoint`."""
        savepoint: AbstractContextManager[object] = transaction.atomic(using=self._using)
        return savepoint

    def select(
        self,
        connection: BaseDatabaseWrapper,
        table: TableName,
        columns: Sequence[str],
        where: Mapping[str, Any],
        *,
        lock: bool = False,
    ) -> Iterable[Row]:
        """Reads rows; see `RowStore.select`."""
        rows = self._matching(table, where)
        if lock and connection.features.has_select_for_update:
            rows = rows.select_for_update()
        elif lock:  # SQLite: a write takes its lock
            rows.update(sale=F("sale"))
        return list(rows.values(*columns))

    def select_orders(self, connection: BaseDatabaseWrapper, after: str | None, limit: int) -> Iterable[Row]:
        """Reads a page of orders; see `RowStore.select_orders`."""
        rows = self._matching("orders", {"sale": self.sale}).order_by("order_id")
        if after is not None:
            rows = rows.filter(order_id__gt=after)
        return list(rows.values(*self._order_columns)[:limit])

    def select_events(self, connection: BaseDatabaseWrapper, due: float | None, limit: int) -> Iterable[Row]:
        """Reads events, then their orders; see `RowStore.select_events`."""
        same_order = {"sale": OuterRef("sale"), "order_id": OuterRef("order_id")}
        events = self._matching("events", {"sale": self.sale}).filter(Exists(self._matching("orders", same_order)))
        if due is None:
            events = events.filter(due_at__isnull=True)
        else:
            earlier = self._matching("events", same_order).filter(event_id__lt=OuterRef("event_id"))
            events = events.filter(~Exists(earlier.filter(due_at__isnull=False)), due_at__lte=due)
        found = list(
            events.order_by("event_id").values("event_id", "order_id", "state", "previous", "attempts")[:limit]
        )
        its_order = {}
        for ids in batches(sorted({event["order_id"] for event in found}), CHUNK):
            orders = self._matching("orders", {"sale": self.sale, "order_id": ids}).values(*self._order_columns)
            its_order.update({order["order_id"]: order for order in orders})
        return [its_order[event["order_id"]] | event for event in found if event["order_id"] in its_order]

    def select_settled(
        self, connection: BaseDatabaseWrapper, moment: float, order_id: str, limit: int
    ) -> Iterable[Row]:
        """Reads orders that have moved; see `MovedRowStore.select_settled`."""
        rows = self._matching("orders", {"sale": self.sale}).filter(settled_at__gte=moment)
        rows = rows.filter(Q(settled_at__gt=moment) | Q(order_id__gt=order_id)).order_by("settled_at", "order_id")
        return list(rows.values(*self._order_columns)[:limit])

    def select_buyer(self, connection: BaseDatabaseWrapper, buyer_id: str, limit: int) -> Iterable[Row]:
        """Reads a buyer's orders; see `MovedRowStore.select_buyer`."""
        rows = self._matching("orders", {"sale": self.sale, "buyer_id": buyer_id}).order_by("-created_at", "order_id")
        return list(rows.values(*self._order_columns)[:limit])

    def select_trail(self, connection: BaseDatabaseWrapper, after: int, limit: int, *, last: bool) -> Iterable[Row]:
        """Reads the trail; see `TrailedRowStore.select_trail`."""
        rows = self._matching("audit", {"sale": self.sale}).filter(entry_id__gt=after)
        return list(rows.order_by("-entry_id" if last else "entry_id").values(*TRAIL_COLUMNS)[:limit])

    def insert_entry(self, connection: BaseDatabaseWrapper, values: Mapping[str, Any]) -> int:
        """Inserts a row of the trail; see `TrailedRowStore.insert_entry`."""
        return int(SaleTrail.objects.using(self._using).create(**values).pk)

    def insert_new(
        self,
        connection: BaseDatabaseWrapper,
        table: TableName,
        common: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
    ) -> set[str]:
        """Inserts the rows whose key is free; see `RowStore.insert_new`."""
        model, key = _MODELS[table], KEYS[table]
        fresh = {row[key]: {**common, **row} for row in rows}
        while fresh:
            try:
                with transaction.atomic(using=self._using):
                    model.objects.using(self._using).bulk_create([model(**row) for row in fresh.values()])
                return set(fresh)
            except IntegrityError:
                these = self._matching(table, {"sale": self.sale, key: list(fresh)})
                taken = set(these.values_list(key, flat=True))
                if not taken:
                    raise  # not for its key was a row refused
                fresh = {name: row for name, row in fresh.items() if name not in taken}
        return set()

    def insert_events(self, connection: BaseDatabaseWrapper, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts events; see `RowStore.insert_events`."""
        SaleEvent.objects.using(self._using).bulk_create([SaleEvent(**row) for row in rows])

    def update(
        self, connection: BaseDatabaseWrapper, table: TableName, where: Mapping[str, Any], values: Mapping[str, Any]
    ) -> int:
        """Writes into rows; see `RowStore.update`."""
        return int(self._matching(table, where).update(**values))

    def book(self, connection: BaseDatabaseWrapper, goods_id: str, units: int) -> bool:
        """Moves `booked` under its guard; see `RowStore.book`."""
        this = self._matching("goods", {"sale": self.sale, "goods_id": goods_id})
        bound = {"booked__lte": F("granted") - units} if units > 0 else {"booked__gte": -units}
        return bool(this.filter(**bound).update(booked=F("booked") + units))

    def delete_events(self, connection: BaseDatabaseWrapper, event_ids: Sequence[int]) -> None:
        """Deletes events; see `RowStore.delete_events`."""
        self._matching("events", {"sale": self.sale, "event_id": list(event_ids)}).delete()

    def _matching(self, table: TableName, where: Mapping[str, Any]) -> QuerySet[Any]:
        """Returns the rows of the condition of `RowStore`: a list stands for any of its members, None for NULL."""
        names = {f"{name}__in" if isinstance(value, list) else name: value for name, value in where.items()}
        rows: QuerySet[Any] = _MODELS[table].objects.using(self._using).filter(**names)
        return rows


@contextmanager
def _limited(connection: BaseDatabaseWrapper, deadline: Deadline, seconds: float) -> Iterator[None]:
    """Limits the making of connections, where Django's settings say nothing; it makes another one to roll back."""
    if connection.vendor not in {"postgresql", "mysql"} or "get_connection_params" in vars(connection):
        yield
        return
    of_settings: Callable[[], dict[str, Any]] = connection.get_connection_params

    def of_both() -> dict[str, Any]:
        return {"connect_timeout": max(2, round(deadline.left(seconds)))} | of_settings()  # libpq takes 1 for 2

    connection.get_connection_params = of_both
    try:
        yield
    finally:
        del connection.get_connection_params


def _store_error(error: DatabaseError | InterfaceError, *, committing: bool) -> StoreError | OutcomeUnknown:
    """Returns our error for Django's; `committing`: it came instead of the answer to COMMIT."""
    driver, name = error.__cause__ or error, type(error).__name__
    if blames_row(driver):
        error.args, error.__cause__ = (name,), None  # a server quotes the row that it refuses
        return RowRefused(f"the database refused a row: {name}")
    if committing and not is_rolled_back(driver):
        return OutcomeUnknown(f"the database did not answer COMMIT: {name}")
    return StoreError(f"the database failed: {name}")
