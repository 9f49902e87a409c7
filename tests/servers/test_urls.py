"""One URL for one Redis, for Sentinels and for a Cluster: what the commands and the adapters are given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import flashsale
import flashsale.aio.clients
import flashsale.clients
from flashsale import FlashSale, Goods, InvalidRequest, NotExecuted, OrderState, Syncer
from flashsale._rules.urls import parse
from flashsale.contrib.settings import Settings
from flashsale.stores import SQLAlchemyStore
from tests.servers.test_tls import Terminator
from tests.support import servers
from tests.support.helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.hosts import Host


def client_of(host: Host, url: str, **kwargs: Any) -> Any:
    return (flashsale.aio if host.is_async else flashsale).clients.from_url(url, **kwargs)


# -- what it says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "addresses", "service"),
    [
        ("redis+sentinel://a/shop", [("a", 26379)], "shop"),
        ("redis+sentinel://a:1,b,[::1]:3/shop/2", [("a", 1), ("b", 26379), ("::1", 3)], "shop"),
        ("rediss+sentinel://me:pw@a,b:1/shop?socket_timeout=2", [("a", 26379), ("b", 1)], "shop"),
        ("redis+sentinel://a/my%2Fshop", [("a", 26379)], "my/shop"),
        ("redis+cluster://a,b:7", [("a", 6379), ("b", 7)], ""),
        ("rediss+cluster://:pw@a/0", [("a", 6379)], ""),
        ("redis+cluster://a?db=0", [("a", 6379)], ""),
        ("redis://a", [], ""),
        ("unix:///run/redis.sock", [], ""),
    ],
)
def test_where_a_url_leads(url: str, addresses: list[tuple[str, int]], service: str) -> None:
    place = parse(url)
    assert (place.addresses, place.service) == (addresses, service)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must be a URL: redis://"),
        ("localhost", "must be a URL: redis://"),
        ("http://a", "must be a URL: redis://"),
        ("redis+sentinels://:secret@a/shop", "must be a URL: redis://"),
        ("redis+sentinel:///shop", "must be a URL: redis://"),
        ("redis+sentinel://:secret@a/shop/0/1", "must be a URL: redis://"),
        ("redis+sentinel://:secret@a", "must name the service"),
        ("redis+sentinel://:secret@a/", "must name the service"),
        ("redis+sentinel://:secret@a:port/shop", "each host must be"),
        ("redis+sentinel://:secret@a,,b/shop", "each host must be"),
        ("redis+cluster://:secret@a:99999", "each host must be"),
        ("redis+cluster://:secret@a/1", "one database"),
        ("redis+cluster://:secret@a/shop/0", "no service"),
        ("redis+cluster://:secret@a?db=3", "one database"),
        ("redis://:secret@a?socket_timeout=soon", "has a part"),
        ("redis://:secret#@a", "has a part"),
        ("redis://:secret@a?sokcet_timeout=1", "has an option"),
        ("redis+cluster://:secret@a?sokcet_timeout=1", "has an option"),
        ("redis+sentinel://:secret@a/shop?sokcet_timeout=1", "has an option"),
        ("redis+sentinel://:secret@a/shop?sentinel_sokcet_timeout=1", "has an option"),
        ("redis+sentinel://:secret@a/shop?min_other_sentinels=1", "has an option"),
        ("rediss://:secret@a?ssl_cert_reqs=CERT_NONE", "has a part"),
        ("redis+cluster://:secret@a?protocol=9", "has a part"),
        ("redis+sentinel://:secret@a/shop?protocol=9", "has a part"),
        ("redis+sentinel://:secret@a/shop?sentinel_connection_pool=9", "has a part"),
        ("redis+sentinel://:secret@a/shop?sentinel_protocol=9", "has a part"),
        ("rediss+sentinel://:secret@a/shop?sentinel_ssl_cert_reqs=CERT_NONE", "has a part"),
        ("redis://me:12?secret=3@a", "has an option"),  # neither mark of a URL was escaped in this password,
        ("redis+sentinel://me:12/secret@a/0", "must be a URL"),  # nor in this one
    ],
)
def test_what_makes_no_sense_is_named_without_its_password(host: Host, url: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client_of(host, url)
    assert refused.value.field == "url"
    assert says in refused.value.reason
    assert "secret" not in f"{refused.value} {refused.value.__cause__}"
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_the_nodes_of_a_cluster_are_shown_without_the_password(host: Host) -> None:
    nodes = client_of(host, "redis+cluster://me:secret@a:1,b")
    nodes.pool.connection_kwargs["client_name"] = "secret"  # some releases of redis-py show all of these
    assert repr(nodes) == "Nodes(a:1, b:6379)"


def test_options_reach_the_connections(host: Host) -> None:
    url = "rediss+sentinel://me:p%40w@a/shop/3?socket_timeout=2&ssl_ca_certs=/ca.pem&sentinel_password=s%26t"
    pool = client_of(host, url).connection_pool
    settings = pool.connection_kwargs
    wanted = {"username": "me", "password": "p@w", "db": 3, "socket_timeout": 2.0, "ssl_ca_certs": "/ca.pem"}
    assert settings.items() >= wanted.items()
    (sentinel,) = pool.sentinel_manager.sentinels
    theirs = sentinel.connection_pool
    wanted = {"password": "s&t", "socket_timeout": 1.0, "ssl_ca_certs": "/ca.pem", "host": "a", "port": 26379}
    assert theirs.connection_kwargs.items() >= wanted.items()
    assert theirs.connection_kwargs.get("username") is None
    assert {"SSL" in each.connection_class.__name__ for each in (pool, theirs)} == {True}
    nodes = client_of(host, "rediss+cluster://:pw@a,b?socket_timeout=2")
    assert nodes.pool.connection_kwargs.items() >= {"password": "pw", "socket_timeout": 2.0}.items()
    assert "SSL" in nodes.pool.connection_class.__name__


# -- servers that are there -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched() -> Iterator[servers.Sentinels]:
    with (
        servers.redis_server() as primary,
        servers.redis_server(replica_of=primary),
        servers.sentinels(primary) as sentinels,
    ):
        yield sentinels


async def test_a_sale_behind_sentinels(host: Host, watched: servers.Sentinels) -> None:
    reader = client_of(host, watched.url, replica=True)
    sale = await host.opened(client_of(host, watched.url), 1, name=f"s-{host.is_async}", gate_replica=reader)
    assert (await sale.buy("phone", "ann")).accepted
    assert not (await sale.buy("phone", "bob")).accepted
    assert not reader.connection_pool.is_master


async def test_a_sale_on_a_cluster(host: Host) -> None:
    with servers.cluster() as cluster:
        url = f"redis+cluster://{','.join(f'{servers.HOST}:{node.port}' for node in cluster.nodes)}"
        for name in "abcdef":  # on every node
            sale = await host.opened(client_of(host, url), 1, name=name)
            assert (await sale.buy("phone", "ann")).accepted
            assert not (await sale.buy("phone", "bob")).accepted


@pytest.mark.parametrize("form", ["redis://{}", "redis+sentinel://{}/shop", "redis+cluster://{}"])
async def test_a_client_can_be_had_while_nobody_answers(host: Host, form: str) -> None:
    sale = host.on(client_of(host, form.format(f"{servers.HOST}:{servers.free_port()}")))
    with pytest.raises(NotExecuted):
        await sale.buy("phone", "ann")


def test_a_api_takes_its_own_clients_only() -> None:
    for api, other in ((flashsale, flashsale.aio), (flashsale.aio, flashsale)):
        for url in ("redis://a", "redis+sentinel://a/shop", "redis+cluster://a"):
            with pytest.raises(InvalidRequest):
                api.FlashSale(other.clients.from_url(url), "spring")


async def test_passwords_and_tls_all_the_way(host: Host, tmp_path: Path) -> None:
    """The Sentinel and the Redis it names are each behind TLS, with an authority and a password of their own."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert(servers.HOST)
    with contextlib.ExitStack() as stack:
        redis_server = stack.enter_context(servers.redis_server())
        front = stack.enter_context(Terminator(redis_server.port, certificate))
        watches = [f"sentinel monitor shop {servers.HOST} {front.port} 1"]
        watches += ["sentinel down-after-milliseconds shop 9999999"]  # it speaks no TLS: to tell is all it can
        sentinel = stack.enter_context(contextlib.closing(servers.RedisServer(tmp_path, {}, sentinel=watches)))
        door = stack.enter_context(Terminator(sentinel.port, certificate))
        for server, password in ((redis_server, "p%40ss"), (sentinel, "w%40tch")):
            raw = server.client()
            raw.execute_command("ACL", "SETUSER", "default", "resetpass", f">{password.replace('%40', '@')}")
        tail = f"{servers.HOST}:{door.port}/shop?ssl_ca_certs={tmp_path}/ca.pem"
        url = f"rediss+sentinel://:p%40ss@{tail}&sentinel_password=w%40tch"
        sale = await host.opened(client_of(host, url), 1)
        assert (await sale.buy("phone", "ann")).accepted
        plain = f"redis+sentinel://:p%40ss@{servers.HOST}:{door.port}/shop?sentinel_password=w%40tch"
        for wrong in (url.replace("p%40ss", "x"), url.replace("w%40tch", "x"), plain):
            with pytest.raises(NotExecuted):
                await host.on(client_of(host, wrong)).buy("phone", "bob")
        await sale.close()


