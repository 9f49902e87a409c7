"""What goes in and comes out: orders, goods, answers and reports. Pure: nothing here talks to Redis or a database."""

from flashsale.model.answers import Admission, BasketReceipt, Entry, Receipt, receipt_of
from flashsale.model.goods import GateState, Goods, GoodsView, Stock
from flashsale.model.orders import (
    RELEASED,
    TRANSITIONS,
    Claim,
    Event,
    Order,
    OrderState,
    Outcome,
    Saved,
    StoredOrder,
    by_goods,
)

__all__ = [
    "RELEASED",
    "TRANSITIONS",
    "Admission",
    "BasketReceipt",
    "Claim",
    "Entry",
    "Event",
    "GateState",
    "Goods",
    "GoodsView",
    "Order",
    "OrderState",
    "Outcome",
    "Receipt",
    "Saved",
    "Stock",
    "StoredOrder",
    "by_goods",
    "receipt_of",
]
