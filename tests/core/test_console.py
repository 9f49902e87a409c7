"""The console: what its pages show of a sale, who may see them, and what a browser may do with them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from html import unescape
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import fakeredis
import pytest

from flashsale import FlashSale, Goods
from flashsale._rules.activity import Activity
from flashsale.ops.console import ADDRESSES, GUESSES, HEADERS, WITHIN, Guesses, is_loopback, knows
from flashsale.ops.pages import EVERY, PAGES
from tests.support import servers
from tests.support.consoles import console
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.operator import Operator


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str
    raw: str


def ask(url: str, *, method: str = "GET", **headers: str) -> Answer:
    """Asks a console."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as connection:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=headers)
        answer = connection.getresponse()
        raw = answer.read().decode()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, unescape(raw), raw)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def shown(operator: Operator) -> Iterator[str]:
    """The address of a console: ten phones; an order is saved, one waits, one is a dead letter."""
    operator.begin(Goods("phone", 10))
    operator.sale.start("phone")
    for kind in ("worker", "syncer"):
        operator.sale._recorder._flush(Activity(kind))
    operator.buy("o-1")
    operator.worker.run_once()
    operator.buy("o-2", "bob")
    operator.bury("o-2")
    operator.buy("o-3", "<b>bob")
    operator.syncer.run_once()
    operator("pause", "--as", "anna", "--reason", "<i>a wrong price")
    with console(operator.sale) as url:
        yield url


# -- what it shows --------------------------------------------------------------------------------------------------


def test_the_first_page_says_whether_all_is_well(shown: str) -> None:
    assert ask(shown).headers["location"] == "status"
    page = ask(f"{shown}status").text
    assert re.search(r"spring  PAUSED  \d\d:\d\d:\d\d by Redis", page)
    assert "<strong>DEAD LETTERS</strong> 1: `flashsale dead list` says why" in page
    assert '<th scope="row">phone</th><td>10</td><td>3</td><td>7</td>' in page
    assert "claimed 0)  dead 1  unpaid 0" in page
    assert '<th scope="row">worker ' in page


@pytest.mark.parametrize(("wanted", "found"), [("o-1", ["o-1"]), ("bob", ["o-2"]), ("%3Cb%3Ebob", ["o-3"]), ("no", [])])
def test_orders_are_found_by_their_id_or_their_buyer(shown: str, wanted: str, found: list[str]) -> None:
    page = ask(f"{shown}orders?q={wanted}").text
    assert re.findall(r'<h3 id="order-\d">(.*?)</h3>', page) == found
    assert ("No server knows an order or a buyer no." in page) == (not found)


def test_dead_letters_are_listed_with_what_they_keep(shown: str) -> None:
    page = ask(f"{shown}dead").text
    assert '<a href="orders?q=o-2">o-2</a>' in page
    assert "they keep 1 unit of phone" in page


def test_curves_are_drawn_of_the_samples(shown: str) -> None:
    page = ask(f"{shown}curves").text
    assert [unescape(title) for title in re.findall(r"<figcaption>(.*?)</figcaption>", page)] == [
        "Units booked",
        "Orders that wait",
        "Age of the oldest order on the queue, in seconds",
        "Refusals a minute, by outcome",
    ]
    assert "phone: at most 3" in page


def test_the_trail_is_shown_the_latest_first(shown: str, operator: Operator) -> None:
    operator("resume", "--as", "bert")
    page = ask(f"{shown}trail").text
    assert page.index("bert on ") < page.index("anna on ")
    assert '"state"' not in page
    assert "state=paused" in page


def test_what_comes_from_outside_is_no_markup(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1", "<b>bob")
    operator("pause", "--reason", "<i>a wrong price")
    with console(operator.sale) as url:
        pages = [ask(f"{url}{path}?q=%3Cb%3Ebob") for path in PAGES]
    assert any("<i>a wrong price" in page.text for page in pages)
    assert any("buyer <b>bob" in page.text for page in pages)
    assert not any("<i>" in page.raw or "<b>" in page.raw for page in pages)


def test_a_page_loads_itself_again_only_if_it_is_asked_to(shown: str) -> None:
    assert 'http-equiv="refresh"' not in ask(f"{shown}status").text
    again = ask(f"{shown}status?every={EVERY}").text
    assert f'<meta http-equiv="refresh" content="{EVERY}">' in again
    assert '<a href="status">Stop that</a>' in again


def test_without_the_database_it_shows_what_redis_knows(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.store.close()
    (operator.folder / "shop.db").unlink()
    (operator.folder / "shop.db").mkdir()
    with console(operator.sale) as url:
        for path, has in (("status", "SELLING"), ("orders?q=ann", "o-1"), ("trail", "No trail")):
            page = ask(f"{url}{path}")
            assert (page.status, has in page.text) == (200, True), page.text
            assert "the database does not say what it has" in page.text


@pytest.mark.parametrize("path", PAGES)
def test_without_redis_a_page_says_that_nobody_can_tell(path: str) -> None:
    server = fakeredis.FakeServer()
    with fakeredis.FakeRedis(server=server) as client, FlashSale(client, "nov11") as sale, console(sale) as url:
        server.connected = False
        page = ask(f"{url}{path}?q=o-1")
    if path != "trail":
        assert page.status == 503
        assert "Nobody can tell: " in page.text
    assert "<h1>Sale nov11</h1>" in page.text


# -- who sees it ----------------------------------------------------------------------------------------------------


def test_every_answer_forbids_frames_scripts_and_copies(shown: str) -> None:
    for path in ("", "status", "style.css", "nothing", "status?every=1"):
        found = ask(f"{shown}{path}").headers
        assert {name: found[name.decode()].encode() for name, _ in HEADERS} == dict(HEADERS)
        assert "server" not in found
    policy = dict(HEADERS)[b"content-security-policy"]
    assert b"frame-ancestors 'none'" in policy
    assert b"default-src 'none'" in policy
    assert b"script" not in policy


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(shown: str, method: str) -> None:
    assert ask(f"{shown}status", method=method).status == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9643", 200),
        ("127.0.0.1", 200),
        ("[::1]:9643", 200),
        ("evil.example:9643", 421),
        ("127.0.0.1.evil.example", 421),
    ],
)
def test_without_a_password_it_answers_by_a_name_of_this_machine_only(shown: str, host: str, status: int) -> None:
    assert ask(f"{shown}status", Host=host).status == status


