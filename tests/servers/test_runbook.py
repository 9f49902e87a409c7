"""docs/runbook.md does what it says: each entry's calamity is made, and its own commands are run in it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from flashsale import FlashSale, Goods, NotExecuted, Syncer, UnknownGoods, Worker
from flashsale.cli import main
from flashsale.model import RELEASED
from flashsale.stores import SQLAlchemyStore
from flashsale.testing.proxy import FaultProxy
from tests.chaos.faults.world import append_only_file
from tests.support import servers
from tests.support.operator import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = Path(__file__).parent.parent.parent / "docs" / "runbook.md"
INTRO, *ENTRIES = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
TOLD = ["o-1", "o-2", "o-3"]

REDIS_CLI = """\
#!{python}
import sys, redis
with redis.Redis(port={port}) as client:
    print(client.execute_command(*sys.argv[1:]))
"""


class Said(NamedTuple):
    """What a command of the page answered.

    Attributes:
        line: the command.
        code: its exit code.
        out: its answer.
    """

    line: str
    code: int
    out: str


class Night:
    """A sale of four phones on a Redis with an append-only file; o-1 and o-2 become rows, o-3 waits in the queue.

    Attributes:
        server: the Redis that the shop is on.
        early: bytes of the append-only file after the first order.
        late: the same, before the third.
    """

    def __init__(self, server: servers.RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.folder = folder
        self.monkeypatch = monkeypatch
        (folder / "told.txt").write_text("\n".join(TOLD))
        self.store = SQLAlchemyStore(f"sqlite:///{folder}/shop.db", "nov11")
        self.store.create_all()
        self.store.put_goods(Goods("phone", 4))
        self.sale = FlashSale(server.client(), "nov11", store=self.store, cache_for=0)
        Syncer(self.sale).run_once()
        self.sale.start("phone")
        self.sale.buy("phone", "ann", order_id="o-1")
        self.early = append_only_file(server).stat().st_size
        self.sale.buy("phone", "ann", order_id="o-2")
        Worker(self.sale).run_once()
        self.late = append_only_file(server).stat().st_size
        self.sale.buy("phone", "ann", order_id="o-3")

    def follow(self, entry: str) -> list[Said]:
        """Types what the page says, line by line, and returns what the commands of ours answered."""
        lines = [line for text in (INTRO, entry) for block in blocks(text) for line in block.splitlines()]
        answers = [said for line in lines if (said := self.type(line)) is not None]
        assert all(said.code in {0, 1} for said in answers), answers
        return answers

    def look(self, line: str) -> Said:
        """Types a command that shows the symptom."""
        for each in blocks(INTRO):
            self.type(each.strip())
        said = self.type(line)
        assert said is not None
        return said

    def type(self, line: str) -> Said | None:
        """Types one line."""
        program, *words = shlex.split(line, comments=True)
        if program == "flashsale":
            return self.command(line, words)
        if program == "export":
            for name, value in (word.split("=", 1) for word in words):
                self.monkeypatch.setenv(name, value.replace("redis://localhost:6379", self.server.url))
        else:
            self.shell(line)
        return None

    def command(self, line: str, words: list[str]) -> Said:
        """Types a command of ours at a terminal, and the name of the sale if it asks."""
        out = io.StringIO()
        self.monkeypatch.setattr(sys, "stdin", Terminal("nov11\n"))
        with contextlib.redirect_stdout(out):
            code = main(words)
        return Said(line, code, out.getvalue())

    def shell(self, line: str) -> None:
        if line == "systemctl start redis-server":
            self.server.start()
            return
        tools = self.folder / "bin"
        tools.mkdir(exist_ok=True)
        (tools / "redis-cli").write_text(REDIS_CLI.format(python=sys.executable, port=self.server.port))
        (tools / "redis-cli").chmod(0o755)
        if not (tools / "redis-check-aof").exists():
            (tools / "redis-check-aof").symlink_to(servers.redis_executable())  # one program, by two names
        line = line.replace("/var/lib/redis/appendonly.aof", str(append_only_file(self.server)))
        line = line.replace("/var/lib/redis.broken", str(self.folder / "broken"))
        line = line.replace("/var/lib/redis", str(self.server.folder))
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["bash", "-c", line], check=True, env=os.environ | {"PATH": path}, timeout=20)

    def ends_well(self, *, lost: set[str]) -> None:
        """The sale goes on, sells what is left, and all agree."""
        with FlashSale(self.server.client(), "nov11", store=self.store, cache_for=0) as sale:
            syncer, worker = Syncer(sale), Worker(sale)
            for _ in range(2):  # it runs all the time; what it sees twice, such as leaked slots, it mends
                syncer.run_once()
            assert set(syncer.audit(TOLD).lost) == lost
            left = [sale.buy("phone", "bob").accepted for _ in range(4)]
            assert sum(left) == 1 + len(lost)
            while worker.run_once():
                pass
            units = sum(row.order.quantity for row in self.store.orders() if row.state not in RELEASED)
            assert units == sale.inventory.stock("phone").booked == 4
            assert syncer.audit(set(TOLD) - lost).ok
        self.close()

    def close(self) -> None:
        self.sale.close()
        self.store.close()


def blocks(text: str) -> list[str]:
    """Returns each fenced block; all of them are for a shell."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert {language for language, _ in found} == {"sh"}
    return [block for _, block in found]


