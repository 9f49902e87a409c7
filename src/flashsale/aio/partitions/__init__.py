"""One sale over several partitions, each of which is a small sale of its own: units move, buyers and orders stay.

Importing this makes `FlashSale(..., partitions=)`, `Worker` and `Syncer` know of them.
"""

from flashsale.aio.partitions.sale import PartitionedSale
from flashsale.aio.partitions.syncer import PartitionedSyncer
from flashsale.aio.partitions.worker import PartitionedWorker

__all__ = ["PartitionedSale", "PartitionedSyncer", "PartitionedWorker"]
