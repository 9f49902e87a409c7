"""flashsale for asyncio: the same names as in `flashsale`, awaitable."""

from flashsale._rules.durability import Durability
from flashsale._rules.hooks import Refuse
from flashsale._rules.observer import Observer
from flashsale._rules.server_check import Finding
from flashsale._rules.tickets import Ticket, Tickets
from flashsale.aio.gate import Gate
from flashsale.aio.hooks import AsyncOrderHooks
from flashsale.aio.inventory import Inventory
from flashsale.aio.order_queue import OrderQueue
from flashsale.aio.outbox import Outbox
from flashsale.aio.partitions import PartitionedSale as _PartitionedSale  # noqa: F401 - so that `partitions=` is known
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore
from flashsale.aio.syncer import Syncer
from flashsale.aio.worker import Worker
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
    "AsyncOrderHooks",
    "AsyncOrderStore",
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
    "OrderQueue",
    "OrderState",
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