# -- commands and adapters ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def command(name: str, folder: Path, url: str, database: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the command until the test ends; then it must end well."""
    environment = {**os.environ, "FLASHSALE_REDIS_URL": url, "FLASHSALE_DATABASE_URL": database}
    arguments = [sys.executable, "-m", "flashsale", name, "--sale", "shop"]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def sell(url: str, folder: Path, between: Any = None) -> None:
    """Worker and syncer of the command line serve a sale; `between` two purchases something happens."""
    database = f"sqlite:///{folder}/shop.db"
    with (
        SQLAlchemyStore(database, "shop") as store,
        FlashSale(flashsale.clients.from_url(url), "shop", store=store) as sale,
        command("worker", folder, url, database),
        command("syncer", folder, url, database),
    ):
        store.create_all()
        store.put_goods(Goods("phone", 2, opens_at=1.0))

        def bought(order_id: str) -> bool:
            with contextlib.suppress(flashsale.FlashSaleError):
                return sale.buy("phone", "ann", order_id=order_id).accepted
            return False

        def is_saved(order_id: str) -> bool:
            return store.states([order_id]).get(order_id) is OrderState.PERSISTED

        for order_id in ("o-1", "o-2"):
            eventually(lambda order_id=order_id: bought(order_id), "a purchase", within=60)
            eventually(lambda order_id=order_id: is_saved(order_id), "its row", within=60)
            if between is not None:
                between()
                between = None
        eventually(lambda: Syncer(sale).audit(["o-1", "o-2"]).ok, "a sale in order", within=60)


