"""A small crowd in the shops with tables of their own; `python -m examples.own_tables.crowd` is the long form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import servers

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--buyers=40", "--units=12", "--kills=4", "--seconds=6", "--hold=3"]


@pytest.mark.parametrize("shop", ["flask", "django"])
def test_a_small_crowd_in_a_shop_with_tables_of_its_own(shop: str) -> None:
    command = [sys.executable, "-m", "examples.own_tables.crowd", shop, *SMALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    if "was not found" in done.stderr:
        servers.missing("a Redis or a PostgreSQL")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "web 1" in done.stdout  # it was killed
