"""A Django project with two sales, as it is run: runserver, gunicorn before and after the fork, uvicorn, commands."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import redis

from flashsale import FlashSale, Goods, Keys, OrderState
from flashsale.stores import SQLAlchemyStore
from tests.support import django_shop
from tests.support.helpers import eventually
from tests.support.servers import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import servers

UNITS, BUYERS = 10, 40
SALES = ("nov11", "dec12")

FILES = {
    "settings.py": """
import json
import os

SECRET_KEY = "of a test"
DEBUG = True
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["flashsale.contrib.django"]
MIDDLEWARE = [
    "flashsale.contrib.django.middleware.NoSharedCookiesMiddleware",
    "flashsale.contrib.django.middleware.FlashSaleMiddleware",
]
DATABASES = json.loads(os.environ["SHOP_DATABASES"])
FLASHSALE_REDIS_URL = os.environ["SHOP_REDIS"]
FLASHSALE_SALE = "nov11"
FLASHSALE_SALES = {"dec12": {"HOOKS": "shop.flash.Hooks"}}
""",
    "flash.py": """
class Hooks:
    def saved(self, connection, orders):
        pass
""",
    "urls.py": """
import os
import time
from django.http import JsonResponse
from django.urls import path
from flashsale.contrib.django import answer, get_sale

def buy(request, sale, goods_id, order_id):
    return answer(get_sale(sale).buy(goods_id, "ann", order_id=order_id), location=f"/orders/{order_id}", sale=sale)

def cancel(request, sale, order_id):
    return JsonResponse({"state": get_sale(sale).cancel(order_id)})

def ping(request):
    time.sleep(0.05)  # eight at a time keep the threads of both processes busy
    return JsonResponse({"by": os.getpid(), "of": "the code as it was"})

urlpatterns = [
    path("<sale>/buy/<goods_id>/<order_id>", buy),
    path("<sale>/cancel/<order_id>", cancel),
    path("ping", ping),
]
""",
    "wsgi.py": """
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from flashsale.contrib.django import get_sale

for name in ("nov11", "dec12"):  # with --preload these connections are made before the fork
    assert len(list(get_sale(name).store.goods())) == 4
    get_sale(name).view("runserver")
""",
    "asgi.py": """
from django.core.asgi import get_asgi_application

