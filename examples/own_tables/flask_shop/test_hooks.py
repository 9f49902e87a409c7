"""The shop's hooks, killed at every line and every statement: its tables and the sale's agree all the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select

from examples.own_tables.flask_shop.flash import Hooks
from examples.own_tables.flask_shop.models import Base, Customer, Order, Price, Stock, db
from flashsale.stores import SQLAlchemyStore, metadata
from flashsale.testing import OrderHooksSuite


class TestHooks(OrderHooksSuite):
    valid_data = {"cents": 39900}  # noqa: RUF012 - the suite's way

    @pytest.fixture(autouse=True)
    def shop(self, tmp_path: Path) -> Iterator[None]:
        self.url = f"sqlite:///{tmp_path / 'shop.db'}"
        engine = create_engine(self.url)
        for tables in (Base.metadata, metadata):
            tables.create_all(engine)
        db.configure(bind=engine)
        with db.begin() as session:
            session.add_all(Price(sku=sku, cents=39900) for sku in ("phone", "case"))
            session.flush()
            session.add_all(Stock(sku=sku, units=1000) for sku in ("phone", "case"))
        yield
        engine.dispose()

    def make_store(self, sale: str) -> SQLAlchemyStore:
        return SQLAlchemyStore(self.url, sale, hooks=Hooks())

    def close_store(self, store: Any) -> None:
        store.close()

    def put_buyer(self, store: Any, buyer_id: str) -> str:
        with db.begin() as session:
            session.add(customer := Customer(name=buyer_id))
            session.flush()
            return str(customer.id)

    def active_orders(self, store: Any) -> Collection[str]:
        with db() as session:
            return set(session.scalars(select(Order.number).where(Order.status != "cancelled")))

    def stock(self, store: Any, goods_id: str) -> int:
        with db() as session:
            return session.get_one(Stock, goods_id).units
