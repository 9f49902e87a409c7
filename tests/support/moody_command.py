"""The command `flashsale` with a store of the host's own that raises now and then, before a batch is written and after.

    FLASHSALE_MOODS=/path/of/a/log python -m tests.support.moody_command worker --sale nov11

Writes one byte into the log for each exception.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import flashsale.stores
from flashsale.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flashsale import Order, Saved

SHARE = 0.04  # of the batches


class MoodyStore(flashsale.stores.SQLAlchemyStore):
    def save(self, orders: Sequence[Order]) -> Saved:
        self._maybe_raise()
        saved = super().save(orders)
        self._maybe_raise()
        return saved

    def _maybe_raise(self) -> None:
        if random.random() < SHARE:
            with Path(os.environ["FLASHSALE_MOODS"]).open("ab") as log:
                log.write(b".")
            raise random.choice((ValueError, KeyError, RuntimeError, ConnectionError, MemoryError))("a mood")


if __name__ == "__main__":
    flashsale.stores.SQLAlchemyStore = MoodyStore  # type: ignore[misc]
    sys.exit(main())
