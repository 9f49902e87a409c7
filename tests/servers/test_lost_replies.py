"""Lost replies and refusals: one `buy()` books one unit, and every error says rightly whether anything happened."""

from __future__ import annotations

import asyncio
import socketserver
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.backoff
import redis.retry

import flashsale
from flashsale import CorruptState, NotExecuted, Outcome, OutcomeUnknown
from flashsale.lua import SCRIPTS
from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.helpers import until
from tests.support.mutants import without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.hosts import Host

SECRETS = ("buyer-4711", "Elm Street", "order-4711")
SHORT = 0.5  # seconds of socket timeout, where a reply never comes; elsewhere it would only hurry a slow machine
RUNS: dict[str, Callable[..., None]] = {  # the script runs, and its reply is lost
    "cut": FaultProxy.cut_reply,
    "half": FaultProxy.half_reply,
    "swallowed": FaultProxy.swallow_reply,
}
FAULTS = RUNS | {
    "never sent": FaultProxy.lose_request,
    "half sent": FaultProxy.half_request,
    "black hole": FaultProxy.swallow_request,
}
SILENT = {"swallowed", "black hole"}


@pytest.fixture
def proxy(redis_server: servers.RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    """In front of the real Redis of this run, emptied."""
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def sale(host: Host, proxy: FaultProxy, redis_server: servers.RedisServer, request: pytest.FixtureRequest) -> Any:
    """Two phones, through the proxy."""
    host.raw = redis_server.client()
    is_silent = "fault" in request.fixturenames and request.getfixturevalue("fault") in SILENT
    sale = await host.opened(host.connect(proxy.port, **({"socket_timeout": SHORT} if is_silent else {})), 2)
    await sale.inventory.load_scripts()
    return sale


# -- redis-py's retries ---------------------------------------------------------------------------------------------


async def test_the_hosts_client_sells_twice_and_we_do_not(host: Host, proxy: FaultProxy, sale: Any) -> None:
    client = host.connect(proxy.port)
    if redis.VERSION < (6,):  # which does not retry by default
        retry = host.module(".retry").Retry(redis.backoff.NoBackoff(), 3)
        client = host.connect(proxy.port, retry=retry, retry_on_error=[redis.ConnectionError])
    proxy.cut_reply(b"EVALSHA")
    answer = await host.call(client.evalsha, SCRIPTS["deduct"].sha, 1, "flashsale:{spring}:phone:stock", 1)
    assert (answer, host.booked()) == (1, 2)  # one unit sold, two booked

    await sale.inventory.release("phone", 2)
    proxy.cut_reply(b"EVALSHA")
    ours = host.make("Inventory", client, "spring")
    with pytest.raises(OutcomeUnknown):
        await ours.deduct("phone")
    assert host.booked() == 1


# -- the reply of buy() ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
async def test_one_lost_reply_costs_nothing(host: Host, proxy: FaultProxy, sale: Any, fault: str) -> None:
    FAULTS[fault](proxy, b"EVALSHA")
    receipt = await sale.buy("phone", "ann")
    assert receipt.accepted
    assert receipt.replayed is (fault in RUNS)
    assert (proxy.tripped, host.booked(), await sale.queue.size()) == (1, 1, 1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_all_replies_lost(host: Host, proxy: FaultProxy, sale: Any, fault: str) -> None:
    FAULTS[fault](proxy, b"EVALSHA", times=None)
    with pytest.raises(OutcomeUnknown) as unknown:
        await sale.buy("phone", "ann")
    order_id = unknown.value.order_id
    assert order_id
    assert host.booked() == (1 if fault in RUNS else 0)
    proxy.clear()
    receipt = await sale.buy("phone", "ann", order_id=order_id)
    assert (receipt.accepted, receipt.order_id, host.booked(), await sale.queue.size()) == (True, order_id, 1, 1)


async def test_a_request_may_come_after_its_own_retry(host: Host, proxy: FaultProxy, sale: Any) -> None:
    await sale.inventory.load_scripts()
    hasty = host.on(host.connect(proxy.port, socket_timeout=SHORT))
    ran = evalsha_calls(host.raw)
    proxy.delay_request(3 * SHORT, b"EVALSHA")
    assert (await hasty.buy("phone", "ann")).accepted
    await until(lambda: evalsha_calls(host.raw) == ran + 2, "the late request")
    assert (host.booked(), await sale.queue.size()) == (1, 1)


def evalsha_calls(raw: redis.Redis) -> int:
    return raw.info("commandstats")["cmdstat_evalsha"]["calls"]


@without("the order id in the script")
async def test_without_the_ledger_a_late_request_is_booked_again(host: Host, proxy: FaultProxy, sale: Any) -> None:
    with pytest.raises(AssertionError, match="2"):
        await test_a_request_may_come_after_its_own_retry(host, proxy, sale)


@pytest.mark.parametrize("fault", RUNS)
async def test_the_retry_may_come_after_the_last_unit(
    host: Host, proxy: FaultProxy, redis_server: servers.RedisServer, sale: Any, fault: str
) -> None:
    RUNS[fault](proxy, b"EVALSHA", times=None)
    with pytest.raises(OutcomeUnknown) as unknown:
        await sale.buy("phone", "ann")
    others = host.on(host.connect(redis_server.port))
    assert [(await others.buy("phone", name)).outcome for name in ("bob", "eve")] == [
        Outcome.ACCEPTED,
        Outcome.SOLD_OUT,
    ]
    proxy.clear()
    receipt = await sale.buy("phone", "ann", order_id=unknown.value.order_id)
    assert (receipt.outcome, receipt.replayed, host.booked()) == (Outcome.ACCEPTED, True, 2)


@pytest.mark.parametrize("fault", RUNS)
async def test_reserve_and_deduct_say_that_nobody_knows(host: Host, proxy: FaultProxy, sale: Any, fault: str) -> None:
    RUNS[fault](proxy, b"EVALSHA", times=2)
    with pytest.raises(OutcomeUnknown):
        await sale.inventory.deduct("phone")
    with pytest.raises(OutcomeUnknown) as unknown:
        await sale.inventory.reserve([flashsale.Order("o-1", "phone", "ann", 1)])
    assert unknown.value.order_id == "o-1"
    assert host.booked() == 2


async def test_a_lost_reply_leaves_every_caller_of_the_deduction_in_doubt(
    host: Host, proxy: FaultProxy, sale: Any
) -> None:
    """And nobody tries again."""
    await sale.inventory.preload("case", 100)
    proxy.cut_reply(b"EVALSHA", times=None)
    calls = [sale.inventory.deduct("case") for _ in range(40)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * 40
    assert len({id(answer) for answer in answers}) == 40  # nobody raises another thread's exception
    proxy.clear()
    assert (await sale.inventory.stock("case")).booked == 40


async def test_a_reply_lost_to_eval(host: Host, proxy: FaultProxy, sale: Any) -> None:
    host.raw.script_flush()
    proxy.cut_reply(b"\r\nEVAL\r\n")
    receipt = await sale.buy("phone", "ann")
    assert (receipt.accepted, receipt.replayed, proxy.tripped, host.booked()) == (True, True, 1, 1)


async def test_two_redis(host: Host, proxy: FaultProxy, sale: Any) -> None:
    gate = host.connect(proxy.port, db=1)
    split = await host.opened(host.connect(proxy.port, db=2), 1, gate_client=gate)
    proxy.cut_reply(b"EVALSHA", nth=2)
    receipt = await split.buy("phone", "ann")
    assert (receipt.accepted, (await split.inventory.stock("phone")).booked) == (True, 1)


@pytest.mark.parametrize("seconds", [None, 3600])
async def test_nothing_hangs_where_the_host_set_no_timeout(
    host: Host, proxy: FaultProxy, sale: Any, seconds: float | None
) -> None:
    client = host.connect(proxy.port, socket_timeout=seconds, socket_connect_timeout=seconds)
    patient = host.on(client, timeout=2 * SHORT)
    proxy.swallow_request(times=None)
    with pytest.raises(NotExecuted):  # not even the first words of a connection are answered
        await patient.buy("phone", "ann")
    proxy.clear()
    assert (await patient.buy("phone", "ann")).accepted
    proxy.swallow_reply(b"EVALSHA", times=None)
    with pytest.raises(OutcomeUnknown):
        await patient.buy("phone", "ann")


# -- the server -----------------------------------------------------------------------------------------------------


async def test_a_server_that_refuses_connections(host: Host, proxy: FaultProxy, sale: Any) -> None:
    await asyncio.to_thread(proxy.refuse)  # the loop goes on and sees that its idle connections end
    for order_id in (None, "o-1"):
        with pytest.raises(NotExecuted) as refused:
            await sale.buy("phone", "ann", order_id=order_id)
        assert refused.value.order_id == (order_id or refused.value.order_id)
        assert refused.value.order_id
    with pytest.raises(NotExecuted):
        await sale.inventory.deduct("phone")
    assert host.booked() == 0
    proxy.accept()
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "redis.invalid"},
        {"host": "x" * 100},
        {"host": "127.0.0.1", "ssl": True},
        {"unix_socket_path": "/nowhere/redis.sock"},
        {"host": "127.0.0.1", "db": 99},
    ],
    ids=["unknown name", "bad name", "TLS", "unix socket", "database"],
)
async def test_what_fails_before_the_send(host: Host, proxy: FaultProxy, sale: Any, settings: dict[str, Any]) -> None:
    lost = host.on(
        host.keep(host.redis.Redis(port=proxy.port, socket_timeout=SHORT, socket_connect_timeout=SHORT, **settings))
    )
    with pytest.raises(NotExecuted):
        await lost.buy("phone", "ann")
    assert host.booked() == 0