def names_the_loss(said: list[Said], *lost: str) -> None:
    """The last command is the audit, and it names these orders and no others."""
    audit = said[-1]
    assert audit.line == "flashsale audit --expected told.txt"
    assert re.findall(r"^(\S+): lost: ", audit.out, re.MULTILINE) == list(lost), audit.out


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    monkeypatch.chdir(tmp_path)
    with servers.redis_server(aof=True) as server, contextlib.closing(Night(server, tmp_path, monkeypatch)) as night:
        yield night


# -- the calamities -------------------------------------------------------------------------------------------------


def full(night: Night, entry: str) -> None:
    night.server.client().config_set("maxmemory", 1)
    with pytest.raises(NotExecuted) as refused:
        night.sale.buy("phone", "bob")
    assert refused.value.reason == "OOM"
    before, after = night.follow(entry)
    assert ("! MEMORY" in before.out, "! MEMORY" in after.out) == (True, False)
    night.ends_well(lost=set())


def evicting(night: Night, entry: str) -> None:
    client = night.server.client()
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 500_000)
    for number in range(1000):
        client.set(f"page-{number}", b"x" * 5000)
        if not client.exists(night.sale.keys.stock("phone")):
            break
    client.config_set("maxmemory", "4gb")  # so that the list is not evicted after the look at it
    with pytest.raises(UnknownGoods):
        night.sale.buy("phone", "bob")
    queued = bool(client.exists(night.sale.keys.order_list))
    assert "! EVICTED" in night.look("flashsale status").out
    assert "! eviction: " in night.look("flashsale doctor").out
    names_the_loss(night.follow(entry), *([] if queued else ["o-3"]))
    if queued:  # the worker finds it on the list
        Worker(night.sale).run_once()
    night.ends_well(lost=set() if queued else {"o-3"})


def emptied(night: Night, entry: str) -> None:
    night.server.client().flushall()
    assert Syncer(night.sale).run_once().missing == ("phone",)
    with pytest.raises(UnknownGoods):
        night.sale.buy("phone", "bob")
    assert "! GOODS MISSING" in night.look("flashsale status").out
    names_the_loss(night.follow(entry), "o-3")
    night.ends_well(lost={"o-3"})


def corrupt(night: Night, entry: str) -> None:
    night.server.kill()
    file = append_only_file(night.server)
    written = bytearray(file.read_bytes())
    written[written.index(b"\r\n*", night.early) + 2] ^= 0xFF
    file.write_bytes(written)
    with pytest.raises(ChildProcessError):
        night.server.start()
    assert "Bad file format reading the append only file" in night.server.log.read_text()
    assert night.look("flashsale status").code == 3
    names_the_loss(night.follow(entry), "o-3")
    night.ends_well(lost={"o-3"})


