"""A blocked sale costs nothing: refusals are answered from the process, and never for long."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, Outcome
from flashsale.model.checks import new_order_id
from tests.support import servers
from tests.support.helpers import clock, until

if TYPE_CHECKING:
    from tests.support.helpers import Shop


def calls(shop: Shop) -> int:
    """How many script calls the server has seen."""
    stats = shop.raw.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def shut(shop: Shop, why: Outcome, **settings: Any) -> Any:
    """A sale that refuses for this reason."""
    now = clock(shop.raw)
    sale = shop.sale(**settings)
    window = {Outcome.NOT_STARTED: {"opens_at": now + 600}, Outcome.ENDED: {"closes_at": now - 1}}.get(why, {})
    await shop.open(0 if why is Outcome.SOLD_OUT else 10, sale=sale, **window)
    if why is Outcome.PAUSED:
        await sale.pause()
    return sale


@pytest.mark.parametrize("why", [Outcome.NOT_STARTED, Outcome.ENDED, Outcome.PAUSED, Outcome.SOLD_OUT])
async def test_a_refusal_costs_no_round_trip_while_it_is_remembered(real_shop: Shop, why: Outcome) -> None:
    sale = await shut(real_shop, why, cache_for=60)
    first = await sale.buy("phone", "ann")
    before = calls(real_shop)
    answers = await asyncio.gather(*(sale.buy("phone", f"b-{n}") for n in range(200)))
    answers += [await sale.gate.enter("phone") for _ in range(50)]
    assert {answer.outcome for answer in answers} == {first.outcome} == {why}
    assert {answer.remaining for answer in answers} == {first.remaining}
    assert calls(real_shop) == before


async def test_without_the_cache_every_call_asks(real_shop: Shop) -> None:
    sale = await shut(real_shop, Outcome.NOT_STARTED, cache_for=0)
    before = calls(real_shop)
    for _ in range(20):
        await sale.buy("phone", "ann")
    assert calls(real_shop) == before + 20


async def test_what_may_change_with_the_caller_is_not_remembered(shop: Shop) -> None:
    """Fewer left than asked, and the limit of one buyer: the next caller may be luckier."""
    sale = await shop.open(3, sale=shop.sale(cache_for=60), per_buyer=2)
    assert (await sale.buy("phone", "ann", 2)).accepted
    assert (await sale.buy("phone", "ann")).outcome is Outcome.LIMIT_REACHED
    assert (await sale.buy("phone", "bob", 2)).outcome is Outcome.SOLD_OUT
    assert (await sale.buy("phone", "bob")).accepted


async def test_a_remembered_answer_never_answers_who_brings_an_id(shop: Shop) -> None:
    """Behind the answer another process may have opened the sale; and a retry must find its order."""
    sale = await shop.open(1, sale=shop.sale(cache_for=60))
    await sale.buy("phone", "ann", order_id="o-1")
    assert (await sale.buy("phone", "bob")).outcome is Outcome.SOLD_OUT
    assert (await sale.buy("phone", "ann", order_id="o-1")).replayed
    shop.raw.hset(shop.keys.stock("phone"), "Total", "5")
    shop.raw.set(shop.keys.count("phone"), "5")
    assert (await sale.buy("phone", "bob", order_id="o-2")).accepted


async def test_a_remembered_answer_never_answers_who_brings_an_id_on_two_redis(shop: Shop) -> None:
    sale = shop.sale(gate_client=shop.client(db=1), cache_for=60)
    other = shop.sale(gate_client=shop.client(db=1), cache_for=60)
    await sale.preload("phone", 5)
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    await other.start("phone")
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted


async def test_who_finds_the_sale_open_sends_the_others_to_ask(shop: Shop) -> None:
    sale, other = shop.sale(cache_for=60), shop.sale()
    await sale.preload("phone", 5)
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
    await other.start("phone")
    assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    assert (await sale.buy("phone", "bob")).accepted


OTHER_PROCESS = """
import sys, redis, flashsale
from flashsale.stores import SQLAlchemyStore
url, database, what = sys.argv[1:]
with redis.Redis.from_url(url) as client, SQLAlchemyStore(database, "spring") as store:
    with flashsale.FlashSale(client, "spring", store=store) as sale:
        {"start": sale.start, "stop": sale.stop, "cancel": sale.cancel}[what]("o-1" if what == "cancel" else "phone")
