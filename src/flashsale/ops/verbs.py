"""All commands that look at a sale or change it, in the order in which `--help` lists them."""

from __future__ import annotations

from typing import Final

from flashsale.ops import (
    claimed,
    dead,
    doctor,
    events,
    export,
    gates,
    goods,
    history,
    orders,
    policy,
    proof,
    purge,
    restock,
    sale,
    status,
    top,
)
from flashsale.ops.frame import Verb

VERBS: Final[tuple[Verb, ...]] = (
    *status.VERBS,
    *top.VERBS,
    *sale.VERBS,
    *doctor.VERBS,
    *goods.VERBS,
    *policy.VERBS,
    *gates.VERBS,
    *restock.VERBS,
    *orders.VERBS,
    *claimed.VERBS,
    *dead.VERBS,
    *events.VERBS,
    *proof.VERBS,
    *purge.VERBS,
    *history.VERBS,
    *export.VERBS,
)
