"""The users of docs/operating.md can do what they must, and nothing else. The whole suite runs as the first one."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

import flashsale
from flashsale import FlashSale, Goods, NotExecuted, OrderState, Outcome, OutcomeUnknown, Syncer, UnknownGoods, Worker
from flashsale.lua import SCRIPTS
from flashsale.stores import SQLAlchemyStore
from tests.support import acl, servers
from tests.support.helpers import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts import Host

SOURCES = Path(flashsale.__file__).parent
CONNECTION = {"PING", "SELECT", "EVAL", "EVALSHA", "SCRIPT|LOAD"}  # of redis-py's connections, and of our link
BUYING = {"ack", "enter", "gate_state", "hold", "leave", "reserve", "settle"}  # scripts of a shop's web process


def of_scripts(names: set[str]) -> set[str]:
    return {call for name in names for call in re.findall(r'redis\.p?call\("(\w+)"', SCRIPTS[name].text)}


@pytest.fixture
def server() -> Iterator[servers.RedisServer]:
    """A Redis with the users of the page, as they stand there."""
    with servers.redis_server() as server:
        for command in acl.users():
            server.client().execute_command(*command)
        yield server


def test_the_page_allows_what_the_sources_call_and_nothing_else() -> None:
    plain = {
        name
        for path in (SOURCES / "aio").rglob("*.py")
        for name in re.findall(r'\bcommand\(\s*"([A-Z]+)"', path.read_text())
    }
    assert plain >= {"HMGET", "LRANGE", "BLPOP"}  # the pattern still finds them
    assert acl.allowed("flashsale") == of_scripts(set(SCRIPTS)) | plain | CONNECTION


def test_a_shop_may_do_less() -> None:
    assert acl.allowed("shop") == of_scripts(BUYING) | {"INFO"} | CONNECTION
    assert acl.allowed("shop") < acl.allowed("flashsale")


def test_a_shop_buys_pays_and_cancels(server: servers.RedisServer, tmp_path: Path) -> None:
    with (
        SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "nov11") as store,
        FlashSale(server.client(**acl.LIBRARY), "nov11", store=store) as back,
        FlashSale(server.client(**acl.SHOP), "nov11", store=store, durability="persisted") as front,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 3, opens_at=1.0, per_buyer=1, hold=60.0))
        Syncer(back).run_once()
        assert front.buy("phone", "ann", order_id="o-1").accepted
        assert not front.buy("phone", "ann").accepted
        basket = front.buy_basket("bob", [("phone", 1)], basket_id="b-1")
        assert basket.accepted
        assert front.confirm("o-1") is OrderState.CONFIRMED
        assert front.extend_hold(basket.receipts[0].order_id, 60)
        assert front.cancel("o-1") is OrderState.CANCELLED
        assert front.gate.enter("phone").admitted
        assert front.gate.leave("phone") == 1
        assert front.inventory.stock("phone").booked == 1
        assert front.check()
        Worker(back).run_once()
        assert Syncer(back).audit().ok
        for forbidden in (front.queue.claim, front.queue.pop, front.queue.dead):
            before = snapshot(server.client())
            with pytest.raises((NotExecuted, OutcomeUnknown)):
                forbidden()
            assert snapshot(server.client()) == before
        for forbidden in (front.pause, front.resume):  # refused before anything is written
            before = snapshot(server.client())
            with pytest.raises(NotExecuted, match="NOPERM"):
                forbidden()
            assert snapshot(server.client()) == before


def test_a_shop_that_waits_for_replicas_needs_one_command_more(server: servers.RedisServer) -> None:
    with (
        servers.redis_server(replica_of=server),
        FlashSale(server.client(**acl.LIBRARY), "nov11") as back,
        FlashSale(server.client(**acl.SHOP), "nov11", durability="replicated", durable_within=2.0) as front,
    ):
        back.preload("phone", 3)
        back.start("phone")
        assert front.buy("phone", "ann", order_id="o-1").outcome is Outcome.UNCERTAIN
        server.client().execute_command("ACL", "SETUSER", "shop", "+wait")
        assert front.buy("phone", "ann", order_id="o-1").accepted


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    with servers.cluster() as cluster:
        yield cluster


async def on_a_cluster(host: Host, cluster: servers.Cluster, rules: tuple[str, ...]) -> None:
    """Both users sell, also while the slot of the sale is being moved."""
    for node in cluster.nodes:
        node.client().flushall()
        for command in acl.users(more=rules):
            node.client().execute_command(*command[:3], "reset", *command[3:])
    back, front = [
        host.on(host.keep(host.redis.RedisCluster(host=servers.HOST, port=cluster.nodes[0].port, **user)), "nov11")
        for user in (acl.LIBRARY, acl.SHOP)
    ]
    await back.preload("phone", 3)
    await back.start("phone")
    assert (await front.buy("phone", "ann", order_id="o-1")).accepted
    slot, here = cluster.client().keyslot("{nov11}"), cluster.node_of("{nov11}")
    there = next(node for node in cluster.nodes if node is not here)
    servers.begin_move(slot, here, there)
    try:
        for key in here.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            here.client().execute_command("MIGRATE", servers.HOST, there.port, key, 0, 5000)
        assert [await each.queue.size() for each in (back, front)] == [1, 1]
    finally:
        for client in (here.client(), there.client()):
            client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


async def test_the_users_of_a_cluster(host: Host, cluster: servers.Cluster) -> None:
    await on_a_cluster(host, cluster, acl.of_a_cluster())


@pytest.mark.parametrize("rule", acl.of_a_cluster())
async def test_a_cluster_asks_for_each_of_its_rules(host: Host, cluster: servers.Cluster, rule: str) -> None:
    if rule == "+command" and host.is_async:
        return  # only redis-py's sync client asks for it
    rules = tuple(each for each in acl.of_a_cluster() if each != rule)
    errors = redis.RedisError, redis.exceptions.RedisClusterException, flashsale.FlashSaleError
    with pytest.raises(errors, match=r"(?i)NOPERM|permission|Cluster mode"):  # the last is what redis-py makes of it
        await on_a_cluster(host, cluster, rules)


def test_no_user_reaches_another_key(server: servers.RedisServer) -> None:
    server.client().set("session:ann", "secret")
    for user in (acl.LIBRARY, acl.SHOP):
        client = server.client(**user)
        for call in (
            lambda client=client: client.get("session:ann"),
            lambda client=client: client.eval("return redis.call('GET', 'session:ann')", 0),
            client.flushall,
            client.acl_list,
            client.config_get,
            lambda client=client: client.keys("*"),
        ):
            with pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM|can.t access"):
                call()


def life(sale: Any, worker: Any, syncer: Any) -> None:
    """Everything once: what is forbidden is met somewhere."""
    with contextlib.suppress(UnknownGoods):
        sale.gate.state("book")
    syncer.run_once()
    sale.inventory.load_scripts()
    sale.inventory.deduct("phone")
    sale.inventory.release("phone")
    sale.check()
    for number in range(3):
        sale.buy("phone", "ann", order_id=f"o-{number}")
    sale.start("phone")
    sale.pause()
    sale.resume()
    sale.queue._bury(sale.queue.claim(1))
    sale.queue.requeue_dead()
    worker.run_once()
    sale.extend_hold("o-1", 600)
    sale.confirm("o-1")
    sale.cancel("o-2")
    syncer.audit()
    sale.queue.claim(timeout=0.01)
    sale.queue.pop(0)
    sale.queue.pop(0.01)
    syncer.rebuild()
    sale._forget()


NEEDED = acl.allowed("flashsale") - {"PING", "SELECT", "EVAL"}  # these three only now and then


@pytest.mark.parametrize("command", sorted(NEEDED))
def test_one_command_less_is_a_typed_error(
    redis_server: servers.RedisServer, redis_url: str, tmp_path: Path, command: str
) -> None:
    """Whatever an operator forgets: a typed error, never another exception; before the first write, `NOPERM`."""
    raw = redis_server.client()
    raw.execute_command("ACL", "SETUSER", "poor", "reset")
    raw.execute_command("ACL", "SETUSER", "poor", *acl.users()[0][3:], f"-{command.split('|', maxsplit=1)[0]}")
    with (
        SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "nov11") as store,
        FlashSale(redis_server.client(username="poor", password="secret"), "nov11", store=store) as sale,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 9, opens_at=1.0, per_buyer=5, hold=60.0))
        if command == "INFO":
            assert [finding.name for finding in sale.check()] == ["version"]  # and says that it does not know
            return
        before = snapshot(raw)
        with pytest.raises(flashsale.FlashSaleError) as failed:
            life(sale, Worker(sale), Syncer(sale))
        if isinstance(failed.value, NotExecuted):
            assert failed.value.reason == "NOPERM"
        assert command != "EVALSHA" or snapshot(raw) == before
