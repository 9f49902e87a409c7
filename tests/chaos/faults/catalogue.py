"""The rows: a scenario is written once, and runs sound on each API and again with each mechanism taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.mutants import AIO, DJANGO, MUTANTS, SYNC, kills

if TYPE_CHECKING:
    from collections.abc import Callable


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

EVERYWHERE = (SYNC, AIO, DJANGO)
_WORDS = {SYNC: "sync", AIO: "aio", DJANGO: "django"}


def fault(
    number: int,
    title: str,
    how: str,
    *,
    holds: str,
    mechanism: str,
    without: tuple[str, ...],
    on: tuple[str, ...] = (SYNC, AIO),
) -> Callable[[Any], Any]:
    """Makes a test that takes `world` the row of this number, played sound and without each of these mutants."""

    def register(test: Any) -> Any:
        assert number not in ROWS
        assert without
        cases: dict[str, Any] = {_WORDS[api]: pytest.param(api) for api in on}
        for name in without:
            cases[f"without {name}"] = pytest.param(MUTANTS[name].api, marks=kills(name))
        path = test.__module__.replace(".", "/") + ".py"
        ROWS[number] = Row(number, title, how, holds, mechanism, f"{path}::{test.__name__}", without, tuple(cases))
        return pytest.mark.parametrize("case", cases.values(), ids=cases, indirect=True)(test)

    return register
