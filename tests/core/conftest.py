"""Fixtures of the core tests alone."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def operator(
    request: pytest.FixtureRequest, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Iterator[Operator]:
    """Types commands for a sale, on the real Redis and an SQLite file.

    The parameter, where there is one, is the number of its partitions.
    """
    partitions = getattr(request, "param", 1)
    with contextlib.closing(Operator(redis_url, tmp_path, monkeypatch, capsys, partitions)) as operator:
        yield operator