def test_worker_and_syncer_behind_sentinels(tmp_path: Path) -> None:
    """Through an election, and started while nobody answers."""
    with (
        servers.redis_server() as primary,
        servers.redis_server(replica_of=primary) as replica,
        servers.sentinels(primary, failover_timeout=1.0) as sentinels,
    ):

        def elect() -> None:
            replica.catch_up(primary)
            primary.kill()

        sell(sentinels.url, tmp_path, elect)
        assert sentinels.primary_port() == replica.port


def test_worker_and_syncer_on_a_cluster(tmp_path: Path) -> None:
    with servers.cluster() as cluster:
        sell(f"redis+cluster://{servers.HOST}:{cluster.nodes[1].port}", tmp_path)


async def test_adapters_take_the_same_urls(watched: servers.Sentinels) -> None:
    settings = Settings.read(
        {
            "FLASHSALE_SALE": "adapted",
            "FLASHSALE_REDIS_URL": watched.url,
            "FLASHSALE_GATE_REPLICA_URL": watched.url,
            "FLASHSALE_DURABILITY": "replicated",
            "FLASHSALE_REPLICAS": "1",
        }
    )
    with settings.open(None) as sale:
        sale.preload("phone", 2)
        sale.start("phone")
        assert sale.buy("phone", "ann").accepted
    async with settings.open_async(None) as other:
        receipts = await asyncio.gather(*(other.buy("phone", "bob") for _ in range(2)))
        assert sorted(receipt.accepted for receipt in receipts) == [False, True]
    for wrong in ("redis+sentinel://:secret@a", ""):
        with pytest.raises(InvalidRequest) as refused:
            Settings.read({"FLASHSALE_SALE": "adapted", "FLASHSALE_REDIS_URL": wrong})
        assert refused.value.field == "FLASHSALE_REDIS_URL"
        assert "secret" not in str(refused.value)
