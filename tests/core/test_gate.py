"""`Gate`: nobody passes before the start, nor more units than there are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Admission, AlreadyLoaded, GateState, Outcome, UnknownGoods
from flashsale.lua import SCRIPTS
from tests.support.helpers import clock, snapshot, until
from tests.support.mutants import promises

if TYPE_CHECKING:
    from tests.support.helpers import Shop


async def gate(shop: Shop, count: int = 5, **settings: Any) -> Any:
    """A gate that forgets refusals at once, started."""
    settings.setdefault("cache_for", 0)
    opened = shop.gate(**settings)
    await opened.preload("phone", count)
    await opened.start("phone")
    return opened


async def test_preload_makes_a_gate_that_is_shut(shop: Shop) -> None:
    gate = shop.gate()
    await gate.preload("phone", 100)
    names = [shop.keys.count("phone"), shop.keys.start("phone"), shop.keys.access("phone")]
    assert shop.raw.mget(names) == [b"100", b"0", b"0"]
    assert await gate.state("phone") == GateState(count=100, started=False, access=0, remaining=100)
    assert await gate.enter("phone") == Admission(Outcome.NOT_STARTED, 100)


async def test_preload_only_creates(shop: Shop) -> None:
    opened = await gate(shop)
    await opened.enter("phone", 2)
    before = snapshot(shop.raw)
    await opened.preload("phone", 5)
    with pytest.raises(AlreadyLoaded) as caught:
        await opened.preload("phone", 6)
    assert (caught.value.sale, caught.value.goods_id) == ("spring", "phone")
    await opened.resize("phone", 50)
    await opened.preload("phone", 5)  # the same request as at first
    assert snapshot(shop.raw) == before | {shop.keys.count("phone").encode(): (b"string", b"50")}


async def test_enter_counts_units_and_stops_at_the_count(shop: Shop) -> None:
    opened = await gate(shop)
    assert await opened.enter("phone") == Admission(Outcome.ADMITTED, 4)
    assert await opened.enter("phone", 3) == Admission(Outcome.ADMITTED, 1)
    assert await opened.enter("phone", 2) == Admission(Outcome.SOLD_OUT, 1)  # fewer left than asked
    assert (await opened.enter("phone")).admitted
    refused = await opened.enter("phone")
    assert (refused, refused.admitted) == (Admission(Outcome.SOLD_OUT, 0), False)
    assert await opened.state("phone") == GateState(count=5, started=True, access=5, remaining=0)


async def test_access_never_passes_the_count(shop: Shop) -> None:
    opened = await gate(shop, 37)
    asked = [1 + n % 3 for n in range(100)]
    admissions = await asyncio.gather(*(opened.enter("phone", units) for units in asked))
    passed = sum(units for units, admission in zip(asked, admissions, strict=True) if admission.admitted)
    assert passed == (await opened.state("phone")).access
    assert 35 <= passed <= 37  # the last may be too big


async def test_a_slot_left_lets_the_next_one_in(shop: Shop) -> None:
    opened = await gate(shop, 2)
    await opened.enter("phone", 2)
    assert await opened.leave("phone") == 1
    assert (await opened.enter("phone")).admitted
    assert await opened.leave("phone", 5) == 2  # never more than had passed
    assert await opened.leave("phone") == 0
    assert (await opened.state("phone")).access == 0


async def test_start_and_stop_move_the_flag(shop: Shop) -> None:
    opened = await gate(shop)
    await opened.stop("phone")
    assert shop.raw.get(shop.keys.start("phone")) == b"0"
    assert (await opened.enter("phone")).outcome is Outcome.NOT_STARTED
    await opened.start("phone")
    assert (await opened.enter("phone")).admitted


async def test_a_stop_is_immediate_in_the_process_that_stops(shop: Shop) -> None:
    opened = await gate(shop, cache_for=60)
    assert (await opened.enter("phone")).admitted
    await opened.stop("phone")
    assert (await opened.enter("phone")).outcome is Outcome.NOT_STARTED
    await opened.start("phone")
    assert (await opened.enter("phone")).admitted


@pytest.mark.parametrize("flag", ["2", "", "01", "true", " 1"])
async def test_any_flag_but_1_is_shut(shop: Shop, flag: str) -> None:
    opened = await gate(shop)
    shop.raw.set(shop.keys.start("phone"), flag)
    assert (await opened.enter("phone")).outcome is Outcome.NOT_STARTED


async def test_a_external_program_moves_the_flag_and_the_counter(shop: Shop) -> None:
    opened = await gate(shop)
    shop.raw.incrby(shop.keys.access("phone"), 4)
    assert await opened.enter("phone") == Admission(Outcome.ADMITTED, 0)
    shop.raw.incr(shop.keys.access("phone"))  # without a bound, as the article's
    assert await opened.state("phone") == GateState(count=5, started=True, access=6, remaining=0)
    assert (await opened.enter("phone")) == Admission(Outcome.SOLD_OUT, 0)
    shop.raw.set(shop.keys.start("phone"), 0)
    assert (await opened.enter("phone")).outcome is Outcome.NOT_STARTED


async def test_resize_lets_more_in_and_stops_at_what_has_passed(shop: Shop) -> None:
    opened = await gate(shop, 2)
    await opened.enter("phone", 2)
    assert await opened.resize("phone", 5) == 5
    assert await opened.enter("phone") == Admission(Outcome.ADMITTED, 2)
    assert await opened.resize("phone", 1) == 3  # three have passed
    assert await opened.state("phone") == GateState(count=3, started=True, access=3, remaining=0)


async def test_the_clock_of_redis_opens_a_scheduled_gate(shop: Shop) -> None:
    opened = shop.gate(cache_for=0)
    await opened.preload("phone", 5)
    await opened.schedule("phone", opens_at=clock(shop.raw) + 60)
    assert (await opened.enter("phone")).outcome is Outcome.NOT_STARTED
    assert not (await opened.state("phone")).started
    await shop.comes("opens_at")
    assert (await opened.state("phone")).started
    assert (await opened.enter("phone")).admitted
    assert shop.raw.get(shop.keys.start("phone")) == b"1"  # for those who read only the flag


async def test_the_clock_of_redis_ends_a_scheduled_gate(shop: Shop) -> None:
    opened = await gate(shop)
    await opened.schedule("phone", closes_at=clock(shop.raw) + 60)
    assert (await opened.enter("phone")).admitted
    await shop.comes("closes_at")
    assert (await opened.enter("phone")) == Admission(Outcome.ENDED, 4)
    assert not (await opened.state("phone")).started
    await opened.start("phone")
    assert (await opened.enter("phone")).outcome is Outcome.ENDED
    await opened.schedule("phone")
    assert (await opened.enter("phone")).admitted


async def test_a_start_by_hand_waits_for_the_opening(shop: Shop) -> None:
    opened = shop.gate(cache_for=0)
    await opened.preload("phone", 5)
    await opened.schedule("phone", opens_at=clock(shop.raw) + 60)
    await opened.start("phone")
    assert (await opened.enter("phone")).outcome is Outcome.NOT_STARTED


async def test_a_stop_by_hand_outlives_the_opening(shop: Shop) -> None:
    opened = shop.gate(cache_for=0)
    await opened.preload("phone", 5)
    await opened.schedule("phone", opens_at=clock(shop.raw) - 60)
    assert (await opened.state("phone")).started
    await opened.stop("phone")
    assert (await opened.enter("phone")).outcome is Outcome.NOT_STARTED


async def test_goods_never_preloaded_are_unknown(shop: Shop) -> None:
    gate = shop.gate()
    for call in (
        lambda: gate.start("phone"),
        lambda: gate.stop("phone"),
        lambda: gate.resize("phone", 5),
        lambda: gate.schedule("phone", opens_at=1),
        lambda: gate.enter("phone"),
        lambda: gate.leave("phone"),
        lambda: gate.state("phone"),
    ):
        with pytest.raises(UnknownGoods) as caught:
            await call()
        assert isinstance(caught.value, LookupError)
        assert (caught.value.sale, caught.value.goods_id) == ("spring", "phone")
    assert shop.raw.keys("*") == []


async def test_unknown_goods_in_a_shared_call_fail_alone(shop: Shop) -> None:
    opened = await gate(shop)
    asked = ["phone", "nothing"] * 10
    answers = await asyncio.gather(*(opened.enter(goods_id) for goods_id in asked), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Admission, UnknownGoods] * 10
    assert (await opened.state("phone")).access == 5


async def test_load_scripts_puts_every_script_on_the_server(shop: Shop) -> None:
    shop.raw.script_flush()
    shas = await shop.gate().load_scripts()
    assert sorted(shas) == sorted(script.sha for script in SCRIPTS.values())
    assert all(shop.raw.script_exists(*shas))


async def test_calls_survive_the_loss_of_the_script_cache(shop: Shop) -> None:
    opened = await gate(shop)
    for _ in range(3):
        shop.raw.script_flush()
        assert (await opened.enter("phone")).admitted


async def test_cancelled_callers_cost_no_slot(real_shop: Shop) -> None:
    """A caller who goes away while the answer is under way: its slot returns. A thread cannot be cancelled."""
    if not real_shop.is_async:
        pytest.skip("a thread cannot be cancelled")
    shop = real_shop
    opened = await gate(shop, 50)
    for hops in range(8):
        tasks = [asyncio.create_task(opened.enter("phone")) for _ in range(20)]
        for _ in range(hops):  # later and later on the way
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        held = sum(isinstance(answer, Admission) and answer.admitted for answer in answers)
        await until(lambda: int(shop.raw.get(shop.keys.access("phone"))) == held, "the slots back")  # noqa: B023
        if held:
            await opened.leave("phone", held)


@promises(
    {
        "the bound of the gate": test_access_never_passes_the_count,
        "the flag of the gate": test_start_and_stop_move_the_flag,
        "the window of the gate": test_the_clock_of_redis_ends_a_scheduled_gate,
        "the schedule of the gate": test_the_clock_of_redis_opens_a_scheduled_gate,
    },
)
async def test_without_its_mechanism_the_promise_fails(sync_shop: Shop, promise: Any) -> None:
    await promise(sync_shop)
