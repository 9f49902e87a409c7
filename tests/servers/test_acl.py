"""The users of docs/operating.md can do what they must, and nothing else. The whole suite runs as the first one."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

import flashsale
from flashsale import (
    FlashSale,
    Goods,
    NotExecuted,
    OrderState,
    Outcome,
    OutcomeUnknown,
    Syncer,
    Tickets,
    UnknownGoods,
    Worker,
)
from flashsale.cli import main
from flashsale.lua import SCRIPTS
from flashsale.stores import SQLAlchemyStore
from tests.support import acl, servers
from tests.support.helpers import snapshot
from tests.support.operator import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts import Host

SOURCES = Path(flashsale.__file__).parent
CONNECTION = {"PING", "SELECT", "EVAL", "EVALSHA", "SCRIPT|LOAD"}  # of redis-py's connections, and of our link
# The scripts of a shop's web process.
BUYING = {"enter", "gate_state", "hold", "layout", "leave", "persist", "records", "reserve", "settle", "tell", "ticket"}
TICKETS = Tickets({"a": b"s" * 32})


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
        for forbidden in (front.queue.claim, front.queue.pop, front.queue.dead, front.queue.requeue_dead):
            before = snapshot(server.client())
            with pytest.raises((NotExecuted, OutcomeUnknown)):
                forbidden()
            assert snapshot(server.client()) == before
        for forbidden in (front.pause, front.resume):  # refused before anything is written
            before = snapshot(server.client())
            with pytest.raises(NotExecuted, match="NOPERM"):
                forbidden()
            assert snapshot(server.client()) == before


def everything_lies_in_redis(back: FlashSale) -> None:
    """Orders on the list, claimed, dead and with a payment deadline."""
    for number in range(5):
        assert back.buy("phone", f"buyer-{number}", order_id=f"o-{number}").accepted
        if number == 0:
            Worker(back).run_once()
        if number == 1:
            back.queue._bury(back.queue.claim())
    assert len(back.queue.claim(2)) == 2


def calls_on(key: str, commands: dict[str, dict[str, Any]]) -> Iterator[list[str]]:
    """Yields every command of the server that names a key, with this one as its first; ones in the other places."""
    for name, command in commands.items():
        if command["first_key_pos"] > 0 and "no_auth" not in command["flags"]:
            words = [name, *["1"] * (abs(command["arity"]) - 1)]
            words += ["1"] * (command["first_key_pos"] + 1 - len(words))
            words[command["first_key_pos"]] = key
            yield words


def is_refused(client: redis.Redis, words: list[str]) -> bool:
    try:
        client.execute_command(*words)
    except redis.ResponseError as error:
        return (
            re.search(r"(?i)NOPERM|permission|can.t access|can.t run|not allowed from script", str(error)) is not None
        )
    return False


def test_a_shop_touches_no_key_but_those_of_a_purchase(server: servers.RedisServer, tmp_path: Path) -> None:
    """Command by command, key by key: also by its own scripts, which name the keys or do not."""
    raw, stolen = server.client(), server.client(**acl.SHOP)
    with (
        SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "nov11") as store,
        FlashSale(server.client(**acl.LIBRARY), "nov11", store=store) as back,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 9, opens_at=1.0, per_buyer=1, hold=60.0))
        Syncer(back).run_once()
        everything_lies_in_redis(back)
    keys, commands = back.keys, raw.command()
    touched = {keys.meta, keys.orders, keys.order_list, keys.wakeup, keys.holds, *keys.gate("phone")}
    touched |= {keys.stock("phone"), keys.buyers("phone"), keys.tickets("phone"), keys.processes, keys.minutes}
    others = {key.decode() for key in raw.keys("*")} - touched
    others = {key for key in others if not key.startswith(keys.stats)}
    assert others == {keys.leases, keys.claimed, keys.dead, keys.goods, keys.samples("phone")}
    before = snapshot(raw)
    for key in others:
        tried = list(calls_on(key, commands))
        assert len(tried) > 100
        tried += [["eval", f"return redis.call('{words[0]}', unpack(ARGV))", "0", *words[1:]] for words in tried]
        tried.append(["eval", "return redis.call('HGET', KEYS[1], '1')", "1", key])
        tried.append(["mget", keys.meta, key])
        for words in tried:
            assert is_refused(stolen, words), words
    assert snapshot(raw) == before


def test_a_shop_takes_no_order_off_the_list(server: servers.RedisServer) -> None:
    """Of what it may write to, nothing is replaced by another type, read in whole, or made shorter."""
    raw, stolen = server.client(), server.client(**acl.SHOP)
    with FlashSale(server.client(**acl.LIBRARY), "nov11") as back:
        back.preload("phone", 9)
        back.start("phone")
        assert back.buy("phone", "ann", order_id="o-1").accepted
    for key in (back.keys.order_list, back.keys.orders):
        kept = raw.lrange(key, 0, -1) if key == back.keys.order_list else [raw.hget(key, "o-1")]
        for words in calls_on(key, raw.command()):
            with contextlib.suppress(redis.ResponseError):
                assert kept[0] not in repr(stolen.execute_command(*words)).encode(), words
        assert (raw.lrange(key, -1, -1) if key == back.keys.order_list else [raw.hget(key, "o-1")]) == kept


def shops_life(front: FlashSale, back: FlashSale) -> None:
    """Everything that a web process does."""
    back.preload("phone", 9, opens_at=1.0, per_buyer=9, hold=60.0)
    front.view("phone")
    front.gate.leave("phone", int(front.gate.enter("phone").admitted))
    assert front.buy("phone", "ann", order_id="o-1").state
    front.extend_hold("o-1", 60)
    front.confirm("o-1")
    front.cancel("o-1")
    ticket = front.enter("phone", "bob").ticket
    assert front.enter("phone", "bob").admitted
    front.cancel(front.buy("phone", "bob", ticket=ticket).order_id)
    recorder = front._recorder
    recorder._record(recorder._web, recorder._take())


@pytest.mark.parametrize("pattern", acl.keys("shop"))
def test_a_shop_needs_each_of_its_keys(server: servers.RedisServer, tmp_path: Path, pattern: str) -> None:
    raw, words = server.client(), [word for word in acl.users()[1] if word != pattern]
    raw.execute_command(*words[:3], "reset", *words[3:])
    with (
        SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "nov11") as store,
        FlashSale(server.client(**acl.LIBRARY), "nov11") as back,
        FlashSale(server.client(**acl.SHOP), "nov11", store=store, durability="persisted", tickets=TICKETS) as front,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 9))
        with pytest.raises(NotExecuted, match="NOPERM"):
            shops_life(front, back)


def shop_of_partitions(rule: str, tmp_path: Path) -> None:
    """Everything that a web process does with partitions, as the users of the pages without one of the shop's rules."""
    with (
        servers.redis_server() as one,
        servers.redis_server() as another,
        SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "nov11") as store,
    ):
        for server in (one, another):
            for words in acl.of_partitions():
                server.client().execute_command(*(word for word in words if word != rule))
        store.create_all()
        store.put_goods(Goods("phone", 40, per_buyer=9, opens_at=1.0, hold=60.0))
        backs, fronts = ([each.client(**user) for each in (one, another)] for user in (acl.LIBRARY, acl.SHOP))
        with (
            FlashSale(backs, "nov11", store=store, partitions=4) as back,
            FlashSale(fronts, "nov11", store=store, partitions=4, tickets=TICKETS) as front,
        ):
            front._transfers._within = back._transfers._within = 10.0  # a busy machine is no partition that is away
            syncer, worker = Syncer(back), Worker(back)
            assert syncer.run_once().loaded == ("phone",)
            orders = [front.buy("phone", f"buyer-{number % 9}", 1) for number in range(39)]
            assert all(order.accepted for order in orders)  # far more than the partitions of nine buyers had
            assert front.view("phone").remaining == 1
            assert front.buy("phone", "zoe", 2).outcome is Outcome.SOLD_OUT
            ticket = front.enter("phone", "zoe").ticket
            assert front.buy("phone", "zoe", ticket=ticket).accepted
            while worker.run_once():
                pass
            assert front.extend_hold(orders[0].order_id, 60)
            assert front.confirm(orders[0].order_id) is OrderState.CONFIRMED
            assert front.cancel(orders[1].order_id) is OrderState.CANCELLED
            for part in front._parts[:1]:
                part._recorder._record(part._recorder._web, part._recorder._take())
            syncer.run_once()
            assert syncer.audit().ok


