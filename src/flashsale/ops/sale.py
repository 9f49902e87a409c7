"""The commands for a whole sale: make its tables, pause it, resume it."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any, Final

from flashsale.ops.frame import ATTENTION, Change, Context, Kind, Outcome, Stop, Verb

# -- tables ---------------------------------------------------------------------------------------------------------


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--upgrade", action="store_true", help="also add what tables of the release before lack")


def _init(context: Context) -> Outcome:
    store = context.store
    if not hasattr(store, "create_all"):
        raise Stop(f"{type(store).__name__} does not make its tables: your migrations do")
    absent, behind = missing(store)
    wanted = absent + (behind if context.options.upgrade else [])
    after = _lacking(store) if behind and not context.options.upgrade else Outcome()
    if not wanted:
        return Outcome(after.lines or ["all tables are there"], {"missing": behind}, after.code)
    return context.change(
        Change(
            lines=[f"missing: {part}" for part in wanted],
            before={"missing": absent + behind},
            after={"missing": [part for part in behind if part not in wanted]},
            make=lambda: _make(context, after),
        )
    )


def _lacking(store: Any) -> Outcome:
    parts = missing(store)[1]
    return Outcome(
        [*(f"missing: {part}" for part in parts), "the tables are of an older release: --upgrade"], {}, ATTENTION
    )


def _make(context: Context, after: Outcome) -> Outcome:
    (context.store.upgrade if context.options.upgrade else context.store.create_all)()
    return Outcome(["the tables are made", *after.lines], {}, after.code)


def missing(store: Any) -> tuple[list[str], list[str]]:
    """Returns the tables that are missing, and the columns and indexes that tables of an older release lack."""
    from sqlalchemy import inspect  # noqa: PLC0415 - needs an extra
    from sqlalchemy.exc import NoSuchTableError  # noqa: PLC0415 - likewise

    from flashsale._sql.tables import METADATA, missing_parts  # noqa: PLC0415 - likewise

    with store.transaction() as connection:
        there, behind = set(inspect(connection).get_table_names()), list[str]()
        with suppress(NoSuchTableError):
            behind += [" ".join(str(part).split()) for part in missing_parts(connection)]
    return [f"table {table.name}" for table in METADATA.sorted_tables if table.name not in there], behind


# -- pause and resume -----------------------------------------------------------------------------------------------


def _pause(context: Context) -> Outcome:
    return _set_state(context, "paused")


def _resume(context: Context) -> Outcome:
    return _set_state(context, "open")


def _set_state(context: Context, wanted: str) -> Outcome:
    state = context.overview.state().state
    if state == "closed":
        raise Stop("the sale is closed; only a rebuild opens it", ATTENTION)
    step = context.sale.pause if wanted == "paused" else context.sale.resume
    return context.change(
        Change(
            lines=[f"sale {context.name}  {state} -> {wanted}"],
            before={"state": state},
            after={"state": wanted},
            make=lambda: _step(step),
        )
    )


def _step(step: Any) -> Outcome:
    step()  # also where it is so already: a gate may not have followed
    return Outcome()


VERBS: Final = (
    Verb(
        "init",
        "make the tables",
        _init,
        _add_init,
        "Makes the tables that do not exist yet. Those of an older release are upgraded with --upgrade: before the "
        "sale, for a long table is locked meanwhile.",
        kind=Kind.CHANGE,
        needs=frozenset({"database"}),
        is_new=True,
    ),
    Verb(
        "pause",
        "stop the whole sale at once",
        _pause,
        about="Answers every purchase PAUSED, until resume. Nothing that was accepted is touched. Asks nothing, and "
        "works without the database.",
        kind=Kind.CHANGE,
    ),
    Verb("resume", "end a pause", _resume, about="Ends a pause. Works without the database.", kind=Kind.CHANGE),
)