def test_with_a_password_only_who_knows_it_sees_anything(operator: Operator) -> None:
    operator.begin()
    with console(operator.sale, "sésame") as url:
        for path in ("", "status", "style.css", "nothing"):
            refused = ask(f"{url}{path}")
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == 'Basic realm="operator", charset="UTF-8"'
            assert refused.headers["x-frame-options"] == "DENY"
            assert "spring" not in refused.text
        seen = ask(f"{url}status", Authorization=basic("operator", "sésame"), Host="sale.example")
        assert (seen.status, "SELLING" in seen.text) == (200, True)


@pytest.mark.parametrize(
    ("header", "is_known"),
    [
        (basic("operator", "sesame"), True),
        (basic("operator", "sesame").replace("Basic", "basic"), True),
        (basic("root", "sesame"), False),
        (basic("operator", "sesam"), False),
        (basic("operator", ""), False),
        (basic("operator", "sesame").replace("Basic", "Bearer"), False),
        ("Basic !", False),
        ("Basic", False),
        ("", False),
    ],
)
def test_a_password_is_known_or_not(header: str, is_known: bool) -> None:
    assert knows(header.encode(), "sesame") is is_known


def test_ten_wrong_passwords_in_a_minute_are_enough(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    now = [1000.0]
    monkeypatch.setattr("flashsale.ops.console.monotonic", lambda: now[0])
    right, wrong = basic("operator", "sesame"), basic("operator", "no")
    with console(operator.sale, "sesame") as url:
        assert [ask(url).status for _ in range(12)] == [401] * 12, "who gives no password guesses none"
        for second in range(GUESSES):
            now[0] = 1000.0 + second
            assert ask(url, Authorization=wrong).status == 401
        assert ask(f"{url}status", Authorization=right).status == 429
        told = ask(url, Authorization=wrong)
        assert (told.status, told.headers["retry-after"]) == (429, "51")
        assert told.headers["x-frame-options"] == "DENY"
        now[0] = 1000.0 + WITHIN
        assert ask(f"{url}status", Authorization=right).status == 200
        assert ask(url, Authorization=wrong).status == 401
        assert ask(url, Authorization=wrong).status == 429


def test_wrong_passwords_are_counted_for_each_address_and_some_are_remembered() -> None:
    guesses = Guesses()
    for _ in range(GUESSES):
        guesses.failed("10.0.0.1")
    assert guesses.wait("10.0.0.1") > 0
    assert guesses.wait("10.0.0.2") == 0
    for number in range(ADDRESSES):
        guesses.failed(f"10.0.1.{number}")
    assert len(guesses._failed) == ADDRESSES
    assert guesses.wait("10.0.0.1") == 0


def test_passwords_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("hmac.compare_digest", lambda *pair: compared.append(pair) or False)
    knows(basic("root", "wrong").encode(), "sesame")
    assert compared == [(b"root:wrong", b"operator:sesame")]


def test_an_address_that_others_reach_wants_a_password(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASHSALE_CONSOLE_PASSWORD", raising=False)
    operator.begin()
    for address in ("0.0.0.0", "::", "192.0.2.1", "shop.example"):
        told = operator("console", "--address", address)
        assert (told.code, "set $FLASHSALE_CONSOLE_PASSWORD first" in told.err) == (2, True)
    assert [is_loopback(each) for each in ("127.0.0.1", "::1", "localhost")] == [True] * 3


# -- the command ----------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told(operator: Operator) -> None:
    import socket

    operator.begin()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = operator("console", "--port", str(taken.getsockname()[1]))
    assert (told.code, "cannot listen on 127.0.0.1:" in told.err) == (1, True)


def test_the_command_serves_until_it_is_stopped(operator: Operator) -> None:
    operator.begin()
    port = servers.free_port()
    words = ["console", "--redis", operator.redis_url, "--database", operator.database, "--sale", "spring"]
    with subprocess.Popen(
        [sys.executable, "-m", "flashsale", *words, "--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"FLASHSALE_CONSOLE_PASSWORD": "sesame"},
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"http://127.0.0.1:{port}/\n"
            eventually(lambda: _status_of(port) == 401, "the console listens")
            seen = ask(f"http://127.0.0.1:{port}/status", Authorization=basic("operator", "sesame"))
            assert "SELLING" in seen.text
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def _status_of(port: int) -> int:
    try:
        return ask(f"http://127.0.0.1:{port}/status").status
    except OSError:
        return 0


def test_pages_are_read_one_after_the_other(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    inside, most = [], []
    look = operator.sale._recorder.look

    def watched() -> object:
        inside.append(1)
        most.append(len(inside))
        try:
            return look()
        finally:
            inside.pop()

    monkeypatch.setattr(operator.sale._recorder, "look", watched)
    with console(operator.sale) as url:
        readers = [threading.Thread(target=ask, args=(f"{url}status",)) for _ in range(8)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert max(most) == 1