def test_the_users_of_a_sale_over_partitions_can_do_what_they_must(tmp_path: Path) -> None:
    shop_of_partitions("", tmp_path)


@pytest.mark.parametrize("rule", acl.of_partitions()[-1][3:])
def test_a_shop_needs_each_rule_of_partitions(tmp_path: Path, rule: str) -> None:
    with pytest.raises(NotExecuted, match=r"NOPERM|not answer"):
        shop_of_partitions(rule, tmp_path)


def test_a_shop_cancels_a_dead_order_and_the_syncer_removes_its_letter(
    server: servers.RedisServer, tmp_path: Path
) -> None:
    with (
        SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "nov11") as store,
        FlashSale(server.client(**acl.LIBRARY), "nov11", store=store) as back,
        FlashSale(server.client(**acl.SHOP), "nov11", store=store) as front,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 1))
        Syncer(back).run_once()
        back.start("phone")
        assert front.buy("phone", "ann", order_id="o-1").accepted
        back.queue._bury(back.queue.claim())
        with contextlib.suppress(NotExecuted):  # the database has decided; Redis refused this user
            assert front.cancel("o-1") is OrderState.CANCELLED
        assert store.states(["o-1"]) == {"o-1": OrderState.CANCELLED}
        Syncer(back).run_once()
        assert front.status("o-1") is OrderState.CANCELLED
        assert not back.queue.dead()
        assert back.inventory.stock("phone").remaining == 1
        assert Syncer(back).audit().ok


