"""The rows: a scenario is written once, and runs sound on both faces and again with each mechanism taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support import mutants

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.faults.world import World

SYNC, AIO = "flashsale", "flashsale.aio"


class Mutation(NamedTuple):
    """One mechanism, and how to take it out.

    Args:
        name: of the mechanism.
        take_out: called with `monkeypatch` and the `World`.
        face: on which it is taken out; the sync face is generated from the other.
    """

    name: str
    take_out: Callable[[pytest.MonkeyPatch, World], None]
    face: str = SYNC


class Case(NamedTuple):
    """One run of a row: sound, or without one mechanism."""

    face: str
    mutation: Mutation | None = None


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        test: path and name, as pytest names it.
        mechanisms: that are taken out.
        cases: the runs, as pytest names them.
    """

    number: int
    fault: str
    how: str
    holds: str
    mechanism: str
    test: str
    mechanisms: tuple[str, ...]
    cases: tuple[str, ...]


ROWS: dict[int, Row] = {}


def fault(
    number: int,
    name: str,
    how: str,
    *,
    holds: str,
    mechanism: str,
    without: tuple[Mutation, ...],
) -> Callable[[Any], Any]:
    """Makes a test that takes `world` the row of this number."""

    def register(test: Any) -> Any:
        assert number not in ROWS
        assert without
        cases = {"aio" if face == AIO else "sync": Case(face) for face in (SYNC, AIO)}
        cases |= {f"without {each.name}": Case(each.face, each) for each in without}
        path = test.__module__.replace(".", "/") + ".py"
        mechanisms = tuple(each.name for each in without)
        ROWS[number] = Row(number, name, how, holds, mechanism, f"{path}::{test.__name__}", mechanisms, tuple(cases))
        parameters = [pytest.param(case, id=label) for label, case in cases.items()]
        return pytest.mark.parametrize("case", parameters, indirect=True)(test)

    return register


# -- ways to take something out -------------------------------------------------------------------------------------


def lua(name: str, script: str, old: str, new: str) -> Mutation:
    """Returns the mutation that changes a script, also in the processes of the test."""
    return Mutation(name, lambda monkeypatch, _: mutants.mutate(monkeypatch, script, old, new))


def patch(name: str, target: str, value: Any, *, face: str = SYNC) -> Mutation:
    """Returns the mutation that puts `value` in the place of `target`, a dotted name."""
    return Mutation(name, lambda monkeypatch, _: monkeypatch.setattr(target, value), face)


def store(name: str, mutant: type) -> Mutation:
    """Returns the mutation that gives the sale another store."""
    return patch(name, "flashsale.stores.SQLAlchemyStore", mutant)


LEDGER = lua("the order id in the script", "reserve", "nil, fresh[id] or known[i]", "nil, nil")
GUARD = store("the guard in the database", mutants.NoGuard)
