"""The target behind which a Redis stands: one value is not what flashsale wrote, and everything is called.

Every answer is a value or a typed error. What one script refuses has changed nothing: Redis is compared byte for byte.
"""

from __future__ import annotations

import atexit
import logging
from typing import TYPE_CHECKING, Any

import fakeredis

from flashsale import (
    CorruptState,
    FlashSale,
    FlashSaleError,
    Goods,
    Keys,
    Order,
    OrderState,
    OutcomeUnknown,
    StoredOrder,
    Syncer,
    Tickets,
    Worker,
)
from flashsale._sync import auditor
from flashsale.lua import Code
from flashsale.stores import SQLAlchemyStore
from tests.support.helpers import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = Keys("spring")


def of_another_type(raw: Any, key: str, value: bytes) -> None:
    """Puts a list where a string belongs, and a string elsewhere."""
    belongs = raw.type(key)
    raw.delete(key)
    raw.lpush(key, value) if belongs == b"string" else raw.set(key, value)


PLACES: list[Callable[[Any, bytes], object]] = [
    *(
        lambda raw, value, field=field: raw.hset(KEYS.stock("phone"), field, value)
        for field in ("Total", "Booked", "Ledger", "hold", "per_buyer", "opens_at", "closes_at", "version", "preload")
    ),
    *(
        lambda raw, value, key=key: raw.set(key, value)
        for key in (KEYS.count("phone"), KEYS.start("phone"), KEYS.access("phone"))
    ),
    *(
        lambda raw, value, field=field: raw.hset(KEYS.window("phone"), field, value)
        for field in ("opens_at", "closes_at", "pause", "auto", "per_buyer")
    ),
    *(
        lambda raw, value, field=field: raw.hset(KEYS.meta, field, value)
        for field in ("state", "seq", "epoch", "layout", "deliveries", "leader", "leader_until")
    ),
    lambda raw, value: raw.hset(KEYS.orders, "o-1", value),
    lambda raw, value: raw.hset(KEYS.orders, value, value),
    lambda raw, value: raw.hset(KEYS.buyers("phone"), "ann", value),
    lambda raw, value: raw.hset(KEYS.tickets("phone"), "ann", value),
    lambda raw, value: raw.lpush(KEYS.order_list, value),
    lambda raw, value: raw.rpush(KEYS.order_list, value),
    lambda raw, value: [raw.hset(KEYS.claimed, name, value) for name in raw.hkeys(KEYS.claimed)],
    lambda raw, value: [raw.hset(KEYS.claimed, value, value), raw.zadd(KEYS.leases, {value: 1})],
    lambda raw, value: raw.zadd(KEYS.holds, {value: 1}),
    lambda raw, value: raw.hset(KEYS.dead, value, value),
    lambda raw, value: raw.hset(KEYS.dead, "o-1", b"1|1|" + value),
    lambda raw, value: raw.sadd(KEYS.goods, value),
    *(
        lambda raw, value, key=key: of_another_type(raw, key, value)
        for key in (
            *KEYS._of_sale(),
            KEYS.stock("phone"),
            KEYS.buyers("phone"),
            KEYS.tickets("phone"),
            *KEYS.gate("phone"),
        )
    ),
]


def trusted(code: int) -> None:
    """Raises what its caller makes of this answer of a script."""
    if code == Code.CORRUPT:
        raise CorruptState("what Redis holds cannot be trusted")


