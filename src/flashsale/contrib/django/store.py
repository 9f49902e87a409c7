"""The store on Django's ORM. It joins the host's transaction where there is one.

As in `SQLAlchemyStore`, each transaction starts with a write and takes order rows by id before goods rows by id, and an
event gets its number while the order's row is locked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    connections,
    transaction,
)
from django.db.models import Exists, F, Model, OuterRef, QuerySet
from django.db.models.functions import Greatest

from flashsale._rules.batches import batches
from flashsale._rules.rows import (
    CHUNK,
    COMES_FROM,
    Settling,
    check_ids,
    goods_values,
    is_same,
    order_values,
    policy_values,
    read_goods,
    read_order,
    read_state,
    saved,
)
from flashsale.contrib.django.models import Sale, SaleEvent, SaleGoods, SaleOrder
from flashsale.errors import InvalidRequest, NotPersisted, OrderConflict, RowRefused, StoreError
from flashsale.model import RELEASED, Event, Goods, Order, OrderState, Saved, StoredOrder, by_goods
from flashsale.model.checks import MAX_UNITS, check_goods_id, check_int, check_sale


class DjangoStore:
    """The `OrderStore` of one sale, in Django's database.

    Args:
        sale: name of the sale.
        using: alias of the database in Django's settings.

    Raises:
        InvalidRequest: not a name of a sale.
    """

    def __init__(self, sale: str, *, using: str = DEFAULT_DB_ALIAS) -> None:
        self.sale = check_sale(sale)
        self._using = using

    # -- goods and sale -------------------------------------------------------------------------------------------

    def put_goods(self, goods: Goods) -> None:
        """Writes the host's wish for one goods: total, cap, window and hold; see `SQLAlchemyStore.put_goods`."""
        with self._atomic():
            version = Greatest(F("version") + 1, goods.version)
            row = self._row(goods.goods_id)
            if not row.update(version=version, **policy_values(goods)) and not self._insert_new(
                [SaleGoods(sale=self.sale, **goods_values(goods))], "goods_id"
            ):
                row.update(version=version, **policy_values(goods))  # somebody inserted it in between

    def goods(self) -> Iterable[Goods]:
        """Returns the policy of every goods of the sale."""
        with self._atomic():
            return [read_goods(row) for row in self._of(SaleGoods).order_by("goods_id")]

    def grant(self, goods_id: str, units: int, *, loaded: bool = False, version: int | None = None) -> bool:
        """Records how many units Redis is given; see `OrderStore.grant`."""
        check_int("units", units, 0)
        with self._atomic():
            row = self._row(goods_id)
            this = row if version is None else row.filter(version=version)
            if this.update(granted=units, **({"loaded": True} if loaded else {})):
                return True
            if version is None or not row.exists():
                raise self._no_row(goods_id)
            return False

    def restock(self, goods_id: str, units: int) -> Goods:
        """Adds `units` to the total, not below 0, raises the version by one, and returns the row."""
        check_int("units", units, -MAX_UNITS)
        with self._atomic():
            row = self._row(goods_id)
            if not row.update(total=Greatest(F("total") + units, 0), version=F("version") + 1):
                raise self._no_row(goods_id)
            return read_goods(row.get())

    def epoch(self) -> int:
        """Returns the epoch of the sale: 1 until the first rebuild."""
        with self._atomic():
            return self._epoch()

    def advance_epoch(self) -> int:
        """Raises the epoch by one, and returns it."""
        with self._atomic():
            row = self._of(Sale)
            if not row.update(epoch=F("epoch") + 1) and not self._insert_new([Sale(sale=self.sale, epoch=2)], "sale"):
                row.update(epoch=F("epoch") + 1)  # somebody inserted it in between
            return self._epoch()

    # -- orders ---------------------------------------------------------------------------------------------------

    def save(self, orders: Sequence[Order]) -> Saved:
        """Writes a batch in one transaction; a second call with the same orders changes nothing.

        Raises:
            RowRefused: the database refused a row; nothing was written.
            StoreError: the database failed, or has no row of the goods; nothing was written.
        """
        ids = check_ids(orders)
        if not orders:
            return Saved()
        rows = [self._order_row(order, OrderState.PERSISTED) for order in sorted(orders, key=lambda o: o.order_id)]
        with self._atomic():
            inserted = self._insert_new(rows, "order_id")
            standing = self._standing(ids - inserted)
            if len(inserted) + len(standing) < len(ids):
                raise StoreError("rows were deleted while a batch was saved")
            refused: set[str] = set()
            for goods_id, group in sorted(by_goods(o for o in orders if o.order_id in inserted).items()):
                refused |= self._book(goods_id, group)
        return saved(orders, inserted, refused, standing)

    def states(self, order_ids: Collection[str]) -> Mapping[str, OrderState]:
        """Returns the state of those of `order_ids` that have a row."""
        with self._atomic():
            return {order_id: read_state(row.state) for order_id, row in self._standing(order_ids).items()}

    def settle(self, order: Order, state: OrderState) -> OrderState:
        """Moves an order to a later state, if it may go there, and returns what stands; see `OrderStore.settle`."""
        if state not in COMES_FROM:
            raise InvalidRequest("state", "must be CONFIRMED, CANCELLED, EXPIRED or REJECTED")
        goods_id, buyer_id, quantity = order.content
        this = self._of(SaleOrder).filter(order_id=order.order_id)
        content = this.filter(goods_id=goods_id, buyer_id=buyer_id, quantity=quantity)
        with self._atomic():
            for _ in range(3):  # again only when the row was inserted while we looked
                for previous in COMES_FROM[state]:
                    if content.filter(state=previous).update(state=state.value):
                        self._tell([order.order_id], state, previous)
                        if state in RELEASED and not self._take(goods_id, -quantity):
                            raise self._no_row(goods_id)
                        return state
                row = this.first()
                if row is None:
                    if state not in RELEASED:
                        raise NotPersisted("the order has no row yet", order_id=order.order_id)
                    if self._insert_new([self._order_row(order, state)], "order_id"):
                        self._tell([order.order_id], state, OrderState.QUEUED)
                        return state
                elif not is_same(row, order):
                    raise OrderConflict(sale=self.sale, goods_id=goods_id, order_id=order.order_id)
                elif row.state not in COMES_FROM[state]:
                    return read_state(row.state)
        raise StoreError("the row of an order changes faster than it can be settled")

    def settle_many(self, orders: Sequence[Order], state: OrderState) -> Mapping[str, OrderState]:
        """Settles each of the orders as `settle` does, all in one transaction: when one raises, nothing is written."""
        if state not in COMES_FROM:
            raise InvalidRequest("state", "must be CONFIRMED, CANCELLED, EXPIRED or REJECTED")
        if not check_ids(orders):
            return {}
        with self._atomic():
            changes = Settling(self.sale, orders, state, self._lock([order.order_id for order in orders]))
            if changes.new:
                rows = [self._order_row(order, state) for order in changes.new]
                if len(self._insert_new(rows, "order_id")) < len(changes.new):
                    raise StoreError("rows came while their orders were settled")
                self._tell([order.order_id for order in changes.new], state, OrderState.QUEUED)
            for previous, moved in changes.moved.items():
                self._move(moved, state)
                self._tell(moved, state, previous)
            for goods_id, units in changes.returned.items():
                if not self._take(goods_id, -units):
                    raise self._no_row(goods_id)
        return changes.states

    def orders(self, *, after: str | None = None, limit: int = 1000) -> Sequence[StoredOrder]:
        """Returns the next page of rows, by order id, after the order id `after`."""
        rows = self._of(SaleOrder).order_by("order_id")
        if after is not None:
            rows = rows.filter(order_id__gt=after)
        with self._atomic():
            return [read_order(row) for row in rows[:limit]]

    # -- events ---------------------------------------------------------------------------------------------------

    def events(self, *, now: float, limit: int = 100) -> Sequence[Event]:
        """Returns events that wait and are due at `now` (epoch seconds): of each order only the first that waits."""
        earlier = SaleEvent.objects.using(self._using).filter(
            sale=OuterRef("sale"),
            order_id=OuterRef("order_id"),
            event_id__lt=OuterRef("event_id"),
            due_at__isnull=False,
        )
        return self._events(self._of(SaleEvent).filter(~Exists(earlier), due_at__lte=now), limit)

    def delivered(self, event_ids: Collection[int]) -> None:
        """Deletes events that the host has handled."""
        with self._atomic():
            for ids in batches(sorted(event_ids), CHUNK):
                self._of(SaleEvent).filter(event_id__in=ids).delete()

    def postpone(self, event_id: int, due_at: float | None) -> None:
        """Counts a failed attempt; the event waits until `due_at` (epoch seconds), or is dead (None)."""
        with self._atomic():
            self._of(SaleEvent).filter(event_id=event_id).update(attempts=F("attempts") + 1, due_at=due_at)

    def dead_events(self, limit: int = 100) -> Sequence[Event]:
        """Returns dead letters, oldest first."""
        return self._events(self._of(SaleEvent).filter(due_at__isnull=True), limit)

    def requeue_events(self) -> int:
        """Makes all dead letters due again, with no attempt counted, and returns how many."""
        with self._atomic():
            return int(self._of(SaleEvent).filter(due_at__isnull=True).update(attempts=0, due_at=0.0))

    # -- steps of a transaction -----------------------------------------------------------------------------------

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        connection = connections[self._using]
        if not connection.in_atomic_block:  # as Django does between requests: a worker has none
            connection.close_if_unusable_or_obsolete()
        try:
            with transaction.atomic(using=self._using):
                yield
        except (IntegrityError, DataError) as error:
            name = type(error).__name__
            error.args, error.__cause__ = (name,), None  # a server quotes the row that it refuses
            raise RowRefused(f"the database refused a row: {name}") from error
        except (DatabaseError, InterfaceError) as error:
            raise StoreError(f"the database failed: {type(error).__name__}") from error

    def _of(self, model: type[Model]) -> QuerySet[Any]:
        rows: QuerySet[Any] = model.objects.using(self._using).filter(sale=self.sale)
        return rows

    def _row(self, goods_id: str) -> QuerySet[Any]:
        return self._of(SaleGoods).filter(goods_id=check_goods_id(goods_id))

    def _no_row(self, goods_id: str) -> StoreError:
        return StoreError(f"the database has no row of goods {goods_id!r} in sale {self.sale!r}")

    def _epoch(self) -> int:
        return int(self._of(Sale).values_list("epoch", flat=True).first() or 1)

    def _take(self, goods_id: str, units: int) -> bool:
        """Books units, or gives back a negative number, if `booked` stays within 0 and `granted`."""
        bound = {"booked__lte": F("granted") - units} if units > 0 else {"booked__gte": -units}
        return bool(self._row(goods_id).filter(**bound).update(booked=F("booked") + units))

    def _book(self, goods_id: str, orders: Sequence[Order]) -> set[str]:
        """Books the inserted orders of one goods; writes those that do not fit as REJECTED and returns their ids."""
        if self._take(goods_id, sum(order.quantity for order in orders)):
            return set()
        row = self._row(goods_id).select_for_update().first()
        if row is None:
            raise self._no_row(goods_id)
        units, refused = 0, set()
        for order in orders:
            if units + order.quantity <= row.granted - row.booked:
                units += order.quantity
            else:
                refused.add(order.order_id)
        for ids in batches(sorted(refused), CHUNK):
            self._of(SaleOrder).filter(order_id__in=ids).update(state=OrderState.REJECTED.value)
            self._tell(ids, OrderState.REJECTED, OrderState.QUEUED)
        if units:
            self._take(goods_id, units)
        return refused

    def _tell(self, order_ids: Collection[str], state: OrderState, previous: OrderState) -> None:
        """Writes the events of orders that have just moved."""
        moved = {"sale": self.sale, "state": state.value, "previous": previous.value, "due_at": 0.0}
        events = [SaleEvent(order_id=order_id, **moved) for order_id in order_ids]
        SaleEvent.objects.using(self._using).bulk_create(events)

    def _standing(self, order_ids: Collection[str]) -> dict[str, Any]:
        rows = (
            row for ids in batches(sorted(order_ids), CHUNK) for row in self._of(SaleOrder).filter(order_id__in=ids)
        )
        return {row.order_id: row for row in rows}

    def _lock(self, order_ids: Collection[str]) -> dict[str, Any]:
        """Returns the rows of orders, which nobody else can change until this transaction ends."""
        for ids in batches(sorted(order_ids), CHUNK):  # a write, as every transaction begins with
            self._of(SaleOrder).filter(order_id__in=ids).update(state=F("state"))
        return self._standing(order_ids)

    def _move(self, order_ids: Collection[str], state: OrderState) -> None:
        for ids in batches(sorted(order_ids), CHUNK):
            self._of(SaleOrder).filter(order_id__in=ids).update(state=state.value)

    def _insert_new(self, rows: Sequence[Any], key: str) -> set[str]:
        """Inserts the rows whose key is free, and returns the keys it wrote."""
        fresh = {getattr(row, key): row for row in rows}
        model = type(rows[0])
        while fresh:
            try:
                with transaction.atomic(using=self._using):
                    model.objects.using(self._using).bulk_create(fresh.values())
                return set(fresh)
            except IntegrityError:
                taken = set(self._of(model).filter(**{f"{key}__in": list(fresh)}).values_list(key, flat=True))
                if not taken:
                    raise  # not for its key was a row refused
                fresh = {name: row for name, row in fresh.items() if name not in taken}
                for row in fresh.values():
                    row.pk = row.pk if model is Sale else None  # it had one in the attempt that was rolled back
        return set()

    def _order_row(self, order: Order, state: OrderState) -> SaleOrder:
        return SaleOrder(sale=self.sale, state=state.value, **order_values(order))

    def _events(self, rows: QuerySet[Any], limit: int) -> Sequence[Event]:
        """Reads events and their orders; of an order that the host has deleted nothing more can be told."""
        its_order = SaleOrder.objects.using(self._using).filter(sale=OuterRef("sale"), order_id=OuterRef("order_id"))
        with self._atomic():
            events = list(rows.filter(Exists(its_order)).order_by("event_id")[:limit])
            orders = self._standing({event.order_id for event in events})
        return [
            Event(
                event.event_id,
                read_order(orders[event.order_id]).order,
                read_state(event.state),
                read_state(event.previous),
                event.attempts,
            )
            for event in events
        ]
