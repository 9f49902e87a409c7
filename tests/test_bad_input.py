"""Whatever comes from outside, or lies in Redis: a typed error, and not a byte of Redis changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flashsale import (
    CorruptState,
    FlashSaleError,
    Goods,
    InvalidRequest,
    Order,
    OrderConflict,
    OrderState,
    Outcome,
    PlainKeys,
    Receipt,
)
from flashsale.lua import SCRIPTS
from tests.helpers import mutate, order, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers import Shop

BAD_QUANTITIES = [
    -1, 0, 1_000_001, 10**30, 10**400, 1.5, 1.0, float("nan"), float("inf"), True, False, None, b"1", [1], {},
    "1", "0x10", "1e2", " 5", "5 ", "-1", "١", "１",
]  # fmt: skip
BAD_NAMES = [
    "", "}", "{", ":", "a:b", "a b", " a", "a\n", "\n", "a/b", "\0", "a\0", "\ud800", "é", "١", "*", "%", "x" * 65,
    None, 1, True, b"phone", ["phone"], {},
]  # fmt: skip
BAD_IDS = ["", " ", "a b", "a\n", "\n", "\t", "\0", "\x7f", "\ud800", "é", "١", "x" * 129, None, 1, True, b"a", [1], {}]
BAD_SECONDS = [-1, -0.001, float("nan"), float("inf"), 10**12, 10**400, True, "1", b"1", [1]]
BAD_COUNTS = [-1, 10**15, 10**30, 10**400, 1.5, 1.0, float("nan"), True, None, "1", b"1", [1]]


def shown(value: Any) -> str:
    return ascii(value)[:20]


async def stocked(shop: Shop) -> Any:
    """A sale in the middle: an order queued, one claimed, a direct unit, a slot taken."""
    sale = await shop.open(10, store=True, per_buyer=5)
    await sale.inventory.reserve([order("claimed"), order("queued")])
    await sale.queue.claim(1, lease=600)
    await sale.inventory.deduct("phone")
    await sale.gate.enter("phone")
    return sale


async def nothing_happens(shop: Shop, *calls: Callable[[], Any]) -> None:
    """Every call raises InvalidRequest, and Redis stays as it was."""
    before = snapshot(shop.raw)
    for number, call in enumerate(calls):
        with pytest.raises(InvalidRequest) as caught:
            await call()
            pytest.fail(f"call {number} was taken")
        assert isinstance(caught.value, ValueError)
        assert caught.value.field
    assert snapshot(shop.raw) == before


# -- rows 29 and 31: what callers give ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_QUANTITIES, ids=shown)
async def test_bad_quantities_are_refused_everywhere(shop: Shop, bad: Any) -> None:
    sale = await stocked(shop)
    await nothing_happens(
        shop,
        lambda: sale.buy("phone", "ann", bad),
        lambda: sale.buy("phone", "ann", bad, order_id="claimed"),
        lambda: sale.gate.enter("phone", bad),
        lambda: sale.gate.leave("phone", bad),
        lambda: sale.inventory.deduct("phone", bad),
        lambda: sale.inventory.release("phone", bad),
        lambda: sale.queue.push(Order("o", "phone", "ann", bad)),
        lambda: sale.inventory.reserve([order(), Order("o", "phone", "ann", bad)]),
    )


@pytest.mark.parametrize("bad", BAD_NAMES, ids=shown)
async def test_bad_goods_ids_are_refused_everywhere(shop: Shop, bad: Any) -> None:
    sale = await stocked(shop)
    await nothing_happens(
        shop,
        lambda: sale.buy(bad, "ann"),
        lambda: sale.preload(bad, 5),
        lambda: sale.start(bad),
        lambda: sale.stop(bad),
        lambda: sale.gate.preload(bad, 5),
        lambda: sale.gate.start(bad),
        lambda: sale.gate.stop(bad),
        lambda: sale.gate.resize(bad, 5),
        lambda: sale.gate.schedule(bad, opens_at=1.0),
        lambda: sale.gate.enter(bad),
        lambda: sale.gate.leave(bad),
        lambda: sale.gate.state(bad),
        lambda: sale.inventory.preload(bad, 5),
        lambda: sale.inventory.deduct(bad),
        lambda: sale.inventory.release(bad),
        lambda: sale.inventory.stock(bad),
        lambda: sale.inventory.reserve([Order("o", bad, "ann", 1)]),
    )
    with pytest.raises(InvalidRequest):
        Goods(bad, 5)


@pytest.mark.parametrize("bad", BAD_NAMES, ids=shown)
async def test_bad_names_of_a_sale_are_refused(shop: Shop, bad: Any) -> None:
    client = shop.client()
    for part in ("FlashSale", "Gate", "Inventory", "OrderQueue"):
        with pytest.raises(InvalidRequest):
            shop.part(part, client, bad)


@pytest.mark.parametrize("bad", BAD_IDS, ids=shown)
async def test_bad_ids_of_orders_and_buyers_are_refused(shop: Shop, bad: Any) -> None:
    sale = await stocked(shop)
    calls = [
        lambda: sale.buy("phone", bad),
        lambda: sale.status(bad),
        lambda: sale.cancel(bad),
        lambda: sale.confirm(bad),
        lambda: sale.inventory.reserve([Order(bad, "phone", "ann", 1)]),
        lambda: sale.queue.push(Order("o", "phone", bad, 1)),
    ]
    if bad is not None:  # there it means: make one
        calls.append(lambda: sale.buy("phone", "ann", order_id=bad))
    await nothing_happens(shop, *calls)


@pytest.mark.parametrize("bad", BAD_COUNTS, ids=shown)
async def test_bad_totals_are_refused(shop: Shop, bad: Any) -> None:
    sale = await stocked(shop)
    await nothing_happens(
        shop,
        lambda: sale.preload("case", bad),
        lambda: sale.gate.preload("case", bad),
        lambda: sale.gate.resize("phone", bad),
        lambda: sale.inventory.preload("case", bad),
        lambda: sale.inventory.preload("case", 5, booked=bad),
    )
    if bad is not None:  # there it means: no cap
        await nothing_happens(shop, lambda: sale.preload("case", 5, per_buyer=bad))


@pytest.mark.parametrize("bad", BAD_SECONDS, ids=shown)
async def test_bad_times_are_refused(shop: Shop, bad: Any) -> None:
    sale = await stocked(shop)
    claims = await sale.queue.claim()
    await nothing_happens(
        shop,
        lambda: sale.preload("case", 5, opens_at=bad),
        lambda: sale.preload("case", 5, closes_at=bad),
        lambda: sale.preload("case", 5, hold=bad),
        lambda: sale.inventory.preload("case", 5, opens_at=bad),
        lambda: sale.gate.schedule("phone", opens_at=bad),
        lambda: sale.gate.schedule("phone", closes_at=bad),
        lambda: sale.queue.pop(bad),
        lambda: sale.queue.claim(lease=bad),
        lambda: sale.queue.claim(timeout=bad),
        lambda: sale.queue.nack(claims, delay=bad),
        lambda: sale.queue.extend(claims, lease=bad),
        lambda: sale.inventory.reserve([order(created_at=bad)]),
    )
    for part in ("FlashSale", "Gate"):
        with pytest.raises(InvalidRequest):
            shop.part(part, shop.client(), "spring", cache_for=bad)
    with pytest.raises(InvalidRequest):
        shop.worker(sale, lease=bad)
    with pytest.raises(InvalidRequest):
        shop.syncer(sale, interval=bad)


async def test_values_that_contradict_each_other_are_refused(shop: Shop) -> None:
    sale = await stocked(shop)
    await nothing_happens(
        shop,
        lambda: sale.preload("case", 5, opens_at=10, closes_at=10),
        lambda: sale.gate.schedule("phone", opens_at=10, closes_at=9),
        lambda: sale.inventory.preload("case", 5, booked=6),
        lambda: sale.preload("case", 5, per_buyer=0),
        lambda: sale.preload("case", 5, hold=0),
        lambda: sale.queue.claim(0),
        lambda: sale.queue.claim(1001),
        lambda: sale.queue.claim(lease=0),
        lambda: sale.queue.dead(0),
    )
    for batch in (0, 1001, True, 1.0):
        with pytest.raises(InvalidRequest):
            shop.worker(sale, batch=batch)


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


BAD_DATA = {
    "a set": {1},
    "bytes": b"x",
    "an object": object(),
    "NaN": float("nan"),
    "infinity": [float("inf")],
    "odd keys": {(1, 2): 3},
    "64 KiB": "x" * 65536,
    "33 levels": deep(32),
    "100,000 levels": deep(100_000),
}


@pytest.mark.parametrize("bad", BAD_DATA.values(), ids=BAD_DATA)
async def test_data_that_json_cannot_say_is_refused(shop: Shop, bad: Any) -> None:
    sale = await stocked(shop)
    await nothing_happens(
        shop,
        lambda: sale.buy("phone", "ann", data=bad),
        lambda: sale.queue.push(Order("o", "phone", "ann", 1, data=bad)),
    )


async def test_data_at_the_limits_is_taken(shop: Shop) -> None:
    sale = await shop.open(store=True)
    for n, data in enumerate(["x" * 65_000, deep(28), {"": "\0\ud800'\"\\é☎"}, [[]] * 1000]):
        assert (await sale.buy("phone", "ann", order_id=f"o-{n}", data=data)).accepted
    assert await shop.worker(sale).run_once() == 4


async def test_the_largest_and_oddest_good_values_are_taken(shop: Shop) -> None:
    sale = shop.sale()
    goods_id, order_id, buyer_id = "._-" + "A" * 61, "~!|}{:\"\\" + "x" * 120, "|" * 128
    await sale.preload(goods_id, 10**15 - 1)
    await sale.start(goods_id)
    receipt = await sale.buy(goods_id, buyer_id, 1_000_000, order_id=order_id)
    assert (receipt.accepted, receipt.remaining) == (True, 10**15 - 1 - 10**6)
    assert (await sale.buy(goods_id, buyer_id, 1_000_000, order_id=order_id)).replayed
    with pytest.raises(OrderConflict):
        await sale.buy(goods_id, buyer_id[1:], 1_000_000, order_id=order_id)
    assert await sale.inventory.deduct(goods_id, 1_000_000) == 1_000_000
    found = await sale.queue.pop(0)
    assert (found.order_id, found.buyer_id, found.quantity) == (order_id, buyer_id, 1_000_000)


async def test_errors_show_no_buyer_and_no_data(shop: Shop) -> None:
    sale = await shop.open()
    await sale.buy("phone", "secret-buyer", order_id="o-1", data="secret-data")
    shop.raw.delete(shop.keys.meta)
    shop.raw.set(shop.keys.meta, "x")
    for call in (
        sale.buy("phone", "secret-buyer", order_id="o-2", data="secret-data"),
        sale.buy("phone", "secret buyer", data="secret-data"),
    ):
        with pytest.raises(FlashSaleError) as caught:
            await call
        error: BaseException | None = caught.value
        while error:
            assert "secret" not in str(error)
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize("goods_id", ["orderList", "a_count", "a_start", "a_access", "_count"])
async def test_goods_that_collide_with_the_plain_layout_are_refused(shop: Shop, goods_id: str) -> None:
    sale = shop.sale(keys=PlainKeys())
    await nothing_happens(
        shop,
        lambda: sale.preload(goods_id, 5),
        lambda: sale.buy(goods_id, "ann"),
        lambda: sale.gate.enter(goods_id),
        lambda: sale.inventory.deduct(goods_id),
    )


async def test_keys_of_another_sale_are_refused(shop: Shop) -> None:
    with pytest.raises(InvalidRequest):
        shop.part("FlashSale", shop.client(), "spring", keys=PlainKeys("autumn"))


async def test_a_client_of_the_other_face_is_refused(shop: Shop) -> None:
    others = shop.backend.client() if shop.is_async else shop.backend.aclient()
    with pytest.raises(InvalidRequest):
        shop.part("FlashSale", others, "spring")
    with pytest.raises(InvalidRequest):
        shop.part("FlashSale", "redis://127.0.0.1", "spring")
    if not shop.is_async:
        await others.aclose()


# -- rows 29: the scripts themselves --------------------------------------------------------------------------------

RAW_QUANTITIES = [
    "", "0", "-1", "-0", "+1", "01", "1.0", "1.5", "1e1", "1e2", "0x10", " 5", "5 ", "5\n", "nan", "inf", "-inf",
    "1000001", "9" * 15, "1" * 16, "1" + "0" * 30, "1" * 400, "\u0661", "1\0", "\0", "true", "nil",
]  # fmt: skip


@pytest.mark.parametrize("bad", RAW_QUANTITIES, ids=shown)
async def test_the_scripts_refuse_bad_quantities_too(shop: Shop, bad: str) -> None:
    """Other programs call them by EVALSHA, without our checks in Python."""
    sale = await stocked(shop)
    await sale.inventory.load_scripts()
    keys, raw = shop.keys, shop.raw
    group = [keys.meta, keys.orders, keys.order_list, keys.bell, keys.stock("phone"), keys.buyers("phone")]
    body = '{"order_id":"o","goods_id":"phone","buyer_id":"ann","quantity":1}'
    wanted = ["1", "phone", "o", bad, "ann", body]
    before = snapshot(raw)

    def run(name: str, *keys_and_args: Any) -> Any:
        return raw.evalsha(SCRIPTS[name].sha, *keys_and_args)

    assert run("deduct", 1, keys.stock("phone"), bad) == 0
    assert run("release", 1, keys.stock("phone"), bad) == 0
    assert run("enter", 4, *keys.gate("phone"), "1", bad)[0] < 1
    assert run("reserve", 6, *group, "0", "0", *wanted)[0] < 1
    assert run("reserve", 10, *group, *keys.gate("phone"), "0", "2", *wanted)[0] < 1
    assert snapshot(raw) == before


async def test_a_bad_quantity_in_a_raw_batch_fails_alone(shop: Shop) -> None:
    inventory = shop.inventory()
    await inventory.preload("phone", 10)
    await inventory.load_scripts()
    keys = shop.keys
    names = [keys.meta, keys.orders, keys.order_list, keys.bell, keys.stock("phone"), keys.buyers("phone")]
    body = '{"order_id":"%s"}'
    asked = [("a", "2"), ("b", "-3"), ("c", "3")]
    fields = [field for name, units in asked for field in ("1", "phone", name, units, "ann", body % name)]
    reply = shop.raw.evalsha(SCRIPTS["reserve"].sha, 6, *names, "0", "0", *fields)
    assert reply[::3] == [1, -2, 1]
    assert (await inventory.stock("phone")).booked == 5


# -- row 30: what lies in Redis -------------------------------------------------------------------------------------

NOT_INTEGERS = ["10.0", "0x10", "1e2", "-1", "01", " 1", "", "nan", "1" + "0" * 15, "\xff"]


@pytest.mark.parametrize("field", ["Total", "Booked", "Ledger", "per_buyer", "opens_at", "closes_at"])
@pytest.mark.parametrize("bad", NOT_INTEGERS, ids=shown)
async def test_a_corrupt_stock_is_an_error_and_stays_as_it_is(shop: Shop, field: str, bad: str) -> None:
    if field.endswith("_at") and bad in {"10.0", "01", "1" + "0" * 15}:
        pytest.skip("a time")
    sale = await shop.open(20)
    await shop.open(20, sale=sale, goods_id="case")
    await sale.buy("phone", "ann", order_id="before")
    shop.raw.hset(shop.keys.stock("phone"), field, bad.encode("latin-1"))
    before = snapshot(shop.raw)
    calls = [sale.buy("phone", "ann"), sale.inventory.reserve([order()])]
    if field in {"Total", "Booked"}:
        calls += [sale.inventory.deduct("phone")]
    if field in {"Total", "Booked", "Ledger"}:
        calls += [sale.inventory.release("phone"), sale.inventory.stock("phone")]
    for call in calls:
        with pytest.raises(CorruptState) as caught:
            await call
        assert (caught.value.sale, caught.value.goods_id) == ("spring", "phone")
    assert snapshot(shop.raw) == before
    assert (await sale.buy("phone", "ann", order_id="before")).replayed  # the ledger is asked first
    with pytest.raises(CorruptState) as caught:
        await sale.inventory.reserve([order(1), order(2, "case"), order(3)])
    assert [type(answer) for answer in caught.value.answers] == [CorruptState, Receipt, CorruptState]
    assert caught.value.answers[1].outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("field", ["Total", "Booked"])
async def test_a_stock_without_one_of_its_numbers_is_corrupt(shop: Shop, field: str) -> None:
    sale = await shop.open()
    shop.raw.hdel(shop.keys.stock("phone"), field)
    before = snapshot(shop.raw)
    for call in (sale.buy("phone", "ann"), sale.inventory.deduct("phone"), sale.inventory.release("phone")):
        with pytest.raises(CorruptState):
            await call
    assert snapshot(shop.raw) == before


def put_wrong_type(shop: Shop, key: str) -> None:
    """Replaces what is there: a string where a container should be, and the other way round."""
    kind = shop.raw.type(key)
    shop.raw.delete(key)
    if kind == b"string":
        shop.raw.sadd(key, "x")
    else:
        shop.raw.set(key, "1")


@pytest.mark.parametrize(
    "name", ["meta", "orders", "order_list", "bell", "stock", "buyers", "count", "start", "access", "window"]
)
async def test_a_key_of_a_wrong_type_is_an_error_and_stays_as_it_is(shop: Shop, name: str) -> None:
    sale = await shop.open(10, per_buyer=5)
    await sale.buy("phone", "ann")
    key = getattr(shop.keys, name)
    put_wrong_type(shop, key if isinstance(key, str) else key("phone"))
    before = snapshot(shop.raw)
    calls = [sale.buy("phone", "bob"), sale.buy("phone", "bob", order_id="o-9")]
    if name in {"count", "start", "access", "window"}:
        calls += [sale.gate.enter("phone"), sale.gate.state("phone")]
    elif name == "stock":
        calls += [sale.inventory.deduct("phone"), sale.inventory.stock("phone"), sale.inventory.release("phone")]
    if name not in {"count", "start", "access", "window"}:
        calls.append(sale.inventory.reserve([order("o-8", buyer_id="bob")]))
    for call in calls:
        with pytest.raises(CorruptState):
            await call
    assert snapshot(shop.raw) == before


@pytest.mark.parametrize("name", ["count", "access"])
@pytest.mark.parametrize("bad", NOT_INTEGERS, ids=shown)
async def test_a_corrupt_gate_is_an_error_and_stays_as_it_is(shop: Shop, name: str, bad: str) -> None:
    sale = await shop.open(20)
    await shop.open(20, sale=sale, goods_id="case")
    shop.raw.set(getattr(shop.keys, name)("phone"), bad.encode("latin-1"))
    before = snapshot(shop.raw)
    for call in (sale.gate.enter("phone"), sale.gate.state("phone"), sale.buy("phone", "ann")):
        with pytest.raises(CorruptState):
            await call
    if name == "access":
        for call in (sale.gate.leave("phone"), sale.gate.resize("phone", 5)):
            with pytest.raises(CorruptState):
                await call
    assert snapshot(shop.raw) == before
    assert (await sale.gate.enter("case")).admitted


@pytest.mark.parametrize("name", ["count", "start", "access", "window"])
async def test_settings_of_a_gate_of_a_wrong_type_are_left_alone(shop: Shop, name: str) -> None:
    gate = shop.gate()
    await gate.preload("phone", 5)
    put_wrong_type(shop, getattr(shop.keys, name)("phone"))
    before = snapshot(shop.raw)
    calls = {
        "count": [lambda: gate.preload("phone", 6), lambda: gate.start("phone"), lambda: gate.resize("phone", 6)],
        "start": [lambda: gate.start("phone"), lambda: gate.stop("phone")],
        "access": [lambda: gate.leave("phone"), lambda: gate.resize("phone", 6)],
        "window": [lambda: gate.preload("phone", 6), lambda: gate.start("phone"), lambda: gate.schedule("phone")],
    }
    for call in calls[name]:
        with pytest.raises(CorruptState):
            await call()
    assert snapshot(shop.raw) == before


MANGLED = [
    "", "QUEUED", "QUEUED|1|1|phone|1|", "SOLD|1|1|phone|1|ann", "queued|1|1|phone|1|ann", "QUEUED|0|1|phone|1|ann",
    "QUEUED|-1|1|phone|1|ann", "QUEUED|1.0|1|phone|1|ann", "QUEUED|1|2|phone|1|ann", "QUEUED|1|1|ph:ne|1|ann",
    "QUEUED|1|1|phone|x|ann", "QUEUED|1e1|1|phone|1|ann", "\xff\xfe", '{"order_id": 1}',
]  # fmt: skip


@pytest.mark.parametrize("bad", MANGLED, ids=shown)
async def test_a_mangled_record_is_an_error_and_stays_as_it_is(shop: Shop, bad: str) -> None:
    sale = await shop.open(10, store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    shop.raw.hset(shop.keys.orders, "o-1", bad.encode("latin-1"))
    before = snapshot(shop.raw)
    for call in (
        lambda: sale.buy("phone", "ann", order_id="o-1"),
        lambda: sale.inventory.reserve([order("o-1")]),
        lambda: sale.status("o-1"),
        lambda: sale.cancel("o-1"),
        lambda: sale.confirm("o-1"),
    ):
        with pytest.raises(CorruptState):
            await call()
    assert snapshot(shop.raw) == before
    receipts = await sale.inventory.reserve([order("o-2")])
    assert receipts[0].accepted


@pytest.mark.parametrize("field", ["Booked", "Ledger", "Total"])
async def test_nothing_is_released_into_a_corrupt_stock(shop: Shop, field: str) -> None:
    sale = await shop.open(10, store=True)
    await sale.buy("phone", "ann", order_id="o-1")
    good = shop.raw.hget(shop.keys.stock("phone"), field)
    shop.raw.hset(shop.keys.stock("phone"), field, "1.0")
    before = snapshot(shop.raw)
    with pytest.raises(CorruptState):
        await sale.cancel("o-1")
    assert snapshot(shop.raw) == before
    shop.raw.hset(shop.keys.stock("phone"), field, good)
    assert await sale.cancel("o-1") is OrderState.CANCELLED
    assert (await sale.inventory.stock("phone")).booked == 0


@pytest.mark.parametrize("name", ["orders", "holds", "dead", "stock", "buyers", "access"])
async def test_a_key_of_a_wrong_type_stops_a_cancellation_in_redis(shop: Shop, name: str) -> None:
    """The database has decided; asked again when the key is mended, the units return once."""
    sale = await shop.open(10, store=True, per_buyer=5)
    await sale.buy("phone", "ann", order_id="o-1")
    key = getattr(shop.keys, name)
    key = key if isinstance(key, str) else key("phone")
    saved = shop.raw.dump(key) if shop.backend.kind == "redis" else None
    put_wrong_type(shop, key)
    before = snapshot(shop.raw)
    with pytest.raises(CorruptState):
        await sale.cancel("o-1")
    assert snapshot(shop.raw) == before
    shop.raw.delete(key)
    if saved:
        shop.raw.restore(key, 0, saved)
    if saved or name in {"holds", "dead"}:
        assert await sale.cancel("o-1") is OrderState.CANCELLED
        assert (await sale.inventory.stock("phone")).booked == 0


@pytest.mark.parametrize("field", ["seq", "state", "deliveries"])
async def test_a_mangled_meta_is_an_error_and_stays_as_it_is(shop: Shop, field: str) -> None:
    sale = await shop.open(10)
    await sale.buy("phone", "ann", order_id="o-1")
    shop.raw.hset(shop.keys.meta, field, "1.5")
    before = snapshot(shop.raw)
    if field == "state":  # what is not "open" is not open
        assert (await sale.buy("phone", "ann")).outcome is Outcome.PAUSED
    elif field == "seq":
        with pytest.raises(CorruptState):
            await sale.buy("phone", "ann")
    else:
        with pytest.raises(CorruptState):
            await sale.queue.claim()
    assert snapshot(shop.raw) == before


async def test_a_layout_of_a_newer_release_is_left_alone(shop: Shop) -> None:
    sale = await shop.open(10)
    shop.raw.hset(shop.keys.meta, "layout", "2")
    before = snapshot(shop.raw)
    with pytest.raises(CorruptState):
        await sale.preload("case", 5)
    assert snapshot(shop.raw) == before


# -- each promise has its mechanism ---------------------------------------------------------------------------------

NUMBER = "local function integer(text)\n"


@pytest.mark.parametrize("script", ["deduct", "release", "enter", "reserve"])
async def test_without_the_check_in_lua_bad_quantities_get_through(
    real_shop: Shop, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    mutate(monkeypatch, script, NUMBER, NUMBER + "  if true then return tonumber(text) end\n")
    with pytest.raises((AssertionError, CorruptState)):
        for bad in ("1e0", "0x1"):
            await test_the_scripts_refuse_bad_quantities_too(real_shop, bad)
            real_shop.raw.flushall()
