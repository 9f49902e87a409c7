"""Rows 25, 26 and 28 to 31: what comes from outside, or lies in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flashsale import CorruptState, InvalidRequest, OrderConflict, OrderState
from tests.chaos.faults.catalogue import fault
from tests.core import test_bad_input as bad
from tests.support.helpers import order, snapshot

if TYPE_CHECKING:
    from tests.chaos.faults.world import World


async def _only_good_orders_are_saved(world: World, sale: Any, bodies: list[bytes]) -> None:
    """Elements that are no orders lie between two that are."""
    assert (await sale.buy("phone", "ann", order_id="before")).accepted
    for body in bodies:
        world.raw.lpush(world.keys.order_list, body)
    assert (await sale.buy("phone", "ann", order_id="after")).accepted
    await world.drain(sale)
    assert sorted(claim.body for claim in await sale.queue.dead()) == sorted(bodies)
    assert await world.orders(sale) == dict.fromkeys(["before", "after"], OrderState.PERSISTED), "E: good orders wait"


@fault(
    25,
    "malformed or non-UTF-8 element",
    "LPUSH bytes",
    holds="E",
    mechanism="replies are bytes, whatever the host's client does; what is no order is dead",
    without=("bytes",),
)
async def test_row_25_malformed_element(world: World) -> None:
    sale = await world.sell(world.connect(world.redis_server.port, decode_responses=True))
    bodies = [b"\xff\xfe{}", b"\x00", b"hello", b"[1]", b"{}", b'{"order_id":"a","goods_id":"phone","quantity":1}']
    await _only_good_orders_are_saved(world, sale, bodies)


@fault(
    26,
    "huge or deep payload",
    "1 MB; 100,000 brackets",
    holds="T",
    mechanism="caps of 64 KiB and of 32 levels",
    without=(
        "the cap on the length",
        "the cap on the depth",
    ),
)
async def test_row_26_huge_payload(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    before = snapshot(world.raw)
    for data in ("x" * 1_000_000, bad.deep(40), bad.deep(100_000)):
        await world.answered(InvalidRequest, sale.buy("phone", "ann", data=data))
    assert snapshot(world.raw) == before
    huge = order(data="x" * 60_000).to_json().replace("x" * 60_000, "x" * 1_000_000)
    await _only_good_orders_are_saved(world, sale, [huge.encode(), b"[" * 100_000, b'{"a":' * 100_000])


@fault(
    28,
    "id reused, other content",
    "another quantity, item or buyer",
    holds="T",
    mechanism="the script compares; `OrderConflict`",
    without=("the comparison of a repeat",),
)
async def test_row_28_id_reused(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    await sale.preload("case", 5)
    await sale.start("case")
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    before = snapshot(world.raw)
    for other in (("phone", "ann", 2), ("phone", "bob", 1), ("case", "ann", 1)):
        conflict = await world.answered(OrderConflict, sale.buy(*other, order_id="o-1"))
        assert conflict.order_id == "o-1"
    assert snapshot(world.raw) == before
    await world.holds(sale, ["o-1"], total=10)


@fault(
    29,
    "bad quantity",
    '-1, 0, 1.5, "0x10", "1e2", " 5", True, 10**30, Arabic digits',
    holds="O T",
    mechanism="checked in Python and in Lua",
    without=(
        "the check in Python",
        *(f"whole numbers in {name}" for name in ("reserve", "deduct", "enter")),
    ),
)
async def test_row_29_bad_quantity(world: World) -> None:
    await bad.test_the_scripts_refuse_bad_quantities_too(world)
    sale = await bad.stocked(world)
    before = snapshot(world.raw)
    for quantity in bad.BAD_QUANTITIES:
        await world.answered(InvalidRequest, sale.buy("phone", "ann", quantity))
        await world.answered(InvalidRequest, sale.gate.enter("phone", quantity))
        await world.answered(InvalidRequest, sale.inventory.deduct("phone", quantity))
    assert snapshot(world.raw) == before


@fault(
    30,
    "corrupt hash",
    'Booked = "10.0", missing, wrong type',
    holds="O T",
    mechanism="all is read before the first write; `CorruptState`",
    without=(
        "whole numbers in reserve",
        "the read before the first write",
    ),
)
async def test_row_30_corrupt_hash(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    stock = world.keys.stock("phone")
    sound = {key: world.raw.dump(key) for key in world.raw.keys("*")}

    async def refused() -> None:
        before = snapshot(world.raw)
        await world.answered(CorruptState, sale.buy("phone", "ann"))
        assert snapshot(world.raw) == before, "O: half a purchase was written"
        for key, value in sound.items():
            world.raw.restore(key, 0, value, replace=True)

    for field in ("Total", "Booked", "Ledger"):
        for value in bad.NOT_INTEGERS:
            world.raw.hset(stock, field, value)
            await refused()
    for field in ("Total", "Booked"):
        world.raw.hdel(stock, field)
        await refused()
    for key in (stock, world.keys.order_list, world.keys.orders, world.keys.meta):
        bad.put_wrong_type(world, key)
        await refused()
    await world.holds(sale, ["o-1"], total=10)


@fault(
    31,
    "id injection",
    '"}", ":", newline, "..", NUL, a lone surrogate',
    holds="O T",
    mechanism="`fullmatch`",
    without=(
        "fullmatch",
        "the check of ids",
    ),
)
async def test_row_31_id_injection(world: World) -> None:
    sale = await world.sell(world.redis_server.port)
    before = snapshot(world.raw)
    for name in bad.BAD_NAMES:
        await world.answered(InvalidRequest, sale.buy(name, "ann"))
        await world.answered(InvalidRequest, sale.inventory.deduct(name))
    for name in bad.BAD_IDS:
        await world.answered(InvalidRequest, sale.buy("phone", name))
        await world.answered(InvalidRequest, sale.status(name))
        if name is not None:  # then we make one
            await world.answered(InvalidRequest, sale.buy("phone", "ann", order_id=name))
    assert snapshot(world.raw) == before
    assert (await sale.buy("phone", "..", order_id="../{}:*")).accepted  # printable, and so harmless
    await world.holds(sale, ["../{}:*"], total=10)
