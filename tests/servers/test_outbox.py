"""`Outbox`: whoever was told "accepted" is told how it ended: at least once, and in order."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from sqlalchemy import create_engine, text

from flashsale import Event, Goods, InvalidRequest, OrderState, StoreError, StoreRequired
from flashsale._rules.backoff import Backoff, delay_after
from flashsale._sql.engines import DRIVERS, database_url
from flashsale.aio import outbox as source
from tests.support.helpers import Awaited, Shop, clock, inside, order, settled, until
from tests.support.mutants import kills, promises, without

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUED, PERSISTED, CONFIRMED = OrderState.QUEUED, OrderState.PERSISTED, OrderState.CONFIRMED
CANCELLED, EXPIRED, REJECTED = OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED


class Desk:
    """A sale with a database, and a host that writes down what it is told."""

    def __init__(self, shop: Shop, url: str) -> None:
        self.shop = shop
        self.url = url
        self.told: list[Event] = []

    async def open(self, total: int = 100, **policy: Any) -> None:
        """Opens the sale; the database grants `granted` units, by default all; `events` is the store's."""
        granted = policy.pop("granted", total)
        chosen = {name: policy.pop(name) for name in ("events",) if name in policy}
        stores = importlib.import_module(f"{self.shop.api.__name__}.stores")
        self.store = Awaited(stores.SQLAlchemyStore(self.url, "spring", **chosen), self.shop._threads)
        self.shop._opened.append(self.store)
        await self.store.create_all()
        await self.store.put_goods(Goods("phone", granted, **policy))
        self.sale = await self.shop.open(total, sale=self.shop.sale(store=self.store), **policy)

    async def buy(self, *names: str, persist: bool = True) -> None:
        for name in names:
            assert (await self.sale.buy("phone", f"buyer-of-{name}", order_id=name)).accepted
        if persist:
            await self.shop.worker(self.sale).run_once()

    async def expire(self, *names: str) -> None:
        """Lets the payment deadlines of these orders pass."""
        self.shop.raw.zadd(self.shop.keys.holds, dict.fromkeys(names, 1), xx=True)
        await self.shop.syncer(self.sale).run_once()

    def outbox(self, act: Callable[[Event], Any] | None = None, **kwargs: Any) -> Awaited:
        """Returns an outbox whose handler writes the event down, then does `act`."""

        def handle(event: Event) -> None:
            self.told.append(event)
            if act:
                act(event)

        async def ahandle(event: Event) -> None:
            self.told.append(event)
            if act:
                await settled(act(event))

        return self.shop.make("Outbox", self.sale, ahandle if self.shop.is_async else handle, **kwargs)

    async def tell_all(self, outbox: Awaited | None = None) -> int:
        outbox = outbox or self.outbox()
        total = 0
        while delivered := await outbox.run_once():
            total += delivered
        return total

    def moves(self) -> list[tuple[str, OrderState, OrderState]]:
        return [(event.order.order_id, event.previous, event.state) for event in self.told]

    def sql(self, statement: str) -> list[Any]:
        engine = create_engine(database_url(self.url, DRIVERS))
        with engine.begin() as connection:
            answer = connection.execute(text(statement))
            rows = list(answer) if answer.returns_rows else []
        engine.dispose()
        return rows

    def waiting(self) -> int:
        return self.sql("SELECT count(*) FROM flashsale_events")[0][0]

    def let_time_pass(self) -> None:
        """Makes every event due that waits."""
        self.sql("UPDATE flashsale_events SET due_at = 0 WHERE due_at IS NOT NULL")


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, real_shop: Shop) -> Desk:
    if request.param == "sqlite":
        return Desk(real_shop, f"sqlite:///{real_shop.database}")
    return Desk(real_shop, request.getfixturevalue("fresh_postgres_url"))


# -- what is told ---------------------------------------------------------------------------------------------------


