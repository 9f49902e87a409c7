"""The same commands in `manage.py`, in `flask` and with async hooks; and tab completion."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from flask import Flask

from flashsale import FlashSale, Goods, OrderState, Syncer, Worker
from flashsale.cli import main
from flashsale.contrib.flask import FlaskSale
from flashsale.ops.pages import PAGES
from flashsale.ops.verbs import VERBS
from flashsale.stores import SQLAlchemyStore
from tests.support import django_shop, servers
from tests.support.consoles import console
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.operator import Operator

django_shop.set_up()

from django.core.management import call_command  # noqa: E402 - settings come first
from django.test import override_settings  # noqa: E402

from flashsale.contrib import django as django_api  # noqa: E402
from flashsale.contrib.django.management.commands.flashsale import Command  # noqa: E402

WHY = ("--reason", "why")


# -- Django ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def django_sale(redis_url: str) -> Iterator[FlashSale]:
    """An open sale of a Django project, of ten phones."""
    name = f"sale-{os.urandom(4).hex()}"
    with override_settings(FLASHSALE_SALE=name, FLASHSALE_REDIS_URL=redis_url, FLASHSALE_CACHE_FOR=0):
        django_api.set_sale(None)
        sale = django_api.get_sale()
        sale.store.put_goods(Goods("phone", 10))
        Syncer(sale).run_once()
        sale.start("phone")
        yield sale
        sale.close()
        django_api.set_sale(None)


def manage(*words: str) -> tuple[int, str, str]:
    """Types `manage.py flashsale ...`."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("flashsale", *words, stdout=out, stderr=err)
    except SystemExit as ended:
        return int(str(ended.code)), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_django_has_the_same_commands(django_sale: FlashSale) -> None:
    assert "phone  total 10 -> 11" in manage("goods", "set", "phone", "--total", "11")[1]
    assert django_sale.inventory.stock("phone").total == 11
    django_sale.buy("phone", "ann", order_id="o-1")
    assert "o-1  phone 1  QUEUED" in manage("orders", "show", "o-1")[1]
    assert manage("orders", "cancel", "o-1", *WHY)[0] == 4
    assert manage("orders", "cancel", "o-1", *WHY, "--yes", "--expect", "state=QUEUED")[0] == 0
    assert django_sale.status("o-1") is OrderState.CANCELLED
    assert manage("restock", "phone", "+1", *WHY, "--expect", "total=11")[0] == 0
    assert manage("pause")[1].endswith("open -> paused\n")
    assert manage("settle")[0] == 1  # the order that was cancelled still lies on the list
    Worker(django_sale).run_once()
    assert manage("settle")[0] == 0
    assert manage("doctor")[0] == 1


def test_django_knows_the_sales_of_its_settings(django_sale: FlashSale) -> None:
    code, out, err = manage("goods", "list", "--sale", "sprung", "--json")
    assert code == 2
    assert '"exit": 2' in out
    assert "there is no sale 'sprung' in FLASHSALE_SALES" in err
    assert manage("init")[0] == 2  # its migrations make the tables
    assert manage("worker", "--batch", "0")[0] == 2
    assert manage("worker", "--health", "/no/such/folder/health")[0] == 1


def test_manage_py_ends_with_the_exit_code(django_sale: FlashSale, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["stop", "phone"], 4), (["goods", "list", "--settings", "shop.settings"], 0)):
        with pytest.raises(SystemExit) as ended:
            Command().run_from_argv(["manage.py", "flashsale", *words])
        assert ended.value.code == code
    with pytest.raises(SystemExit):
        Command().run_from_argv(["manage.py", "flashsale", "--help"])
    shown = capsys.readouterr().out
    assert all(verb.name.split()[0] in shown for verb in VERBS)


# -- Flask ----------------------------------------------------------------------------------------------------------


def shop_in_flask(operator: Operator) -> Flask:
    """Returns an app that has the operator's sale."""
    app = Flask("shop")
    app.config.update(
        FLASHSALE_SALE="spring", FLASHSALE_REDIS_URL=operator.redis_url, FLASHSALE_DATABASE_URL=operator.database
    )
    FlaskSale(app)
    return app


def test_flask_has_the_same_commands(operator: Operator) -> None:
    operator.begin()
    runner = shop_in_flask(operator).test_cli_runner()

    def flask(*words: str) -> Any:
        return runner.invoke(args=["flashsale", *words])

    shown = flask("--help").output
    assert all(verb.name.split()[0] in shown for verb in VERBS)
    assert flask("stop", "phone").exit_code == 4
    assert flask("stop", "phone", "--yes").exit_code == 0
    assert not operator.sale.gate.state("phone").started
    operator.sale.start("phone")
    operator.buy("o-1")
    assert flask("orders", "cancel", "o-1", "--yes", *WHY).exit_code == 0
    assert operator.sale.status("o-1") is OrderState.CANCELLED
    assert flask("restock", "phone", "-1", "--yes", *WHY).exit_code == 0
    assert "units to add" in flask("restock", "--help").output
    assert flask("orders").exit_code == 2
    assert "--health" in flask("worker", "--help").output
    assert "it is async" in flask("outbox", "--handler", "asyncio.sleep").output


