"""The command that ends a sale for good."""

from __future__ import annotations

from typing import Final

from flashsale.errors import NotSettled
from flashsale.model.reports import Settlement
from flashsale.ops import trail
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.proof import digest, left, number_of_proof, proof_of, summed

SUMS: Final = ("sold", "total", "free", "orders")
"""What `--expect` compares."""


def _purge(context: Context) -> Outcome:
    settlement = context.syncer.settlement()
    if not settlement.ok:
        return Outcome([summed(settlement), *left(settlement), "NOT SETTLED: nothing was removed"], {}, ATTENTION)
    context.expect(_compared(settlement))
    if lacking := _lacking(context, digest(proof_of(context.name, settlement))):
        raise Stop(f"before a purge there must be: {', '.join(lacking)}", ATTENTION)
    return context.change(
        Change(
            lines=[
                summed(settlement),
                f"sale {context.name}  its keys in Redis -> removed; its name is used up, and nothing brings it back",
            ],
            before={"proof": proof_of(context.name, settlement)},
            after={"purged": True},
            make=lambda: _make_purge(context),
            asks=True,
        )
    )


def _lacking(context: Context, sha256: str) -> list[str]:
    """Returns what the trail must have before: an export of the orders, and the proof of what is there now."""
    store = context.store
    if not hasattr(store, "trail"):
        return []
    exported = any((entry.after or {}).get("what") == "orders" for entry in trail.done(store, "export"))
    return [*([] if exported else ["export"]), *([] if number_of_proof(context, sha256) else ["settle"])]


def _compared(settlement: Settlement) -> dict[str, int]:
    units = settlement.audit.units
    return {**{name: getattr(units, name) for name in SUMS[:3]}, "orders": sum(settlement.orders.values())}


def _make_purge(context: Context) -> Outcome:
    try:
        settlement = context.syncer.purge()
    except NotSettled as error:
        return Outcome([*left(error.settlement), "NOT SETTLED: nothing was removed"], {}, ATTENTION)
    proof = proof_of(context.name, settlement)
    return Outcome(["the sale is over; the database keeps its rows"], {"proof": proof, "sha256": digest(proof)})


VERBS: Final = (
    Verb(
        "purge",
        "end the sale for good: remove its keys from Redis",
        _purge,
        about="Removes the keys of a settled sale from Redis, and records it in the database, which keeps every row. "
        "--expect is compared with the proof just before: nothing moves in a settled sale.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        asks=True,
        wants_reason=True,
        expects=SUMS,
    ),
)
