"""One sale over several partitions, each of which is a small sale of its own: units move, buyers and orders stay.

Importing this makes `FlashSale(..., partitions=)`, `Worker` and `Syncer` know of them.
"""

from flashsale._sync.partitions.sale import PartitionedSale
from flashsale._sync.partitions.syncer import PartitionedSyncer
from flashsale._sync.partitions.worker import PartitionedWorker

__all__ = ["PartitionedSale", "PartitionedSyncer", "PartitionedWorker"]
