"""The shops with tables of their own, on PostgreSQL: their own tests, which run beside them on SQLite."""

from __future__ import annotations

import pytest

from examples.own_tables.flask_shop.test_shop import *  # noqa: F403


@pytest.fixture
def database_url(fresh_postgres_url: str) -> str:
    return fresh_postgres_url
