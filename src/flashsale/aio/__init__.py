"""flashsale for asyncio: the same names as in `flashsale`, awaitable."""

from flashsale.aio.gate import Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.order_queue import OrderQueue
from flashsale.aio.outbox import Outbox
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.syncer import Syncer
from flashsale.aio.worker import Worker
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
from flashsale.reports import SyncReport

__all__ = [
    "Admission",
    "AlreadyLoaded",
    "AsyncOrderStore",
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