@pytest.mark.parametrize("password", ["", "sesame"])
def test_flask_serves_the_console(operator: Operator, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    operator.begin()
    operator.buy("o-1")
    monkeypatch.setenv("FLASHSALE_CONSOLE_PASSWORD", password)
    app, port = shop_in_flask(operator), servers.free_port()
    statuses: dict[str, int] = {}

    def look() -> None:
        try:
            for name in PAGES:
                statuses[name] = eventually(lambda name=name: status_of(port, name, password), "it is shown")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # to the command, which has begun to wait for it

    looking = threading.Thread(target=look)
    looking.start()
    ran = app.test_cli_runner().invoke(args=["flashsale", "console", "--port", str(port)])
    looking.join()
    assert (ran.exit_code, statuses) == (0, dict.fromkeys(PAGES, 200))


def test_the_console_shows_a_sale_of_django(django_sale: FlashSale) -> None:
    django_sale.buy("phone", "ann", order_id="o-1")
    Worker(django_sale).run_once()
    with console(django_sale) as url:
        port = urlsplit(url).port
        assert port is not None
        assert {name: status_of(port, f"{name}?q=o-1") for name in PAGES} == dict.fromkeys(PAGES, 200)


def status_of(port: int, page: str, password: str = "") -> int:
    """Returns the status of a page of the console; 0 while it does not listen."""
    headers = {"Authorization": f"Basic {base64.b64encode(f'operator:{password}'.encode()).decode()}"}
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request("GET", f"/{page}", headers=headers if password else {})
            return connection.getresponse().status
    except OSError:
        return 0


# -- async hooks ----------------------------------------------------------------------------------------------------

HOOKS = """
class Hooks:
    async def saved(self, connection, orders):
        note(f"saved {[order.order_id for order in orders]}")

    async def settled(self, connection, order, previous, state):
        note(f"{order.order_id} {previous} {state}")

    async def stock(self, connection, goods_id, units):
        note(f"{goods_id} {units:+}")


def note(line):
    with open("told", "a") as file:
        print(line, file=file)
"""


def test_async_hooks_of_the_shop_are_called(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.begin()
    (tmp_path / "async_flash.py").write_text(HOOKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("FLASHSALE_HOOKS", "async_flash.Hooks")
    operator.buy("o-1")
    operator.buy("o-2", "bob")
    operator.worker.run_once()
    assert operator("orders", "cancel", "o-1", *WHY, "--yes").code == 0
    expected = ["orders", "cancel", "o-2", *WHY, "--yes", "--expect", "state=PERSISTED"]
    assert operator(*expected).code == 0
    assert operator(*expected).code == 1
    assert operator("restock", "phone", "+1", *WHY, "--expect", "total=10").code == 0
    assert operator("goods", "set", "phone", "--total", "12", "--expect", "total=11").code == 0
    assert (tmp_path / "told").read_text().splitlines() == [
        "o-1 PERSISTED CANCELLED",
        "o-2 PERSISTED CANCELLED",
        "phone +1",
        "phone +1",
    ]
    assert [operator.sale.status(name) for name in ("o-1", "o-2")] == [OrderState.CANCELLED] * 2
    assert operator.sale.inventory.stock("phone").total == 12
    operator.buy("o-3")
    operator.sale.queue._bury(operator.sale.queue.claim(1))
    assert operator("dead", "requeue", "--all").code == 0
    assert operator("repair", "--apply", "--yes").code == 0
    assert operator("rebuild", "--yes").code == 0


# -- a store of the shop's own ----------------------------------------------------------------------------------------


def test_a_store_of_the_shops_own_is_left_to_its_program(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    monkeypatch.setenv("FLASHSALE_STORE", "shop.flash.Store")
    told = operator("goods", "list")
    assert (told.code, "manage.py flashsale or flask flashsale" in told.err) == (2, True)


class NoLock(SQLAlchemyStore):
    """Stands for a store that cannot lock a row for others."""

    joined = property()


def test_a_store_that_cannot_lock_is_compared_just_before(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.worker.run_once()
    monkeypatch.setattr("flashsale.stores.SQLAlchemyStore", NoLock)
    assert operator("goods", "set", "phone", "--total", "11", "--expect", "total=9").code == 1
    assert operator("goods", "set", "phone", "--total", "11", "--expect", "total=10").code == 0
    assert operator("restock", "phone", "+1", *WHY, "--expect", "total=9").code == 1
    assert operator("restock", "phone", "+1", *WHY, "--expect", "total=11").code == 0
    assert operator("orders", "cancel", "o-1", *WHY, "--yes", "--expect", "state=QUEUED").code == 1
    assert operator("orders", "cancel", "o-1", *WHY, "--yes", "--expect", "state=PERSISTED").code == 0


# -- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert "restock" in script
    assert "--request-id" in script


def test_bash_completes_what_is_typed(tmp_path: Path) -> None:
    script = subprocess.run(
        [sys.executable, "-m", "flashsale", "--print-completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "completion").write_text(script)
    typed = 'COMP_WORDS=(flashsale rest); COMP_CWORD=1; _shtab_flashsale; echo "${COMPREPLY[@]}"'
    said = subprocess.run(
        ["bash", "-c", f"source {tmp_path / 'completion'}; {typed}"], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["restock"]


def test_without_shtab_completion_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert "pip install 'flashsale[completion]'" in capsys.readouterr().err
