"""Two releases on one live sale: wheels that are installed side by side, and run as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

import flashsale
from flashsale import FlashSale, Goods, OrderState, Syncer, UnknownLayout
from flashsale.stores import SQLAlchemyStore
from tests.servers.test_wheel import PROJECT, run
from tests.support.helpers import snapshot
from tests.support.mutants import BEGINS, LAYOUTS, change, promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop


COLUMN = '    Column("settled_at", Double),  # of its last move; NULL: it has not moved since it was saved\n'
REASON = '    Column("reason", _words()),  # of a hook\n'
PERSISTED = '    Column("persisted_at", Double),  # NULL: a tombstone, or saved by a release before\n'
INDEXES = [
    ('SETTLED: Final = Index("flashsale_orders_settled", ORDERS.c.sale, ORDERS.c.settled_at)', "SETTLED: Final = None"),
    ('BUYER: Final = Index("flashsale_orders_buyer", ORDERS.c.sale, ORDERS.c.buyer_id)', "BUYER: Final = None"),
]
BEFORE = {  # the release before knew no times of an order, no restocks that were done, no hooks and no trail
    "_sql/tables.py": ((COLUMN, ""), (REASON, ""), (PERSISTED, ""), *INDEXES),
    "_sync/stores/sqlalchemy.py": (
        (
            "from flashsale._sync.stores.trailed import TrailedRowStore",
            "from flashsale._sync.stores.base import RowStore",
        ),
        ("class SQLAlchemyStore(TrailedRowStore[Connection])", "class SQLAlchemyStore(RowStore[Connection])"),
        (
            "super().__init__(sale, hooks, (StatementError, driver_error), events=events)",
            "super().__init__(sale, events=events)",
        ),
    ),
}

COMMON = """
import json, sys
import redis
from flashsale import *
from flashsale.stores import SQLAlchemyStore
import flashsale

redis_url, database, name = sys.argv[1:4]
client = redis.Redis.from_url(redis_url)
store = SQLAlchemyStore(database, name)
sale = FlashSale(client, name, store=store)
worker, syncer = Worker(sale, batch=5), Syncer(sale)
"""

SELL = """
me, other = sys.argv[4:6]
print("ready", flush=True)
sys.stdin.readline()
accepted, persisted, passes = [], 0, 0
for number in range(200):
    for order_id in (f"{me}-{number}", f"both-{number}"):  # the second id is asked for by both releases
        receipt = sale.buy("phone", f"b-{order_id}", order_id=order_id)
        if receipt.accepted:
            accepted.append(order_id)
    if number % 10 == 9:
        persisted += worker.run_once()
    if number % 20 == 19:
        passes += syncer.run_once().leading
while (settled := worker.run_once()):
    persisted += settled
print("bought", flush=True)
sys.stdin.readline()
for number in range(10):
    sale.confirm(f"{other}-{number}"), sale.cancel(f"{me}-{number}"), sale.cancel(f"both-{number}")
sale.cancel(f"{me}-10")  # which the other one leaves alone
sale.restock("phone", 5)
print(json.dumps([flashsale.__file__, accepted, persisted, passes]))
"""

BEGIN = """
syncer.run_once()
sale.start("phone")
"""

TRY = """
answers = {}
for step, call in {
    "preload": lambda: sale.preload("case", 5),
    "buy": lambda: sale.buy("phone", "ann"),
    "pause": sale.pause,
    "cancel": lambda: sale.cancel("o-1"),
    "confirm": lambda: sale.confirm("o-1"),
    "extend_hold": lambda: sale.extend_hold("o-1", 60),
    "restock": lambda: sale.restock("phone", 5),
    "worker": worker.run_once,
    "syncer": syncer.run_once,
    "repair": lambda: syncer.repair(dry_run=False),
    "rebuild": syncer.rebuild,
    "purge": syncer.purge,
    "outbox": Outbox(sale, print).run_once,
    "requeue_dead": sale.queue.requeue_dead,
}.items():
    try:
        answers[step] = f"returned {call()!r}"
    except FlashSaleError as error:
        answers[step] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


