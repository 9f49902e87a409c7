"""Survive a flash sale: limited stock, a start time, hundreds of times the usual traffic.

The four layers of the published design: `Gate`, `Inventory`, `OrderQueue` with its `Worker`, and `Syncer`;
`FlashSale` composes them. The same names are awaitable in `flashsale.aio`.

PYTEST_DONT_REWRITE: a process that starts pytest may have imported this before, and would be warned of it.
"""

from flashsale.durability import Durability
from flashsale.errors import (
    AlreadyLoaded,
    CorruptState,
    FlashSaleError,
    InvalidRequest,
    InvalidTicket,
    NotExecuted,
    NotPersisted,
    NotSettled,
    OrderConflict,
    OutcomeUnknown,
    Overloaded,
    RowRefused,
    StoreError,
    StoreRequired,
    UnknownGoods,
    UnknownLayout,
    UnsafeServer,
)
from flashsale.gate import Gate
from flashsale.health import Finding
from flashsale.inventory import Inventory
from flashsale.keys import Keys, PlainKeys
from flashsale.model import (
    Admission,
    BasketReceipt,
    Claim,
    Entry,
    Event,
    GateState,
    Goods,
    GoodsView,
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
from flashsale.reports import (
    Audit,
    Disagreement,
    Problem,
    Rebuild,
    Repair,
    Settlement,
    SyncReport,
    Units,
)
from flashsale.sale import FlashSale
from flashsale.store import OrderStore
from flashsale.syncer import Syncer
from flashsale.tickets import Ticket, Tickets
from flashsale.worker import Worker

__all__ = [
    "Admission",
    "AlreadyLoaded",
    "Audit",
    "BasketReceipt",
    "Claim",
    "CorruptState",
    "Disagreement",
    "Durability",
    "Entry",
    "Event",
    "Finding",
    "FlashSale",
    "FlashSaleError",
    "Gate",
    "GateState",
    "Goods",
    "GoodsView",
    "InvalidRequest",
    "InvalidTicket",
    "Inventory",
    "Keys",
    "NotExecuted",
    "NotPersisted",
    "NotSettled",
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
    "Problem",
    "Rebuild",
    "Receipt",
    "Repair",
    "RowRefused",
    "Saved",
    "Settlement",
    "Stock",
    "StoreError",
    "StoreRequired",
    "StoredOrder",
    "SyncReport",
    "Syncer",
    "Ticket",
    "Tickets",
    "Units",
    "UnknownGoods",
    "UnknownLayout",
    "UnsafeServer",
    "Worker",
]
