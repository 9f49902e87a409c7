"""`Outbox`: whoever was told "accepted" is told how it ended: at least once, and in order."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from flashsale import Event, Goods, InvalidRequest, OrderState, StoreError, StoreRequired
from flashsale._rules.backoff import Backoff, delay_after
from flashsale._sql.engines import DRIVERS, database_url
from flashsale.aio import outbox as source
from tests.support.helpers import Awaited, Shop, clock, inside, order, settled, until
from tests.support.mutants import without

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
        """Opens the sale; the database grants `granted` units, by default all."""
        granted = policy.pop("granted", total)
        stores = importlib.import_module(f"{self.shop.api.__name__}.stores")
        self.store = Awaited(stores.SQLAlchemyStore(self.url, "spring"), self.shop._threads)
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
        desk.shop.raw.hset(desk.shop.keys.meta, "outbox_until", 0)
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


async def test_a_dead_process_is_replaced_when_its_lease_ends(shop: Shop) -> None:
    desk = Desk(shop, f"sqlite:///{shop.database}")
    await desk.open()
    await desk.buy("a")
    await desk.sale.confirm("a")
    control = Awaited(desk.sale._meta, shop._threads)
    assert await control.lead("killed", 30.0, role="outbox") == 1
    assert await desk.tell_all() == 0
    shop.raw.hset(shop.keys.meta, "outbox_until", clock(shop.raw))
    assert await desk.tell_all() == 1


async def test_roles_do_not_disturb_each_other(shop: Shop) -> None:
    sale = await shop.open()
    control = Awaited(sale._meta, shop._threads)
    assert await control.lead("a", 30.0) == 1
    assert await control.lead("b", 30.0, role="outbox") == 1
    assert [await control.lead("a", 30.0), await control.lead("a", 30.0, role="outbox")] == [2, 0]
    assert {b"leader", b"leader_until", b"outbox", b"outbox_until"} <= shop.raw.hgetall(shop.keys.meta).keys()
    assert await control.lead("a", 0.0) == 2
    assert await control.lead("b", 30.0) == 1


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
