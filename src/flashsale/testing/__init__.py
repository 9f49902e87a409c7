"""Suites for what you plug into flashsale: inherit one, and pytest runs it on your own implementation.

Needs pytest, and no plugin.
"""

import pytest

pytest.register_assert_rewrite("flashsale.testing._contract")

from flashsale.testing.stores import AsyncOrderStoreSuite, OrderStoreSuite  # noqa: E402  rewritten from here on

__all__ = ["AsyncOrderStoreSuite", "OrderStoreSuite"]
