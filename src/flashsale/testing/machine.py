"""A Hypothesis state machine that runs a whole sale through your own view, and checks Redis and database after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashsale._rules.ledger_record import Record
from flashsale._sync.overview import Overview
from flashsale._sync.sale import FlashSale
from flashsale._sync.store import OrderStore
from flashsale._sync.syncer import Syncer
from flashsale._sync.worker import Worker
from flashsale.clients import Client
from flashsale.errors import NotExecuted, OutcomeUnknown
from flashsale.model import RELEASED, Goods, OrderState, Outcome
from flashsale.testing.crashes import boundaries
from flashsale.testing.sales import memory_store, temporary_sale

_BOOKED = {Outcome.ACCEPTED, Outcome.UNCERTAIN}


class _Request(NamedTuple):
    """What was asked for under one order id."""

    goods_id: str
    buyer_id: str
    quantity: int


class BadLine:
    """Loses the request of this number, from 0, and the next one; `sent`: only their replies."""

    def __init__(self, first: int, *, sent: bool) -> None:
        self._left = first
        self._sent = sent

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        """Makes the call, or loses it."""
        if not self._loses(name):
            return call()
        self._check_sent()
        call()
        raise OutcomeUnknown("the reply was lost")

    def _loses(self, name: str) -> bool:
        if name.startswith("store."):
            return False
        self._left -= 1
        return self._left in {-1, -2}

    def _check_sent(self) -> None:
        if not self._sent:
            raise NotExecuted("lost on the way")


class SaleMachine(RuleBasedStateMachine):
    """One sale, bought from through your view. Override `place`, `cancel` and `pay`; pytest collects its `TestCase`.

        class ShopMachine(SaleMachine):
            def set_up(self):
                self.web = create_app(self.sale).test_client()

            def place(self, goods_id, buyer_id, quantity, order_id): ...

        TestShop = ShopMachine.TestCase

    After every step: no more units are sold than are for sale, Redis agrees with what the buyers were told, and one
    order id is one order. At the end the worker empties the queue, and Redis and the database agree order by order.

    For an asyncio view there is `AsyncSaleMachine`.

    Attributes:
        sale: the sale of this run; it answers no refusal from memory.
        goods: the items for sale.
        buyers: who buys.
        quantities: the units that a buyer may ask for in your view.
        partitions: over how many the sale is spread; then order ids are those of `sale.order_id(buyer_id, order_id)`.
    """

    sale: FlashSale
    goods: ClassVar[tuple[Goods, ...]] = (Goods("phone", 4, per_buyer=3), Goods("case", 6))
    buyers: ClassVar[tuple[str, ...]] = ("ann", "bob", "eve")
    quantities: ClassVar[tuple[int, ...]] = (1, 2)
    partitions: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._failed = False
        self._paused = False
        self._requests: dict[str, _Request] = {}  # by the order id that the view was given
        self._told: dict[str, Outcome | None] = {}  # by the order id of the sale; None: an error, so nobody knows
        self._known: dict[str, _Request] = {}  # likewise
        self._monitor = self._open()
        for part in self._monitor._partitions():
            part.gate.load_scripts()  # so that a purchase is one request from the start
        self._overview = Overview(self._monitor)
        self._worker, self._syncer = Worker(self._monitor), Syncer(self._monitor)
        self._begin()

    # -- what you override ------------------------------------------------------------------------------------------

    def place(self, goods_id: str, buyer_id: str, quantity: int, order_id: str) -> Outcome | None:
        """Sends a purchase through your view; `order_id` is 32 hexadecimal digits, the same when a buyer asks again.

        Returns:
            What the buyer was told; None when it was an error.
        """
        raise NotImplementedError

    def cancel(self, order_id: str) -> None:
        """Cancels an order of the sale (`name`) through your view, whatever it answers."""
        raise NotImplementedError

    def pay(self, order_id: str) -> None:
        """Pays for an order of the sale (`name`) through your view, whatever it answers."""
        raise NotImplementedError

    def name(self, buyer_id: str, order_id: str) -> str:
        """Returns the order id that your view makes of the one it was given."""
        return self.sale.order_id(buyer_id, order_id)

    def set_up(self) -> None:
        """Called when `sale` is open: build your app around it."""

    def make_client(self) -> Client:
        """Returns a client of the Redis to play on; a new fake one unless you say otherwise."""
        import fakeredis  # noqa: PLC0415 - needs an extra

        client = fakeredis.FakeRedis()
        self._stack.callback(client.close)
        return client

    def make_store(self, sale: str) -> OrderStore:
        """Returns the store of the sale of this name; SQLite in memory unless you say otherwise."""
        return memory_store(sale)

    # -- the rules --------------------------------------------------------------------------------------------------

    @rule(draw=st.data())
    def purchase(self, draw: st.DataObject) -> None:
        """A buyer asks for something."""
        with self._step():
            self._place(f"{len(self._requests) + 1:032x}", self._draw_request(draw))

    @rule(draw=st.data(), first=st.sampled_from([0, 0, 0, 1, 2]), sent=st.booleans())
    def purchase_over_a_bad_line(self, draw: st.DataObject, first: int, sent: bool) -> None:  # noqa: FBT001 - drawn
        """Two requests in a row, or their replies, are lost: the retry that the sale makes by itself, too."""
        with self._step():
            line = partial(boundaries, self.sale, self._bad_line(first, sent=sent))
            self._place(f"{len(self._requests) + 1:032x}", self._draw_request(draw), line)

    @precondition(lambda self: self._requests)
    @rule(draw=st.data())
    def ask_again(self, draw: st.DataObject) -> None:
        """A double click, a reload, a retry after an error."""
        with self._step():
            order_id = draw.draw(st.sampled_from(sorted(self._requests)))
            self._place(order_id, self._requests[order_id])

    @precondition(lambda self: self._requests)
    @rule(draw=st.data())
    def use_an_old_id(self, draw: st.DataObject) -> None:
        """Another request under an id that was used before."""
        with self._step():
            self._place(draw.draw(st.sampled_from(sorted(self._requests))), self._draw_request(draw))

    @precondition(lambda self: self._known)
    @rule(draw=st.data(), paid=st.booleans())
    def decide(self, draw: st.DataObject, paid: bool) -> None:  # noqa: FBT001 - drawn
        """An order is paid for, or cancelled."""
        with self._step():
            order_id = draw.draw(st.sampled_from(sorted(self._known)))
            self._finish((self.pay if paid else self.cancel)(order_id))
            self._is_decided_in_both(order_id)

    @precondition(lambda self: self._queued())
    @rule()
    def work(self) -> None:
        """A worker settles a batch."""
        with self._step():
            self._worker.run_once()

    @rule()
    def sync(self) -> None:
        """The syncer makes a pass."""
        with self._step():
            self._syncer.run_once()

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:  # noqa: FBT001 - drawn
        """The shop pauses the sale, or goes on."""
        with self._step():
            self._monitor.pause() if paused else self._monitor.resume()
            self._paused = paused

    @rule(draw=st.data(), units=st.integers(-3, 3))
    def restock(self, draw: st.DataObject, units: int) -> None:
        """Units are added, or taken away."""
        with self._step():
            self._monitor.restock(draw.draw(st.sampled_from(self.goods)).goods_id, units)

    # -- what must be true ------------------------------------------------------------------------------------------

    @invariant()
    def sale_agrees_with_what_was_told(self) -> None:
        """Order by order, and unit by unit."""
        with self._step():
            records = self._overview.records(self._known)
            for order_id, told in self._told.items():
                record = records.get(order_id)
                if told in _BOOKED:
                    assert record, f"order {order_id} was accepted, and the sale does not know it"
                elif told is not None:
                    assert record is None, f"order {order_id} was refused with {told}, and the sale has it"
                if record:
                    found = _Request(record.goods_id, record.buyer_id, record.quantity)
                    assert found == self._known[order_id], f"order {order_id} is not what was asked for"
            active = [record for record in records.values() if record.state not in RELEASED]
            for goods in self.goods:
                held = sum(record.quantity for record in active if record.goods_id == goods.goods_id)
                stock, gate = self._overview.stock(goods.goods_id), self._overview.gate(goods.goods_id)
                assert held <= stock.total, f"oversold: {held} of {stock.total} {goods.goods_id}"
                assert stock.booked == held, f"{stock.booked} {goods.goods_id} are booked, {held} belong to orders"
                assert gate.access >= held, f"{held - gate.access} {goods.goods_id} were sold past the gate"

    def teardown(self) -> None:
        """Lets worker and syncer finish, and compares Redis with the database."""
        with self._stack:
            if not self._failed:
                self._finish_and_compare()

    def _finish_and_compare(self) -> None:
        while self._queued():
            self._worker.run_once()
        self._syncer.run_once()
        self.sale_agrees_with_what_was_told()
        audit = self._syncer.audit([order_id for order_id, told in self._told.items() if told in _BOOKED])
        assert audit.ok, f"Redis and the database disagree: {audit}"
        states = {order_id: record.state for order_id, record in self._overview.records(self._known).items()}
        assert OrderState.QUEUED not in states.values(), f"not settled: {states}"
        assert self._monitor.store is not None
        assert self._monitor.store.states(list(self._known)) == states, "the rows are not the orders"

    def _is_decided_in_both(self, order_id: str) -> None:
        assert self._monitor.store is not None
        row = self._monitor.store.states([order_id]).get(order_id)
        record = self._overview.record(order_id)
        ledger = record.state if record else None
        assert row in {None, ledger}, f"Redis and the database disagree: order {order_id} is {ledger}, its row {row}"

    # -- inside: what `AsyncSaleMachine` does differently -------------------------------------------------------

    _bad_line: ClassVar[type[BadLine]] = BadLine

    def _open(self) -> FlashSale:
        """Opens `sale`, and returns a blocking sale of the same name, to check it by."""
        settings: dict[str, Any] = {"cache_for": 0, "partitions": self.partitions}
        opened = temporary_sale(self.make_client(), self.goods, store=self.make_store, **settings)
        self.sale = self._stack.enter_context(opened)
        return self.sale

    def _begin(self) -> None:
        self.set_up()

    def _finish(self, given: Any) -> Any:
        """Returns what one of your methods has returned."""
        return given

    # -- inside -----------------------------------------------------------------------------------------------------

    def _queued(self) -> int:
        return sum(part.queue.size() for part in self._monitor._partitions())

    @contextmanager
    def _step(self) -> Iterator[None]:
        failed_before, self._failed = self._failed, True
        yield
        self._failed = failed_before

    def _draw_request(self, draw: st.DataObject) -> _Request:
        goods = draw.draw(st.sampled_from(self.goods))
        buyer_id = draw.draw(st.sampled_from(self.buyers))
        return _Request(goods.goods_id, buyer_id, draw.draw(st.sampled_from(self.quantities)))

    def _place(
        self, order_id: str, request: _Request, line: Callable[[], AbstractContextManager[None]] | None = None
    ) -> None:
        """Sends a request through the view, over a `line` that may be bad, and checks the answer."""
        name = self.name(request.buyer_id, order_id)
        records = self._overview.records({name, *self._known})
        reasons = self._reasons(request, records)
        self._requests.setdefault(order_id, request)
        with line() if line else nullcontext():
            answer: Outcome | None = self._finish(self.place(*request, order_id))
        if name in records and self._known[name] != request:
            assert answer is None, f"another request under the id {name} was answered {answer}"
            return
        assert answer is not None or line, f"order {name} was answered with an error, and nothing was wrong"
        if name in records:
            assert answer in _BOOKED, f"order {name} exists, and the buyer who asked again was told {answer}"
        elif answer is not None:
            right = reasons or _BOOKED
            assert answer in right, f"order {name} was answered {answer}; right is {' or '.join(right)}"
        self._known[name], self._told[name] = request, answer

    def _reasons(self, request: _Request, records: Mapping[str, Record]) -> set[Outcome]:
        """Returns why a new order for this would be refused."""
        (cap,) = (goods.per_buyer for goods in self.goods if goods.goods_id == request.goods_id)
        held = sum(
            record.quantity
            for record in records.values()
            if (record.goods_id, record.buyer_id) == request[:2] and record.state not in RELEASED
        )
        gate, stock = self._overview.gate(request.goods_id), self._overview.stock(request.goods_id)
        left = min(gate.remaining, stock.remaining)
        reasons = {
            Outcome.PAUSED: self._paused,
            Outcome.LIMIT_REACHED: cap is not None and held + request.quantity > cap,
            Outcome.SOLD_OUT: request.quantity > left,
        }
        return {outcome for outcome, applies in reasons.items() if applies}
