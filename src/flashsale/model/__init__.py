"""The values that go in and come out: orders, items, answers and reports. Pure: no Redis, no database."""

from flashsale.model.answers import Admission, BasketReceipt, Receipt, admission_of, receipt_of
from flashsale.model.goods import GateState, Goods, Stock
from flashsale.model.orders import (
    RELEASED,
    TRANSITIONS,
    Claim,
    Order,
    OrderState,
    Outcome,
    by_goods,
    order_of,
)
from flashsale.model.rows import Event, Saved, StoredOrder

__all__ = [
    "RELEASED",
    "TRANSITIONS",
    "Admission",
    "BasketReceipt",
    "Claim",
    "Event",
    "GateState",
    "Goods",
    "Order",
    "OrderState",
    "Outcome",
    "Receipt",
    "Saved",
    "Stock",
    "StoredOrder",
    "admission_of",
    "by_goods",
    "order_of",
    "receipt_of",
]