def cut(night: Night, entry: str) -> None:
    night.server.kill()
    file = append_only_file(night.server)
    file.write_bytes(file.read_bytes()[: night.early + 1])
    night.server.start()
    assert "short read while loading the AOF file" in night.server.log.read_text()
    status, *rest = night.follow(entry)
    assert "! AOF" not in status.out
    names_the_loss(rest, "o-3")
    night.ends_well(lost={"o-3"})


def failed_over(night: Night, entry: str) -> None:
    primary = night.server
    primary.client().flushall()
    with FaultProxy(primary.port) as link, servers.redis_server(replicaof=f"{servers.HOST} {link.port}") as replica:
        client = replica.client()
        servers.eventually(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
        Syncer(night.sale).rebuild()
        night.sale.start("phone")
        replica.catch_up(primary)
        link.hold()
        night.sale.buy("phone", "ann", order_id="o-3")
        primary.kill()
        client.replicaof("NO", "ONE")
        night.server = replica
        assert [night.look(f"flashsale orders show {order_id}").code for order_id in TOLD] == [0, 0, 2]
        doctor, *rest = night.follow(entry)
        assert re.search(r"^  redis: .*, master$", doctor.out, re.MULTILINE)
        names_the_loss(rest, "o-3")
        night.ends_well(lost={"o-3"})


CALAMITIES: dict[str, Callable[[Night, str], None]] = {
    "Redis is full": full,
    "Redis evicts keys": evicting,
    "FLUSHALL, or a restart without a file": emptied,
    "The append-only file is corrupt": corrupt,
    "The append-only file is cut short": cut,
    "A failover lost writes": failed_over,
}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.splitlines()[0])
def test_an_entry_of_the_runbook(night: Night, entry: str) -> None:
    CALAMITIES[entry.splitlines()[0]](night, entry)


# -- nothing is lost ------------------------------------------------------------------------------------------------


def commands(begins: str) -> list[str]:
    """Returns the commands of ours in the row of the first table that begins like this."""
    (row,) = (line for line in INTRO.splitlines() if line.startswith(f"| {begins}"))
    return re.findall(r"`(flashsale [^`]*)`", row)


def test_a_sale_that_did_not_open_is_opened(night: Night) -> None:
    night.store.put_goods(Goods("phone", 4, opens_at=4e9))
    night.sale.stop("phone")
    Syncer(night.sale).run_once()
    assert night.sale.buy("phone", "bob").outcome == "NOT_STARTED"
    look, do = commands("the sale did not open; buyers read NOT_STARTED")
    assert "opens 2096-10-02" in night.look(look).out
    assert night.look(do).code == 0
    assert night.sale.buy("phone", "bob").accepted


def test_a_sale_without_items_gets_one(night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    night.server.client().flushall()
    look, do = commands("the sale did not open; purchases raise `UnknownGoods`")
    assert night.look("flashsale init").code == 0
    assert night.look(look).code == 2
    assert night.look(do).code == 0
    assert "not in Redis yet" in night.look(look).out
    with (
        SQLAlchemyStore("sqlite:///shop.db", "nov11") as store,
        FlashSale(night.server.client(), "nov11", store=store) as sale,
    ):
        Syncer(sale).run_once()
        assert sale.inventory.stock("phone").total == 100


def test_a_sale_that_is_paused_or_closed_goes_on(night: Night) -> None:
    look, resume, rebuild = commands("the sale did not open; buyers read PAUSED")
    night.sale.pause()
    assert "! PAUSED" in night.look(look).out
    assert night.look(resume).code == 0
    assert "nov11  SELLING" in night.look(look).out
    night.server.client().hset(night.sale.keys.meta, "state", "closed")
    assert "! CLOSED" in night.look(look).out
    assert "phone has no opening time: open phone" in night.look(rebuild).out
    assert night.look("flashsale open phone").code == 0
    assert night.sale.buy("phone", "bob").accepted


def test_every_entry_has_symptom_command_and_loss() -> None:
    assert [entry.splitlines()[0] for entry in ENTRIES] == list(CALAMITIES)
    for entry in ENTRIES:
        assert entry.index("**Symptom.**") < entry.index("```") < entry.index("**Lost.**")
