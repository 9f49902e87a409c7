"""The proof after a sale: what the buyers were told, what Redis holds and what the database holds, side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from flashsale import FlashSale, Keys, Order, OrderState, Outcome, Syncer
from flashsale._rules.ledger_record import read
from flashsale._sql.tables import EVENTS, GOODS, ORDERS
from flashsale.model import RELEASED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import redis

    from flashsale.stores import SQLAlchemyStore


@dataclass
class Purchase:
    """One order as its buyer knows it.

    Attributes:
        plan: what the buyer does with it: keep, pay, cancel at once, cancel, refund.
        asked: True once a host was asked for it.
        outcome: the answer; None: there was none.
        told: the state that paying or cancelling returned at last; None where two callers were told differently.
        restored: refused at first, by a Redis that had lost the order which the database has; found again later.
        displaced: accepted by that Redis in place of a restored one, and then refused by the database.
    """

    order: Order
    plan: str = "keep"
    asked: bool = False
    outcome: Outcome | None = None
    told: OrderState | None = None
    restored: bool = False
    displaced: bool = False

    @property
    def expected(self) -> OrderState:
        """The state in which it must end."""
        return OrderState.REJECTED if self.displaced else EXPECTED[self.plan]

    @property
    def events(self) -> set[str]:
        """The states that the host must hear of."""
        steps = (
            {self.expected, OrderState.CONFIRMED} if self.plan == "refund" and not self.displaced else {self.expected}
        )
        return {state.value for state in steps - {OrderState.PERSISTED}}


EXPECTED = {
    "keep": OrderState.PERSISTED,
    "pay": OrderState.CONFIRMED,
    "cancel at once": OrderState.CANCELLED,
    "cancel": OrderState.CANCELLED,
    "refund": OrderState.CANCELLED,
}


@dataclass
class Consistency:
    """Counts of orders and units, and everything that disagrees, in words."""

    asked: int = 0
    acknowledged: int = 0
    rows: int = 0
    lost: int = 0
    duplicated: int = 0
    strangers: int = 0
    units_accepted: int = 0
    units_returned: int = 0
    units_booked: int = 0
    states: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def same(self, what: str, **sides: object) -> None:
        """Notes that the sides disagree, if they do."""
        values = list(sides.values())
        if any(value != values[0] for value in values):
            told = ", ".join(f"{name} {_short(value)}" for name, value in sides.items())
            self.wrong.append(f"{what}: {told}")


def check(purchases: Sequence[Purchase], raw: redis.Redis, store: SQLAlchemyStore, sale: str) -> Consistency:
    """Compares buyers, Redis and database after everything came to rest, with queries of our own and with `audit`.

    Args:
        purchases: all that were planned.
        raw: a client with bytes replies.
        store: of the sale.
        sale: its name.
    """
    found = Consistency()
    rows = _sql(store, select(ORDERS).where(ORDERS.c.sale == sale))
    accepted = {purchase.order.order_id: purchase for purchase in purchases if purchase.outcome is Outcome.ACCEPTED}
    by_id = {row.order_id: row for row in rows}
    found.asked = sum(purchase.asked for purchase in purchases)
    found.acknowledged, found.rows = len(accepted), len(rows)
    found.states = dict(Counter(row.state for row in rows))
    if unanswered := [purchase for purchase in purchases if purchase.asked and purchase.outcome is None]:
        found.wrong.append(f"{len(unanswered)} buyers were not answered")
    _judge_the_displaced(found, accepted, by_id)
    _compare_orders(found, accepted, rows, by_id)
    _compare_units(found, accepted, rows, store, raw, Keys(sale))
    _compare_events(found, accepted, store, sale)
    with FlashSale(raw, sale, store=store) as api:
        audit = Syncer(api).audit(expected=accepted)
    if not audit.ok or audit.pending or audit.units.queued or audit.units.dead:
        found.wrong.append(f"the audit says {_short(audit)}")
    return found


def _judge_the_displaced(found: Consistency, accepted: Mapping[str, Purchase], by_id: Mapping[str, Any]) -> None:
    """The database may refuse what Redis accepted, but no more units than came back with restored orders."""
    for order_id in accepted.keys() & by_id.keys():
        accepted[order_id].displaced = by_id[order_id].state == OrderState.REJECTED
    restored = _units(purchase for purchase in accepted.values() if purchase.restored)
    displaced = _units(purchase for purchase in accepted.values() if purchase.displaced)
    found.same("accepted, but refused by the database", beyond_restored=+(displaced - restored), none=Counter())


def _units(purchases: Iterable[Purchase]) -> Counter[str]:
    units: Counter[str] = Counter()
    for purchase in purchases:
        units[purchase.order.goods_id] += purchase.order.quantity
    return units


def _compare_orders(
    found: Consistency, accepted: Mapping[str, Purchase], rows: Sequence[Any], by_id: Mapping[str, Any]
) -> None:
    lost, strangers = accepted.keys() - by_id.keys(), by_id.keys() - accepted.keys()
    found.lost, found.strangers, found.duplicated = len(lost), len(strangers), len(rows) - len(by_id)
    found.same("acknowledged, but in no row", lost=lost, none=set())
    found.same("in a row, but never acknowledged", found=strangers, none=set())
    found.same("rows of one order", rows=len(rows), orders=len(by_id))
    for order_id in accepted.keys() & by_id.keys():
        purchase, row = accepted[order_id], by_id[order_id]
        content = (row.goods_id, row.buyer_id, row.quantity)
        found.same(f"content of {order_id}", buyer=purchase.order.content, database=content)
        found.same(
            f"state of {order_id} ({purchase.plan})",
            expected=purchase.expected.value,
            told=(purchase.told or (purchase.expected if purchase.plan == "keep" else "nothing")),
            database=row.state,
        )


def _compare_units(
    found: Consistency,
    accepted: Mapping[str, Purchase],
    rows: Sequence[Any],
    store: SQLAlchemyStore,
    raw: redis.Redis,
    keys: Keys,
) -> None:
    """Every unit, by item and by buyer, from four sides that know nothing of each other."""
    ledger: Counter[str] = Counter()
    held: dict[str, Counter[str]] = {}
    for order_id, text in raw.hgetall(keys.orders).items():
        record = read(text, order_id.decode())
        if record.state not in RELEASED:
            ledger[record.goods_id] += record.quantity
    bought = _units(accepted.values())
    given_back = _units(purchase for purchase in accepted.values() if purchase.expected in RELEASED)
    restored: Counter[tuple[str, str]] = Counter()
    for purchase in accepted.values():
        if purchase.restored:
            restored[purchase.order.goods_id, purchase.order.buyer_id] += purchase.order.quantity
    active: Counter[str] = Counter()
    for row in rows:
        if OrderState(row.state) not in RELEASED:
            active[row.goods_id] += row.quantity
            held.setdefault(row.goods_id, Counter())[row.buyer_id] += row.quantity
    for goods in _sql(store, select(GOODS).where(GOODS.c.sale == keys.sale)):
        name = goods.goods_id
        total, booked, in_ledger = map(int, raw.hmget(keys.stock(name), "Total", "Booked", "Ledger"))
        found.same(
            f"units of {name}",
            bought_less_returned=bought[name] - given_back[name],
            rows=active[name],
            database_booked=goods.booked,
            redis_booked=booked,
            redis_ledger=in_ledger,
            ledger_records=ledger[name],
            gate=int(raw.get(keys.access(name)) or -1),
        )
        found.same(f"total of {name}", wished=goods.total, granted=goods.granted, redis=total)
        if max(booked, goods.booked) > total:
            found.wrong.append(f"{name} is oversold: {booked} of {total}")
        if goods.per_buyer is not None:
            buyers = {
                buyer.decode(): int(units) for buyer, units in raw.hgetall(keys.buyers(name)).items() if int(units)
            }
            found.same(f"buyers of {name}", redis=buyers, rows=dict(held.get(name, {})))
            if any(units > goods.per_buyer + restored[name, buyer] for buyer, units in buyers.items()):
                found.wrong.append(f"a buyer holds more than {goods.per_buyer} of {name}")
    found.units_accepted, found.units_returned = bought.total(), given_back.total()
    found.units_booked = active.total()


def _compare_events(found: Consistency, accepted: Mapping[str, Purchase], store: SQLAlchemyStore, sale: str) -> None:
    """The host is to hear of each change once."""
    query = select(EVENTS.c.order_id, EVENTS.c.state, func.count()).where(EVENTS.c.sale == sale)
    written = {(row[0], row[1]): row[2] for row in _sql(store, query.group_by(EVENTS.c.order_id, EVENTS.c.state))}
    due = {(name, state): 1 for name, purchase in accepted.items() for state in purchase.events}
    found.same("events for the host", due=set(due.items()) - set(written.items()), none=set())
    found.same("events too many", found=set(written.items()) - set(due.items()), none=set())


def _sql(store: SQLAlchemyStore, query: Any) -> list[Any]:
    with store.transaction() as connection:
        return list(connection.execute(query))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 500 else f"{text[:500]}... ({len(text)} characters)"
