"""A host's own store: the one that docs/embedding.md prints, subclasses of ours, and what is a store by its methods."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import flashsale.aio.stores
import flashsale.stores
from flashsale import Goods, OrderState, StoreError
from flashsale.stores import SQLAlchemyStore
from flashsale.testing import OrderStoreSuite
from tests.support.helpers import Shop
from tools.rooms import PROJECT

# -- the store of the documentation, as printed -----------------------------------------------------------------------

PAGE = PROJECT / "docs" / "embedding.md"
SECTION = PAGE.read_text("utf-8").partition("\n## A store of your own\n")[2].partition("\n## ")[0]
STORE, SUITE = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
exec(compile(STORE + SUITE, str(PAGE), "exec", dont_inherit=True))  # makes `MyStore`, and `TestMyStore`


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_printed_store_is_tested_by_the_whole_suite_and_is_short() -> None:
    assert issubclass(globals()["TestMyStore"], OrderStoreSuite)
    assert issubclass(globals()["MyStore"], flashsale.stores.RowStore)
    assert len(STORE.splitlines()) < 100


def test_a_store_on_rows_needs_no_sqlalchemy() -> None:
    code = f"import sys; sys.modules['sqlalchemy'] = None; import flashsale.aio.stores\n{STORE}"
    code += "store = MyStore('mine.db', 'nov11')\nassert store.epoch() == 1 and store.advance_epoch() == 2"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("primitive", sorted(flashsale.stores.RowStore.__abstractmethods__))
def test_a_store_without_one_of_its_primitives_is_not_made(primitive: str) -> None:
    whole = {name: lambda *_: None for name in flashsale.stores.RowStore.__abstractmethods__}
    for kind in (flashsale.stores.RowStore, flashsale.aio.stores.RowStore):
        type("Whole", (kind,), whole)("nov11")
        with pytest.raises(TypeError, match=primitive):
            type("Lacking", (kind,), {name: each for name, each in whole.items() if name != primitive})("nov11")


# -- what sale, worker, syncer and outbox ask of a store --------------------------------------------------------------


def protocol(store: Any) -> Any:
    """Returns the methods of the protocol, and not one more."""
    names = [name for name in vars(flashsale.OrderStore) if not name.startswith("_")]
    return type("Protocol", (), {name: staticmethod(getattr(store, name)) for name in names})()


def subclass(store: Any) -> Any:
    """Returns the store, of a class that overrides `save` and counts in `calls`."""

    class Counting(type(store)):
        calls = 0

        def save(self, orders):
            self.calls += 1
            return super().save(orders)  # of asyncio: to be awaited

    store.__class__ = Counting
    return store


@pytest.mark.parametrize("kind", [protocol, subclass])
async def test_a_sale_asks_only_for_methods_of_the_protocol(shop: Shop, kind: Any) -> None:
    store = await shop.store(Goods("phone", 3))
    sale = await shop.open(3, sale=shop.sale(store=kind(store.real)))
    for name in ("o-1", "o-2", "o-3"):
        assert (await sale.buy("phone", "ann", order_id=name)).accepted
    await shop.worker(sale).run_once()
    assert (await sale.confirm("o-1"), await sale.cancel("o-2")) == (OrderState.CONFIRMED, OrderState.CANCELLED)
    assert await sale.restock("phone", 2) == 5
    syncer, told = shop.syncer(sale), []
    await syncer.run_once()
    assert (await syncer.audit(expected=["o-1", "o-2", "o-3"])).ok
    await shop.make("Outbox", sale, told.append).run_once()
    assert {event.order.order_id for event in told} == {"o-1", "o-2"}
    assert getattr(store.real, "calls", 1) == 1


# -- a lock is a lock -------------------------------------------------------------------------------------------------


class Meeting(SQLAlchemyStore):
    """Two that have read a row meet before they write it, if they can."""

    barrier = threading.Barrier(2)

    def update(self, *call):
        with contextlib.suppress(threading.BrokenBarrierError):
            self.barrier.wait(0.3)
        return super().update(*call)


class NoLock(Meeting):
    """Reads, and lets others read."""

    def select(self, *call, lock=False):
        return super().select(*call)


@pytest.mark.parametrize("kind", [Meeting, NoLock])
@pytest.mark.parametrize("database", ["sqlite", "fresh_postgres_url", "fresh_mysql_url"])
def test_restocks_at_once_all_count_because_of_the_lock(request, database: str, kind: type[Meeting]) -> None:
    url = "sqlite:///shop.db" if database == "sqlite" else request.getfixturevalue(database)
    with kind(url, "nov11") as store, ThreadPoolExecutor(2) as pool:
        store.create_all()
        store.put_goods(Goods("phone", 10))
        store.barrier.reset()
        added = 0
        for each in [pool.submit(store.restock, "phone", 1) for _ in range(2)]:
            with contextlib.suppress(StoreError):
                added += bool(each.result())
        (goods,) = store.goods()
        assert (goods.total == 12) is (kind is Meeting), f"{added} restocks succeeded"
