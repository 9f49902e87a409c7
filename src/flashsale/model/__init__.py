"""What goes in and comes out: orders, goods, answers and reports. Pure: nothing here talks to Redis or a database."""

from flashsale.model.answers import Admission, BasketReceipt, Receipt, receipt_of
from flashsale.model.goods import GateState, Goods, Stock
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
    weigh,
)

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
    "by_goods",
    "receipt_of",
    "weigh",
]
