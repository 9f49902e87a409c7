"""Whatever comes from outside: a value or a typed error, and Redis byte for byte as before a refusal.

The targets are those of `make fuzz`; here Hypothesis calls them, and atheris for a moment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flashsale._sync import auditor
from tests.chaos.fuzz import parsers
from tests.chaos.fuzz.scripts import PLACES, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import servers

SHAPES = st.one_of(
    st.binary(max_size=60),
    st.integers().map(lambda number: str(number).encode()),
    st.floats().map(lambda number: repr(number).encode()),
    st.sampled_from(
        [b"nan", b"inf", b"-1", b"0x10", b"1e1", b" 5", b"9" * 16, b"9" * 400, b"0" * 20, b"", b"\xff", b"-"]
    ),
    st.from_regex(rb"[A-Z]{1,9}\|[0-9]{1,20}\|[0-9]\|phone\|[0-9]{1,400}\|.{1,4}", fullmatch=True),
    st.from_regex(rb"[0-9]{1,400}\|[0-9]{1,20}\|.{0,40}", fullmatch=True),
    st.from_regex(
        rb'\{"order_id":"[a-z]{0,2}","goods_id":"phone","buyer_id":".?","quantity":[0-9]{0,8}\}', fullmatch=True
    ),
)


@pytest.mark.parametrize("name", parsers.TARGETS)
@given(data=st.data())
@settings(max_examples=200)
def test_what_is_read_is_right_or_refused(name: str, data: st.DataObject) -> None:
    parsers.TARGETS[name](data.draw(SHAPES))


@pytest.fixture
def sandbox(redis_server: servers.RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """On the real Redis: `make fuzz` plays on the fake."""
    from tests.conftest import Backend

    monkeypatch.setattr(auditor, "BETWEEN", 0.0)
    with (
        contextlib.closing(Backend("redis", decode=False, server=redis_server)) as backend,
        contextlib.closing(Sandbox(backend.raw(), backend.client())) as sandbox,
    ):
        yield sandbox


@given(place=st.integers(0, len(PLACES) - 1), value=SHAPES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(place=3, value=b"nan")
def test_a_value_that_somebody_else_wrote(sandbox: Sandbox, place: int, value: bytes) -> None:
    sandbox.play(place, value)


NUMBER = {name: place for place, name in enumerate(["Total", "Booked", "Ledger", "hold"])}
FOUND = {  # by name: how many places further than the first of its kind, and the value
    "a hold that is no number": (NUMBER["hold"], b"nan"),
    "a hold without end": (NUMBER["hold"], b"inf"),
    "a quantity past Lua's numbers": (23, b"QUEUED|" + b"9" * 400 + b"|1|phone|1|ann"),
    "a sequence number past Lua's numbers": (23, b"QUEUED|1|1|phone|" + b"9" * 400 + b"|ann"),
    "a record under an id that is none": (24, b"\xff"),
    "an epoch that is no number": (18, b"x"),
    "a state that is no text": (16, b"\xff"),
    "a claim without parts": (28, b"x"),
    "attempts past Lua's numbers": (28, b"9" * 400 + b"|1|{}"),
    "a delivery that is no number": (29, b"1|1|a-b"),
    "a deadline of no order": (30, b"\xff"),
    "a dead letter that is none": (31, b"x"),
    "goods that are none": (33, b"\xff"),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_fuzzing_found_stays_found(sandbox: Sandbox, name: str) -> None:
    sandbox.play(*FOUND[name])


@pytest.mark.parametrize("text", ["connected_slaves:\u00b2", "connected_slaves:x", "redis_version:7.\u00b2"])
def test_info_that_is_no_number(text: str) -> None:
    parsers.server_info(text.encode())


@pytest.mark.parametrize("row", [b"NOWHERE", b"{", b"[" * 100_000])
def test_rows_that_somebody_else_wrote(row: bytes) -> None:
    parsers.database_row(row)


def test_atheris_for_a_moment() -> None:
    """`make fuzz` is the long form."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python")
    command = [
        sys.executable,
        "-m",
        "tests.chaos.fuzz",
        "--seconds",
        "4",
        "--target",
        "order_body",
        "--target",
        "ledger_record",
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent.parent, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing found") == 2
