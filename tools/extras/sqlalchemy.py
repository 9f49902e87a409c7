"""The tables and a store, over the sqlite3 that Python brings."""

from flashsale import Goods
from flashsale.stores import SQLAlchemyStore

with SQLAlchemyStore("sqlite:///shop.db", "nov11") as store:
    store.create_all()
    store.put_goods(Goods("phone", 3))
    assert [each.total for each in store.goods()] == [3]