class Release:
    """The wheel of this tree, changed to read the layouts `oldest` to `newest`; the first one with fewer columns."""

    def __init__(self, wheel: Path, site: Path, oldest: int, newest: int) -> None:
        self.site = site
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        layouts = (LAYOUTS, LAYOUTS.replace("1, 2", f"{oldest}, {newest}"))
        changes = {"lua/include/layout.lua": (layouts,)} | (BEFORE if newest == 1 else {})
        for file, pairs in changes.items():
            for old, new in pairs:
                self._patch(site / "flashsale" / file, old, new)

    @staticmethod
    def _patch(file: Path, old: str, new: str) -> None:
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMON + program, *arguments],
            env=os.environ | {"PYTHONPATH": str(self.site)},
            cwd=self.site,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, process: subprocess.Popen[str]) -> Any:
        """The JSON that the process ends with."""
        out, _ = process.communicate("\n", timeout=60)
        assert process.returncode == 0
        return json.loads(out.splitlines()[-1]) if out else None

    def call(self, program: str, *arguments: str) -> Any:
        return self.answer(self.start(program, *arguments))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Release]:
    """The release before, this one and the next, by their newest layout."""
    folder = tmp_path_factory.mktemp("releases")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT)
    (wheel,) = folder.glob("*.whl")
    layouts = ((1, 1), (1, 2), (2, 3))
    return {newest: Release(wheel, folder / f"{newest}", oldest, newest) for oldest, newest in layouts}


def opened(store: SQLAlchemyStore, total: int) -> None:
    store.create_all()
    store.put_goods(Goods("phone", total, hold=900))


