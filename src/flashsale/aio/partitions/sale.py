"""A sale over several partitions, with all that `FlashSale` offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

from typing_extensions import override

from flashsale._rules.deadline import TIMEOUT, ends_at
from flashsale._rules.durability import Durability, Guarantee
from flashsale._rules.observer import Notifier, Observer
from flashsale._rules.partitions import Routes, tag_of
from flashsale._rules.redis_errors import mismatch
from flashsale._rules.server_check import Finding, judge
from flashsale._rules.tally import Tally
from flashsale._rules.tickets import Tickets
from flashsale.aio.clients import Client
from flashsale.aio.gate import ONE, Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.order_queue import OrderQueue
from flashsale.aio.partitions.part_link import PartLink
from flashsale.aio.partitions.partition import Partition, SharedRefusals
from flashsale.aio.partitions.transfers import Transfers
from flashsale.aio.partitions.transitions import PartitionedTransitions
from flashsale.aio.sale import FlashSale
from flashsale.aio.store import AsyncOrderStore, fix_partitions, refuse_purged, store_findings
from flashsale.aio.transport.component import MAX_WAITING
from flashsale.aio.transport.link import Link
from flashsale.aio.transport.runtime import in_time, spend, together
from flashsale.aio.transport.topology import Nodes
from flashsale.aio.transport.waiting import Callers
from flashsale.aio.view_cache import ViewCache
from flashsale.errors import (
    FlashSaleError,
    InvalidRequest,
    NotExecuted,
    OrderConflict,
    OutcomeUnknown,
    PartitionMismatch,
    UnsafeServer,
)
from flashsale.keys import Keys, PartitionKeys, PlainKeys
from flashsale.lua import Code
from flashsale.model import Admission, BasketReceipt, GateState, Goods, OrderState, Outcome, Receipt
from flashsale.model.checks import check_id, check_int, check_sale, check_seconds

MEETING: Final = 2.0  # seconds in which a server must have said its place
AGAIN: Final = 10.0  # seconds after which one that did not is asked again
Answer = TypeVar("Answer")


class PartitionedSale(FlashSale):
    """Sells from several partitions, each a small sale under a hash tag of its own; see docs/partitions.md.

    A buyer has one partition, and an order id names it, so purchases, orders and baskets go straight there. Units move
    to where buyers want them. `FlashSale(..., partitions=8)` makes one.
    """

    def __init__(
        self,
        client: Client | Link | Sequence[Client],
        sale: str,
        *,
        gate_client: Client | None = None,
        gate_replica: Client | None = None,
        store: AsyncOrderStore | None = None,
        keys: Keys | None = None,
        cache_for: float = 0.05,
        max_waiting: int = MAX_WAITING,
        timeout: float = TIMEOUT,
        observer: Observer | None = None,
        durability: Durability = Durability.ACCEPTED,
        replicas: int = 1,
        durable_within: float = 1.0,
        tickets: Tickets | None = None,
        partitions: int = 1,
    ) -> None:
        _refuse("gate_client", given=gate_client is not None)
        _refuse("gate_replica", given=gate_replica is not None)
        _refuse("keys", given=isinstance(keys, PlainKeys))
        self.name = check_sale(sale)
        self.keys = (keys or Keys()).of(sale)  # of what all partitions have in common: `meta`
        self._routes = Routes(partitions)
        self.partitions = partitions
        self.store = store
        self._timeout = check_seconds("timeout", timeout, low=0.1)
        check_seconds("cache_for", cache_for)
        clients: list[Any] = [client]
        if isinstance(client, Sequence) and not isinstance(client, Nodes):  # they are a tuple
            clients = list(client)
        if not clients:
            raise InvalidRequest("client", "is an empty list")
        if partitions % len(clients):
            raise InvalidRequest("partitions", f"must be a multiple of the {len(clients)} clients")
        callers = Callers(check_int("max_waiting", max_waiting, 1))
        self._links = [Link(each, callers, timeout=timeout) for each in clients]
        self._asked_at = [float("-inf")] * len(clients)  # monotonic seconds; infinity once it is the right server
        self._guarantee = Guarantee(
            durability, replicas=replicas, within=durable_within, socket_timeout=self._links[0].socket_timeout
        )
        room, share = -(-max_waiting // partitions), partitions // len(clients)
        links = [PartLink(self._links[place % len(clients)], Callers(room), share) for place in range(partitions)]
        names = [PartitionKeys(sale, tag_of(sale, place, partitions)) for place in range(partitions)]
        self._transfers = Transfers(links, names, self._guarantee, keep=cache_for)
        self._refusals = SharedRefusals(cache_for, Tally(), self._transfers)
        self._parts: list[Partition] = []
        for place in range(partitions):
            self._parts.append(
                Partition(
                    links[place],
                    names[place],
                    place,
                    self._routes,
                    self._transfers,
                    self._parts[0] if self._parts else None,
                    self._refusals,
                    partial(self._meet, place),
                    store=store,
                    cache_for=cache_for,
                    max_waiting=max_waiting,
                    timeout=timeout,
                    observer=observer,
                    durability=durability,
                    replicas=replicas,
                    durable_within=durable_within,
                    tickets=tickets,
                )
            )
        first = self._parts[0]
        self._link = self._gate_link = first._link
        self._one_redis = True
        self._ledger, self._meta, self._recorder = first._ledger, first._meta, first._recorder
        self._transitions: PartitionedTransitions = PartitionedTransitions(first, self._transfers)
        self._notifier = Notifier(observer)
        self._view_cache = ViewCache(self._gate_state, self._unpaid, cache_for)
        self._is_known = False
        self._is_begun = False  # the database knows the number of partitions

    # -- what only the partitions have --------------------------------------------------------------------------------

    @property
    def gate(self) -> Gate:  # type: ignore[override]
        """Refused: each partition has its own."""
        raise _many("gate")

    @property
    def inventory(self) -> Inventory:  # type: ignore[override]
        """Refused: each partition has its own."""
        raise _many("inventory")

    @property
    def queue(self) -> OrderQueue:  # type: ignore[override]
        """Refused: each partition has its own."""
        raise _many("queue")

    @override
    def order_id(self, buyer_id: str, name: str | None = None) -> str:
        return self._routes.order_id(check_id("buyer_id", buyer_id), name)

    # -- before the sale --------------------------------------------------------------------------------------------

    @override
    @in_time
    async def preload(
        self,
        goods_id: str,
        total: int,
        *,
        per_buyer: int | None = None,
        opens_at: float | None = None,
        closes_at: float | None = None,
        hold: float | None = None,
    ) -> None:
        goods = Goods(goods_id, total, 0, per_buyer, opens_at, closes_at, hold)
        await refuse_purged(self.store, self.name)
        await self._begin()
        for part in reversed(self._parts):  # units arrive at the first one, which is the last that can sell
            await part.load(goods)
        await self._transfers.spread(goods_id)

    @override
    async def start(self, goods_id: str) -> None:
        await self._everywhere("start", lambda part: part.start(goods_id))

    @override
    async def stop(self, goods_id: str) -> None:
        await self._everywhere("stop", lambda part: part.stop(goods_id))

    @override
    async def pause(self) -> None:
        await self._everywhere("pause", lambda part: part.pause())

    @override
    async def resume(self) -> None:
        await self._everywhere("resume", lambda part: part.resume())

    # -- during the sale --------------------------------------------------------------------------------------------

    @override
    async def enter(
        self, goods_id: str, buyer_id: str, quantity: int = ONE, *, order_id: str | None = None
    ) -> Admission:
        part = await self._of_buyer(buyer_id, order_id, goods_id)
        return await part.enter(goods_id, buyer_id, quantity, order_id=order_id)

    @override
    async def buy(
        self,
        goods_id: str,
        buyer_id: str,
        quantity: int = ONE,
        *,
        order_id: str | None = None,
        data: Any = None,
        ticket: str | None = None,
    ) -> Receipt:
        part = await self._of_buyer(buyer_id, order_id, goods_id)
        return await part.buy(goods_id, buyer_id, quantity, order_id=order_id, data=data, ticket=ticket)

    @override
    async def buy_basket(
        self, buyer_id: str, items: Iterable[tuple[str, int]], *, basket_id: str | None = None, data: Any = None
    ) -> BasketReceipt:
        part = await self._of_buyer(buyer_id, basket_id, "", "basket_id")
        return await part.buy_basket(buyer_id, items, basket_id=basket_id, data=data)

    # -- after the sale ---------------------------------------------------------------------------------------------

    @override
    async def status(self, order_id: str) -> OrderState | None:
        return await (await self._of_order(order_id)).status(order_id)

    @override
    async def cancel(self, order_id: str, *, connection: Any = None) -> OrderState | None:
        return await (await self._of_order(order_id)).cancel(order_id, connection=connection)

    @override
    async def confirm(self, order_id: str, *, connection: Any = None) -> OrderState | None:
        return await (await self._of_order(order_id)).confirm(order_id, connection=connection)

    @override
    async def cancel_basket(self, basket_id: str, *, connection: Any = None) -> dict[str, OrderState | None]:
        return await (await self._of_order(basket_id, "basket_id")).cancel_basket(basket_id, connection=connection)

    @override
    async def confirm_basket(self, basket_id: str, *, connection: Any = None) -> dict[str, OrderState | None]:
        return await (await self._of_order(basket_id, "basket_id")).confirm_basket(basket_id, connection=connection)

    @override
    async def extend_hold(self, order_id: str, seconds: float) -> bool:
        return await (await self._of_order(order_id)).extend_hold(order_id, seconds)

    @override
    @in_time
    async def check(self, *, replicas: int = 0, strict: bool = False) -> tuple[Finding, ...]:
        wanted = max(check_int("replicas", replicas, 0), self._guarantee.replicas_needed)
        findings: tuple[Finding, ...] = ()
        for link in self._links:
            findings += judge(await link.info(), replicas=wanted, oldest=self._guarantee.oldest)
        findings += tuple(Finding("database", found) for found in store_findings(self.store))
        if strict and findings:
            raise UnsafeServer(findings)
        return findings

    # -- life -------------------------------------------------------------------------------------------------------

    @override
    async def aclose(self) -> None:
        async with AsyncExitStack() as stack:  # closes each of them, whatever another one raises
            for link in self._links:
                stack.push_async_callback(link.close)
            for part in self._parts:
                stack.push_async_callback(part.gate.aclose)
            stack.push_async_callback(self._recorder.aclose)
            for part in self._parts:
                stack.push_async_callback(part._transitions.aclose)

    # -- inside -----------------------------------------------------------------------------------------------------

    @override
    async def _forget(self, *, name: bool = False) -> None:
        for part in reversed(self._parts):
            goods = await part._meta.goods()
            for goods_id in goods:
                await part._link.command("UNLINK", part.keys.transfers(goods_id))
            await part._forget()
        if name:
            for link in self._links:
                await link.command("UNLINK", self.keys.meta)

    async def _of_buyer(self, buyer_id: str, order_id: str | None, goods_id: str, name: str = "order_id") -> Partition:
        """Returns the partition of a buyer, whose order ids begin with it.

        Raises:
            OrderConflict: the order id is of another partition's buyer.
            InvalidRequest: it is of no partition.
        """
        place = self._routes.of_buyer(buyer_id)
        if order_id is not None and self._routes.of_order(order_id, name) != place:
            check_id("buyer_id", buyer_id)
            reason = "begins with another partition than its buyer's: sale.order_id(buyer_id, name) makes it"
            raise OrderConflict(sale=self.name, goods_id=goods_id, order_id=order_id, reason=reason)
        await self._meet(place)
        return self._parts[place]

    @override
    async def _of_order(self, order_id: str, name: str = "order_id") -> Partition:
        place = self._routes.of_order(order_id, name)
        await self._meet(place)
        return self._parts[place]

    async def _meet(self, place: int) -> None:
        """Refuses a sale that was begun with other partitions, once for each server.

        One that does not answer says so when it is asked for something; the number of partitions is in the tag, too.
        """
        server = place % len(self._links)
        if monotonic() < self._asked_at[server] + AGAIN:
            return
        try:
            until = ends_at(MEETING)
            is_right = await spend(until, self._freeze, server, False)  # noqa: FBT003
        except PartitionMismatch:
            raise
        except (NotExecuted, OutcomeUnknown):
            is_right = False
        self._asked_at[server] = max(self._asked_at[server], float("inf") if is_right else monotonic())

    @override
    async def _meet_all(self) -> None:
        for server in range(len(self._links)):
            await self._meet(server)

    async def _begin(self) -> None:
        """Fixes the number of partitions in the database and on each server, and the server's place among them.

        Raises:
            PartitionMismatch: it is another one.
        """
        for error in await self._try_to_begin():
            raise error

    async def _try_to_begin(self) -> list[FlashSaleError]:
        """Does so on each server that answers, and returns the errors of the others."""
        if not self._is_begun:
            await fix_partitions(self.store, self.partitions)
            self._is_begun = True
        errors: list[FlashSaleError] = []
        for server in range(len(self._links)):
            try:
                await self._freeze(server, True)  # noqa: FBT003
            except PartitionMismatch:
                raise
            except (NotExecuted, OutcomeUnknown) as error:
                errors.append(error)
        return errors

    async def _freeze(self, server: int, begins: bool) -> bool:  # noqa: FBT001
        wanted = f"{self.partitions} {len(self._links)} {server}"
        code, stands = await self._links[server].run("freeze", [self.keys.meta], [wanted, int(begins)])
        if code == Code.DIFFERENT:
            raise mismatch(str(stands, "ascii", "replace"))
        return bool(code == Code.DONE)

    async def _everywhere(self, what: str, call: Callable[[Partition], Awaitable[Answer]]) -> list[Answer]:
        """Makes a call to all partitions at once; one that fails stops no other.

        Raises:
            As the call, of the first partition that failed, which is named.
        """
        await self._meet_all()
        answers = await together([partial(call, part) for part in self._parts])
        failed = [(place, error) for place, error in enumerate(answers) if isinstance(error, FlashSaleError)]
        if failed:
            error = failed[0][1]
            error.add_note(f"partitions without {what}: {', '.join(str(place) for place, _ in failed)}")
            raise error
        return [answer for answer in answers if not isinstance(answer, FlashSaleError)]

    @override
    def _partitions(self) -> Sequence[Partition]:
        return self._parts

    @override
    def _gate_of(self, states: Sequence[GateState]) -> GateState:
        return _summed(states)

    @override
    async def _gate_state(self, goods_id: str) -> GateState:
        """Returns the sum of one look at the gates of all partitions, each of which opens by its own clock."""
        await self._meet_all()
        keys = [part.keys.gate(goods_id) for part in self._parts]
        replies = await self._transfers.read("gate_state", keys, is_urgent=True)
        return _summed([part.gate._state(goods_id, reply) for part, reply in zip(self._parts, replies, strict=True)])

    async def _unpaid(self) -> int:
        """Returns how many orders have a payment deadline; 0 only where no partition has one."""
        for part in self._parts:
            if unpaid := await part._ledger.unpaid():
                return unpaid
        return 0

    @override
    async def _bring_row(self, goods: Goods) -> int:
        _, total = await self._transitions.allot(goods)
        for part in self._parts:
            await part.inventory._configure(goods, keep_total=True)
            await part._follow_row(goods, (await part.inventory.stock(goods.goods_id)).total)
        await self._transfers.spread(goods.goods_id)
        return total

    @override
    async def _close(self, epoch: int) -> None:
        for part in self._parts:
            await part._close(epoch)

    @override
    async def _meet_goods(self, goods_id: str) -> None:
        await self._meet_all()
        await self._transfers.look(goods_id)

    @override
    async def _check_known(self, store: AsyncOrderStore | None = None) -> None:
        await self._meet_all()
        await self._parts[0]._check_known(store)


FlashSale._PARTITIONED = PartitionedSale


def _refuse(name: str, *, given: bool) -> None:
    if given:
        raise InvalidRequest(
            name, "a sale over several partitions has its gates beside its stocks, under keys of its own"
        )


def _many(name: str) -> InvalidRequest:
    return InvalidRequest("partitions", f"each of them has its own {name}: use what the sale itself offers")


def _summed(states: Sequence[GateState]) -> GateState:
    """Returns the gates of all partitions as one: it admits while one of them does."""
    first = next((state for state in states if state.outcome is Outcome.ADMITTED), states[0])
    return replace(
        first,
        count=sum(state.count for state in states),
        access=sum(state.access for state in states),
        remaining=sum(state.remaining for state in states),
        may_return=any(state.may_return for state in states),
    )
