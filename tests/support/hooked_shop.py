"""A small shop with tables of its own, and hooks that keep them as the sale's are."""

from __future__ import annotations

import zlib
from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, registry

from flashsale import Order, OrderState, Refuse

DATA = {"size": "M"}
METADATA = MetaData()
CUSTOMERS = Table("customers", METADATA, Column("id", String(128), primary_key=True))
STOCK = Table("shop_stock", METADATA, Column("sku", String(64), primary_key=True), Column("units", Integer))
ORDERS = Table(
    "shop_orders",
    METADATA,
    Column("sale", String(64), primary_key=True),
    Column("order_id", String(128), primary_key=True),
    Column("customer", ForeignKey(CUSTOMERS.c.id), nullable=False),
    Column("size", String(8), nullable=False),
    Column("status", String(16), nullable=False),
)
GONE = (OrderState.CANCELLED, OrderState.EXPIRED)


class Row:
    """A row of `ORDERS`, for the ORM."""

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


registry(metadata=METADATA).map_imperatively(Row, ORDERS)


def unwanted(one: Order) -> Order:
    """The order with a voucher that was used before; one half is refused by an exception."""
    way = ("raise", "return")[zlib.crc32(one.order_id.encode()) % 2]
    return Order(one.order_id, one.goods_id, one.buyer_id, one.quantity, data={**DATA, "voucher": way})


def judge(orders: Any) -> dict[str, str]:
    for one in orders:
        if one.data.get("voucher") == "raise":
            raise Refuse(one.order_id, "the voucher was used")
    return {one.order_id: "the voucher was used" for one in orders if one.data.get("voucher") == "return"}


class Hooks:
    def __init__(self, sale: str) -> None:
        self.sale = sale

    def _row(self, one: Order) -> dict[str, Any]:
        values = {"customer": one.buyer_id, "size": one.data["size"], "status": "new"}
        return {"sale": self.sale, "order_id": one.order_id, **values}

    def _move(self, one: Order, after: OrderState) -> Any:
        this = (ORDERS.c.sale == self.sale, ORDERS.c.order_id == one.order_id)
        return update(ORDERS).where(*this).values(status=after.value)

    @staticmethod
    def _take(goods_id: str, units: int) -> Any:
        take = update(STOCK).where(STOCK.c.sku == goods_id, STOCK.c.units >= units)
        return take.values(units=STOCK.c.units - units)


class ShopHooks(Hooks):
    def saved(self, connection: Any, orders: Any) -> dict[str, str]:
        with Session(connection, join_transaction_mode="create_savepoint") as session, session.begin():
            session.add_all([Row(**self._row(one)) for one in orders if one.data.get("voucher") != "return"])
        return judge(orders)

    def settled(self, connection: Any, one: Order, before: OrderState, after: OrderState) -> None:
        if before is not OrderState.QUEUED:
            assert one.data["size"]
            connection.execute(self._move(one, after))

    def stock(self, connection: Any, goods_id: str, units: int) -> None:
        if not connection.execute(self._take(goods_id, units)).rowcount:
            raise ValueError("the shop has fewer")


class AsyncShopHooks(Hooks):
    async def saved(self, connection: Any, orders: Any) -> dict[str, str]:
        session = AsyncSession(connection, join_transaction_mode="create_savepoint")
        async with session, session.begin():
            session.add_all([Row(**self._row(one)) for one in orders if one.data.get("voucher") != "return"])
        return judge(orders)

    async def settled(self, connection: Any, one: Order, before: OrderState, after: OrderState) -> None:
        if before is not OrderState.QUEUED:
            assert one.data["size"]
            await connection.execute(self._move(one, after))

    async def stock(self, connection: Any, goods_id: str, units: int) -> None:
        if not (await connection.execute(self._take(goods_id, units))).rowcount:
            raise ValueError("the shop has fewer")


class DjangoHooks(Hooks):
    def saved(self, connection: Any, orders: Any) -> dict[str, str]:
        rows = [tuple(self._row(one).values()) for one in orders if one.data.get("voucher") != "return"]
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO shop_orders VALUES (%s, %s, %s, %s, %s)", rows)
        return judge(orders)

    def settled(self, connection: Any, one: Order, before: OrderState, after: OrderState) -> None:
        if before is not OrderState.QUEUED:
            assert one.data["size"]
            with connection.cursor() as cursor:
                change = "UPDATE shop_orders SET status = %s WHERE sale = %s AND order_id = %s"
                cursor.execute(change, [after.value, self.sale, one.order_id])

    def stock(self, connection: Any, goods_id: str, units: int) -> None:
        with connection.cursor() as cursor:
            take = "UPDATE shop_stock SET units = units - %s WHERE sku = %s AND units >= %s"
            cursor.execute(take, [units, goods_id, units])
            if not cursor.rowcount:
                raise ValueError("the shop has fewer")


def create(connection: Any) -> None:
    """Makes the tables, with a million phones and cases."""
    METADATA.create_all(connection)
    for sku in ("phone", "case"):
        if connection.execute(select(STOCK.c.units).where(STOCK.c.sku == sku)).first() is None:
            connection.execute(insert(STOCK), {"sku": sku, "units": 1_000_000})


def active(sale: str) -> Any:
    return select(ORDERS.c.order_id).where(ORDERS.c.sale == sale, ORDERS.c.status.not_in([each.value for each in GONE]))


def units(goods_id: str) -> Any:
    return select(STOCK.c.units).where(STOCK.c.sku == goods_id)


def put_customer(connection: Any, name: str) -> None:
    if connection.execute(select(CUSTOMERS).where(CUSTOMERS.c.id == name)).first() is None:
        connection.execute(insert(CUSTOMERS), {"id": name})