class Sandbox:
    """A sale in the middle of its life, of which one value can be spoilt.

    Args:
        raw: a client with bytes replies, to set up and to look.
        client: the library's.
    """

    def __init__(self, raw: Any, client: Any) -> None:
        self.raw = raw
        self.store = SQLAlchemyStore("sqlite://", "spring")
        self.store.create_all()
        self.store.put_goods(Goods("phone", 20, opens_at=1.0, per_buyer=9, hold=600.0))
        self.sale = FlashSale(client, "spring", store=self.store, cache_for=0, tickets=Tickets({"a": b"s" * 32}))
        self.worker, self.syncer = Worker(self.sale), Syncer(self.sale)
        self.raw.flushall()
        self.syncer.run_once()
        for number in (1, 2):
            self.sale.buy("phone", "ann", order_id=f"o-{number}")
        self.worker.run_once()
        for number in (3, 4, 5, 6):
            self.sale.buy("phone", "bob", order_id=f"o-{number}")
        sale = self.sale
        sale._recorder._later.end(1.0)  # nothing is told beside the calls: a refused one would seem to write
        sale.enter("phone", "ann", order_id="t-1")
        sale.queue._bury(sale.queue.claim(1))
        self._claims = sale.queue.claim(2)
        self._kept = {key: raw.dump(key) for key in raw.keys("*")}

    def close(self) -> None:
        self.sale.close()
        self.store.close()

    def spoil(self, place: int, value: bytes) -> None:
        """Puts everything back, but one value."""
        self.raw.flushall()
        for key, dumped in self._kept.items():
            self.raw.restore(key, 0, dumped)
        PLACES[place % len(PLACES)](self.raw, value)

    def single(self) -> list[Callable[[], object]]:
        """Calls of one script or read each: refused, they have changed nothing."""
        sale, gate, inventory, queue = self.sale, self.sale.gate, self.sale.inventory, self.sale.queue
        ledger, control, claims = sale._ledger, sale._meta, self._claims
        external = Order("o-7", "phone", "eve", 1)
        row = StoredOrder(Order("o-1", "phone", "ann", 1), OrderState.PERSISTED)
        return [
            lambda: sale.buy("phone", "ann"),
            lambda: sale.buy("phone", "ann", order_id="o-1"),
            lambda: inventory.reserve(
                [Order("o-1", "phone", "ann", 1), Order("o-9", "phone", "eve", 2)], together=True
            ),
            lambda: inventory.deduct("phone"),
            lambda: inventory.release("phone"),
            lambda: inventory.stock("phone"),
            lambda: inventory._holds(["phone"]),
            lambda: inventory.preload("phone", 20),
            lambda: gate.enter("phone"),
            lambda: gate.leave("phone"),
            lambda: gate.state("phone"),
            lambda: gate.start("phone"),
            lambda: gate.resize("phone", 20),
            lambda: gate.schedule("phone", opens_at=1.0),
            lambda: gate._mirror("phone", 20, 3, per_buyer=9),
            lambda: sale._ticketing._enter([("phone", 1, "ann t-2 \n")]),
            lambda: gate._sweep("phone", "0", orders_here=True),
            lambda: sale.status("o-1"),
            lambda: sale.extend_hold("o-1", 60),
            sale._ledger.overdue,
            lambda: sale._meta.pause(paused=True),
            lambda: sale._meta.pause(paused=False),
            sale._meta.state,
            sale._meta.goods,
            lambda: queue.push(Order("o-8", "phone", "eve", 1)),
            queue.dead,
            lambda: list(queue._pending()),
            lambda: list(sale._ledger.pages()),
            lambda: queue.claim(1, timeout=0),
            queue.requeue_dead,
            lambda: inventory._configure(Goods("phone", 20, version=1, opens_at=1.0, per_buyer=9, hold=600.0)),
            lambda: trusted(ledger.adopt([external])[0].code),
            lambda: trusted(ledger.move([StoredOrder(Order("o-2", "phone", "ann", 1), OrderState.CANCELLED)])[0].code),
            lambda: ledger.look("o-2"),
            lambda: ledger.start_hold(row.order),
            lambda: queue.extend(claims),
            lambda: queue.nack(claims),
            lambda: queue.ack(claims[:1]),
            lambda: queue._bury(claims[1:]),
            lambda: control.lead("token", 1.0),
            lambda: control.share("token", 1.0, 64),
            lambda: control.close(2),
            lambda: trusted(*ledger.restore([row], 2)),
            lambda: control.wipe([Goods("phone", 20)], 2),
            lambda: control.open([Goods("phone", 20)], 2),
            lambda: queue.pop(0),
        ]

    def whole(self) -> list[Callable[[], object]]:
        """Calls of many steps: of these it is only asked that they end in a value or a typed error."""
        sale = self.sale
        return [
            lambda: sale.confirm("o-1"),
            lambda: sale.cancel("o-2"),
            lambda: sale.cancel("o-3"),
            self.worker.run_once,
            self.syncer.run_once,
            self.syncer.audit,
            lambda: self.syncer.repair(dry_run=False),
            sale.check,
            lambda: sale.restock("phone", 1),
        ]

    def play(self, place: int, value: bytes) -> None:
        """Spoils one value and calls everything on it."""
        self.spoil(place, value)
        before = snapshot(self.raw)
        calls = self.single()
        for number, call in enumerate(calls):
            try:
                call()
            except FlashSaleError as error:
                assert not isinstance(error, OutcomeUnknown), f"call {number}: {error.__cause__}"
                gone = call is calls[-1]  # a pop takes what it cannot read
                assert gone or snapshot(self.raw) == before, f"call {number} was refused and has written"
            else:
                before = snapshot(self.raw)
        self.spoil(place, value)
        for call in self.whole():
            try:
                call()
            except FlashSaleError as error:
                assert not isinstance(error, OutcomeUnknown), error.__cause__


_sandbox: Sandbox | None = None


def redis_value(data: bytes) -> None:
    """A value in Redis that somebody else wrote: the first byte says where."""
    global _sandbox  # noqa: PLW0603  made once: that takes a hundred times as long as one round
    if _sandbox is None:
        auditor.BETWEEN = 0.0  # nothing moves here: what disagrees at one look does so at the next
        logging.disable()
        server = fakeredis.FakeServer()
        _sandbox = Sandbox(fakeredis.FakeRedis(server=server), fakeredis.FakeRedis(server=server))
        atexit.register(_sandbox.close)
    _sandbox.play(data[0] if data else 0, data[1:])
