"""The commands that prove and mend: audit, repair, rebuild, settle."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from flashsale.model import OrderState
from flashsale.model.reports import Audit, Disagreement, Repair, Settlement, Units
from flashsale.ops import trail
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Change, Context, Kind, Outcome, Stop, Verb
from flashsale.ops.goods import all_apart
from flashsale.ops.reading import gather
from flashsale.ops.report import render
from flashsale.ops.words import counted, number, table

PLACES: Final = ("total", "free", "queued", "held", "sold", "dead", "direct")
_SHOWN: Final = {"held": "unpaid"}


# -- audit ----------------------------------------------------------------------------------------------------------


def _add_expected(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--expected", metavar="FILE", help="order ids that buyers were told, one a line; - for stdin")


def _refuse_purged(context: Context) -> None:
    """Redis has nothing of a purged sale, and is not to get it back."""
    if context.is_purged():
        raise Stop(f"sale {context.name} was purged: it is over. Its proof is the last settle of the trail")


def _audit(context: Context) -> Outcome:
    _refuse_purged(context)
    audit = context.syncer.audit(_expected(context.options.expected))
    policies = all_apart(context)
    lines = [*_units(audit), *_problems(audit), *policies, _verdict(audit, policies)]
    return Outcome(lines, {**told(audit), "policies": policies}, 0 if audit.ok and not policies else ATTENTION)


def _verdict(audit: Audit, policies: Sequence[str]) -> str:
    if audit.ok and policies:
        return "not clean: orders and units agree, the policy of an item does not"
    return "clean" if audit.ok else "not clean"


def _expected(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise Stop(f"--expected: {path} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _units(audit: Audit) -> list[str]:
    if not audit.goods:
        return []
    head = ("goods", *(_SHOWN.get(place, place) for place in PLACES))
    rows = {**audit.goods, **({"all": audit.units} if len(audit.goods) > 1 else {})}
    return table(head, ([name, *(number(getattr(units, place)) for place in PLACES)] for name, units in rows.items()))


def _problems(audit: Audit) -> list[str]:
    lines = [f"{goods_id}: the units do not add up" for goods_id, units in audit.goods.items() if not units.agree]
    lines = ["the sale moves too fast to sum its units; the orders are exact"] if audit.moving else lines
    lines += map(_drift, audit.adrift.items())
    lines += map(_line, audit.orders)
    lines += [f"{order_id}: lost: no system has it" for order_id in audit.lost]
    lines += [f"{what}: not what flashsale writes" for what in audit.corrupt]
    return lines + ([f"{audit.unreadable} elements of the queue are no orders"] if audit.unreadable else [])


def _drift(found: tuple[str, int]) -> str:
    """Returns what a failover did to units on their way between partitions."""
    goods_id, units = found
    what = "are lost" if units > 0 else "are there twice"
    return f"{goods_id}: {counted(abs(units), 'unit')} {what}, on their way between partitions"


def _line(found: Disagreement) -> str:
    return f"{found.order_id}: {found.problem}, ledger {found.ledger}, database {found.database}"


def told(audit: Audit) -> dict[str, Any]:
    """Returns an audit as JSON."""
    return {
        "goods": {goods_id: _sums(units) for goods_id, units in audit.goods.items()},
        "orders": [_disagreement(found) for found in audit.orders],
        "lost": audit.lost,
        "pending": audit.pending,
        "unreadable": audit.unreadable,
        "corrupt": audit.corrupt,
        "moving": audit.moving,
        "adrift": audit.adrift,
    }


def _sums(units: Units) -> dict[str, int]:
    return {place: getattr(units, place) for place in PLACES}


def _disagreement(found: Disagreement) -> dict[str, Any]:
    return {
        "order_id": found.order_id,
        "problem": found.problem,
        "ledger": found.ledger,
        "database": found.database,
    }


# -- repair ---------------------------------------------------------------------------------------------------------


def _add_repair(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--apply", action="store_true", help="mend it; else it is only said what would be mended")
    add("--trust-ledger", action="store_true", help="also confirm what is paid in Redis alone: ask your bank first")


def _repair(context: Context) -> Outcome:
    _refuse_purged(context)
    trust = context.options.trust_ledger
    found = context.syncer.repair(dry_run=True, trust_ledger=trust)
    left = [each for each in found.audit.orders if each not in found.mended]
    adrift = found.audit.adrift
    lines = [f"would mend {_drift(each)}" for each in adrift.items()]
    lines += [*(f"would mend {_line(each)}" for each in found.mended), *(f"leaves {_line(each)}" for each in left)]
    policies = all_apart(context)
    lines += policies
    if not context.options.apply or not (found.mended or adrift):
        code = 0 if found.audit.ok and not policies else ATTENTION
        return Outcome([*lines, _advice(found)], {**told(found.audit), "mended": []}, code)
    return context.change(
        Change(
            lines=lines,
            before={"orders": [_disagreement(each) for each in found.audit.orders], "adrift": adrift},
            after={"mended": len(found.mended), "adrift": {}},
            make=lambda: _mend(context, trust_ledger=trust),
            asks=True,
        )
    )


def _advice(found: Repair) -> str:
    if found.mended:
        return f"{len(found.mended)} orders would be mended: repair --apply"
    if found.audit.adrift:
        return "units would be mended: repair --apply"
    if found.audit.ok:
        return "orders and units agree: there is nothing to mend"
    return "nothing of it can be mended by this command"


def _mend(context: Context, *, trust_ledger: bool) -> Outcome:
    done = context.syncer.repair(dry_run=False, trust_ledger=trust_ledger)
    audit = context.syncer.audit()
    policies = all_apart(context)
    lines = [f"mended {_drift(each)}" for each in done.audit.adrift.items()]
    lines += [*(f"mended {_line(each)}" for each in done.mended), *_problems(audit), *policies]
    data = {"mended": [_disagreement(each) for each in done.mended], **told(audit)}
    return Outcome([*lines, _verdict(audit, policies)], data, 0 if audit.ok and not policies else ATTENTION)


# -- rebuild --------------------------------------------------------------------------------------------------------


def _add_rebuild(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="also of a sale that has lost nothing and is settled")


def _rebuild(context: Context) -> Outcome:
    state = context.overview.state()
    if not context.options.force and state.state != "closed" and _is_settled(context):
        raise Stop("the sale is settled, and Redis has lost nothing: nothing is to be rebuilt (or --force)", ATTENTION)
    epoch = context.store.epoch()
    return context.change(
        Change(
            lines=[
                f"sale {context.name}  {state.state}, epoch {epoch} -> closed -> open, epoch {epoch + 1}",
                "Redis gets what the database has; accepted orders that are in neither row nor queue are lost",
            ],
            before={"state": state.state, "epoch": epoch},
            after={"state": "open", "epoch": epoch + 1},
            make=lambda: _make_rebuild(context),
            asks=True,
        )
    )


def _is_settled(context: Context) -> bool:
    there = context.overview.goods_everywhere()
    if any(goods.loaded and goods.goods_id not in there for goods in context.items_or_stop().values()):
        return False
    return context.syncer.settlement().ok


def _make_rebuild(context: Context) -> Outcome:
    done = context.syncer.rebuild()
    by_hand = [goods.goods_id for goods in context.items_or_stop().values() if goods.opens_at is None]
    lines = [f"{done.orders:,} orders of the database are in the ledger"]
    lines += [f"{goods_id}: {units:,} units booked" for goods_id, units in sorted(done.goods.items())]
    lines += [f"{goods_id} has no opening time: open {goods_id}" for goods_id in sorted(by_hand)]
    lines.append("whom was it promised and is lost: audit --expected FILE")
    return Outcome(lines, {"orders": done.orders, "goods": done.goods, "shut": sorted(by_hand)})


# -- settle ---------------------------------------------------------------------------------------------------------


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", metavar="FILE", help="write the report, one HTML file; also when not settled")


def _settle(context: Context) -> Outcome:
    _refuse_purged(context)
    settlement = context.syncer.settlement()
    outcome = _proven(context, settlement)
    path = context.options.report
    if path is None:
        return outcome
    evidence = gather(context.sale, settlement, list(trail.entries(context.store)))
    try:
        Path(path).write_text(render(evidence), "utf-8")
    except OSError as error:
        raise Stop(f"--report: {path} cannot be written: {error}") from error
    return replace(outcome, lines=[*outcome.lines, f"report: {path}"], data={**outcome.data, "report": path})


def _proven(context: Context, settlement: Settlement) -> Outcome:
    proof = proof_of(context.name, settlement)
    lines = [*_units(settlement.audit), *_problems(settlement.audit), summed(settlement), *_orders(settlement)]
    data: dict[str, Any] = {"settled": settlement.ok, "proof": proof, "sha256": digest(proof)}
    if not settlement.ok:
        return Outcome([*lines, *left(settlement), "NOT SETTLED"], data, ATTENTION)
    context.note({"sha256": data["sha256"], "proof": proof})
    data["entry"] = number_of_proof(context, data["sha256"])
    where = f"  written to flashsale_audit #{data['entry']}" if data["entry"] else ""
    return Outcome([*lines, f"SETTLED  proof sha256 {data['sha256']}{where}"], data)


def summed(settlement: Settlement) -> str:
    """Returns the sum of all units, in one line."""
    units = settlement.audit.units
    places = [place for place in ("sold", "free", "queued", "held", "dead", "direct") if _is_shown(place, units)]
    sums = " + ".join(f"{_SHOWN.get(place, place)} {getattr(units, place):,}" for place in places)
    return f"{sums} = {units.total:,}  {'OK' if units.agree else 'DOES NOT ADD UP'}"


def _is_shown(place: str, units: Units) -> bool:
    return place != "queued" or units.queued != 0


def _orders(settlement: Settlement) -> list[str]:
    counts = settlement.orders
    states = ", ".join(f"{state.lower()} {counts[state]:,}" for state in OrderState if counts.get(state))
    refused = sum(settlement.refused.values())
    return [
        f"orders {sum(counts.values()):,}" + f": {states}" * bool(states) + f"; refused {refused:,}" * bool(refused)
    ]


def left(settlement: Settlement) -> list[str]:
    """Returns what stands between a sale and its settlement."""
    units, pending = settlement.audit.units, settlement.audit.pending
    lines = {
        f"{pending:,} orders wait for the workers": pending,
        f"{units.held:,} units are unpaid: wait for their deadlines, or orders confirm, or orders cancel": units.held,
        f"{units.dead:,} units are in dead letters: dead list": units.dead,
        "Redis and the database disagree: repair": len(settlement.audit.orders),
        "units were lost on their way between partitions: repair": len(settlement.audit.adrift),
    }
    return [line for line, count in lines.items() if count]


def proof_of(sale: str, settlement: Settlement) -> dict[str, Any]:
    """Returns what a settlement proves; the same sale at its end gives the same proof."""
    return {
        "sale": sale,
        "goods": {goods_id: _sums(units) for goods_id, units in sorted(settlement.audit.goods.items())},
        "orders": {str(state): count for state, count in sorted(settlement.orders.items())},
    }


def digest(proof: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a proof: of its JSON with sorted keys and without blanks."""
    return hashlib.sha256(json.dumps(proof, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def number_of_proof(context: Context, sha256: str) -> int:
    """Returns the number of the entry that has this proof; 0: none has."""
    proofs = trail.done(context.store, "settle")
    return max((entry.entry_id for entry in proofs if (entry.after or {}).get("sha256") == sha256), default=0)


VERBS: Final = (
    Verb(
        "audit",
        "compare Redis with the database, order by order",
        _audit,
        _add_expected,
        "Compares ledger, queue, leases, deadlines, policies and database, while the sale runs, and says where every "
        "unit is. Changes nothing; exit code 1 if they disagree. As JSON, `pending` counts the orders on their way; "
        "`orders claimed` lists those that workers have claimed.",
        needs=NEEDS_ALL,
    ),
    Verb(
        "repair",
        "mend what an audit finds",
        _repair,
        _add_repair,
        "Says what it would mend of orders and units; mends it with --apply. The policy of an item is brought by "
        "`goods set`.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        asks=True,
    ),
    Verb(
        "rebuild",
        "restore Redis from the database after a loss",
        _rebuild,
        _add_rebuild,
        "Restores the sale in Redis from the database, under a new epoch; nothing is sold meanwhile.",
        kind=Kind.CHANGE,
        needs=NEEDS_ALL,
        asks=True,
    ),
    Verb(
        "settle",
        "prove that every unit is accounted for",
        _settle,
        _add_report,
        about="Prints the proof at the end of a sale; exit code 1 if it is not settled.",
        needs=NEEDS_ALL,
    ),
)