"""


@pytest.mark.parametrize("what", ["start", "cancel"])
async def test_what_another_process_does_is_seen_soon(real_shop: Shop, redis_url: str, what: str) -> None:
    shop = real_shop
    sale = shop.sale(store=await shop.store(Goods("phone", 1)))
    await sale.preload("phone", 1)
    if what == "cancel":
        await sale.start("phone")
        assert (await sale.buy("phone", "ann", order_id="o-1")).accepted
    assert not (await sale.buy("phone", "bob")).accepted
    arguments = [sys.executable, "-c", OTHER_PROCESS, redis_url, f"sqlite:///{shop.database}", what]
    await asyncio.to_thread(subprocess.run, arguments, check=True)

    async def bought() -> bool:
        return (await sale.buy("phone", "bob")).accepted

    await until(bought, f"the {what} of another process")


async def test_a_stop_elsewhere_is_seen_at_once_by_who_asks(shop: Shop) -> None:
    """Only refusals are remembered, so an open sale is asked for every time."""
    sale, other = shop.sale(cache_for=60), shop.sale()
    await shop.open(5, sale=sale)
    assert (await sale.buy("phone", "ann")).accepted
    await other.stop("phone")
    assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED


async def test_an_aged_refusal_sends_one_caller_to_ask(real_shop: Shop) -> None:
    sale = await shut(real_shop, Outcome.NOT_STARTED, cache_for=60)
    await sale.buy("phone", "ann")
    for refusal in sale.real.gate._refusals.by_goods.values():
        refusal.fresh_until = 0.0  # it has aged
    before = calls(real_shop)
    answers = await asyncio.gather(*(sale.buy("phone", f"b-{n}") for n in range(100)))
    assert {answer.outcome for answer in answers} == {Outcome.NOT_STARTED}
    assert calls(real_shop) == before + 1


async def test_every_refusal_is_counted_and_has_an_id_of_its_own(shop: Shop) -> None:
    sale = await shop.open(0, sale=shop.sale(cache_for=60))
    receipts = [await sale.buy("phone", "ann") for _ in range(1000)]
    assert len({receipt.order_id for receipt in receipts}) == 1000
    await asyncio.gather(*(sale.gate.enter("phone") for _ in range(10)))
    sale.real.gate._refusals.forget()
    await asyncio.gather(*(sale.gate.enter("phone") for _ in range(10)))
    assert sale.real.gate._refusals.counts["phone", Outcome.SOLD_OUT] == 1020


def test_a_forked_child_makes_other_ids() -> None:
    new_order_id()  # more are at hand now
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, "".join(new_order_id() for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 3200).decode()
    os.close(read)
    os.close(write)
    assert len(theirs) == 3200
    assert not {theirs[at : at + 32] for at in range(0, 3200, 32)} & {new_order_id() for _ in range(200)}


# -- the replica ----------------------------------------------------------------------------------------------------


async def on_replica(shop: Shop, primary: servers.RedisServer, replica: servers.RedisServer, **settings: Any) -> Any:
    """A sale on a server of its own, whose gate is read from its replica."""
    ours, its = (shop.keep(server.aclient()) if shop.is_async else server.client() for server in (primary, replica))
    return shop.make("FlashSale", ours, "spring", gate_replica=its, **settings)


async def test_the_replica_answers_while_the_sale_is_shut(real_shop: Shop) -> None:
    with servers.redis_server() as primary, servers.redis_server(replica_of=primary) as replica:
        sale = await on_replica(real_shop, primary, replica, cache_for=0.02)
        await sale.preload("phone", 10)
        replica.catch_up(primary)
        for _ in range(50):
            assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
            await asyncio.sleep(0.01)
        asked = {
            name: server.client().info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
            for name, server in (("primary", primary), ("replica", replica))
        }
        assert asked["replica"] > 0
        await sale.start("phone")
        replica.catch_up(primary)
        assert (await sale.buy("phone", "ann")).accepted
        assert (await sale.gate.state("phone")).started
        await sale.close()


@pytest.mark.parametrize("fault", ["cut off", "dead"])
async def test_a_replica_that_is_gone_does_not_keep_the_sale_shut(real_shop: Shop, fault: str) -> None:
    with servers.redis_server() as primary, servers.redis_server(replica_of=primary) as replica:
        sale = await on_replica(real_shop, primary, replica)
        await sale.preload("phone", 10)
        replica.catch_up(primary)
        assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
        if fault == "dead":
            replica.kill()
        else:
            replica.client().replicaof("NO", "ONE")  # it goes on answering with what it knew
        primary.client().set(real_shop.keys.start("phone"), 1)  # somebody else starts the sale

        async def bought() -> bool:
            return (await sale.buy("phone", "ann")).accepted

        await until(bought, "a purchase")
        if fault == "cut off":
            assert replica.client().get(real_shop.keys.start("phone")) == b"0"
        await sale.close()


async def test_a_replica_never_admits(real_shop: Shop) -> None:
    """It says "open" while the primary is shut again: the primary decides."""
    with servers.redis_server() as primary, servers.redis_server(replica_of=primary) as replica:
        sale = await on_replica(real_shop, primary, replica, cache_for=0.01)
        await shop_opened(sale)
        replica.catch_up(primary)
        replica.client().replicaof("NO", "ONE")
        await sale.stop("phone")
        for _ in range(10):
            assert (await sale.buy("phone", "ann")).outcome is Outcome.NOT_STARTED
            assert (await sale.gate.enter("phone")).outcome is Outcome.NOT_STARTED
            await asyncio.sleep(0.01)
        await sale.close()


async def shop_opened(sale: Any) -> None:
    await sale.preload("phone", 10)
    await sale.start("phone")
