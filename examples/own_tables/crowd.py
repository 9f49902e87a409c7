"""A crowd in one of the shops, while its processes are killed: at the end all tables agree, to the unit.

    python -m examples.own_tables.crowd flask
    python -m examples.own_tables.crowd flask-slow --kills 0
    python -m examples.own_tables.crowd django
    python -m examples.own_tables.crowd flask --buyers 40 --units 12 --kills 4

Hundreds of buyers over HTTP, double clicks, replies that nobody reads; regular sales from the same stock; a bank that
calls early, late and twice; staff who cancel; SIGKILL for the web server, the workers and the syncer. On a Redis and a
PostgreSQL of its own, which the tests' helpers start. Exits 1 when the shop's tables, the sale's and Redis disagree.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import psutil
import redis
from sqlalchemy import Connection, create_engine, text

from examples.own_tables import crowd_shops
from flashsale import FlashSale, Goods, Syncer
from flashsale.stores import SQLAlchemyStore
from tests.support import servers

ROOT = Path(__file__).parent.parent.parent
SALE, SKU = "launch", "phone"
PATIENCE = 60.0  # seconds for which a buyer or a bank tries again, and for the end to come
ALIVE, GONE = ("PERSISTED", "CONFIRMED"), ("CANCELLED", "EXPIRED", "REJECTED")


@dataclass
class Told:
    """What everybody outside the shop has heard."""

    accepted: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    money: dict[str, str] = field(default_factory=dict)  # ids of payments that the shop took, and their order ids
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def took(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)


# -- processes ------------------------------------------------------------------------------------------------------


class Processes:
    """The shop's processes, each in a session of its own, so that a kill takes its children too."""

    def __init__(self, commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], folder: Path) -> None:
        self._commands, self._environment, self._folder = commands, {**os.environ, **environment}, folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: Counter[str] = Counter()
        for name in commands:
            self._start(name)

    def _start(self, name: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._commands[name],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Ends a process at once, with its children, and starts it again."""
        self._signal(name, signal.SIGKILL)
        self._running[name].wait()
        self.killed[name.partition("-")[0]] += 1
        self._start(name)

    def kill_child(self, name: str, chance: random.Random) -> None:
        """Ends one of a process's children at once; the process starts another."""
        children = psutil.Process(self._running[name].pid).children()
        if children:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(children).kill()
                self.killed[f"{name}'s child"] += 1

    def _signal(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running[name].pid, number)

    @property
    def names(self) -> list[str]:
        return list(self._commands)

    def log(self) -> str:
        return "\n".join(f"-- {file.name}\n{file.read_text()[-3000:]}" for file in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        for name, process in self._running.items():
            if process.poll() is None:
                self._signal(name, signal.SIGTERM)
        for name, process in self._running.items():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                self._signal(name, signal.SIGKILL)
                process.wait()


# -- who comes ------------------------------------------------------------------------------------------------------


class Visitor:
    """Speaks HTTP with the shop, and tries again while its web server is down."""

    def __init__(self, port: int, shop: crowd_shops.Shop, told: Told, seconds: float) -> None:
        self._port, self.shop, self.told, self.seconds = port, shop, told, seconds
        self._staff = shop.staff()
        self._stop = time.monotonic() + seconds + PATIENCE

    def post(
        self,
        path: str,
        *,
        form: Any = None,
        document: Any = None,
        customer: int = 0,
        lost: bool = False,
        headers: Mapping[str, str] = {},
    ) -> Any:
        """Returns status and body; None for a reply that was lost."""
        body = urlencode(form or {}) if document is None else json.dumps(document)
        kind = "application/x-www-form-urlencoded" if document is None else "application/json"
        connection = http.client.HTTPConnection(servers.HOST, self._port, timeout=20)
        began = time.monotonic()
        try:
            connection.request("POST", path, body, {"Content-Type": kind, "X-Customer": str(customer), **headers})
            if lost:
                connection.sock.shutdown(socket.SHUT_RD)
                return None
            answer = connection.getresponse()
            said = answer.read()
            self.told.took(path.split("/")[1], time.monotonic() - began)
            return answer.status, json.loads(said) if said.startswith(b"{") else {}
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def cancel(self, number: str) -> None:
        """Staff cancels an order."""
        path, form = self.shop.cancel(number)
        status, said = self.insist(path, form=form, headers=self._staff)
        assert status in {200, 302, 303}, (status, said)

    def insist(self, path: str, **request: Any) -> tuple[int, Any]:
        """The same, until there is an answer that no second try can change."""
        while True:
            answer = self.post(path, **request)
            if answer is not None and answer[0] < 500:
                return answer
            if time.monotonic() > self._stop:
                raise TimeoutError(f"{path}: {answer}")
            time.sleep(random.uniform(0.1, 0.4))


def buyer(number: int, visitor: Visitor, chance: random.Random) -> None:
    """One buyer, the bank, and staff whom the buyer asks to cancel."""
    shop, told = visitor.shop, visitor.told
    time.sleep(chance.uniform(0, visitor.seconds))
    request = {"form": {"key": f"{chance.getrandbits(64):x}"}, "customer": number}
    first = None
    if chance.random() < 0.3:  # a double click
        with ThreadPoolExecutor(1) as other:
            second = other.submit(visitor.post, shop.flash, **request)
            first = visitor.post(shop.flash, **request)
            second.result()
    elif chance.random() < 0.15:  # 10 % of all
        visitor.post(shop.flash, **request, lost=True)
    status, said = visitor.insist(shop.flash, **request) if first is None or first[0] >= 500 else first
    if status == 409 and "sold-out" in str(said.get("type")):  # a double click: the other answer may be a yes
        status, said = visitor.insist(shop.flash, **request)
    told.outcomes[said.get("outcome") or str(said.get("type")).rpartition("/")[2]] += 1
    if status != 202:
        return
    assert said["outcome"] == "ACCEPTED", said
    order_id = said["order_id"]
    told.accepted.add(order_id)
    what = chance.random()
    if what < 0.15:  # never pays: it expires
        return
    if what < 0.85:
        money = {"id": f"m-{order_id}", "number": order_id, "cents": shop.cents}
        time.sleep(chance.choice([0, 0, 0.5, 2]))  # at once: before the order was saved
        for _ in range(chance.choice([1, 1, 2, 3])):  # it repeats itself, now and then at the same moment
            with ThreadPoolExecutor(2) as bank:
                twice = chance.choice([1, 1, 2])
                calls = [bank.submit(visitor.insist, shop.payments, document=money) for _ in range(twice)]
            assert [call.result()[0] for call in calls] == [200] * twice
            told.money[money["id"]] = order_id
    if what > 0.7:  # half of these have paid
        time.sleep(chance.uniform(0, 1))
        visitor.cancel(order_id)
        if what < 0.85 and chance.random() < 0.5:  # the bank says once more what it has said before
            assert visitor.insist(shop.payments, document=money)[0] == 200


def passer_by(number: int, visitor: Visitor, chance: random.Random) -> None:
    """Buys in the regular channel; some change their mind."""
    shop, told = visitor.shop, visitor.told
    time.sleep(chance.uniform(0, visitor.seconds))
    answer = visitor.post(shop.regular, customer=number)
    told.outcomes["regular" if answer and answer[0] == 201 else "regular, no"] += 1
    if answer and answer[0] == 201 and chance.random() < 0.2:
        visitor.cancel(answer[1]["number"])


def killer(processes: Processes, kills: int, seconds: float, over: threading.Event, chance: random.Random) -> None:
    """Kills the whole web server once, and then, by turns, one of its children, a worker, or the syncer."""
    others = [name for name in processes.names if name != "web"]
    for number in range(kills):
        if over.wait(chance.uniform(0.5, 1.5) * seconds / kills):
            return
        if number == 1:
            processes.kill("web")
        elif number % 2:
            processes.kill_child("web", chance)
        else:
            processes.kill(chance.choice(others))


# -- the check ------------------------------------------------------------------------------------------------------


@dataclass
class Books:
    """What three places say at the end."""

    lines: list[tuple[str, object, object, object]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def line(self, what: str, shop: object, ours: object, redis: object) -> None:
        self.lines.append((what, shop, ours, redis))
        if len({each for each in (shop, ours, redis) if each != ""}) > 1:
            self.wrong.append(what)

    def claim(self, what: str, broken: Sequence[str] | set[str]) -> None:
        self.lines.append((what, len(broken) or "none", "", ""))
        if broken:
            self.wrong.append(f"{what}: {sorted(broken)[:5]}")

    def __str__(self) -> str:
        head = [("", "the shop", "the sale", "Redis"), *self.lines]
        return "\n".join(f"{what:<44}{shop!s:>12}{ours!s:>12}{there!s:>12}" for what, shop, ours, there in head)


def books(connection: Connection, shop: crowd_shops.Shop, sale: FlashSale, told: Told, units: int) -> Books:
    """Compares the shop's own tables with ours and with Redis, order by order and unit by unit."""
    found = Books()
    ours = {row.order_id: row for row in connection.execute(text("SELECT * FROM flashsale_orders"))}
    [item] = connection.execute(text("SELECT * FROM flashsale_goods"))
    theirs = {row.number: row for row in connection.execute(text(shop.orders))}
    flash = {number: row for number, row in theirs.items() if number in ours}
    regular = [row.units for number, row in theirs.items() if number not in ours and row.status != "cancelled"]
    [left] = connection.execute(text(shop.stock)).scalars()
    ledger = {order_id: record for page in sale._ledger.pages() for order_id, record in page.items()}
    stock = sale.inventory.stock(SKU)

    for state, status in (("PERSISTED", "open"), ("CONFIRMED", "paid")):
        found.line(
            f"orders that are {status}",
            sum(row.status == status for row in flash.values()),
            sum(row.state == state for row in ours.values()),
            sum(record.state == state for record in ledger.values()),
        )
    found.line(
        "units of them",
        sum(row.units for row in flash.values() if row.status != "cancelled"),
        item.booked,
        stock.booked,
    )
    found.line("units of the sale", units - left - sum(regular), item.granted, stock.total)
    found.line("units of the shop, both channels", left + sum(regular) + item.granted, units, "")
    statuses = {"PERSISTED": "open", "CONFIRMED": "paid"}
    found.claim(
        "orders that the shop has otherwise",
        {
            number
            for number, row in ours.items()
            if (flash[number].status if number in flash else "cancelled") != statuses.get(row.state, "cancelled")
        },
    )
    found.claim("orders that Redis has otherwise", {n for n, row in ours.items() if ledger[n].state != row.state})
    found.claim(
        "orders of the sale that the shop does not know", {n for n in theirs if n.startswith("F")} - ours.keys()
    )
    found.claim("buyers who were told ACCEPTED, without a row", told.accepted - ours.keys())
    found.claim(
        "buyers who were told ACCEPTED, and then REJECTED",
        {n for n in told.accepted & ours.keys() if ours[n].state == "REJECTED"},
    )
    buyers = Counter(row.buyer_id for row in ours.values() if row.state in ALIVE)
    found.claim("buyers with two orders", {name for name, count in buyers.items() if count > 1})
    money = {row.id: row for row in connection.execute(text(shop.money))}
    found.claim("money that was taken twice, or never", told.money.keys() ^ money.keys())
    found.claim(
        "money on the wrong side",
        {name for name, row in money.items() if bool(row.refund) is (ours[row.number].state == "CONFIRMED")},
    )
    found.claim("places where the audit finds fault", [str(each) for each in Syncer(sale).audit().orders])
    return found


# -- all together ---------------------------------------------------------------------------------------------------


def play(shop: crowd_shops.Shop, options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashsale-")))
        server = stack.enter_context(servers.redis_server())
        url = stack.enter_context(stack.enter_context(servers.postgres()).database())
        port = servers.free_port()
        environment = {
            "FLASHSALE_SALE": SALE,
            "FLASHSALE_REDIS_URL": server.url,
            "FLASHSALE_DATABASE_URL": url,
            **shop.environment(url),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        }
        stack.enter_context(mock.patch.dict(os.environ, environment))
        regular = options.units // 2
        shop.prepare(url, customers=options.buyers, units=options.units + regular)
        processes = Processes(shop.commands(port), environment, folder)
        stack.callback(processes.close)
        engine = create_engine(url)
        stack.callback(engine.dispose)
        store = stack.enter_context(SQLAlchemyStore(url, SALE))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        sale = stack.enter_context(FlashSale(client, SALE, store=store))
        shop.offer(Goods(SKU, options.units, per_buyer=1, hold=options.hold, opens_at=time.time() + 1))
        told = Told()
        try:
            wait_for(lambda: is_open(port) and is_on_sale(sale), "the shop to open")
            visitor = Visitor(port, shop, told, options.seconds)
            began = time.monotonic()
            come(visitor, processes, options, regular * 2)
            wait_for(lambda: is_quiet(sale, engine, shop), "the last order to be saved, paid or expired")
        except BaseException:
            print(processes.log(), file=sys.stderr)
            raise
        finally:
            processes.close()
        with engine.connect() as connection:
            found = books(connection, shop, sale, told, options.units + regular)
        report(shop, options, told, processes, found, time.monotonic() - began)
        return 1 if found.wrong else 0


def come(visitor: Visitor, processes: Processes, options: argparse.Namespace, passers_by: int) -> None:
    """Lets everybody come, and kills meanwhile."""
    chance, over = random.Random(options.seed), threading.Event()
    with ThreadPoolExecutor(options.buyers + passers_by + 1) as people:
        work = [
            people.submit(what, number, visitor, random.Random(chance.random()))
            for what, count in ((buyer, options.buyers), (passer_by, passers_by))
            for number in range(1, count + 1)
        ]
        kills = people.submit(killer, processes, options.kills, options.seconds, over, random.Random(chance.random()))
        try:
            for each in work:
                each.result()
        finally:
            over.set()
        kills.result()


def report(
    shop: crowd_shops.Shop, options: argparse.Namespace, told: Told, processes: Processes, found: Books, took: float
) -> None:
    killed = ", ".join(f"{name} {count}" for name, count in sorted(processes.killed.items()))
    print(f"{shop.name}: {options.buyers} buyers on {options.units} units, {took:.0f} s; killed: {killed or 'nobody'}")
    print("told: " + ", ".join(f"{what} {count}" for what, count in sorted(told.outcomes.items())))
    for what, seconds in sorted(told.seconds.items()):
        seconds.sort()
        half, most = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
        print(f"  {what:<10}{len(seconds):>6} answers, p50 {half * 1000:.0f} ms, p99 {most * 1000:.0f} ms")
    print(found)
    for each in found.wrong:
        print(f"wrong: {each}")


def is_open(port: int) -> bool:
    """True when an order that nobody has is not found: the web server answers, and it knows the sale."""
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=5)
    try:
        connection.request("GET", "/orders/F1.none", headers={"X-Customer": "1"})
        return connection.getresponse().status == 404
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_on_sale(sale: FlashSale) -> bool:
    try:
        return bool(sale.view(SKU).outcome == "ADMITTED")
    except LookupError:
        return False


def is_quiet(sale: FlashSale, engine: Any, shop: crowd_shops.Shop) -> bool:
    """True when nothing is on its way: no queue, no claim, no deadline, no event, no row that Redis has otherwise."""
    audit = Syncer(sale).audit()
    with engine.connect() as connection:
        due = connection.execute(text("SELECT count(*) FROM flashsale_orders WHERE state = 'PERSISTED'")).scalar()
        if shop.has_outbox:
            due += connection.execute(text("SELECT count(*) FROM flashsale_events")).scalar()
    return audit.ok and not audit.pending and due == 0


def wait_for(check: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not check():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.own_tables.crowd", description=__doc__.split("\n")[0])
    parser.add_argument("shop", choices=crowd_shops.SHOPS)
    parser.add_argument("--buyers", type=int, default=300, help="(%(default)s)")
    parser.add_argument("--units", type=int, default=100, help="for the sale; half as many more in stock (%(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="processes that are killed (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="over which the buyers come (%(default)s)")
    parser.add_argument("--hold", type=float, default=5.0, metavar="S", help="seconds to pay (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the chances")
    options = parser.parse_args()
    return play(crowd_shops.SHOPS[options.shop], options)


if __name__ == "__main__":
    sys.exit(main())
