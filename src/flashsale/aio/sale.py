"""`FlashSale`: a whole sale, which puts gate, inventory, queue and store together under one name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any, ClassVar, Self

from flashsale._rules.deadline import TIMEOUT
from flashsale._rules.durability import Durability, Guarantee
from flashsale._rules.ledger_record import Record
from flashsale._rules.observer import Notifier, Observer
from flashsale._rules.partitions import MAX_PARTITIONS
from flashsale._rules.refusal_cache import OPEN
from flashsale._rules.server_check import Finding, judge
from flashsale._rules.signatures import signed_as
from flashsale._rules.tickets import Tickets
from flashsale.aio.clients import Client
from flashsale.aio.gate import ONE, Gate
from flashsale.aio.inventory import Inventory
from flashsale.aio.ledger import Ledger
from flashsale.aio.order_queue import OrderQueue
from flashsale.aio.purchases import Purchases
from flashsale.aio.recorder import Recorder
from flashsale.aio.sale_state import SaleMeta
from flashsale.aio.store import AsyncOrderStore, check_known, joined, refuse_purged, store_findings
from flashsale.aio.ticketing import Ticketing
from flashsale.aio.transitions import Transitions
from flashsale.aio.transport.component import MAX_WAITING
from flashsale.aio.transport.link import Link
from flashsale.aio.transport.runtime import in_time, spend
from flashsale.aio.transport.topology import Nodes
from flashsale.aio.transport.waiting import Callers
from flashsale.aio.view_cache import ViewCache
from flashsale.errors import InvalidRequest, InvalidTicket, OutcomeUnknown, StoreRequired, UnknownGoods, UnsafeServer
from flashsale.keys import Keys
from flashsale.lua import Slot
from flashsale.model import Admission, BasketReceipt, GateState, Goods, OrderState, Receipt, order_of, receipt_of
from flashsale.model.checks import (
    MAX_UNITS,
    check_id,
    check_int,
    check_quantity,
    check_sale,
    check_seconds,
    new_order_id,
)

_TAKE, _HELD = Slot.TAKE, Slot.HELD  # looking a member up in its enum costs as much as the rest of a refusal


class FlashSale:
    """Sells a limited stock, exactly once, under hundreds of times the usual traffic.

    The policy of each item (total, cap, window, hold) lives in the database and in Redis; the arguments are settings of
    this process. Make one per process and event loop, and share it.

    Args:
        client: a redis-py asyncio client of the primary that holds the stock; we copy its settings, with retries off.
            With partitions: of a Cluster, or a list of clients, one for each of several primaries.
        sale: name of the sale: 1-64 of `A-Z a-z 0-9 _ . -`.
        gate_client: a client of the Redis that holds the gate, when it is another one.
        gate_replica: a client of a replica of the gate.
        store: the host's database; needed to cancel and confirm, and by `Worker` and `Syncer`.
        keys: the key layout; `PlainKeys()` for the article's bare names.
        cache_for: seconds for which a refusal is answered from the process.
        max_waiting: callers that may wait in this process, in whatever call, before `Overloaded` is raised.
        timeout: seconds within which each call ends, whatever it waits for; one request to Redis is given up after 45 %
            of it, or after the client's `socket_timeout` where that is shorter.
        observer: metrics and tracing.
        durability: where an order must be before `buy` says ACCEPTED; else it says UNCERTAIN.
        replicas: with `Durability.REPLICATED`: how many replicas must have it.
        durable_within: seconds to wait for that; a shorter `socket_timeout` of the client's ends it earlier.
        tickets: signs and reads the tickets of `enter`.
        partitions: over how many the sale is spread, 1..256; they are fixed once it was loaded. See docs/partitions.md.

    Raises:
        InvalidRequest: an argument breaks the contract.
        StoreRequired: `Durability.PERSISTED` without a store.
    """

    partitions = 1
    _PARTITIONED: ClassVar[type[FlashSale]]  # sells over several; aio/partitions/sale.py names it
    _PURCHASES = Purchases
    _new_order_id = staticmethod(new_order_id)

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
        if check_int("partitions", partitions, 1, MAX_PARTITIONS) != 1:
            raise InvalidRequest("partitions", "a class of your own has one")
        if isinstance(client, Sequence) and not isinstance(client, Nodes):  # they are a tuple
            raise InvalidRequest("client", "a list is for a sale over several partitions: say how many")
        self.name = check_sale(sale)
        self.keys = (keys or Keys()).of(sale)
        self._timeout = check_seconds("timeout", timeout, low=0.1)
        callers = Callers(check_int("max_waiting", max_waiting, 1))
        self._link = client if isinstance(client, Link) else Link(client, callers, timeout=timeout)
        self._one_redis = gate_client is None or gate_client is client
        self._gate_link = self._link
        if gate_client is not None and gate_client is not client:
            self._gate_link = Link(gate_client, callers, timeout=timeout)
        self.gate = Gate(self._gate_link, sale, replica=gate_replica, keys=self.keys, cache_for=cache_for)
        self._remember_together()
        self._refusals = self.gate._refusals
        self.inventory = Inventory(self._link, sale, keys=self.keys)
        self.queue = OrderQueue(self._link, sale, keys=self.keys)
        tally = self.gate._tally
        self._ledger = Ledger(self._link, self.keys, gate_here=self._one_redis, tally=tally)
        self._meta = SaleMeta(self._link, self.keys)
        self._recorder = self._make_recorder()
        self._is_known = False
        self.store = store
        self._notifier = Notifier(observer)
        self._transitions = Transitions(self.gate, self.inventory, self._ledger, store)
        self._guarantee = Guarantee(
            durability, replicas=replicas, within=durable_within, socket_timeout=self._link.socket_timeout
        )
        durability = self._guarantee.durability
        if durability is Durability.PERSISTED and store is None:
            raise StoreRequired("durability PERSISTED")
        self._ticketing = Ticketing(self.gate, self._meta, self._ledger, self._transitions, tickets, self._new_order_id)
        self._ticket_required = tickets is not None and tickets.required
        self._view_cache = ViewCache(self._gate_state, self._ledger.unpaid, cache_for)
        self._purchases = self._PURCHASES(
            self.gate,
            self.inventory,
            self._ledger,
            self._transitions,
            self._notifier,
            self._guarantee,
            one_redis=self._one_redis,
        )

    @signed_as(__init__)
    def __new__(cls, *_: Any, partitions: int = 1, **__: Any) -> Self:
        """Makes a sale over several partitions where these are asked for."""
        kind = cls._PARTITIONED if cls is FlashSale and partitions != 1 else cls
        return object.__new__(kind)  # type: ignore[return-value]

    def order_id(self, buyer_id: str, name: str | None = None) -> str:
        """Returns an order id for a buyer, before the order is made: for hosts that name their orders themselves.

        Args:
            buyer_id: who.
            name: the host's name of the order, which no other order of the buyer has; None: one that nobody can guess.

        Returns:
            The name, behind two digits that say which partition has the buyer, where the sale has several.
        """
        check_id("buyer_id", buyer_id)
        return self._new_order_id() if name is None else check_id("name", name)

    # -- before the sale --------------------------------------------------------------------------------------------

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
        """Creates stock and gate of one item, shut; the same call again changes nothing.

        With a store, the `Syncer` does this from the database.

        Args:
            goods_id: which item.
            total: units for sale.
            per_buyer: most units one buyer may hold.
            opens_at: epoch seconds when the Redis clock starts the item; None: `start` does.
            closes_at: epoch seconds when it ends.
            hold: seconds to pay after the order was persisted.

        Raises:
            AlreadyLoaded: it exists with other values.
            InvalidRequest: an argument breaks the contract, or the database knows that the sale was purged.
        """
        await refuse_purged(self.store, self.name)
        await self.inventory.preload(
            goods_id, total, per_buyer=per_buyer, opens_at=opens_at, closes_at=closes_at, hold=hold
        )
        await self.gate.preload(goods_id, total, opens_at=opens_at, closes_at=closes_at, per_buyer=per_buyer)

    @in_time
    async def start(self, goods_id: str) -> None:
        """Sets the gate's start flag to 1.

        Raises:
            UnknownGoods: never preloaded.
        """
        await self.gate.start(goods_id)

    @in_time
    async def stop(self, goods_id: str) -> None:
        """Sets the gate's start flag to 0, at once.

        Raises:
            UnknownGoods: never preloaded.
        """
        await self.gate.stop(goods_id)

    @in_time
    async def pause(self) -> None:
        """Pauses the whole sale: every purchase is answered PAUSED until `resume`.

        Raises:
            UnknownGoods: no item was ever preloaded.
        """
        await self._set_paused(paused=True)

    @in_time
    async def resume(self) -> None:
        """Ends a pause.

        Raises:
            UnknownGoods: no item was ever preloaded.
        """
        await self._set_paused(paused=False)

    # -- during the sale --------------------------------------------------------------------------------------------

    @in_time
    async def enter(self, goods_id: str, buyer_id: str, quantity: int = 1, *, order_id: str | None = None) -> Admission:
        """Lets a buyer pass the gate, and gives out a ticket: the right to try for a while, not a reservation.

        A slot whose ticket is not used in time returns with the Syncer. `stop` ends the giving of tickets; `pause`
        stops those that are out as well.

        Of an item with a cap a buyer has one live ticket at a time: until it is used or has expired by the Redis clock,
        entering again returns a ticket for the same order, and takes no slot. After that there is a new one. More units
        than the cap are LIMIT_REACHED; what the buyer has bought already, only `buy` counts.

        Args:
            goods_id: what.
            buyer_id: who.
            quantity: the most units.
            order_id: what the order will be called; None: we make an id that nobody can guess.

        Returns:
            The gate's answer and, when ADMITTED, the ticket that `buy` takes.

        Raises:
            As `Gate.enter`; `InvalidRequest` also when the sale has no `tickets`, and when the buyer has a live ticket
            for another quantity or order id.
        """
        return await self._ticketing.enter(goods_id, buyer_id, quantity, order_id)

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
        """Buys: gate, window, cap, stock, ledger and queue. Asking twice with one `order_id` is asking once.

        After `OutcomeUnknown` ask again with the error's `order_id`: the ledger is asked before gate and window, so the
        order is found even when the last unit is gone. One such retry is made here already.

        Args:
            goods_id: what.
            buyer_id: who; 1-128 printable ASCII characters without spaces.
            quantity: units, 1..1,000,000.
            order_id: names the request: repeating an accepted one returns its receipt with `replayed=True`, a refused
                one is decided anew. None: we make one that nobody can guess.
            data: any JSON value of the host's that goes with the order to the database.
            ticket: from `enter`; the gate was passed then, and the order id is the ticket's. Where `Tickets` are
                `required`, nobody buys without one.

        Returns:
            The receipt; sold out is an answer, not an exception.

        Raises:
            InvalidRequest: an argument breaks the contract; `InvalidTicket` when the ticket admits to something else.
            UnknownGoods: never preloaded, or lost.
            OrderConflict: the order id is taken by other content.
            OutcomeUnknown: sent, no reply.
            NotExecuted: nothing happened; `Overloaded` when too many callers wait in this process.
            CorruptState: what Redis holds of this item cannot be trusted.
        """
        refusal, now = OPEN, monotonic()
        if ticket is not None:
            shown = (ticket, goods_id, buyer_id, quantity, order_id)
            order_id = await spend(now + self._timeout, self._ticketing.check, *shown)
        elif self._ticket_required:
            raise InvalidTicket("is missing")
        elif order_id is None:
            try:
                refusal = self._refusals.by_goods[goods_id]
            except (KeyError, TypeError):  # TypeError: an id that cannot be hashed; the checks will say so
                refusal = OPEN
            if now < refusal.fresh_until and data is None and type(goods_id) is str:
                check_id("buyer_id", buyer_id)
                if quantity is not ONE:
                    check_quantity(quantity)
                refusal.given += 1
                outcome, remaining = refusal.admission.outcome, refusal.admission.remaining
                if self._notifier.observed:
                    self._notifier.outcome(goods_id, outcome)
                return receipt_of((outcome, self._new_order_id(), goods_id, quantity, remaining, False, None))
        order = order_of(self._new_order_id() if order_id is None else order_id, goods_id, buyer_id, quantity, data)
        slot = _TAKE if ticket is None else _HELD
        until = now + self._timeout
        return await self._purchases.buy(order, slot, until, named=order_id is not None, refusal=refusal)

    @in_time
    async def buy_basket(
        self, buyer_id: str, items: Iterable[tuple[str, int]], *, basket_id: str | None = None, data: Any = None
    ) -> BasketReceipt:
        """Buys several items, all or none, in one script. Asking twice with one `basket_id` is asking once.

        Args:
            buyer_id: who.
            items: `goods_id` and units of each; the same item twice is summed before cap and stock are checked. At most
                50 items.
            basket_id: names the request, 1-120 printable ASCII characters; its orders are `<basket_id>#1`, `#2`, ...
                by `goods_id`. None: we make one.
            data: any JSON value of the host's that goes with each order.

        Returns:
            One receipt for the basket and one for each order.

        Raises:
            As `buy`; `OrderConflict` when the basket id is taken by another basket; `InvalidTicket` where `Tickets` are
            `required`: a basket takes none.
        """
        if self._ticket_required:
            raise InvalidTicket("is missing: a basket takes none")
        return await self._purchases.buy_basket(
            self._new_order_id() if basket_id is None else basket_id, buyer_id, items, data, named=basket_id is not None
        )

    @in_time
    async def view(self, goods_id: str) -> GateState:
        """Returns what a product page shows: whether a buyer may pass, how many units are left, and the times.

        One reading of the gate serves the callers of this process for `cache_for` seconds.

        Raises:
            UnknownGoods: never preloaded.
        """
        return await self._view_cache.get(goods_id)

    # -- after the sale ---------------------------------------------------------------------------------------------

    @in_time
    async def status(self, order_id: str) -> OrderState | None:
        """Returns where an order stands, from Redis in one read; None when the ledger does not know it.

        Whoever knows the id may ask: let the host check that the order is the buyer's, or use unguessable ids.

        Raises:
            UnknownSale: neither Redis nor the database knows the sale; so does whatever moves an order or a sale.
            NotExecuted: Redis lost what it knew, and a rebuild may bring the order back; so does what moves an order.
        """
        record = await self._ledger.get(order_id) or await self._look_again(order_id)
        return record.state if record else None

    @in_time
    async def cancel(self, order_id: str, *, connection: Any = None) -> OrderState | None:
        """Cancels an order, paid or not: the database decides, then its units, allowance and slot return, once.

        When the database has decided, its state is returned, also while Redis does not answer: the syncer brings it
        there.

        Args:
            order_id: which order.
            connection: yours, with your transaction: `AsyncConnection` or `AsyncSession` of SQLAlchemy, or Django's
                connection. All statements go over it, and are committed with it or never. What is returned
                stands if you commit; then Redis follows. The item's row stays locked until then.

        Returns:
            The current state: CANCELLED, or another if it was final before; None for an unknown id.

        Raises:
            InvalidRequest: the connection is none of the store's database, or has no transaction.
            StoreRequired: the sale has no store.
            StoreError: the database did not answer; ask again. With `connection`: nothing was done; roll back first.
        """
        return await self._settle(order_id, OrderState.CANCELLED, connection)

    @in_time
    async def confirm(self, order_id: str, *, connection: Any = None) -> OrderState | None:
        """Confirms that an order is paid.

        Args:
            order_id: which order.
            connection: yours, with your transaction; as in `cancel`.

        Returns:
            The current state: CONFIRMED, or what was final before; None for an unknown id.

        Raises:
            InvalidRequest: as in `cancel`.
            NotPersisted: the row is not in the database yet; ask again.
            StoreRequired: the sale has no store.
            StoreError: the database did not answer; ask again. With `connection`: nothing was done; roll back first.
        """
        return await self._settle(order_id, OrderState.CONFIRMED, connection)

    @in_time
    async def cancel_basket(self, basket_id: str, *, connection: Any = None) -> dict[str, OrderState | None]:
        """Cancels every order of a basket; a second call finishes what a crash left.

        Args:
            basket_id: which basket.
            connection: yours, with your transaction; as in `cancel`.

        Returns:
            The current state, by order id; empty for an unknown basket.
        """
        return await self._settle_basket(basket_id, OrderState.CANCELLED, connection)

    @in_time
    async def confirm_basket(self, basket_id: str, *, connection: Any = None) -> dict[str, OrderState | None]:
        """Confirms that every order of a basket is paid.

        Args:
            basket_id: which basket.
            connection: yours, with your transaction; as in `cancel`.

        Returns:
            The current state, by order id; empty for an unknown basket.
        """
        return await self._settle_basket(basket_id, OrderState.CONFIRMED, connection)

    @in_time
    async def extend_hold(self, order_id: str, seconds: float) -> bool:
        """Gives a buyer who is paying more time: the deadline is at least `seconds` from now, by the Redis clock.

        Returns:
            False when it is too late, or the order has no deadline: not persisted yet, paid, released, or no hold.
        """
        extended = await self._ledger.extend_hold(order_id, check_seconds("seconds", seconds, low=0.001))
        if not extended:
            await self._look_again(order_id)
        return extended

    @in_time
    async def restock(self, goods_id: str, units: int, request_id: str | None = None) -> int:
        """Adds units to an item on sale, or takes some away, never below what is booked.

        Raising goes database, inventory, gate; lowering inventory, database, gate, so that the guard never refuses an
        order that the stock accepted.

        Args:
            goods_id: which item.
            units: to add; negative: to take away.
            request_id: names the request; asking twice with one id is asking once. Without it a restock whose answer
                was lost cannot be made again.

        Returns:
            The current total, in units; with a request id the total that this request set in the database. When the
            database has it and Redis does not answer, the database's total: the syncer brings it to Redis.

        Raises:
            InvalidRequest: the request id belongs to another restock, the store keeps no request ids, or the sale was
                purged.
            OutcomeUnknown: no reply; `retry_safe` where the request has an id.
            StoreRequired: the sale has no store.
            StoreError: the database did not answer, or has no row of this item.
            UnknownGoods: never preloaded.
        """
        if self.store is None:
            raise StoreRequired("to restock")
        check_int("units", units, -MAX_UNITS)
        if request_id is not None:
            check_id("request_id", request_id)
        try:
            await self._meet_goods(goods_id)
            return await self._transitions.restock(goods_id, units, request_id)
        except UnknownGoods:
            await self._check_known()
            raise
        except OutcomeUnknown as error:
            error.retry_safe = request_id is not None
            raise

    @in_time
    async def check(self, *, replicas: int = 0, strict: bool = False) -> tuple[Finding, ...]:
        """Looks at the servers' settings before a sale: eviction, persistence, replicas, version; the store's engine.

        Args:
            replicas: how many replicas the stock should have; at least those that `durability` waits for.
            strict: True: raise when anything is found.

        Returns:
            What was found; empty when all is well.

        Raises:
            UnsafeServer: something was found, and `strict`.
        """
        wanted = max(check_int("replicas", replicas, 0), self._guarantee.replicas_needed)
        findings = judge(await self._link.info(), replicas=wanted, oldest=self._guarantee.oldest)
        findings += tuple(Finding("database", found) for found in store_findings(self.store))
        if strict and findings:
            raise UnsafeServer(findings)
        return findings

    async def _forget(self, *, name: bool = False) -> None:  # noqa: ARG002 - for partitions
        """Removes every key of the sale from Redis, settled or not; `Syncer.purge` asks first.

        Args:
            name: also that the name has stood for a number of partitions; `purge` leaves it.
        """
        goods = await self._meta.goods()
        await self.gate._forget(goods)
        await self._recorder.forget(goods)
        stocks = [key for goods_id in goods for key in (self.keys.stock(goods_id), self.keys.buyers(goods_id))]
        await self._link.command("UNLINK", *stocks, *self.keys._of_sale())

    # -- life -------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Closes our connections; the host's stay."""
        async with AsyncExitStack() as stack:  # closes each of them, whatever another one raises
            stack.push_async_callback(self._link.close)
            if not self._one_redis:
                stack.push_async_callback(self._gate_link.close)
            stack.push_async_callback(self.gate.aclose)
            stack.push_async_callback(self._recorder.aclose)
            stack.push_async_callback(self._transitions.aclose)  # the first to end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _remember_together(self) -> None:
        """Lets several gates share what they remember and count; one has its own."""

    def _make_recorder(self) -> Recorder:
        gate = self.gate
        return Recorder(self._link, self._gate_link, self.keys, self._meta, gate._tally, gate._refusals)

    async def _meet_all(self) -> None:
        """Refuses a sale that was begun with other partitions; the scripts of one with one do."""

    def _partitions(self) -> Sequence[FlashSale]:
        """Returns the sales that keep orders and units: this one, where it has no partitions."""
        return (self,)

    async def _of_order(self, order_id: str) -> FlashSale:
        """Returns the one of these that an order is of."""
        check_id("order_id", order_id)
        return self

    def _gate_of(self, states: Sequence[GateState]) -> GateState:
        """Returns the gates of these as one."""
        return states[0]

    async def _gate_state(self, goods_id: str) -> GateState:
        return self._gate_of([await part.gate.state(goods_id) for part in self._partitions()])

    async def _bring_row(self, goods: Goods) -> int:
        """Brings the row of an item to stock and gate, as the syncer does; returns the current total, in units."""
        total = await self._transitions.adjust(goods, await self.inventory.stock(goods.goods_id))
        await self._follow_row(goods, total)
        return total

    async def _follow_row(self, goods: Goods, total: int) -> None:
        """Makes the gate follow the stock: count, window and cap."""
        goods_id, cap = goods.goods_id, goods.per_buyer
        booked = (await self.inventory.stock(goods_id)).booked
        await self.gate._ensure(goods_id, total, opens_at=goods.opens_at, closes_at=goods.closes_at, per_buyer=cap)
        paused = (await self._meta.state()).state != "open"
        await self.gate._mirror(goods_id, total, booked, paused=paused, per_buyer=cap, stock_here=self._one_redis)

    async def _close(self, epoch: int) -> None:
        """Begins an epoch, in which nothing is sold until a rebuild opens it."""
        await self._meta.close(epoch)

    async def _meet_goods(self, goods_id: str) -> None:
        """Refuses an unknown item, and a sale that this release cannot read, before the database is touched."""
        await self.inventory.stock(goods_id)
        await self._ledger.meet()

    async def _settle(self, order_id: str, state: OrderState, connection: Any) -> OrderState | None:
        store = None if connection is None else await joined(self.store, connection)
        current = await self._transitions.settle(order_id, state, store)
        if current is None:
            await self._check_known(store)
        return current

    async def _settle_basket(self, basket_id: str, state: OrderState, connection: Any) -> dict[str, OrderState | None]:
        store = None if connection is None else await joined(self.store, connection)
        order_ids = await self._purchases.basket(basket_id, store)
        if not order_ids:
            await self._look_again(basket_id, store)
        return await self._transitions.settle_each(order_ids, state, store)

    async def _look_again(self, name: str, store: AsyncOrderStore | None = None) -> Record | None:
        """Returns the record of an order that was not found a moment ago, if there is one by now.

        Raises:
            UnknownSale: neither Redis nor the database knows the sale.
            NotExecuted: a rebuild may bring the order back.
        """
        await self._check_known(store)
        look = await self._ledger.look(name)
        look.require_whole(name)
        return look.record

    async def _check_known(self, store: AsyncOrderStore | None = None) -> None:
        """Refuses a sale that neither Redis nor the database knows.

        Raises:
            UnknownSale: it is misspelt, most likely.
        """
        if not self._is_known and not await self._meta.is_known():
            await check_known(store or self.store, self.name)
        self._is_known = True  # once is enough: a name that was right stays right

    async def _set_paused(self, *, paused: bool) -> None:
        goods = await self._meta.goods()  # first: who may not list them is refused before anything is written
        try:
            await self._meta.pause(paused=paused)
        except UnknownGoods:
            await self._check_known()
            raise
        for goods_id in goods:
            await self.gate._mirror_pause(goods_id, paused=paused)
        self.gate._refusals.forget()
