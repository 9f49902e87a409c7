"""The command `flashsale` as an operator types it, in this process, on a small sale."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import redis

from flashsale import FlashSale, Goods, StoreError, Syncer, Worker
from flashsale.cli import main
from flashsale.stores import SQLAlchemyStore
from tests.support import acl
from tests.support.helpers import put_tables

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SALE = "spring"
MOMENT = r"(?:\d{4}-\d\d-\d\d [\d:]{8} \S+|[\d:]{8})"
"""A moment as the command shows it: with its date when that is another day, as around midnight."""


class Told(NamedTuple):
    """What a command said.

    Attributes:
        code: its exit code.
        out: its answer.
        err: what it said beside.
        written: the entries of the trail that it left in the database.
    """

    code: int
    out: str
    err: str
    written: list[dict[str, Any]]

    @property
    def json(self) -> Any:
        """The one object that it answered with."""
        return json.loads(self.out)

    @property
    def trail(self) -> list[dict[str, Any]]:
        """The entries of the trail that it left: in the database, or where that takes none, on stderr."""
        return self.written + [json.loads(line) for line in re.findall(r"not written to the trail: (.*)", self.err)]


class Terminal(io.StringIO):
    """A terminal at which somebody has typed this."""

    def isatty(self) -> bool:
        return True


class Operator:
    """Types commands for one sale on a Redis and an SQLite file, as the user that the page Operating names.

    Args:
        redis_url: of the Redis.
        folder: for the database.
        partitions: over how many the sale is spread.

    Attributes:
        redis_url: with that user.
        sale: the same sale, to buy from and to look at.
        raw: a client of the Redis.
    """

    def __init__(
        self, redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, partitions: int = 1
    ) -> None:
        self.folder = folder
        self.raw = redis.Redis.from_url(redis_url)
        for command in acl.users():
            self.raw.execute_command(*command)
        user = "{username}:{password}".format(**acl.LIBRARY)
        self.redis_url = redis_url.replace("redis://", f"redis://{user}@")
        self.database = f"sqlite:///{folder / 'shop.db'}"
        self._monkeypatch, self._capsys = monkeypatch, capsys
        for name in (
            "FLASHSALE_OPERATOR",
            "FLASHSALE_SALE",
            "FLASHSALE_HOOKS",
            "FLASHSALE_STORE",
            "FLASHSALE_PARTITIONS",
        ):
            monkeypatch.delenv(name, raising=False)
        self.store = SQLAlchemyStore(self.database, SALE)
        self.sale = FlashSale(
            redis.Redis.from_url(redis_url), SALE, store=self.store, cache_for=0, partitions=partitions
        )
        self.syncer, self.worker = Syncer(self.sale), Worker(self.sale)
        self._last_entry = 0

    def begin(self, *goods: Goods) -> None:
        """Makes the tables, and a sale of these items, loaded; by default of ten phones, which are open."""
        put_tables(self.folder / "shop.db") or self.store.create_all()
        for each in goods or (Goods("phone", 10),):
            self.store.put_goods(each)
        self.syncer.run_once()
        if not goods:
            self.sale.start("phone")

    def __call__(self, *words: str, typed: str | None = None, where: bool = True) -> Told:
        """Types a command; `typed` is what is typed at its question, None in a script."""
        stdin = io.StringIO() if typed is None else Terminal(f"{typed}\n")
        self._monkeypatch.setattr(sys, "stdin", stdin)
        options = ["--redis", self.redis_url, "--database", self.database, "--sale", SALE] if where else []
        if where and self.sale.partitions > 1:
            options += ["--partitions", str(self.sale.partitions)]
        self._capsys.readouterr()
        code = main([*words, *options])
        said = self._capsys.readouterr()
        return Told(code, said.out, said.err, self._written())

    def _written(self) -> list[dict[str, Any]]:
        """Returns the entries that the last command has written."""
        try:
            entries = self.store.trail(after=self._last_entry, limit=100)
        except StoreError:  # there are no tables
            return []
        self._last_entry = entries[-1].entry_id if entries else self._last_entry
        return [asdict(entry) for entry in entries]

    def buy(self, name: str, buyer: str = "ann", quantity: int = 1, goods_id: str = "phone") -> str:
        """Buys, as the shop does, and returns the order id: the name, with partitions behind the buyer's."""
        order_id = self.sale.order_id(buyer, name)
        assert self.sale.buy(goods_id, buyer, quantity, order_id=order_id).accepted
        return order_id

    def bury(self, *order_ids: str) -> None:
        """Makes dead letters of orders that wait."""
        for part in self.sale._partitions():
            claims = part.queue.claim(1000)
            part.queue._bury([claim for claim in claims if claim.order and claim.order.order_id in order_ids])
            part.queue.nack([claim for claim in claims if claim.order and claim.order.order_id not in order_ids])

    def close(self) -> None:
        self.sale.close()
        self.store.close()
        self.raw.close()