application = get_asgi_application()
""",
}

SERVERS = {
    "runserver": "django runserver --skip-checks {where}",
    "gunicorn": "gunicorn --worker-class gthread --workers 2 --threads 4 --bind {where} --log-level error shop.wsgi",
    "preload": "gunicorn --preload --workers 2 --threads 4 --bind {where} --log-level error shop.wsgi",
    "uvicorn": "uvicorn --host {host} --port {port} --log-level error shop.asgi:application",
}


class Project:
    """The shop in a folder, its database and its Redis; a syncer and a worker of each sale run."""

    def __init__(self, folder: Path, redis_url: str, database: str) -> None:
        self.folder = folder
        self.database = database
        self.redis_url = redis_url
        (folder / "shop").mkdir()
        for name, text in FILES.items():
            (folder / "shop" / name).write_text(text)
        options = {"default": django_shop.options(database)}
        self._env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_DATABASES": json.dumps(options),
            "SHOP_REDIS": redis_url,
        }

    def start(self, command: str, **options: Any) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", *command.split()]
        return subprocess.Popen(line, cwd=self.folder, env=self._env, text=True, **options)

    @contextlib.contextmanager
    def running(self, *commands: str, **options: Any) -> Iterator[list[subprocess.Popen[str]]]:
        processes: list[subprocess.Popen[str]] = []
        try:
            for command in commands:
                processes.append(self.start(command, **options))
            yield processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.communicate(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()

    def sale(self, name: str) -> Any:
        """What stands there, looked at from outside."""
        client = redis.Redis.from_url(self.redis_url)
        return FlashSale(client, name, store=SQLAlchemyStore(self.database, name), cache_for=0)


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, redis_server: servers.RedisServer, postgres: servers.Postgres
) -> Iterator[Project]:
    redis_server.client().flushall()
    with postgres.database() as database:
        project = Project(tmp_path_factory.mktemp("project"), redis_server.url, database)
        assert project.start("django migrate --verbosity 0").wait(60) == 0
        for name in SALES:
            with SQLAlchemyStore(database, name) as store:
                for server in SERVERS:
                    store.put_goods(Goods(server, UNITS, opens_at=1.0))
        commands = [
            f"django {command} --sale {sale}" for sale in SALES for command in ("flashsale_sync", "flashsale_worker")
        ]
        with project.running(*commands, stderr=subprocess.PIPE) as processes:
            keys = [key for sale in SALES for item in SERVERS for key in Keys(sale).gate(item)]
            loaded = partial(redis_server.client().exists, *keys)
            eventually(lambda: loaded() == len(keys), "the syncers have loaded both sales", within=60)
            yield project
            for process in processes:
                process.terminate()
            said = [process.communicate(timeout=60)[1] for process in processes]
            assert [process.returncode for process in processes] == [0] * len(processes)
            for text, hooks in zip(said, ["no hooks"] * 2 + ["hooks shop.flash.Hooks"] * 2, strict=True):
                assert f"4 goods in the database, {hooks}" in text


def ask(port: int, path: str) -> Any:
    """The answer's body, of any status."""
    request = urllib.request.Request(f"http://{HOST}:{port}/{path}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


@pytest.mark.parametrize("server", SERVERS)
def test_two_sales_are_sold_under_each_server(project: Project, server: str) -> None:
    port = free_port()
    command = SERVERS[server].format(where=f"{HOST}:{port}", host=HOST, port=port)
    with project.running(command) as (process,):

        def answers(of: str = "the code as it was") -> bool:
            assert process.poll() is None, "the server has ended"
            with contextlib.suppress(OSError, ValueError), ThreadPoolExecutor(8) as several:
                found = list(several.map(lambda _: ask(port, "ping"), range(16)))
                processes = 2 if "workers" in command else 1
                return len({each["by"] for each in found}) == processes and {each["of"] for each in found} == {of}
            return False

        eventually(answers, "answers of all processes", within=60)
        sell(project, port, server, range(BUYERS // 2))
        if server == "runserver":
            code = project.folder / "shop" / "urls.py"
            code.write_text(FILES["urls.py"].replace("the code as it was", "the new code"))
            eventually(lambda: answers("the new code"), "the reloaded server's answer", within=60)
        sell(project, port, server, range(BUYERS // 2, BUYERS))
        for name in SALES:
            with project.sale(name) as sale, sale.store as store:
                assert sale.inventory.stock(server).booked == UNITS
                ids = [row.order.order_id for row in store.orders() if row.order.goods_id == server]
                assert len(ids) == UNITS
                assert ask(port, f"{name}/cancel/{ids[0]}") == {"state": "CANCELLED"}
                assert sale.status(ids[0]) is store.states(ids)[ids[0]] is OrderState.CANCELLED

    (project.folder / "shop" / "urls.py").write_text(FILES["urls.py"])


def sell(project: Project, port: int, server: str, buyers: range) -> None:
    """A crowd buys in both sales, each with a double click, until the worker has saved what was sold."""
    paths = [f"{sale}/buy/{server}/{server}-{number}" for number in buyers for sale in SALES] * 2
    with ThreadPoolExecutor(16) as crowd:
        told = list(crowd.map(lambda path: ask(port, path), paths))
    outcomes = Counter(answer.get("outcome", answer.get("type")) for answer in told)
    assert outcomes.keys() <= {"ACCEPTED", "/problems/sold-out"}, outcomes
    accepted = {path for path, answer in zip(paths, told, strict=True) if answer.get("outcome") == "ACCEPTED"}
    for name in SALES:
        ids = {path.rpartition("/")[2] for path in accepted if path.startswith(name)}
        with project.sale(name) as sale, sale.store as store:
            eventually(lambda store=store, ids=ids: store.states(ids).keys() == ids, "rows of all accepted orders")
