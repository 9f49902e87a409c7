"""The shop's tables, as they were before the flash sale: migration 0001."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

db = sessionmaker()  # `db.begin()` is a Session with a transaction; the app binds it to its database


class Base(DeclarativeBase):
    type_annotation_map = {str: String(128)}  # noqa: RUF012 - SQLAlchemy's way


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Price(Base):
    __tablename__ = "prices"

    sku: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


class Stock(Base):
    """What the regular channel can sell."""

    __tablename__ = "stock"
    __table_args__ = (CheckConstraint("units >= 0", name="no_less_than_none"),)

    sku: Mapped[str] = mapped_column(ForeignKey(Price.sku), primary_key=True)
    units: Mapped[int]


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(unique=True)  # by which customer, bank and staff call it
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id), index=True)
    status: Mapped[str]  # open, paid, cancelled
    items: Mapped[list[Item]] = relationship()


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), index=True)
    sku: Mapped[str] = mapped_column(ForeignKey(Price.sku))
    quantity: Mapped[int]
    cents: Mapped[int]  # for one, as it was when the customer bought


class Payment(Base):
    """Money that has come. It may come before its order is there, so `number` is no foreign key."""

    __tablename__ = "payments"

    id: Mapped[str] = mapped_column(primary_key=True)  # the bank's: who sends it twice means the same money
    number: Mapped[str] = mapped_column(index=True)
    cents: Mapped[int]
    refund: Mapped[bool]  # it must go back


class Note(Base):
    """What staff did, and why."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]