# -- the words of servers -------------------------------------------------------------------------------------------


class _Parrot(socketserver.StreamRequestHandler):
    """Answers every EVALSHA with the same error, and everything else with OK."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            parts = []
            for _ in range(int(line[1:])):
                parts.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2])
            self.wfile.write(self.server.answer if parts[0] == b"EVALSHA" else b"+OK\r\n")


@pytest.fixture(scope="module")
def parrot() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer((servers.HOST, 0), _Parrot) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


WRAPPED = "ERR Error running script (call to f_6af63e): @user_script:7: @user_script: 7: -"
IN_SCRIPT = " script: 6af63e, on @user_script:7."
READONLY = "READONLY You can't write against a read only replica."
OOM = "OOM command not allowed when used memory > 'maxmemory'."
ANSWERS: dict[str, tuple[type[Exception], str | None]] = {
    READONLY: (NotExecuted, "READONLY"),
    READONLY + IN_SCRIPT: (NotExecuted, "READONLY"),
    WRAPPED + READONLY: (NotExecuted, "READONLY"),
    OOM: (NotExecuted, "OOM"),
    OOM + IN_SCRIPT: (NotExecuted, "OOM"),
    WRAPPED + OOM: (NotExecuted, "OOM"),
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": (NotExecuted, "BUSY"),
    "LOADING Redis is loading the dataset in memory": (NotExecuted, "LOADING"),
    "NOREPLICAS Not enough good replicas to write.": (NotExecuted, "NOREPLICAS"),
    WRAPPED + "NOREPLICAS Not enough good replicas to write.": (NotExecuted, "NOREPLICAS"),
    WRAPPED + "MISCONF Errors writing to the AOF file: No space left on device": (NotExecuted, "MISCONF"),
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": (NotExecuted, "MASTERDOWN"),
    "CLUSTERDOWN The cluster is down": (NotExecuted, "CLUSTERDOWN"),
    "CLUSTERDOWN Hash slot not served": (NotExecuted, "CLUSTERDOWN"),
    "TRYAGAIN Multiple keys request during rehashing of slot": (NotExecuted, "TRYAGAIN"),
    "CROSSSLOT Keys in request don't hash to the same slot": (NotExecuted, "CROSSSLOT"),
    "MOVED 1234 127.0.0.1:1": (NotExecuted, "MOVED"),  # a plain client of one node of a Cluster
    "NOAUTH Authentication required.": (NotExecuted, "NOAUTH"),
    "NOPERM this user has no permissions to run the 'evalsha' command": (NotExecuted, "NOPERM"),
    "ERR unknown command `EVALSHA`, with args beginning with: `buyer-4711`, ": (NotExecuted, "unknown command"),
    # a script is not rolled back: what came before the forbidden command stays
    "NOPERM ACL failure in script: User x has no permissions to run the 'lpush' command": (OutcomeUnknown, None),
    WRAPPED[:-1] + "The user executing the script can't run this command or subcommand": (OutcomeUnknown, None),
    "ERR user_script:7: attempt to compare nil with number BUSY READONLY": (OutcomeUnknown, None),
    "WRONGTYPE Operation against a key holding the wrong kind of value" + IN_SCRIPT: (CorruptState, None),
    WRAPPED[:-1] + "WRONGTYPE Operation against a key holding the wrong kind of value": (CorruptState, None),
}


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
async def test_every_refusal_of_a_server(host: Host, parrot: socketserver.ThreadingTCPServer, answer: str) -> None:
    parrot.answer = f"-{answer}\r\n".encode()
    sale = host.on(host.connect(parrot.server_address[1]))
    kind, reason = ANSWERS[answer]
    with pytest.raises(kind) as raised:
        await sale.buy("phone", SECRETS[0], order_id=SECRETS[2])
    assert getattr(raised.value, "reason", None) == reason
    if kind is not CorruptState:
        assert raised.value.order_id == SECRETS[2]
    _nothing_shown(raised.value)


def _nothing_shown(error: BaseException) -> None:
    error.order_id = None  # the one thing that we give back on purpose
    lines = [line for line in traceback.format_exception(error) if not line.startswith("  File")]  # but not the code
    for secret in SECRETS:
        assert secret not in f"{error} {error!r} {lines}"


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_error_shows_what_a_buyer_gave(host: Host, proxy: FaultProxy, sale: Any, fault: str) -> None:
    FAULTS[fault](proxy, b"EVALSHA", times=None)
    data = {"street": SECRETS[1]}
    with pytest.raises(OutcomeUnknown) as unknown:
        await sale.buy("phone", SECRETS[0], order_id=SECRETS[2], data=data)
    _nothing_shown(unknown.value)
    await asyncio.to_thread(proxy.refuse)
    with pytest.raises(NotExecuted) as refused:
        await sale.buy("phone", SECRETS[0], order_id=SECRETS[2], data=data)
    _nothing_shown(refused.value)


async def test_nor_does_a_server_without_our_commands(host: Host) -> None:
    with servers.redis_server(rename_command="HGET x") as server:
        sale = host.on(host.connect(server.port))
        with pytest.raises(NotExecuted) as refused:
            await sale.status(SECRETS[2])
    assert refused.value.reason == "unknown command"
    _nothing_shown(refused.value)