@pytest.mark.parametrize("two", [False, True], ids=["one Redis", "two Redis"])
@pytest.mark.parametrize("plain", [False, True], ids=["keys", "plain keys"])
def test_the_users_serve_every_layout(server: servers.RedisServer, tmp_path: Path, *, two: bool, plain: bool) -> None:
    keys = flashsale.PlainKeys() if plain else None
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(servers.redis_server()) if two else server
        for each in (server, gate):
            for command in acl.users(more=acl.HOST if plain else ()):
                each.client().execute_command(*command[:3], "reset", *command[3:])
        store = stack.enter_context(SQLAlchemyStore(f"sqlite:///{tmp_path}/shop.db", "nov11"))
        back, front = (
            stack.enter_context(
                FlashSale(
                    server.client(**user),
                    "nov11",
                    gate_client=gate.client(**user) if two else None,
                    keys=keys,
                    store=store,
                    tickets=TICKETS,
                    **settings,
                )
            )
            for user, settings in ((acl.LIBRARY, {}), (acl.SHOP, {"durability": "persisted"}))
        )
        store.create_all()
        store.put_goods(Goods("phone", 9))
        shops_life(front, back)
        assert back.gate.state("phone").access == back.inventory.stock("phone").booked == 0
        for forbidden in (front.queue.claim, front.queue.dead):
            with pytest.raises(NotExecuted):
                forbidden()


def test_an_operator_types_every_command_of_the_page(
    server: servers.RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the page's order, on a sale whose worker and syncer run: each is answered, and none is refused by Redis."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "told.txt").write_text("o-1\no-2\no-3\n")
    monkeypatch.setenv("FLASHSALE_REDIS_URL", f"redis://flashsale:secret@{servers.HOST}:{server.port}")
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", "sqlite:///shop.db")
    monkeypatch.setenv("FLASHSALE_SALE", "nov11")
    with (
        SQLAlchemyStore("sqlite:///shop.db", "nov11") as store,
        FlashSale(server.client(**acl.LIBRARY), "nov11", store=store) as sale,
    ):
        store.create_all()
        store.put_goods(Goods("phone", 100))
        Syncer(sale).run_once()
        sale.start("phone")
        for number in (1, 2, 3):
            assert sale.buy("phone", "alice", order_id=f"o-{number}").accepted
        first, *others = sale.queue.claim(3)
        sale.queue.nack([first])
        sale.queue._bury(others)
        ends: dict[str, int] = {}
        for line in acl.of_the_operator():
            monkeypatch.setattr("sys.stdin", Terminal("nov11\n"))
            if line == "flashsale rebuild":  # it is refused while nothing is lost
                server.client().unlink(sale.keys.stock("phone"))
            ends[line] = main(shlex.split(line, comments=True)[1:])
            Worker(sale).run_once()
            Syncer(sale).run_once()
            if sale.status("o-3") is OrderState.PERSISTED:
                sale.confirm("o-3")  # its buyer pays
    assert len(ends) > 20
    attention = {line.split("  ")[0] for line, code in ends.items() if code == 1}
    assert set(ends.values()) == {0, 1}, ends
    assert attention == {"flashsale status", "flashsale doctor --replicas 1", "flashsale dead list"}


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
    sale._recorder._sample(sale._recorder.look())  # by the syncer it would only be missed
    sale._recorder.totals()
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
    sale.gate.preload("case", 1, opens_at=1.0)
    sale.gate.leave("case", int(sale.gate.enter("case").admitted))
    syncer.audit()
    sale.queue.claim(timeout=0.01)
    sale.queue.pop(0)
    sale.queue.pop(0.01)
    syncer.rebuild()
    sale._forget()


# These are called only now and then.
NEEDED = acl.allowed("flashsale") - {"PING", "SELECT", "EVAL"}


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
