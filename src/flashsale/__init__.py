"""Survive a flash sale: limited stock, a start time, hundreds of times the usual traffic.

The four layers of the published design: `Gate`, `Inventory`, `OrderQueue` with its `Worker`, and `Syncer`;
`FlashSale` composes them. The same names are awaitable in `flashsale.aio`.

PYTEST_DONT_REWRITE: a process that starts pytest may have imported this before, and would be warned of it.
"""

from flashsale._rules.durability import Durability
from flashsale._rules.hooks import Refuse
from flashsale._rules.observer import Observer
from flashsale._rules.server_check import Finding
from flashsale._rules.tickets import Ticket, Tickets
from flashsale._sync.gate import Gate
from flashsale._sync.hooks import OrderHooks
from flashsale._sync.inventory import Inventory
from flashsale._sync.order_queue import OrderQueue
from flashsale._sync.outbox import Outbox
from flashsale._sync.partitions import PartitionedSale as _PartitionedSale  # noqa: F401 - so that `partitions=` is known
from flashsale._sync.sale import FlashSale
from flashsale._sync.store import OrderStore
from flashsale._sync.syncer import Syncer
from flashsale._sync.worker import Worker
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
    PartitionMismatch,
    RowRefused,
    StoreError,
    StoreRequired,
    UnknownGoods,
    UnknownLayout,
    UnknownSale,
    UnsafeServer,
)
from flashsale.keys import Keys, PlainKeys
from flashsale.model import (
    Admission,
    BasketReceipt,
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
from flashsale.model.reports import (
    Audit,
    Disagreement,
    Problem,
    Rebuild,
    Repair,
    Settlement,
    SyncReport,
    Units,
)

__all__ = [
    "Admission",
    "AlreadyLoaded",
    "Audit",
    "BasketReceipt",
    "Claim",
    "CorruptState",
    "Disagreement",
    "Durability",
    "Event",
    "Finding",
    "FlashSale",
    "FlashSaleError",
    "Gate",
    "GateState",
    "Goods",
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
    "OrderHooks",
    "OrderQueue",
    "OrderState",
    "OrderStore",
    "Outbox",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "PartitionMismatch",
    "PlainKeys",
    "Problem",
    "Rebuild",
    "Receipt",
    "Refuse",
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
    "UnknownSale",
    "UnsafeServer",
    "Worker",
]
