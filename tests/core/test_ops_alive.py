"""`worker --health` and its like: what a supervisor learns of a process, by a file and by HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import StoreError
from flashsale.ops import alive
from flashsale.ops.frame import Stop
from tests.support import servers
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.operator import Operator

BOUND = 2.0  # an idle worker goes on each half second


def ask(port: int, method: str = "GET") -> tuple[int, str]:
    """Returns status and body; 0 while nobody listens."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request(method, "/")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
    except OSError:
        return 0, ""


@contextmanager
def working(part: Any) -> Iterator[None]:
    """Runs a worker or a syncer in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=part.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


@contextmanager
def frozen_save(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Lets the next save hang until the event is set."""
    hangs, goes_on, save = threading.Event(), threading.Event(), operator.store.save

    def frozen(orders: Any) -> Any:
        hangs.set()
        assert goes_on.wait(60)
        return save(orders)

    monkeypatch.setattr(operator.store, "save", frozen)
    operator.buy("o-1")
    assert hangs.wait(20)
    try:
        yield goes_on
    finally:
        goes_on.set()


def test_a_port_answers_503_while_a_save_is_frozen(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    port = servers.free_port()
    with alive.telling(str(port), operator.worker._activity, BOUND), working(operator.worker):
        eventually(lambda: ask(port)[0] == 200, "the worker is well")
        with frozen_save(operator, monkeypatch) as goes_on:
            eventually(lambda: ask(port)[0] == 503, "the worker is frozen")
            told = json.loads(ask(port)[1])
            assert (told["v"], told["ok"], told["bound"]) == (1, False, BOUND)
            assert told["still_for"] > BOUND
            assert told["process"] == operator.worker._activity.name
            assert ask(port, "HEAD") == (503, "")
            goes_on.set()
            eventually(lambda: ask(port)[0] == 200, "the worker goes on")
    assert ask(port)[0] == 0


def test_a_file_is_not_replaced_while_a_save_is_frozen(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    operator.begin()
    path, looks, pulse = tmp_path / "health", [], alive.pulse
    monkeypatch.setattr(alive, "EVERY", 0.02)
    monkeypatch.setattr(alive, "pulse", lambda *given: looks.append(pulse(*given)) or looks[-1])
    with alive.telling(str(path), operator.worker._activity, BOUND), working(operator.worker):
        first = path.stat().st_mtime_ns
        eventually(lambda: path.stat().st_mtime_ns > first, "it is replaced")
        with frozen_save(operator, monkeypatch) as goes_on:
            eventually(lambda: [each.is_well for each in looks[-2:]] == [False] * 2, "the worker is frozen")
            last, count = path.stat().st_mtime_ns, len(looks)
            eventually(lambda: len(looks) > count + 5, "it is looked at")
            assert path.stat().st_mtime_ns == last
            goes_on.set()
            eventually(lambda: path.stat().st_mtime_ns > last, "it is replaced again")
        assert json.loads(path.read_text())["ok"]
    assert list(tmp_path.glob("health*")) == []


def test_a_worker_that_waits_for_its_database_is_well(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    tries: list[object] = []

    def away(orders: object) -> None:
        tries.append(orders)
        raise StoreError("the database is away")

    monkeypatch.setattr(operator.store, "save", away)
    operator.buy("o-1")
    port = servers.free_port()
    with alive.telling(str(port), operator.worker._activity, 20.0), working(operator.worker):
        eventually(lambda: len(tries) > 1, "it tries again")
        assert ask(port)[0] == 200
        assert operator.worker._activity.still_for() < 20


def test_a_syncer_goes_on_with_each_pass(operator: Operator) -> None:
    operator.begin()
    went_on = operator.syncer._activity._went_on
    with working(operator.syncer):
        eventually(lambda: operator.syncer._activity._went_on > went_on, "it passes")


@pytest.mark.parametrize(("where", "address"), [("9000", ("127.0.0.1", 9000)), ("h:9000", ("h", 9000))])
def test_a_port_is_told_from_a_file(where: str, address: tuple[str, int]) -> None:
    assert alive._address(where) == address
    assert alive._address("[::1]:9000") == ("::1", 9000)
    for path in ("/run/health", "health", "./9000", "a/b:9000"):
        assert alive._address(path) is None


def test_what_cannot_be_used_is_told(operator: Operator, tmp_path: Path) -> None:
    operator.begin()
    port = servers.free_port()
    with alive.telling(str(port), operator.worker._activity, BOUND):
        for where in (str(port), str(tmp_path / "no" / "health")):
            told = operator("worker", "--health", where)
            assert (told.code, f"--health: {where} cannot be used" in told.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "bound"),
    [
        (["worker", "--lease", "100"], 200),
        (["worker", "--lease", "1"], 60),
        (["syncer", "--interval", "90"], 150),
        (["outbox", "--handler", "builtins.print"], 361),
    ],
)
def test_the_bound_leaves_time_for_what_each_may_do(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, words: list[str], bound: float
) -> None:
    operator.begin()
    bounds: list[float] = []

    def telling(where: str, activity: object, bound: float) -> Any:
        bounds.append(bound)
        raise Stop(where)

    monkeypatch.setattr("flashsale.ops.running.telling", telling)
    operator(*words, "--health", "x")
    assert bounds == [bound]


def test_the_command_tells_until_it_is_stopped(operator: Operator, tmp_path: Path) -> None:
    operator.begin()
    where = ["--redis", operator.redis_url, "--database", operator.database, "--sale", "spring"]
    path, port = tmp_path / "health", servers.free_port()
    started = [
        subprocess.Popen([sys.executable, "-m", "flashsale", *words, *where])
        for words in (["worker", "--health", str(path)], ["syncer", "--health", f"127.0.0.1:{port}"])
    ]
    try:
        eventually(path.exists, "the file is there")
        eventually(lambda: ask(port)[0] == 200, "the syncer answers")
        operator.buy("o-1")
        eventually(operator.store.orders, "the worker works")
        for each in started:
            each.send_signal(signal.SIGTERM)
        assert [each.wait(20) for each in started] == [0, 0]
        assert not path.exists()
    finally:
        for each in started:
            each.kill()
            each.wait()
