"""Parts of the library with one mechanism taken out, for tests that must notice."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import insert, update

from flashsale import OrderQueue, OrderState
from flashsale._sql.tables import GOODS, ORDERS
from flashsale.lua import SCRIPTS, Script
from flashsale.model import RELEASED
from flashsale.stores import SQLAlchemyStore

if TYPE_CHECKING:
    import pytest


def mutate(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Changes the text of a Lua script for this test; fails when the text is no longer there."""
    text = SCRIPTS[name].text
    assert text.count(old) == 1, f"{name}.lua has changed: mend the mutation"
    text = text.replace(old, new)
    sha = hashlib.sha1(text.encode("ascii"), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(SCRIPTS, name, Script(name, text, sha))


class NoGuard(SQLAlchemyStore):
    """UPDATE goods SET booked = booked + n, whatever was granted."""

    def unguarded(self, goods_id, units):
        return update(GOODS).where(self._is_goods(goods_id)).values(booked=GOODS.c.booked + units)

    def _take(self, connection, goods_id, units):
        return connection.execute(NoGuard.unguarded(self, goods_id, units)).rowcount > 0


class NoTombstone(SQLAlchemyStore):
    """An order without a row is released without a trace."""

    def settle(self, order, state):
        if state in RELEASED and not self.states([order.order_id]):
            return state
        return super().settle(order, state)


class NoWinner(SQLAlchemyStore):
    """Whoever comes last decides."""

    def settle(self, order, state):
        standing = super().settle(order, state)
        if standing is state:
            return standing
        with self._engine.begin() as connection:
            this = update(ORDERS).where(ORDERS.c.sale == self.sale, ORDERS.c.order_id == order.order_id)
            connection.execute(this.values(state=state.value))
        return state


class BooksTwice(SQLAlchemyStore):
    """Units are booked for every order of the batch, not only for the rows inserted."""

    def save(self, orders):
        saved = super().save(orders)
        with self._engine.begin() as connection:
            for order in orders:
                if saved.existing.get(order.order_id) is OrderState.PERSISTED:
                    self._take(connection, order.goods_id, order.quantity)
        return saved


class NoKey(SQLAlchemyStore):
    """Rows of orders have no key, and each order is inserted whenever it comes."""

    def create_all(self):
        super().create_all()
        with self._engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE bare AS SELECT * FROM flashsale_orders")
            connection.exec_driver_sql("DROP TABLE flashsale_orders")
            connection.exec_driver_sql("ALTER TABLE bare RENAME TO flashsale_orders")

    def _insert_new(self, connection, table, common, rows):
        if table is not ORDERS:
            return super()._insert_new(connection, table, common, rows)
        connection.execute(insert(table), [{"sale": self.sale, **common, **row} for row in rows])
        return {row["order_id"] for row in rows}


class AnyVersion(SQLAlchemyStore):
    """A grant whatever the version of the row."""

    def grant(self, goods_id, units, *, loaded=False, version=None):
        return super().grant(goods_id, units, loaded=loaded)


class NeverLoaded(SQLAlchemyStore):
    """It forgets that Redis was given the goods."""

    def goods(self):
        return [replace(goods, loaded=False) for goods in super().goods()]


class AlwaysBurns:
    """Every attempt counts."""

    @staticmethod
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        nack = OrderQueue.nack
        monkeypatch.setattr(
            OrderQueue, "nack", lambda queue, claims, *, delay=0.0, count_attempt=True: nack(queue, claims, delay=delay)
        )
