"""The order queue: the article's Redis list (LPUSH, BRPOP), claims with leases, attempts, and dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Final

from flashsale._rules.batches import batches, whole_baskets
from flashsale._rules.observer import log
from flashsale._rules.tokens import Element, delivery_and_lease, elements_of, held, names, parts
from flashsale.aio.clients import Client
from flashsale.aio.ledger import MOVES, acknowledge
from flashsale.aio.transport.component import Component
from flashsale.aio.transport.link import Argument, Link
from flashsale.errors import InvalidRequest
from flashsale.keys import Keys
from flashsale.model import Claim, Order
from flashsale.model.checks import MAX_UNITS, check_int, check_seconds
from flashsale.model.orders import claims_of, read_orders

MAX_ATTEMPTS: Final = 5  # refusals of one element, or leases that ended while it was alone; then it is dead
_ALONE: Final = 10**14  # a lease is a number, and this for each time that the element was claimed alone (claim.lua)
MAX_BATCH: Final = 1000  # elements of one script call: Lua's unpack ends near 8,000 values
SCANS: Final = 2  # of what is claimed: the second finds what was split during the first
_REASON: Final = "reason:"  # before the order id: a field of meta
_SLICE: Final = 1.0  # seconds of one blocking read, if the socket timeout allows


class OrderQueue(Component):
    """The list of orders between the sale and the database.

    A sale has one kind of consumer: `pop` or an external BRPOP, at most once; or `claim` and `ack`, at least once.

    Args:
        client: a redis-py asyncio client; we copy its settings and leave it alone.
        sale: name of the sale.
        keys: the key layout; `PlainKeys()` for the article's bare names.
    """

    def __init__(self, client: Client | Link, sale: str, *, keys: Keys | None = None) -> None:
        super().__init__(client, sale, keys)
        self._slice = min(_SLICE, self._link.socket_timeout / 2)

    # -- push and pop, as in the article ----------------------------------------------------------------------------

    async def push(self, order: Order) -> int:
        """LPUSHes an order, without deducting; the worker adopts it.

        Returns:
            The length of the list.
        """
        length = await self._link.run("push", [self.keys.order_list, self.keys.wakeup], [order.to_json()])
        return int(length)

    async def pop(self, timeout: float | None = None) -> Order | None:
        """BRPOPs an order, at most once: from then on only the caller has it, and a crash loses it.

        Args:
            timeout: seconds to wait; 0: return at once; None: wait until an order comes.

        Returns:
            The order, or None after the timeout.

        Raises:
            InvalidRequest: the element was not an order; it is gone.
        """
        left = None if timeout is None else check_seconds("timeout", timeout)
        while True:
            wait = self._slice if left is None else min(self._slice, left)
            if wait > 0:
                reply = await self._link.command("BRPOP", self.keys.order_list, f"{max(wait, 0.001):.3f}")
            else:
                reply = (None, await self._link.command("RPOP", self.keys.order_list))
            if reply is not None and reply[1] is not None:
                return Order.from_json(reply[1])
            if left is not None:
                left -= wait
                if left <= 0:
                    return None

    # -- at least once ----------------------------------------------------------------------------------------------

    async def claim(self, limit: int = 100, *, lease: float = 30.0, timeout: float = 1.0) -> list[Claim]:
        """Leases elements to the caller: refused ones whose delay is over, then the oldest on the list.

        What lost its lease comes after all that waits, without others, and half of what was claimed together: it may
        have killed its worker. An element that was refused five times, or whose lease ended five times while it was
        claimed alone, goes to the dead letters instead. All this holds for a basket as for one element: its orders are
        claimed together.

        Args:
            limit: most elements, 1..1,000; a basket that is longer is claimed all the same.
            lease: seconds by the Redis clock after which another caller gets them.
            timeout: seconds to wait for the first element.

        Returns:
            The claims; empty after the timeout.
        """
        check_int("limit", limit, 1, MAX_BATCH)
        check_seconds("lease", lease, low=0.001)
        left = check_seconds("timeout", timeout)
        while True:
            claims = await self._claim(limit, lease)
            if claims or left <= 0:
                return claims
            wait = max(0.001, min(self._slice, left))
            await self._link.command("BLPOP", self.keys.wakeup, f"{wait:.3f}")
            left -= wait

    async def ack(self, claims: Iterable[Claim]) -> int:
        """Drops claims whose orders are committed, and marks the orders PERSISTED.

        A commit is a fact, so the lease does not matter.

        Returns:
            How many were still there.
        """
        return (await self._drop(claims))[0]

    async def _drop(self, claims: Iterable[Claim]) -> tuple[int, float]:
        """Acks; returns how many were still there, and the time of Redis: epoch seconds, 0.0 without claims."""
        dropped, time = 0, 0.0
        for batch in batches(claims, MAX_BATCH):
            orders = [claim.order for claim in batch if claim.order]
            gone, time = await acknowledge(self._link, self.keys, held([claim.token for claim in batch]), orders)
            dropped += gone
        return dropped, time

    async def nack(self, claims: Iterable[Claim], *, delay: float = 0.0, count_attempt: bool = True) -> int:
        """Returns claims to the queue, to be claimed again after `delay` seconds.

        Args:
            claims: those whose lease the caller still holds; others are left alone.
            delay: seconds by the Redis clock.
            count_attempt: False when the element is not to blame: then this is no refusal.

        Returns:
            How many were returned.
        """
        check_seconds("delay", delay)
        returned = 0
        for batch in batches(claims, MAX_BATCH):
            tokens = [claim.token for claim in batch]
            claimed = names(tokens)
            elements = [part for token in tokens for part in delivery_and_lease(token)]
            arguments: list[Argument] = [len(claimed), delay, int(count_attempt), *claimed, *elements]
            returned += await self._link.run("nack", [self.keys.leases, self.keys.claimed], arguments)
        return returned

    async def extend(self, claims: Iterable[Claim], *, lease: float = 30.0) -> int:
        """Renews the leases of claims: they end `lease` seconds from now.

        Returns:
            How many the caller still holds.
        """
        check_seconds("lease", lease, low=0.001)
        extended = 0
        for batch in batches(claims, MAX_BATCH):
            whole, some, tokens = held([claim.token for claim in batch])
            elements = [part for token in tokens for part in delivery_and_lease(token)]
            arguments: list[Argument] = [len(whole), len(some), lease, *whole, *some, *elements]
            extended += await self._link.run("extend", [self.keys.leases, self.keys.claimed], arguments)
        return extended

    async def size(self) -> int:
        """Returns the length of the list; claims are not on it."""
        return int(await self._link.command("LLEN", self.keys.order_list))

    async def _is_idle(self) -> bool:
        """True when orders are claimed here, and none is on the list or under a lease.

        Orders that are only popped are never there: what became of them is known to whoever popped them.
        """
        link, keys = self._link, self.keys
        if await link.command("LLEN", keys.order_list) or await link.command("HLEN", keys.claimed):
            return False
        return await link.command("HGET", keys.meta, "deliveries") is not None

    async def _pending(self) -> AsyncIterator[list[bytes]]:
        """Yields pages of the list, then of what is claimed; an element that moves meanwhile is not missed."""
        at = 0
        while page := await self._link.command("LRANGE", self.keys.order_list, at, at + MAX_BATCH - 1):
            yield page
            at += len(page)
        async for elements in self._elements():
            yield [element.body for element in elements]

    async def _elements(self) -> AsyncIterator[list[Element]]:
        """Yields pages of what is claimed, each element once."""
        seen: set[str] = set()
        for _ in range(SCANS):
            async for page in self._scan(self.keys.claimed):
                found = {each.delivery: each for entry in page.items() for each in elements_of(*entry)}
                yield [element for delivery, element in found.items() if delivery not in seen]
                seen |= found.keys()

    async def _places(self, wanted: Callable[[Order], bool]) -> list[tuple[Order, int]]:
        """Returns the orders on the list that are wanted, each with how many leave it before."""
        found: list[tuple[Order, int]] = []
        at, length = 0, await self.size()
        while page := await self._link.command("LRANGE", self.keys.order_list, at, at + MAX_BATCH - 1):
            for place, order in enumerate(read_orders(page), start=at):
                if order is not None and wanted(order):
                    found.append((order, max(0, length - 1 - place)))
            at += len(page)
        return found

    async def _claims(self, wanted: Callable[[Order], bool]) -> list[tuple[Claim, float | None]]:
        """Returns the claims of orders that are wanted, each with the end of its lease: epoch seconds, or None."""
        claims: list[Claim] = []
        async for elements in self._elements():
            orders = read_orders([element.body for element in elements])
            for (_, attempts, body, token), order in zip(elements, orders, strict=True):
                if order is not None and wanted(order):
                    claims.append(Claim(order, body, attempts, token))
        claims = await self._explained(claims)
        leased = [(names([claim.token]) or delivery_and_lease(claim.token))[0] for claim in claims]
        ends: dict[str, bytes | None] = {}
        for batch in batches(dict.fromkeys(leased), MAX_BATCH):
            found = await self._link.command("ZMSCORE", self.keys.leases, *batch)
            ends |= zip(batch, found, strict=True)
        told = zip(claims, map(ends.get, leased), strict=True)
        return [(claim, None if end is None else float(end)) for claim, end in told]

    # -- dead letters -----------------------------------------------------------------------------------------------

    async def _buried(self, order_ids: Sequence[str]) -> set[str]:
        """Returns those of `order_ids` that have a dead letter."""
        found: set[str] = set()
        for batch in batches(order_ids, MAX_BATCH):
            letters = await self._link.command("HMGET", self.keys.dead, *batch)
            found |= {order_id for order_id, letter in zip(batch, letters, strict=True) if letter is not None}
        return found

    async def _bury(self, claims: Iterable[Claim]) -> int:
        """Moves claims to the dead letters: their orders keep their units until they are requeued or cancelled.

        Returns:
            How many were moved; the others were no longer the caller's.
        """
        buried = 0
        keys = [self.keys.leases, self.keys.claimed, self.keys.dead, self.keys.orders]
        for batch in batches(claims, MOVES):
            claimed = names(claim.token for claim in batch)
            arguments: list[Argument] = [len(claimed), *claimed]
            for claim in batch:
                order = claim.order
                arguments += delivery_and_lease(claim.token)
                content = f"{order.quantity}|{order.goods_id}|{order.buyer_id}" if order else ""
                arguments += (order.order_id if order else "", content)
            buried += await self._link.run("bury", keys, arguments)
        return buried

    async def dead(self, limit: int = 100) -> list[Claim]:
        """Returns dead letters, oldest first, at most `limit`."""
        check_int("limit", limit, 1)
        return list((await self._dead_letters(limit=limit)).values())

    async def requeue_dead(self, order_ids: Collection[str] | None = None) -> int:
        """Puts dead letters back on the list, their orders QUEUED again.

        Args:
            order_ids: of these orders alone; None: all of them.

        Returns:
            How many went back.
        """
        keys = [self.keys.dead, self.keys.orders, self.keys.order_list, self.keys.wakeup]
        await self._link.run("layout", [self.keys.meta])
        names = sorted(await self._letters() if order_ids is None else {name.encode() for name in order_ids})
        back = 0
        for batch in whole_baskets(names, MOVES):
            back += await self._link.run("requeue", keys, batch)
        return back

    async def _dead_letters(self, names: Collection[str] | None = None, *, limit: int = MAX_UNITS) -> dict[str, Claim]:
        """Returns dead letters by name, oldest first: that of its order, or a blank and a number where it has none.

        Args:
            names: those alone; None: all.
            limit: at most so many.
        """
        if names is None:
            entries = {str(name, "ascii", "replace"): entry for name, entry in (await self._letters()).items()}
        else:
            entries = await self._named_letters(names)
        letters = {name: self._letter(entry) for name, entry in entries.items()}
        oldest = sorted(letters, key=lambda name: letters[name].lease % _ALONE)[:limit]
        return dict(zip(oldest, await self._explained([letters[name] for name in oldest]), strict=True))

    async def _named_letters(self, names: Collection[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for batch in batches(names, MAX_BATCH):
            entries = await self._link.command("HMGET", self.keys.dead, *batch)
            found |= {name: entry for name, entry in zip(batch, entries, strict=True) if entry is not None}
        return found

    async def _remove_dead(self, names: Collection[str]) -> int:
        """Removes dead letters that are no orders, and returns how many there were."""
        return int(await self._link.command("HDEL", self.keys.dead, *names)) if names else 0

    async def _explain(self, order_id: str, reason: str) -> None:
        """Keeps why an order was refused, for whoever looks at its dead letter."""
        await self._link.command("HSET", self.keys.meta, _REASON + order_id, reason)

    async def _forget_reasons(self, order_ids: Iterable[str]) -> None:
        """Forgets why orders were refused: they are saved by now."""
        for ids in batches(order_ids, MAX_BATCH):
            await self._link.command("HDEL", self.keys.meta, *(_REASON + order_id for order_id in ids))

    async def _explained(self, claims: Sequence[Claim]) -> list[Claim]:
        explained: list[Claim] = []
        for page in batches(claims, MAX_BATCH):
            names = [_REASON + (claim.order.order_id if claim.order else "") for claim in page]
            reasons = await self._link.command("HMGET", self.keys.meta, *names)
            explained += [
                replace(claim, reason=reason and reason.decode()) for claim, reason in zip(page, reasons, strict=True)
            ]
        return explained

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _claim(self, limit: int, lease: float) -> list[Claim]:
        keys = [self.keys.meta, self.keys.order_list, self.keys.wakeup, self.keys.leases, self.keys.claimed]
        again, before, bodies, name = await self._link.run("claim", keys, [limit, f"{lease:.6f}"])
        deliveries, leases, attempts = again[::4], again[1::4], again[2::4]
        tokens = [f"{int(delivery)}-{int(number)}" for delivery, number in zip(deliveries, leases, strict=True)]
        shared = f"-{name.decode()}" if name else ""
        numbers = map(str, range(int(before) + 1, int(before) + 1 + len(bodies)))
        tokens += [f"{number}-{number}{shared}" for number in numbers]
        counts = [*map(int, attempts), *repeat(1, len(bodies))]
        bodies = again[3::4] + bodies
        claims = claims_of(self._orders(bodies), bodies, counts, tokens)
        worn_out = [claim for claim in claims[: len(deliveries)] if _is_worn_out(claim)]
        if not worn_out:
            return claims
        await self._bury(worn_out)
        for claim in worn_out:
            self._say_dead(claim)
        return [claim for claim in claims if not _is_worn_out(claim)]

    def _say_dead(self, claim: Claim) -> None:
        refused = claim.attempts > MAX_ATTEMPTS
        why = "it was refused" if refused else "its worker died or was too slow"
        name = f"order {claim.order.order_id}" if claim.order else "an element that is no order"
        log.error("%s is a dead letter: %s %d times; requeue or cancel it", name, why, MAX_ATTEMPTS)

    def _orders(self, bodies: Sequence[bytes]) -> list[Order | None]:
        """Returns the orders; None for what is not an order, or is of an item that this layout has no keys for."""
        orders = read_orders(bodies)
        keyless = set()
        for goods_id in {order.goods_id for order in orders if order}:
            try:
                self.keys.stock(goods_id)
            except InvalidRequest:
                keyless.add(goods_id)
        return [None if order and order.goods_id in keyless else order for order in orders] if keyless else orders

    def _letter(self, entry: bytes) -> Claim:
        attempts, lease, body = parts(entry)
        return Claim(self._orders([body])[0], body, attempts, f"0-{lease}")

    async def _letters(self) -> Mapping[bytes, bytes]:
        letters: dict[bytes, bytes] = {}
        async for page in self._scan(self.keys.dead):
            letters |= page
        return letters

    async def _scan(self, key: str) -> AsyncIterator[dict[bytes, bytes]]:
        """Yields a hash in pages, so that a long one does not block Redis."""
        cursor = b"0"
        while True:
            cursor, page = await self._link.command("HSCAN", key, cursor, "COUNT", 500)
            yield dict(zip(page[::2], page[1::2], strict=True))
            if cursor == b"0":
                return


def _is_worn_out(claim: Claim) -> bool:
    return claim.attempts > MAX_ATTEMPTS or claim.lease // _ALONE > MAX_ATTEMPTS
