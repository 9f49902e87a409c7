"""A store that was made, and used, before the process forked: gunicorn's `--preload`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from tools.rooms import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, gc, inspect, json, multiprocessing, os, sys
from sqlalchemy import make_url
import flashsale.aio.stores, flashsale.stores
from flashsale import Goods, Order, OrderState

kind, url, sound = sys.argv[1:]
FORK = multiprocessing.get_context("fork")
WHO = "SELECT " + ("pg_backend_pid()" if url.startswith("postgres") else "CONNECTION_ID()")

def make():
    if kind == "flashsale":
        return flashsale.stores.SQLAlchemyStore(url, "spring")
    if kind == "flashsale.aio":
        return flashsale.aio.stores.SQLAlchemyStore(url, "spring")
    from tests.support import django_shop
    django_shop.set_up()
    from django.core.management import call_command
    from django.db import connections
    from flashsale.contrib.django.store import DjangoStore
    it = make_url(url)
    options = {"ENGINE": "django.db.backends.postgresql", "NAME": it.database, "USER": it.username or ""}
    options |= {"HOST": it.host or it.query.get("host", ""), "PORT": it.port or "", "CONN_MAX_AGE": None}
    connections.settings["shop"] = connections.configure_settings({"shop": options, "default": {}})["shop"]
    call_command("migrate", "flashsale", database="shop", verbosity=0)
    return DjangoStore("spring", using="shop")

async def settled(value):
    return await value if inspect.isawaitable(value) else value

async def who(store):
    if kind == "flashsale.aio":
        async with store.transaction() as connection:
            return (await connection.exec_driver_sql(WHO)).scalar()
    with store.transaction() as connection:
        if kind == "flashsale":
            return connection.exec_driver_sql(WHO).scalar()
        with connection.cursor() as cursor:
            cursor.execute(WHO)
            return cursor.fetchone()[0]

async def shop(store, name):
    me = await who(store)
    for n in range(30):
        order = Order(f"{name}-{n}", "phone", name, 1)
        assert (await settled(store.save([order]))).inserted == {order.order_id}
        assert await settled(store.states([order.order_id])) == {order.order_id: OrderState.PERSISTED}
    assert await who(store) == me
    return me

def run(coroutine):
    if kind != "django":
        return asyncio.run(coroutine)
    try:
        coroutine.send(None)  # Django refuses an event loop, and nothing here waits for one
    except StopIteration as end:
        return end.value

def child(store, name, answers):
    gc.collect()
    answers.put((name, run(shop(store, name))))

store = make()
if sound == "no":
    if kind == "django":
        from flashsale.contrib.django import store as module
        module._aliases.clear()
    else:
        del store._process
        type(store)._process = property(lambda _: os.getpid(), lambda *_: None)

async def begin():
    if kind != "django":
        await settled(store.create_all())
    await settled(store.put_goods(Goods("phone", 1000)))
    return await who(store)

first = run(begin())
answers = FORK.Queue()
children = [FORK.Process(target=child, args=(store, f"c{n}", answers)) for n in range(3)]
for each in children:
    each.start()
if sound == "yes" and kind != "flashsale.aio":
    run(shop(store, "parent"))
told = dict(answers.get(timeout=60) for _ in children)
for each in children:
    each.join()
assert len({first, *told.values()}) == 4, "processes share a connection"
print("each by itself")
if kind != "flashsale.aio":
    assert run(who(store)) == first, "a child has ended the parent's connection"
"""


def play(kind: str, url: str, tmp_path: Path, *, sound: str = "yes") -> str:
    path = tmp_path / "shop.py"
    path.write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore", str(path), kind, url, sound]
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}/src:{PROJECT}"}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60 if sound == "yes" else 15, env=environment
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    return ended.stdout if ended.returncode == 0 else ended.stderr


def text(url: str) -> str:
    return make_url(url).render_as_string(hide_password=False)


@pytest.mark.parametrize("kind", ["flashsale", "flashsale.aio", "django"])
def test_children_have_connections_of_their_own(kind: str, fresh_postgres_url: str, tmp_path: Path) -> None:
    assert play(kind, text(fresh_postgres_url), tmp_path) == "each by itself\n"


@pytest.mark.parametrize("kind", ["flashsale", "flashsale.aio"])
def test_children_have_connections_of_their_own_on_mysql(kind: str, fresh_mysql_url: str, tmp_path: Path) -> None:
    assert play(kind, text(fresh_mysql_url), tmp_path) == "each by itself\n"


def test_a_database_in_memory_is_not_copied_in_silence(tmp_path: Path) -> None:
    code = """
import os, flashsale.stores
store = flashsale.stores.SQLAlchemyStore("sqlite://", "spring")
store.create_all()
if (child := os.fork()) == 0:
    try:
        store.epoch()
    except flashsale.StoreError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(store.epoch())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "a database in memory belongs to the process that opened it: this one was forked\n1\n"


def test_without_a_look_at_the_process_id_children_share(fresh_postgres_url: str, tmp_path: Path) -> None:
    for kind in ("flashsale", "django"):
        assert "each by itself" not in play(kind, text(fresh_postgres_url), tmp_path, sound="no")
