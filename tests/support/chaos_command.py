"""The command `flashsale` with a store that shows when it writes, and that raises now and then if it is moody.

    FLASHSALE_SAVING=/a/folder FLASHSALE_MOODS=/path/of/a/log python -m tests.support.chaos_command worker --sale nov11

In the folder is a file, named by the process, while orders are in its hands: from before they are written until they
are about to be acknowledged. Without a log there are no exceptions; with one they come before a batch is written and
after, and each writes one byte.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import flashsale.stores
from flashsale.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flashsale import Order, Saved

SHARE = 0.04  # of the batches


class ShownStore(flashsale.stores.SQLAlchemyStore):
    def save(self, orders: Sequence[Order]) -> Saved:
        sign = Path(os.environ["FLASHSALE_SAVING"], str(os.getpid()))
        sign.touch()
        try:
            saved = super().save(orders)
            time.sleep(random.random() * 0.02)  # long enough for a kill between the commit and the acknowledgement
            return saved
        finally:
            sign.unlink()


class MoodyStore(ShownStore):
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
    store = MoodyStore if "FLASHSALE_MOODS" in os.environ else ShownStore
    flashsale.stores.SQLAlchemyStore = store  # type: ignore[misc]
    sys.exit(main())
