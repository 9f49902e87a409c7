"""Sales of both APIs over fakeredis, the fixtures of the plugin, and the suite for a store of one's own."""

import importlib.util
import sys
from pathlib import Path

import pytest

from flashsale import testing

assert importlib.util.find_spec("rich") is None, "the demo's, not a test's"
for name in testing.__all__:
    getattr(testing, name)

SHOP = """
from flashsale.testing import OrderStoreSuite, memory_store
from flashsale.stores import SQLAlchemyStore


def test_a_sale(make_flashsale):
    sale = make_flashsale({"phone": 1}, store=memory_store)
    assert [sale.buy("phone", name).accepted for name in ("ann", "bob")] == [True, False]


class TestStore(OrderStoreSuite):
    def make_store(self, sale):
        store = SQLAlchemyStore("sqlite://", sale)
        store.create_all()
        return store

    def put_goods(self, store, goods):
        store.put_goods(goods)
"""
Path("test_shop.py").write_text(SHOP)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_shop.py"]))