def meet(word: str, *processes: subprocess.Popen[str]) -> None:
    """Waits until each process has said the word, and only then lets them go on."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{word}\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def test_two_releases_buy_work_and_sync_on_one_sale(
    releases: dict[int, Release], redis_url: str, fresh_postgres_url: str
) -> None:
    where = (redis_url, fresh_postgres_url, "spring")
    with SQLAlchemyStore(fresh_postgres_url, "spring") as store, redis.Redis.from_url(redis_url) as raw:
        opened(store, 500)
        releases[1].call(BEGIN, *where)
        old = releases[1].start(SELL, *where, "old", "new")
        new = releases[2].start(SELL, *where, "new", "old")
        meet("ready", old, new)
        meet("bought", old, new)
        answers = [releases[1].answer(old), releases[2].answer(new)]
        for release, (file, _, persisted, passes) in zip((releases[1], releases[2]), answers, strict=True):
            assert Path(file).is_relative_to(release.site)
            assert persisted > 0
            assert passes > 0
        accepted = {order_id for _, ids, *_ in answers for order_id in ids}
        assert len(accepted) == 500  # of 400 ids of their own and 200 shared ones; nothing is cancelled before
        shared = [{order_id for order_id in ids if order_id.startswith("both-")} for _, ids, *_ in answers]
        assert shared[0] | shared[1] <= accepted
        states = store.states(accepted)
        assert states.keys() == accepted
        assert OrderState.CANCELLED in states.values()
        assert raw.hget("flashsale:{spring}:meta", "layout") == b"1"
        with FlashSale(raw, "spring", store=store) as sale:
            audit = Syncer(sale).audit(expected=accepted)
            assert audit.ok, audit
            assert not audit.pending
            active = sum(state not in {OrderState.CANCELLED, OrderState.EXPIRED} for state in states.values())
            assert sale.inventory.stock("phone").booked == active
            assert sale.inventory.stock("phone").total == 510
        assert states["new-10"] is states["old-10"] is OrderState.CANCELLED
        told = {row.order.order_id for row, _ in store.settled(0.0)}  # the release before does not write when
        assert told & {"new-10", "old-10"} == {"new-10"}
        saved_by_us = [row.persisted_at is not None for row in store.find(accepted)]
        assert any(saved_by_us)
        assert not all(saved_by_us)  # the release before does not write when, here either
        assert {row.order.order_id for row in store.find_buyer("b-old-10")} == {"old-10"}


@pytest.mark.parametrize(
    ("begun_by", "met_by", "advice"),
    [(2, 1, "layout 2, and this release of flashsale reads 1 to 1: use a newer release"),
     (1, 3, "layout 1, and this release of flashsale reads 2 to 3: finish the sale with the release that began it")],
    ids=["newer", "too old"],
)  # fmt: skip
def test_a_release_that_cannot_read_a_sale_says_so_and_writes_nothing(
    releases: dict[int, Release], redis_url: str, fresh_postgres_url: str, begun_by: int, met_by: int, advice: str
) -> None:
    where = (redis_url, fresh_postgres_url, "spring")
    buys = 'sale.buy("phone", "ann", order_id="o-1"), worker.run_once(), sale.buy("phone", "bob", order_id="o-2")\n'
    with SQLAlchemyStore(fresh_postgres_url, "spring") as store, redis.Redis.from_url(redis_url) as raw:
        opened(store, 10)
        releases[begun_by].call(BEGIN + buys, *where)
        assert raw.hget("flashsale:{spring}:meta", "layout") == str(begun_by).encode()
        before = snapshot(raw), store.orders(), list(store.goods()), store.epoch()
        answers = releases[met_by].call(TRY, *where)
        assert (snapshot(raw), store.orders(), list(store.goods()), store.epoch()) == before
        assert set(answers.values()) == {f"UnknownLayout: the sale has {advice}"}, answers
        releases[begun_by].call('assert worker.run_once() == 1 and sale.confirm("o-2") == "CONFIRMED"', *where)


# -- in one process: both APIs, every backend ----------------------------------------------------------------------


async def test_a_sale_of_another_layout_is_refused_and_left_alone(shop: Shop) -> None:
    sale = await shop.open(10, store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    shop.raw.hset(shop.keys.meta, "layout", "3")
    before = snapshot(shop.raw), shop.sql("SELECT * FROM flashsale_goods")
    syncer, worker, outbox = shop.syncer(sale), shop.worker(sale), shop.make("Outbox", sale, print)
    for step in (
        lambda: sale.preload("case", 5),
        lambda: sale.buy("phone", "bob", order_id="o-2"),
        sale.pause,
        lambda: sale.cancel("o-1"),
        lambda: sale.extend_hold("o-1", 60),
        lambda: sale.restock("phone", 5),
        sale.queue.requeue_dead,
        worker.run_once,
        syncer.run_once,
        syncer.audit,
        syncer.rebuild,
        outbox.run_once,
    ):
        with pytest.raises(UnknownLayout) as caught:
            await step()
        assert (caught.value.layout, caught.value.oldest, caught.value.newest) == (3, 1, 2)
    assert (snapshot(shop.raw), shop.sql("SELECT * FROM flashsale_goods")) == before
    with pytest.raises(flashsale.NotExecuted) as refused:  # a view answers: ask again, with this id
        await sale.buy("phone", "bob", order_id="o-2")
    assert refused.value.order_id == "o-2"


@pytest.mark.parametrize("layout", ["0", "x", "1.0", ""])
async def test_a_layout_that_is_no_number_is_refused(shop: Shop, layout: str) -> None:
    sale = await shop.open(10)
    shop.raw.hset(shop.keys.meta, "layout", layout)
    with pytest.raises(UnknownLayout):
        await sale.buy("phone", "ann")


async def test_a_rebuild_keeps_the_layout_of_the_sale(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sale = await shop.open(10, store=True)
    for script in ("load", "close"):
        change(monkeypatch, script, LAYOUTS, LAYOUTS.replace("1, 2", "2, 3"))
    await shop.syncer(sale).rebuild()
    assert shop.raw.hget(shop.keys.meta, "layout") == b"2"
    shop.raw.flushall()
    await shop.syncer(sale).rebuild()
    assert shop.raw.hget(shop.keys.meta, "layout") == b"3"


@promises({f"the layout in {script}": test_a_sale_of_another_layout_is_refused_and_left_alone for script in BEGINS})
async def test_each_script_that_begins_something_looks_at_the_layout(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
