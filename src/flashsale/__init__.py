"""Survive a flash sale: limited stock, a start time, hundreds of times the usual traffic.

The four layers of the published design: `Gate`, `Inventory`, `OrderQueue` with its `Worker`, and `Syncer`;
`FlashSale` composes them. The same names are awaitable in `flashsale.aio`.
"""

from flashsale.errors import (
    AlreadyLoaded,
    CorruptState,
    FlashSaleError,
    InvalidRequest,
    NotExecuted,
    NotPersisted,
    OrderConflict,
    OutcomeUnknown,
    Overloaded,
    RowRefused,
    StoreError,
    StoreRequired,
    UnknownGoods,
)
from flashsale.gate import Gate
from flashsale.inventory import Inventory
from flashsale.keys import Keys, PlainKeys
from flashsale.model import (
    Admission,
    Claim,
    Event,
    GateState,
    Goods,
    Order,
    OrderState,
    Outcome,
    Receipt,
    Saved,
    Stock,
    StoredOrder,
)
from flashsale.observer import Observer
from flashsale.order_queue import OrderQueue
from flashsale.outbox import Outbox
from flashsale.reports import SyncReport
from flashsale.sale import FlashSale
from flashsale.store import OrderStore
from flashsale.syncer import Syncer
from flashsale.worker import Worker

__all__ = [
    "Admission",
    "AlreadyLoaded",
    "Claim",
    "CorruptState",
    "Event",
    "FlashSale",
    "FlashSaleError",
    "Gate",
    "GateState",
    "Goods",
    "InvalidRequest",
    "Inventory",
    "Keys",
    "NotExecuted",
    "NotPersisted",
    "Observer",
    "Order",
    "OrderConflict",
    "OrderQueue",
    "OrderState",
    "OrderStore",
    "Outbox",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "PlainKeys",
    "Receipt",
    "RowRefused",
    "Saved",
    "Stock",
    "StoreError",
    "StoreRequired",
    "StoredOrder",
    "SyncReport",
    "Syncer",
    "UnknownGoods",
    "Worker",
]
