"""Reads what Redis and what the database say about the sale of the demo; `settlement` compares them."""

from __future__ import annotations

from typing import NamedTuple

from redis.asyncio import Redis

from flashsale._rules import ledger_record
from flashsale.aio import AsyncOrderStore, FlashSale
from flashsale.demo.options import GOODS_ID
from flashsale.demo.settlement import DatabaseSide, Entry, RedisSide
from flashsale.keys import Keys

_PAGE = 1000


class OpenPhase(NamedTuple):
    """How the open phase ended, by the clock and by the count of Redis. What was accepted later is resale.

    Args:
        time: epoch seconds.
        seq: number of the last order accepted.
        unsold: units that were left.
    """

    time: float
    seq: int
    unsold: int


async def end_of_open_phase(sale: FlashSale, client: Redis) -> OpenPhase:
    """Returns where the sale is now; nobody is buying at this moment."""
    seq = await client.hget(sale.keys.meta, "seq")
    stock = await sale.inventory.stock(GOODS_ID)
    return OpenPhase(await sale._ledger.time(), int(seq or 0), stock.remaining)


async def read_redis(sale: FlashSale, client: Redis, first: OpenPhase, most_booked: int) -> RedisSide:
    """Returns what Redis says.

    Args:
        sale: the sale, when nothing is under way any more.
        client: with bytes replies, to read the ledger.
        first: the open phase; what was accepted later is resale.
        most_booked: the highest `Booked` seen.
    """
    stock, gate, keys = await sale.inventory.stock(GOODS_ID), await sale.gate.state(GOODS_ID), sale.keys
    entries = {}
    async for order_id, text in client.hscan_iter(keys.orders, count=_PAGE):
        record = ledger_record.read(text, order_id.decode())
        entries[order_id.decode()] = Entry(record.buyer_id, record.quantity, record.state, record.seq > first.seq)
    return RedisSide(
        total=stock.total,
        booked=stock.booked,
        direct=stock.direct,
        count=gate.count,
        access=gate.access,
        pending=await pending(sale) + await client.hlen(keys.dead),
        unsold=first.unsold,
        most_booked=most_booked,
        ledger=entries,
    )


async def pending(sale: FlashSale) -> int:
    """Returns how many orders are on the way to the database: on the list, or leased."""
    seen = await sale._recorder.look()
    return seen.queued + seen.claimed


async def read_database(store: AsyncOrderStore, first: OpenPhase) -> DatabaseSide:
    """Returns what the database says; rows that were accepted after the open phase are resale."""
    rows: dict[str, Entry] = {}
    after: str | None = None
    while page := await store.orders(after=after, limit=_PAGE):
        for row in page:
            order, after = row.order, row.order.order_id
            late = (order.created_at or 0.0) > first.time
            rows[order.order_id] = Entry(order.buyer_id, order.quantity, row.state, late)
    return DatabaseSide(total=sum(goods.total for goods in await store.goods()), rows=rows)


async def forget(client: Redis, keys: Keys) -> None:
    """Deletes every key of the sale, and no other."""
    async with FlashSale(client, keys.sale, keys=keys) as sale:
        await sale._forget()
