"""Reads the two other sides of the settlement: the books of Redis, and those of the database."""

from __future__ import annotations

from typing import NamedTuple

from redis.asyncio import Redis

from flashsale._rules import ledger_record
from flashsale.aio import AsyncOrderStore, FlashSale
from flashsale.demo.options import GOODS_ID
from flashsale.demo.settlement import DatabaseSide, Entry, RedisSide
from flashsale.keys import Keys

_PAGE = 1000


class Mark(NamedTuple):
    """The end of the rush, by the clock and by the count of Redis, and the units that were left.

    Args:
        time: epoch seconds.
        seq: number of the last order accepted.
        unsold: units.
    """

    time: float
    seq: int
    unsold: int


async def mark(sale: FlashSale, client: Redis) -> Mark:
    """Returns the mark of this moment; nobody is buying."""
    seq = await client.hget(sale.keys.meta, "seq")
    stock = await sale.inventory.stock(GOODS_ID)
    return Mark(await sale._ledger.time(), int(seq or 0), stock.remaining)


async def read_redis(sale: FlashSale, client: Redis, rush: Mark, most_booked: int) -> RedisSide:
    """Returns the side of Redis.

    Args:
        sale: the sale, at rest.
        client: with bytes replies, to read the ledger.
        rush: what was accepted later is resale.
        most_booked: the highest `Booked` seen.
    """
    stock, gate, keys = await sale.inventory.stock(GOODS_ID), await sale.gate.state(GOODS_ID), sale.keys
    entries = {}
    async for order_id, text in client.hscan_iter(keys.orders, count=_PAGE):
        record = ledger_record.read(text, order_id.decode())
        entries[order_id.decode()] = Entry(record.buyer_id, record.quantity, record.state, record.seq > rush.seq)
    return RedisSide(
        total=stock.total,
        booked=stock.booked,
        direct=stock.direct,
        count=gate.count,
        access=gate.access,
        waiting=await waiting(sale, client) + await client.hlen(keys.dead),
        unsold=rush.unsold,
        most_booked=most_booked,
        ledger=entries,
    )


async def waiting(sale: FlashSale, client: Redis) -> int:
    """Returns how many orders are on the way to the database: on the list, or leased."""
    return await sale.queue.size() + int(await client.zcard(sale.keys.leases))


async def read_database(store: AsyncOrderStore, rush: Mark) -> DatabaseSide:
    """Returns the side of the database; rows that were accepted after `rush` are resale."""
    rows: dict[str, Entry] = {}
    after: str | None = None
    while page := await store.orders(after=after, limit=_PAGE):
        for row in page:
            order, after = row.order, row.order.order_id
            late = (order.created_at or 0.0) > rush.time
            rows[order.order_id] = Entry(order.buyer_id, order.quantity, row.state, late)
    return DatabaseSide(total=sum(goods.total for goods in await store.goods()), rows=rows)


async def forget(client: Redis, keys: Keys) -> None:
    """Deletes every key of the sale, and no other."""
    await client.delete(*keys.gate(GOODS_ID), keys.stock(GOODS_ID), keys.buyers(GOODS_ID), *keys._of_sale())