async def test_a_life_is_told_in_its_order(desk: Desk) -> None:
    await desk.open(hold=900)
    await desk.buy("paid", "left", "back")
    await desk.sale.confirm("paid")
    await desk.sale.confirm("back")
    await desk.sale.cancel("back")
    await desk.expire("left")
    assert await desk.tell_all() == 4
    assert sorted(desk.moves()) == [
        ("back", CONFIRMED, CANCELLED),
        ("back", PERSISTED, CONFIRMED),
        ("left", PERSISTED, EXPIRED),
        ("paid", PERSISTED, CONFIRMED),
    ]
    back = [event for event in desk.told if event.order.order_id == "back"]
    assert [event.is_refund for event in back] == [False, True]
    assert back[0].order.content == ("phone", "buyer-of-back", 1)
    assert desk.waiting() == 0


async def test_persisting_tells_nobody(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a", "b")
    assert (await desk.tell_all(), desk.waiting()) == (0, 0)


EVERY = "PERSISTED, CONFIRMED, CANCELLED, EXPIRED, REJECTED"


async def test_each_saved_order_is_told_first_if_the_store_says_so(desk: Desk) -> None:
    await desk.open(5, granted=3, events=EVERY, hold=900)
    await desk.buy("gone", persist=False)
    await desk.sale.cancel("gone")
    await desk.buy("back", "left", "paid", "late", persist=False)
    await desk.shop.worker(desk.sale).run_once()
    await desk.store.save([row.order for row in await desk.store.orders()])  # again: it was told
    await desk.sale.confirm("back")
    await desk.sale.cancel("back")
    await desk.expire("left")
    await desk.tell_all()
    lives: dict[str, list[tuple[OrderState, OrderState]]] = {}
    for name, *move in desk.moves():
        lives.setdefault(name, []).append(tuple(move))
    assert lives == {
        "back": [(QUEUED, PERSISTED), (PERSISTED, CONFIRMED), (CONFIRMED, CANCELLED)],
        "left": [(QUEUED, PERSISTED), (PERSISTED, EXPIRED)],
        "paid": [(QUEUED, PERSISTED)],
        "late": [(QUEUED, REJECTED)],
        "gone": [(QUEUED, CANCELLED)],
    }


async def test_a_saved_order_and_its_event_are_one_transaction(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StoreError("the database failed")

    await desk.open(events=EVERY)
    with monkeypatch.context() as patch:
        patch.setattr(desk.store.real, "insert_events", fail)
        with pytest.raises(StoreError):
            await desk.store.save([order("a")])
    assert await desk.store.states(["a"]) == {}
    await desk.store.save([order("a")])
    await desk.tell_all()
    assert desk.moves() == [("a", QUEUED, PERSISTED)]


@kills("the event of a saved order in its transaction")
async def test_a_crash_between_row_and_event_loses_it(sync_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(sync_shop, f"sqlite:///{sync_shop.database}")
    await test_a_saved_order_and_its_event_are_one_transaction(desk, monkeypatch)


async def test_a_host_may_do_without_some_events_or_all(desk: Desk) -> None:
    await desk.open(events=[CANCELLED])
    await desk.buy("a")
    await desk.sale.confirm("a")
    await desk.sale.cancel("a")
    await desk.tell_all()
    assert [(*move, event.is_refund) for move, event in zip(desk.moves(), desk.told, strict=True)] == [
        ("a", CONFIRMED, CANCELLED, True)
    ]
    await desk.open(events=())
    await desk.buy("b")
    await desk.sale.cancel("b")
    assert desk.waiting() == 0


@pytest.mark.parametrize("events", ["PERSISTED;CONFIRMED", ["QUEUED"], [None], [[]], 7])
def test_events_are_states_that_have_some(events: Any) -> None:
    for api in ("flashsale", "flashsale.aio"):
        with pytest.raises(InvalidRequest) as caught:
            importlib.import_module(f"{api}.stores").SQLAlchemyStore("sqlite:///x.db", "spring", events=events)
        assert caught.value.field == "events"


async def test_whom_the_guard_refuses_is_told(desk: Desk) -> None:
    await desk.open(3, granted=1)
    await desk.buy("a", "b", "c")
    assert await desk.tell_all() == 2
    assert {move[1:] for move in desk.moves()} == {(QUEUED, REJECTED)}


async def test_cancelled_before_the_row_is_told_once(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a", persist=False)
    await desk.sale.cancel("a")
    await desk.shop.worker(desk.sale).run_once()
    await desk.tell_all()
    assert desk.moves() == [("a", QUEUED, CANCELLED)]


async def test_a_external_order_without_units_is_told(desk: Desk) -> None:
    await desk.open(1)
    await desk.buy("a", persist=False)
    await desk.sale.queue.push(order("external"))
    await desk.shop.worker(desk.sale).run_once()
    await desk.tell_all()
    assert desk.moves() == [("external", QUEUED, REJECTED)]


async def test_eight_cancels_at_once_are_one_event_each(desk: Desk) -> None:
    await desk.open()
    names = [f"o-{n}" for n in range(10)]
    await desk.buy(*names)
    await asyncio.gather(*(desk.sale.cancel(name) for name in names for _ in range(8)))
    assert await desk.tell_all() == 10
    assert sorted(desk.moves()) == [(name, PERSISTED, CANCELLED) for name in names]


async def test_paying_against_expiring_tells_what_became_of_it(desk: Desk) -> None:
    await desk.open(hold=900)
    names = [f"o-{n}" for n in range(10)]
    await desk.buy(*names)
    await asyncio.gather(desk.expire(*names), *map(desk.sale.confirm, names))
    await desk.tell_all()
    assert {name: state for name, _, state in desk.moves()} == await desk.store.states(names)
    assert len(desk.told) == 10


async def test_a_move_that_rolls_back_is_not_told(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a")
    desk.sql("UPDATE flashsale_goods SET booked = 0")  # the last statement of the transaction finds nothing to return
    with pytest.raises(StoreError):
        await desk.sale.cancel("a")
    assert desk.waiting() == 0
    desk.sql("UPDATE flashsale_goods SET booked = 1")
    await desk.sale.cancel("a")
    await desk.tell_all()
    assert desk.moves() == [("a", PERSISTED, CANCELLED)]


# -- a handler that fails -------------------------------------------------------------------------------------------


async def test_a_failure_is_tried_again_later_and_others_go_on(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.open()
    await desk.buy("bad", "good")
    for name in ("bad", "good"):
        await desk.sale.confirm(name)
        await desk.sale.cancel(name)

    def act(event: Event) -> None:
        if event.order.order_id == "bad" and event.state is CONFIRMED and event.attempts < 2:
            raise ValueError(f"no such buyer: {event.order.buyer_id}")

    outbox = desk.outbox(act)
    assert await desk.tell_all(outbox) == 2
    assert desk.moves() == [
        ("bad", PERSISTED, CONFIRMED),
        ("good", PERSISTED, CONFIRMED),
        ("good", CONFIRMED, CANCELLED),
    ]
    desk.let_time_pass()
    assert await outbox.run_once() == 0
    desk.let_time_pass()
    assert await desk.tell_all(outbox) == 2
    assert [(event.state, event.attempts) for event in desk.told if event.order.order_id == "bad"] == [
        (CONFIRMED, 0),
        (CONFIRMED, 1),
        (CONFIRMED, 2),
        (CANCELLED, 0),
    ]
    assert caplog.text.count("ValueError") == 2
    assert "buyer" not in caplog.text


@kills("the first event of an order")
async def test_without_its_mechanism_the_next_event_comes_first(
    sync_shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(sync_shop, f"sqlite:///{sync_shop.database}")
    await test_a_failure_is_tried_again_later_and_others_go_on(desk, caplog)


async def test_the_delay_grows(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    outbox = desk.outbox(lambda _: 1 / 0)
    for attempt in range(4):
        desk.let_time_pass()
        before = clock(desk.shop.raw)
        await outbox.run_once()
        ((due_at,),) = desk.sql("SELECT due_at FROM flashsale_events")
        whole = source.FIRST_DELAY * 2**attempt
        assert before + whole / 2 <= due_at <= clock(desk.shop.raw) + whole


async def test_a_dead_event_is_visible_and_blocks_nobody_until_it_is_requeued(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    await desk.sale.cancel("a")
    works = False

    def act(event: Event) -> None:
        if event.state is CONFIRMED and not works:
            raise RuntimeError

    outbox = desk.outbox(act, max_attempts=3)
    for _ in range(5):
        await outbox.run_once()
        desk.let_time_pass()
    assert [event.state for event in desk.told] == [CONFIRMED] * 3 + [CANCELLED]
    (dead,) = await outbox.dead()
    assert (dead.order.order_id, dead.state, dead.attempts) == ("a", CONFIRMED, 3)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    works = True
    assert await outbox.requeue_dead() == 1
    assert await outbox.dead() == []
    assert await desk.tell_all(outbox) == 1
    assert desk.waiting() == 0


async def test_a_handler_of_the_other_kind_loses_no_event(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")

    class Later:
        def __await__(self):
            yield from ()
            return self

    async def ahandle(_: Event) -> Later:
        return Later()

    handler = ahandle if desk.shop.is_async else lambda _: Later()
    with pytest.raises(InvalidRequest):
        await desk.shop.make("Outbox", desk.sale, handler).run_once()
    assert await desk.tell_all() == 1


async def test_a_plain_function_tells_once_in_asyncio_too(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    told: list[Event] = []
    outbox = desk.shop.make("Outbox", desk.sale, told.append)
    assert await desk.tell_all(outbox) == len(told) == 1
    assert desk.waiting() == 0


# -- crashes --------------------------------------------------------------------------------------------------------


async def test_a_crash_after_the_handler_tells_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(_: Any) -> None:
        raise Killed

    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    await desk.sale.cancel("a")
    with monkeypatch.context() as patch:
        patch.setattr(desk.store.real, "delivered", killed)
        with pytest.raises(Killed):
            await desk.outbox().run_once()
    await desk.tell_all()
    assert [event.state for event in desk.told] == [CONFIRMED, CONFIRMED, CANCELLED]
    assert len({event.event_id for event in desk.told}) == 2


async def test_a_crash_in_the_handler_counts_no_attempt(desk: Desk) -> None:
    class Killed(BaseException):
        pass

    def act(_: Event) -> None:
        raise Killed

    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    with pytest.raises(Killed):
        await desk.outbox(act).run_once()
    await desk.tell_all()
    assert [event.attempts for event in desk.told] == [0, 0]


async def test_a_database_that_does_not_answer_is_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    tries = []

    def down(_: Any) -> None:
        tries.append(1)
        if len(tries) == 2:
            monkeypatch.undo()
        raise StoreError("the database failed")

    monkeypatch.setattr(desk.store.real, "delivered", down)
    stop, running = running_outbox(desk, desk.outbox())
    await until(lambda: desk.waiting() == 0, "the event is delivered")
    stop.set()
    await running
    assert len(desk.told) == 3


# -- who acts, and for how long -------------------------------------------------------------------------------------


def running_outbox(desk: Desk, outbox: Awaited) -> tuple[Any, asyncio.Task[None]]:
    stop = asyncio.Event() if desk.shop.is_async else threading.Event()
    return stop, asyncio.create_task(outbox.run(stop))


async def test_one_of_two_acts(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a", "b")
    await desk.sale.confirm("a")
    await desk.sale.confirm("b")
    second = desk.outbox()
    seconds_count: list[int] = []

    async def later() -> None:
        seconds_count.append(await second.real.run_once())

    def act(_: Event) -> Any:
        return later() if desk.shop.is_async else seconds_count.append(second.real.run_once())

    assert await desk.tell_all(desk.outbox(act)) == 2
    assert seconds_count == [0, 0]
    assert len(desk.told) == 2


async def taken_over(desk: Desk) -> list[tuple[str, int]]:
    """Returns whom two outboxes told when the first sleeps longer than its lease, in the middle of a page."""
    await desk.open()
    await desk.buy("a", "b")
    for name in ("a", "b"):
        await desk.sale.confirm(name)
        await desk.sale.cancel(name)
    told: list[tuple[str, int]] = []
    second = desk.outbox(lambda event: told.append(("second", event.event_id)))

    async def sleep_too_long() -> None:
        desk.shop.raw.hdel(desk.shop.keys.meta, "outboxes")  # its lease has ended
        while await settled(second.real.run_once()):
            pass

    def act(event: Event) -> Any:
        told.append(("first", event.event_id))
        if desk.shop.is_async:
            return sleep_too_long()
        with asyncio.Runner() as runner:
            runner.run(sleep_too_long())
        return None

    await desk.outbox(act).run_once()
    return told


async def test_who_was_replaced_meanwhile_stops(desk: Desk) -> None:
    told = await taken_over(desk)
    assert [who for who, _ in told] == ["first"] + ["second"] * 4


@without("who was replaced stops")
async def test_without_its_mechanism_the_order_is_lost(desk: Desk) -> None:
    told = await taken_over(desk)
    assert [who for who, _ in told][-1] == "first", "an old event after a newer one of the same order"


# -- several side by side -------------------------------------------------------------------------------------------


class Fleet:
    """Outboxes that share the slots, each a token."""

    def __init__(self, desk_or_shop: Shop, sale: Awaited) -> None:
        self.shop = desk_or_shop
        self.meta = Awaited(sale._meta, self.shop._threads)

    async def share(self, token: str, lease: float = 30.0, **busy: bool) -> tuple[int, int]:
        """Returns how many slots it kept and how many it took."""
        codes = await self.meta.share(token, lease, source.SLOTS, **busy)
        assert len(codes) == source.SLOTS
        return codes.count(2), codes.count(1)

    async def settle(self, *tokens: str) -> list[int]:
        """Returns how many each has, once all have come, given up what is too much, and taken what is free."""
        for token in (*tokens, *tokens):
            await self.share(token)
        return [sum(await self.share(token)) for token in tokens]

    def kill(self, token: str) -> None:
        """Lets the lease of a process end."""
        leases = self.shop.raw.hget(self.shop.keys.meta, "outboxes").decode().split()
        leases[leases.index(token) + 1] = "1.5"
        self.shop.raw.hset(self.shop.keys.meta, "outboxes", " ".join(leases))


async def test_outboxes_share_the_slots_fairly(shop: Shop) -> None:
    fleet = Fleet(shop, await shop.open())
    assert await fleet.share("a") == (0, 64)
    assert await fleet.share("b") == (0, 0)  # none is taken from one that lives
    assert await fleet.share("a") == (32, 0)
    assert await fleet.share("b") == (0, 32)
    assert await fleet.share("b") == (32, 0)
    assert sorted(await fleet.settle("a", "b", "c")) == [21, 21, 22]
    assert sorted(await fleet.settle("a", "b", "c", "d", "e")) == [12, 13, 13, 13, 13]


async def test_more_outboxes_than_slots_have_one_each_at_most(sync_shop: Shop) -> None:
    fleet = Fleet(sync_shop, await sync_shop.open())
    assert sorted(await fleet.settle(*map(str, range(65)))) == [0] + [1] * 64


async def test_slots_stay_as_they_are_while_an_event_is_handled(shop: Shop) -> None:
    fleet = Fleet(shop, await shop.open())
    await fleet.share("a")
    await fleet.share("b")
    assert await fleet.share("a", busy=True) == (64, 0)
    assert await fleet.share("a") == (32, 0)
    assert await fleet.share("b", busy=True) == (0, 0)
    assert await fleet.share("b") == (0, 32)


async def test_who_leaves_or_dies_is_replaced(shop: Shop) -> None:
    fleet = Fleet(shop, await shop.open())
    await fleet.settle("a", "b", "c")
    assert await fleet.share("c", 0.0) == (0, 0)
    assert await fleet.settle("a", "b") == [32, 32]
    fleet.kill("a")
    assert await fleet.share("b") == (32, 32)
    assert await fleet.share("a") == (0, 0)  # it slept
    shop.raw.hset(shop.keys.meta, "outboxes", f"b {clock(shop.raw) + 3600:.6f}")  # the clock was set back
    assert await fleet.share("a") == (0, 64)


async def test_who_slept_and_was_not_replaced_goes_on(shop: Shop) -> None:
    fleet = Fleet(shop, await shop.open())
    await fleet.share("a")
    fleet.kill("a")
    assert await fleet.share("a") == (64, 0)


@pytest.mark.parametrize("field", ["outbox_until", "outboxes", "outbox_slots"])
async def test_what_others_wrote_into_the_lease_stops_nobody(shop: Shop, field: str) -> None:
    fleet = Fleet(shop, await shop.open())
    await fleet.share("a")
    shop.raw.hset(shop.keys.meta, field, b"\xff x nan - 1e999 " * 50)
    assert sum(await fleet.share("a")) == 64


async def test_the_release_before_and_this_one_do_not_act_together(shop: Shop) -> None:
    """It has one lease for everything: field `outbox`, a token of its own."""
    fleet, meta = Fleet(shop, await shop.open()), shop.keys.meta
    await fleet.settle("a", "b")
    assert shop.raw.hget(meta, "outbox") == b"shared"  # of which the release before is not the owner
    assert clock(shop.raw) < float(shop.raw.hget(meta, "outbox_until")) <= clock(shop.raw) + 30
    now = clock(shop.raw)
    shop.raw.hset(meta, mapping={"outbox": "before", "outbox_until": f"{now + 30:.6f}"})  # they slept, and it took over
    assert [await fleet.share("a"), await fleet.share("b", busy=True)] == [(0, 0), (0, 0)]
    shop.raw.hset(meta, "outbox_until", f"{now:.6f}")
    assert await fleet.share("a") == (0, 32)  # nothing was kept: the other one has acted meanwhile
    for token in "ab":
        await fleet.share(token, 0.0)
    assert float(shop.raw.hget(meta, "outbox_until")) <= clock(shop.raw)  # and it may act again


@promises(
    {
        "one outbox for a slot": test_outboxes_share_the_slots_fairly,
        "a fair share of the slots": test_outboxes_share_the_slots_fairly,
        "an event that is handled keeps its slot": test_slots_stay_as_they_are_while_an_event_is_handled,
        "the slots of a dead outbox": test_who_leaves_or_dies_is_replaced,
        "the longest lease of an outbox": test_who_leaves_or_dies_is_replaced,
        "the outbox of the release before": test_the_release_before_and_this_one_do_not_act_together,
    }
)
async def test_without_its_mechanism_slots_are_shared_wrongly(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)


async def test_four_side_by_side_tell_each_event_once_and_in_order(desk: Desk) -> None:
    await desk.open(events=EVERY)
    told: list[tuple[int, str, int]] = []

    def outbox(number: int) -> Awaited:
        return desk.outbox(lambda event: told.append((number, event.order.order_id, event.event_id)), interval=0.02)

    running = [running_outbox(desk, outbox(number)) for number in range(4)]
    tokens = lambda: set((desk.shop.raw.hget(desk.shop.keys.meta, "outbox_slots") or b"").split())  # noqa: E731
    await until(lambda: len(tokens() - {b"-"}) == 4, "all four have slots")
    names = [f"o-{number}" for number in range(60)]
    await desk.store.save([order(name) for name in names])
    for state in (CONFIRMED, CANCELLED):
        await desk.store.settle_many([order(name) for name in names], state)
    await until(lambda: desk.waiting() == 0, "everything is told", every=0.1)
    for stop, _ in running:
        stop.set()
    await asyncio.gather(*(task for _, task in running))
    assert {number for number, _, _ in told} == {0, 1, 2, 3}
    assert len(told) == 180
    for name in names:
        assert len({number for number, each, _ in told if each == name}) == 1
        ids = [event_id for _, each, event_id in told if each == name]
        assert ids == sorted(set(ids))
    assert tokens() == {b"-"}


async def test_it_finds_its_events_behind_those_of_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside(desk.shop.api, "outbox"), "PAGE", 1)
    await desk.open()
    fleet = Fleet(desk.shop, desk.sale)
    await fleet.share("other")  # it keeps the first half
    mine = next(name for name in map(str, range(999)) if crc32(name.encode()) % source.SLOTS >= 32)
    others = [name for name in map(str, range(999)) if crc32(name.encode()) % source.SLOTS < 32][:20]
    await desk.buy(*others, mine)
    for name in (*others, mine):
        await desk.sale.cancel(name)
    outbox = desk.outbox()
    monkeypatch.setattr(outbox.real, "_leave", _nothing if desk.shop.is_async else lambda: None)
    assert await outbox.run_once() == 0
    assert sum(await fleet.share("other")) == 32
    assert await outbox.run_once() == 1
    assert [event.order.order_id for event in desk.told] == [mine]


async def _nothing() -> None: ...


async def slow_handler(desk: Desk) -> int:
    """Returns what a second outbox tells while the first one's handler takes longer than a lease."""
    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    second = desk.outbox()

    async def wait() -> int:
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            await asyncio.sleep(0.05)
        return await settled(second.real.run_once())

    meanwhile: list[int] = []

    def act(_: Event) -> Any:
        if desk.shop.is_async:
            return later()
        meanwhile.append(asyncio.run(wait()))
        return None

    async def later() -> None:
        meanwhile.append(await wait())

    first = desk.outbox(act)
    first.real._LEASE = 0.3
    assert await first.run_once() == 1
    return meanwhile[0]


async def test_a_handler_may_take_longer_than_the_lease(real_shop: Shop) -> None:
    assert await slow_handler(Desk(real_shop, f"sqlite:///{real_shop.database}")) == 0


@without("the renewal while an event is handled")
async def test_without_the_renewal_an_event_is_handled_twice(sync_shop: Shop) -> None:
    assert await slow_handler(Desk(sync_shop, f"sqlite:///{sync_shop.database}")) == 1


async def test_stopped_it_finishes_the_event_and_leaves_the_rest(desk: Desk) -> None:
    await desk.open()
    await desk.buy("a", "b", "c")
    for name in "abc":
        await desk.sale.confirm(name)
    stops: list[Any] = []
    outbox = desk.outbox(lambda _: stops[0].set())
    stop, running = running_outbox(desk, outbox)
    stops.append(stop)
    await running
    assert (len(desk.told), desk.waiting()) == (1, 2)
    assert await desk.tell_all() == 2


async def test_running_it_tells_everything_without_waiting_between_pages(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside(desk.shop.api, "outbox"), "PAGE", 3)
    await desk.open()
    names = [f"o-{n}" for n in range(10)]
    await desk.buy(*names)
    for name in names:
        await desk.sale.confirm(name)
        await desk.sale.cancel(name)
    started = time.monotonic()
    stop, running = running_outbox(desk, desk.outbox(interval=60.0))
    await until(lambda: desk.waiting() == 0, "everything is told")
    stop.set()
    await running
    assert time.monotonic() - started < 60
    for name in names:
        assert [state for other, _, state in desk.moves() if other == name] == [CONFIRMED, CANCELLED]


async def test_it_needs_a_store_and_sensible_numbers(shop: Shop) -> None:
    sale = shop.sale()
    with pytest.raises(StoreRequired):
        shop.make("Outbox", sale, print)
    sale = shop.sale(store=await shop.store())
    for wrong in ({"interval": 0}, {"max_attempts": 0}, {"max_attempts": 1.5}):
        with pytest.raises(InvalidRequest):
            shop.make("Outbox", sale, print, **wrong)
    with pytest.raises(InvalidRequest):
        await shop.make("Outbox", sale, print).dead(0)


# -- waiting --------------------------------------------------------------------------------------------------------


def test_delays_double_up_to_a_cap() -> None:
    for failures, whole in ((1, 5), (2, 10), (3, 20), (6, 160), (7, 200), (10**6, 200)):
        assert whole / 2 <= delay_after(failures, 5, 200) <= whole
    backoff = Backoff(1.0, 4.0)
    for whole in (1, 2, 4, 4):
        assert whole / 2 <= backoff.next() <= whole
    backoff.reset()
    assert backoff.next() <= 1


def test_however_long_the_outage_was_it_is_over_in_half_a_second() -> None:
    backoff, told = Backoff(), []
    for _ in range(1000):
        assert backoff.next() <= 0.5
        told.append(backoff.is_news)
    assert told == [True, *[False] * 9] * 100
